// Package feed reads the event log once for all partitions of a replica and
// hands each its own messages, in order and each once.
//
// A partition joins at the sequence that it needs next. A reader that is past
// it goes back, and the partitions that had those messages do not get them
// again. Messages that were removed from the log before they were read are
// announced with the next one. A partition that cannot go on says so and is
// passed over, so that it holds up no other.
package feed

import (
	"context"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/tocsin-dev/tocsin/internal/bus"
	"github.com/tocsin-dev/tocsin/internal/event"
)

const (
	// queueSize is how many messages wait for a partition. 64 queues of 512
	// messages of 250 bytes are 8 MB, and 512 messages are 5 ms of the fastest
	// reading, longer than a commit takes.
	queueSize = 512
	// joinSettle is how long a reader waits for more partitions to join before
	// it starts again: at a start 64 join within moments, and each would make it
	// go back.
	joinSettle = 25 * time.Millisecond
	// retryWait is the pause after a read that ended by itself.
	retryWait = time.Second
)

// Item is a message for a partition.
type Item struct {
	bus.Delivery
	// Missed is true when messages before this one, after the last one handed
	// over, were removed from the log unread. They may have been the partition's.
	Missed bool

	before uint64 // the sequence of the item before it
}

// ReadFunc reads the log from a sequence on, until ctx ends or handle returns
// an error. It calls idle from time to time when there is nothing to read.
type ReadFunc func(ctx context.Context, from uint64, idle func(), handle func(bus.Delivery) error) error

// Feed is the reader of one replica.
type Feed struct {
	read    ReadFunc
	log     *slog.Logger
	metrics *metrics
	waiting atomic.Uint64 // messages known to follow what was read
	arrived chan struct{} // has a token when rewind was set

	mu       sync.Mutex
	members  [event.Partitions]*Subscription // guarded by mu
	position uint64                          // guarded by mu; the last sequence read
	at       time.Time                       // guarded by mu; its timestamp
	rewind   uint64                          // guarded by mu; where the next read starts, 0 = nowhere
	stop     context.CancelFunc              // guarded by mu; ends the read that runs
}

// New returns a Feed that reads with read.
func New(read ReadFunc, log *slog.Logger, r prometheus.Registerer) *Feed {
	f := &Feed{
		read: read, log: log, metrics: newMetrics(r),
		arrived: make(chan struct{}, 1), stop: func() {},
	}
	if r != nil {
		r.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "tocsin_alerter_lag_messages",
			Help: "Messages of the event log that are known to wait to be read.",
		}, func() float64 { return float64(f.Waiting()) }))
	}
	return f
}

// Subscription is a partition's place in the feed.
type Subscription struct {
	feed      *Feed
	partition int
	queue     chan Item
	left      chan struct{}

	// All below are guarded by feed.mu.
	done    uint64        // everything up to here was handed over, or is not needed
	routed  uint64        // the last sequence that was handed over
	pending bool          // the reader must go back for it first
	missed  bool          // messages after done are gone
	paused  chan struct{} // closed while it must not hold up the reader
	pausing bool
	dropped bool // passed over since done
}

// Join adds a partition whose next message is from. There must be no other
// subscription of the partition.
func (f *Feed) Join(partition int, from uint64) *Subscription {
	s := &Subscription{
		feed: f, partition: partition, done: max(from, 1) - 1,
		queue: make(chan Item, queueSize), left: make(chan struct{}), paused: make(chan struct{}),
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.members[partition] = s
	f.goBack(s)
	return s
}

// goBack makes the reader start again where s needs it to. The caller holds mu.
func (f *Feed) goBack(s *Subscription) {
	s.pending = true
	f.restart(s.done + 1)
}

// restart makes the reader start again at from or before. The caller holds mu.
func (f *Feed) restart(from uint64) {
	if f.rewind == 0 || from < f.rewind {
		f.rewind = from
	}
	f.stop()
	select {
	case f.arrived <- struct{}{}:
	default:
	}
}

// C carries the partition's messages.
func (s *Subscription) C() <-chan Item { return s.queue }

// Leave ends the subscription.
func (s *Subscription) Leave() {
	s.feed.mu.Lock()
	defer s.feed.mu.Unlock()
	if s.feed.members[s.partition] == s {
		s.feed.members[s.partition] = nil
	}
	close(s.left)
}

// Pause makes the reader pass over the partition when its queue is full.
func (s *Subscription) Pause() {
	s.feed.mu.Lock()
	defer s.feed.mu.Unlock()
	if !s.pausing {
		s.pausing = true
		close(s.paused)
	}
}

// Resume undoes Pause, and makes the reader go back for what it passed over.
func (s *Subscription) Resume() {
	s.feed.mu.Lock()
	defer s.feed.mu.Unlock()
	if !s.pausing {
		return
	}
	s.pausing, s.paused = false, make(chan struct{})
	if s.dropped {
		s.dropped = false
		s.feed.goBack(s)
	}
}

// Covered tells up to where the log is dealt with for a partition that has
// applied everything up to applied, and the timestamp of that place: as far as
// the reader is, if all that it found for the partition is applied.
func (s *Subscription) Covered(applied uint64, stamp time.Time) (seq uint64, at time.Time) {
	f := s.feed
	f.mu.Lock()
	defer f.mu.Unlock()
	if s.pending || s.dropped || s.missed || s.routed > applied || f.position < applied {
		return applied, stamp
	}
	return f.position, f.at
}

// Position returns the last sequence read.
func (f *Feed) Position() uint64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.position
}

// Waiting tells how many messages are known to wait to be read.
func (f *Feed) Waiting() uint64 { return f.waiting.Load() }

// Run reads until ctx ends, and returns ctx's error.
func (f *Feed) Run(ctx context.Context) error {
	for {
		read, from, err := f.next(ctx)
		if err != nil {
			return err
		}
		err = f.read(read, from, func() { f.waiting.Store(0) }, func(d bus.Delivery) error { return f.route(read, d) })
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if read.Err() == nil {
			f.log.LogAttrs(ctx, slog.LevelWarn, "reading the event log ended; will read on",
				slog.Uint64("seq", f.Position()), slog.Any("err", err))
			f.mu.Lock()
			f.restart(f.position + 1)
			f.mu.Unlock()
			wait(ctx, retryWait)
		}
	}
}

// next waits until there is something to read and says from where: at or before
// the next message that any partition needs. The returned context ends when somebody needs an earlier message.
func (f *Feed) next(ctx context.Context) (read context.Context, from uint64, err error) {
	select {
	case <-ctx.Done():
		return nil, 0, ctx.Err()
	case <-f.arrived:
	}
	wait(ctx, joinSettle)
	read, stop := context.WithCancel(ctx)
	f.mu.Lock()
	defer f.mu.Unlock()
	f.stop() // frees the context of the read before
	f.stop = stop
	from, f.rewind = f.rewind, 0
	for _, s := range f.members {
		switch {
		case s == nil, s.dropped:
		case s.pending:
			s.pending = false
		default:
			s.done = max(s.done, f.position)
		}
		if s != nil && !s.dropped {
			// Who joined last may be further than the reader was.
			from = min(from, s.done+1)
		}
	}
	select {
	case <-f.arrived: // of those that joined since
	default:
	}
	f.position = from - 1
	f.metrics.reads.Inc()
	return read, from, nil
}

// route hands a message to its partition.
func (f *Feed) route(ctx context.Context, d bus.Delivery) error {
	f.waiting.Store(d.Pending)
	s, item, full := f.take(d)
	if s == nil {
		return nil
	}
	select {
	case s.queue <- item:
		return nil
	default:
	}
	select {
	case s.queue <- item:
		return nil
	case <-s.left:
		return nil
	case <-full:
		f.untake(s, item)
		return nil
	case <-ctx.Done():
		f.untake(s, item)
		f.mu.Lock()
		f.position = d.Seq - 1
		f.mu.Unlock()
		return ctx.Err()
	}
}

// take notes that a message was read, and whom it is for, if anybody.
func (f *Feed) take(d bus.Delivery) (s *Subscription, item Item, paused <-chan struct{}) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if d.Seq > f.position+1 {
		f.hole(f.position+1, d.Seq-1)
	}
	f.position, f.at = d.Seq, d.Time
	address, ok := event.ParseSubject(d.Subject)
	if !ok {
		f.metrics.foreign.Inc()
		return nil, Item{}, nil
	}
	s = f.members[address.Partition]
	if s == nil || d.Seq <= s.done || s.dropped || s.pending {
		return nil, Item{}, nil
	}
	item = Item{Delivery: d, Missed: s.missed, before: s.routed}
	s.done, s.routed, s.missed = d.Seq, d.Seq, false
	return s, item, s.paused
}

// untake notes that a message that was taken could not be handed over.
func (f *Feed) untake(s *Subscription, item Item) {
	f.mu.Lock()
	defer f.mu.Unlock()
	s.done, s.routed, s.missed = item.Seq-1, item.before, item.Missed
	if s.pausing {
		s.dropped = true
	} else {
		// Resumed in between: it must be read again.
		f.goBack(s)
	}
}

// hole notes that the messages from first to last are gone. The caller holds mu.
func (f *Feed) hole(first, last uint64) {
	f.metrics.holes.Inc()
	f.metrics.missing.Add(float64(last - first + 1))
	f.log.Warn("messages are gone from the event log", slog.Uint64("first_seq", first), slog.Uint64("last_seq", last))
	for _, s := range f.members {
		if s != nil && s.done < last {
			s.missed = true
		}
	}
}

func wait(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-timer.C:
	}
}

type metrics struct {
	reads, holes, missing, foreign prometheus.Counter
}

func newMetrics(r prometheus.Registerer) *metrics {
	counter := func(name, help string) prometheus.Counter {
		return prometheus.NewCounter(prometheus.CounterOpts{Name: "tocsin_alerter_feed_" + name, Help: help})
	}
	m := &metrics{
		reads:   counter("reads_total", "Times that reading the event log began, at a start or to go back for a partition."),
		holes:   counter("holes_total", "Holes found in the event log."),
		missing: counter("missing_messages_total", "Messages that were gone from the event log before they were read."),
		foreign: counter("foreign_messages_total", "Messages in the event log whose subject is none of ours."),
	}
	if r != nil {
		r.MustRegister(m.reads, m.holes, m.missing, m.foreign)
	}
	return m
}
