package notifier_test

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/tocsin-dev/tocsin/internal/bus"
	"github.com/tocsin-dev/tocsin/internal/servertest"
	alertv1 "github.com/tocsin-dev/tocsin/proto/gen/tocsin/alert/v1"
)

// TestStreamsThatWereCutAndGrewAgain takes the end of the notifier's streams
// away, in every way that an operator, a backup or a crash can, and lets ALERTS
// grow to more than it was. Everything that fires in what grew is told, whatever
// was told as firing is told to be over, and nothing is told twice.
func TestStreamsThatWereCutAndGrewAgain(t *testing.T) {
	if testing.Short() {
		t.Skip("each case restarts NATS twice")
	}
	restore := func(streams ...string) func(*testing.T, *servertest.Backup) {
		return func(t *testing.T, b *servertest.Backup) { b.Restore(t, streams...) }
	}
	for name, c := range map[string]struct {
		lose func(*testing.T, *servertest.Backup)     // with NATS stopped
		undo func(*testing.T, *servertest.NATSServer) // with NATS running again
		// forgets is true if the notifier cannot know of what was lost, when it was
		// away, since all that it knew was put back.
		forgets bool
		// quiet is true if nothing tells a running notifier in all cases.
		quiet bool
	}{
		"alerts put back":     {lose: restore(bus.AlertsStream)},
		"deliveries put back": {lose: restore(bus.DeliveriesStream), quiet: true},
		"both put back":       {lose: restore(bus.AlertsStream, bus.DeliveriesStream)},
		"everything put back": {lose: restore(), forgets: true},
		"alerts deleted": {undo: func(t *testing.T, s *servertest.NATSServer) {
			s.Call(t, "STREAM.DELETE."+bus.AlertsStream, "")
			if _, err := s.Conn(t).EnsureStream(t.Context(), bus.Alerts()); err != nil {
				t.Fatal(err)
			}
		}},
		"deliveries deleted": {undo: func(t *testing.T, s *servertest.NATSServer) {
			s.Call(t, "STREAM.DELETE."+bus.DeliveriesStream, "")
		}},
	} {
		for when, running := range map[string]bool{"away": false, "running": true} {
			t.Run(name+"/"+when, func(t *testing.T) {
				t.Parallel()
				nats, h, s := servertest.NATS(t), newHook(t), &story{}
				proxy := servertest.NewProxy(t, nats.Addr())
				begin := func() *process { return start(t, "nats://"+proxy.Addr(), standardTo(h)) }
				begin().stop(t) // so that there is a snapshot
				p := begin()
				p.notify(t, s.fire("kept"))
				heard(t, h, "kept", "firing")
				p.stop(t)
				p = begin()
				backup := nats.Backup(t)
				p.store(t, s.fire("lost"))
				heard(t, h, "lost", "firing")
				p.store(t, s.fire("done"))
				heard(t, h, "done", "firing")
				p.store(t, s.resolve("done"))
				heard(t, h, "done", "resolved")
				if !running {
					p.stop(t)
				}
				proxy.Cut()
				nats.Stop()
				if c.lose != nil {
					c.lose(t, backup)
				}
				nats.Start(t)
				if c.undo != nil {
					c.undo(t, nats)
				}
				const grown = 8
				for i := range grown {
					grow(t, nats, s.fire(fmt.Sprint("new", i)))
				}
				proxy.Heal()
				if !running {
					p = begin()
				}
				for i := range grown {
					heard(t, h, fmt.Sprint("new", i), "firing")
				}
				// On a slow machine the lease lapses while NATS restarts, and what the
				// notifier knew beyond its last snapshot is gone with it, as in a crash.
				lapsed := running && strings.Contains(p.log.String(), "the lease of the notifier ended")
				ended := []string{"kept"}
				if !c.forgets || running && !lapsed {
					ended = append(ended, "lost")
				}
				for i := range grown {
					ended = append(ended, fmt.Sprint("new", i))
				}
				for _, id := range ended {
					p.store(t, s.resolve(id))
				}
				for _, id := range ended {
					heard(t, h, id, "resolved")
				}
				p.store(t, s.fire("later"))
				heard(t, h, "later", "firing")
				once(t, h, lapsed)
				mayBeSilent := c.forgets && !running || c.quiet && running || lapsed
				if !mayBeSilent && !strings.Contains(p.log.String(), "lost what was in it") {
					t.Error("nobody said that a stream was cut")
				}
			})
		}
	}
}

// store stores transitions in partition 7 of a notifier that may be about to lead
// again.
func (p *process) store(t *testing.T, transition *alertv1.Transition) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	out := &sender{client: p.client}
	out.send(ctx, t, transition)
}

// grow stores a transition as another notifier does.
func grow(t *testing.T, nats *servertest.NATSServer, transition *alertv1.Transition) {
	t.Helper()
	data, err := proto.Marshal(&alertv1.TransitionBatch{Transitions: []*alertv1.Transition{transition}})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := nats.Conn(t).Publish(t.Context(), bus.Message{Subject: "tocsin.alert.7", Data: data}); err != nil {
		t.Fatal(err)
	}
}

// heard waits until the last that was heard of an alert is this.
func heard(t *testing.T, h *hook, id, state string) {
	t.Helper()
	h.wait(t, id+" is "+state, func(ms []message) bool { return heardIn(t, ms)[id] == state })
}

// once checks that each alert was told as firing and as over at most once, in
// that order, by messages whose sequences rise. A message may come twice, as it was
// and under its id, where NATS was gone before it was journaled that it had come.
// With again, a state may be told again in other words, but none before it.
func once(t *testing.T, h *hook, again bool) {
	t.Helper()
	told, last, bodies := map[string]string{}, map[string]uint64{}, map[string]string{}
	for _, m := range h.messages() {
		if before, again := bodies[m.ID]; again {
			if m.Body != before {
				t.Errorf("message %s came with two bodies:\n%s\n%s", m.ID, before, m.Body)
			}
			continue
		}
		bodies[m.ID] = m.Body
		var body struct{ Data struct{ Sequence uint64 } }
		if err := json.Unmarshal([]byte(m.Body), &body); err != nil {
			t.Fatal(err)
		}
		for id, state := range states(t, m) {
			if again && strings.HasSuffix(told[id], state+" ") {
				continue
			}
			if told[id] += state + " "; told[id] != "firing " && told[id] != "firing resolved " {
				t.Errorf("%s was told as %s", id, told[id])
			}
			if body.Data.Sequence <= last[id] {
				t.Errorf("%s was told by sequence %d after %d", id, body.Data.Sequence, last[id])
			}
			last[id] = body.Data.Sequence
		}
	}
}
