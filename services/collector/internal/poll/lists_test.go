package poll_test

import (
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/tocsin-dev/tocsin/internal/event"
	eventv1 "github.com/tocsin-dev/tocsin/proto/gen/tocsin/event/v1"
	"github.com/tocsin-dev/tocsin/services/collector/runpod"
)

func TestAnEndpointThatIsGoneIsPolledNoMore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := watch(t, 10)
		w.in(time.Minute)
		w.set(func(a *api) { a.endpoints = a.endpoints[1:] })
		events := w.in(5 * time.Minute)
		if got := count(events)["target_removed"]; got != 1 || w.calls("endpoint ep0") != 1 {
			t.Fatalf("%d removals after %d questions", got, w.calls("endpoint ep0"))
		}
		for _, e := range w.in(5 * time.Minute) {
			if e.GetTarget().GetId() == "ep0" {
				t.Errorf("after its removal: %v", e)
			}
		}
		if got := last(t, w.in(time.Minute)); got.GetTargets() != 10 {
			t.Errorf("%d targets, want 10", got.GetTargets())
		}
	})
}

func TestNothingFollowsTheRemovalOfAnEndpoint(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := watch(t, 10)
		w.in(time.Minute)
		w.set(func(a *api) {
			a.hidden, a.took = "ep0", 7*time.Second // twice for a poll every 15 s: one is nearly always in flight
		})
		removed := false
		for _, e := range w.in(20 * time.Minute) {
			if e.GetTarget().GetId() != "ep0" {
				continue
			}
			if removed {
				t.Errorf("after its removal: %v", e)
			}
			removed = removed || e.GetTargetRemoved() != nil
		}
		if !removed {
			t.Error("it was not removed")
		}
	})
}

func TestWhatOthersFindOutAboutATargetIsToldUnlessItIsGone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := watch(t, 10)
		w.in(time.Minute)
		end := func(id string) *eventv1.Event {
			return &eventv1.Event{
				Id:     "end of a job of " + id,
				Target: &eventv1.Target{Account: "default", Kind: eventv1.TargetKind_TARGET_KIND_ENDPOINT, Id: id},
				Fact:   &eventv1.Event_JobTransitioned{JobTransitioned: &eventv1.JobTransitioned{JobId: "j"}},
			}
		}
		w.set(func(a *api) { a.endpoints = a.endpoints[1:] })
		w.in(5 * time.Minute)
		w.mu.Lock()
		from := len(w.events)
		w.mu.Unlock()
		if !w.account.Publish(end("ep0"), time.Now()) || !w.account.Publish(end("ep1"), time.Now()) {
			t.Error("there was no room")
		}
		w.mu.Lock()
		told := w.events[from:]
		w.full = true
		w.mu.Unlock()
		if len(told) != 1 || told[0].GetTarget().GetId() != "ep1" {
			t.Errorf("told %v, want that of ep1 alone", told)
		}
		if w.account.Publish(end("ep1"), time.Now()) {
			t.Error("there was room where there is none")
		}
	})
}

func TestATargetOfWhichRunPodGivesNoAnswerHoldsUpNoOther(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := watch(t, 20)
		w.in(time.Minute)
		w.set(func(a *api) {
			a.endpoints = a.endpoints[3:]
			a.special = map[string]error{
				"endpoint ep0": &runpod.Error{Kind: runpod.Server, Status: 500},
				"endpoint ep1": &runpod.Error{Kind: runpod.Malformed, Status: 200},
			}
		})
		var gone []string
		for _, e := range w.in(10 * time.Minute) {
			if e.GetTargetRemoved() != nil {
				gone = append(gone, e.GetTarget().GetId())
			}
		}
		if diff := cmp.Diff([]string{"ep2"}, gone); diff != "" {
			t.Errorf("removed (-want +got):\n%s", diff)
		}
		w.set(func(a *api) { a.special = map[string]error{"endpoint ep0": &runpod.Error{Kind: runpod.RateLimited}} })
		if got := count(w.in(5 * time.Minute))["target_removed"]; got != 0 || w.calls("endpoint ep1") > 12 {
			t.Errorf("%d removals and %d questions about ep1, although the first of all was one too many", got, w.calls("endpoint ep1"))
		}
	})
}

func TestWhatTheInventoryFindsIsToldAgainWhereItFoundNoRoom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := watch(t, 10)
		w.in(time.Minute)
		full := func(full bool) {
			w.mu.Lock()
			defer w.mu.Unlock()
			w.full = full
		}
		full(true)
		w.set(func(a *api) {
			a.endpoints = append(slices.Clone(a.endpoints[1:]), runpod.Endpoint{ID: "new", Type: runpod.Queue})
		})
		if got := count(w.in(10 * time.Minute)); got["target_discovered"]+got["target_removed"] != 0 {
			t.Errorf("there was room after all: %v", got)
		}
		full(false)
		var told []string
		for _, e := range w.in(2 * time.Minute) {
			if e.GetId() != "" {
				told = append(told, event.Kind(e)+" "+e.GetTarget().GetId())
			}
		}
		if diff := cmp.Diff([]string{"target_changed new", "target_removed ep0"}, told); diff != "" {
			t.Errorf("told (-want +got):\n%s", diff)
		}
		if got := count(w.in(time.Minute))["health_sampled"]; got != 40 {
			t.Errorf("%d samples in a minute, want those of ten endpoints", got)
		}
	})
}

func TestALossThatIsDoubtedKeepsAllTargets(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := watch(t, 10)
		w.in(time.Minute)
		w.set(func(a *api) { a.endpoints = nil })
		got := count(w.in(time.Hour))
		if got["inventory_shrunk"] != 1 || got["target_removed"] != 0 {
			t.Errorf("events of the loss: %v", got)
		}
		if n := len(w.account.Targets()); n != 11 {
			t.Errorf("%d targets are left of 11", n)
		}
	})
}

func TestTargetsBeyondTheBoundAreToldAndNotWatched(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := watch(t, most+5)
		events := w.in(2 * time.Minute)
		detail := "list endpoints: too large (200): 6 of 65 are not watched: 60 targets are, which is collector.max_targets; raise it and start the collector anew"
		if w.account.Targets()[most-1].Kind != eventv1.TargetKind_TARGET_KIND_POD { // the pod was listed first
			detail = strings.Replace(detail, "6 of 65", "5 of 65", 1)
		}
		sampled, told := map[string]bool{}, 0
		for _, e := range events {
			if e.GetHealthSampled() != nil || e.GetGpuSampled() != nil {
				sampled[e.GetTarget().GetId()] = true
			}
			if f := e.GetPollFailed(); f.GetKind() == eventv1.PollKind_POLL_KIND_ENDPOINTS {
				told++
				if f.GetReason() != eventv1.PollFailureReason_POLL_FAILURE_REASON_TOO_LARGE || f.GetDetail() != detail {
					t.Errorf("told %v, want %s", f, detail)
				}
			}
		}
		if len(sampled) != most || told != 2 || last(t, events).GetTargets() != most {
			t.Errorf("%d targets were sampled, told %d times, heartbeat %v; want %d and 2", len(sampled), told, last(t, events), most)
		}
		if n := w.counted(t, "tocsin_collector_targets_refused_total"); n < 18 { // six at each of three lists of endpoints, or five of these and the pod at each of five of pods
			t.Errorf("%v refusals were counted, want those of each list", n)
		}
	})
}

func TestAnEntryThatCannotBeReadIsToldAndItsTargetKept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := watch(t, 10)
		w.set(func(a *api) { a.pods = append(a.pods, runpod.Pod{ID: "odd", Status: runpod.PodRunning}) })
		w.in(time.Minute)
		w.set(func(a *api) {
			a.endpoints = slices.Clone(a.endpoints[:9])
			a.unread = []runpod.Unreadable{{ID: "ep9", Detail: "endpoints[9]: name is a JSON number"}, {ID: "never seen", Detail: "x"}}
			a.pods, a.unreadPods = a.pods[:1], []runpod.Unreadable{{ID: "odd", Detail: "pods[1]: status is missing"}}
		})
		events := w.in(10 * time.Minute)
		told := map[eventv1.PollKind]int{}
		for _, e := range events {
			if f := e.GetPollFailed(); f != nil && e.GetTarget().GetKind() == eventv1.TargetKind_TARGET_KIND_ACCOUNT {
				told[f.GetKind()]++
				want := map[eventv1.PollKind]string{
					eventv1.PollKind_POLL_KIND_ENDPOINTS: "list endpoints: malformed (200): 2 of 11 cannot be read and stay as they were known: endpoints[9]: name is a JSON number",
					eventv1.PollKind_POLL_KIND_PODS:      "list pods: malformed (200): 1 of 2 cannot be read and stay as they were known: pods[1]: status is missing",
				}[f.GetKind()]
				if f.GetReason() != eventv1.PollFailureReason_POLL_FAILURE_REASON_MALFORMED || f.GetDetail() != want {
					t.Errorf("told %v, want %s", f, want)
				}
			}
		}
		if told[eventv1.PollKind_POLL_KIND_ENDPOINTS] != 10 || told[eventv1.PollKind_POLL_KIND_PODS] != 20 {
			t.Errorf("told %v, want each list once", told)
		}
		got := count(events)
		if got["target_removed"]+got["inventory_shrunk"]+got["target_discovered"] != 0 || got["gpu_sampled"] != 20 {
			t.Errorf("events of ten minutes: %v, want the other pod's samples and no removal", got)
		}
		if p := last(t, events); p.GetTargets() != 12 || p.GetTargetsFailing() != 1 || p.GetFailed() != 0 {
			t.Errorf("heartbeat is %v, want 12 targets, the pod failing", p)
		}
	})
}
