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
