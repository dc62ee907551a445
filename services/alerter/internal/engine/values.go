package engine

import (
	"time"

	eventv1 "github.com/tocsin-dev/tocsin/proto/gen/tocsin/event/v1"
	"github.com/tocsin-dev/tocsin/services/alerter/internal/expr"
	"github.com/tocsin-dev/tocsin/services/alerter/internal/window"
)

// facts says which facts a field comes from, and so when its course is recorded.
type facts int

const (
	// factsOfSample come with polls and hold for a few intervals.
	factsOfSample facts = 1 << iota
	// factsOfSpec are settings, which hold until they are changed.
	factsOfSpec
	// factsOfJobs are what is known of followed jobs.
	factsOfJobs
	// factsOfCategory are what is known of failed jobs by category.
	factsOfCategory
	// factsOfState are what other facts say of the target itself.
	factsOfState
)

// novelFor is how long a rule sees that an unknown fingerprint was met.
const novelFor = 10 * time.Minute

// sourceOf says which facts a field comes from.
func sourceOf(f expr.FieldID) facts {
	switch f {
	case expr.WorkersMax, expr.WorkersMin, expr.EndpointType, expr.EndpointExecutionTimeout, expr.EndpointIdleTimeout, expr.GPUExpected:
		return factsOfSpec
	case expr.TrackedOldestQueued, expr.TrackedDelayP95, expr.TrackedDelays, expr.TrackedOverrun, expr.TrackedLost, expr.TrackedInvalid, expr.TrackedOpen:
		return factsOfJobs
	case expr.JobCategory, expr.JobFailed, expr.JobFingerprintNew:
		return factsOfCategory
	case expr.PollFailing, expr.PodGone, expr.InventoryKnown, expr.InventoryVanished, expr.InventoryShrunk:
		return factsOfState
	default:
		return factsOfSample
	}
}

// subject is what a rule is evaluated on at an instant: a target and, on rules
// over jobs, an error category.
type subject struct {
	t   *target
	cat *failures
	// now and bus are the instant by engine time and by the bus's.
	now, bus int64
	// latest asks for the latest values, whether they still hold or not.
	latest bool
}

// about is a target, or a category of its failures, at an instant of engine time.
func (p *Partition) about(t *target, cat *failures, at int64) subject {
	return subject{t: t, cat: cat, now: at, bus: p.clock.busAt(at)}
}

// field returns the value of a field. A sample's values are gone once it no
// longer holds.
func (s subject) field(f expr.FieldID) expr.Value {
	t := s.t
	switch sourceOf(f) {
	case factsOfSpec:
		return specValue(t.spec, f)
	case factsOfJobs:
		return s.trackedValue(f)
	case factsOfCategory:
		return s.categoryValue(f)
	case factsOfState:
		return stateValue(t, f)
	default:
		if t.sampled == never || !s.latest && s.bus > t.holds() {
			return expr.Value{}
		}
		switch {
		case t.health != nil:
			return healthValue(t.health, f)
		case t.gpu != nil:
			return podValue(t, f)
		case t.account != nil:
			return accountValue(t.account, f)
		}
		return expr.Value{}
	}
}

// whole returns an optional whole number as a value.
func whole(n *int64) expr.Value {
	if n == nil {
		return expr.Value{}
	}
	return expr.Num(float64(*n))
}

// fraction returns an optional number as a value.
func fraction(n *float64) expr.Value {
	if n == nil {
		return expr.Value{}
	}
	return expr.Num(*n)
}

func specValue(spec *eventv1.TargetSpec, f expr.FieldID) expr.Value {
	if pod := spec.GetPod(); pod != nil && f == expr.GPUExpected {
		return expr.Num(float64(pod.GetGpuCount()))
	}
	e := spec.GetEndpoint()
	if e == nil {
		return expr.Value{}
	}
	switch f {
	case expr.WorkersMax:
		return whole(e.WorkersMax)
	case expr.WorkersMin:
		return whole(e.WorkersMin)
	case expr.EndpointType:
		switch e.GetType() {
		case eventv1.EndpointType_ENDPOINT_TYPE_QUEUE:
			return expr.Str("queue")
		case eventv1.EndpointType_ENDPOINT_TYPE_LOAD_BALANCER:
			return expr.Str("load_balancer")
		}
	case expr.EndpointExecutionTimeout:
		if e.GetExecutionTimeout() != nil {
			return expr.Num(e.GetExecutionTimeout().AsDuration().Seconds())
		}
	case expr.EndpointIdleTimeout:
		if e.GetIdleTimeout() != nil {
			return expr.Num(e.GetIdleTimeout().AsDuration().Seconds())
		}
	}
	return expr.Value{}
}

func healthValue(h *eventv1.HealthSampled, f expr.FieldID) expr.Value {
	j, w := h.GetJobs(), h.GetWorkers()
	if j == nil {
		j = &eventv1.JobCounts{}
	}
	if w == nil {
		w = &eventv1.WorkerCounts{}
	}
	switch f {
	case expr.JobsCompleted:
		return whole(j.Completed)
	case expr.JobsFailed:
		return whole(j.Failed)
	case expr.JobsRetried:
		return whole(j.Retried)
	case expr.JobsInProgress:
		return whole(j.InProgress)
	case expr.JobsInQueue:
		return whole(j.InQueue)
	case expr.WorkersIdle:
		return whole(w.Idle)
	case expr.WorkersReady:
		return whole(w.Ready)
	case expr.WorkersRunning:
		return whole(w.Running)
	case expr.WorkersInitializing:
		return whole(w.Initializing)
	case expr.WorkersThrottled:
		return whole(w.Throttled)
	case expr.WorkersUnhealthy:
		return whole(w.Unhealthy)
	}
	return expr.Value{}
}

func podValue(t *target, f expr.FieldID) expr.Value {
	g := t.gpu
	switch f {
	case expr.PodStatus:
		if g.GetStatus() == "" {
			return expr.Value{}
		}
		return expr.Str(g.GetStatus())
	case expr.PodCostPerHour:
		return fraction(g.CostPerHour)
	case expr.PodUptime:
		return whole(g.UptimeSeconds)
	case expr.PodRestarts:
		if c := t.counter(expr.PodRestarts); c != nil {
			return expr.Num(c.total)
		}
		return expr.Value{}
	case expr.CPUUtil:
		return fraction(g.CpuPercent)
	case expr.MemoryUtil:
		return fraction(g.MemoryPercent)
	default:
		return gpuValue(g, f)
	}
}

func gpuValue(g *eventv1.GpuSampled, f expr.FieldID) expr.Value {
	if f == expr.GPUCount {
		if g.UptimeSeconds == nil && len(g.GetGpus()) == 0 {
			return expr.Value{}
		}
		return expr.Num(float64(len(g.GetGpus())))
	}
	var sum, most, memory float64
	utils, memories := 0, 0
	for _, gpu := range g.GetGpus() {
		if u := gpu.UtilPercent; u != nil {
			sum += *u
			utils++
			if utils == 1 || *u > most {
				most = *u
			}
		}
		if m := gpu.MemoryPercent; m != nil {
			memories++
			if memories == 1 || *m > memory {
				memory = *m
			}
		}
	}
	switch f {
	case expr.GPUUtil:
		return expr.NumIf(sum/float64(max(utils, 1)), utils > 0)
	case expr.GPUUtilMax:
		return expr.NumIf(most, utils > 0)
	case expr.GPUMemory:
		return expr.NumIf(memory, memories > 0)
	}
	return expr.Value{}
}

// reasons are the short names under which AccountPolled counts failures.
var reasons = map[expr.FieldID]string{
	expr.PollsUnauthorized: "unauthorized", expr.PollsForbidden: "forbidden", expr.PollsNotFound: "not_found",
	expr.PollsRateLimited: "rate_limited", expr.PollsServerError: "server_error", expr.PollsTimeout: "timeout",
	expr.PollsNetwork: "network", expr.PollsMalformed: "malformed",
}

func accountValue(a *eventv1.AccountPolled, f expr.FieldID) expr.Value {
	switch f {
	case expr.PollsOK:
		return expr.Num(float64(a.GetOk()))
	case expr.PollsFailed:
		return expr.Num(float64(a.GetFailed()))
	case expr.TargetsKnown:
		return expr.Num(float64(a.GetTargets()))
	case expr.TargetsFailing:
		return expr.Num(float64(a.GetTargetsFailing()))
	case expr.ClockSkew:
		if a.GetClockSkew() == nil {
			return expr.Value{}
		}
		return expr.Num(a.GetClockSkew().AsDuration().Seconds())
	}
	if reason, ok := reasons[f]; ok {
		return expr.Num(float64(a.GetFailedByReason()[reason]))
	}
	return expr.Value{}
}

func stateValue(t *target, f expr.FieldID) expr.Value {
	i := t.inventory
	switch f {
	case expr.PollFailing:
		return expr.Bool(t.failure != nil)
	case expr.PodGone:
		return expr.Bool(!t.live())
	case expr.InventoryShrunk:
		return expr.Bool(i != nil && !i.GetOver())
	case expr.InventoryKnown:
		if i == nil {
			return expr.Value{}
		}
		return expr.Num(float64(i.GetKnown()))
	case expr.InventoryVanished:
		if i.GetOver() {
			return expr.Num(0)
		}
		return expr.Num(float64(i.GetVanished()))
	}
	return expr.Value{}
}

// ownCounter says that a field counts facts about jobs one by one, each at its
// own instant, instead of readings of a source's counter.
func ownCounter(f expr.FieldID) bool { return f == expr.TrackedLost || f == expr.TrackedInvalid }

func (s subject) trackedValue(f expr.FieldID) expr.Value {
	if !s.t.tracked {
		return expr.Value{}
	}
	if ownCounter(f) {
		if c := s.t.counter(f); c != nil {
			return expr.Num(c.total)
		}
		return expr.Num(0)
	}
	jobs := s.t.jobs
	if jobs == nil {
		jobs = &jobTable{}
	}
	switch f {
	case expr.TrackedOpen:
		return expr.Num(float64(len(jobs.open)))
	case expr.TrackedOldestQueued:
		return expr.Num(jobs.oldestQueued(s.now))
	case expr.TrackedDelayP95:
		return expr.NumIf(jobs.delayP95(s.now))
	case expr.TrackedDelays:
		return expr.Num(float64(len(jobs.recentDelays(s.now))))
	case expr.TrackedOverrun:
		timeout := specValue(s.t.spec, expr.EndpointExecutionTimeout)
		return expr.NumIf(jobs.overrun(s.now, timeout.Number), timeout.Known())
	}
	return expr.Value{}
}

func (s subject) categoryValue(f expr.FieldID) expr.Value {
	if s.cat == nil {
		return expr.Value{}
	}
	switch f {
	case expr.JobCategory:
		return expr.Str(s.cat.category)
	case expr.JobFailed:
		return expr.Num(float64(s.cat.total))
	case expr.JobFingerprintNew:
		return expr.Bool(s.cat.novel != never && s.now-s.cat.novel < novelFor.Milliseconds())
	}
	return expr.Value{}
}

// number returns what is recorded of a field: its value, or of a counter what
// was added since first sight.
func (s subject) number(f expr.FieldID) (float64, bool) {
	v := s.field(f)
	if !v.Known() {
		return 0, false
	}
	if c := s.t.counter(f); c != nil {
		return c.total, true
	}
	return v.Number, true
}

// until says how long what is recorded now holds, by the bus's time.
func (s subject) until(source facts) int64 {
	if source&factsOfSample == 0 {
		return window.Forever
	}
	return s.t.holds()
}
