package alerter_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/tocsin-dev/tocsin/internal/bus"
	alertv1 "github.com/tocsin-dev/tocsin/proto/gen/tocsin/alert/v1"
)

func TestAnAlertFiresAndResolves(t *testing.T) {
	w := newWorld(t)
	r := w.start().await(64).inForce()
	fired := w.queue("one", 20)
	told := w.notifier.await("one", "f")
	if c := told[0].GetCause(); c.GetSequence() != fired {
		t.Errorf("caused by message %d, want %d", c.GetSequence(), fired)
	}
	a := told[0].GetAlert()
	if a.GetLabels()["severity"] != "critical" || a.GetLabels()["endpoint_id"] != "one" || a.GetAnnotations()["summary"] != "20 jobs wait" {
		t.Errorf("labels %v, annotations %v", a.GetLabels(), a.GetAnnotations())
	}
	w.queue("one", 0)
	told = w.notifier.await("one", "fr")
	if told[1].GetAlert().GetId() != a.GetId() {
		t.Errorf("resolved alert %s, want %s", told[1].GetAlert().GetId(), a.GetId())
	}
	if n := r.metric("tocsin_alerter_transitions_total", "firing"); n != 1 {
		t.Errorf("%v transitions to firing counted, want 1", n)
	}
}

// again says how an alerter comes back, and from what.
type again struct {
	between func(w *world)
	source  string // the metric's label of most loads
}

func TestARestartTellsNothingTwice(t *testing.T) {
	for name, c := range map[string]again{
		"with Redis as it was": {func(*world) {}, "redis"},
		"with Redis flushed":   {func(w *world) { w.redis.FlushAll(w.t) }, "snapshot"},
		"with Redis and snapshots lost, and the log whole": {func(w *world) {
			w.redis.FlushAll(w.t)
			w.dropSnapshots()
		}, "fresh"},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			first := w.start().await(64).inForce()
			w.queue("one", 20)
			w.queue("two", 20)
			w.queue("three", 7) // pending
			before := w.notifier.await("one", "f")
			w.notifier.await("two", "f")
			first.stop()
			c.between(w)
			w.queue("two", 0) // while nobody runs

			second := w.start().await(64)
			w.notifier.await("two", "fr")
			if n := second.metric("tocsin_alerter_loads_total", c.source); n < 64 {
				t.Errorf("%v partitions loaded from %s, want 64", n, c.source)
			}
			w.queue("one", 0)
			after := w.notifier.await("one", "fr")
			if after[1].GetAlert().GetId() != before[0].GetAlert().GetId() {
				t.Errorf("alert %s became %s", before[0].GetAlert().GetId(), after[1].GetAlert().GetId())
			}
			if got := w.notifier.kinds("three"); got != "" {
				t.Errorf("a pending alert was told: %q", got)
			}
		})
	}
}

func (w *world) dropSnapshots() {
	w.t.Helper()
	objects, err := w.conn.Objects(w.t.Context(), bus.SnapshotsBucket)
	if err != nil {
		w.t.Fatal(err)
	}
	names, err := objects.List(w.t.Context(), "")
	if err != nil {
		w.t.Fatal(err)
	}
	if len(names) == 0 {
		w.t.Fatal("there are no snapshots to drop")
	}
	for _, name := range names {
		if err := objects.Delete(w.t.Context(), name); err != nil {
			w.t.Fatal(err)
		}
	}
}

func TestRedisFlushedWhileItRuns(t *testing.T) {
	w := newWorld(t)
	r := w.start().await(64).inForce()
	w.queue("one", 20)
	before := w.notifier.await("one", "f")
	w.redis.FlushAll(t)
	w.queue("one", 21) // changes no alert; its commit finds the state gone
	w.queue("one", 0)
	after := w.notifier.await("one", "fr")
	if after[1].GetAlert().GetId() != before[0].GetAlert().GetId() {
		t.Errorf("alert %s became %s", before[0].GetAlert().GetId(), after[1].GetAlert().GetId())
	}
	if n := r.metric("tocsin_alerter_reloads_total", "state_lost"); n < 1 {
		t.Error("no partition noticed that its state was lost")
	}
}

func TestColdRebuildComparesWithWhatWasTold(t *testing.T) {
	for name, lose := range map[string]func(w *world){
		"with nothing stored": func(w *world) {
			w.redis.FlushAll(w.t)
			w.dropSnapshots()
		},
		"with states that the log does not follow on any more": func(*world) {},
	} {
		t.Run(name, func(t *testing.T) { testColdRebuild(t, lose) })
	}
}

func testColdRebuild(t *testing.T, lose func(w *world)) {
	w := newWorld(t)
	first := w.start().await(64).inForce()
	w.queue("gone", 20)
	w.queue("stays", 20)
	gone, stays := w.notifier.await("gone", "f")[0], w.notifier.await("stays", "f")[0]
	first.stop()

	lose(w)
	w.queue("gone", 20)
	w.queue("stays", 30)
	fresh := w.queue("fresh", 30)
	if err := w.conn.PurgeBefore(t.Context(), bus.EventsStream, fresh-1); err != nil {
		t.Fatal(err)
	}

	second := w.start().await(64)
	ended := w.notifier.await("gone", "fr")[1]
	if ended.GetAlert().GetId() != gone.GetAlert().GetId() || ended.GetAlert().GetResolveReason() != "state rebuilt" {
		t.Errorf("resolved %s because of %q", ended.GetAlert().GetId(), ended.GetAlert().GetResolveReason())
	}
	w.notifier.await("fresh", "f")
	if n := second.metric("tocsin_alerter_loads_total", "rebuild"); n < 64 {
		t.Errorf("%v partitions were rebuilt, want 64", n)
	}
	w.queue("stays", 0)
	told := w.notifier.await("stays", "fr")
	if told[1].GetAlert().GetId() != stays.GetAlert().GetId() {
		t.Errorf("alert %s became %s", stays.GetAlert().GetId(), told[1].GetAlert().GetId())
	}
	second.stop()

	// The rebuilt state was saved at once: the next start needs no rebuild.
	w.redis.FlushAll(t)
	third := w.start().await(64)
	if n := third.metric("tocsin_alerter_loads_total", "snapshot"); n < 64 {
		t.Errorf("%v partitions were loaded from snapshots after the rebuild, want 64", n)
	}
}

// TestRuleSetsThatWereLostOrphanNoAlert loses the bucket of rule sets while an
// alert fires and nobody runs, and edits a threshold: what is stored cannot be
// gone on with, and the alert must still be the one that was told.
func TestRuleSetsThatWereLostOrphanNoAlert(t *testing.T) {
	for name, lose := range map[string]func(w *world){
		"with Redis and snapshots as they were": func(*world) {},
		"with nothing else stored, and the log cut short": func(w *world) {
			w.redis.FlushAll(w.t)
			w.dropSnapshots()
			seq := w.queue("one", 20)
			if err := w.conn.PurgeBefore(w.t.Context(), bus.EventsStream, seq); err != nil {
				w.t.Fatal(err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			first := w.start().await(64).inForce()
			w.queue("one", 20)
			before := w.notifier.await("one", "f")[0]
			first.stop()
			w.nats.Call(w.t, "STREAM.PURGE.KV_"+bus.RulesBucket, "")
			lose(w)
			w.rules = strings.Replace(testRules, "> 10", "> 15", 1)
			r := w.start().await(64)
			if n := r.metric("tocsin_alerter_loads_total", "rebuild"); n < 64 {
				t.Errorf("%v partitions were rebuilt, want 64", n)
			}
			w.queue("one", 0)
			after := w.notifier.await("one", "fr")[1]
			if after.GetAlert().GetId() != before.GetAlert().GetId() || after.GetAlert().GetResolveReason() == "state rebuilt" {
				t.Errorf("alert %s became %s, resolved because of %q", before.GetAlert().GetId(),
					after.GetAlert().GetId(), after.GetAlert().GetResolveReason())
			}
		})
	}
}

// TestALogThatOnlyLooksLikeTheFirstTellsOfWhatFires loses the event log and the
// key of the logs, so that nothing but what was told says that there was one.
func TestALogThatOnlyLooksLikeTheFirstTellsOfWhatFires(t *testing.T) {
	for name, lose := range map[string]func(w *world){
		"with Redis and snapshots as they were": func(*world) {},
		"with nothing else stored": func(w *world) {
			w.redis.FlushAll(w.t)
			w.dropSnapshots()
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			first := w.start().await(64).inForce()
			w.queue("one", 20)
			before := w.notifier.await("one", "f")[0]
			first.stop()
			w.nats.Call(w.t, "STREAM.DELETE."+bus.EventsStream, "")
			w.nats.Call(w.t, "STREAM.DELETE.KV_"+bus.MetaBucket, "")
			lose(w)
			w.start()
			over := w.notifier.await("one", "fr")[1]
			if over.GetAlert().GetId() != before.GetAlert().GetId() || over.GetAlert().GetResolveReason() != "state rebuilt" {
				t.Errorf("%s is over because of %q", over.GetAlert().GetId(), over.GetAlert().GetResolveReason())
			}
			w.queue("one", 20)
			w.notifier.await("one", "frf")
		})
	}
}

func TestTwoReplicasShareAndTakeOver(t *testing.T) {
	w := newWorld(t)
	a := w.start().await(64).inForce()
	for i := range 20 {
		w.queue(fmt.Sprint("e", i), 20)
	}
	b := w.start()
	a.await(32)
	b.await(32)
	for i := range 20 {
		w.notifier.await(fmt.Sprint("e", i), "f")
		w.queue(fmt.Sprint("e", i), 0)
	}
	for i := range 20 {
		w.notifier.await(fmt.Sprint("e", i), "fr")
	}
	a.stop()
	b.await(64)
	for i := range 20 {
		w.queue(fmt.Sprint("e", i), 20)
	}
	for i := range 20 {
		id := fmt.Sprint("e", i)
		told := w.notifier.await(id, "frf")
		if told[2].GetAlert().GetId() == told[0].GetAlert().GetId() {
			t.Errorf("two incidents of %s have one id", id)
		}
	}
}

// wantOrder checks that what was stored about an endpoint alternates and that
// no id comes twice.
func wantOrder(t *testing.T, told []*alertv1.Transition) {
	t.Helper()
	seen := map[string]bool{}
	for i, tr := range told {
		if seen[tr.GetId()] {
			t.Errorf("transition %s was stored twice", tr.GetId())
		}
		seen[tr.GetId()] = true
		want := alertv1.TransitionKind_TRANSITION_KIND_FIRING
		if i%2 == 1 {
			want = alertv1.TransitionKind_TRANSITION_KIND_RESOLVED
		}
		if tr.GetKind() != want {
			t.Errorf("transition %d is %v, want %v", i, tr.GetKind(), want)
		}
	}
}
