package job

import (
	"math"
	"time"

	"github.com/tocsin-dev/tocsin/internal/event"
	eventv1 "github.com/tocsin-dev/tocsin/proto/gen/tocsin/event/v1"
	"github.com/tocsin-dev/tocsin/services/collector/runpod"
)

const (
	// MaxID bounds a job's id, in bytes. RunPod's have up to 45.
	MaxID = 128
	// maxMessage bounds the message of an error, in bytes.
	maxMessage = 512
	// maxName bounds types, frames and worker ids, in bytes.
	maxName = 256
)

var states = map[runpod.JobStatus]eventv1.JobState{
	runpod.JobInQueue:    eventv1.JobState_JOB_STATE_IN_QUEUE,
	runpod.JobInProgress: eventv1.JobState_JOB_STATE_IN_PROGRESS,
	runpod.JobCompleted:  eventv1.JobState_JOB_STATE_COMPLETED,
	runpod.JobFailed:     eventv1.JobState_JOB_STATE_FAILED,
	runpod.JobTimedOut:   eventv1.JobState_JOB_STATE_TIMED_OUT,
	runpod.JobCancelled:  eventv1.JobState_JOB_STATE_CANCELLED,
}

var categories = map[runpod.Category]eventv1.JobErrorCategory{
	runpod.Validation:   eventv1.JobErrorCategory_JOB_ERROR_CATEGORY_VALIDATION,
	runpod.TimedOut:     eventv1.JobErrorCategory_JOB_ERROR_CATEGORY_TIMEOUT,
	runpod.OutOfMemory:  eventv1.JobErrorCategory_JOB_ERROR_CATEGORY_OOM,
	runpod.Crash:        eventv1.JobErrorCategory_JOB_ERROR_CATEGORY_CRASH,
	runpod.HandlerError: eventv1.JobErrorCategory_JOB_ERROR_CATEGORY_HANDLER,
	runpod.Unknown:      eventv1.JobErrorCategory_JOB_ERROR_CATEGORY_UNKNOWN,
}

// FactOf returns what RunPod says of a job as a fact without an attempt. What j
// lacks, the fact lacks.
func FactOf(j runpod.Job) *eventv1.JobTransitioned {
	fact := &eventv1.JobTransitioned{
		JobId:       j.ID,
		State:       states[j.Status],
		DelayMs:     milliseconds(j.DelayTime),
		ExecutionMs: milliseconds(j.ExecutionTime),
		WorkerId:    event.RedactTo(j.WorkerID, maxName),
	}
	if j.Retries != nil {
		retries := int32(min(*j.Retries, math.MaxInt32))
		fact.Retries = &retries
	}
	if f := j.Failure; f != nil {
		fact.Error = &eventv1.JobError{
			Category:    categories[f.Category],
			Type:        event.RedactTo(f.Type, maxName),
			Message:     event.RedactTo(f.Message, maxMessage),
			Frame:       event.RedactTo(f.Frame, maxName),
			Fingerprint: f.Fingerprint(),
		}
	}
	return fact
}

func milliseconds(d *time.Duration) *int64 {
	if d == nil {
		return nil
	}
	ms := d.Milliseconds()
	return &ms
}
