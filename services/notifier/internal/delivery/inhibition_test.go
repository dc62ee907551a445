package delivery

import (
	"maps"
	"strings"
	"testing"
	"time"
)

const inhibiting = `
route: {receiver: ops, group_by: ['...'], group_wait: 10s, group_interval: 1s}
receivers: [{name: ops}]
inhibit_rules:
- {source_matchers: ['alertname="Cause"'], target_matchers: ['alertname="Symptom"']}
`

func TestInhibition(t *testing.T) {
	t.Run("what is inhibited is not told, nor its end", func(t *testing.T) {
		w := newWorld(t, inhibiting, both)
		w.fire("cause", name("Cause"))
		w.wait(10 * time.Second)
		w.finish(told)
		w.fire("symptom", name("Symptom"))
		w.silent(time.Minute)
		w.resolve("symptom", name("Symptom"))
		w.silent(time.Hour)
	})
	t.Run("a cause that comes before the first message is in time", func(t *testing.T) {
		w := newWorld(t, inhibiting, both)
		w.fire("symptom", name("Symptom"))
		w.now = w.now.Add(time.Second)
		w.fire("cause", name("Cause"))
		w.wait(9 * time.Second)
		w.silent(500 * time.Millisecond)
		w.wait(time.Second)
		_, s := w.finish(told)
		wantSaid(t, s, "first notification", map[string]string{"cause": "firing"})
		w.silent(time.Minute)
		w.resolve("cause", name("Cause"))
		w.wait(time.Second)
		if len(w.running) != 2 {
			t.Fatalf("%d attempts, want the end of the cause and the symptom", len(w.running))
		}
	})
	t.Run("a symptom that outlives its cause by a moment is not told", func(t *testing.T) {
		w := newWorld(t, inhibiting, both)
		w.hold = 10 * time.Second
		w.start()
		w.fire("cause", name("Cause"))
		w.fire("symptom", name("Symptom"))
		w.wait(10 * time.Second)
		w.finish(told)
		w.resolve("cause", name("Cause"))
		w.wait(time.Second)
		w.finish(told)
		w.silent(8 * time.Second)
		w.resolve("symptom", name("Symptom"))
		w.silent(time.Hour)
	})
	t.Run("a symptom that stays is told after the hold", func(t *testing.T) {
		w := newWorld(t, inhibiting, both)
		w.hold = 10 * time.Second
		w.start()
		w.fire("cause", name("Cause"))
		w.fire("symptom", name("Symptom"))
		w.wait(10 * time.Second)
		w.finish(told)
		w.resolve("cause", name("Cause"))
		w.fire("cause2", name("Cause")) // another cause, for a while
		w.wait(time.Second)
		w.finish(told)
		w.silent(time.Minute)
		w.resolve("cause2", name("Cause"))
		w.wait(time.Second)
		w.finish(told)
		w.silent(8 * time.Second)
		w.wait(2 * time.Second)
		_, s := w.finish(told)
		wantSaid(t, s, "first notification", map[string]string{"symptom": "firing"})
		w.resolve("symptom", name("Symptom"))
		w.wait(time.Second)
		_, s = w.finish(told)
		wantSaid(t, s, "all alerts resolved", map[string]string{"symptom": "resolved"})
	})
	t.Run("news of the group does not make it forget who is waiting", func(t *testing.T) {
		w := newWorld(t, strings.Replace(inhibiting, "group_by: ['...']", "group_by: [team]", 1), both)
		w.hold = 10 * time.Second
		w.start()
		w.fire("cause", name("Cause"))
		w.fire("symptom", name("Symptom"))
		w.wait(10 * time.Second)
		w.finish(told)
		w.resolve("cause", name("Cause"))
		w.wait(time.Second)
		w.finish(told)
		w.fire("other", name("Other"))
		w.wait(time.Second)
		_, s := w.finish(told)
		wantSaid(t, s, "first notification", map[string]string{"other": "firing"})
		w.wait(10 * time.Second)
		_, s = w.finish(told)
		wantSaid(t, s, "new alerts added", map[string]string{"other": "firing", "symptom": "firing"})
	})
	t.Run("what was inhibited and ends before its message is not told", func(t *testing.T) {
		w := newWorld(t, strings.Replace(inhibiting, "group_interval: 1s", "group_interval: 1m", 1), both)
		w.hold = 10 * time.Second
		w.start()
		w.fire("cause", name("Cause"))
		w.fire("symptom", name("Symptom"))
		w.wait(20 * time.Second)
		w.finish(told)
		w.resolve("cause", name("Cause"))
		w.now = w.now.Add(time.Second)
		w.resolve("symptom", name("Symptom"))
		w.wait(time.Minute)
		_, s := w.finish(told)
		wantSaid(t, s, "all alerts resolved", map[string]string{"cause": "resolved"})
		w.silent(time.Hour)
	})
	t.Run("what fired for the whole hold is told although it ends before its message", func(t *testing.T) {
		w := newWorld(t, strings.Replace(inhibiting, "group_interval: 1s", "group_interval: 1m", 1), both)
		w.hold = 10 * time.Second
		w.start()
		w.fire("cause", name("Cause"))
		w.fire("symptom", name("Symptom"))
		w.wait(20 * time.Second)
		w.finish(told)
		w.resolve("cause", name("Cause"))
		w.now = w.now.Add(11 * time.Second)
		w.resolve("symptom", name("Symptom"))
		w.wait(time.Minute)
		heard := map[string]string{}
		for _, a := range w.running {
			maps.Copy(heard, read(t, a).Alerts)
		}
		if heard["symptom"] != "resolved" || heard["cause"] != "resolved" {
			t.Errorf("heard %v, want the ends of both", heard)
		}
	})
	t.Run("a restart does not forget the hold", func(t *testing.T) {
		for _, c := range []struct {
			name         string
			before, away func(*world)
		}{
			{"that begins while it is away", func(*world) {}, func(w *world) { w.resolve("cause", name("Cause")) }},
			{"that begins afterwards", func(*world) {}, nil},
			{"that runs", func(w *world) { w.resolve("cause", name("Cause")); w.wait(time.Second); w.finish(told) }, func(*world) {}},
		} {
			t.Run(c.name, func(t *testing.T) {
				w := newWorld(t, inhibiting, both)
				w.hold = 10 * time.Second
				w.start()
				w.fire("cause", name("Cause"))
				w.fire("symptom", name("Symptom"))
				w.wait(10 * time.Second)
				w.finish(told)
				c.before(w)
				w.save()
				if c.away != nil {
					c.away(w)
				}
				w.start()
				if c.away == nil {
					w.resolve("cause", name("Cause"))
				}
				w.wait(8 * time.Second)
				for _, a := range w.running {
					if read(t, a).Alerts["symptom"] != "" {
						t.Fatalf("the symptom was told within the hold: %s", a.Body.Bytes)
					}
					w.core.Finished(a, told, w.now)
				}
				w.running = nil
				w.wait(3 * time.Second)
				_, s := w.finish(told)
				wantSaid(t, s, "first notification", map[string]string{"symptom": "firing"})
			})
		}
	})
	t.Run("what was told is told as resolved, inhibited or not", func(t *testing.T) {
		w := newWorld(t, inhibiting, both)
		w.fire("symptom", name("Symptom"))
		w.wait(10 * time.Second)
		w.finish(told)
		w.fire("cause", name("Cause"))
		w.wait(10 * time.Second)
		w.finish(told)
		w.resolve("symptom", name("Symptom"))
		w.wait(time.Second)
		_, s := w.finish(told)
		wantSaid(t, s, "all alerts resolved", map[string]string{"symptom": "resolved"})
	})
	t.Run("what is inhibited is not repeated", func(t *testing.T) {
		w := newWorld(t, inhibiting, both)
		w.fire("symptom", name("Symptom"))
		w.wait(10 * time.Second)
		w.finish(told)
		w.fire("cause", name("Cause"))
		w.wait(10 * time.Second)
		w.finish(told)
		w.wait(5 * time.Hour)
		_, s := w.finish(told)
		wantSaid(t, s, "repeat interval elapsed", map[string]string{"cause": "firing"})
	})
}
