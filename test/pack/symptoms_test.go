package pack

import (
	"strings"
	"time"

	"github.com/tocsin-dev/tocsin/services/alerter/ruletest"
)

// batch is 10,000 jobs at once that an endpoint works off in a time.
func batch(within time.Duration) func(*ruletest.Sample) {
	part := int64(10_000 / (within / step))
	return func(s *ruletest.Sample) {
		done := min(part, s.InQueue)
		s.InQueue -= done
		s.Completed += done
		if s.Running, s.InProgress = 60, 60; s.InQueue == 0 {
			s.Running, s.InProgress = 0, 0
		}
	}
}

// batchOf is a night with such a batch.
func batchOf(within time.Duration) func(*world) {
	return func(w *world) {
		w.endpoint(img, 60, parked)
		w.quiet(time.Hour)
		w.changing(img, ruletest.Sample{Completed: 535, InQueue: 10_000, Running: 60, InProgress: 60}, batch(within))
		w.quiet(night)
		w.WantFiring()
	}
}

// aBatchOf10000 is what looks worst of all and is nothing.
var aBatchOf10000 = story{"a batch of 10,000 jobs that drains in 20 minutes", batchOf(20 * time.Minute)}

// queued is an endpoint with 5 busy workers at most and n jobs that wait.
func queued(n int64) ruletest.Sample {
	return ruletest.Sample{Completed: 535, InQueue: n, InProgress: 5, Running: 5}
}

// piles begins an endpoint that worked for 20 minutes and then has n jobs
// waiting, of which each poll completes some.
func (w *world) piles(name string, n, completed int64) {
	w.t.Helper()
	w.endpoint(name, 5, queued(0))
	change := func(s *ruletest.Sample) { s.Completed += completed }
	w.changing(name, queued(0), change)
	w.pass(20 * time.Minute)
	s := queued(n)
	s.Completed = w.life(name).sample.Completed
	w.changing(name, s, change)
}

// queue says how many jobs wait from now on.
func (w *world) queue(n int64) {
	w.t.Helper()
	l := w.life(img)
	s := l.sample
	s.InQueue = n
	w.changing(img, s, l.change)
}

var symptomProofs = []proof{
	{
		rule: "IdleButQueued",
		fires: story{"after 10 minutes in which jobs waited beside idle workers", func(w *world) {
			s := busy
			s.InQueue, s.Idle = 8, 2
			w.breaks(s)
			a := w.firesAfter(10 * time.Minute)
			if want := "vision-img has 2 idle workers and 8 queued jobs"; summary(a) != want {
				w.t.Errorf("the summary is %q, want %q", summary(a), want)
			}
		}},
		holds: story{"while the numbers change and while nothing is known", func(w *world) {
			s := busy
			s.InQueue = 3
			w.breaks(s)
			w.pends(10*time.Minute - step)
			w.firesAfter(step)
			w.changing(img, s, func(s *ruletest.Sample) { s.InQueue, s.Idle = 3+s.Completed%7, 1+s.Completed%2; s.Completed++ })
			w.stays(3 * time.Hour)
			w.blinds()
			w.stays(time.Hour)
		}},
		resolves: story{"when the queue is short", func(w *world) {
			s := busy
			s.InQueue = 8
			w.breaks(s)
			w.firesAfter(10 * time.Minute)
			w.queue(2)
			w.resolvesAfter(0)
		}},
		quiet: []story{
			{"two jobs that wait for the scaler", func(w *world) {
				s := busy
				s.InQueue = 2
				w.endpoint(img, 5, s)
				w.quiet(night)
			}},
			{"a queue that is empty every 4 minutes", func(w *world) {
				w.endpoint(img, 5, busy)
				poll := 0
				w.changing(img, busy, func(s *ruletest.Sample) {
					poll++
					s.InQueue = int64(min(poll%16, 9))
					s.Completed++
				})
				w.quiet(night)
			}},
			{"jobs that wait because every worker is busy, or was a moment ago", func(w *world) {
				w.piles(img, 9, 1)
				w.quiet(time.Hour)
				w.changing(img, w.life(img).sample, func(s *ruletest.Sample) { s.Completed++; s.Idle = min(s.Completed%17, 1) })
				w.quiet(6 * time.Hour)
			}},
			aParkedEndpoint,
		},
	},
	{
		rule: "HighQueueDepth",
		fires: story{"after 10 minutes with more than half an hour of work", func(w *world) {
			w.piles(img, 150, 1) // 4 a minute: 120 in half an hour
			a := w.firesAfter(10 * time.Minute)
			if want := "vision-img has 150 queued jobs"; !strings.Contains(summary(a), want) {
				w.t.Errorf("the summary is %q, want %q in it", summary(a), want)
			}
		}},
		holds: story{"until the queue is half as long", func(w *world) {
			w.piles(img, 150, 1)
			w.pends(10*time.Minute - step)
			w.firesAfter(step)
			for range 10 {
				w.queue(50)
				w.stays(10 * time.Minute)
				w.queue(101)
				w.stays(10 * time.Minute)
			}
			w.blinds()
			w.stays(time.Hour)
		}},
		resolves: story{"when the queue is less than half as long", func(w *world) {
			w.piles(img, 150, 1)
			w.firesAfter(10 * time.Minute)
			w.queue(49)
			w.resolvesAfter(0)
		}},
		quiet: []story{
			aBatchOf10000,
			{"a batch of 10,000 jobs that drains in 35 minutes", func(w *world) {
				w.endpoint(img, 60, parked)
				w.changing(img, ruletest.Sample{Completed: 535, InQueue: 10_000, Running: 60, InProgress: 60}, batch(35*time.Minute))
				w.quiet(night)
			}},
			{"a long queue at an endpoint that works fast", func(w *world) {
				w.piles(img, 150, 2)
				w.quiet(night)
			}},
			{"a queue of 100, and one of 1,200 where 60 workers may run", func(w *world) {
				w.endpoint(img, 5, workerless)
				w.becomes(img, ruletest.Sample{InQueue: 100, Running: 5})
				w.endpoint("vision-large", 60, ruletest.Sample{InQueue: 1200, Running: 60})
				w.quiet(night)
			}},
			{"an endpoint whose owner set another threshold", func(w *world) {
				w.piles("vision-patient", 4000, 1)
				w.quiet(night)
			}},
		},
	},
	{
		rule: "HighQueueDepthGrowing",
		fires: story{"when it only became more for half an hour", func(w *world) {
			w.piles(img, 150, 1)
			slowly := every(30, func(s *ruletest.Sample) { s.InQueue++ })
			w.changing(img, w.life(img).sample, func(s *ruletest.Sample) { s.Completed++; slowly(s) })
			w.firesAfter(30 * time.Minute)
		}},
		holds: story{"when it has stopped growing", func(w *world) {
			w.piles(img, 150, 1)
			w.changing(img, w.life(img).sample, func(s *ruletest.Sample) { s.Completed++; s.InQueue += 2 })
			w.pends(30*time.Minute - step)
			w.firesAfter(step)
			w.changing(img, w.life(img).sample, works)
			w.stays(3 * time.Hour)
			w.queue(50)
			w.stays(time.Hour)
			w.blinds()
			w.stays(time.Hour)
		}},
		resolves: story{"when the queue is less than half as long", func(w *world) {
			w.piles(img, 150, 1)
			w.changing(img, w.life(img).sample, func(s *ruletest.Sample) { s.Completed++; s.InQueue += 2 })
			w.firesAfter(30 * time.Minute)
			w.queue(49)
			w.resolvesAfter(0)
		}},
		quiet: []story{
			aBatchOf10000,
			{"a batch that takes the whole night is a warning and no page", func(w *world) {
				w.endpoint(img, 60, parked)
				w.pass(time.Hour)
				w.changing(img, ruletest.Sample{Completed: 535, InQueue: 10_000, Running: 60, InProgress: 60}, batch(10*time.Hour))
				w.quiet(30 * time.Minute)
				w.WantFiring("HighQueueDepth", "QueueBacklog", "NoIdleWorkers")
				w.quiet(11 * time.Hour)
				w.WantFiring()
			}},
			{"a queue that stays as it is", func(w *world) {
				w.piles(img, 150, 1)
				w.quiet(night)
			}},
		},
	},
	{
		rule: "QueueBacklog",
		fires: story{"after 15 minutes with more than ten minutes of work", func(w *world) {
			w.piles(img, 60, 1) // 4 a minute: 40 in ten minutes
			w.firesAfter(15 * time.Minute)
		}},
		holds: story{"while the queue swings above the threshold", func(w *world) {
			w.piles(img, 60, 1)
			w.pends(15*time.Minute - step)
			w.firesAfter(step)
			w.changing(img, w.life(img).sample, func(s *ruletest.Sample) { s.Completed++; s.InQueue = 51 + s.Completed%40 })
			w.stays(3 * time.Hour)
			w.blinds()
			w.stays(time.Hour)
		}},
		resolves: story{"when the queue is short", func(w *world) {
			w.piles(img, 60, 1)
			w.firesAfter(15 * time.Minute)
			w.queue(50)
			w.resolvesAfter(0)
		}},
		quiet: []story{
			aBatchOf10000,
			{"a queue of 60 at an endpoint that works fast", func(w *world) {
				w.piles(img, 60, 2)
				w.quiet(night)
			}},
			{"a queue that is short every 4 minutes", func(w *world) {
				w.piles(img, 60, 1)
				w.changing(img, w.life(img).sample, func(s *ruletest.Sample) { s.Completed++; s.InQueue = s.Completed % 16 * 10 })
				w.quiet(night)
			}},
			{"an endpoint whose owner set another threshold", func(w *world) {
				w.piles("vision-patient", 4000, 1)
				w.quiet(night)
			}},
		},
	},
	{
		rule: "Saturated",
		fires: story{"after 15 minutes in which all workers were busy and the queue grew", func(w *world) {
			w.piles(img, 1, 1)
			w.changing(img, w.life(img).sample, func(s *ruletest.Sample) { s.Completed++; s.InQueue++ })
			a := w.firesAfter(15 * time.Minute)
			if want := "all 5 workers of vision-img are busy and its queue grows: 61 wait"; summary(a) != want {
				w.t.Errorf("the summary is %q, want %q", summary(a), want)
			}
		}},
		holds: story{"while it goes on, and while nothing is known", func(w *world) {
			w.piles(img, 1, 1)
			w.changing(img, w.life(img).sample, func(s *ruletest.Sample) { s.Completed++; s.InQueue++ })
			w.pends(15*time.Minute - 2*step)
			w.firesAfter(step)
			w.stays(time.Hour)
			w.blinds()
			w.stays(time.Hour)
		}},
		resolves: story{"when a worker is idle", func(w *world) {
			w.piles(img, 1, 1)
			w.changing(img, w.life(img).sample, func(s *ruletest.Sample) { s.Completed++; s.InQueue++ })
			w.firesAfter(15*time.Minute - step)
			s := w.life(img).sample
			s.Idle, s.Running = 1, 4
			w.becomes(img, s)
			w.resolvesAfter(0)
		}},
		quiet: []story{
			aBatchOf10000,
			{"all workers are busy and the queue stays as it is", func(w *world) {
				w.piles(img, 9, 1)
				w.quiet(night)
			}},
			{"the queue of a disabled endpoint grows", func(w *world) {
				w.endpoint(img, 0, workerless)
				w.changing(img, workerless, func(s *ruletest.Sample) { s.InQueue++ })
				w.stays(time.Hour)
			}},
			{"the queue grows while workers may be added", func(w *world) {
				w.endpoint(img, 6, queued(0))
				w.changing(img, queued(0), func(s *ruletest.Sample) { s.Completed += 50; s.InQueue++ })
				w.quiet(3 * time.Hour)
			}},
		},
	},
	{
		rule: "NoIdleWorkers",
		fires: story{"after 8 minutes, when its causes had their turn", func(w *world) {
			w.breaks(ruletest.Sample{InQueue: 1, InProgress: 3, Running: 3})
			a := w.firesAfter(8 * time.Minute)
			if a.GetLabels()["severity"] != "info" {
				w.t.Errorf("the severity is %s", a.GetLabels()["severity"])
			}
		}},
		holds: story{"while it goes on, and while nothing is known", func(w *world) {
			w.piles(img, 1, 1)
			w.pends(8*time.Minute - step)
			w.firesAfter(step)
			w.changing(img, w.life(img).sample, func(s *ruletest.Sample) { s.Completed++; s.InQueue = 1 + s.Completed%9 })
			w.stays(3 * time.Hour)
			w.blinds()
			w.stays(time.Hour)
		}},
		resolves: story{"when nothing waits", func(w *world) {
			w.piles(img, 1, 1)
			w.firesAfter(8 * time.Minute)
			w.queue(0)
			w.resolvesAfter(0)
		}},
		quiet: []story{
			aBurstFromZero,
			aParkedEndpoint,
			{"no idle worker for a moment before an outage and for a moment after it", func(w *world) {
				w.piles(img, 0, 1)
				w.queue(1)
				w.quiet(step)
				w.blinds()
				w.quiet(time.Hour)
				w.queue(1)
				w.quiet(step)
				w.changing(img, busy, works)
				w.quiet(time.Hour)
			}},
			{"jobs that wait beside an idle worker", func(w *world) {
				s := busy
				s.InQueue = 2
				w.endpoint(img, 5, s)
				w.quiet(night)
			}},
		},
	},
	{
		rule: "UnhealthyWorkers",
		fires: story{"when 8 of 10 minutes had one for 4 minutes", func(w *world) {
			s := busy
			s.Unhealthy = 1
			w.breaks(s)
			a := w.firesAfter(11 * time.Minute)
			if want := "vision-img has had unhealthy workers in 10 of the last 10 minutes"; summary(a) != want {
				w.t.Errorf("the summary is %q, want %q", summary(a), want)
			}
		}},
		holds: story{"while unhealthy workers are replaced by others", func(w *world) {
			s := busy
			s.Unhealthy = 1
			w.breaks(s)
			w.firesAfter(11 * time.Minute)
			w.changing(img, s, func(s *ruletest.Sample) { s.Completed++; s.Unhealthy = s.Completed % 3 % 2 })
			w.stays(3 * time.Hour)
			w.changing(img, busy, works)
			w.stays(4 * time.Minute)
			w.changing(img, s, works)
			w.stays(time.Hour)
			w.blinds()
			w.stays(time.Hour)
		}},
		resolves: story{"10 minutes after the third minute without one", func(w *world) {
			s := queued(3)
			s.Unhealthy = 1
			w.breaks(s)
			w.changing(img, w.life(img).sample, works)
			w.firesAfter(11 * time.Minute)
			s.Unhealthy, s.Completed = 0, w.life(img).sample.Completed
			w.changing(img, s, works)
			w.resolvesAfter(13 * time.Minute)
		}},
		quiet: []story{
			{"unhealthy for 5 of every 10 minutes", func(w *world) {
				poll := 0
				w.endpoint(img, 5, busy)
				w.changing(img, busy, func(s *ruletest.Sample) { s.Completed++; poll++; s.Unhealthy = int64(poll / 20 % 2) })
				w.quiet(night)
			}},
			{"a crash loop is another rule's, also when it ends", func(w *world) {
				w.breaks(crashing)
				w.stays(time.Hour)
				w.changing(img, busy, works)
				w.stays(time.Hour)
			}},
			{"a flicker every other minute", func(w *world) {
				w.endpoint(img, 5, busy)
				poll := 0
				w.changing(img, busy, func(s *ruletest.Sample) {
					poll++
					if s.Completed++; poll%8 == 0 {
						s.Unhealthy = 1
					} else {
						s.Unhealthy = 0
					}
				})
				w.quiet(night)
			}},
			aBurstFromZero,
			aLoneThrottledWorker,
		},
	},
}
