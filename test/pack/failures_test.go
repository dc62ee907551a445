package pack

import (
	"fmt"
	"strings"
	"time"

	"github.com/tocsin-dev/tocsin/services/alerter/ruletest"
)

// share is an endpoint of which each poll sees some jobs completed and some
// failed.
func share(done, failed int64) func(*ruletest.Sample) {
	return func(s *ruletest.Sample) { s.Completed, s.Failed = s.Completed+done, s.Failed+failed }
}

// every calls change with each nth sample only.
func every(n int, change func(*ruletest.Sample)) func(*ruletest.Sample) {
	poll := 0
	return func(s *ruletest.Sample) {
		if poll++; poll%n == 0 {
			change(s)
		}
	}
}

// turns begins an endpoint that worked for an hour and then does what change says.
func (w *world) turns(change func(*ruletest.Sample)) {
	w.t.Helper()
	w.endpoint(img, 5, busy)
	w.changing(img, busy, share(10, 0))
	w.pass(time.Hour)
	w.changing(img, w.life(img).sample, change)
}

// refusals is an endpoint that works, of which each poll sees another refused input.
func refusals(w *world, done int64) func(*ruletest.Sample) {
	n := 0
	return func(s *ruletest.Sample) {
		n++
		s.Completed, s.Failed = s.Completed+done, s.Failed+1
		w.JobFails(img, fmt.Sprintf("bad-%d", n), validation, "ValidationError")
	}
}

var failureProofs = []proof{
	{
		rule: "HighFailureRate",
		fires: story{"5 minutes after 10 jobs and more than 5 % failed, without any job being followed", func(w *world) {
			w.turns(share(10, 1)) // 9 %, which take a while to be 5 % of a quarter of an hour
			a := w.firesAfter(exceedsAfter(10, 1, 10, 0.05) + 5*time.Minute)
			if want := "52 jobs of vision-img failed in 15 minutes"; !strings.Contains(summary(a), want) {
				w.t.Errorf("the summary is %q, want %q in it", summary(a), want)
			}
		}},
		holds: story{"while the share is above half of the threshold, and while nothing is known", func(w *world) {
			w.endpoint(img, 5, busy)
			w.pass(time.Hour)
			w.changing(img, busy, share(1, 1))
			w.firesAfter(10*step + 5*time.Minute)
			w.changing(img, w.life(img).sample, share(30, 1)) // 3.2 %
			w.stays(3 * time.Hour)
			w.blinds()
			w.stays(time.Hour)
		}},
		resolves: story{"when the share is half of the threshold", func(w *world) {
			w.turns(share(10, 1))
			w.firesAfter(exceedsAfter(10, 1, 10, 0.05) + 5*time.Minute)
			w.changing(img, w.life(img).sample, share(100, 0))
			// 52 of 652 jobs were failures. With 90 more jobs at each poll, and the
			// first failures out of the window, they are less than 2.5 % after 14 polls.
			w.resolvesAfter(14 * step)
		}},
		quiet: []story{
			{"inputs that are refused all night, which are the caller's failures", func(w *world) {
				w.endpoint(img, 5, busy)
				w.changing(img, busy, refusals(w, 5))
				w.quiet(night)
			}},
			{"4 % fail all night", func(w *world) {
				w.turns(share(24, 1))
				w.quiet(night)
			}},
			{"9 failures in a quarter of an hour, half of all jobs", func(w *world) {
				w.turns(every(7, share(1, 1)))
				w.quiet(night)
			}},
			{"the first sight of an endpoint with many failures in its life", func(w *world) {
				s := busy
				s.Failed = 5000
				w.endpoint(img, 5, s)
				w.changing(img, s, share(10, 0))
				w.quiet(night)
			}},
			{"29 of 479 jobs failed in a night in which nobody looked", func(w *world) {
				w.endpoint(img, 5, busy)
				w.changing(img, busy, every(4, share(1, 0)))
				w.pass(time.Hour)
				w.StopAll()
				w.Sleep(stop)
				w.Send(collectorStarted())
				s := w.life(img).sample
				s.Completed, s.Failed = s.Completed+450, s.Failed+29
				w.changing(img, s, every(4, share(1, 0)))
				w.quiet(night)
			}},
			{"RunPod begins to count anew", func(w *world) {
				s := busy
				s.Completed, s.Failed = 90_000, 300
				w.endpoint(img, 5, s)
				w.pass(time.Hour)
				w.becomes(img, ruletest.Sample{Completed: 40, Failed: 2, InProgress: 3, Running: 3})
				w.quiet(time.Hour)
			}},
		},
	},
	{
		rule: "HighFailureRateSevere",
		fires: story{"5 minutes after 20 jobs and more than 10 % failed", func(w *world) {
			w.turns(share(5, 2)) // 29 %
			w.firesAfter(exceedsAfter(5, 2, 20, 0.10) + 5*time.Minute)
		}},
		holds: story{"while the share is above half of the threshold, and while nothing is known", func(w *world) {
			w.turns(share(5, 5))
			w.firesAfter(exceedsAfter(5, 5, 20, 0.10) + 5*time.Minute)
			w.changing(img, w.life(img).sample, share(15, 1)) // 6.25 %
			w.stays(3 * time.Hour)
			w.blinds()
			w.stays(time.Hour)
		}},
		resolves: story{"when the failures have left the window", func(w *world) {
			w.turns(share(5, 5))
			w.firesAfter(exceedsAfter(5, 5, 20, 0.10) + 5*time.Minute)
			w.becomes(img, w.life(img).sample) // and nothing happens any more
			w.resolvesAfter(15*time.Minute - step)
		}},
		quiet: []story{
			{"refused inputs alone, at an endpoint that does nothing else", func(w *world) {
				w.endpoint(img, 5, busy)
				w.changing(img, busy, refusals(w, 0))
				w.quiet(night)
			}},
			{"160 failures at once and then none", func(w *world) {
				w.turns(share(0, 160))
				w.quiet(step)
				w.changing(img, w.life(img).sample, share(10, 0))
				w.quiet(night)
			}},
			{"9 % fail all night: a warning, no page", func(w *world) {
				w.turns(share(10, 1))
				w.quiet(night)
				w.WantFiring("HighFailureRate")
			}},
			{"an endpoint whose owner expects failures", func(w *world) {
				w.endpoint("vision-patient", 5, busy)
				w.changing("vision-patient", busy, share(10, 5))
				w.quiet(night)
				w.WantFiring()
			}},
		},
	},
	allFailing("AllJobsFailing", 3),
	allFailing("AllJobsFailingMany", 10),
}

// exceedsAfter says after how long an endpoint that completed 10 jobs a poll, and
// now completes some and fails others, has at least so many failures in a
// quarter of an hour, and more than a share of all.
func exceedsAfter(done, bad, least int64, part float64) time.Duration {
	const window, before = int64(15 * time.Minute / step), 10
	for n := int64(1); ; n++ {
		good, failed := (window-n)*before+n*done, n*bad
		if failed >= least && float64(failed) > part*float64(good+failed) {
			return time.Duration(n) * step
		}
	}
}

// allFailing proves one of the two rules that count failures without a success.
func allFailing(rule string, least int) proof {
	failing := func(w *world, n int) {
		w.endpoint(img, 5, ruletest.Sample{Completed: 535, Idle: 1})
		w.pass(2 * time.Hour)
		w.changing(img, w.life(img).sample, func(s *ruletest.Sample) {
			if n > 0 {
				n--
				s.Failed++
			}
		})
	}
	return proof{
		rule: rule,
		fires: story{fmt.Sprintf("at failure %d without a success", least), func(w *world) {
			failing(w, least)
			a := w.firesAfter(time.Duration(least) * step)
			if want := fmt.Sprintf("every job of vision-img fails: %d in the last hour", least); !strings.Contains(summary(a), want) {
				w.t.Errorf("the summary is %q, want %q in it", summary(a), want)
			}
		}},
		holds: story{"until a success, although the failures are long ago", func(w *world) {
			failing(w, least)
			w.firesAfter(time.Duration(least) * step)
			w.stays(night)
			w.blinds()
			w.stays(time.Hour)
		}},
		resolves: story{"with the first success", func(w *world) {
			failing(w, least)
			w.firesAfter(time.Duration(least) * step)
			s := w.life(img).sample
			s.Completed++
			w.becomes(img, s)
			w.resolvesAfter(0)
		}},
		quiet: []story{
			{"one failure less", func(w *world) {
				failing(w, least-1)
				w.quiet(night)
			}},
			{"refused inputs alone", func(w *world) {
				w.endpoint(img, 5, busy)
				w.changing(img, busy, refusals(w, 0))
				w.quiet(night)
			}},
			{"one success an hour among failures", func(w *world) {
				w.endpoint(img, 5, busy)
				w.pass(time.Hour)
				n := 0
				w.changing(img, busy, every(40, func(s *ruletest.Sample) {
					if n++; n%5 == 1 {
						s.Completed++
					} else {
						s.Failed++
					}
				}))
				w.quiet(night)
			}},
			aParkedEndpoint,
		},
	}
}
