package sim

import (
	"cmp"
	"errors"
	"fmt"
	"math"
	"slices"
	"time"
)

// never is a simulated instant that does not come.
const never = time.Duration(math.MaxInt64)

// Scenario is an account and what happens to it.
type Scenario struct {
	// Endpoints are its serverless endpoints.
	Endpoints []EndpointSpec
	// Pods are its pods.
	Pods []PodSpec
	// Events are what goes wrong.
	Events []Event
	// Repeat plays the events again after that time, for ever; not when zero.
	// Events that never end are played once.
	Repeat time.Duration
}

// Event makes an effect hold from an instant on.
type Event struct {
	// At is simulated time since the scenario began.
	At time.Duration
	// Target is the id of an endpoint or a pod, "*" for every queue endpoint,
	// or "" for the account.
	Target string
	// Effect is what happens, and for how long.
	Effect Effect
}

// Effect is something that goes wrong for a time, after which things recover.
// A duration of 0 is for ever.
type Effect struct {
	kind     effectKind
	lasts    time.Duration
	rate     float64        // jobs per minute, or a share of them
	jobs     int            // that arrive at once
	outcomes []outcomeShare // of a failure storm
	cold     time.Duration
	status   int // of an outage, 0 when it is silent
	scope    Scope
}

type effectKind string

const (
	queueSurge     effectKind = "queue surge"
	batch          effectKind = "batch"
	failureStorm   effectKind = "failure storm"
	crashLoop      effectKind = "crash loop"
	throttle       effectKind = "throttle"
	coldStartWave  effectKind = "cold start wave"
	maxWorkersZero effectKind = "max workers zero"
	removeEndpoint effectKind = "remove endpoint"
	idleGPU        effectKind = "idle gpu"
	podExit        effectKind = "pod exit"
	gpuMissing     effectKind = "gpu missing"
	apiOutage      effectKind = "api outage"
	revokeKey      effectKind = "revoke key"
	dropScope      effectKind = "drop scope"
	inventoryLoss  effectKind = "inventory loss"
)

// places says what each kind of effect happens to.
var places = map[effectKind]string{
	queueSurge: "endpoint", batch: "endpoint", failureStorm: "endpoint", crashLoop: "endpoint", throttle: "endpoint",
	coldStartWave: "endpoint", maxWorkersZero: "endpoint", removeEndpoint: "endpoint",
	idleGPU: "pod", podExit: "pod", gpuMissing: "pod",
	apiOutage: "account", revokeKey: "account", dropScope: "account", inventoryLoss: "account",
}

// String returns the kind of the effect, such as "crash loop".
func (e Effect) String() string { return string(e.kind) }

// QueueSurge adds jobsPerMinute to the arrivals of an endpoint for d.
func QueueSurge(jobsPerMinute float64, d time.Duration) Effect {
	return Effect{kind: queueSurge, lasts: d, rate: jobsPerMinute}
}

// Batch makes a number of jobs arrive at once.
func Batch(jobs int) Effect { return Effect{kind: batch, lasts: time.Second, jobs: jobs} }

// FailureStorm makes a share (0 to 1) of the jobs that start within d fail, in
// the proportions of causes; outcomes that are not listed do not occur.
func FailureStorm(share float64, causes map[Outcome]float64, d time.Duration) Effect {
	e := Effect{kind: failureStorm, lasts: d, rate: share}
	for outcome, weight := range causes {
		e.outcomes = append(e.outcomes, outcomeShare{outcome, weight})
	}
	slices.SortFunc(e.outcomes, func(a, b outcomeShare) int { return cmp.Compare(a.outcome, b.outcome) })
	return e
}

// CrashLoop makes every worker of an endpoint unhealthy for d: jobs in progress
// go back to the queue, and none is taken.
func CrashLoop(d time.Duration) Effect { return Effect{kind: crashLoop, lasts: d} }

// Throttle leaves an endpoint without capacity for d: idle workers go, busy ones
// go when they are done, and new ones wait for a machine.
func Throttle(d time.Duration) Effect { return Effect{kind: throttle, lasts: d} }

// ColdStartWave replaces the idle workers of an endpoint and lets each start
// within d take cold.
func ColdStartWave(cold, d time.Duration) Effect {
	return Effect{kind: coldStartWave, lasts: d, cold: cold}
}

// MaxWorkersZero sets the maximum of an endpoint's workers to 0 for d while its
// jobs go on arriving.
func MaxWorkersZero(d time.Duration) Effect { return Effect{kind: maxWorkersZero, lasts: d} }

// RemoveEndpoint deletes an endpoint for d.
func RemoveEndpoint(d time.Duration) Effect { return Effect{kind: removeEndpoint, lasts: d} }

// IdleGPU leaves a running pod without work for d.
func IdleGPU(d time.Duration) Effect { return Effect{kind: idleGPU, lasts: d} }

// PodExit stops a pod for d; it runs anew afterwards.
func PodExit(d time.Duration) Effect { return Effect{kind: podExit, lasts: d} }

// GPUMissing hides the GPUs of a running pod for d.
func GPUMissing(d time.Duration) Effect { return Effect{kind: gpuMissing, lasts: d} }

// APIOutage answers every call with an HTTP status for d, or not at all when
// status is 0.
func APIOutage(status int, d time.Duration) Effect {
	return Effect{kind: apiOutage, lasts: d, status: status}
}

// RevokeKey refuses every key for d (401).
func RevokeKey(d time.Duration) Effect { return Effect{kind: revokeKey, lasts: d} }

// DropScope takes a scope from every key for d (403).
func DropScope(scope Scope, d time.Duration) Effect {
	return Effect{kind: dropScope, lasts: d, scope: scope}
}

// InventoryLoss leaves a fraction (0 to 1) of the endpoints and pods out of the
// lists for d, although each still answers for itself.
func InventoryLoss(fraction float64, d time.Duration) Effect {
	return Effect{kind: inventoryLoss, lasts: d, rate: fraction}
}

// around returns the latest occurrence that began by t, and whether it holds at
// t. Before the first there is none.
func (e Event) around(t, repeat time.Duration) (start, end time.Duration, active bool) {
	if t < e.At {
		return 0, 0, false
	}
	if e.Effect.lasts <= 0 {
		return e.At, never, true
	}
	start = e.At
	if repeat > 0 {
		start += (t - e.At) / repeat * repeat
	}
	end = start + e.Effect.lasts
	return start, end, t < end
}

// boundary returns when the event next begins or ends after t.
func (e Event) boundary(t, repeat time.Duration) time.Duration {
	start, end, active := e.around(t, repeat)
	switch {
	case t < e.At:
		return e.At
	case active:
		return end
	case repeat > 0:
		return start + repeat
	default:
		return never
	}
}

// schedule are the events of one target.
type schedule struct {
	events []Event
	repeat time.Duration
}

// active returns the effect of a kind that holds at t.
func (s schedule) active(t time.Duration, kind effectKind) (Effect, bool) {
	for _, e := range s.events {
		if e.Effect.kind != kind {
			continue
		}
		if _, _, ok := e.around(t, s.repeat); ok {
			return e.Effect, true
		}
	}
	return Effect{}, false
}

// next returns when any event next begins or ends after t.
func (s schedule) next(t time.Duration) time.Duration {
	at := never
	for _, e := range s.events {
		at = min(at, e.boundary(t, s.repeat))
	}
	return at
}

// begun calls f for each event that begins exactly at t.
func (s schedule) begun(t time.Duration, f func(Effect)) {
	for _, e := range s.events {
		if start, _, ok := e.around(t, s.repeat); ok && start == t {
			f(e.Effect)
		}
	}
}

// lastEnd returns when an effect of a kind last ended by t, 0 when never.
func (s schedule) lastEnd(t time.Duration, kind effectKind) time.Duration {
	last := time.Duration(0)
	for _, e := range s.events {
		if e.Effect.kind != kind {
			continue
		}
		_, end, active := e.around(t, s.repeat)
		if active {
			end -= s.repeat // the one before
		}
		if end <= t && end >= e.At {
			last = max(last, end)
		}
	}
	return last
}

func (s Scenario) scheduleOf(target string) schedule {
	script := schedule{repeat: s.Repeat}
	for _, e := range s.Events {
		if e.Target == target {
			script.events = append(script.events, e)
		}
	}
	return script
}

// schedules returns the schedule of each endpoint and pod.
func (s Scenario) schedules() map[string]schedule {
	all := s.scheduleOf("*")
	byTarget := map[string][]Event{}
	for _, e := range s.Events {
		byTarget[e.Target] = append(byTarget[e.Target], e)
	}
	scripts := make(map[string]schedule, len(s.Endpoints)+len(s.Pods))
	for _, e := range s.Endpoints {
		events := byTarget[e.ID]
		if !e.LoadBalancer {
			events = slices.Concat(events, all.events)
		}
		scripts[e.ID] = schedule{events: events, repeat: s.Repeat}
	}
	for _, p := range s.Pods {
		scripts[p.ID] = schedule{events: byTarget[p.ID], repeat: s.Repeat}
	}
	return scripts
}

func (s Scenario) validate() error {
	place := map[string]string{"": "account", "*": "endpoint"}
	var errs []error
	add := func(id, kind string, err error) {
		if _, taken := place[id]; taken {
			errs = append(errs, fmt.Errorf("%s %q: the id is taken", kind, id))
		}
		place[id] = kind
		if err != nil {
			errs = append(errs, fmt.Errorf("%s %q: %w", kind, id, err))
		}
	}
	for _, e := range s.Endpoints {
		add(e.ID, "endpoint", e.validate())
	}
	for _, p := range s.Pods {
		add(p.ID, "pod", p.validate())
	}
	for i, e := range s.Events {
		switch wants := places[e.Effect.kind]; {
		case wants == "":
			errs = append(errs, fmt.Errorf("event %d: has no effect", i))
		case place[e.Target] != wants:
			errs = append(errs, fmt.Errorf("event %d: %s needs an existing %s, not %q", i, e.Effect, wants, e.Target))
		case e.At < 0 || s.Repeat > 0 && e.Effect.lasts > s.Repeat:
			errs = append(errs, fmt.Errorf("event %d: %s begins before the scenario or outlasts its repetition", i, e.Effect))
		}
	}
	return errors.Join(errs...)
}
