package pack

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	alertv1 "github.com/tocsin-dev/tocsin/proto/gen/tocsin/alert/v1"
	eventv1 "github.com/tocsin-dev/tocsin/proto/gen/tocsin/event/v1"
	"github.com/tocsin-dev/tocsin/services/alerter/ruletest"
)

// asleep is an account that is left alone with jobs in flight, a queue that is
// not empty and counters that go on.
type asleep struct {
	*world
	wakes map[string]ruletest.Sample
}

// The endpoints of it, by what they do.
const (
	works24  = "vision-works"  // completes and fails jobs all the time
	breaks   = "voice-breaks"  // does nothing before, and fails at night
	worsens  = "docs-worsens"  // completes jobs before, and fails half of them at night
	overruns = "chat-overruns" // has a queue that grows, of five busy workers
)

func newAsleep(t *testing.T) *asleep {
	t.Helper()
	a := &asleep{world: newWorld(t, "")}
	a.polled(allWell)
	a.endpoint(works24, 5, queued(40))
	a.endpoint(breaks, 5, parked)
	a.endpoint(worsens, 5, busy)
	a.endpoint(overruns, 5, queued(150))
	a.changing(works24, a.life(works24).sample, share(10, 0))
	a.changing(worsens, busy, share(10, 0))
	grows := func(s *ruletest.Sample) { s.Completed, s.InQueue = s.Completed+1, s.InQueue+1 }
	a.pass(30 * time.Minute)
	a.changing(overruns, a.life(overruns).sample, grows)
	a.pass(12 * time.Minute)
	for i, state := range []eventv1.JobState{inQueue, inQueue, inProgress, inProgress} {
		a.follow(works24, fmt.Sprint("flight-", i), state)
	}
	a.pass(time.Minute)
	a.WantFiring("QueueBacklog", "HighQueueDepth", "NoIdleWorkers", "NoIdleWorkers")
	a.WantPending("Saturated", "HighQueueDepthGrowing")

	// What a night makes of the counters.
	a.wakes = map[string]ruletest.Sample{}
	for name, grown := range map[string]ruletest.Sample{
		works24:  {Completed: 19_200, Failed: 700, InQueue: 8, Retried: 60},
		breaks:   {Failed: 1000},
		worsens:  {Completed: 500, Failed: 500, Retried: 30},
		overruns: {Completed: 1920, InQueue: 15},
	} {
		s := a.life(name).sample
		s.Completed, s.Failed, s.Retried = s.Completed+grown.Completed, s.Failed+grown.Failed, s.Retried+grown.Retried
		s.InQueue += grown.InQueue
		a.wakes[name] = s
	}
	return a
}

// wake polls everything again and finds that RunPod has forgotten the jobs.
func (a *asleep) wake() {
	a.t.Helper()
	a.polled(allWell)
	for _, name := range []string{works24, breaks, worsens, overruns} {
		a.becomes(name, a.wakes[name])
	}
	a.changing(works24, a.wakes[works24], share(10, 0))
	a.Advance(2 * time.Second)
	for i := range 4 {
		a.JobIs(works24, fmt.Sprint("flight-", i), unknown)
	}
}

// silent fails the test if anything was told but of rules that may be told of.
func (a *asleep) silent(but []string) {
	a.t.Helper()
	for _, tr := range a.Transitions() {
		if tr.GetKind() != alertv1.TransitionKind_TRANSITION_KIND_RENEWED && !slices.Contains(but, tr.GetAlert().GetRule()) {
			a.t.Errorf("%s %s: %s", tr.GetAlert().GetRule(), tr.GetKind(), summary(tr.GetAlert()))
		}
	}
}

// sleeps are the ways in which nobody looks at an account.
var sleeps = []struct {
	name  string
	sleep func(*asleep, time.Duration)
	// held is for how long the last samples hold in it: where nothing moves the
	// time, for none.
	held time.Duration
	// told are the rules that tell of it.
	told []string
}{
	{"everything is stopped", func(a *asleep, d time.Duration) {
		a.StopAll()
		a.Sleep(d)
		a.Send(collectorStarted())
	}, 0, nil},
	{"the bus is away, and the collector tells what it polled last", func(a *asleep, d time.Duration) {
		a.StopAll()
		a.Sleep(d)
	}, 0, nil},
	{"the collector is stopped", func(a *asleep, d time.Duration) {
		a.StopAll()
		a.pass(d)
		a.Send(collectorStarted())
	}, 3 * step, []string{"CollectorBlind", "NoData"}},
	{"RunPod cannot be polled", func(a *asleep, d time.Duration) {
		for _, l := range a.lives {
			a.PollsFail(ruletest.Endpoint(l.name), eventv1.PollFailureReason_POLL_FAILURE_REASON_SERVER_ERROR)
		}
		a.pass(d)
	}, 3 * step, []string{"NoData"}},
}

func TestNothingIsMadeOfANightInWhichNobodyLooked(t *testing.T) {
	t.Parallel()
	for _, s := range sleeps {
		for _, d := range []time.Duration{stop, 26 * time.Hour} {
			t.Run(fmt.Sprintf("%s for %s", s.name, d), func(t *testing.T) {
				t.Parallel()
				a := newAsleep(t)
				firing := alerts(a.Firing())
				a.Forget()
				for _, l := range a.lives {
					l.change = nil
				}
				s.sleep(a, d)
				a.wake()
				a.pass(3 * time.Hour)
				a.silent(s.told)
				if diff := cmp.Diff(firing, alerts(a.Firing())); diff != "" {
					t.Errorf("what fires changed (-before +after):\n%s", diff)
				}
			})
		}
	}
}

// TestWhatBreaksAfterANightIsToldInTime: nobody looked, and then it is as it
// would be on any day.
func TestWhatBreaksAfterANightIsToldInTime(t *testing.T) {
	t.Parallel()
	for _, s := range sleeps {
		for _, c := range []struct {
			rule  string
			when  string
			broke func(*asleep)
			after time.Duration
		}{
			{"AllJobsFailing", "the third job fails and none was completed at night either", func(a *asleep) {
				a.changing(breaks, a.wakes[breaks], share(0, 1))
			}, 3 * step},
			{"AllJobsFailingMany", "the tenth job fails", func(a *asleep) {
				a.changing(breaks, a.wakes[breaks], share(0, 5))
			}, 2 * step},
			{"HighFailureRateSevere", "all jobs fail that were completed at night", func(a *asleep) {
				a.changing(works24, a.wakes[works24], share(0, 10))
			}, 7*step + 5*time.Minute},
			{"HighFailureRate", "every tenth job fails", func(a *asleep) {
				a.changing(worsens, a.wakes[worsens], share(9, 1))
			}, 10*step + 5*time.Minute},
			{"CrashLoop", "workers crash and jobs wait", func(a *asleep) {
				s := crashing
				s.Completed, s.Failed = a.wakes[breaks].Completed, a.wakes[breaks].Failed
				a.becomes(breaks, s)
			}, 6*time.Minute - 2*step},
			{"EndpointDisabled", "max workers is 0", func(a *asleep) {
				a.Change(ruletest.Endpoint(works24), ruletest.QueueSpec(0))
			}, time.Minute},
			{"WorkersMaxReduced", "max workers fell at night", func(a *asleep) {
				a.Change(ruletest.Endpoint(worsens), ruletest.QueueSpec(2))
			}, 0},
			{"JobOverrunOrLost", "a job is lost", func(a *asleep) {
				a.follow(worsens, "lost", inQueue)
				a.pass(step)
				a.JobIs(worsens, "lost", lost)
			}, 0},
			{"JobFailed", "jobs run out of memory", func(a *asleep) {
				for i := range 2 {
					a.JobFails(worsens, fmt.Sprint("oom-", i), outOfMem, "OutOfMemoryError")
				}
			}, 0},
			{"NoData", "an endpoint falls silent", func(a *asleep) {
				l := a.life(worsens)
				l.change = nil
				a.Stop(ruletest.Endpoint(worsens)) // which was heard of 2 s ago
			}, 10*time.Minute - 2*time.Second},
		} {
			t.Run(fmt.Sprintf("%s, then %s", s.name, c.when), func(t *testing.T) {
				t.Parallel()
				a := newAsleep(t)
				for _, l := range a.lives {
					l.change = nil
				}
				s.sleep(a, stop)
				a.wake()
				a.Forget()
				a.told, a.rule = 0, c.rule
				c.broke(a)
				a.firesAfter(c.after)
			})
		}
	}
}

// TestWhatHappenedWithinAWindowIsTold: an outage that a window reaches over hides
// nothing from it.
func TestWhatHappenedWithinAWindowIsTold(t *testing.T) {
	t.Parallel()
	for _, s := range sleeps {
		t.Run(s.name, func(t *testing.T) {
			t.Parallel()
			a := newAsleep(t)
			s.sleep(a, 40*time.Minute)
			a.told, a.rule = len(a.Transitions()), "AllJobsFailing"
			failed := parked
			failed.Failed += 3
			a.becomes(breaks, failed)
			a.firesAfter(0)
		})
	}
}

// TestATimeInWhichNothingIsKnownIsNoWait: after an outage the growth of a queue
// is not known for 10 minutes, and then the rest of the wait begins.
func TestATimeInWhichNothingIsKnownIsNoWait(t *testing.T) {
	t.Parallel()
	for _, s := range sleeps {
		t.Run(s.name, func(t *testing.T) {
			t.Parallel()
			a := newAsleep(t)
			a.life(works24).change, a.life(worsens).change = nil, nil
			l := a.life(overruns)
			grows := l.change
			l.change = nil
			s.sleep(a, 20*time.Minute)
			a.told, a.rule = len(a.Transitions()), "Saturated"
			a.changing(overruns, l.sample, grows)
			// Of 15 minutes it had waited for 13 but for two polls.
			rest := 10*time.Minute + 2*time.Minute + 2*step - s.held
			a.pends(rest - step)
			a.firesAfter(step)
			a.rule = "HighQueueDepthGrowing"
			a.pends(15*time.Minute - 2*step)
			a.firesAfter(step)
		})
	}
}
