package engine

import (
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	eventv1 "github.com/tocsin-dev/tocsin/proto/gen/tocsin/event/v1"
)

// keepHealth returns a copy of a sample, in the memory of the one that was kept
// before. Nobody else has that: what is read of it are numbers and its encoding. A
// clone would be 15 allocations for each sample, a fifth of what one costs.
func keepHealth(kept, s *eventv1.HealthSampled) *eventv1.HealthSampled {
	if kept == nil || !plainHealth(kept) || !plainHealth(s) {
		return proto.CloneOf(s)
	}
	kept.PollSlotMs = s.PollSlotMs
	kept.Interval = keepDuration(kept.Interval, s.Interval)
	kept.Jobs = keepJobs(kept.Jobs, s.Jobs)
	kept.Workers = keepWorkers(kept.Workers, s.Workers)
	return kept
}

// plainHealth says that a sample has no fields of a newer release, which are kept
// where there are.
func plainHealth(s *eventv1.HealthSampled) bool {
	return plain(s) && (s.Interval == nil || plain(s.Interval)) && (s.Jobs == nil || plain(s.Jobs)) && (s.Workers == nil || plain(s.Workers))
}

func plain(m proto.Message) bool { return len(m.ProtoReflect().GetUnknown()) == 0 }

func keepDuration(kept, d *durationpb.Duration) *durationpb.Duration {
	if d == nil {
		return nil
	}
	if kept == nil {
		kept = new(durationpb.Duration)
	}
	kept.Seconds, kept.Nanos = d.Seconds, d.Nanos
	return kept
}

func keepJobs(kept, j *eventv1.JobCounts) *eventv1.JobCounts {
	if j == nil {
		return nil
	}
	if kept == nil {
		kept = new(eventv1.JobCounts)
	}
	keepCount(&kept.Completed, j.Completed)
	keepCount(&kept.Failed, j.Failed)
	keepCount(&kept.Retried, j.Retried)
	keepCount(&kept.InProgress, j.InProgress)
	keepCount(&kept.InQueue, j.InQueue)
	return kept
}

func keepWorkers(kept, w *eventv1.WorkerCounts) *eventv1.WorkerCounts {
	if w == nil {
		return nil
	}
	if kept == nil {
		kept = new(eventv1.WorkerCounts)
	}
	keepCount(&kept.Idle, w.Idle)
	keepCount(&kept.Ready, w.Ready)
	keepCount(&kept.Running, w.Running)
	keepCount(&kept.Initializing, w.Initializing)
	keepCount(&kept.Throttled, w.Throttled)
	keepCount(&kept.Unhealthy, w.Unhealthy)
	return kept
}

func keepCount(kept **int64, n *int64) {
	switch {
	case n == nil:
		*kept = nil
	case *kept == nil:
		*kept = new(*n)
	default:
		**kept = *n
	}
}
