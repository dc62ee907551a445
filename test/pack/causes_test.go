package pack

import (
	"strings"
	"time"

	"github.com/tocsin-dev/tocsin/services/alerter/ruletest"
)

var causeProofs = []proof{
	{
		rule: "NoData",
		fires: story{"10 minutes after the last sample, whether polls fail or nobody polls", func(w *world) {
			w.endpoint(img, 5, busy)
			w.pass(time.Hour)
			w.blinds()
			w.firesAfter(10 * time.Minute)
		}},
		holds: story{"until something is heard", func(w *world) {
			w.endpoint(img, 5, busy)
			w.pass(time.Hour)
			w.Stop(ruletest.Endpoint(img))
			w.pends(10*time.Minute - step)
			w.firesAfter(step)
			w.stays(8 * time.Hour)
		}},
		resolves: story{"with the first sample", func(w *world) {
			w.endpoint(img, 5, busy)
			w.pass(time.Hour)
			w.Stop(ruletest.Endpoint(img))
			w.firesAfter(10 * time.Minute)
			w.becomes(img, busy)
			w.resolvesAfter(0)
		}},
		quiet: []story{
			aLoadBalancer,
			{"9 minutes of silence, again and again", func(w *world) {
				w.endpoint(img, 5, busy)
				for range 20 {
					w.Stop(ruletest.Endpoint(img))
					w.quiet(9 * time.Minute)
					w.becomes(img, busy)
					w.quiet(time.Minute)
				}
			}},
			{"a collector that starts after 8 minutes and needs 4 to look round", func(w *world) {
				w.endpoint(img, 5, busy)
				w.pass(time.Hour)
				w.StopAll()
				w.quiet(8 * time.Minute)
				w.Send(collectorStarted())
				w.quiet(4 * time.Minute)
				w.becomes(img, busy)
				w.quiet(time.Hour)
			}},
			{"an endpoint that is deleted", func(w *world) {
				w.endpoint(img, 5, busy)
				w.pass(time.Hour)
				w.Stop(ruletest.Endpoint(img))
				w.quiet(5 * time.Minute)
				w.Remove(ruletest.Endpoint(img))
				w.quiet(night)
			}},
		},
	},
	{
		rule: "EndpointDisabled",
		fires: story{"a minute after jobs wait at max workers 0", func(w *world) {
			w.endpoint(img, 0, parked)
			w.pass(time.Hour)
			w.becomes(img, ruletest.Sample{Completed: 535, InQueue: 1})
			a := w.firesAfter(time.Minute)
			if want := "vision-img has max workers 0 and 1 queued jobs"; !strings.Contains(summary(a), want) {
				w.t.Errorf("the summary is %q, want %q in it", summary(a), want)
			}
		}},
		holds: story{"while jobs come and expire", func(w *world) {
			w.endpoint(img, 0, workerless)
			w.firesAfter(time.Minute)
			for range 10 {
				w.becomes(img, parked)
				w.stays(4 * time.Minute)
				w.becomes(img, workerless)
				w.stays(4 * time.Minute)
			}
			w.blinds()
			w.stays(time.Hour)
		}},
		resolves: story{"5 minutes after max workers is raised", func(w *world) {
			w.endpoint(img, 0, workerless)
			w.firesAfter(time.Minute)
			w.Change(ruletest.Endpoint(img), ruletest.QueueSpec(5))
			w.resolvesAfter(5 * time.Minute)
		}},
		quiet: []story{
			{"an endpoint that is switched off and has no jobs", func(w *world) {
				w.endpoint(img, 0, parked)
				w.quiet(night)
				w.WantFiring()
			}},
			{"max workers is 0 for 45 seconds of a release", func(w *world) {
				w.endpoint(img, 5, busy)
				w.pass(time.Hour)
				w.Change(ruletest.Endpoint(img), ruletest.QueueSpec(0))
				w.becomes(img, hanging)
				w.quiet(45 * time.Second)
				w.Change(ruletest.Endpoint(img), ruletest.QueueSpec(5))
				w.changing(img, busy, works)
				w.quiet(time.Hour)
			}},
			aLoadBalancer,
		},
	},
	{
		rule: "CrashLoop",
		fires: story{"6 minutes after the last completion, with the numbers", func(w *world) {
			w.breaks(crashing)
			a := w.firesAfter(6*time.Minute - step)
			if want := "vision-img crash-loops: 41 queued, 2 unhealthy workers"; !strings.Contains(summary(a), want) {
				w.t.Errorf("the summary is %q, want %q in it", summary(a), want)
			}
			if a.GetLabels()["team"] != "vision" || a.GetLabels()["endpoint_id"] != img {
				w.t.Errorf("the labels are %v", a.GetLabels())
			}
		}},
		holds: story{"while workers are replaced and while nothing is known", func(w *world) {
			w.breaks(crashing)
			w.pends(6*time.Minute - 2*step)
			w.firesAfter(step)
			again := w.life(img).sample
			for range 10 {
				fresh := again
				fresh.Unhealthy, fresh.Initializing = 0, 2
				w.becomes(img, fresh)
				w.stays(3 * time.Minute)
				w.becomes(img, again)
				w.stays(time.Minute)
			}
			w.blinds()
			w.stays(time.Hour)
		}},
		resolves: story{"5 minutes after a job was completed", func(w *world) {
			w.breaks(ruletest.Sample{InQueue: 1, Unhealthy: 1})
			w.firesAfter(6*time.Minute - step)
			healed := busy
			healed.Completed = w.life(img).sample.Completed + 1
			w.becomes(img, healed)
			w.resolvesAfter(5 * time.Minute)
		}},
		quiet: []story{
			{"after the queue was purged: 15 minutes later it is over, and nothing comes of it", func(w *world) {
				w.breaks(crashing)
				w.firesAfter(6*time.Minute - step)
				purged := w.life(img).sample
				purged.InQueue = 0
				w.becomes(img, purged)
				w.resolvesAfter(15 * time.Minute)
				w.stays(night)
			}},
			{"one unhealthy worker beside others that work", func(w *world) {
				s := busy
				s.Unhealthy, s.InQueue = 1, 4
				w.endpoint(img, 5, s)
				w.changing(img, s, works)
				w.quiet(night)
			}},
			{"an unhealthy worker that is left at an idle endpoint", func(w *world) {
				w.endpoint(img, 5, ruletest.Sample{Completed: 535, Unhealthy: 1})
				w.quiet(night)
			}},
			{"no worker at all is no crash loop, nor one that crashed before a long start", func(w *world) {
				w.breaks(throttling)
				w.stays(time.Hour)
				w.changing(img, w.life(img).sample, works)
				w.stays(10 * time.Minute)
				w.becomes(img, crashing)
				w.stays(step)
				w.becomes(img, starting)
				w.stays(time.Hour)
			}},
			aBurstFromZero,
		},
	},
	{
		rule: "NoCapacity",
		fires: story{"6 minutes after the last worker stopped", func(w *world) {
			w.breaks(throttling)
			a := w.firesAfter(6 * time.Minute)
			if want := "vision-img gets no workers: 7 queued, 2 throttled"; !strings.Contains(summary(a), want) {
				w.t.Errorf("the summary is %q, want %q in it", summary(a), want)
			}
		}},
		holds: story{"while throttled workers come and go", func(w *world) {
			w.endpoint(img, 5, workerless)
			w.pends(5*time.Minute + step)
			w.firesAfter(step)
			for range 20 {
				w.becomes(img, throttling)
				w.stays(2 * time.Minute)
				w.becomes(img, ruletest.Sample{Completed: 535, InQueue: 7, Initializing: 1})
				w.stays(time.Minute)
				w.becomes(img, workerless)
				w.stays(90 * time.Second)
			}
			w.blinds()
			w.stays(time.Hour)
		}},
		resolves: story{"5 minutes after a worker runs, or nothing waits", func(w *world) {
			one := ruletest.Sample{InQueue: 1, Throttled: 1}
			w.endpoint(img, 1, one)
			w.firesAfter(4*time.Minute + 30*time.Second + time.Minute)
			w.becomes(img, ruletest.Sample{InQueue: 1, InProgress: 1, Running: 1})
			w.resolvesAfter(5 * time.Minute)
			w.becomes(img, one)
			w.firesAfter(6 * time.Minute)
			w.becomes(img, parked)
			w.resolvesAfter(5 * time.Minute)
		}},
		quiet: []story{
			aLoneThrottledWorker,
			aBurstFromZero,
			aParkedEndpoint,
			{"throttled for half a minute, again and again", func(w *world) {
				w.endpoint(img, 5, busy)
				for range 100 {
					w.becomes(img, throttling)
					w.quiet(30 * time.Second)
					w.becomes(img, busy)
					w.quiet(time.Minute)
				}
			}},
			{"a crash loop is no lack of capacity", func(w *world) {
				both := crashing
				both.Throttled = 1
				w.breaks(both)
				w.stays(2 * time.Hour)
				w.WantFiring("CrashLoop", "QueueStalled", "NoIdleWorkers")
			}},
			{"workers that are idle, or may not be, are no lack of capacity", func(w *world) {
				w.endpoint(img, 5, ruletest.Sample{InQueue: 7, Idle: 2})
				w.endpoint("vision-disabled", 0, throttling)
				w.stays(time.Hour)
			}},
			{"a long cold start is no lack of capacity", func(w *world) {
				w.breaks(starting)
				w.stays(time.Hour)
			}},
		},
	},
	{
		rule: "QueueStalled",
		fires: story{"10 minutes after the last job ended, with no worker that runs", func(w *world) {
			w.breaks(starting)
			w.firesAfter(10 * time.Minute)
		}},
		holds: story{"also where jobs are tried again and again", func(w *world) {
			w.breaks(hanging)
			w.changing(img, w.life(img).sample, func(s *ruletest.Sample) { s.Retried++ })
			w.firesAfter(10 * time.Minute)
			w.stays(3 * time.Hour)
			w.blinds()
			w.stays(time.Hour)
		}},
		resolves: story{"when a job ended, even badly, or a worker took one", func(w *world) {
			w.breaks(ruletest.Sample{InQueue: 1, Initializing: 1})
			w.firesAfter(10 * time.Minute)
			s := w.life(img).sample
			s.Failed++
			w.becomes(img, s)
			w.resolvesAfter(0)
			w.becomes(img, w.life(img).sample)
			w.firesAfter(10 * time.Minute)
			s.InProgress, s.Running = 1, 1
			w.becomes(img, s)
			w.resolvesAfter(0)
		}},
		quiet: []story{
			{"jobs that take an hour each", func(w *world) {
				w.endpoint(img, 2, hanging)
				poll := 0
				w.changing(img, hanging, func(s *ruletest.Sample) {
					if poll++; poll%240 == 0 {
						s.Completed += 2
					}
				})
				w.quiet(night)
			}},
			{"a cold start of 6 minutes", func(w *world) {
				w.breaks(starting)
				w.quiet(6 * time.Minute)
				s := busy
				s.Completed = w.life(img).sample.Completed
				w.changing(img, s, works)
				w.quiet(time.Hour)
			}},
			aBurstFromZero,
			aParkedEndpoint,
		},
	},
	{
		rule: "ColdStartSlow",
		fires: story{"6 minutes after workers began to start", func(w *world) {
			w.breaks(starting)
			a := w.firesAfter(6 * time.Minute)
			if want := "2 workers of vision-img have been starting for 6 minutes; 7 jobs wait"; summary(a) != want {
				w.t.Errorf("the summary is %q, want %q", summary(a), want)
			}
		}},
		holds: story{"while a worker is given up and the next one starts", func(w *world) {
			w.breaks(starting)
			w.pends(6*time.Minute - step)
			w.firesAfter(step)
			w.becomes(img, workerless)
			w.stays(4 * time.Minute)
			w.becomes(img, starting)
			w.stays(time.Hour)
		}},
		resolves: story{"5 minutes after a worker runs, or nothing waits", func(w *world) {
			one := ruletest.Sample{InQueue: 1, Initializing: 1}
			w.breaks(one)
			w.firesAfter(6 * time.Minute)
			w.becomes(img, ruletest.Sample{InQueue: 1, InProgress: 1, Running: 1})
			w.resolvesAfter(5 * time.Minute)
			w.becomes(img, one)
			w.firesAfter(6 * time.Minute)
			w.becomes(img, parked)
			w.resolvesAfter(5 * time.Minute)
		}},
		quiet: []story{
			aBurstFromZero,
			{"no worker that starts at all", func(w *world) {
				w.breaks(throttling)
				w.stays(time.Hour)
			}},
			{"workers that start beside others that run", func(w *world) {
				s := busy
				s.Initializing, s.InQueue = 2, 9
				w.endpoint(img, 5, s)
				w.changing(img, s, works)
				w.quiet(night)
			}},
			{"workers that start for half an hour although nothing waits", func(w *world) {
				s := starting
				s.InQueue = 0
				w.endpoint(img, 5, s)
				w.quiet(30 * time.Minute)
			}},
		},
	},
	{
		rule: "WorkersMaxReduced",
		fires: story{"when RunPod lowers it, also an endpoint seen for a minute only", func(w *world) {
			w.endpoint(img, 5, parked)
			w.pass(time.Minute)
			w.Change(ruletest.Endpoint(img), ruletest.QueueSpec(2))
			a := w.firesAfter(0)
			if want := "max workers of vision-img fell to 2"; summary(a) != want {
				w.t.Errorf("the summary is %q, want %q", summary(a), want)
			}
		}},
		holds: story{"for 2 hours, also where it falls again", func(w *world) {
			w.endpoint(img, 5, parked)
			w.pass(24 * time.Hour)
			w.Change(ruletest.Endpoint(img), ruletest.QueueSpec(2))
			w.firesAfter(0)
			w.stays(90 * time.Minute)
			w.Change(ruletest.Endpoint(img), ruletest.QueueSpec(0))
			w.stays(2*time.Hour - time.Minute)
		}},
		resolves: story{"when it is raised again, or after 2 hours", func(w *world) {
			w.endpoint(img, 5, parked)
			w.pass(24 * time.Hour)
			w.Change(ruletest.Endpoint(img), ruletest.QueueSpec(2))
			w.firesAfter(0)
			w.resolvesAfter(2 * time.Hour)
			w.Change(ruletest.Endpoint(img), ruletest.QueueSpec(0))
			w.firesAfter(0)
			w.pass(time.Minute)
			w.Change(ruletest.Endpoint(img), ruletest.QueueSpec(1))
			w.resolvesAfter(0)
		}},
		quiet: []story{
			{"the first sight of any value is no change", func(w *world) {
				w.endpoint(img, 0, parked)
				w.endpoint("vision-two", 2, parked)
				w.quiet(night)
			}},
			{"it is raised, and other settings change", func(w *world) {
				w.endpoint(img, 2, parked)
				w.pass(time.Hour)
				w.Change(ruletest.Endpoint(img), ruletest.QueueSpec(5))
				w.quiet(time.Hour)
				spec := ruletest.QueueSpec(5)
				spec.GetEndpoint().Image = "registry/image:v42"
				w.Change(ruletest.Endpoint(img), spec)
				w.quiet(time.Hour)
			}},
		},
	},
}
