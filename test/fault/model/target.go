package model

import eventv1 "github.com/tocsin-dev/tocsin/proto/gen/tocsin/event/v1"

// target is an endpoint.
type target struct {
	token, id string
	seen      bool  // it was ever sampled
	slot      int64 // of the last sample
	interval  int64 // between samples, in milliseconds
	sampled   int64 // when, in the bus's time
	waiting   int64 // jobs in queue
	alerts    []alert
	jobs      map[string]job
}

// phase is where an alert stands.
type phase int

const (
	rests phase = iota
	pends
	fires
)

// holds is until when the last sample holds, in the bus's time.
func (t *target) holds() int64 { return t.sampled + holdIntervals*t.interval }

// alert is where the alert of a rule stands, and since when.
type alert struct {
	phase phase
	since int64
	// stopped says that its wait stands still, and waited is how much of it had
	// passed then.
	stopped bool
	waited  int64
}

// job is how far a job has come.
type job struct {
	attempt int32
	rank    int
}

// register notes a job. It says whether it is new.
func (t *target) register(id string) bool {
	if _, known := t.jobs[id]; known || id == "" {
		return false
	}
	t.jobs[id] = job{}
	return true
}

// move notes what became of a job. It says whether that is news: states only
// move forward within an attempt.
func (t *target) move(f *eventv1.JobTransitioned) bool {
	to := job{attempt: max(f.GetAttempt(), 1), rank: rankOf(f.GetState())}
	from, known := t.jobs[f.GetJobId()]
	if known && f.GetAttempt() <= 0 {
		to.attempt = max(from.attempt, 1)
	}
	switch {
	case f.GetJobId() == "" || to.rank == 0:
		return false
	case known && to.attempt < from.attempt:
		return false
	case known && (to.attempt == from.attempt || from.attempt == 0) && to.rank <= from.rank:
		return false
	}
	t.jobs[f.GetJobId()] = to
	return true
}

func rankOf(s eventv1.JobState) int {
	switch s {
	case eventv1.JobState_JOB_STATE_UNSPECIFIED:
		return 0
	case eventv1.JobState_JOB_STATE_IN_QUEUE:
		return 1
	case eventv1.JobState_JOB_STATE_IN_PROGRESS:
		return 2
	default:
		return 3
	}
}
