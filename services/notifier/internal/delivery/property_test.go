package delivery

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/tocsin-dev/tocsin/services/notifier/internal/route"
)

// ledger is what an independent observer at the receivers notes.
type ledger struct {
	t      *testing.T
	bodies map[string]string               // by message id
	states map[route.Lane]map[string]state // what each receiver believes of each alert
}

type state struct {
	is       string
	sequence uint64
}

// hear notes a message that reached its receiver, whether or not the core will
// learn of it.
func (g *ledger) hear(a Attempt) {
	g.t.Helper()
	if body, known := g.bodies[a.ID]; known && body != string(a.Body.Bytes) {
		g.t.Fatalf("message %s came with two bodies:\n%s\n%s", a.ID, body, a.Body.Bytes)
	}
	g.bodies[a.ID] = string(a.Body.Bytes)
	if g.states[a.Lane] == nil {
		g.states[a.Lane] = map[string]state{}
	}
	s := read(g.t, a)
	for id, is := range s.Alerts {
		before := g.states[a.Lane][id]
		if before.is == "resolved" && is == "firing" {
			g.t.Fatalf("%v was told that %s fires after its end: %s", a.Lane, id, a.Body.Bytes)
		}
		if s.Sequence < before.sequence {
			g.t.Fatalf("%v was told sequence %d after %d: %s", a.Lane, s.Sequence, before.sequence, a.Body.Bytes)
		}
		g.states[a.Lane][id] = state{is, s.Sequence}
	}
}

const propertyRoutes = `
route:
  receiver: ops
  group_by: [team]
  group_wait: 5s
  group_interval: 20s
  repeat_interval: 30m
  routes:
  - {matchers: ['alertname="Page"'], receiver: pager, group_by: ['...'], group_wait: 0s, group_interval: 1s, continue: true}
receivers: [{name: ops}, {name: pager}]
inhibit_rules:
- {source_matchers: ['alertname="Cause"'], target_matchers: ['alertname="Symptom"'], equal: [team]}
`

var propertyWays = map[string][]route.Integration{
	"ops":   {{Name: "webhook/0", SendResolved: true}, {Name: "tocsin/0", SendResolved: true}},
	"pager": {{Name: "webhook/0", SendResolved: true}},
}

// run plays one random history: alerts fire and resolve, attempts end in every
// way, records wait to be stored, snapshots are taken and the process crashes.
// Then everything is over, the receivers work, and the ledger is checked.
func run(t *testing.T, seed uint64) {
	rng := rand.New(rand.NewPCG(seed, 7))
	w := newWorld(t, propertyRoutes, propertyWays)
	w.hold = []time.Duration{0, 10 * time.Second}[seed%2]
	w.start()
	g := &ledger{t: t, bodies: map[string]string{}, states: map[route.Lane]map[string]state{}}
	labels, active, everFired := map[string]map[string]string{}, []string{}, []string{}
	names, teams := []string{"Page", "Symptom", "Cause", "Other"}, []string{"x", "y"}

	for i := range 300 {
		switch n := rng.IntN(100); {
		case n < 12:
			id := fmt.Sprint("alert", i)
			labels[id] = map[string]string{"alertname": names[rng.IntN(4)], "team": teams[rng.IntN(2)], "n": fmt.Sprint(rng.IntN(3))}
			active, everFired = append(active, id), append(everFired, id)
			w.fire(id, labels[id])
		case n < 22 && len(active) > 0:
			k := rng.IntN(len(active))
			w.resolve(active[k], labels[active[k]])
			active = append(active[:k], active[k+1:]...)
		case n < 40:
			w.step()
		case n < 55:
			w.store()
		case n < 80 && len(w.running) > 0:
			k := rng.IntN(len(w.running))
			a := w.running[k]
			w.running = append(w.running[:k], w.running[k+1:]...)
			o := failed
			if rng.IntN(2) == 0 {
				g.hear(a)
				if rng.IntN(3) > 0 {
					o = told
				}
			}
			w.core.Finished(a, o, w.now)
		case n < 82:
			w.save()
		case n < 86:
			for _, a := range w.running {
				if rng.IntN(2) == 0 {
					g.hear(a)
				}
			}
			w.start()
		default:
			w.now = w.now.Add(time.Duration(rng.Int64N(int64(20 * time.Second))))
		}
	}
	checkEnd(t, w, g, labels, active, everFired)
}

func checkEnd(t *testing.T, w *world, g *ledger, labels map[string]map[string]string, active, everFired []string) {
	t.Helper()
	deliver := func(d time.Duration) {
		for end := w.now.Add(d); w.now.Before(end); w.now = w.now.Add(time.Second) {
			w.settle()
			for len(w.running) > 0 {
				a := w.running[0]
				w.running = w.running[1:]
				g.hear(a)
				w.core.Finished(a, told, w.now)
				w.settle()
			}
		}
	}
	deliver(15 * time.Hour) // longer than the longest pause of the schedule
	for _, id := range active {
		w.resolve(id, labels[id])
	}
	deliver(time.Minute)

	table := route.NewTable(w.conf.Route, w.ways)
	for _, id := range everFired {
		for _, d := range table.Destinations(labels[id]) {
			is := g.states[d.Lane][id].is
			if is == "firing" {
				t.Errorf("%v believes that %s fires", d.Lane, id)
			}
			if is == "" && labels[id]["alertname"] != "Symptom" {
				t.Errorf("%v never heard of %s", d.Lane, id)
			}
		}
	}
	for lane, alerts := range g.states {
		for id := range alerts {
			if labels[id]["alertname"] == "Page" || lane.Receiver == "ops" {
				continue
			}
			t.Errorf("%v heard of %s, which does not lead there", lane, id)
		}
	}
	if n := len(w.core.lanes) + len(w.core.alerts) + len(w.core.sent); n != 0 {
		t.Errorf("%d lanes, %d alerts and %d messages are held at the end", len(w.core.lanes), len(w.core.alerts), len(w.core.sent))
	}
}

// Over any sequence of failures and restarts every firing that a route matches
// is told, what was told as firing is told as resolved and never as firing
// after that, and a message has one body.
func TestReceiversLearnTheTruth(t *testing.T) {
	runs := uint64(300)
	if testing.Short() {
		runs = 30
	}
	for seed := range runs {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) { run(t, seed) })
	}
}
