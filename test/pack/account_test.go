package pack

import (
	"strings"
	"time"

	eventv1 "github.com/tocsin-dev/tocsin/proto/gen/tocsin/event/v1"
	"github.com/tocsin-dev/tocsin/services/alerter/ruletest"
)

// The rounds of an account with 60 targets.
var (
	allWell = ruletest.Polls{OK: 40, Targets: 60}
	// nothingDue is a round in which every poll waits out its pause.
	nothingDue = ruletest.Polls{Targets: 60, Failing: 60}
	rejected   = failing("unauthorized", 40, 60)
	forbidden  = failing("forbidden", 40, 60)
	down       = failing("server_error", 12, 60)
	halfDown   = ruletest.Polls{OK: 20, Failed: 20, Reasons: map[string]int64{"server_error": 20}, Targets: 60, Failing: 30}
	mostDown   = ruletest.Polls{OK: 19, Failed: 21, Reasons: map[string]int64{"server_error": 21}, Targets: 60, Failing: 31}
)

func failing(reason string, polls, targets int64) ruletest.Polls {
	return ruletest.Polls{Failed: polls, Reasons: map[string]int64{reason: polls}, Targets: targets, Failing: targets}
}

// rounds plays rounds in turn for d.
func (w *world) rounds(d time.Duration, turn ...ruletest.Polls) {
	w.t.Helper()
	for i, end := 0, w.Now().Add(d); w.Now().Before(end); i++ {
		w.polled(turn[i%len(turn)])
		w.pass(ruletest.AccountInterval - 2*moment)
	}
}

// wellFor begins an account that was well for d.
func (w *world) wellFor(d time.Duration) {
	w.t.Helper()
	w.polled(allWell)
	w.pass(d)
}

var accountProofs = []proof{
	{
		rule: "RunPodKeyRejected",
		fires: story{"2 minutes after the last call worked", func(w *world) {
			w.wellFor(10 * time.Minute)
			w.polled(rejected)
			a := w.firesAfter(2 * time.Minute)
			if !strings.Contains(summary(a), "account default") {
				w.t.Errorf("the summary does not name the account: %q", summary(a))
			}
		}},
		holds: story{"through rounds without polls and through an outage", func(w *world) {
			w.wellFor(10 * time.Minute)
			w.rounds(3*time.Minute, rejected, nothingDue)
			w.news()
			w.polled(down)
			w.stays(time.Hour)
			w.rounds(10*time.Minute, nothingDue, rejected, nothingDue)
			w.stays(0)
		}},
		resolves: story{"5 minutes after calls work again, also where a round holds one poll or none", func(w *world) {
			w.wellFor(10 * time.Minute)
			w.polled(rejected)
			w.firesAfter(2 * time.Minute)
			w.rounds(5*time.Minute-step, ruletest.Polls{OK: 1, Targets: 4}, ruletest.Polls{Targets: 4})
			w.resolvesAfter(0)
		}},
		quiet: []story{
			{"nothing is polled for a while", func(w *world) {
				w.wellFor(10 * time.Minute)
				w.polled(nothingDue)
				w.stays(time.Hour)
			}},
			{"one endpoint in the list that the key may not call", func(w *world) {
				w.polled(ruletest.Polls{OK: 39, Failed: 1, Reasons: map[string]int64{"unauthorized": 1}, Targets: 60, Failing: 1})
				w.quiet(night)
			}},
			{"a minute and a half of 401 while RunPod deploys", func(w *world) {
				w.wellFor(10 * time.Minute)
				w.polled(rejected)
				w.quiet(90 * time.Second)
				w.polled(allWell)
				w.quiet(time.Hour)
			}},
			{"403 on every call is another rule's", func(w *world) {
				w.wellFor(10 * time.Minute)
				w.polled(forbidden)
				w.quiet(time.Hour)
				w.WantFiring("RunPodKeyLacksScope")
			}},
			{"an outage with a few 401 in it is another rule's", func(w *world) {
				w.wellFor(10 * time.Minute)
				w.polled(ruletest.Polls{Failed: 12, Reasons: map[string]int64{"server_error": 9, "unauthorized": 3}, Targets: 60, Failing: 60})
				w.stays(10 * time.Minute)
				w.WantFiring("RunPodAPIDown")
			}},
		},
	},
	{
		rule: "RunPodKeyLacksScope",
		fires: story{"when one list a minute was refused for 5 minutes", func(w *world) {
			w.wellFor(10 * time.Minute)
			part := ruletest.Polls{OK: 38, Failed: 1, Reasons: map[string]int64{"forbidden": 1}, Targets: 60}
			w.rounds(4*time.Minute, part, allWell, allWell, allWell)
			w.stays(0)
			w.polled(part)
			w.firesAfter(0)
		}},
		holds: story{"while the list stays refused", func(w *world) {
			w.wellFor(10 * time.Minute)
			w.rounds(10*time.Minute, forbidden, allWell, allWell, allWell)
			w.news()
			w.rounds(6*time.Hour, forbidden, allWell, allWell, allWell)
			w.stays(0)
		}},
		resolves: story{"5 minutes after a minute without a refusal", func(w *world) {
			w.wellFor(10 * time.Minute)
			w.polled(forbidden)
			w.pass(10 * time.Minute)
			w.news()
			w.polled(allWell)
			w.resolvesAfter(time.Minute + 5*time.Minute)
		}},
		quiet: []story{
			{"a refused call now and then", func(w *world) {
				w.wellFor(10 * time.Minute)
				turn := []ruletest.Polls{forbidden}
				for range 11 {
					turn = append(turn, allWell)
				}
				w.rounds(12*time.Hour, turn...)
				w.quiet(0)
			}},
			{"401 on every call is another rule's", func(w *world) {
				w.wellFor(10 * time.Minute)
				w.polled(rejected)
				w.stays(time.Hour)
			}},
		},
	},
	apiDown("RunPodAPIDown", 3*time.Minute),
	apiDown("RunPodAPIDownLong", 15*time.Minute),
	{
		rule: "CollectorBlind",
		fires: story{"two and a half minutes after the last heartbeat", func(w *world) {
			w.wellFor(10 * time.Minute)
			w.StopAll()
			w.firesAfter(2*time.Minute + 30*time.Second)
		}},
		holds: story{"until a heartbeat comes", func(w *world) {
			w.wellFor(10 * time.Minute)
			w.StopAll()
			w.firesAfter(2*time.Minute + 30*time.Second)
			w.stays(8 * time.Hour)
		}},
		resolves: story{"5 minutes after heartbeats are back, also of an account that is down", func(w *world) {
			w.wellFor(10 * time.Minute)
			w.StopAll()
			w.firesAfter(2*time.Minute + 30*time.Second)
			w.polled(down)
			w.resolvesAfter(5 * time.Minute)
		}},
		quiet: []story{
			{"a collector that restarts", func(w *world) {
				w.wellFor(10 * time.Minute)
				w.StopAll()
				w.quiet(115 * time.Second)
				w.Send(collectorStarted())
				w.quiet(115 * time.Second)
				w.polled(allWell)
				w.quiet(time.Hour)
			}},
			{"the bus was away for 20 minutes", func(w *world) {
				w.wellFor(10 * time.Minute)
				w.StopAll()
				w.quiet(ruletest.AccountInterval - time.Second)
				w.Sleep(20 * time.Minute)
				w.quiet(ruletest.AccountInterval)
				w.polled(allWell)
				w.quiet(time.Hour)
			}},
			{"RunPod is down and the heartbeats say so", func(w *world) {
				w.wellFor(10 * time.Minute)
				w.polled(down)
				w.stays(night)
			}},
		},
	},
	{
		rule: "InventoryShrunk",
		fires: story{"at once", func(w *world) {
			w.wellFor(10 * time.Minute)
			w.Shrunk(60, 13, true)
			w.stays(0)
			w.Shrunk(60, 13, false)
			a := w.firesAfter(0)
			if !strings.Contains(summary(a), "13 of 60 targets") {
				w.t.Errorf("the summary does not count: %q", summary(a))
			}
		}},
		holds: story{"until the matter is over", func(w *world) {
			w.wellFor(10 * time.Minute)
			w.Shrunk(60, 13, false)
			w.firesAfter(0)
			w.Shrunk(60, 20, false)
			w.stays(night)
		}},
		resolves: story{"when the targets are back", func(w *world) {
			w.wellFor(10 * time.Minute)
			w.Shrunk(60, 13, false)
			w.firesAfter(0)
			w.Shrunk(60, 0, true)
			w.resolvesAfter(0)
		}},
		quiet: []story{{"targets that are removed one by one", func(w *world) {
			w.wellFor(10 * time.Minute)
			for _, name := range []string{"a", "b", "c", "d"} {
				w.endpoint(name, 3, ruletest.Sample{Completed: 535})
				w.pass(10 * time.Minute)
			}
			for _, name := range []string{"a", "b", "c", "d"} {
				w.Remove(ruletest.Endpoint(name))
				w.quiet(10 * time.Minute)
			}
			w.WantFiring()
		}}},
	},
	{
		rule: "CollectorClockSkew",
		fires: story{"after 5 minutes, whether the clock is behind or ahead", func(w *world) {
			w.wellFor(10 * time.Minute)
			w.polled(skewed(-3 * time.Second))
			w.firesAfter(5 * time.Minute)
		}},
		holds: story{"while the clock drifts", func(w *world) {
			w.wellFor(10 * time.Minute)
			w.polled(skewed(3 * time.Second))
			w.pends(5*time.Minute - step)
			w.firesAfter(step)
			w.rounds(time.Hour, skewed(3*time.Second), skewed(9*time.Second), skewed(2100*time.Millisecond))
			w.stays(0)
		}},
		resolves: story{"when the clock is right", func(w *world) {
			w.wellFor(10 * time.Minute)
			w.polled(skewed(3 * time.Second))
			w.firesAfter(5 * time.Minute)
			w.polled(skewed(100 * time.Millisecond))
			w.resolvesAfter(0)
		}},
		quiet: []story{{"a clock that is a little off, and leaps once", func(w *world) {
			w.polled(skewed(1900 * time.Millisecond))
			w.quiet(6 * time.Hour)
			w.polled(skewed(time.Hour))
			w.quiet(time.Minute)
			w.polled(allWell)
			w.quiet(6 * time.Hour)
		}}},
	},
}

func skewed(d time.Duration) ruletest.Polls {
	p := allWell
	p.ClockSkew = d
	return p
}

func collectorStarted() *eventv1.Event {
	return &eventv1.Event{Fact: &eventv1.Event_CollectorStarted{CollectorStarted: &eventv1.CollectorStarted{}}}
}

// apiDown proves one of the two rules that tell a short outage from a long one.
func apiDown(rule string, after time.Duration) proof {
	return proof{
		rule: rule,
		fires: story{"when more than half of the targets cannot be polled", func(w *world) {
			w.wellFor(10 * time.Minute)
			w.polled(mostDown)
			a := w.firesAfter(after)
			if !strings.Contains(summary(a), "31 of 60 targets of account default") {
				w.t.Errorf("the summary does not count: %q", summary(a))
			}
		}},
		holds: story{"through rounds in which every poll waits", func(w *world) {
			w.wellFor(10 * time.Minute)
			w.polled(down)
			w.pends(after - step)
			w.firesAfter(step)
			w.rounds(3*time.Hour, down, nothingDue, nothingDue, nothingDue, nothingDue, nothingDue, nothingDue, nothingDue,
				nothingDue, nothingDue, nothingDue, nothingDue, nothingDue, nothingDue, nothingDue, nothingDue)
			w.stays(0)
		}},
		resolves: story{"5 minutes after polls work again, not at a flicker", func(w *world) {
			w.wellFor(10 * time.Minute)
			w.polled(down)
			w.firesAfter(after)
			w.rounds(time.Hour, allWell, allWell, down, down)
			w.polled(down)
			w.stays(step)
			w.polled(allWell)
			w.resolvesAfter(5 * time.Minute)
		}},
		quiet: []story{
			{"half of the targets fail all night", func(w *world) {
				w.polled(halfDown)
				w.quiet(night)
			}},
			{"an outage that ends in time", func(w *world) {
				w.wellFor(10 * time.Minute)
				w.polled(down)
				w.quiet(after - time.Minute)
				w.polled(allWell)
				w.quiet(time.Hour)
			}},
			{"a rejected key is another rule's", func(w *world) {
				w.wellFor(10 * time.Minute)
				w.polled(rejected)
				w.stays(night)
				w.WantFiring("RunPodKeyRejected")
			}},
			{"an account without targets", func(w *world) {
				w.polled(ruletest.Polls{OK: 1})
				w.quiet(night)
			}},
		},
	}
}
