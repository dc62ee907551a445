package intake

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/tocsin-dev/tocsin/internal/bus"
	"github.com/tocsin-dev/tocsin/internal/fault"
	alertv1 "github.com/tocsin-dev/tocsin/proto/gen/tocsin/alert/v1"
	notifyv1 "github.com/tocsin-dev/tocsin/proto/gen/tocsin/notify/v1"
)

var created = time.Date(2026, 11, 1, 0, 0, 0, 5, time.UTC)

// shelf is a stream that ends.
type shelf struct {
	state    bus.StreamState
	messages []bus.Delivery
}

var errShelfEnd = errors.New("the shelf ends")

func (s *shelf) StreamState(context.Context, string) (bus.StreamState, error) { return s.state, nil }

func (s *shelf) Read(_ context.Context, o bus.ReadOptions, handle func(bus.Delivery) error) error {
	for _, d := range s.messages {
		if d.Seq >= o.From {
			if err := handle(d); err != nil {
				return err
			}
		}
	}
	return errShelfEnd
}

func newShelf(t *testing.T) *shelf {
	t.Helper()
	s := &shelf{state: bus.StreamState{Created: created, FirstSeq: 5, LastSeq: 7, Messages: 3}}
	kinds := []alertv1.TransitionKind{
		alertv1.TransitionKind_TRANSITION_KIND_FIRING, alertv1.TransitionKind_TRANSITION_KIND_RENEWED,
	}
	for seq := uint64(5); seq <= 7; seq++ {
		var b alertv1.TransitionBatch
		for i, kind := range kinds {
			tr := at("log", seq, uint32(i))
			tr.Kind = kind
			tr.Alert.Labels = map[string]string{"severity": []string{"info", "critical"}[seq%2]}
			b.Transitions = append(b.Transitions, tr)
		}
		data, err := proto.Marshal(&b)
		if err != nil {
			t.Fatal(err)
		}
		if seq == 6 {
			data = append(data, 0xff) // cannot be read
		}
		s.messages = append(s.messages, bus.Delivery{Seq: seq, Data: data})
	}
	return s
}

func watch(t *testing.T, s *shelf, req *notifyv1.WatchAlertsRequest) (ids, tokens []string, err error) {
	t.Helper()
	err = Watch(t.Context(), slog.New(slog.DiscardHandler), s, req, func(r *notifyv1.WatchAlertsResponse) error {
		ids, tokens = append(ids, r.GetTransition().GetAlert().GetId()), append(tokens, r.GetResumeToken())
		return nil
	})
	return ids, tokens, err
}

func TestWatch(t *testing.T) {
	token := func(seq uint64, index int) string { return place{created: created, seq: seq, index: index}.String() }
	for _, c := range []struct {
		name string
		req  *notifyv1.WatchAlertsRequest
		want []string
	}{
		{"without a token only what comes later", &notifyv1.WatchAlertsRequest{}, nil},
		{"after the token, without renewals", &notifyv1.WatchAlertsRequest{ResumeToken: token(4, whole)}, []string{"log5 0", "log7 0"}},
		{"within a message", &notifyv1.WatchAlertsRequest{ResumeToken: token(5, 0), IncludeRenewed: true}, []string{"log5 1", "log7 0", "log7 1"}},
		{"matchers", &notifyv1.WatchAlertsRequest{ResumeToken: token(4, whole), Matchers: []string{`severity="info"`}}, nil},
		{"all matchers must hold", &notifyv1.WatchAlertsRequest{ResumeToken: token(4, whole), Matchers: []string{`severity=~"c.*"`, `severity!="x"`}}, []string{"log5 0", "log7 0"}},
		{"at the end", &notifyv1.WatchAlertsRequest{ResumeToken: token(7, 1)}, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			ids, _, err := watch(t, newShelf(t), c.req)
			if fault.Of(err) != fault.Unavailable {
				t.Errorf("ended with %v, want unavailable", err)
			}
			if !slices.Equal(ids, c.want) {
				t.Errorf("sent %q, want %q", ids, c.want)
			}
		})
	}
}

func TestEveryTokenThatWasSentLeadsOn(t *testing.T) {
	all, tokens, _ := watch(t, newShelf(t), &notifyv1.WatchAlertsRequest{ResumeToken: place{created: created, seq: 4, index: whole}.String(), IncludeRenewed: true})
	for i, token := range tokens {
		rest, _, _ := watch(t, newShelf(t), &notifyv1.WatchAlertsRequest{ResumeToken: token, IncludeRenewed: true})
		if !slices.Equal(rest, all[i+1:]) {
			t.Errorf("after %s came %q, want %q", token, rest, all[i+1:])
		}
	}
}

func TestTokensThatLeadNowhereAreRefused(t *testing.T) {
	for _, c := range []struct {
		name, token string
		kind        fault.Kind
	}{
		{"of another stream", place{created: created.Add(1), seq: 5}.String(), fault.Invalid},
		{"beyond the end", place{created: created, seq: 8}.String(), fault.Invalid},
		{"aged out", place{created: created, seq: 3, index: whole}.String(), fault.Permanent},
		{"within a message that aged out", place{created: created, seq: 4, index: 0}.String(), fault.Permanent},
		{"not ours", "hello", fault.Invalid},
		{"not numbers", "a-b-c!", fault.Invalid},
		{"a negative index", "1-1--1", fault.Invalid},
	} {
		if _, _, err := watch(t, newShelf(t), &notifyv1.WatchAlertsRequest{ResumeToken: c.token}); fault.Of(err) != c.kind {
			t.Errorf("%s: %v, want the kind %v", c.name, err, c.kind)
		}
	}
	if _, _, err := watch(t, newShelf(t), &notifyv1.WatchAlertsRequest{Matchers: make([]string, maxMatchers+1)}); fault.Of(err) != fault.Invalid {
		t.Errorf("too many matchers: %v", err)
	}
}

func TestAReaderThatLeavesEndsTheWatch(t *testing.T) {
	gone := errors.New("gone")
	err := Watch(t.Context(), slog.New(slog.DiscardHandler), newShelf(t),
		&notifyv1.WatchAlertsRequest{ResumeToken: place{created: created, seq: 4, index: whole}.String()},
		func(*notifyv1.WatchAlertsResponse) error { return gone })
	if !errors.Is(err, gone) {
		t.Errorf("ended with %v", err)
	}
}
