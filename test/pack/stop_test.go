package pack

import (
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	alertv1 "github.com/tocsin-dev/tocsin/proto/gen/tocsin/alert/v1"
	eventv1 "github.com/tocsin-dev/tocsin/proto/gen/tocsin/event/v1"
	"github.com/tocsin-dev/tocsin/services/alerter/ruletest"
	"github.com/tocsin-dev/tocsin/services/collector/runpod/sim"
)

// stop is how long everything is away: a night.
const stop = 8 * time.Hour

// fleet is an account in which alerts fire and wait.
type fleet struct {
	*world
	jobs int64
}

func newFleet(t *testing.T) *fleet {
	t.Helper()
	f := &fleet{world: newWorld(t, "")}
	f.polled(allWell)
	f.Discover(ruletest.Pod(prodPod), ruletest.PodSpec(2))
	f.Discover(ruletest.Pod("dev-lost"), ruletest.PodSpec(2))
	f.Discover(ruletest.Pod(devPod), ruletest.PodSpec(1))
	f.pod("dev-lost", training)
	f.endpoint(img, 5, crashing)
	f.endpoint("voice-disabled", 0, workerless)
	f.endpoint("chat-full", 5, queued(0))
	f.endpoint("docs-silent", 5, parked)
	f.Stop(ruletest.Endpoint("docs-silent"))
	f.endpoint("search-well", 5, busy)
	f.follows("stuck", inQueue)
	f.resume()
	f.pass(2 * time.Hour)
	f.becomes("chat-full", queued(40))
	f.Change(ruletest.Endpoint("search-well"), ruletest.QueueSpec(4))
	f.pod("dev-lost", gpuless)
	f.pass(time.Minute)
	return f
}

// resume begins to poll everything that answers, in the state in which it is.
func (f *fleet) resume() {
	f.t.Helper()
	f.polled(allWell)
	f.pod(prodPod, without("EXITED"))
	f.pod(devPod, idling)
	if f.jobs > 0 {
		f.pod("dev-lost", gpuless)
	}
	for _, l := range f.lives {
		if l.name == "docs-silent" {
			continue
		}
		f.changing(l.name, l.sample, l.change)
	}
	well := f.life("search-well").sample
	well.Completed += f.jobs
	well.Failed += f.jobs / 50
	f.changing("search-well", well, share(25, 0))
	f.jobs = 40_000
}

// alerts are the alerts by id, each with what must not change.
func alerts(list []*alertv1.Alert) map[string]string {
	all := map[string]string{}
	for _, a := range list {
		all[a.GetId()] = fmt.Sprint(a.GetRule(), a.GetLabels(), a.GetActiveAt().AsTime(), a.GetFiredAt().AsTime())
	}
	return all
}

func TestAStopOfEightHoursChangesNothing(t *testing.T) {
	t.Parallel()
	for name, first := range map[string]*eventv1.Event{
		"the alerter comes back first":   {Fact: &eventv1.Event_Tick{Tick: &eventv1.Tick{}}},
		"the collector comes back first": collectorStarted(),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := newFleet(t)
			f.WantFiring("CrashLoop", "QueueStalled", "NoIdleWorkers", "EndpointDisabled", "QueueStalled", "NoIdleWorkers",
				"NoData", "JobStuckInQueue", "PodDown", "LowGPUUtilization", "WorkersMaxReduced")
			f.WantPending("Saturated", "GPUMissing")
			firing, pending := alerts(f.Firing()), alerts(f.Pending())

			f.Forget()
			f.StopAll()
			f.Sleep(stop)
			f.Send(first)
			f.Advance(2 * time.Second)
			if first.GetTick() != nil {
				f.Send(collectorStarted())
			}
			f.resume()
			f.pass(time.Minute)
			for _, tr := range f.Transitions() {
				t.Errorf("the stop made %s %s: %s", tr.GetAlert().GetRule(), tr.GetKind(), summary(tr.GetAlert()))
			}
			if diff := cmp.Diff(firing, alerts(f.Firing())); diff != "" {
				t.Errorf("what fires changed (-before +after):\n%s", diff)
			}
			if diff := cmp.Diff(pending, alerts(f.Pending())); diff != "" {
				t.Errorf("what is pending changed (-before +after):\n%s", diff)
			}

			// The rest of the wait is waited out: of 5 minutes 2 had passed, and the
			// stop counts as nothing.
			f.rule = "GPUMissing"
			f.firesAfter(5*time.Minute - 2*time.Minute - step)
		})
	}
}

func TestManyStopsMakeNoSilence(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "")
	for range 30 {
		w.Send(collectorStarted())
		w.polled(allWell)
		if len(w.lives) == 0 {
			w.endpoint(img, 5, busy)
		} else {
			w.changing(img, busy, works)
		}
		w.pass(20 * time.Second)
		w.StopAll()
		w.lives[0].change = nil
		w.pass(10 * time.Second)
		w.Sleep(stop)
	}
	w.WantFiring()
	w.WantPending()
	if n := len(w.Transitions()); n > 0 {
		t.Errorf("%d transitions, want none", n)
	}
}

func TestAQuietNightMayBeSleptThrough(t *testing.T) {
	t.Parallel()
	h := ruletest.New(t, pack(t))
	w := newWatch(t, sim.QuietNight(), h)
	w.pass(time.Hour)
	w.sleep(stop)
	w.pass(time.Hour)
	for _, l := range w.lines(h) {
		t.Errorf("told: %s", l)
	}
}
