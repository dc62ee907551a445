package delivery

import (
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/testing/protocmp"

	alertv1 "github.com/tocsin-dev/tocsin/proto/gen/tocsin/alert/v1"
	"github.com/tocsin-dev/tocsin/services/notifier/internal/route"
)

func wantSaid(t *testing.T, got said, reason string, alerts map[string]string) {
	t.Helper()
	if got.Reason != reason {
		t.Errorf("reason %q, want %q", got.Reason, reason)
	}
	if diff := cmp.Diff(alerts, got.Alerts); diff != "" {
		t.Error(diff)
	}
}

func TestAFiringIsToldOnceAndThenItsEnd(t *testing.T) {
	w := newWorld(t, single, both)
	w.fire("a", name("A"))
	_, s := w.finish(told)
	wantSaid(t, s, "first notification", map[string]string{"a": "firing"})
	w.silent(3 * time.Hour)
	w.resolve("a", name("A"))
	w.wait(time.Second)
	_, s2 := w.finish(told)
	wantSaid(t, s2, "all alerts resolved", map[string]string{"a": "resolved"})
	if s2.Sequence <= s.Sequence {
		t.Errorf("sequence %d after %d, want a rise", s2.Sequence, s.Sequence)
	}
	w.silent(24 * time.Hour)
	if len(w.core.alerts)+len(w.core.lanes) != 0 {
		t.Errorf("%d alerts and %d lanes are still held", len(w.core.alerts), len(w.core.lanes))
	}
}

func TestNothingIsAttemptedBeforeItIsJournaled(t *testing.T) {
	w := newWorld(t, single, both)
	w.fire("a", name("A"))
	w.step()
	w.now = w.now.Add(time.Hour)
	w.step()
	if len(w.running) != 0 || len(w.unjournaled) != 1 {
		t.Fatalf("%d attempts and %d records, want none and the intent", len(w.running), len(w.unjournaled))
	}
	w.store()
	w.attempt()
}

func TestAFailedMessageIsRepeatedAsItWas(t *testing.T) {
	w := newWorld(t, single, both)
	w.fire("a", name("A"))
	first, _ := w.finish(failed)
	begin := w.now
	for n := 2; n <= 14; n++ {
		w.wait(13 * time.Hour)
		a, _ := w.finish(failed)
		if a.ID != first.ID || string(a.Body.Bytes) != string(first.Body.Bytes) || a.Number != n {
			t.Fatalf("attempt %d is %q with number %d, want %q", n, a.ID, a.Number, first.ID)
		}
	}
	if w.now.Sub(begin) < 24*time.Hour {
		t.Errorf("gave up after %v", w.now.Sub(begin))
	}
	w.silent(3 * time.Hour)
	w.resolve("a", name("A"))
	w.wait(time.Second)
	_, s := w.finish(told)
	wantSaid(t, s, "all alerts resolved", map[string]string{"a": "resolved"})
}

func TestPauses(t *testing.T) {
	for number, base := range schedule {
		var least, most time.Duration = 1 << 62, 0
		for i := range 500 {
			d, again := pause(fmt.Sprint("msg_", i), number+1, 0)
			if !again {
				t.Fatalf("no attempt follows attempt %d", number+1)
			}
			least, most = min(least, d), max(most, d)
		}
		low, high := base*80/100, base*120/100
		if least < low || most > high || least > base*85/100 || most < base*115/100 {
			t.Errorf("pauses after attempt %d range from %v to %v, want them spread over %v to %v", number+1, least, most, low, high)
		}
	}
	if _, again := pause("x", len(schedule)+1, time.Hour); again {
		t.Error("an attempt follows the last one")
	}
	for _, c := range []struct {
		name       string
		number     int
		retryAfter time.Duration
		least      time.Duration
		most       time.Duration
	}{
		{"what the receiver asks for is given", 1, 90 * time.Second, 90 * time.Second, 90 * time.Second},
		{"less than the schedule's pause is not", 5, time.Second, 96 * time.Second, 144 * time.Second},
		{"an absurd value is bounded", 1, 1000 * time.Hour, 2 * time.Hour, 2 * time.Hour},
		{"the bound does not shorten the schedule", 13, 1000 * time.Hour, 8 * time.Hour, 12 * time.Hour},
		{"a negative value means nothing", 1, -time.Hour, 800 * time.Millisecond, 1200 * time.Millisecond},
	} {
		t.Run(c.name, func(t *testing.T) {
			if d, _ := pause("id", c.number, c.retryAfter); d < c.least || d > c.most {
				t.Errorf("%v, want %v to %v", d, c.least, c.most)
			}
		})
	}
}

func TestWhatFiredAndResolvedBeforeItsFirstDeliveryIsToldOnceAsResolved(t *testing.T) {
	w := newWorld(t, single, both)
	w.fire("a", name("A"))
	w.finish(failed)
	w.resolve("a", name("A"))
	w.wait(time.Second)
	_, s := w.finish(told)
	wantSaid(t, s, "all alerts resolved", map[string]string{"a": "resolved"})
	w.silent(24 * time.Hour)
	if w.superseded != 1 {
		t.Errorf("%d messages superseded, want 1", w.superseded)
	}
}

func TestANewStateDuringAnAttemptFollowsIt(t *testing.T) {
	w := newWorld(t, single, both)
	w.fire("a", name("A"))
	a, _ := w.attempt()
	w.resolve("a", name("A"))
	w.wait(5 * time.Second)
	if len(w.running) != 1 {
		t.Fatalf("%d attempts run while one was in flight, want 1", len(w.running))
	}
	w.running = nil
	w.core.Finished(a, told, w.now)
	_, s := w.finish(told)
	wantSaid(t, s, "all alerts resolved", map[string]string{"a": "resolved"})
}

const grouped = `
route: {receiver: ops, group_by: [team], group_wait: 30s, group_interval: 5m, repeat_interval: 4h}
receivers: [{name: ops}]
`

func TestGroupsWaitAndGatherAsInAlertmanager(t *testing.T) {
	w := newWorld(t, grouped, both)
	w.fire("a", name("A"))
	w.silent(20 * time.Second)
	w.fire("b", name("B"))
	w.silent(9 * time.Second)
	w.wait(time.Second)
	_, s := w.finish(told)
	wantSaid(t, s, "first notification", map[string]string{"a": "firing", "b": "firing"})

	w.silent(time.Minute)
	w.fire("c", name("C"))
	w.resolve("a", name("A"))
	w.silent(3*time.Minute + 59*time.Second)
	w.wait(time.Second)
	_, s = w.finish(told)
	wantSaid(t, s, "new alerts added", map[string]string{"a": "resolved", "b": "firing", "c": "firing"})

	w.resolve("b", name("B"))
	w.wait(5 * time.Minute)
	_, s = w.finish(told)
	wantSaid(t, s, "some alerts resolved", map[string]string{"b": "resolved", "c": "firing"})

	w.silent(3*time.Hour + 59*time.Minute)
	w.wait(time.Minute)
	_, s = w.finish(told)
	wantSaid(t, s, "repeat interval elapsed", map[string]string{"c": "firing"})

	w.resolve("c", name("C"))
	w.wait(5 * time.Minute)
	_, s = w.finish(told)
	wantSaid(t, s, "all alerts resolved", map[string]string{"c": "resolved"})
}

func TestAnAlertThatArrivesLateDoesNotWaitForItsGroupAgain(t *testing.T) {
	w := newWorld(t, grouped, both)
	fired := w.now
	w.now = fired.Add(time.Hour)
	a := AlertMessage{Seq: 1, Stored: w.now, Transitions: []*alertv1.Transition{{
		Kind:  alertv1.TransitionKind_TRANSITION_KIND_FIRING,
		Alert: &alertv1.Alert{Id: "a", Labels: name("A"), FiredAt: stamp(fired)},
	}}}
	w.alerts = append(w.alerts, a)
	w.core.ApplyAlerts(w.now, a)
	_, s := w.finish(told)
	wantSaid(t, s, "first notification", map[string]string{"a": "firing"})
}

func TestAStoreWhoseClockIsAheadDelaysNothing(t *testing.T) {
	w := newWorld(t, single, both)
	a := AlertMessage{Seq: 1, Stored: w.now.Add(time.Hour), Transitions: []*alertv1.Transition{{
		Kind:  alertv1.TransitionKind_TRANSITION_KIND_FIRING,
		Alert: &alertv1.Alert{Id: "a", Labels: name("A"), FiredAt: stamp(w.now.Add(time.Hour))},
	}}}
	w.alerts = append(w.alerts, a)
	w.core.ApplyAlerts(w.now, a)
	w.finish(told)
}

func TestARenewalIsNoNews(t *testing.T) {
	w := newWorld(t, single, both)
	w.fire("a", name("A"))
	w.finish(told)
	w.now = w.now.Add(time.Hour)
	w.change("a", alertv1.TransitionKind_TRANSITION_KIND_RENEWED, name("A"))
	w.silent(time.Hour)
	w.change("b", alertv1.TransitionKind_TRANSITION_KIND_RENEWED, name("B"))
	_, s := w.finish(told)
	wantSaid(t, s, "first notification", map[string]string{"b": "firing"})
}

func TestAReceiverThatWantsNoResolvedHearsNone(t *testing.T) {
	w := newWorld(t, single, map[string][]route.Integration{"ops": {{Name: "webhook/0"}}})
	w.fire("a", name("A"))
	w.finish(told)
	w.resolve("a", name("A"))
	w.silent(time.Hour)
	w.fire("b", name("B"))
	w.finish(failed)
	w.resolve("b", name("B"))
	w.silent(24 * time.Hour)
	if len(w.core.lanes) != 0 {
		t.Errorf("%d lanes are still held", len(w.core.lanes))
	}
}

func TestWhatIsOverLeavesNothingBehind(t *testing.T) {
	w := newWorld(t, single, both)
	w.fire("steady", name("steady")) // its repetition is due before all others
	w.finish(told)
	for i := range 2500 {
		id := fmt.Sprint(i)
		w.fire(id, name(id))
		w.finish(told)
		w.resolve(id, name(id))
		w.wait(time.Second)
		w.finish(told)
	}
	if n := len(w.core.queue); n > 2*minSweep {
		t.Errorf("%d deadlines are queued while one alert fires", n)
	}
	if n := len(w.core.lanes) + len(w.core.alerts) + len(w.core.sent); n != 2 {
		t.Errorf("%d lanes, alerts and messages are held, want one lane and one alert", n)
	}
}

func TestALargeGroupIsToldInParts(t *testing.T) {
	w := newWorld(t, grouped, both)
	for i := range 1200 {
		w.fire(fmt.Sprint(i), map[string]string{"alertname": "A", "i": fmt.Sprint(i)})
	}
	w.wait(30 * time.Second)
	heard := map[string]bool{}
	for len(w.running) > 0 {
		a, s := w.finish(told)
		if len(s.Alerts) > maxMentions || len(a.Body.Bytes) > maxBody {
			t.Fatalf("a message with %d alerts and %d bytes", len(s.Alerts), len(a.Body.Bytes))
		}
		for id := range s.Alerts {
			heard[id] = true
		}
	}
	if len(heard) != 1200 {
		t.Errorf("%d alerts told, want 1200", len(heard))
	}
}

func TestMaxAlertsTruncatesAsInAlertmanager(t *testing.T) {
	w := newWorld(t, grouped, map[string][]route.Integration{"ops": {{Name: "webhook/0", SendResolved: true, MaxAlerts: 2}}})
	for i := range 5 {
		w.fire(fmt.Sprint(i), map[string]string{"alertname": "A", "i": fmt.Sprint(i)})
	}
	w.wait(30 * time.Second)
	if _, s := w.finish(told); len(s.Alerts) != 2 || s.More != 3 {
		t.Errorf("%d alerts and %d truncated, want 2 and 3", len(s.Alerts), s.More)
	}
	w.silent(time.Hour)
}

func TestTwoIncidentsOfOneRuleAreTwo(t *testing.T) {
	w := newWorld(t, single, both)
	w.fire("a1", name("A"))
	w.finish(told)
	w.resolve("a1", name("A"))
	w.fire("a2", name("A"))
	w.wait(time.Second)
	_, s := w.finish(told)
	wantSaid(t, s, "new alerts added", map[string]string{"a1": "resolved", "a2": "firing"})
	if diff := cmp.Diff([]string{"a1", "a2"}, s.Order); diff != "" {
		t.Errorf("the older incident is not first:\n%s", diff)
	}
}

func TestActiveListsWhatFiresInAPartition(t *testing.T) {
	w := newWorld(t, single, map[string][]route.Integration{})
	w.fire("b", name("B"))
	w.fire("a", name("A"))
	w.resolve("b", name("B"))
	var ids []string
	for _, a := range w.core.Active(0) {
		ids = append(ids, a.GetId())
	}
	if diff := cmp.Diff([]string{"a"}, ids, protocmp.Transform()); diff != "" {
		t.Error(diff)
	}
	if got := w.core.Active(1); len(got) != 0 {
		t.Errorf("partition 1 has %v", got)
	}
}
