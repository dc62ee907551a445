package job

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/tocsin-dev/tocsin/internal/event"
	"github.com/tocsin-dev/tocsin/internal/fault"
	eventv1 "github.com/tocsin-dev/tocsin/proto/gen/tocsin/event/v1"
	"github.com/tocsin-dev/tocsin/services/collector/internal/inventory"
	"github.com/tocsin-dev/tocsin/services/collector/internal/poll"
	"github.com/tocsin-dev/tocsin/services/collector/runpod"
)

// registering is the number of registrations that are stored at once: 1000 ids
// take 1000/32 waits for the disk, 0.3 s at 10 ms each.
const registering = 32

// StatusFunc reads the state of a job from RunPod.
type StatusFunc func(ctx context.Context, endpoint, job string) (runpod.Job, error)

// FollowerOptions are what a [Follower] needs; all fields are required.
type FollowerOptions struct {
	// Account is its name in the configuration.
	Account string
	// Status reads RunPod.
	Status StatusFunc
	// Clock gives the slots.
	Clock poll.Clock
	// Publish takes transitions.
	Publish poll.PublishFunc
	// Store stores a registration and returns when it is stored.
	Store func(context.Context, *eventv1.Event) error
	// Target returns what is known of an endpoint.
	Target func(inventory.Key) (inventory.Target, bool)
	// Healthy reports whether the endpoint's health was read at the last poll.
	Healthy func(endpoint string) bool
	// Round counts the polls in the account's heartbeat.
	Round *poll.Round
	// Bounds bound the jobs and set the pace of their polls.
	Bounds Options
	// MaxBackoff bounds the pause of a job whose poll fails.
	MaxBackoff time.Duration
	// FailureEvery is the least time between two failures that are told of the
	// jobs of an endpoint.
	FailureEvery time.Duration
	// Workers bounds the polls in flight.
	Workers int
	// Jitter returns numbers in [0, 1).
	Jitter func() float64
	// Polls count the polls.
	Polls *poll.Metrics
	// Metrics count the jobs.
	Metrics *Metrics
	// Log receives a line for each registration, and at the level debug one for each
	// poll.
	Log *slog.Logger
}

// Follower polls the jobs of a [Tracker] until they end and publishes their
// transitions, from whatever source. It is safe for concurrent use.
type Follower struct {
	opts  FollowerOptions
	queue *poll.Queue

	mu       sync.Mutex
	tracker  *Tracker             // guarded by mu
	failures map[Key]int          // guarded by mu: failed polls in a row
	told     map[string]time.Time // guarded by mu: when a failure was last told, by endpoint
	storing  map[Key]int          // guarded by mu: calls that store a registration that is not known to be stored
}

// NewFollower returns a follower of the jobs of tracker, which belongs to it
// from now on.
func NewFollower(opts FollowerOptions, tracker *Tracker) *Follower {
	return &Follower{
		opts:     opts,
		queue:    poll.NewQueue(opts.Clock, opts.Workers),
		tracker:  tracker,
		failures: map[Key]int{},
		told:     map[string]time.Time{},
		storing:  map[Key]int{},
	}
}

// Run polls until ctx ends.
func (f *Follower) Run(ctx context.Context) {
	f.mu.Lock()
	open := f.tracker.Open()
	f.count()
	f.mu.Unlock()
	for _, key := range open {
		f.schedule(key)
	}
	f.queue.Run(ctx)
}

// Late returns by how much the poll that is due longest is late.
func (f *Follower) Late() time.Duration { return f.queue.Late() }

// Oldest returns when the following of the job that is followed longest began,
// and false when none is.
func (f *Follower) Oldest() (time.Time, bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.tracker.Oldest()
}

// Drop stops following the jobs of an endpoint that is gone.
func (f *Follower) Drop(endpoint string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if n := f.tracker.DropEndpoint(endpoint); n > 0 {
		f.opts.Metrics.dropped.WithLabelValues("endpoint_removed").Add(float64(n))
		f.opts.Log.Warn("jobs of a removed endpoint dropped", "endpoint_id", endpoint, "jobs", n)
	}
	delete(f.told, endpoint)
	f.count()
}

// Register follows jobs of an endpoint until they end. The registrations are
// stored when it returns. It returns how many were not followed before and how
// many were. Errors are of the kinds fault.NotFound (the endpoint is not known),
// fault.Invalid (it has no queue), fault.Exhausted (too many jobs are followed) and fault.Unavailable (the event
// log is away); none of the jobs is followed anew then, unless another call registers it.
func (f *Follower) Register(ctx context.Context, endpoint string, ids []string) (registered, already int, err error) {
	target, err := f.endpoint(endpoint)
	if err != nil {
		return 0, 0, err
	}
	if known, _ := f.opts.Target(keyOf(endpoint)); !known.Polled() {
		return 0, 0, fault.Newf(fault.Invalid, "endpoint %q has no queue, so no jobs", endpoint)
	}
	unstored, registered, err := f.admit(endpoint, ids)
	if err != nil {
		f.opts.Metrics.refused.Add(float64(len(ids)))
		return 0, 0, err
	}
	var storing errgroup.Group
	storing.SetLimit(registering)
	for _, e := range unstored {
		storing.Go(func() error { return f.opts.Store(ctx, registration(target, e)) })
	}
	if err := storing.Wait(); err != nil {
		f.release(unstored)
		return 0, 0, fault.Wrap(fault.Unavailable, fmt.Errorf("store registrations: %w", err))
	}
	f.stored(unstored)
	f.opts.Log.Info("jobs registered", "endpoint_id", endpoint, "registered", registered, "already_tracked", len(ids)-registered)
	return registered, len(ids) - registered, nil
}

func (f *Follower) endpoint(id string) (*eventv1.Target, error) {
	target, ok := f.opts.Target(keyOf(id))
	if !ok {
		return nil, fault.Newf(fault.NotFound, "endpoint %q is not known to account %q", event.RedactTo(id, MaxID), f.opts.Account)
	}
	return f.about(id, target.Name), nil
}

func keyOf(endpoint string) inventory.Key {
	return inventory.Key{Kind: eventv1.TargetKind_TARGET_KIND_ENDPOINT, ID: endpoint}
}

func (f *Follower) about(id, name string) *eventv1.Target {
	return &eventv1.Target{Account: f.opts.Account, Kind: eventv1.TargetKind_TARGET_KIND_ENDPOINT, Id: id, Name: name}
}

// enrolment is a job whose registration is not known to be stored.
type enrolment struct {
	Key
	after int32 // the attempt that was seen to end before, 0 for none
}

// admit makes room for all the jobs, or for none, and returns those whose
// registration is not known to be stored, and how many were not followed. One that
// another call is storing is among the former: that call may fail yet, and ours
// must not be acknowledged because of it.
func (f *Follower) admit(endpoint string, ids []string) (unstored []enrolment, fresh int, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	defer f.count()
	for _, id := range ids {
		key := Key{Endpoint: endpoint, ID: id}
		admitted, err := f.tracker.Register(key, time.Now())
		if err != nil {
			f.leave(unstored)
			return nil, 0, fault.Wrap(fault.Exhausted, err)
		}
		if admitted {
			fresh++
		}
		if admitted || f.storing[key] > 0 {
			f.storing[key]++
			unstored = append(unstored, enrolment{key, f.tracker.Ended(key)})
		}
	}
	return unstored, fresh, nil
}

// release gives up the registrations of a call.
func (f *Follower) release(unstored []enrolment) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.leave(unstored)
	f.count()
}

// leave takes back what a call wanted of jobs. Those whose registration no other
// call stored, or is storing, are not followed. The caller holds mu.
func (f *Follower) leave(unstored []enrolment) {
	for _, e := range unstored {
		switch n := f.storing[e.Key]; {
		case n > 1:
			f.storing[e.Key] = n - 1
		case n == 1:
			delete(f.storing, e.Key)
			f.tracker.Release(e.Key)
		}
	}
}

// stored notes that registrations are, and begins the polls of their jobs.
func (f *Follower) stored(unstored []enrolment) {
	f.mu.Lock()
	for _, e := range unstored {
		delete(f.storing, e.Key)
	}
	f.mu.Unlock()
	for _, e := range unstored {
		f.schedule(e.Key)
	}
}

func registration(target *eventv1.Target, e enrolment) *eventv1.Event {
	return &eventv1.Event{
		Id:     event.RegistrationID(event.Token(target), e.ID, e.after),
		Target: target,
		Source: eventv1.Source_SOURCE_CLIENT,
		Fact:   &eventv1.Event_JobRegistered{JobRegistered: &eventv1.JobRegistered{JobId: e.ID}},
	}
}

// Webhook takes what RunPod's completion webhook says of a job. It never blocks.
// It returns an error of the kind fault.Invalid for what names no job.
func (f *Follower) Webhook(endpoint string, j runpod.Job) error {
	if j.ID == "" || len(j.ID) > MaxID {
		return fault.New(fault.Invalid, "the webhook names no job")
	}
	target, err := f.endpoint(endpoint)
	if err != nil {
		return err
	}
	key := Key{Endpoint: endpoint, ID: j.ID}
	now := time.Now()
	f.observe(key, target, Observation{Fact: FactOf(j), Asked: now, Latest: true}, eventv1.Source_SOURCE_WEBHOOK, now)
	f.schedule(key) // only when it is open: its transition found no room, or it has not ended
	return nil
}

// observe hands an observation to the tracker and publishes what is news.
func (f *Follower) observe(key Key, target *eventv1.Target, o Observation, source eventv1.Source, read time.Time) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.tracker.Observe(key, o, read, func(t Transition) bool { return f.publish(target, t, source, read) })
	f.count()
}

func (f *Follower) publish(target *eventv1.Target, t Transition, source eventv1.Source, read time.Time) bool {
	return f.opts.Publish(&eventv1.Event{
		Id:     event.JobFactID(event.Token(target), t.ID, t.Fact.GetAttempt(), t.Fact.GetState()),
		Target: target,
		Source: source,
		Fact:   &eventv1.Event_JobTransitioned{JobTransitioned: t.Fact},
	}, read)
}

// schedule begins the polls of a job that is open.
func (f *Follower) schedule(key Key) {
	due, open := f.next(key)
	if !open {
		return
	}
	f.queue.Put(key.schedule(), due, func(ctx context.Context, slot time.Time) time.Time {
		return f.poll(ctx, key, slot)
	})
}

// schedule returns the name of the job's schedule. Either id may hold a slash.
func (k Key) schedule() string { return fmt.Sprintf("%d/%s/%s", len(k.Endpoint), k.Endpoint, k.ID) }

// next returns when an open job is to be polled.
func (f *Follower) next(key Key) (time.Time, bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	before, _ := f.tracker.Len()
	now := time.Now()
	at, open := f.tracker.Next(key, now)
	if !open {
		if after, _ := f.tracker.Len(); after < before {
			f.opts.Metrics.dropped.WithLabelValues("too_old").Inc()
		}
		delete(f.failures, key)
		f.count()
		return time.Time{}, false
	}
	return f.opts.Clock.Show(crowded(key, now, at, f.tracker.OpenOf(key.Endpoint), f.opts.Jitter())), true
}

// poll reads a job once and returns when to do so again, the zero time for a job
// that is not followed any more.
func (f *Follower) poll(ctx context.Context, key Key, slot time.Time) time.Time {
	due, open := f.next(key)
	target, err := f.endpoint(key.Endpoint)
	if !open || err != nil {
		return time.Time{}
	}
	asked := time.Now()
	j, err := f.opts.Status(ctx, key.Endpoint, key.ID)
	read := time.Now()
	failure, failed := poll.FailureOf(err)
	if err != nil && !failed { // the process ends
		return due
	}
	f.opts.Polls.Observe("job", asked, failure, failed)
	f.opts.Log.Debug("polled", "kind", "job", "endpoint_id", key.Endpoint, "job_id", key.ID, "took", read.Sub(asked), "err", err)
	switch {
	case failed && !failure.Gone():
		f.opts.Round.Failed(failure)
		return f.failed(key, target, failure, slot, read)
	case failed:
		f.missing(key, target, read)
	default:
		f.observe(key, target, Observation{Fact: FactOf(j), Asked: asked}, eventv1.Source_SOURCE_POLL, read)
	}
	f.opts.Round.OK() // RunPod answered
	f.mu.Lock()
	delete(f.failures, key)
	f.mu.Unlock()
	due, _ = f.next(key)
	return due
}

func (f *Follower) missing(key Key, target *eventv1.Target, read time.Time) {
	healthy := f.opts.Healthy(key.Endpoint)
	f.mu.Lock()
	defer f.mu.Unlock()
	f.tracker.Missing(key, healthy, read, func(t Transition) bool {
		return f.publish(target, t, eventv1.Source_SOURCE_POLL, read)
	})
	f.count()
}

// failed publishes that the status of a job was not read, not more often than
// the endpoint's own polls, and returns when to try again.
func (f *Follower) failed(key Key, target *eventv1.Target, failure poll.Failure, slot, read time.Time) time.Time {
	f.mu.Lock()
	f.failures[key]++
	failures := f.failures[key]
	open := f.tracker.OpenOf(key.Endpoint)
	tell := read.Sub(f.told[key.Endpoint]) >= f.opts.FailureEvery
	if tell {
		f.told[key.Endpoint] = read
	}
	f.mu.Unlock()
	if tell {
		f.opts.Publish(failure.Event(target, eventv1.PollKind_POLL_KIND_JOB, slot), read)
	}
	pause := poll.Backoff(within(key, f.opts.Bounds.Fast), within(key, f.opts.MaxBackoff), failures, failure.RetryAfter, f.opts.Jitter())
	return f.opts.Clock.Show(crowded(key, read, read.Add(pause), open, f.opts.Jitter()))
}

// count shows how many jobs there are; the caller holds mu.
func (f *Follower) count() {
	open, ended := f.tracker.Len()
	f.opts.Metrics.tracked.WithLabelValues("open").Set(float64(open))
	f.opts.Metrics.tracked.WithLabelValues("ended").Set(float64(ended))
	if n := f.tracker.NoRoom(); n > 0 {
		f.opts.Metrics.dropped.WithLabelValues("no_room").Add(float64(n))
	}
}
