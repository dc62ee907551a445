package delivery

import (
	"testing"
	"time"

	"github.com/tocsin-dev/tocsin/services/notifier/internal/route"
)

func TestOtherBytesHaveAnotherID(t *testing.T) {
	w := newWorld(t, grouped, both)
	w.fire("a", map[string]string{"alertname": "A"})
	w.wait(30 * time.Second)
	first, _ := w.finish(failed)
	// Another alert comes and goes, so that the third message is about a alone, as
	// the first one was, at a later sequence.
	w.fire("b", map[string]string{"alertname": "B"})
	w.wait(5 * time.Minute)
	w.finish(failed)
	w.core.o.Table = route.NewTable(w.conf.Route, map[string][]route.Integration{"ops": {{Name: "webhook/0"}}})
	w.resolve("b", map[string]string{"alertname": "B"})
	w.core.touch(w.core.lanes[first.Lane], w.now)
	w.fire("c", map[string]string{"alertname": "C"})
	w.resolve("c", map[string]string{"alertname": "C"})
	w.wait(10 * time.Minute)
	third, s := w.finish(told)
	if len(s.Alerts) != 1 || s.Alerts["a"] != "firing" {
		t.Fatalf("the last message is %s, want one about a alone", third.Body.Bytes)
	}
	if third.ID == first.ID && string(third.Body.Bytes) != string(first.Body.Bytes) {
		t.Errorf("%s is the id of two bodies:\n%s\n%s", first.ID, first.Body.Bytes, third.Body.Bytes)
	}
}

// TestWhatIsToldAgainAfterARollbackHasAnotherID ends an alert, and ends it later
// at the same place of ALERTS, as happens when the stream is rolled back.
func TestWhatIsToldAgainAfterARollbackHasAnotherID(t *testing.T) {
	end := func(after time.Duration) Attempt {
		w := newWorld(t, single, both)
		w.fire("a", name("A"))
		w.finish(told)
		w.now = w.now.Add(after)
		w.resolve("a", name("A"))
		w.wait(time.Second)
		a, _ := w.finish(told)
		return a
	}
	first, again, other := end(time.Minute), end(time.Minute), end(2*time.Minute)
	if first.ID != again.ID {
		t.Errorf("the same end is called %s and %s", first.ID, again.ID)
	}
	if first.ID == other.ID {
		t.Errorf("two ends are both called %s", first.ID)
	}
}
