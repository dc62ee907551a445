package alerter_test

import (
	"fmt"
	"testing"

	"github.com/tocsin-dev/tocsin/internal/event"
	alertv1 "github.com/tocsin-dev/tocsin/proto/gen/tocsin/alert/v1"
)

// TestALogOfTheFutureHidesNoAlert gives the notifier an alert of a log that sorts
// after all that an alerter can name: it takes what that partition sends for
// repeats. That is kept until the alert is removed, others are told as ever, and
// nothing is loaded again and again.
func TestALogOfTheFutureHidesNoAlert(t *testing.T) {
	future := &alertv1.Cause{LogId: "999999999999-9999999999999999999", Sequence: 1}
	hidden := event.Partition(event.Token(endpoint("hidden")))
	other := "other"
	for n := 0; event.Partition(event.Token(endpoint(other))) == hidden; n++ {
		other = fmt.Sprint("other", n)
	}
	for name, before := range map[string]func(w *world) *running{
		"while it runs":        func(w *world) *running { return w.start().await(64).inForce() },
		"before its start":     func(w *world) *running { w.start().await(64).inForce().stop(); return nil },
		"and Redis forgot":     func(w *world) *running { w.start().await(64).inForce().stop(); w.redis.FlushAll(w.t); return nil },
		"and nothing was kept": func(*world) *running { return nil },
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			r := before(w)
			remove := w.notifier.forge(hidden, future)
			if r == nil {
				r = w.start().await(64)
				r.inForce()
			}
			w.queue("hidden", 20)
			w.queue(other, 20)
			log := w.notifier.await(other, "f")[0].GetCause().GetLogId()
			eventually(t, "the alert waits", func() error {
				if n := r.metric("tocsin_alerter_outbox_depth", fmt.Sprint(hidden)); n != 1 {
					return fmt.Errorf("%v wait", n)
				}
				return nil
			})
			w.queue("hidden", 0)
			eventually(t, "it is told that no log can follow", func() error {
				if r.metric("tocsin_alerter_unfollowed_watermarks_total") < 1 {
					return fmt.Errorf("not yet")
				}
				return nil
			})
			remove()
			told := w.notifier.await("hidden", "fr")
			wantOrder(t, told)
			if got := told[0].GetCause().GetLogId(); got != log {
				t.Errorf("the log became %s, was %s", got, log)
			}
			if n := r.metric("tocsin_alerter_reloads_total", "log_changed"); n > 0 {
				t.Errorf("%v partitions were loaded anew", n)
			}
		})
	}
}

// TestACauseBeyondTheLogHidesNoAlert gives the notifier an alert that names this
// very log, at a place that it has not reached.
func TestACauseBeyondTheLogHidesNoAlert(t *testing.T) {
	w := newWorld(t)
	r := w.start().await(64).inForce()
	w.queue("one", 20)
	one := w.notifier.await("one", "f")[0]
	w.notifier.forge(event.Partition(event.Token(endpoint("one"))), &alertv1.Cause{LogId: one.GetCause().GetLogId(), Sequence: 1 << 40})
	w.queue("one", 0)
	end := w.notifier.await("one", "fr")[1]
	if end.GetAlert().GetId() != one.GetAlert().GetId() || end.GetCause().GetLogId() <= one.GetCause().GetLogId() {
		t.Errorf("%s of log %s became %s of log %s", one.GetAlert().GetId(), one.GetCause().GetLogId(), end.GetAlert().GetId(), end.GetCause().GetLogId())
	}
	if n := r.metric("tocsin_alerter_reloads_total", "log_changed"); n < 1 {
		t.Error("nobody noticed")
	}
}
