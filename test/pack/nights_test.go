package pack

import (
	"time"

	eventv1 "github.com/tocsin-dev/tocsin/proto/gen/tocsin/event/v1"
	"github.com/tocsin-dev/tocsin/services/alerter/ruletest"
)

// img is the endpoint of most stories.
const img = "vision-img"

// Samples of an endpoint that completed 535 jobs in its life.
var (
	parked     = ruletest.Sample{Completed: 535}
	busy       = ruletest.Sample{Completed: 535, InProgress: 3, Running: 3, Idle: 1}
	crashing   = ruletest.Sample{Completed: 535, InQueue: 41, Unhealthy: 2}
	throttling = ruletest.Sample{Completed: 535, InQueue: 7, Throttled: 2}
	starting   = ruletest.Sample{Completed: 535, InQueue: 7, Initializing: 2}
	workerless = ruletest.Sample{Completed: 535, InQueue: 7}
	hanging    = ruletest.Sample{Completed: 535, InQueue: 7, InProgress: 2, Running: 2}
)

// works completes a job with each poll.
func works(s *ruletest.Sample) { s.Completed++ }

// bursts is an endpoint that scales from zero: half an hour of nothing, then
// jobs that wait 45 s for the first worker and are done after 4 minutes.
func bursts(s *ruletest.Sample) func(*ruletest.Sample) {
	poll := 0
	return func(now *ruletest.Sample) {
		poll++
		switch at := poll % 136; {
		case at < 120:
			*now = ruletest.Sample{Completed: s.Completed}
		case at < 123:
			*now = ruletest.Sample{Completed: s.Completed, InQueue: 24, Initializing: 3}
		default:
			s.Completed += 2
			*now = ruletest.Sample{Completed: s.Completed, InQueue: int64(136-at) * 2, InProgress: 3, Running: 3}
		}
	}
}

// The nights that many rules must sleep through.
var (
	aBurstFromZero = story{"bursts of an endpoint that scales from zero", func(w *world) {
		s := ruletest.Sample{Completed: 535}
		w.endpoint(img, 5, s)
		w.changing(img, s, bursts(&s))
		w.quiet(night)
		w.WantFiring()
	}}
	aParkedEndpoint = story{"a parked endpoint at 535/0, seen for the first time", func(w *world) {
		w.endpoint(img, 3, parked)
		w.quiet(night)
		w.WantFiring()
	}}
	aLoneThrottledWorker = story{"a lone throttled worker that an idle endpoint was left with", func(w *world) {
		w.endpoint(img, 3, ruletest.Sample{Completed: 800, Throttled: 1})
		w.quiet(night)
		w.WantFiring()
	}}
	aLoadBalancer = story{"a load balancer, which has no queue and no health", func(w *world) {
		w.Discover(ruletest.Endpoint(img), ruletest.LoadBalancerSpec(3))
		w.quiet(24 * time.Hour)
		w.WantFiring()
	}}
)

// breaks begins an endpoint that worked for 20 minutes and then shows s.
func (w *world) breaks(s ruletest.Sample) {
	w.t.Helper()
	w.endpoint(img, 5, busy)
	w.changing(img, busy, works)
	w.pass(20 * time.Minute)
	s.Completed = w.life(img).sample.Completed
	w.becomes(img, s)
}

// blinds takes away all data of the endpoint: its polls fail.
func (w *world) blinds() {
	w.t.Helper()
	w.life(img).change = nil
	w.PollsFail(ruletest.Endpoint(img), eventv1.PollFailureReason_POLL_FAILURE_REASON_SERVER_ERROR)
}
