package feed

import (
	"cmp"
	"context"
	"sync/atomic"
	"time"

	"github.com/tocsin-dev/tocsin/internal/bus"
)

// Item is a message for a partition.
type Item struct {
	bus.Delivery
	// Missed is true when messages before this one, after the last one handed
	// over, were removed from the log unread. They may have been the partition's.
	Missed bool

	before bus.Mark // the item before it
}

// place is who reads for a partition.
type place int

const (
	waits  place = iota // nobody yet: the shared reader must go back first
	served              // the shared reader
	alone               // a reader of its own, now or when there is one free
	passed              // nobody: its queue was full while it could not go on
)

// Subscription is a partition's place in the feed.
type Subscription struct {
	feed      *Feed
	partition int
	log       string // the log that its state is of
	queue     chan Item
	left      chan struct{}
	behind    atomic.Uint64 // messages known to follow what its own reader read

	// All below are guarded by feed.mu.
	place   place
	done    uint64             // everything up to here was handed over, or is not needed
	last    bus.Mark           // the last message that it had, by this reader or before it joined
	gone    uint64             // messages up to here are gone, of which nobody told it; 0 = none
	need    uint64             // while alone: how far its own reader must come
	stop    context.CancelFunc // ends its own reader
	paused  chan struct{}      // closed while it must not hold up the reader
	pausing bool
}

func bySequence(a, b *Subscription) int { return cmp.Compare(a.done, b.done) }

// Join adds a partition whose state is of a log and has applied the message
// last, or nothing. There must be no other subscription of the partition.
func (f *Feed) Join(partition int, logID string, last bus.Mark) *Subscription {
	s := &Subscription{
		feed: f, partition: partition, log: logID, done: last.Seq, last: last, stop: func() {},
		queue: make(chan Item, queueSize), left: make(chan struct{}), paused: make(chan struct{}),
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.members[partition] = s
	f.seat(s)
	return s
}

// seat finds somebody who reads for s. The caller holds mu.
func (f *Feed) seat(s *Subscription) {
	if s.log == f.reads && s.done+f.goBack < f.position && f.serves() {
		f.leaveBehind(s)
		return
	}
	s.place = waits
	f.restart()
}

// leaveBehind gives s a reader of its own as soon as one is free. The caller
// holds mu.
func (f *Feed) leaveBehind(s *Subscription) {
	s.place, s.need = alone, f.position
	s.behind.Store(1) // nobody knows yet
	f.far = append(f.far, s)
	f.metrics.alone.Inc()
	signal(f.called)
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
	s.stop()
}

// Pause makes the shared reader pass over the partition when its queue is full,
// and ends a reader of its own.
func (s *Subscription) Pause() {
	s.feed.mu.Lock()
	defer s.feed.mu.Unlock()
	if !s.pausing {
		s.pausing = true
		close(s.paused)
		s.stop()
	}
}

// Resume undoes Pause, and has what it was passed over for read again.
func (s *Subscription) Resume() {
	s.feed.mu.Lock()
	defer s.feed.mu.Unlock()
	if !s.pausing {
		return
	}
	s.pausing, s.paused = false, make(chan struct{})
	if s.place == passed {
		s.feed.seat(s)
	}
}

// Waiting tells how many messages are known to wait for whoever reads for the
// partition. Not all of them are the partition's.
func (s *Subscription) Waiting() uint64 {
	return s.feed.waiting.Load() + s.behind.Load()
}

// Covered tells up to where the log is dealt with for a partition that has
// applied everything up to applied, and the timestamp of that place: as far as
// the reader is, if all that it found for the partition is applied.
func (s *Subscription) Covered(applied uint64, stamp time.Time) (seq uint64, at time.Time) {
	f := s.feed
	f.mu.Lock()
	defer f.mu.Unlock()
	switch {
	case s.log != f.reads || s.place != served || s.gone > 0 || s.last.Seq > applied:
	case f.position >= max(s.done, applied) && !f.at.IsZero():
		return f.position, f.at
	case s.done >= max(f.furthest.Seq, 1) && f.furthest.Seq >= applied:
		return f.furthest.Seq, f.furthest.Time // the reader went back for others
	}
	return applied, stamp
}
