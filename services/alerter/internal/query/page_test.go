package query

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/tocsin-dev/tocsin/internal/event"
	alertv1 "github.com/tocsin-dev/tocsin/proto/gen/tocsin/alert/v1"
	queryv1 "github.com/tocsin-dev/tocsin/proto/gen/tocsin/query/v1"
	statev1 "github.com/tocsin-dev/tocsin/proto/gen/tocsin/state/v1"
)

func TestAPageEndsBeforeItIsTooLargeToSend(t *testing.T) {
	p, err := newPage(&queryv1.ListAlertsRequest{PageSize: 1000}, "alerts")
	if err != nil {
		t.Fatal(err)
	}
	f := filler{page: p}
	big := &alertv1.Alert{Annotations: map[string]string{"text": strings.Repeat("x", 1<<20)}}
	n := 0
	for f.add(string(rune('a'+n)), big) {
		n++
	}
	if n != 2 || f.next == "" {
		t.Fatalf("%d alerts of 1 MiB on a page, next %q; want 2 and a next page", n, f.next)
	}
	next, err := newPage(&queryv1.ListAlertsRequest{PageToken: f.next}, "alerts")
	if err != nil {
		t.Fatal(err)
	}
	if next.after != "b" || next.size != defaultPage {
		t.Errorf("the next page begins after %q with %d, want after b with %d", next.after, next.size, defaultPage)
	}
	huge := &alertv1.Alert{Annotations: map[string]string{"text": strings.Repeat("x", 5<<20)}}
	if alone := (&filler{page: p}); !alone.add("a", huge) {
		t.Error("what is too large by itself is never listed")
	}
}

func TestFreshness(t *testing.T) {
	start := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	at := func(seconds int) time.Time { return start.Add(time.Duration(seconds) * time.Second) }
	head := func(seq uint64, seconds int) *statev1.StoredHead {
		return &statev1.StoredHead{Position: &statev1.Position{AppliedSequence: seq, AppliedTime: timestamppb.New(at(seconds))}}
	}
	type own struct {
		seq uint64
		at  time.Time
	}
	const unknown = time.Duration(-1)
	for name, c := range map[string]struct {
		heads [2]*statev1.StoredHead
		own   map[int]own
		end   error
		seq   uint64
		lag   time.Duration
	}{
		"own partitions that are up to date": {
			[2]*statev1.StoredHead{head(50, 50), head(90, 90)}, map[int]own{0: {100, at(100)}, 1: {100, at(100)}}, nil, 100, 0,
		},
		"an own partition that lags": {
			[2]*statev1.StoredHead{head(50, 50), head(90, 90)}, map[int]own{0: {60, at(60)}, 1: {100, at(100)}}, nil, 60, 40 * time.Second,
		},
		"a foreign partition that is quiet": {
			[2]*statev1.StoredHead{head(50, 50), head(90, 90)}, map[int]own{1: {100, at(100)}}, nil, 50, 0,
		},
		"a foreign partition that stands still": {
			[2]*statev1.StoredHead{head(10, 10), head(90, 90)}, map[int]own{1: {100, at(100)}}, nil, 10, 90 * time.Second,
		},
		"a partition of which nothing is applied": {
			[2]*statev1.StoredHead{nil, head(90, 90)}, map[int]own{0: {0, time.Time{}}, 1: {100, at(100)}}, nil, 0, unknown,
		},
		"a foreign partition that is lost": {
			[2]*statev1.StoredHead{nil, head(90, 90)}, map[int]own{1: {100, at(100)}}, nil, 0, unknown,
		},
		"an end that is not known": {
			[2]*statev1.StoredHead{head(50, 50), head(90, 90)}, nil, errors.New("away"), 50, unknown,
		},
	} {
		t.Run(name, func(t *testing.T) {
			view := NewView(nil, nil)
			for p, o := range c.own {
				view.Loaded(p, nil, func() (uint64, time.Time) { return o.seq, o.at })
			}
			s := NewServer(Options{View: view, End: func(context.Context) (uint64, time.Time, error) { return 100, at(100), c.end }})
			heads := make([]*statev1.StoredHead, event.Partitions)
			copy(heads, c.heads[:])
			f := s.freshness(t.Context(), heads, []int{0, 1})
			if f.GetAppliedSequence() != c.seq {
				t.Errorf("applied up to %d, want %d", f.GetAppliedSequence(), c.seq)
			}
			lag := unknown
			if f.GetLag() != nil {
				lag = f.GetLag().AsDuration()
			}
			if lag != c.lag {
				t.Errorf("lag %v, want %v", lag, c.lag)
			}
		})
	}
}
