package delivery

import (
	"fmt"
	"maps"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/alertmanager/config"

	deliveryv1 "github.com/tocsin-dev/tocsin/proto/gen/tocsin/delivery/v1"
	"github.com/tocsin-dev/tocsin/services/notifier/internal/route"
)

// configure gives the world another file.
func (w *world) configure(text string, ways map[string][]route.Integration) {
	w.t.Helper()
	conf, err := config.Load(text)
	if err != nil {
		w.t.Fatal(err)
	}
	w.conf, w.ways = conf, ways
}

func hooks(names ...string) []route.Integration {
	var list []route.Integration
	for _, n := range names {
		list = append(list, route.Integration{Name: n, SendResolved: true})
	}
	return list
}

// heard ends every attempt well, until nothing is due at the instant, and returns
// what was said of each alert in the end, by receiver and integration.
func (w *world) heard() map[string]string {
	w.t.Helper()
	all := map[string]string{}
	for w.settle(); len(w.running) > 0; w.settle() {
		a := w.running[0]
		w.running = w.running[1:]
		for id, is := range read(w.t, a).Alerts {
			key := fmt.Sprint(a.Lane.Receiver, " ", a.Lane.Integration, " ", id)
			if all[key] != "" {
				w.t.Errorf("%s was said twice: %s and %s", key, all[key], is)
			}
			all[key] = is
		}
		w.core.Finished(a, told, w.now)
	}
	return all
}

func (w *world) wantHeard(what string, want map[string]string) {
	w.t.Helper()
	if diff := cmp.Diff(want, w.heard()); diff != "" {
		w.t.Errorf("%s (-want +got):\n%s", what, diff)
	}
}

// nothingHeld checks that the core forgot all.
func (w *world) nothingHeld() {
	w.t.Helper()
	if n := len(w.core.lanes) + len(w.core.alerts) + len(w.core.sent); n != 0 {
		w.t.Errorf("%d lanes, %d alerts and %d messages are held at the end", len(w.core.lanes), len(w.core.alerts), len(w.core.sent))
	}
}

type says = map[string]string // by receiver, integration and alert

const toTeam = `
route: {receiver: team, group_by: ['...'], group_wait: 0s, group_interval: 1s, repeat_interval: 4h}
receivers: [{name: team}, {name: ops}]
`

const toNobody = `
route: {receiver: nobody}
receivers: [{name: nobody}, {name: ops}]
`

// Before the restart a receiver was told of "fires" and "ends", was never told of
// "stuck", which still fires, and of "brief", which is over; "ends" ends while
// the notifier is away. Then "fires" and "stuck" end.
func TestWhatAReceiverIsOwedFollowsIt(t *testing.T) {
	for _, c := range []struct {
		name        string
		routes      string
		ways        map[string][]route.Integration
		start, ends says
		// replayed is what is heard besides where the alerts are read again under
		// the new routes, since no snapshot has them.
		replayed says
	}{
		{
			"nothing changes", single, both,
			says{"ops webhook/0 stuck": "firing", "ops webhook/0 ends": "resolved", "ops webhook/0 brief": "resolved"},
			says{"ops webhook/0 fires": "resolved", "ops webhook/0 stuck": "resolved"},
			nil,
		},
		{
			"its URL is another", single,
			map[string][]route.Integration{"ops": hooks("webhook/1")},
			says{"ops webhook/1 fires": "firing", "ops webhook/1 stuck": "firing", "ops webhook/1 ends": "resolved", "ops webhook/1 brief": "resolved"},
			says{"ops webhook/1 fires": "resolved", "ops webhook/1 stuck": "resolved"},
			nil,
		},
		{
			"it is renamed", toTeam,
			map[string][]route.Integration{"team": hooks("webhook/0")},
			says{"team webhook/0 stuck": "firing", "team webhook/0 ends": "resolved", "team webhook/0 brief": "resolved"},
			says{"team webhook/0 fires": "resolved", "team webhook/0 stuck": "resolved"},
			nil,
		},
		{
			"its route is gone", toNobody, both,
			says{"ops webhook/0 stuck": "firing", "ops webhook/0 ends": "resolved", "ops webhook/0 brief": "resolved"},
			says{"ops webhook/0 fires": "resolved", "ops webhook/0 stuck": "resolved"},
			nil,
		},
		{
			"its route is gone and its URL another", toNobody,
			map[string][]route.Integration{"ops": hooks("webhook/1")},
			says{"ops webhook/1 stuck": "firing", "ops webhook/1 ends": "resolved", "ops webhook/1 brief": "resolved"},
			says{"ops webhook/1 fires": "resolved", "ops webhook/1 stuck": "resolved"},
			nil,
		},
		{
			"it is gone", toTeam,
			map[string][]route.Integration{"team": hooks("webhook/1")},
			says{"team webhook/1 fires": "firing", "team webhook/1 stuck": "firing"},
			says{"team webhook/1 fires": "resolved", "team webhook/1 stuck": "resolved"},
			says{"team webhook/1 ends": "resolved", "team webhook/1 brief": "resolved"},
		},
	} {
		for name, crash := range map[string]func(*world){
			"from the journal":         func(*world) {},
			"from a snapshot":          (*world).save,
			"after another crash":      func(w *world) { w.start(); w.settle() },
			"after a crash at the end": func(*world) {},
		} {
			t.Run(c.name+" "+name, func(t *testing.T) {
				w := newWorld(t, single, both)
				for _, id := range []string{"fires", "ends"} {
					w.fire(id, named(id))
					w.finish(told)
				}
				for _, id := range []string{"stuck", "brief"} {
					w.fire(id, named(id))
					w.finish(failed)
				}
				w.resolve("brief", named("brief"))
				w.wait(time.Minute)
				w.running = nil // the process ends in the midst of the attempts
				if name == "from a snapshot" {
					w.save()
				}
				w.resolve("ends", named("ends"))
				w.configure(c.routes, c.ways)
				w.start()
				if name == "after another crash" {
					crash(w)
				}
				w.wait(2 * time.Hour) // by then what waited for its next attempt is due
				want := maps.Clone(c.start)
				if name != "from a snapshot" {
					maps.Copy(want, c.replayed)
				}
				w.wantHeard("at the start", want)
				if name == "after a crash at the end" {
					w.start()
					w.wait(time.Second)
					w.wantHeard("after another start", says{})
				}
				w.silent(time.Minute)
				w.resolve("fires", named("fires"))
				w.resolve("stuck", named("stuck"))
				w.wait(time.Second)
				w.wantHeard("at the ends", c.ends)
				w.nothingHeld()
				saved := w.saved
				w.start()
				w.wait(24 * time.Hour)
				w.wantHeard("after the end", says{})
				if saved != nil {
					w.nothingHeld()
				}
			})
		}
	}
}

func named(id string) map[string]string { return map[string]string{"alertname": id, "team": "x"} }

func TestWhoStandsInForWhom(t *testing.T) {
	ops, team := "ops", "team"
	ways := func(receiver string, names ...string) []route.Way {
		var list []route.Way
		for _, n := range names {
			list = append(list, route.Way{Receiver: receiver, Integration: n})
		}
		return list
	}
	for _, c := range []struct {
		name   string
		former []route.Way
		lanes  []route.Way // that are left
		now    map[string][]route.Integration
		want   map[route.Way]string
	}{
		{
			"two changed keep their order", ways(ops, "a", "b"), ways(ops, "b", "a"),
			map[string][]route.Integration{ops: hooks("c", "d")},
			map[route.Way]string{{Receiver: ops, Integration: "a"}: "ops c", {Receiver: ops, Integration: "b"}: "ops d"},
		},
		{
			"the first that owes nothing takes its place too", ways(ops, "a", "b"), ways(ops, "b"),
			map[string][]route.Integration{ops: hooks("c", "d")},
			map[route.Way]string{{Receiver: ops, Integration: "b"}: "ops d"},
		},
		{
			"one of two is removed, and the other knows it all", ways(ops, "a", "b"), ways(ops, "a"),
			map[string][]route.Integration{ops: hooks("b")},
			nil,
		},
		{
			"two become one", ways(ops, "a", "b"), ways(ops, "a", "b"),
			map[string][]route.Integration{ops: hooks("c")},
			map[route.Way]string{{Receiver: ops, Integration: "a"}: "ops c", {Receiver: ops, Integration: "b"}: "ops c"},
		},
		{
			"one came and went since the snapshot", ways(ops, "a"), ways(ops, "b"),
			map[string][]route.Integration{ops: hooks("c")},
			map[route.Way]string{{Receiver: ops, Integration: "b"}: "ops c"},
		},
		{
			"the same address counts for more than the same receiver", ways(ops, "a"), ways(ops, "a"),
			map[string][]route.Integration{ops: hooks("b"), team: hooks("a")},
			map[route.Way]string{{Receiver: ops, Integration: "a"}: "team a"},
		},
		{
			"and at a new receiver for more than at an old one", append(ways(ops, "a"), ways("audit", "a")...), ways(ops, "a"),
			map[string][]route.Integration{"audit": hooks("a"), team: hooks("a")},
			map[route.Way]string{{Receiver: ops, Integration: "a"}: "team a"},
		},
		{
			"an old one with the address will do", append(ways(ops, "a"), ways("audit", "a")...), ways(ops, "a"),
			map[string][]route.Integration{"audit": hooks("a")},
			map[route.Way]string{{Receiver: ops, Integration: "a"}: "audit a"},
		},
		{
			"without a snapshot nobody knows what is new", nil, ways(ops, "a"),
			map[string][]route.Integration{ops: hooks("b")},
			nil,
		},
		{
			"another receiver is nobody's", ways(ops, "a"), ways(ops, "a"),
			map[string][]route.Integration{team: hooks("b")},
			nil,
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t, single, c.now)
			w.core.former = c.former
			var gone []*lane
			for _, way := range c.lanes {
				gone = append(gone, &lane{key: route.Lane{Receiver: way.Receiver, Integration: way.Integration}})
			}
			got := map[route.Way]string{}
			for from, to := range w.core.successors(gone) {
				if slices.Contains(c.lanes, from) {
					got[from] = to.Receiver + " " + to.Integration
				}
			}
			if want := c.want; len(want)+len(got) > 0 && !maps.Equal(want, got) {
				t.Errorf("got %v, want %v", got, want)
			}
		})
	}
}

func TestAnInhibitedAlertIsToldItsEndAtTheNewAddress(t *testing.T) {
	w := newWorld(t, single+"inhibit_rules: [{source_matchers: ['alertname=\"Cause\"'], target_matchers: ['alertname=\"Symptom\"'], equal: [team]}]\n", both)
	symptom, cause := map[string]string{"alertname": "Symptom", "team": "x"}, map[string]string{"alertname": "Cause", "team": "x"}
	w.fire("symptom", symptom)
	w.finish(told)
	w.fire("cause", cause)
	w.finish(told)
	w.ways = map[string][]route.Integration{"ops": hooks("webhook/1")}
	w.start()
	w.wantHeard("at the start", says{"ops webhook/1 cause": "firing"})
	w.resolve("symptom", symptom)
	w.wait(time.Second)
	w.wantHeard("at the end", says{"ops webhook/1 symptom": "resolved"})
}

// A group may have more alerts than a record of the journal holds.
func TestALargeGroupMovesInSteps(t *testing.T) {
	const one = `
route: {receiver: ops, group_wait: 0s, group_interval: 1s, repeat_interval: 4h}
receivers: [{name: ops}]
`
	const alerts = 2*maxMentions + 7
	for stored := range 4 { // so many steps are in the journal when the process crashes
		w := newWorld(t, one, both)
		for i := range alerts {
			w.fire(fmt.Sprint(i), named(fmt.Sprint(i)))
		}
		for heard := 0; heard < alerts; {
			w.wait(time.Second)
			_, s := w.finish(told)
			heard += len(s.Alerts)
		}
		w.save()
		for i := range alerts {
			w.resolve(fmt.Sprint(i), named(fmt.Sprint(i)))
		}
		w.ways = map[string][]route.Integration{"ops": hooks("webhook/1")}
		w.start()
		steps := w.core.Drain()
		if len(steps) != 3 {
			t.Fatalf("%d records, want 3 steps", len(steps))
		}
		for _, r := range steps {
			if n := len(r.Record.GetMoved().GetMembers()); n > maxMentions {
				t.Errorf("a step of %d alerts", n)
			}
		}
		for _, r := range steps[:stored] {
			w.journal[r.Shard] = append(w.journal[r.Shard], &deliveryv1.Batch{Records: []*deliveryv1.Record{r.Record}})
		}
		w.start()
		ends := map[string]int{}
		for range 10 {
			w.wait(time.Second)
			for w.settle(); len(w.running) > 0; w.settle() {
				a := w.running[0]
				w.running = w.running[1:]
				for id := range read(t, a).Alerts {
					ends[id]++
				}
				w.core.Finished(a, told, w.now)
			}
		}
		twice := 0
		for _, n := range ends {
			twice += n - 1
		}
		if len(ends) != alerts || twice != 0 {
			t.Errorf("with %d steps stored the ends of %d alerts are told, %d too often; want %d", stored, len(ends), twice, alerts)
		}
		w.nothingHeld()
	}
}
