package feed

import (
	"context"
	"errors"
	"log/slog"

	"github.com/tocsin-dev/tocsin/internal/bus"
)

const (
	// ownReaders is how many partitions may have a reader of their own at once;
	// others wait for their turn. 8 partitions were read at 153,000 messages a
	// second with one filter each, and 64 at 104,000 with 20 MB of the server's
	// memory each, so more of them are only dearer.
	ownReaders = 8
	// batchSize is how many messages are checked together for holes before them:
	// a request takes a fraction of a millisecond, and 256 messages take 4.
	batchSize = 256
)

var (
	errCaughtUp = errors.New("caught up with the shared reader")
	errOtherLog = errors.New("another event log took the place of this one")
)

// attend reads for one partition after the other that is far behind, until ctx
// ends.
func (f *Feed) attend(ctx context.Context) {
	for ctx.Err() == nil {
		if s := f.pick(); s != nil {
			f.catchUp(ctx, s)
			continue
		}
		select {
		case <-ctx.Done():
		case <-f.called:
		}
	}
}

// pick returns who has waited longest for a reader of its own, or nil.
func (f *Feed) pick() *Subscription {
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.far) == 0 {
		return nil
	}
	s := f.far[0]
	f.far = f.far[1:]
	if len(f.far) > 0 {
		signal(f.called) // for another reader
	}
	return s
}

// catchUp reads for a partition until it has come as far as the shared reader,
// or does not want to any more.
func (f *Feed) catchUp(ctx context.Context, s *Subscription) {
	read, stop := context.WithCancel(ctx)
	defer stop()
	f.mu.Lock()
	if s.stop = stop; s.pausing || f.members[s.partition] != s {
		stop()
	}
	f.mu.Unlock()
	for read.Err() == nil {
		err := f.readAlone(read, s)
		if read.Err() != nil || errors.Is(err, errCaughtUp) || errors.Is(err, errOtherLog) {
			break
		}
		f.log.LogAttrs(ctx, slog.LevelWarn, "reading the event log for one partition ended; will read on",
			slog.Int("partition", s.partition), slog.Any("err", err))
		wait(read, retryWait)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	s.stop = func() {}
	s.behind.Store(0)
	switch {
	case s.place != alone, ctx.Err() != nil, f.members[s.partition] != s, s.log != f.source.ID():
		// It was handed over, left, or is about to.
	case s.pausing:
		s.place = passed
	default:
		f.seat(s) // resumed in between
	}
}

// readAlone reads the messages of one partition.
func (f *Feed) readAlone(ctx context.Context, s *Subscription) error {
	// Most that are taken over are quiet: nothing is there to be read.
	if err := f.settle(ctx, s, true); err != nil {
		return err
	}
	read, end := context.WithCancelCause(ctx)
	defer end(nil)
	o := &ownReader{feed: f, sub: s}
	f.mu.Lock()
	r := Reading{
		Log: s.log, Partition: s.partition, From: s.done + 1, Known: []bus.Mark{s.last, f.furthest},
		Idle: func() {
			s.behind.Store(0)
			if err := o.hand(read, true); err != nil {
				end(err)
			}
		},
	}
	f.mu.Unlock()
	return f.source.Read(read, r, func(d bus.Delivery) error { return o.take(read, d) })
}

// ownReader reads for one partition.
type ownReader struct {
	feed  *Feed
	sub   *Subscription
	batch []bus.Delivery // read, and not handed over
}

func (o *ownReader) take(ctx context.Context, d bus.Delivery) error {
	o.sub.behind.Store(d.Pending)
	o.batch = append(o.batch, d)
	if len(o.batch) < batchSize && d.Pending > 0 {
		return nil
	}
	return o.hand(ctx, d.Pending == 0)
}

// hand hands over what was read. atEnd tells that no more is known to come. The sequences of one partition are not
// contiguous, so a hole does not show in them. But what is kept after a message
// was read was kept when it was read: if nothing between it and the one before
// is gone by now, nothing was missed.
func (o *ownReader) hand(ctx context.Context, atEnd bool) error {
	if len(o.batch) > 0 {
		kept, err := o.feed.source.Kept(ctx)
		if err != nil {
			return err
		}
		for _, d := range o.batch {
			if err := o.feed.give(ctx, o.sub, d, kept); err != nil {
				return err
			}
		}
		o.batch = o.batch[:0]
	}
	return o.feed.settle(ctx, o.sub, atEnd)
}

// give hands one message over.
func (f *Feed) give(ctx context.Context, s *Subscription, d bus.Delivery, kept Kept) error {
	f.mu.Lock()
	item := Item{Delivery: d, Missed: !kept.whole(s.done+1, d.Seq-1), before: s.last}
	f.mu.Unlock()
	select {
	case s.queue <- item:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	s.done, s.last = d.Seq, bus.Mark{Seq: d.Seq, Time: d.Time}
	if s.gone <= d.Seq {
		s.gone = 0
	}
	return nil
}

// settle hands a partition over to the shared reader, and returns errCaughtUp,
// once it has had all that the shared reader saw. That may be so though it has
// not come as far, if there is nothing in between; ask says whether to find out.
// What it cannot have had because it is gone is announced with the next message.
func (f *Feed) settle(ctx context.Context, s *Subscription, ask bool) error {
	done, need, err := f.distance(s)
	if err != nil {
		return err
	}
	gone := false
	if done < need {
		if !ask {
			return nil
		}
		newest, err := f.source.Newest(ctx, s.partition)
		if err != nil || newest > done {
			return err // it is to come
		}
		// Asked after that: what was removed before is missing there.
		kept, err := f.source.Kept(ctx)
		if err != nil {
			return err
		}
		gone = !kept.whole(done+1, need)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	switch {
	case s.log != f.reads || s.place != alone:
		return errOtherLog
	case s.need > max(done, need):
		return nil // the shared reader has seen another of its messages
	case gone:
		s.gone = max(s.gone, need)
	}
	s.place, s.done = served, max(done, s.need, f.position)
	return errCaughtUp
}

// distance tells how far a partition that is alone is, and how far it must come.
func (f *Feed) distance(s *Subscription) (done, need uint64, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if s.log != f.reads || s.log != f.source.ID() {
		return 0, 0, errOtherLog
	}
	return s.done, s.need, nil
}
