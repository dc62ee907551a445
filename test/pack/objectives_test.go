package pack

import (
	"fmt"
	"strings"
	"testing"
	"time"

	eventv1 "github.com/tocsin-dev/tocsin/proto/gen/tocsin/event/v1"
	"github.com/tocsin-dev/tocsin/services/alerter/ruletest"
)

// promised is an endpoint that declares objectives: 99 of 100 jobs succeed, and 95 of
// 100 wait for a minute at most.
const promised = "vision-promised"

// turnsOf begins an endpoint that worked for an hour and then does what change says.
func (w *world) turnsOf(name string, change func(*ruletest.Sample)) {
	w.t.Helper()
	w.endpoint(name, 5, busy)
	w.changing(name, busy, share(10, 0))
	w.pass(time.Hour)
	w.changing(name, w.life(name).sample, change)
}

// darkens takes away all data of an endpoint.
func (w *world) darkens(name string) {
	w.t.Helper()
	w.life(name).change = nil
	w.PollsFail(ruletest.Endpoint(name), eventv1.PollFailureReason_POLL_FAILURE_REASON_SERVER_ERROR)
}

// burnsAfter says after how long an endpoint that completed 10 jobs a poll for an
// hour, and of which now some fail, has used its budget of one in a hundred faster
// than a rate, over a window that is longer than that, or an hour.
func burnsAfter(done, bad int64, rate float64, rolling bool) time.Duration {
	const hour = int64(time.Hour / step)
	for n := int64(1); ; n++ {
		before := hour
		if rolling {
			before -= n
		}
		if float64(n*bad) > rate*0.01*float64(before*10+n*(done+bad)) {
			return time.Duration(n) * step
		}
	}
}

// waits plays time in which jobs of an endpoint wait for as long as wait says, ten of
// them every ten minutes.
func (w *world) waits(name string, d time.Duration, wait func(at time.Time) time.Duration) {
	w.t.Helper()
	for end := w.Now().Add(d); w.Now().Before(end); w.pass(10 * time.Minute) {
		for i := range 10 {
			delay := wait(w.Now()).Milliseconds()
			id := fmt.Sprint("job-", w.Now().UnixMilli(), "-", i)
			w.Job(name, &eventv1.JobTransitioned{JobId: id, State: inProgress, DelayMs: &delay})
			w.Job(name, &eventv1.JobTransitioned{JobId: id, State: completed, DelayMs: &delay})
		}
	}
}

func lasts(d time.Duration) func(time.Time) time.Duration {
	return func(time.Time) time.Duration { return d }
}

// slowAtNoon is the wait of jobs that is usual: longer for three hours of a day.
func slowAtNoon(at time.Time) time.Duration {
	if h := at.UTC().Hour(); h >= 11 && h <= 13 {
		return 3 * time.Minute
	}
	return 10 * time.Second
}

var objectiveProofs = []proof{
	{
		rule: "SLOBurnFast",
		fires: story{"when an hour has used up a budget more than 14.4 times too fast", func(w *world) {
			w.turnsOf(promised, share(5, 5))
			a := w.firesAfter(burnsAfter(5, 5, 14.4, true))
			if want := "vision-promised uses up its budget of failures more than 14 times too fast: 3"; !strings.Contains(summary(a), want) {
				w.t.Errorf("the summary is %q, want %q in it", summary(a), want)
			}
		}},
		holds: story{"while it goes on, and while nothing is known", func(w *world) {
			w.turnsOf(promised, share(5, 5))
			w.firesAfter(burnsAfter(5, 5, 14.4, true))
			w.changing(promised, w.life(promised).sample, share(8, 2))
			w.stays(3 * time.Hour)
			w.darkens(promised)
			w.stays(time.Hour)
		}},
		resolves: story{"ten minutes after five that were good", func(w *world) {
			w.turnsOf(promised, share(5, 5))
			w.firesAfter(burnsAfter(5, 5, 14.4, true))
			w.changing(promised, w.life(promised).sample, share(10, 0))
			// Five of 20 polls may be left that failed: 25 of 200 jobs.
			w.resolvesAfter(15*step + 10*time.Minute - step)
		}},
		quiet: []story{
			{"an endpoint that declares no objective", func(w *world) {
				w.turns(share(9, 1))
				w.quiet(night)
			}},
			{"ten times the budget, all night", func(w *world) {
				w.turnsOf(promised, share(90, 10))
				w.quiet(night)
			}},
			{"160 failures at once, and then none", func(w *world) {
				w.turnsOf(promised, share(0, 160))
				w.quiet(step)
				w.changing(promised, w.life(promised).sample, share(10, 0))
				w.quiet(night)
			}},
			{"inputs that are refused, a fifth of all jobs", func(w *world) {
				w.endpoint(promised, 5, busy)
				w.changing(promised, busy, share(10, 0))
				w.pass(time.Hour)
				n := 0
				w.changing(promised, w.life(promised).sample, func(s *ruletest.Sample) {
					n++
					s.Completed, s.Failed = s.Completed+4, s.Failed+1
					w.JobFails(promised, fmt.Sprintf("bad-%d", n), validation, "ValidationError")
				})
				w.quiet(night)
			}},
			{"nine failures, which are all jobs of a day", func(w *world) {
				w.endpoint(promised, 5, ruletest.Sample{Completed: 535, Idle: 1})
				w.changing(promised, w.life(promised).sample, every(640, share(0, 1)))
				w.stays(24 * time.Hour)
			}},
		},
	},
	{
		rule: "SLOBurnSlow",
		fires: story{"when hours have used up a budget more than 6 times too fast", func(w *world) {
			w.turnsOf(promised, share(9, 1))
			w.firesAfter(burnsAfter(9, 1, 6, false))
		}},
		holds: story{"while it goes on, and while nothing is known", func(w *world) {
			w.turnsOf(promised, share(9, 1))
			w.firesAfter(burnsAfter(9, 1, 6, false))
			w.stays(12 * time.Hour)
			w.darkens(promised)
			w.stays(time.Hour)
		}},
		resolves: story{"half an hour after the last half hour was good", func(w *world) {
			w.turnsOf(promised, share(9, 1))
			w.firesAfter(burnsAfter(9, 1, 6, false))
			w.stays(time.Hour)
			w.changing(promised, w.life(promised).sample, share(10, 0))
			// 72 of 120 polls may be left that failed: 72 of 1,200 jobs.
			w.resolvesAfter(48*step + 30*time.Minute - step)
		}},
		quiet: []story{
			{"an endpoint that declares no objective", func(w *world) {
				w.turns(share(9, 1))
				w.quiet(night)
			}},
			{"five times the budget, all night", func(w *world) {
				w.turnsOf(promised, share(19, 1))
				w.quiet(night)
			}},
			{"an hour in which a fifth failed, five hours ago", func(w *world) {
				w.turnsOf(promised, share(8, 2))
				w.pass(time.Hour)
				w.news()
				w.changing(promised, w.life(promised).sample, share(10, 0))
				w.pass(31*time.Minute + 30*time.Minute)
				w.news()
				w.stays(night)
			}},
		},
	},
	{
		rule: "SLOBurnSteady",
		fires: story{"when a day has used up a budget more than 3 times too fast", func(w *world) {
			w.turnsOf(promised, share(24, 1))
			w.firesAfter(burnsAfter(24, 1, 3, false))
		}},
		holds: story{"while it goes on, and while nothing is known", func(w *world) {
			w.turnsOf(promised, share(24, 1))
			w.firesAfter(burnsAfter(24, 1, 3, false))
			w.stays(20 * time.Hour)
			w.darkens(promised)
			w.stays(time.Hour)
		}},
		resolves: story{"an hour after two that were good enough", func(w *world) {
			w.turnsOf(promised, share(24, 1))
			w.firesAfter(burnsAfter(24, 1, 3, false))
			w.stays(2 * time.Hour)
			w.changing(promised, w.life(promised).sample, share(25, 0))
			// 360 of 480 polls may be left that failed: 360 of 12,000 jobs.
			w.resolvesAfter(120*step + time.Hour - step)
		}},
		quiet: []story{
			{"an endpoint that declares no objective", func(w *world) {
				w.turns(share(24, 1))
				w.quiet(night)
			}},
			{"twice the budget, for a day", func(w *world) {
				w.turnsOf(promised, share(49, 1))
				w.quiet(24 * time.Hour)
			}},
		},
	},
	{
		rule: "HighLatency",
		fires: story{"when 95 of 100 waits were too long for 15 minutes", func(w *world) {
			w.turnsOf(promised, share(10, 0))
			w.waits(promised, time.Hour, lasts(20*time.Second))
			w.stays(step)
			w.waits(promised, step, lasts(90*time.Second)) // ten of 70 waits
			a := w.firesAfter(5 * time.Minute)
			if want := "one in twenty jobs of vision-promised waits longer than 1m 30s"; summary(a) != want {
				w.t.Errorf("the summary is %q, want %q", summary(a), want)
			}
		}},
		holds: story{"while they wait too long, and while nothing is known", func(w *world) {
			w.turnsOf(promised, share(10, 0))
			w.waits(promised, time.Hour, lasts(90*time.Second))
			if len(w.news()) != 1 {
				w.t.Fatal("it does not fire")
			}
			w.waits(promised, 3*time.Hour, lasts(70*time.Second))
			w.stays(step)
			w.darkens(promised)
			w.stays(time.Hour)
		}},
		resolves: story{"when the long waits are two hours old", func(w *world) {
			w.turnsOf(promised, share(10, 0))
			w.waits(promised, 30*time.Minute, lasts(90*time.Second))
			if len(w.news()) != 1 {
				w.t.Fatal("it does not fire")
			}
			w.waits(promised, 3*time.Hour, lasts(10*time.Second))
			if news := w.news(); len(news) != 1 || news[0].GetAlert().GetResolvedAt() == nil {
				w.t.Errorf("after three hours of short waits: %v", news)
			}
		}},
		quiet: []story{
			{"long waits at an endpoint that promises nothing", func(w *world) {
				w.turns(share(10, 0))
				w.waits(img, 5*time.Hour, lasts(5*time.Minute))
				w.quiet(step)
			}},
			{"a minute to the second, as promised", func(w *world) {
				w.turnsOf(promised, share(10, 0))
				w.waits(promised, 5*time.Hour, lasts(time.Minute))
				w.quiet(step)
			}},
			{"six followed jobs among many, of a cold start", func(w *world) {
				w.turnsOf(promised, share(10, 0))
				delay := (90 * time.Second).Milliseconds()
				for i := range 6 {
					w.Job(promised, &eventv1.JobTransitioned{JobId: fmt.Sprint("cold-", i), State: inProgress, DelayMs: &delay})
				}
				w.quiet(night)
			}},
			{"long waits of the few jobs of a night", func(w *world) {
				w.endpoint(promised, 5, busy)
				w.changing(promised, busy, every(4, share(1, 0)))
				w.waits(promised, night, lasts(5*time.Minute))
				w.stays(step)
			}},
		},
	},
	{
		rule: "LatencyUnusual",
		fires: story{"when waits are longer than at this hour of other days", func(w *world) {
			w.turns(share(10, 0))
			w.waits(img, 96*time.Hour, slowAtNoon)
			w.stays(step)
			for w.Now().UTC().Hour() != 20 {
				w.waits(img, 10*time.Minute, slowAtNoon)
			}
			w.stays(step)
			w.waits(img, 50*time.Minute, lasts(3*time.Minute))
			news := w.news()
			if len(news) != 1 || news[0].GetAlert().GetFiredAt() == nil {
				w.t.Fatalf("at 20:50 of a fifth day: %v", news)
			}
			if want := "one in twenty jobs of vision-img waits longer than 3m 0s; usual at this hour are 10s"; summary(news[0].GetAlert()) != want {
				w.t.Errorf("the summary is %q, want %q", summary(news[0].GetAlert()), want)
			}
		}},
		holds: story{"while they do, and while nothing is known", func(w *world) {
			w.turns(share(10, 0))
			w.waits(img, 96*time.Hour, lasts(10*time.Second))
			w.stays(step)
			w.waits(img, 2*time.Hour, lasts(3*time.Minute))
			if len(w.news()) != 1 {
				w.t.Fatal("it does not fire")
			}
			w.stays(step)
			w.blinds()
			w.stays(time.Hour)
		}},
		resolves: story{"when waits are as usual again", func(w *world) {
			w.turns(share(10, 0))
			w.waits(img, 96*time.Hour, lasts(10*time.Second))
			w.waits(img, time.Hour, lasts(3*time.Minute))
			if len(w.news()) != 1 {
				w.t.Fatal("it does not fire")
			}
			w.waits(img, 3*time.Hour, lasts(10*time.Second))
			if news := w.news(); len(news) != 1 || news[0].GetAlert().GetResolvedAt() == nil {
				w.t.Errorf("after three hours of usual waits: %v", news)
			}
		}},
		quiet: []story{
			{"a noon that is slow every day", func(w *world) {
				w.turns(share(10, 0))
				w.waits(img, 6*24*time.Hour, slowAtNoon)
				w.quiet(step)
			}},
			{"the first days, of which nobody knows what is usual", func(w *world) {
				w.turns(share(10, 0))
				w.waits(img, 24*time.Hour, lasts(10*time.Second))
				w.waits(img, 24*time.Hour, lasts(5*time.Minute))
				w.quiet(step)
			}},
			{"an endpoint that says which waits matter", func(w *world) {
				w.turnsOf(promised, share(10, 0))
				w.waits(promised, 96*time.Hour, lasts(time.Second))
				w.waits(promised, 2*time.Hour, lasts(59*time.Second))
				w.quiet(step)
			}},
		},
	},
	{
		rule: "RetriesRising",
		fires: story{"5 minutes after retries came three times as fast as before", func(w *world) {
			w.turns(share(10, 0))
			w.pass(6 * time.Hour)
			w.changing(img, w.life(img).sample, func(s *ruletest.Sample) { s.Completed, s.Retried = s.Completed+10, s.Retried+1 })
			// 61 of 1,210 jobs of half an hour: every poll another.
			w.firesAfter(61*step + 5*time.Minute - step)
		}},
		holds: story{"while it goes on, and while nothing is known", func(w *world) {
			w.turns(share(10, 0))
			w.pass(6 * time.Hour)
			w.changing(img, w.life(img).sample, func(s *ruletest.Sample) { s.Completed, s.Retried = s.Completed+10, s.Retried+1 })
			w.firesAfter(61*step + 5*time.Minute - step)
			w.stays(30 * time.Minute)
			w.blinds()
			w.stays(time.Hour)
		}},
		resolves: story{"a quarter of an hour after it is as it was for hours", func(w *world) {
			w.turns(share(10, 0))
			w.pass(6 * time.Hour)
			w.changing(img, w.life(img).sample, func(s *ruletest.Sample) { s.Completed, s.Retried = s.Completed+10, s.Retried+1 })
			w.firesAfter(61*step + 5*time.Minute - step)
			w.pass(3 * time.Hour) // the pace of half an hour is a quarter of what came in two hours
			if news := w.news(); len(news) != 1 || news[0].GetAlert().GetResolvedAt() == nil {
				w.t.Errorf("after three hours: %v", news)
			}
		}},
		quiet: []story{
			{"one in a hundred jobs is tried again, all night", func(w *world) {
				w.turns(func(s *ruletest.Sample) { s.Completed, s.Retried = s.Completed+100, s.Retried+1 })
				w.quiet(night)
			}},
			{"six in a hundred jobs are tried again from its first sight on", func(w *world) {
				w.endpoint(img, 5, busy)
				w.changing(img, busy, func(s *ruletest.Sample) { s.Completed, s.Retried = s.Completed+17, s.Retried+1 })
				w.quiet(night)
			}},
			{"nine jobs of a crash, and then none", func(w *world) {
				w.turns(share(10, 0))
				w.pass(time.Hour)
				s := w.life(img).sample
				s.Retried += 9
				w.changing(img, s, share(10, 0))
				w.quiet(night)
			}},
		},
	},
}

// TestAModestObjectiveIsToldWhereAlmostAllFails: 14 times too fast would be more jobs
// than there are.
func TestAModestObjectiveIsToldWhereAlmostAllFails(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "SLOBurnFast")
	w.turnsOf("vision-modest", share(0, 10))
	w.firesAfter(time.Duration(217) * step) // more than 0.9 of the 240 polls of an hour
	w = newWorld(t, "SLOBurnFast")
	w.turnsOf("vision-modest", share(5, 5))
	w.stays(3 * time.Hour)
}
