package runpod

import (
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/tocsin-dev/tocsin/internal/event"
)

// JobStatus is the state of a job.
type JobStatus string

// The job states that RunPod documents. RUNNING, an alias of IN_PROGRESS, is
// read as that.
const (
	// JobInQueue means that no worker has taken the job.
	JobInQueue JobStatus = "IN_QUEUE"
	// JobInProgress means that a worker is at it.
	JobInProgress JobStatus = "IN_PROGRESS"
	// JobCompleted means that it ended well.
	JobCompleted JobStatus = "COMPLETED"
	// JobFailed means that it ended badly.
	JobFailed JobStatus = "FAILED"
	// JobCancelled means that someone cancelled it.
	JobCancelled JobStatus = "CANCELLED"
	// JobTimedOut means that it took too long.
	JobTimedOut JobStatus = "TIMED_OUT"
)

// Final reports whether a job in state s changes no more, save by a retry.
func (s JobStatus) Final() bool {
	switch s {
	case JobCompleted, JobFailed, JobCancelled, JobTimedOut:
		return true
	default:
		return false
	}
}

// ParseJobStatus returns the state that text names, RUNNING among them. Any
// other text is an error.
func ParseJobStatus(text string) (JobStatus, error) {
	switch s := JobStatus(text); s {
	case "RUNNING":
		return JobInProgress, nil
	case JobInQueue, JobInProgress, JobCompleted, JobFailed, JobCancelled, JobTimedOut:
		return s, nil
	case "":
		return "", errors.New("status is missing")
	default:
		return "", fmt.Errorf("status %q is not known", event.Line(text, 32))
	}
}

// Job is the state of one job. Its input and output are not kept.
type Job struct {
	// ID is RunPod's id of the job, opaque.
	ID string
	// Status is one of the six states.
	Status JobStatus
	// DelayTime is the time in the queue, counted anew at each retry; nil when
	// absent.
	DelayTime *time.Duration
	// ExecutionTime is the time on the worker, nil when absent.
	ExecutionTime *time.Duration
	// WorkerID is the worker that has or had the job, "" when absent.
	WorkerID string
	// Retries is how often RunPod tried again, nil when absent.
	Retries *int64
	// Failure says why the job ended badly; nil unless it FAILED or TIMED_OUT.
	Failure *Failure
}

// wireJob names the parts of a job that are decoded, never input or output. The
// end of a job is told by no other answer, so that it must not be lost by a figure
// beside it: what is of another type than it should be is absent.
type wireJob struct {
	ID            string          `json:"id"`
	Status        string          `json:"status"`
	DelayTime     perhaps[figure] `json:"delayTime"`     // milliseconds
	ExecutionTime perhaps[figure] `json:"executionTime"` // milliseconds
	WorkerID      perhaps[string] `json:"workerId"`
	Retries       perhaps[whole]  `json:"retries"`
	Error         json.RawMessage `json:"error"`
}

func decodeJob(body []byte) (Job, error) {
	var w wireJob
	if err := json.Unmarshal(body, &w); err != nil {
		return Job{}, jsonError(err)
	}
	status, err := ParseJobStatus(w.Status)
	if err != nil {
		return Job{}, err
	}
	j := Job{
		ID: w.ID, Status: status, WorkerID: event.Line(w.WorkerID.value, maxIDBytes),
		DelayTime:     duration(w.DelayTime.value.n, time.Millisecond),
		ExecutionTime: duration(w.ExecutionTime.value.n, time.Millisecond),
	}
	if !negative(w.Retries.value.n) {
		j.Retries = w.Retries.value.n
	}
	if status == JobFailed || status == JobTimedOut {
		f := ParseFailure(w.Status, w.Error)
		j.Failure = &f
	}
	return j, nil
}
