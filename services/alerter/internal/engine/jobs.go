package engine

import (
	"slices"
	"time"

	eventv1 "github.com/tocsin-dev/tocsin/proto/gen/tocsin/event/v1"
)

const (
	// endedFor is how long an ended job is remembered, so that a late source
	// adds nothing: RunPod keeps results for 30 minutes.
	endedFor = 40 * time.Minute
	// openFor is how long a job that does not end is remembered: RunPod ends
	// jobs after 24 h at the latest unless told otherwise.
	openFor = 25 * time.Hour
	// maxJobs bounds the jobs of one endpoint: at about 60 bytes each, 1.2 MiB.
	maxJobs = 20_000
	// maxDelays is how many waits the percentile is taken of.
	maxDelays = 64
	// minDelays is from how many waits on a percentile means something.
	minDelays = 5
	// delaysFor is how long a wait counts.
	delaysFor = 2 * time.Hour
	// overrunGrace is how long after its timeout a job may be in progress:
	// RunPod needs a while to end it, and polls a while to see it.
	overrunGrace = time.Minute
)

// job is how far a job has come.
type job struct {
	id      string
	attempt int32
	state   eventv1.JobState
	since   int64
}

// delay is how long one job waited.
type delay struct{ at, ms int64 }

// jobTable is the jobs that an endpoint is known to have, for a while.
type jobTable struct {
	byID map[string]*job
	// open and ended are sorted by the instant of their last change.
	open, ended []*job
	delays      []delay
	dropped     uint64
}

func newJobTable() *jobTable { return &jobTable{byID: map[string]*job{}} }

// rank orders states within an attempt; final states are equal.
func rank(s eventv1.JobState) int {
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

// register notes a job that is to be followed. It says whether it is new.
func (j *jobTable) register(id string, at int64) bool {
	if id == "" || j.byID[id] != nil {
		return false
	}
	j.put(&job{id: id, since: at})
	return true
}

// move takes a job to a state at an instant. States only move forward within an
// attempt, and attempts only upward; an attempt of 0 means the latest. It says
// whether the job moved and from which state.
func (j *jobTable) move(id string, attempt int32, to eventv1.JobState, at int64) (from eventv1.JobState, moved bool) {
	if id == "" || to == eventv1.JobState_JOB_STATE_UNSPECIFIED {
		return 0, false
	}
	old := j.byID[id]
	next := &job{id: id, attempt: max(attempt, 1), state: to, since: at}
	if old != nil {
		if attempt <= 0 {
			next.attempt = max(old.attempt, 1)
		}
		switch {
		case next.attempt < old.attempt:
			return old.state, false
		case next.attempt == old.attempt || old.attempt == 0:
			if rank(to) <= rank(old.state) {
				return old.state, false
			}
			from = old.state
		}
		j.remove(old)
	}
	j.put(next)
	return from, true
}

// put adds a job at its place by time.
func (j *jobTable) put(n *job) {
	j.byID[n.id] = n
	list := &j.open
	if rank(n.state) == 3 {
		list = &j.ended
	}
	i := len(*list)
	for i > 0 && (*list)[i-1].since > n.since {
		i--
	}
	*list = slices.Insert(*list, i, n)
}

func (j *jobTable) remove(n *job) {
	delete(j.byID, n.id)
	list := &j.open
	if rank(n.state) == 3 {
		list = &j.ended
	}
	if i := slices.Index(*list, n); i >= 0 {
		*list = slices.Delete(*list, i, i+1)
	}
}

// prune forgets the jobs that ended, or entered an open state, before an
// instant and, the oldest first, what is too much. It returns how many were
// forgotten for the latter.
func (j *jobTable) prune(ended, open int64) (over int) {
	j.open = j.forget(j.open, open)
	j.ended = j.forget(j.ended, ended)
	for len(j.open)+len(j.ended) > maxJobs {
		oldest := j.open
		if len(oldest) == 0 || len(j.ended) > 0 && j.ended[0].since <= oldest[0].since {
			oldest = j.ended
		}
		j.remove(oldest[0])
		over++
	}
	j.dropped += uint64(over)
	return over
}

// forget drops the head of a list up to an instant.
func (j *jobTable) forget(list []*job, before int64) []*job {
	n := 0
	for n < len(list) && list[n].since < before {
		delete(j.byID, list[n].id)
		n++
	}
	return slices.Delete(list, 0, n)
}

// waited notes how long a job waited.
func (j *jobTable) waited(at, ms int64) {
	j.delays = append(j.delays, delay{at, ms})
	if over := len(j.delays) - maxDelays; over > 0 {
		j.delays = slices.Delete(j.delays, 0, over)
	}
}

// oldestQueued returns for how many seconds the oldest queued job waits; 0 when
// none does.
func (j *jobTable) oldestQueued(now int64) float64 {
	for _, o := range j.open {
		if o.state == eventv1.JobState_JOB_STATE_IN_QUEUE {
			return float64(now-o.since) / 1000
		}
	}
	return 0
}

// delayP95 returns the 95th percentile of the last waits in seconds, and false
// while there are too few.
func (j *jobTable) delayP95(now int64) (float64, bool) {
	recent := j.recentDelays(now)
	if len(recent) < minDelays {
		return 0, false
	}
	slices.Sort(recent)
	return float64(recent[(len(recent)*95+99)/100-1]) / 1000, true
}

// recentDelays lists the last waits in milliseconds, oldest first.
func (j *jobTable) recentDelays(now int64) []int64 {
	recent := make([]int64, 0, len(j.delays))
	for _, d := range j.delays {
		if now-d.at <= delaysFor.Milliseconds() {
			recent = append(recent, d.ms)
		}
	}
	return recent
}

// overrun counts the jobs in progress for longer than timeout seconds and a grace.
func (j *jobTable) overrun(now int64, timeout float64) float64 {
	n := 0.0
	for _, o := range j.open {
		if o.state == eventv1.JobState_JOB_STATE_IN_PROGRESS && float64(now-o.since-overrunGrace.Milliseconds()) > timeout*1000 {
			n++
		}
	}
	return n
}
