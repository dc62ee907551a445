// Package poll reads a RunPod account on a schedule: its inventory, the health
// of its queue endpoints and its pods. Each target has its own place within the
// interval; one that fails is polled ever more rarely, but never given up. What
// is read is handed on as facts, and every interval a heartbeat says how the
// polls went, also when none did.
package poll

import (
	"context"
	"log/slog"
	"strings"
	"sync"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	eventv1 "github.com/tocsin-dev/tocsin/proto/gen/tocsin/event/v1"
	"github.com/tocsin-dev/tocsin/services/collector/internal/inventory"
	"github.com/tocsin-dev/tocsin/services/collector/runpod"
)

// API is the part of RunPod's client that is polled.
type API interface {
	Endpoints(context.Context) (runpod.List[runpod.Endpoint], error)
	Endpoint(ctx context.Context, id string) (runpod.Endpoint, error)
	Pods(context.Context) (runpod.List[runpod.Pod], error)
	Pod(ctx context.Context, id string) (runpod.Pod, error)
	Health(context.Context, runpod.Endpoint) (runpod.Health, error)
}

// PublishFunc takes an event whose answer was read at read. It never blocks. It
// returns false when it has no room for the event.
type PublishFunc func(e *eventv1.Event, read time.Time) bool

// Options are what an [Account] needs; all fields are required.
type Options struct {
	// Account is its name in the configuration.
	Account string
	// API reads RunPod.
	API API
	// Clock gives the slots.
	Clock Clock
	// Publish takes what was read.
	Publish PublishFunc
	// Changed is called for each target that is new or has new settings, Removed
	// for each that is gone. They must not call back.
	Changed func(inventory.Target)
	// Removed is called for each target that is gone.
	Removed func(inventory.Key)
	// Health, Pods and Inventory are the intervals of the polls; the heartbeat
	// keeps the first.
	Health, Pods, Inventory time.Duration
	// MaxBackoff bounds the pause of a target that fails.
	MaxBackoff time.Duration
	// Workers bounds the polls in flight.
	Workers int
	// Jitter returns numbers in [0, 1).
	Jitter func() float64
	// Skew returns the machine's clock minus that of the bus, and false while it
	// is not known.
	Skew func() (time.Duration, bool)
	// Metrics count the polls.
	Metrics *Metrics
	// Log receives a line when a list fails and when targets come and go, and at
	// the level debug one for each poll.
	Log *slog.Logger
}

// The keys of the two lists; those of endpoints begin with endpointPrefix.
const (
	endpointsKey   = "list/endpoints"
	podsKey        = "list/pods"
	endpointPrefix = "endpoint/"
)

// Account polls one account. It is safe for concurrent use.
type Account struct {
	opts  Options
	queue *Queue
	round Round

	mu        sync.Mutex
	inventory *inventory.Inventory // guarded by mu
	listed    map[string]string    // guarded by mu: where an endpoint's health is by the last list, by id
	health    map[string]condition // guarded by mu: endpoints that were polled, by id
	failures  map[string]int       // guarded by mu: failures in a row by schedule
	wishes    map[string]time.Time // guarded by mu: until when RunPod wishes not to be asked, by schedule
	podsFail  bool                 // guarded by mu: the last list of pods failed
	unread    map[string]bool      // guarded by mu: pods that the last list had and that could not be read
	streak    int                  // guarded by mu: failures in a row of all endpoints
}

// NewAccount returns the poller of an account with the targets of inv, which
// belongs to it from now on.
func NewAccount(opts Options, inv *inventory.Inventory) *Account {
	return &Account{
		opts:      opts,
		queue:     NewQueue(opts.Clock, opts.Workers),
		inventory: inv,
		listed:    map[string]string{},
		health:    map[string]condition{},
		failures:  map[string]int{},
		wishes:    map[string]time.Time{},
	}
}

// Round counts polls of the account that others make, such as those of jobs.
func (a *Account) Round() *Round { return &a.round }

// Late returns by how much the poll that is due longest is late.
func (a *Account) Late() time.Duration { return a.queue.Late() }

// Target returns what is known of a target.
func (a *Account) Target(key inventory.Key) (inventory.Target, bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.inventory.Target(key)
}

// Targets returns what is known of all targets, by kind and id.
func (a *Account) Targets() []inventory.Target {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.inventory.Targets()
}

// Healthy reports whether the last poll of the endpoint's health worked.
func (a *Account) Healthy(endpoint string) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.health[endpoint] == answering
}

// First reads both lists once, as the polls of a moment, and returns why each
// failed, nil where it did not.
func (a *Account) First(ctx context.Context) (endpoints, pods *Failure) {
	var lists sync.WaitGroup
	now := a.opts.Clock.Now()
	lists.Go(func() { endpoints = a.pollEndpoints(ctx, now) })
	lists.Go(func() { pods = a.pollPods(ctx, now) })
	lists.Wait()
	return endpoints, pods
}

// Run polls until ctx ends.
func (a *Account) Run(ctx context.Context) {
	for _, target := range a.Targets() {
		a.schedule(target)
	}
	a.queue.Put(endpointsKey, a.slotAfter(endpointsKey), func(ctx context.Context, slot time.Time) time.Time {
		return a.after(endpointsKey, a.pollEndpoints(ctx, slot))
	})
	a.queue.Put(podsKey, a.slotAfter(podsKey), func(ctx context.Context, slot time.Time) time.Time {
		return a.after(podsKey, a.pollPods(ctx, slot))
	})
	var heart sync.WaitGroup
	defer heart.Wait()
	heart.Go(func() { a.beat(ctx) })
	a.queue.Run(ctx)
}

// beat publishes the account's heartbeat, which does not depend on any poll.
func (a *Account) beat(ctx context.Context) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		slot := NextSlot(a.opts.Clock.Now(), "account/"+a.opts.Account, a.opts.Health)
		timer.Reset(slot.Sub(a.opts.Clock.Now()))
		select {
		case <-timer.C:
		case <-ctx.Done():
			return
		}
		e := a.round.End(a.opts.Account, slot, a.opts.Health, a.census())
		if skew, known := a.opts.Skew(); known {
			e.GetAccountPolled().ClockSkew = durationpb.New(skew)
		}
		a.opts.Publish(e, time.Now())
	}
}

func (a *Account) census() Census {
	a.mu.Lock()
	defer a.mu.Unlock()
	var c Census
	for _, t := range a.inventory.Targets() {
		if !t.Polled() {
			continue
		}
		c.Targets++
		switch t.Kind {
		case eventv1.TargetKind_TARGET_KIND_POD:
			if a.podsFail || a.unread[t.ID] {
				c.Failing++
			}
		default:
			if a.health[t.ID] == failing {
				c.Failing++
			}
		}
	}
	return c
}

// schedule begins or ends the polls of an endpoint. Pods have none of their own.
func (a *Account) schedule(t inventory.Target) {
	if t.Kind != eventv1.TargetKind_TARGET_KIND_ENDPOINT {
		return
	}
	key := endpointPrefix + t.ID
	if !t.Polled() {
		a.queue.Remove(key)
		return
	}
	a.queue.Put(key, a.slotAfter(key), func(ctx context.Context, slot time.Time) time.Time {
		return a.after(key, a.pollHealth(ctx, t.ID, slot))
	})
}

func (a *Account) interval(key string) time.Duration {
	switch key {
	case endpointsKey:
		return a.opts.Inventory
	case podsKey:
		return a.opts.Pods
	default:
		return a.opts.Health
	}
}

func (a *Account) slotAfter(key string) time.Time {
	return NextSlot(a.opts.Clock.Now(), key, a.interval(key))
}

// after returns when a schedule's next poll is due after one that ended in f.
func (a *Account) after(key string, f *Failure) time.Time {
	a.mu.Lock()
	defer a.mu.Unlock()
	delete(a.wishes, key)
	if f == nil || !a.scheduled(key) {
		delete(a.failures, key)
		return a.slotAfter(key)
	}
	a.failures[key]++
	now := a.opts.Clock.Now()
	if f.RetryAfter > 0 {
		a.wishes[key] = now.Add(min(f.RetryAfter, longestWish))
	} else if f.Refused() || a.failures[key] == 1 {
		return a.slotAfter(key)
	}
	return now.Add(Backoff(a.interval(key), a.opts.MaxBackoff, a.failures[key], f.RetryAfter, a.opts.Jitter()))
}

// scheduled reports whether a schedule is one of the lists' or of an endpoint that
// is known; the caller holds mu.
func (a *Account) scheduled(key string) bool {
	id, ofEndpoint := strings.CutPrefix(key, endpointPrefix)
	if !ofEndpoint {
		return true
	}
	_, known := a.inventory.Target(inventory.Key{Kind: endpointKind, ID: id})
	return known
}

// condition is how the last poll of an endpoint's health went.
type condition int

const (
	unpolled  condition = iota
	answering           // RunPod gave its health
	unknown             // RunPod does not know it, which is no trouble of RunPod's
	failing
)

// recoveryStreak is the number of failures in a row, of whatever endpoints, that
// make an outage.
const recoveryStreak = 3

// note records how the poll of an endpoint went; the caller holds mu. When nothing
// had worked for a while and now something does, RunPod is back: no target waits out
// its pause, but those for which RunPod asked for one. Calls that were too many are
// no sign of an outage, and would be too many again.
func (a *Account) note(endpoint string, f *Failure) {
	switch {
	case f == nil:
		a.health[endpoint] = answering
	case f.Gone():
		a.health[endpoint] = unknown
	default:
		a.health[endpoint] = failing
		if !f.Limited() {
			a.streak++
		}
		return
	}
	if a.streak >= max(recoveryStreak, len(a.health)/2) {
		now := a.opts.Clock.Now()
		a.queue.Hasten(func(key string) time.Time {
			next := NextSlot(now, key, a.interval(key))
			if wish := a.wishes[key]; wish.After(next) {
				return wish
			}
			return next
		})
	}
	a.streak = 0
}
