package ruletest

import (
	"fmt"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	eventv1 "github.com/tocsin-dev/tocsin/proto/gen/tocsin/event/v1"
)

// Endpoint returns an endpoint whose id and name are the given name.
func Endpoint(name string) *eventv1.Target {
	return &eventv1.Target{Account: Account, Kind: eventv1.TargetKind_TARGET_KIND_ENDPOINT, Id: name, Name: name}
}

// Pod returns a pod whose id and name are the given name.
func Pod(name string) *eventv1.Target {
	return &eventv1.Target{Account: Account, Kind: eventv1.TargetKind_TARGET_KIND_POD, Id: name, Name: name}
}

// TheAccount returns the account of all targets.
func TheAccount() *eventv1.Target {
	return &eventv1.Target{Account: Account, Kind: eventv1.TargetKind_TARGET_KIND_ACCOUNT, Id: Account}
}

// QueueSpec returns the settings of a queue endpoint with at most workersMax
// workers and an execution timeout of 10 minutes.
func QueueSpec(workersMax int64) *eventv1.TargetSpec {
	return &eventv1.TargetSpec{Kind: &eventv1.TargetSpec_Endpoint{Endpoint: &eventv1.EndpointSpec{
		Type: eventv1.EndpointType_ENDPOINT_TYPE_QUEUE, WorkersMin: new(int64), WorkersMax: &workersMax,
		IdleTimeout: durationpb.New(5 * time.Second), ExecutionTimeout: durationpb.New(10 * time.Minute),
	}}}
}

// LoadBalancerSpec returns the settings of a load-balancer endpoint.
func LoadBalancerSpec(workersMax int64) *eventv1.TargetSpec {
	return &eventv1.TargetSpec{Kind: &eventv1.TargetSpec_Endpoint{Endpoint: &eventv1.EndpointSpec{
		Type: eventv1.EndpointType_ENDPOINT_TYPE_LOAD_BALANCER, WorkersMax: &workersMax,
	}}}
}

// PodSpec returns the settings of a pod with a number of GPUs.
func PodSpec(gpus int64) *eventv1.TargetSpec {
	return &eventv1.TargetSpec{Kind: &eventv1.TargetSpec_Pod{Pod: &eventv1.PodSpec{GpuType: "NVIDIA L4", GpuCount: gpus, Cloud: "SECURE"}}}
}

// Sample is what /health says of an endpoint. All fields are sent, zeros too.
type Sample struct {
	// Completed, Failed and Retried are cumulative.
	Completed, Failed, Retried int64
	// InProgress and InQueue are jobs now.
	InProgress, InQueue int64
	// Idle, Running, Initializing, Throttled and Unhealthy are workers now; ready
	// is the same as Idle.
	Idle, Running, Initializing, Throttled, Unhealthy int64
}

// Health says what an endpoint's polls give from now on. Completed and failed
// jobs do not go on rising by themselves: see Work.
func (h *Harness) Health(endpoint string, s Sample) {
	h.t.Helper()
	h.Repeat(&eventv1.Event{
		Target: Endpoint(endpoint), Source: eventv1.Source_SOURCE_POLL,
		Fact: &eventv1.Event_HealthSampled{HealthSampled: &eventv1.HealthSampled{
			Jobs: &eventv1.JobCounts{
				Completed: &s.Completed, Failed: &s.Failed, Retried: &s.Retried, InProgress: &s.InProgress, InQueue: &s.InQueue,
			},
			Workers: &eventv1.WorkerCounts{
				Idle: &s.Idle, Ready: &s.Idle, Running: &s.Running, Initializing: &s.Initializing,
				Throttled: &s.Throttled, Unhealthy: &s.Unhealthy,
			},
		}},
	}, HealthInterval)
}

// Work lets time pass in steps of the poll interval while an endpoint's sample
// changes: each step calls change with the sample, which it may alter, and
// sends it. It returns the last sample.
func (h *Harness) Work(endpoint string, s Sample, d time.Duration, change func(*Sample)) Sample {
	h.t.Helper()
	for passed := time.Duration(0); passed < d; passed += HealthInterval {
		change(&s)
		h.Health(endpoint, s)
		h.Advance(HealthInterval)
	}
	return s
}

// PodSample is what RunPod says of a pod.
type PodSample struct {
	// Status is RunPod's status; RUNNING if empty.
	Status string
	// CostPerHour in US dollars.
	CostPerHour float64
	// Uptime of the container. It goes on while Advance repeats the sample only
	// if it is sent anew; 0 is sent as 0. NoRuntime leaves it out.
	Uptime time.Duration
	// CPU and Memory in percent.
	CPU, Memory float64
	// GPUs are the uses of the GPUs in percent; their memory is the same.
	GPUs []float64
	// NoRuntime leaves out uptime, CPU, memory and GPUs, as for a pod that does
	// not run.
	NoRuntime bool
}

// Pod says what a pod's polls give from now on.
func (h *Harness) Pod(pod string, s PodSample) {
	h.t.Helper()
	g := &eventv1.GpuSampled{Status: s.Status, CostPerHour: &s.CostPerHour}
	if g.GetStatus() == "" {
		g.Status = "RUNNING"
	}
	if !s.NoRuntime {
		uptime := int64(s.Uptime / time.Second)
		g.UptimeSeconds, g.CpuPercent, g.MemoryPercent = &uptime, &s.CPU, &s.Memory
		for i := range s.GPUs {
			g.Gpus = append(g.Gpus, &eventv1.Gpu{Index: int32(i), UtilPercent: &s.GPUs[i], MemoryPercent: &s.GPUs[i]})
		}
	}
	h.Repeat(&eventv1.Event{
		Target: Pod(pod), Source: eventv1.Source_SOURCE_POLL, Fact: &eventv1.Event_GpuSampled{GpuSampled: g},
	}, PodInterval)
}

// Polls is what an account's rounds of polls give.
type Polls struct {
	// OK and Failed count polls; Reasons count the failed ones by short name.
	OK, Failed int64
	// Reasons are the short names of reasons, e.g. "unauthorized".
	Reasons map[string]int64
	// Targets are polled; Failing are those whose last poll failed.
	Targets, Failing int64
	// ClockSkew is sent if it is not 0.
	ClockSkew time.Duration
}

// Polled says what the account's rounds give from now on.
func (h *Harness) Polled(p Polls) {
	h.t.Helper()
	a := &eventv1.AccountPolled{Ok: p.OK, Failed: p.Failed, FailedByReason: p.Reasons, Targets: p.Targets, TargetsFailing: p.Failing}
	if p.ClockSkew != 0 {
		a.ClockSkew = durationpb.New(p.ClockSkew)
	}
	h.Repeat(&eventv1.Event{
		Target: TheAccount(), Source: eventv1.Source_SOURCE_POLL, Fact: &eventv1.Event_AccountPolled{AccountPolled: a},
	}, AccountInterval)
}

// Shrunk says that a part of the inventory vanished, or that it is back.
func (h *Harness) Shrunk(known, vanished int64, over bool) {
	h.t.Helper()
	h.Send(&eventv1.Event{Target: TheAccount(), Source: eventv1.Source_SOURCE_TOCSIN, Fact: &eventv1.Event_InventoryShrunk{
		InventoryShrunk: &eventv1.InventoryShrunk{Known: known, Vanished: vanished, Over: over},
	}})
}

// Discover says that a target was seen for the first time.
func (h *Harness) Discover(target *eventv1.Target, spec *eventv1.TargetSpec) {
	h.t.Helper()
	h.Send(&eventv1.Event{Target: target, Source: eventv1.Source_SOURCE_POLL, Fact: &eventv1.Event_TargetDiscovered{
		TargetDiscovered: &eventv1.TargetDiscovered{Spec: spec},
	}})
}

// Change says that a target's settings changed.
func (h *Harness) Change(target *eventv1.Target, spec *eventv1.TargetSpec) {
	h.t.Helper()
	h.Send(&eventv1.Event{Target: target, Source: eventv1.Source_SOURCE_POLL, Fact: &eventv1.Event_TargetChanged{
		TargetChanged: &eventv1.TargetChanged{Spec: spec},
	}})
}

// Remove says that a target is gone; its samples stop.
func (h *Harness) Remove(target *eventv1.Target) {
	h.t.Helper()
	h.Stop(target)
	h.Send(&eventv1.Event{Target: target, Source: eventv1.Source_SOURCE_TOCSIN, Fact: &eventv1.Event_TargetRemoved{
		TargetRemoved: &eventv1.TargetRemoved{},
	}})
}

// PollsFail says that a target's polls fail from now on, for a reason.
func (h *Harness) PollsFail(target *eventv1.Target, reason eventv1.PollFailureReason) {
	h.t.Helper()
	kind, interval := eventv1.PollKind_POLL_KIND_HEALTH, HealthInterval
	if target.GetKind() == eventv1.TargetKind_TARGET_KIND_POD {
		kind, interval = eventv1.PollKind_POLL_KIND_PODS, PodInterval
	}
	h.Repeat(&eventv1.Event{Target: target, Source: eventv1.Source_SOURCE_POLL, Fact: &eventv1.Event_PollFailed{
		PollFailed: &eventv1.PollFailed{Kind: kind, Reason: reason},
	}}, interval)
}

// JobIs says that a job of an endpoint entered a state.
func (h *Harness) JobIs(endpoint, jobID string, state eventv1.JobState) {
	h.t.Helper()
	h.Job(endpoint, &eventv1.JobTransitioned{JobId: jobID, State: state})
}

// JobFails says that a job of an endpoint failed, for a category and with an
// error type, which is also its fingerprint.
func (h *Harness) JobFails(endpoint, jobID string, category eventv1.JobErrorCategory, errorType string) {
	h.t.Helper()
	h.Job(endpoint, &eventv1.JobTransitioned{
		JobId: jobID, State: eventv1.JobState_JOB_STATE_FAILED,
		Error: &eventv1.JobError{
			Category: category, Type: errorType, Message: fmt.Sprintf("%s: it went wrong", errorType), Fingerprint: errorType,
		},
	})
}

// Job says that a job of an endpoint entered a state, in full.
func (h *Harness) Job(endpoint string, j *eventv1.JobTransitioned) {
	h.t.Helper()
	h.Send(&eventv1.Event{Target: Endpoint(endpoint), Source: eventv1.Source_SOURCE_POLL, Fact: &eventv1.Event_JobTransitioned{JobTransitioned: j}})
}

// Track says that a job of an endpoint is to be followed.
func (h *Harness) Track(endpoint, jobID string) {
	h.t.Helper()
	h.Send(&eventv1.Event{Target: Endpoint(endpoint), Source: eventv1.Source_SOURCE_CLIENT, Fact: &eventv1.Event_JobRegistered{
		JobRegistered: &eventv1.JobRegistered{JobId: jobID},
	}})
}
