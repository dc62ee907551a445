package drive

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"github.com/tocsin-dev/tocsin/internal/bus"
	"github.com/tocsin-dev/tocsin/internal/event"
	"github.com/tocsin-dev/tocsin/services/alerter/internal/state"
)

// nextDue is when something is due at the latest, whether or not it is due then.
func (s *session) nextDue() time.Time {
	next := s.saveAt
	if s.dirty > 0 {
		next = earlier(next, earlier(s.dirtySince.Add(commitAfter), later(s.lastMessage, s.looked).Add(lookEvery)))
	}
	if !s.paused {
		next = earlier(next, s.tickDue())
	}
	return next
}

// due does what time has made necessary.
func (s *session) due(ctx context.Context) error {
	now := time.Now()
	if s.dirty > 0 || s.queue.Doubtful() {
		if s.looked = now; s.quiet() || s.queue.Doubtful() || now.Sub(s.dirtySince) >= commitAfter {
			if err := s.commit(ctx); err != nil {
				return err
			}
		}
	}
	if !now.Before(s.tickDue()) && !s.paused {
		s.askForTick(ctx, now)
	}
	if s.unsaved >= snapshotMessages || !now.Before(s.saveAt) {
		return s.snapshot(ctx, now)
	}
	return nil
}

// look finds out whether the state is still in Redis. That Redis does not answer
// is left to the next commit, which waits for it.
func (s *session) look(ctx context.Context) error {
	err := s.owner.Check(ctx)
	if errors.Is(err, state.ErrLost) || errors.Is(err, state.ErrNotOwner) {
		s.alarmed, s.broken = true, true
		return err
	}
	return nil
}

// tickDue is when the partition needs a tick: at its earliest deadline by this
// process's own clock, counted from the last message, and after a minute of
// the rules' time without a message. A loaded state knows its deadlines only
// after its first message, and nobody knows how long ago the last one was, so a
// new owner asks for a tick at once.
func (s *session) tickDue() time.Time {
	due := s.lastMessage.Add(time.Duration(float64(tickIdle) / s.d.Speed))
	if !s.stepped {
		due = s.began
	} else if left, ok := s.part.Deadline(); ok {
		due = earlier(due, s.lastMessage.Add(left))
	}
	return later(due, later(s.lastTick.Add(tickLeast), s.began.Add(settleTime)))
}

// askForTick publishes a tick, unless messages of the partition wait that move
// its time anyway or the tick before is still on its way. Other partitions' do
// not count: under a load that nobody keeps up with, its time must go on.
func (s *session) askForTick(ctx context.Context, now time.Time) {
	s.lastTick = now
	if len(s.sub.C()) > 0 || s.part.AppliedSeq() < s.tickSeq.Load() || !s.ticking.CompareAndSwap(false, true) {
		return
	}
	s.work.Go(func() {
		defer s.ticking.Store(false)
		ctx, cancel := context.WithTimeout(ctx, tickTimeout)
		defer cancel()
		tick := bus.Message{Subject: event.PartitionSubject(s.index, event.KindTick), Data: s.d.tick}
		ack, err := s.d.Publish(ctx, tick)
		if err != nil {
			if ctx.Err() == nil {
				s.d.Log.LogAttrs(ctx, slog.LevelWarn, "tick not published",
					slog.Int("partition", s.index), slog.Any("err", err))
			}
			return
		}
		s.tickSeq.Store(ack.Seq)
		s.d.metrics.ticks.Inc()
	})
}

// snapshot saves the state in the background if it changed since the last time.
func (s *session) snapshot(ctx context.Context, now time.Time) error {
	s.saveAt = now.Add(s.d.SnapshotEvery)
	if s.unsaved == 0 || !s.saveBusy.CompareAndSwap(false, true) {
		return nil
	}
	if s.dirty > 0 {
		if err := s.commit(ctx); err != nil {
			s.saveBusy.Store(false)
			return err
		}
	}
	snap, err := snapshotOf(s.part, s.queue)
	if err != nil {
		s.saveBusy.Store(false)
		return err
	}
	s.unsaved = 0
	s.work.Go(func() {
		defer s.saveBusy.Store(false)
		ctx, cancel := context.WithTimeout(ctx, saveTimeout)
		defer cancel()
		s.save(ctx, snap, true)
	})
	return nil
}

func earlier(a, b time.Time) time.Time {
	if b.Before(a) {
		return b
	}
	return a
}

func later(a, b time.Time) time.Time {
	if b.After(a) {
		return b
	}
	return a
}
