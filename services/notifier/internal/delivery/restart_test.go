package delivery

import (
	"fmt"
	"maps"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/alertmanager/config"
	"google.golang.org/protobuf/types/known/timestamppb"

	alertv1 "github.com/tocsin-dev/tocsin/proto/gen/tocsin/alert/v1"
	deliveryv1 "github.com/tocsin-dev/tocsin/proto/gen/tocsin/delivery/v1"
	"github.com/tocsin-dev/tocsin/services/notifier/internal/route"
)

func TestARestartAfterHoursSaysNothing(t *testing.T) {
	w := newWorld(t, single, both)
	w.fire("a", name("A"))
	w.finish(told)
	for range 3 {
		w.now = w.now.Add(8 * time.Hour)
		w.start()
		w.silent(3*time.Hour + 59*time.Minute)
	}
	w.wait(time.Minute)
	_, s := w.finish(told)
	wantSaid(t, s, "repeat interval elapsed", map[string]string{"a": "firing"})
}

func TestARestartFinishesWhatWasPending(t *testing.T) {
	for _, c := range []struct {
		name string
		save bool
	}{{"from the journal", false}, {"from a snapshot", true}} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t, single, both)
			w.fire("a", name("A"))
			first, _ := w.finish(failed)
			if c.save {
				w.save()
			}
			w.start()
			w.silent(700 * time.Millisecond)
			w.wait(time.Second)
			again, _ := w.finish(told)
			if again.ID != first.ID || string(again.Body.Bytes) != string(first.Body.Bytes) || again.Number != 2 {
				t.Errorf("attempt %d of %s with %s, want attempt 2 of %s", again.Number, again.ID, again.Body.Bytes, first.ID)
			}
			w.start()
			w.silent(time.Hour)
			w.resolve("a", name("A"))
			w.start()
			w.wait(time.Second)
			_, s := w.finish(told)
			wantSaid(t, s, "all alerts resolved", map[string]string{"a": "resolved"})
		})
	}
}

// TestALeadersClockThatWasAheadDelaysNothing has a leader whose clock is an hour
// ahead of the next one's leave an attempt and groups to it.
func TestALeadersClockThatWasAheadDelaysNothing(t *testing.T) {
	for _, c := range []struct {
		name string
		save bool
	}{{"from the journal", false}, {"from a snapshot", true}} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t, single, both)
			w.fire("told", name("B"))
			w.finish(told)
			w.fire("a", name("A"))
			w.finish(failed)
			if c.save {
				w.save()
			}
			w.now = w.now.Add(-time.Hour)
			w.start()
			w.silent(700 * time.Millisecond)
			w.wait(time.Second)
			_, s := w.finish(told)
			wantSaid(t, s, "first notification", map[string]string{"a": "firing"})
			w.resolve("told", name("B"))
			w.wait(time.Second)
			_, s = w.finish(told)
			wantSaid(t, s, "all alerts resolved", map[string]string{"told": "resolved"})
		})
	}
}

func TestWhatWasSettledSinceTheSnapshotIsNotToldAgain(t *testing.T) {
	w := newWorld(t, single, both)
	w.fire("a", name("A"))
	w.finish(told)
	w.resolve("a", name("A"))
	w.wait(time.Second)
	w.finish(told)
	w.start()
	w.silent(24 * time.Hour)
	if len(w.core.alerts)+len(w.core.lanes) != 0 {
		t.Errorf("%d alerts and %d lanes are held after the restart", len(w.core.alerts), len(w.core.lanes))
	}
}

func TestWhatHappenedWhileTheProcessWasAwayIsTold(t *testing.T) {
	w := newWorld(t, single, both)
	w.fire("a", name("A"))
	w.finish(told)
	w.fire("b", name("B"))
	w.resolve("b", name("B"))
	w.resolve("a", name("A"))
	w.start()
	w.wait(time.Second)
	if len(w.running) != 2 {
		t.Fatalf("%d attempts, want the ends of a and b", len(w.running))
	}
	for _, a := range w.running {
		if s := read(t, a); s.Reason != "all alerts resolved" {
			t.Errorf("message %s, want one about an end", a.Body.Bytes)
		}
	}
}

func TestHistoryBeforeTheFirstStartIsNotTold(t *testing.T) {
	w := newWorld(t, single, both)
	w.saved, w.journal = nil, [Shards][]*deliveryv1.Batch{}
	w.fire("old", name("Old"))
	w.resolve("old", name("Old"))
	w.fire("a", name("A"))
	w.start()
	w.wait(time.Second)
	_, s := w.finish(told)
	wantSaid(t, s, "first notification", map[string]string{"a": "firing"})
}

func TestALostSnapshotIsMadeUpForByTheJournal(t *testing.T) {
	w := newWorld(t, single, both)
	w.fire("told", name("Told"))
	w.finish(told)
	w.fire("over", name("Over"))
	w.finish(told)
	w.saved = nil
	w.resolve("over", name("Over"))
	w.start()
	w.wait(time.Second)
	_, s := w.finish(told)
	wantSaid(t, s, "all alerts resolved", map[string]string{"over": "resolved"})
	w.silent(3 * time.Hour)
}

func TestAfterAChangeOfRoutesOldGroupsAreToldTheEnd(t *testing.T) {
	w := newWorld(t, single, both)
	w.fire("a", name("A"))
	w.finish(told)
	conf, err := config.Load(`
route: {receiver: chat, group_by: [team], group_wait: 0s, group_interval: 1s}
receivers: [{name: ops}, {name: chat}]
`)
	if err != nil {
		t.Fatal(err)
	}
	w.conf = conf
	w.ways = map[string][]route.Integration{
		"ops":  {{Name: "webhook/0", SendResolved: true}},
		"chat": {{Name: "webhook/0", SendResolved: true}},
	}
	w.start()
	a, _ := w.finish(told)
	if a.Lane.Receiver != "chat" {
		t.Errorf("%s is told, want the new receiver", a.Lane.Receiver)
	}
	w.silent(time.Minute)
	w.resolve("a", name("A"))
	w.wait(time.Second)
	heard := map[string]string{}
	for _, a := range w.running {
		heard[a.Lane.Receiver] = read(t, a).Alerts["a"]
	}
	if heard["ops"] != "resolved" || heard["chat"] != "resolved" {
		t.Errorf("receivers heard %v, want the end for both", heard)
	}
}

func TestAnotherGroupingIsNoNews(t *testing.T) {
	regroup := func(w *world) {
		conf, err := config.Load(`
route:
  receiver: ops
  group_by: [team]
  group_wait: 0s
  group_interval: 1s
  repeat_interval: 4h
  routes: [{matchers: ['alertname="B"'], receiver: ops}]
receivers: [{name: ops}]
`)
		if err != nil {
			w.t.Fatal(err)
		}
		w.conf = conf
	}
	for _, c := range []struct {
		name   string
		before func(*world) // after the receiver was told of a and b
		again  bool         // another restart after the ends were told
	}{
		{"from the journal", func(*world) {}, false},
		{"from a snapshot", (*world).save, false},
		{"without a snapshot", func(w *world) { w.saved = nil }, false},
		{"and once more before the next snapshot", (*world).save, true},
		{"and once more without a snapshot", func(w *world) { w.saved = nil }, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t, single, both)
			for _, id := range []string{"A", "B"} {
				w.fire(id, name(id))
				w.finish(told)
			}
			c.before(w)
			saved := w.saved
			regroup(w)
			w.start()
			w.silent(time.Hour)
			w.saved = saved
			ends := map[string]int{}
			for _, id := range []string{"A", "B"} {
				w.resolve(id, name(id))
				w.wait(time.Second)
				if _, s := w.finish(told); s.Alerts[id] == "resolved" {
					ends[id]++
				}
			}
			if ends["A"] != 1 || ends["B"] != 1 {
				t.Errorf("ends told %v, want each once", ends)
			}
			if c.again {
				w.start()
			}
			w.silent(24 * time.Hour)
			if n := len(w.core.lanes) + len(w.core.alerts); n != 0 {
				t.Errorf("%d lanes and alerts are held at the end", n)
			}
		})
	}
	t.Run("is repeated as before", func(t *testing.T) {
		w := newWorld(t, single, both)
		w.fire("A", name("A"))
		w.finish(told)
		regroup(w)
		w.start()
		w.silent(3*time.Hour + 59*time.Minute)
		w.wait(time.Minute)
		_, s := w.finish(told)
		wantSaid(t, s, "repeat interval elapsed", map[string]string{"A": "firing"})
	})
}

func TestAReceiverThatIsNotConfiguredAnyMoreIsGivenUp(t *testing.T) {
	w := newWorld(t, single, both)
	w.fire("a", name("A"))
	w.finish(failed)
	w.ways = map[string][]route.Integration{"ops": nil}
	w.start()
	want := []Departure{{Lane: route.Lane{Receiver: "ops", Integration: "webhook/0", GroupKey: `{}:{alertname="A"}`}}}
	if diff := cmp.Diff(want, w.left); diff != "" {
		t.Errorf("departures (-want +got):\n%s", diff)
	}
	w.silent(time.Hour)
	w.resolve("a", name("A"))
	w.silent(time.Hour)
	if n := len(w.core.lanes) + len(w.core.alerts); n != 0 {
		t.Errorf("%d lanes and alerts are held at the end", n)
	}
}

func TestAStreamOfAlertsThatWasCreatedAnewEndsWhatWasTold(t *testing.T) {
	w := newWorld(t, single, both)
	for range 20 { // so that the old stream counted further than the new one will
		w.change("a", alertv1.TransitionKind_TRANSITION_KIND_RENEWED, name("A"))
	}
	_, first := w.finish(told)
	w.fire("b", name("B"))
	failedOnce, _ := w.finish(failed)
	w.save()
	w.alerts, w.rebase = nil, true
	w.start()
	w.wait(2 * time.Second)
	again, _ := w.finish(told)
	if again.ID != failedOnce.ID || string(again.Body.Bytes) != string(failedOnce.Body.Bytes) {
		t.Errorf("what was pending became %s, want %s", again.Body.Bytes, failedOnce.Body.Bytes)
	}
	w.resolve("a", name("A"))
	w.resolve("b", name("B"))
	w.wait(time.Second)
	if len(w.running) != 2 {
		t.Fatalf("%d attempts, want the ends of a and b", len(w.running))
	}
	for _, a := range w.running {
		s := read(t, a)
		if s.Reason != "all alerts resolved" {
			t.Errorf("message %s, want one about an end", a.Body.Bytes)
		}
		if s.Sequence <= first.Sequence || s.Sequence <= read(t, again).Sequence {
			t.Errorf("sequence %d is not above what was told before, %d", s.Sequence, first.Sequence)
		}
	}
	last := w.core.highest
	w.save()
	w.start() // from a snapshot that knows the new stream
	w.wait(time.Hour)
	w.running = nil
	w.fire("c", name("C"))
	if _, s := w.finish(told); s.Sequence <= last {
		t.Errorf("sequence %d after another restart, want above %d", s.Sequence, last)
	}
}

// TestWhatWasNotToldWhenTheStreamWasLostIsTold loses ALERTS while an alert waits
// for its group.
func TestWhatWasNotToldWhenTheStreamWasLostIsTold(t *testing.T) {
	w := newWorld(t, strings.Replace(single, "group_wait: 0s", "group_wait: 30s", 1), both)
	w.fire("a", name("A"))
	w.silent(10 * time.Second)
	w.save()
	w.alerts, w.rebase = nil, true
	w.start()
	w.wait(30 * time.Second)
	_, s := w.finish(told)
	wantSaid(t, s, "first notification", map[string]string{"a": "firing"})
}

// TestAStreamOfAlertsThatWasCutIsToldFromThere cuts the stream below what is
// known, and lets it grow to more than it was.
func TestAStreamOfAlertsThatWasCutIsToldFromThere(t *testing.T) {
	type change struct {
		at    time.Duration // after the cut
		cause uint64
		kind  alertv1.TransitionKind
		id    string
	}
	const (
		fire = alertv1.TransitionKind_TRANSITION_KIND_FIRING
		over = alertv1.TransitionKind_TRANSITION_KIND_RESOLVED
	)
	for name, c := range map[string]struct {
		grown []change
		want  map[string]string // what is told of each, in the end
	}{
		"nothing grew": {nil, map[string]string{}},
		"other alerts": {
			[]change{{time.Second, 21, fire, "new"}, {time.Second, 22, fire, "brief"}, {2 * time.Second, 23, over, "brief"}},
			map[string]string{"new": "firing", "brief": "resolved"},
		},
		"the ends of what was told": {
			[]change{{time.Second, 21, over, "since4"}, {time.Second, 22, over, "lost"}, {time.Second, 23, over, "kept"}},
			map[string]string{"kept": "resolved", "lost": "resolved", "since4": "resolved"},
		},
		"by a clock that went back": {
			[]change{{-time.Hour, 21, fire, "new"}}, map[string]string{"new": "firing"},
		},
		"by a log of events that was cut too": {
			[]change{{time.Second, 3, fire, "new"}}, map[string]string{"new": "firing"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, single, both)
			tell := func(id string, kind alertv1.TransitionKind) {
				w.change(id, kind, map[string]string{"alertname": id})
				w.wait(time.Second)
				w.finish(told)
			}
			tell("over", fire)
			tell("over", over)
			tell("kept", fire)
			kept := len(w.alerts)
			tell("lost", fire)
			tell("lost and over", fire)
			tell("lost and over", over)
			w.save()
			for i := range 6 { // of which the journal alone knows, which is whole
				tell(fmt.Sprint("since", i), fire)
			}
			w.alerts = w.alerts[:kept]
			cut := w.now
			w.causes = 30
			for _, g := range c.grown {
				w.alerts = append(w.alerts, AlertMessage{
					Seq: uint64(len(w.alerts) + 1), Stored: cut.Add(g.at),
					Transitions: []*alertv1.Transition{{
						Kind: g.kind, Cause: &alertv1.Cause{LogId: "log", Sequence: g.cause},
						Alert: &alertv1.Alert{Id: g.id, Labels: map[string]string{"alertname": g.id}, FiredAt: timestamppb.New(cut)},
					}},
				})
			}
			w.now, w.rebase = cut.Add(time.Minute), true
			w.start()
			w.save()
			w.start() // from then on it is as it was
			got := map[string]string{}
			for range 10 {
				w.wait(time.Second)
				for _, a := range w.running {
					maps.Copy(got, read(t, a).Alerts)
					w.core.Finished(a, told, w.now)
				}
				w.running = nil
			}
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Errorf("what is told (-want +got):\n%s", diff)
			}
			tell("later", fire)
			tell("since5", over) // and its version is above all that was told before
			if mark := w.core.Watermark(0); mark.GetSequence() < w.causes {
				t.Errorf("the newest cause is %v, want %d", mark, w.causes)
			}
		})
	}
}

func TestSnapshotsOfAnotherFormatAreRefused(t *testing.T) {
	w := newWorld(t, single, both)
	for _, s := range []*deliveryv1.Snapshot{{}, {Format: 2, ShardSequences: make([]uint64, Shards)}, {Format: 1}} {
		if err := w.core.Restore(s); err == nil {
			t.Errorf("%v was taken", s)
		}
	}
}
