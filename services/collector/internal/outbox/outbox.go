// Package outbox carries events to the event log without ever holding up who
// observed them. While the log is away samples wait as the latest one of each
// target and facts wait in order, both within bounds; what has no room is
// refused and counted. Facts about one target arrive in their order. Each event
// says how long it was held here, up to the very attempt that stored it.
package outbox

import (
	"container/list"
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/tocsin-dev/tocsin/internal/event"
	eventv1 "github.com/tocsin-dev/tocsin/proto/gen/tocsin/event/v1"
)

const (
	// lanes is the number of events on their way at once. A target is always in
	// the same lane, which keeps its order. At 0.5 ms a publish 16 lanes carry
	// 30,000 events a second, and 3,000 where each waits 5 ms for the disk.
	lanes = 16
	// attemptTime bounds one attempt, so that what was held is told anew before
	// each and a stop does not wait.
	attemptTime = time.Second
	// pause between two attempts of a lane.
	pause = 250 * time.Millisecond
	// leastHeld is the time below which nothing is said of it.
	leastHeld = 10 * time.Millisecond

	// DefaultMaxFacts bounds the facts that wait: at about 1 KiB each, 20 MiB.
	DefaultMaxFacts = 20_000
	// drainTime is how long a stop waits for what is on its way. The whole
	// system stops within 3 s.
	drainTime = time.Second
)

// StoreFunc stores one message and returns when it is stored. It may try more
// than once until ctx ends, always under the same id. It returns an error for
// which [Options.Hopeless] holds when the message can never be stored.
type StoreFunc func(ctx context.Context, subject, id string, data []byte) error

// Options are what a [Box] needs.
type Options struct {
	// Store writes to the event log.
	Store StoreFunc
	// Hopeless reports whether an error of Store is final.
	Hopeless func(error) bool
	// MaxFacts and MaxSamples bound what waits.
	MaxFacts, MaxSamples int
	// Registerer takes the metrics.
	Registerer prometheus.Registerer
	// Log receives a line for each event that is lost.
	Log *slog.Logger
}

// Box holds events until they are stored. It is safe for concurrent use.
type Box struct {
	opts    Options
	lanes   [lanes]*lane
	metrics *metrics

	mu      sync.Mutex
	facts   int // guarded by mu: that wait
	samples int // guarded by mu: that wait
}

// lane is the queue of some targets.
type lane struct {
	wake chan struct{} // holds a token when there may be work

	mu      sync.Mutex
	waiting list.List                // guarded by mu: of *letter
	samples map[string]*list.Element // guarded by mu: the sample that waits, by kind and target
}

type letter struct {
	event *eventv1.Event
	key   string // of a sample; empty for a fact
	read  time.Time
	gone  chan struct{} // closed when it left the lane; nil while nobody waits for that
}

// New returns an empty box. Nothing is stored until [Box.Run].
func New(opts Options) *Box {
	b := &Box{opts: opts, metrics: newMetrics(opts.Registerer)}
	for i := range b.lanes {
		b.lanes[i] = &lane{wake: make(chan struct{}, 1), samples: map[string]*list.Element{}}
	}
	return b
}

// Add takes an event whose observation was read at read, sets when it occurred,
// and returns at once. It returns false when there is no room. The event belongs
// to the box from then on.
func (b *Box) Add(e *eventv1.Event, read time.Time) bool {
	e.OccurredAt = timestamppb.New(read)
	token := event.Token(e.GetTarget())
	l := b.lanes[event.Partition(token)%lanes]
	next := &letter{event: e, key: sampleKey(e, token), read: read}
	l.mu.Lock()
	defer l.mu.Unlock()
	if waiting, ok := l.samples[next.key]; ok && next.key != "" {
		waiting.Value = next
		b.metrics.coalesced.Inc()
		return true
	}
	if !b.reserve(e, next.key != "") {
		b.metrics.dropped.WithLabelValues(event.Kind(e)).Inc()
		return false
	}
	element := l.waiting.PushBack(next)
	if next.key != "" {
		l.samples[next.key] = element
	}
	select {
	case l.wake <- struct{}{}:
	default:
	}
	return true
}

// sampleKey returns what a newer event replaces, "" for facts, which nothing
// replaces.
func sampleKey(e *eventv1.Event, token string) string {
	switch fact := e.GetFact().(type) {
	case *eventv1.Event_HealthSampled, *eventv1.Event_GpuSampled, *eventv1.Event_AccountPolled:
		return event.Kind(e) + " " + token
	case *eventv1.Event_PollFailed:
		return "poll_failed " + fact.PollFailed.GetKind().String() + " " + token
	default:
		return ""
	}
}

// reserve takes room for an event. Facts about the inventory have as much room
// again as those about jobs: they are few, and no poll brings them back.
func (b *Box) reserve(e *eventv1.Event, sample bool) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if sample {
		if b.samples >= b.opts.MaxSamples {
			return false
		}
		b.samples++
		b.metrics.waiting.WithLabelValues("sample").Set(float64(b.samples))
		return true
	}
	most := b.opts.MaxFacts
	if e.GetJobTransitioned() == nil {
		most *= 2
	}
	if b.facts >= most {
		return false
	}
	b.facts++
	b.metrics.waiting.WithLabelValues("fact").Set(float64(b.facts))
	return true
}

func (b *Box) release(sample bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if sample {
		b.samples--
		b.metrics.waiting.WithLabelValues("sample").Set(float64(b.samples))
		return
	}
	b.facts--
	b.metrics.waiting.WithLabelValues("fact").Set(float64(b.facts))
}

// Len returns how many events wait.
func (b *Box) Len() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.facts + b.samples
}

// Settle waits until the facts about a target that were added before are stored,
// or can never be. It reports false when ctx ends first.
func (b *Box) Settle(ctx context.Context, target *eventv1.Target) bool {
	gone := b.lanes[event.Partition(event.Token(target))%lanes].lastFact()
	if gone == nil {
		return true
	}
	select {
	case <-gone:
		return true
	case <-ctx.Done():
		return false
	}
}

// Run stores what is added until ctx ends, and for a moment after that what
// still waits. What is left then is told by the polls of the next start.
func (b *Box) Run(ctx context.Context) {
	drain, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	stopped := context.AfterFunc(ctx, func() {
		time.AfterFunc(drainTime, cancel)
	})
	defer stopped()
	var running sync.WaitGroup
	for _, l := range b.lanes {
		running.Go(func() { b.run(ctx, drain, l) })
	}
	running.Wait()
	if left := b.Len(); left > 0 {
		b.opts.Log.Warn("stopped with events that are not stored", "events", left)
	}
}

// run carries a lane. ctx ends the waiting for work, drain everything.
func (b *Box) run(ctx, drain context.Context, l *lane) {
	for drain.Err() == nil {
		if b.carry(drain, l) {
			continue
		}
		select {
		case <-l.wake:
		case <-ctx.Done():
			if l.empty() {
				return
			}
		}
	}
}

func (l *lane) empty() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.waiting.Len() == 0
}

// lastFact returns what is closed when the fact that was added last leaves the
// lane, nil when none waits.
func (l *lane) lastFact() <-chan struct{} {
	l.mu.Lock()
	defer l.mu.Unlock()
	for e := l.waiting.Back(); e != nil; e = e.Prev() {
		last := e.Value.(*letter)
		if last.key != "" {
			continue
		}
		if last.gone == nil {
			last.gone = make(chan struct{})
		}
		return last.gone
	}
	return nil
}

// head returns the letter to store next, and its place.
func (l *lane) head() (*list.Element, *letter) {
	l.mu.Lock()
	defer l.mu.Unlock()
	front := l.waiting.Front()
	if front == nil {
		return nil, nil
	}
	return front, front.Value.(*letter)
}

// carry makes one attempt to store the first event of a lane. It returns false
// when there is none.
func (b *Box) carry(ctx context.Context, l *lane) bool {
	place, next := l.head()
	if next == nil {
		return false
	}
	if err := b.store(ctx, next); err != nil && !b.hopeless(err) {
		b.metrics.failures.Inc()
		select {
		case <-time.After(pause):
		case <-ctx.Done():
		}
		return true
	} else if err != nil {
		b.metrics.dropped.WithLabelValues(event.Kind(next.event)).Inc()
		b.opts.Log.Error("event not storable", "kind", event.Kind(next.event), "target_id", next.event.GetTarget().GetId(), "err", err)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if place.Value.(*letter) != next { // a newer sample came meanwhile
		return true
	}
	l.waiting.Remove(place)
	if next.gone != nil {
		close(next.gone)
	}
	if next.key != "" {
		delete(l.samples, next.key)
	}
	b.release(next.key != "")
	return true
}

func (b *Box) store(ctx context.Context, next *letter) error {
	if held := time.Since(next.read); held >= leastHeld {
		next.event.Held = durationpb.New(held)
	}
	data, err := event.Marshal(next.event)
	if err != nil {
		return &encodingError{err}
	}
	attempt, cancel := context.WithTimeout(ctx, attemptTime)
	defer cancel()
	return b.opts.Store(attempt, event.Subject(event.Kind(next.event), next.event.GetTarget()), next.event.GetId(), data)
}

// encodingError is an event that cannot be encoded.
type encodingError struct{ error }

func (b *Box) hopeless(err error) bool {
	_, ours := errors.AsType[*encodingError](err)
	return ours || b.opts.Hopeless(err)
}
