package rulesuite

import (
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	eventv1 "github.com/tocsin-dev/tocsin/proto/gen/tocsin/event/v1"
)

// accountID is the account of all targets.
const accountID = "default"

// podStatus is the one field of polls that is a text.
const podStatus = "pod.status"

// The fields that polls bring, and where they stand in what is told of one.
var (
	healthFields = map[string]func(*eventv1.HealthSampled, *float64){
		"jobs.completed":       func(s *eventv1.HealthSampled, v *float64) { s.Jobs.Completed = whole(v) },
		"jobs.failed":          func(s *eventv1.HealthSampled, v *float64) { s.Jobs.Failed = whole(v) },
		"jobs.retried":         func(s *eventv1.HealthSampled, v *float64) { s.Jobs.Retried = whole(v) },
		"jobs.in_progress":     func(s *eventv1.HealthSampled, v *float64) { s.Jobs.InProgress = whole(v) },
		"jobs.in_queue":        func(s *eventv1.HealthSampled, v *float64) { s.Jobs.InQueue = whole(v) },
		"workers.idle":         func(s *eventv1.HealthSampled, v *float64) { s.Workers.Idle = whole(v) },
		"workers.ready":        func(s *eventv1.HealthSampled, v *float64) { s.Workers.Ready = whole(v) },
		"workers.running":      func(s *eventv1.HealthSampled, v *float64) { s.Workers.Running = whole(v) },
		"workers.initializing": func(s *eventv1.HealthSampled, v *float64) { s.Workers.Initializing = whole(v) },
		"workers.throttled":    func(s *eventv1.HealthSampled, v *float64) { s.Workers.Throttled = whole(v) },
		"workers.unhealthy":    func(s *eventv1.HealthSampled, v *float64) { s.Workers.Unhealthy = whole(v) },
	}
	podFields = map[string]func(*eventv1.GpuSampled, *float64){
		podStatus:             func(*eventv1.GpuSampled, *float64) {}, // a text: see podSample
		"pod.cost_per_hour":   func(s *eventv1.GpuSampled, v *float64) { s.CostPerHour = v },
		"pod.uptime_s":        func(s *eventv1.GpuSampled, v *float64) { s.UptimeSeconds = whole(v) },
		"cpu.util_percent":    func(s *eventv1.GpuSampled, v *float64) { s.CpuPercent = v },
		"memory.util_percent": func(s *eventv1.GpuSampled, v *float64) { s.MemoryPercent = v },
		"gpu.util_percent":    func(s *eventv1.GpuSampled, v *float64) { gpu(s).UtilPercent = v },
		"gpu.memory_percent":  func(s *eventv1.GpuSampled, v *float64) { gpu(s).MemoryPercent = v },
	}
	accountFields = map[string]func(*eventv1.AccountPolled, *float64){
		"polls.ok":           func(s *eventv1.AccountPolled, v *float64) { s.Ok = *whole(v) },
		"polls.unauthorized": failedPolls("unauthorized"),
		"polls.forbidden":    failedPolls("forbidden"),
		"polls.not_found":    failedPolls("not_found"),
		"polls.rate_limited": failedPolls("rate_limited"),
		"polls.server_error": failedPolls("server_error"),
		"polls.timeout":      failedPolls("timeout"),
		"polls.network":      failedPolls("network"),
		"polls.malformed":    failedPolls("malformed"),
		"targets.known":      func(s *eventv1.AccountPolled, v *float64) { s.Targets = *whole(v) },
		"targets.failing":    func(s *eventv1.AccountPolled, v *float64) { s.TargetsFailing = *whole(v) },
		"clock.skew_s": func(s *eventv1.AccountPolled, v *float64) {
			s.ClockSkew = durationpb.New(time.Duration(*v * float64(time.Second)))
		},
	}
)

func whole(v *float64) *int64 { return new(int64(*v)) }

// gpu returns the only GPU of a sample.
func gpu(s *eventv1.GpuSampled) *eventv1.Gpu {
	if len(s.GetGpus()) == 0 {
		s.Gpus = []*eventv1.Gpu{{}}
	}
	return s.GetGpus()[0]
}

// failedPolls counts polls that failed for a reason; polls.failed is their sum.
func failedPolls(reason string) func(*eventv1.AccountPolled, *float64) {
	return func(s *eventv1.AccountPolled, v *float64) {
		if s.FailedByReason == nil {
			s.FailedByReason = map[string]int64{}
		}
		s.FailedByReason[reason] = *whole(v)
		s.Failed += *whole(v)
	}
}

// source is a target whose samples a test gives.
type source struct {
	target *eventv1.Target
	series map[string]series
	// fill makes the fact of a poll of the values at a step.
	fill func(values map[string]value, slot int64, interval *durationpb.Duration) *eventv1.Event
	gone bool
}

// sample returns what the poll at a step tells, or nil when it tells nothing.
func (s *source) sample(step int, now time.Time, interval time.Duration) *eventv1.Event {
	values := map[string]value{}
	polled, fails := false, false
	for name, course := range s.series {
		v, ok := course.at(step)
		if !ok {
			continue
		}
		values[name] = v
		switch {
		case v.kind == failed:
			fails = true
		case v.kind != nothing && !course.constant:
			polled = true
		}
	}
	slot := now.UnixMilli()
	switch {
	case fails:
		return &eventv1.Event{Target: s.target, Source: eventv1.Source_SOURCE_POLL, Fact: &eventv1.Event_PollFailed{PollFailed: &eventv1.PollFailed{
			Kind: s.pollKind(), Reason: eventv1.PollFailureReason_POLL_FAILURE_REASON_SERVER_ERROR, StatusCode: 500, PollSlotMs: slot,
		}}}
	case !polled && !s.allConstant():
		return nil
	}
	e := s.fill(values, slot, durationpb.New(interval))
	e.Target, e.Source = s.target, eventv1.Source_SOURCE_POLL
	return e
}

// allConstant says that no series has an end: the target is polled throughout.
func (s *source) allConstant() bool {
	for _, course := range s.series {
		if !course.constant {
			return false
		}
	}
	return len(s.series) > 0
}

func (s *source) pollKind() eventv1.PollKind {
	if s.target.GetKind() == eventv1.TargetKind_TARGET_KIND_POD {
		return eventv1.PollKind_POLL_KIND_PODS
	}
	return eventv1.PollKind_POLL_KIND_HEALTH
}

func healthSample(values map[string]value, slot int64, interval *durationpb.Duration) *eventv1.Event {
	s := &eventv1.HealthSampled{PollSlotMs: slot, Interval: interval, Jobs: &eventv1.JobCounts{}, Workers: &eventv1.WorkerCounts{}}
	setAll(s, values, healthFields)
	return &eventv1.Event{Fact: &eventv1.Event_HealthSampled{HealthSampled: s}}
}

func podSample(values map[string]value, slot int64, interval *durationpb.Duration) *eventv1.Event {
	s := &eventv1.GpuSampled{PollSlotMs: slot, Interval: interval, Status: "RUNNING"}
	setAll(s, values, podFields)
	if v := values[podStatus]; v.kind == text {
		s.Status = v.text
	}
	return &eventv1.Event{Fact: &eventv1.Event_GpuSampled{GpuSampled: s}}
}

func accountSample(values map[string]value, slot int64, interval *durationpb.Duration) *eventv1.Event {
	s := &eventv1.AccountPolled{PollSlotMs: slot, Interval: interval}
	setAll(s, values, accountFields)
	return &eventv1.Event{Fact: &eventv1.Event_AccountPolled{AccountPolled: s}}
}

// setAll sets the fields that have a value. The order does not matter: each has a
// place of its own, and sums are of whole numbers.
func setAll[S any](sample S, values map[string]value, fields map[string]func(S, *float64)) {
	for name, v := range values {
		if v.kind == number {
			fields[name](sample, &v.number)
		}
	}
}

// spec returns the settings as the collector tells them.
func (s settings) spec() *eventv1.TargetSpec {
	e := &eventv1.EndpointSpec{Type: eventv1.EndpointType_ENDPOINT_TYPE_QUEUE, WorkersMin: s.WorkersMin, WorkersMax: s.WorkersMax}
	if s.Type == "load_balancer" {
		e.Type = eventv1.EndpointType_ENDPOINT_TYPE_LOAD_BALANCER
	}
	if e.WorkersMax == nil {
		e.WorkersMax = new(int64(3)) // RunPod's own default
	}
	if s.ExecutionTimeout > 0 {
		e.ExecutionTimeout = durationpb.New(time.Duration(s.ExecutionTimeout))
	}
	if s.IdleTimeout > 0 {
		e.IdleTimeout = durationpb.New(time.Duration(s.IdleTimeout))
	}
	return &eventv1.TargetSpec{Kind: &eventv1.TargetSpec_Endpoint{Endpoint: e}}
}

// transition returns the job's change as the collector tells it.
func (j *job) transition() *eventv1.JobTransitioned {
	state, _ := jobState(j.State) // checked when the file was read
	t := &eventv1.JobTransitioned{JobId: j.ID, Attempt: j.Attempt, State: state, WorkerId: j.Worker}
	if j.Delay > 0 {
		t.DelayMs = new(time.Duration(j.Delay).Milliseconds())
	}
	if j.Execution > 0 {
		t.ExecutionMs = new(time.Duration(j.Execution).Milliseconds())
	}
	if j.Category == "" && j.Error == "" && j.Type == "" {
		return t
	}
	category, ok := jobCategory(j.Category)
	if !ok {
		category = eventv1.JobErrorCategory_JOB_ERROR_CATEGORY_UNKNOWN
	}
	t.Error = &eventv1.JobError{Category: category, Type: j.Type, Message: j.Error, Fingerprint: j.Fingerprint}
	if t.Error.GetFingerprint() == "" {
		t.Error.Fingerprint = strings.TrimSpace(j.Type + " " + j.Category)
	}
	return t
}
