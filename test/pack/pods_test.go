package pack

import (
	"time"

	"github.com/tocsin-dev/tocsin/services/alerter/ruletest"
)

// The pods of the stories: one that its owner expects to run, one that may stop.
const (
	prodPod = "prod-train"
	devPod  = "dev-notebook"
)

// Samples of pods.
var (
	training = ruletest.PodSample{CostPerHour: 1.64, Uptime: 20 * time.Hour, CPU: 35, GPUs: []float64{88, 91}}
	idling   = ruletest.PodSample{CostPerHour: 2.49, Uptime: 51 * time.Hour, CPU: 1, GPUs: []float64{0}}
	gpuless  = ruletest.PodSample{CostPerHour: 1.64, Uptime: 20 * time.Hour, CPU: 35}
)

// without is a pod that does not run.
func without(status string) ruletest.PodSample {
	return ruletest.PodSample{Status: status, NoRuntime: true}
}

// runs begins a pod with two GPUs that trained for an hour.
func (w *world) runs(name string) {
	w.t.Helper()
	w.Discover(ruletest.Pod(name), ruletest.PodSpec(2))
	w.pod(name, training)
	w.pass(time.Hour)
}

// restarts begins the container of a pod anew, n times, so far apart.
func (w *world) restarts(name string, n int, apart time.Duration) {
	w.t.Helper()
	for range n {
		s := training
		s.Uptime = apart
		w.pod(name, s)
		w.stays(apart - 2*moment)
		s.Uptime = time.Second
		w.pod(name, s)
	}
}

var podProofs = []proof{
	{
		rule: "PodDown",
		fires: story{"2 minutes after a pod that should run has stopped", func(w *world) {
			w.runs(prodPod)
			w.pod(prodPod, without("EXITED"))
			a := w.firesAfter(2 * time.Minute)
			if want := "pod prod-train should run and is EXITED"; summary(a) != want {
				w.t.Errorf("the summary is %q, want %q", summary(a), want)
			}
			w.runs("prod-other")
			w.Remove(ruletest.Pod("prod-other"))
			a = w.firesAfter(2 * time.Minute)
			if want := "pod prod-other should run and is gone"; summary(a) != want {
				w.t.Errorf("the summary is %q, want %q", summary(a), want)
			}
		}},
		holds: story{"whatever it is instead of running, and when it is gone", func(w *world) {
			w.runs(prodPod)
			w.pod(prodPod, without("EXITED"))
			w.pends(2*time.Minute - step)
			w.firesAfter(step)
			w.pod(prodPod, without("ERROR"))
			w.stays(time.Hour)
			w.Stop(ruletest.Pod(prodPod))
			w.stays(time.Hour)
			w.Remove(ruletest.Pod(prodPod))
			w.stays(time.Hour)
		}},
		resolves: story{"when it runs", func(w *world) {
			w.runs(prodPod)
			w.pod(prodPod, without("EXITED"))
			w.firesAfter(2 * time.Minute)
			w.pod(prodPod, training)
			w.resolvesAfter(0)
		}},
		quiet: []story{
			{"a pod that nobody expects to run", func(w *world) {
				w.runs(devPod)
				w.pod(devPod, without("EXITED"))
				w.quiet(night)
				w.Remove(ruletest.Pod(devPod))
				w.quiet(time.Hour)
			}},
			{"a restart that takes a minute and a half", func(w *world) {
				w.runs(prodPod)
				w.pod(prodPod, without("EXITED"))
				w.quiet(time.Minute)
				w.pod(prodPod, without("STARTING"))
				w.quiet(30 * time.Second)
				w.pod(prodPod, training)
				w.quiet(time.Hour)
			}},
			{"the list of pods fails", func(w *world) {
				w.runs(prodPod)
				w.Stop(ruletest.Pod(prodPod))
				w.quiet(night)
			}},
		},
	},
	{
		rule: "PodStuckStarting",
		fires: story{"after 15 minutes", func(w *world) {
			w.Discover(ruletest.Pod(prodPod), ruletest.PodSpec(2))
			w.pod(prodPod, without("PROVISIONING"))
			w.stays(5 * time.Minute)
			w.pod(prodPod, without("STARTING"))
			a := w.firesAfter(10 * time.Minute)
			if want := "pod prod-train should run and has been STARTING for 15 minutes"; summary(a) != want {
				w.t.Errorf("the summary is %q, want %q", summary(a), want)
			}
		}},
		holds: story{"while it starts, and while nothing is known", func(w *world) {
			w.Discover(ruletest.Pod(prodPod), ruletest.PodSpec(2))
			w.pod(prodPod, without("STARTING"))
			w.pends(15*time.Minute - step)
			w.firesAfter(step)
			w.stays(time.Hour)
			w.Stop(ruletest.Pod(prodPod))
			w.stays(time.Hour)
		}},
		resolves: story{"when it runs", func(w *world) {
			w.Discover(ruletest.Pod(prodPod), ruletest.PodSpec(2))
			w.pod(prodPod, without("STARTING"))
			w.firesAfter(15 * time.Minute)
			w.pod(prodPod, training)
			w.resolvesAfter(0)
		}},
		quiet: []story{
			{"a pod that takes 14 minutes to start", func(w *world) {
				w.Discover(ruletest.Pod(prodPod), ruletest.PodSpec(2))
				w.pod(prodPod, without("STARTING"))
				w.quiet(14 * time.Minute)
				w.pod(prodPod, training)
				w.quiet(time.Hour)
			}},
			{"a pod that nobody expects to run", func(w *world) {
				w.Discover(ruletest.Pod(devPod), ruletest.PodSpec(2))
				w.pod(devPod, without("STARTING"))
				w.quiet(night)
			}},
		},
	},
	{
		rule: "PodFailed",
		fires: story{"as an info, when a pod that ran has stopped for 2 minutes", func(w *world) {
			w.runs(devPod)
			w.pod(devPod, without("EXITED"))
			a := w.firesAfter(2 * time.Minute)
			if want := "pod dev-notebook is EXITED"; summary(a) != want || a.GetLabels()["severity"] != "info" {
				w.t.Errorf("%s: %q, want info: %q", a.GetLabels()["severity"], summary(a), want)
			}
		}},
		holds: story{"while it is in ERROR", func(w *world) {
			w.Discover(ruletest.Pod(devPod), ruletest.PodSpec(2))
			w.pod(devPod, without("ERROR"))
			w.pends(2*time.Minute - step)
			w.firesAfter(step)
			w.stays(night)
			w.Stop(ruletest.Pod(devPod))
			w.stays(time.Hour)
		}},
		resolves: story{"when that it ran is a quarter of an hour ago", func(w *world) {
			w.runs(devPod)
			w.pod(devPod, without("EXITED"))
			w.firesAfter(2 * time.Minute)
			w.resolvesAfter(13 * time.Minute)
			w.stays(night)
		}},
		quiet: []story{
			{"a pod that was stopped long ago, seen for the first time", func(w *world) {
				w.Discover(ruletest.Pod(devPod), ruletest.PodSpec(2))
				w.pod(devPod, without("EXITED"))
				w.quiet(night)
				w.WantFiring()
			}},
			{"a pod that should run is another rule's", func(w *world) {
				w.runs(prodPod)
				w.pod(prodPod, without("ERROR"))
				w.stays(time.Hour)
				w.WantFiring("PodDown")
			}},
		},
	},
	{
		rule: "PodRestarting",
		fires: story{"at the third restart in 15 minutes", func(w *world) {
			w.runs(devPod)
			for _, uptime := range []time.Duration{3, 2, 1} {
				w.stays(7 * time.Minute)
				s := training
				s.Uptime = uptime * time.Minute
				w.pod(devPod, s)
			}
			a := w.firesAfter(0)
			if want := "pod dev-notebook restarted 3 times in 15 minutes"; summary(a) != want {
				w.t.Errorf("the summary is %q, want %q", summary(a), want)
			}
		}},
		holds: story{"while restarts go on", func(w *world) {
			w.runs(devPod)
			for i := range 60 {
				s := training
				s.Uptime = time.Duration(2+i%2) * time.Minute
				w.pod(devPod, s)
				w.pass(2 * time.Minute)
			}
			if told := w.news(); len(told) != 1 {
				w.t.Errorf("told %d times, want once", len(told))
			}
		}},
		resolves: story{"15 minutes after there were fewer than 3 in 15", func(w *world) {
			w.runs(devPod)
			for _, uptime := range []time.Duration{3, 2, 1} {
				s := training
				s.Uptime = uptime * time.Minute
				w.pod(devPod, s)
			}
			w.firesAfter(0)
			w.resolvesAfter(15*time.Minute + 15*time.Minute - step)
		}},
		quiet: []story{
			{"a restart every 8 minutes", func(w *world) {
				w.runs(devPod)
				w.restarts(devPod, 60, 8*time.Minute)
				w.quiet(0)
			}},
			{"a pod that is stopped and started by hand", func(w *world) {
				w.runs(devPod)
				for range 5 {
					w.pod(devPod, without("EXITED"))
					w.quiet(20 * time.Minute)
					s := training
					s.Uptime = time.Minute
					w.pod(devPod, s)
					w.quiet(20 * time.Minute)
				}
			}},
		},
	},
	{
		rule: "GPUMissing",
		fires: story{"after 5 minutes without the figures of its GPUs", func(w *world) {
			w.runs(prodPod)
			w.pod(prodPod, gpuless)
			a := w.firesAfter(5 * time.Minute)
			if want := "the GPUs of pod prod-train have stopped reporting (2 expected)"; summary(a) != want {
				w.t.Errorf("the summary is %q, want %q", summary(a), want)
			}
		}},
		holds: story{"until they report, although they did long ago, and never as 0 %", func(w *world) {
			w.runs(prodPod)
			w.pod(prodPod, gpuless)
			w.pends(5*time.Minute - step)
			w.firesAfter(step)
			w.stays(6 * time.Hour)
			w.WantFiring("GPUMissing")
			w.Stop(ruletest.Pod(prodPod))
			w.stays(time.Hour)
		}},
		resolves: story{"when they report, or the pod stops", func(w *world) {
			w.runs(prodPod)
			w.pod(prodPod, gpuless)
			w.firesAfter(5 * time.Minute)
			w.pod(prodPod, training)
			w.resolvesAfter(0)
			w.pod(prodPod, gpuless)
			w.firesAfter(5 * time.Minute)
			w.pod(prodPod, without("EXITED"))
			w.resolvesAfter(0)
		}},
		quiet: []story{
			{"samples without GPUs for 4 minutes, again and again", func(w *world) {
				w.runs(prodPod)
				for range 20 {
					w.pod(prodPod, gpuless)
					w.quiet(4 * time.Minute)
					w.pod(prodPod, training)
					w.quiet(time.Minute)
				}
			}},
			{"a pod of which RunPod never told the GPUs", func(w *world) {
				w.Discover(ruletest.Pod(devPod), ruletest.PodSpec(2))
				w.pod(devPod, gpuless)
				w.quiet(night)
				w.WantFiring()
			}},
			{"a pod without GPUs", func(w *world) {
				w.Discover(ruletest.Pod(devPod), ruletest.PodSpec(0))
				w.pod(devPod, gpuless)
				w.quiet(night)
			}},
			{"a pod that stops", func(w *world) {
				w.runs(devPod)
				w.pod(devPod, without("EXITED"))
				w.quiet(time.Hour)
			}},
		},
	},
	{
		rule: "LowGPUUtilization",
		fires: story{"when nine tenths of 2 hours are known and idle, with the dollars", func(w *world) {
			w.Discover(ruletest.Pod(devPod), ruletest.PodSpec(1))
			w.pod(devPod, idling)
			a := w.firesAfter(108 * time.Minute)
			if want := "pod dev-notebook has idled for 2 hours at $2.49 an hour"; summary(a) != want {
				w.t.Errorf("the summary is %q, want %q", summary(a), want)
			}
		}},
		holds: story{"while it idles, and while nothing is known", func(w *world) {
			w.Discover(ruletest.Pod(devPod), ruletest.PodSpec(1))
			w.pod(devPod, idling)
			w.stays(108*time.Minute - 2*step)
			w.firesAfter(2 * step)
			for range 20 {
				s := idling
				s.GPUs, s.CPU = []float64{9}, 19
				w.pod(devPod, s)
				w.stays(20 * time.Minute)
				w.pod(devPod, idling)
				w.stays(20 * time.Minute)
			}
			w.Stop(ruletest.Pod(devPod))
			w.stays(time.Hour)
		}},
		resolves: story{"when a GPU works", func(w *world) {
			w.Discover(ruletest.Pod(devPod), ruletest.PodSpec(1))
			w.pod(devPod, idling)
			w.firesAfter(108 * time.Minute)
			w.pod(devPod, training)
			w.resolvesAfter(0)
		}},
		quiet: []story{
			{"GPUs that do not report are not idle", func(w *world) {
				s := gpuless
				s.CPU = 1
				w.Discover(ruletest.Pod(devPod), ruletest.PodSpec(1))
				w.pod(devPod, s)
				w.quiet(night)
			}},
			{"a sample in three is missing", func(w *world) {
				w.Discover(ruletest.Pod(devPod), ruletest.PodSpec(1))
				for range 100 {
					w.pod(devPod, idling)
					w.quiet(4 * time.Minute)
					w.pod(devPod, ruletest.PodSample{CostPerHour: 2.49, Uptime: 51 * time.Hour, CPU: 1})
					w.quiet(2 * time.Minute)
				}
			}},
			{"an hour's work every two hours", func(w *world) {
				w.Discover(ruletest.Pod(devPod), ruletest.PodSpec(1))
				for range 6 {
					w.pod(devPod, idling)
					w.quiet(100 * time.Minute)
					w.pod(devPod, training)
					w.quiet(20 * time.Minute)
				}
			}},
			{"a pod that costs nothing", func(w *world) {
				s := idling
				s.CostPerHour = 0
				w.Discover(ruletest.Pod(devPod), ruletest.PodSpec(1))
				w.pod(devPod, s)
				w.quiet(night)
			}},
			{"one busy GPU of two", func(w *world) {
				s := idling
				s.GPUs = []float64{0, 90}
				w.Discover(ruletest.Pod(devPod), ruletest.PodSpec(2))
				w.pod(devPod, s)
				w.quiet(night)
				w.WantFiring()
			}},
		},
	},
}
