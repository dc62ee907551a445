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

// storedAt is when a message was stored.
func storedAt(seq uint64) time.Time { return created.Add(time.Duration(seq) * time.Second) }

// token is the resume token of a place.
func token(seq uint64, index int) string {
	return place{created: created, seq: seq, stored: storedAt(seq), index: index}.String()
}

var errShelfEnd = errors.New("the shelf ends")

func (s *shelf) StreamState(context.Context, string) (bus.StreamState, error) { return s.state, nil }

func (s *shelf) Read(_ context.Context, o bus.ReadOptions, handle func(bus.Delivery) error) error {
	for _, known := range o.Known {
		for _, d := range s.messages {
			if d.Seq == known.Seq && !d.Time.Equal(known.Time) {
				return bus.ErrStreamReplaced
			}
		}
	}
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
		s.messages = append(s.messages, bus.Delivery{Seq: seq, Time: storedAt(seq), Data: data})
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
	all, tokens, _ := watch(t, newShelf(t), &notifyv1.WatchAlertsRequest{ResumeToken: token(4, whole), IncludeRenewed: true})
	for i, after := range tokens {
		rest, _, _ := watch(t, newShelf(t), &notifyv1.WatchAlertsRequest{ResumeToken: after, IncludeRenewed: true})
		if !slices.Equal(rest, all[i+1:]) {
			t.Errorf("after %s came %q, want %q", after, rest, all[i+1:])
		}
	}
}

func TestTokensThatLeadNowhereAreRefused(t *testing.T) {
	for _, c := range []struct {
		name, token string
		kind        fault.Kind
	}{
		{"of another stream", place{created: created.Add(1), seq: 5, stored: storedAt(5)}.String(), fault.Invalid},
		{"of a message that another took the place of", place{created: created, seq: 5, stored: storedAt(6)}.String(), fault.Invalid},
		{"beyond the end", token(8, 0), fault.Invalid},
		{"aged out", token(3, whole), fault.Permanent},
		{"within a message that aged out", token(4, 0), fault.Permanent},
		{"not ours", "hello", fault.Invalid},
		{"not numbers", "a-b-c!-d", fault.Invalid},
		{"a negative index", "1-1-1--1", fault.Invalid},
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
		&notifyv1.WatchAlertsRequest{ResumeToken: token(4, whole)},
		func(*notifyv1.WatchAlertsResponse) error { return gone })
	if !errors.Is(err, gone) {
		t.Errorf("ended with %v", err)
	}
}
