// Package job follows jobs through their states. A transition is told once,
// however many sources see it; states only move forward within an attempt; and
// an attempt begins when a job that had ended is seen queued again.
//
// [Tracker] is pure: it reads no clock and asks nobody. It is not safe for
// concurrent use.
package job

import (
	"container/list"
	"errors"
	"time"

	eventv1 "github.com/tocsin-dev/tocsin/proto/gen/tocsin/event/v1"
)

const (
	// Memory is how long an ended job is remembered, so that a late source does
	// not tell of its end again. It is the window in which the event log drops
	// duplicates.
	Memory = 40 * time.Minute
	// FastPhase is how long after its registration a job is polled fast. Most
	// jobs end within it.
	FastPhase = time.Minute
	// Lifetime is how long a job is followed: the longest ttl that RunPod takes,
	// which counts from its submission.
	Lifetime = 7 * 24 * time.Hour
	// grace is how long RunPod may not know a job that was just submitted.
	grace = 10 * time.Second
)

// ErrFull means that as many jobs are followed as are allowed.
var ErrFull = errors.New("too many jobs are followed")

// Key names a job.
type Key struct {
	// Endpoint is RunPod's id of the endpoint.
	Endpoint string
	// ID is RunPod's id of the job.
	ID string
}

// Transition is a state that a job entered.
type Transition struct {
	Key
	// Fact is what is told of it, with its attempt.
	Fact *eventv1.JobTransitioned
}

// Observation is what a source says of a job.
type Observation struct {
	// Fact holds the state and what belongs to it; its attempt is ignored.
	Fact *eventv1.JobTransitioned
	// Asked is when the question was sent to RunPod. An answer to a question
	// older than the end of an attempt cannot begin another.
	Asked time.Time
	// Latest says that the source cannot tell attempts apart and means the
	// latest, as webhooks do.
	Latest bool
}

type job struct {
	key        Key
	attempt    int32
	state      eventv1.JobState
	registered time.Time // start of the following, or of the attempt
	since      time.Time // when state was entered, as far as seen
	known      time.Time // when RunPod, or who submitted it, last knew it
	open       bool      // polled
	ended      *list.Element
}

// Options bound a [Tracker] and set its pace.
type Options struct {
	// MaxOpen bounds the jobs that are polled, and as many ended ones are
	// remembered.
	MaxOpen int
	// Fast and Slow are the times between two polls of a job in its first
	// minute and later.
	Fast, Slow time.Duration
}

// Tracker holds the jobs that are followed and those that ended lately.
type Tracker struct {
	opts  Options
	jobs  map[Key]*job
	ended list.List // of *job, the one that ended first in front
	open  int
	per   map[string]int // open jobs by endpoint

	noRoom int // jobs that were not followed for want of room, since it was last asked
}

// NewTracker returns a tracker of no jobs.
func NewTracker(opts Options) *Tracker {
	return &Tracker{opts: opts, jobs: map[Key]*job{}, per: map[string]int{}}
}

// Register begins to follow a job at now. It reports false when the job is
// followed already, and returns [ErrFull] when there is no room. A job that
// ended is looked at again for a minute, because its owner may have sent it to
// be tried again.
func (t *Tracker) Register(key Key, now time.Time) (bool, error) {
	j := t.jobs[key]
	switch {
	case j != nil && j.open:
		return false, nil
	case t.open >= t.opts.MaxOpen:
		return false, ErrFull
	case j == nil:
		j = &job{key: key, attempt: 1}
		t.jobs[key] = j
	}
	j.registered, j.known = now, now
	t.setOpen(j, true)
	return true, nil
}

// Ended returns the attempt of a job whose end is the last that was seen of it, 0
// for any other job.
func (t *Tracker) Ended(key Key) int32 {
	if j := t.jobs[key]; j != nil && final(j.state) {
		return j.attempt
	}
	return 0
}

// Release undoes a registration that came to nothing.
func (t *Tracker) Release(key Key) {
	switch j := t.jobs[key]; {
	case j == nil:
	case final(j.state):
		t.setOpen(j, false)
	case rank(j.state) == 0:
		t.drop(j)
	}
}

// Observe takes what a source says of a job at now. When that is news, accept is
// called with the transition; if it returns false the transition counts as not
// told, and an open job's next poll brings it again. Observe reports whether a
// transition was accepted.
func (t *Tracker) Observe(key Key, o Observation, now time.Time, accept func(Transition) bool) bool {
	t.Forget(now)
	j, known := t.jobs[key]
	if !known {
		j = &job{key: key, attempt: 1, registered: now}
	}
	if o.Asked.After(j.known) {
		j.known = o.Asked
	}
	attempt, news := j.next(o)
	if !news {
		if known && final(j.state) && final(o.Fact.GetState()) && now.Sub(j.registered) >= FastPhase {
			t.setOpen(j, false) // looked at again, and nothing came of it
		}
		return false
	}
	fact := o.Fact
	fact.JobId, fact.Attempt = key.ID, attempt
	accepted := accept(Transition{Key: key, Fact: fact})
	if accepted {
		if attempt > j.attempt {
			j.registered = now
		}
		j.attempt, j.state, j.since = attempt, fact.GetState(), now
	}
	if !known {
		if !accepted && t.open >= t.opts.MaxOpen {
			t.noRoom++
			return false
		}
		t.jobs[key] = j
	}
	t.settle(j, accepted)
	return accepted
}

// next returns the attempt that o is about, and whether o is news.
func (j *job) next(o Observation) (int32, bool) {
	state := o.Fact.GetState()
	switch {
	case !final(j.state):
		return j.attempt, rank(state) > rank(j.state)
	case final(state) || o.Latest || !o.Asked.After(j.since):
		return j.attempt, false
	case state == eventv1.JobState_JOB_STATE_IN_QUEUE:
		return j.attempt + 1, true
	default:
		// In progress after its end: the queue was passed between two polls.
		return j.attempt + 1, state == eventv1.JobState_JOB_STATE_IN_PROGRESS
	}
}

// settle opens or closes a job after an observation that was news.
func (t *Tracker) settle(j *job, accepted bool) {
	switch {
	case !accepted:
		if t.open < t.opts.MaxOpen {
			t.setOpen(j, true) // a poll will bring it again
		}
	case final(j.state):
		t.setOpen(j, false)
	case j.open || t.open < t.opts.MaxOpen:
		t.setOpen(j, true)
	default:
		t.noRoom++
	}
	if !j.open && j.ended == nil {
		t.remember(j)
	}
}

// Missing takes that RunPod does not know a job (404) at now; healthy says
// whether it answers otherwise for that endpoint. A job that was not seen to end
// is lost then, unless it was submitted a moment ago. But where RunPod was not
// asked, or did not answer, for as long as it keeps results, how the job ended
// is unknown.
func (t *Tracker) Missing(key Key, healthy bool, now time.Time, accept func(Transition) bool) bool {
	j := t.jobs[key]
	switch {
	case j == nil || !j.open:
		return false
	case final(j.state): // its end was seen, and RunPod has forgotten it
		t.setOpen(j, false)
		return false
	case !healthy || now.Sub(j.registered) < grace:
		return false
	}
	state := eventv1.JobState_JOB_STATE_LOST
	if !j.watched(now) {
		state = eventv1.JobState_JOB_STATE_OUTCOME_UNKNOWN
	}
	return t.Observe(key, Observation{Fact: &eventv1.JobTransitioned{State: state}, Asked: now}, now, accept)
}

// Next returns when an open job is to be polled after now, and false when it is
// not to be polled any more: it ended, or RunPod cannot know it any longer.
func (t *Tracker) Next(key Key, now time.Time) (time.Time, bool) {
	j := t.jobs[key]
	if j == nil || !j.open {
		return time.Time{}, false
	}
	age := now.Sub(j.registered)
	switch {
	case age >= Lifetime:
		t.drop(j)
		return time.Time{}, false
	case age < FastPhase:
		return now.Add(within(key, t.opts.Fast)), true
	default:
		return now.Add(within(key, t.opts.Slow)), true
	}
}

// Replay takes an event of the log, stored at, about a job of the endpoint.
// Other events change nothing. Jobs beyond the bound are left out.
func (t *Tracker) Replay(endpoint string, e *eventv1.Event, at time.Time) {
	switch fact := e.GetFact().(type) {
	case *eventv1.Event_JobRegistered:
		key := Key{Endpoint: endpoint, ID: fact.JobRegistered.GetJobId()}
		if _, err := t.Register(key, at); err != nil {
			t.noRoom++
		}
	case *eventv1.Event_JobTransitioned:
		told := fact.JobTransitioned
		key := Key{Endpoint: endpoint, ID: told.GetJobId()}
		j := t.jobs[key]
		if j == nil {
			if t.open >= t.opts.MaxOpen && !final(told.GetState()) {
				t.noRoom++
				return
			}
			j = &job{key: key, attempt: 1, registered: at}
			t.jobs[key] = j
		}
		if told.GetAttempt() < j.attempt || told.GetAttempt() == j.attempt && rank(told.GetState()) <= rank(j.state) {
			return
		}
		j.attempt, j.state, j.since, j.known = told.GetAttempt(), told.GetState(), at, at
		t.setOpen(j, !final(j.state))
	}
}

// Forget drops what ended more than [Memory] before now, and the oldest of what
// exceeds the bound.
func (t *Tracker) Forget(now time.Time) {
	for front := t.ended.Front(); front != nil; front = t.ended.Front() {
		j := front.Value.(*job)
		if t.ended.Len() <= t.opts.MaxOpen && now.Sub(j.since) < Memory {
			return
		}
		t.drop(j)
	}
}

// DropEndpoint stops following the jobs of an endpoint that is gone, and returns
// how many were open.
func (t *Tracker) DropEndpoint(endpoint string) int {
	before := t.open
	for key, j := range t.jobs {
		if key.Endpoint == endpoint {
			t.drop(j)
		}
	}
	return before - t.open
}

// Open returns the keys of the jobs that are polled, in no order.
func (t *Tracker) Open() []Key {
	keys := make([]Key, 0, t.open)
	for key, j := range t.jobs {
		if j.open {
			keys = append(keys, key)
		}
	}
	return keys
}

// Len returns how many jobs are polled and how many ended ones are remembered.
func (t *Tracker) Len() (open, ended int) { return t.open, t.ended.Len() }

// Oldest returns when the following of the job that is followed longest began,
// and false when none is followed. Who reads the log from there knows all of
// them.
func (t *Tracker) Oldest() (time.Time, bool) {
	var oldest time.Time
	for _, j := range t.jobs {
		if j.open && (oldest.IsZero() || j.registered.Before(oldest)) {
			oldest = j.registered
		}
	}
	return oldest, !oldest.IsZero()
}

func (t *Tracker) setOpen(j *job, open bool) {
	if open && j.ended != nil {
		t.ended.Remove(j.ended)
		j.ended = nil
	}
	if open != j.open {
		j.open = open
		if open {
			t.count(j, 1)
		} else {
			t.count(j, -1)
		}
	}
	if !open && j.ended == nil {
		t.remember(j)
	}
}

// count counts a job that opened (1) or closed (-1).
func (t *Tracker) count(j *job, n int) {
	t.open += n
	if t.per[j.key.Endpoint] += n; t.per[j.key.Endpoint] == 0 {
		delete(t.per, j.key.Endpoint)
	}
}

// NoRoom returns how many jobs were not followed for want of room, beside those
// that Register refused, since it was last called.
func (t *Tracker) NoRoom() int {
	n := t.noRoom
	t.noRoom = 0
	return n
}

// OpenOf returns how many jobs of an endpoint are polled.
func (t *Tracker) OpenOf(endpoint string) int { return t.per[endpoint] }

func (t *Tracker) remember(j *job) { j.ended = t.ended.PushBack(j) }

func (t *Tracker) drop(j *job) {
	if j.open {
		j.open = false
		t.count(j, -1)
	}
	if j.ended != nil {
		t.ended.Remove(j.ended)
		j.ended = nil
	}
	delete(t.jobs, j.key)
}

// rank orders the states of an attempt.
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

func final(s eventv1.JobState) bool { return rank(s) == 3 }
