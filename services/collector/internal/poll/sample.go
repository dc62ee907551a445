package poll

import (
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/tocsin-dev/tocsin/internal/event"
	eventv1 "github.com/tocsin-dev/tocsin/proto/gen/tocsin/event/v1"
	"github.com/tocsin-dev/tocsin/services/collector/runpod"
)

// maxStatus bounds a pod's status, in bytes; RunPod's longest has 12.
const maxStatus = 32

// maxGPUs bounds the GPUs of a pod; RunPod's largest pods have 8.
const maxGPUs = 64

// healthSampled returns h as a fact. What h lacks, the fact lacks.
func healthSampled(target *eventv1.Target, h runpod.Health, slot time.Time, interval time.Duration) *eventv1.Event {
	return &eventv1.Event{
		Target: target,
		Source: eventv1.Source_SOURCE_POLL,
		Fact: &eventv1.Event_HealthSampled{HealthSampled: &eventv1.HealthSampled{
			PollSlotMs: slot.UnixMilli(),
			Interval:   durationpb.New(interval),
			Jobs: &eventv1.JobCounts{
				Completed: h.Jobs.Completed, Failed: h.Jobs.Failed, Retried: h.Jobs.Retried,
				InProgress: h.Jobs.InProgress, InQueue: h.Jobs.InQueue,
			},
			Workers: &eventv1.WorkerCounts{
				Idle: h.Workers.Idle, Ready: h.Workers.Ready, Running: h.Workers.Running,
				Initializing: h.Workers.Initializing, Throttled: h.Workers.Throttled, Unhealthy: h.Workers.Unhealthy,
			},
		}},
	}
}

// gpuSampled returns the live part of p as a fact. What p lacks, the fact lacks.
func gpuSampled(target *eventv1.Target, p runpod.Pod, slot time.Time, interval time.Duration) *eventv1.Event {
	fact := &eventv1.GpuSampled{
		PollSlotMs:  slot.UnixMilli(),
		Interval:    durationpb.New(interval),
		Status:      event.RedactTo(string(p.Status), maxStatus),
		CostPerHour: p.CostPerHour,
	}
	if r := p.Runtime; r != nil {
		if r.Uptime != nil {
			seconds := int64(*r.Uptime / time.Second)
			fact.UptimeSeconds = &seconds
		}
		fact.CpuPercent, fact.MemoryPercent = r.CPUPercent, r.MemoryPercent
		for i, g := range r.GPUs[:min(len(r.GPUs), maxGPUs)] {
			fact.Gpus = append(fact.Gpus, &eventv1.Gpu{
				Index: int32(i), UtilPercent: g.UtilPercent, MemoryPercent: g.MemoryPercent,
			})
		}
	}
	return &eventv1.Event{
		Target: target,
		Source: eventv1.Source_SOURCE_POLL,
		Fact:   &eventv1.Event_GpuSampled{GpuSampled: fact},
	}
}
