package alerter_test

import (
	"fmt"
	"testing"

	"github.com/tocsin-dev/tocsin/internal/bus"
	"github.com/tocsin-dev/tocsin/internal/event"
	"github.com/tocsin-dev/tocsin/internal/servertest"
	"github.com/tocsin-dev/tocsin/services/alerter"
)

// cutLog is a world whose event log has lost what was told of it. Endpoint
// "kept" fired before the copy was taken, and "lost" after it.
type cutLog struct {
	*world
	proxy  *servertest.Proxy // between the alerter and NATS
	backup *servertest.Backup
	end    uint64 // the last sequence of the log before
}

// grow publishes until the log is longer than it ever was.
func (c *cutLog) grow() {
	c.t.Helper()
	for c.queue("filler", 0) < c.end+100 {
	}
}

// neighbour returns an endpoint in the same partition.
func neighbour(of string) string {
	want := event.Partition(event.Token(endpoint(of)))
	for n := 0; ; n++ {
		if id := fmt.Sprint("beside", n); event.Partition(event.Token(endpoint(id))) == want {
			return id
		}
	}
}

// TestALogThatWasCutAndGrewAgainIsLoadedAnew cuts the event log in every way
// that an operator, a backup or a crash can, and lets it grow to more than it
// was, while the alerter is away and while it runs. What the notifier was told
// of it and is not so is over; what fires in it is told.
func TestALogThatWasCutAndGrewAgainIsLoadedAnew(t *testing.T) {
	for name, cut := range map[string]struct {
		// lose is done to a stopped NATS, undo to one that runs again.
		lose, undo func(c *cutLog)
		// keeps is true if what came before the copy is in the log.
		keeps bool
		// running is false where only a stop can precede it.
		running bool
		// sameLog is true if the log goes on, though with a hole.
		sameLog bool
	}{
		"its stream was put back": {
			lose:  func(c *cutLog) { c.backup.Restore(c.t, bus.EventsStream) },
			keeps: true, running: true,
		},
		"all of NATS was put back": {
			lose:  func(c *cutLog) { c.backup.Restore(c.t) },
			keeps: true, running: true,
		},
		"its stream was put back, and Redis forgot": {
			lose:  func(c *cutLog) { c.backup.Restore(c.t, bus.EventsStream); c.redis.FlushAll(c.t) },
			keeps: true, running: true,
		},
		"all of NATS was put back, and Redis forgot": {
			lose:  func(c *cutLog) { c.backup.Restore(c.t); c.redis.FlushAll(c.t) },
			keeps: true,
		},
		"its stream was deleted": {
			undo:    func(c *cutLog) { c.nats.Call(c.t, "STREAM.DELETE."+bus.EventsStream, "") },
			running: true,
		},
		"its stream was purged of what nobody had read": {
			undo: func(c *cutLog) {
				c.queue("unseen", 0)
				c.nats.Call(c.t, "STREAM.PURGE."+bus.EventsStream, "")
			},
			running: true, sameLog: true,
		},
	} {
		for when, running := range map[string]bool{"away": false, "running": true} {
			if running && !cut.running {
				continue
			}
			t.Run(name+"/"+when, func(t *testing.T) {
				c := &cutLog{world: newWorld(t)}
				c.proxy = servertest.NewProxy(t, c.nats.Addr())
				behind := func(o *alerter.Options) { o.NATS.URL = "nats://" + c.proxy.Addr() }
				c.start(behind).await(64).inForce().stop() // so that there are snapshots
				r := c.start(behind).await(64)
				c.queue("kept", 20)
				kept := c.notifier.await("kept", "f")[0]
				c.backup = c.nats.Backup(t)
				c.queue("lost", 20)
				lost := c.notifier.await("lost", "f")[0]
				c.end = c.queue("filler", 0)

				if !running {
					r.stop()
				}
				c.proxy.Cut()
				c.nats.Stop()
				if cut.lose != nil {
					cut.lose(c)
				}
				c.nats.Start(t)
				if cut.undo != nil {
					cut.undo(c)
				}
				if _, err := c.conn.EnsureStream(t.Context(), bus.Events(0)); err != nil {
					t.Fatal(err)
				}
				// A running alerter notices a hole with a partition's next message.
				beside := neighbour("lost")
				c.queue(beside, 20)
				c.queue(neighbour("kept"), 0)
				c.queue("new", 20)
				c.grow()
				c.proxy.Heal()
				if !running {
					r = c.start(behind)
				}

				fired := c.notifier.await("new", "f")[0]
				c.notifier.await(beside, "f")
				over := c.notifier.await("lost", "fr")[1]
				if over.GetAlert().GetId() != lost.GetAlert().GetId() || over.GetAlert().GetResolveReason() != "state rebuilt" {
					t.Errorf("%s is over because of %q", over.GetAlert().GetId(), over.GetAlert().GetResolveReason())
				}
				told := "fr"
				if cut.keeps {
					c.queue("kept", 0)
				}
				end := c.notifier.await("kept", told)[1]
				if rebuilt := end.GetAlert().GetResolveReason() == "state rebuilt"; end.GetAlert().GetId() != kept.GetAlert().GetId() || rebuilt == cut.keeps {
					t.Errorf("%s, which was %s, is over because of %q", end.GetAlert().GetId(), kept.GetAlert().GetId(), end.GetAlert().GetResolveReason())
				}
				if sameLog := fired.GetCause().GetLogId() == kept.GetCause().GetLogId(); sameLog != cut.sameLog {
					t.Errorf("the log before was %s, the one after is %s", kept.GetCause().GetLogId(), fired.GetCause().GetLogId())
				}
				if cut.sameLog {
					return // those that need nothing of what is gone stay as they are
				}
				eventually(t, "all partitions are rebuilt", func() error {
					if n := r.metric("tocsin_alerter_loads_total", "rebuild"); n < 64 {
						return fmt.Errorf("%v are", n)
					}
					return nil
				})
			})
		}
	}
}
