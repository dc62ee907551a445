package delivery

import (
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/testing/protocmp"

	deliveryv1 "github.com/tocsin-dev/tocsin/proto/gen/tocsin/delivery/v1"
)

func TestAReceiverThatIsGoneIsLeftAlone(t *testing.T) {
	w := newWorld(t, single, both)
	w.fire("a", name("A"))
	w.finish(failed)
	w.fire("b", name("B"))
	w.finish(Outcome{Status: 410, Gone: true})
	w.fire("c", name("C"))
	w.silent(24 * time.Hour)
	w.resolve("a", name("A"))
	w.silent(time.Hour)
	if n := w.core.Pending()[[2]string{"ops", "webhook/0"}]; n != 0 {
		t.Errorf("%d messages pending, want 0", n)
	}
	before := w.core.Snapshot(w.now)
	w.start() // from the journal, which says all that was given up
	after := w.core.Snapshot(w.now)
	for _, s := range []*deliveryv1.Snapshot{before, after} {
		for _, l := range s.GetLanes() {
			l.FlushAt = nil
		}
	}
	if diff := cmp.Diff(before, after, protocmp.Transform()); diff != "" {
		t.Errorf("a restart changes what is known:\n%s", diff)
	}
	w.silent(time.Hour)
	w.resolve("c", name("C")) // a new process asks again
	w.wait(time.Second)
	_, s := w.finish(told)
	wantSaid(t, s, "all alerts resolved", map[string]string{"c": "resolved"})
}

func TestAThrottlingReceiverIsLeftInPeace(t *testing.T) {
	w := newWorld(t, single, both)
	w.fire("a", name("A"))
	w.finish(Outcome{Status: 429, RetryAfter: time.Minute, Throttled: true})
	w.fire("b", name("B"))
	w.silent(59 * time.Second)
	w.wait(time.Second)
	if len(w.running) != 2 {
		t.Errorf("%d attempts after the pause, want 2", len(w.running))
	}
}

// A message that failed for hours and is throttled now must not hold up what its
// receiver is to hear besides for hours too.
func TestAThrottlingReceiverIsLeftInPeaceForAsLongAsItAsked(t *testing.T) {
	w := newWorld(t, single, both)
	w.fire("old", name("Old"))
	for range len(schedule) - 1 {
		w.finish(failed)
		w.wait(10 * time.Hour)
	}
	w.finish(Outcome{Status: 429, RetryAfter: 5 * time.Second, Throttled: true})
	w.fire("new", name("New"))
	w.silent(4 * time.Second)
	w.wait(time.Second)
	if _, s := w.finish(told); s.Alerts["new"] != "firing" {
		t.Errorf("heard %v, want what is new", s.Alerts)
	}
}

func TestAtMostSixteenAttemptsRunPerIntegration(t *testing.T) {
	w := newWorld(t, single, both)
	for i := range 40 {
		w.fire(fmt.Sprint(i), name(fmt.Sprint("A", i)))
	}
	w.settle()
	heard := 0
	for len(w.running) > 0 {
		if len(w.running) > maxInFlight {
			t.Fatalf("%d attempts run", len(w.running))
		}
		a := w.running[0]
		w.running = w.running[1:]
		heard++
		w.core.Finished(a, told, w.now)
		w.settle()
	}
	if heard != 40 {
		t.Errorf("%d messages told, want 40", heard)
	}
}

func TestAnAttemptThatWaitedForASlotIsNotReplacedWhileItRuns(t *testing.T) {
	w := newWorld(t, single, both)
	for i := range maxInFlight {
		w.fire(fmt.Sprint(i), name(fmt.Sprint("A", i)))
	}
	w.settle()
	w.fire("late", name("Late"))
	w.now = w.now.Add(100 * time.Millisecond)
	w.settle() // the message waits for a slot
	w.resolve("late", name("Late"))
	w.core.Finished(w.running[0], told, w.now)
	w.running = nil
	a, _ := w.attempt()
	w.wait(time.Second)
	if w.superseded != 0 {
		t.Error("the message was replaced while its attempt ran")
	}
	w.running = nil
	w.core.Finished(a, told, w.now)
	_, s := w.finish(told)
	wantSaid(t, s, "all alerts resolved", map[string]string{"late": "resolved"})
}
