package delivery

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/tocsin-dev/tocsin/services/notifier/internal/route"
)

// walk plays one random history in which the file changes at restarts: the
// receiver is renamed, or its URL is changed, and the grouping with it. Whoever
// was told last of an alert is told of its end.
func walk(t *testing.T, seed uint64) {
	rng := rand.New(rand.NewPCG(seed, 11))
	receiver, url, group := "ops", 0, "'...'"
	configure := func(w *world) {
		w.configure(fmt.Sprintf(`
route: {receiver: %s, group_by: [%s], group_wait: 2s, group_interval: 5s, repeat_interval: 1h}
receivers: [{name: ops}, {name: team}]
`, receiver, group), map[string][]route.Integration{receiver: hooks(fmt.Sprint("webhook/", url))})
	}
	w := newWorld(t, single, both)
	w.saved = nil
	configure(w)
	w.start()
	bodies, last, ended := map[string]string{}, map[string]string{}, map[route.Lane]map[string]bool{}
	hear := func(a Attempt) {
		if body, known := bodies[a.ID]; known && body != string(a.Body.Bytes) {
			t.Fatalf("message %s came with two bodies:\n%s\n%s", a.ID, body, a.Body.Bytes)
		}
		bodies[a.ID] = string(a.Body.Bytes)
		if ended[a.Lane] == nil {
			ended[a.Lane] = map[string]bool{}
		}
		for id, is := range read(t, a).Alerts {
			if ended[a.Lane][id] && is == "firing" {
				t.Fatalf("%v was told that %s fires after its end: %s", a.Lane, id, a.Body.Bytes)
			}
			ended[a.Lane][id] = ended[a.Lane][id] || is == "resolved"
			last[id] = is
		}
	}
	var active, ever []string
	labels := func(id string) map[string]string { return map[string]string{"alertname": id, "team": id[:1]} }
	for i := range 200 {
		switch n := rng.IntN(100); {
		case n < 12:
			id := fmt.Sprint([]string{"x", "y"}[rng.IntN(2)], i)
			active, ever = append(active, id), append(ever, id)
			w.fire(id, labels(id))
		case n < 22 && len(active) > 0:
			k := rng.IntN(len(active))
			w.resolve(active[k], labels(active[k]))
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
				hear(a)
				o = told
			}
			w.core.Finished(a, o, w.now)
		case n < 82:
			w.save()
		case n < 88:
			switch rng.IntN(4) {
			case 0:
				receiver = map[string]string{"ops": "team", "team": "ops"}[receiver]
			case 1:
				url = rng.IntN(3)
			case 2:
				group = []string{"'...'", "team", ""}[rng.IntN(3)]
			}
			configure(w)
			w.start()
			w.settle()
			w.save() // as the owner does when the integrations changed
		default:
			w.now = w.now.Add(time.Duration(rng.Int64N(int64(10 * time.Second))))
		}
	}
	deliver := func(d time.Duration) {
		for end := w.now.Add(d); w.now.Before(end); w.now = w.now.Add(time.Second) {
			for w.settle(); len(w.running) > 0; w.settle() {
				a := w.running[0]
				w.running = w.running[1:]
				hear(a)
				w.core.Finished(a, told, w.now)
			}
		}
	}
	deliver(15 * time.Hour) // longer than the longest pause of the schedule
	for _, id := range active {
		w.resolve(id, labels(id))
	}
	deliver(time.Minute)
	for _, id := range ever {
		if last[id] != "resolved" {
			t.Errorf("the last that was said of %s is %q", id, last[id])
		}
	}
	w.nothingHeld()
}

func TestOverAllChangesOfItsNameAndAddressAReceiverLearnsTheEnd(t *testing.T) {
	runs := uint64(100)
	if testing.Short() {
		runs = 20
	}
	for seed := range runs {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) { walk(t, seed) })
	}
}
