package courier

import (
	"context"
	"fmt"
	"time"

	"github.com/tocsin-dev/tocsin/internal/bus"
)

const (
	// DefaultJournalBytes is about what the journal may hold unless the operator
	// says otherwise. A message and its result take some 2.2 KiB, an alert and its
	// end two of them for each receiver, so 1 GiB is 8,000 alerts on each of the 30
	// days that the journal is kept for one receiver. Where there are more, less
	// than 30 days are kept.
	DefaultJournalBytes = 1 << 30

	// trimAt is the part of its limit from which the journal gives up what is
	// oldest: what comes until the two snapshots after that is less than the rest.
	trimAt = 0.8
	// giveUp is the part of its messages that goes at once: few purges, and not
	// all of a month.
	giveUp = 8
	// saveParts is how many snapshots are taken while the journal grows by its
	// limit, however quickly: the older of the two that are kept then covers three
	// quarters of it.
	saveParts = 8
	// messageOverhead is what the server keeps beside a message's data, in bytes.
	messageOverhead = 64
	// trimEvery is how often the size is looked at when no snapshot is saved, and
	// how often it is said that nothing can be removed.
	trimEvery = time.Minute
	// trimLimit bounds one look and its removal, which take milliseconds.
	trimLimit = time.Minute
)

// signal puts a token into a channel that has room for one.
func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// trimJournal keeps the journal near its limit until ctx ends. It looks after each
// snapshot, which is when more can go, and from time to time.
//
// The limit is kept here and not by the server: a stream that is full would refuse
// to journal, and nobody would be told anything, only because too much is known of
// what was told.
func (c *Courier) trimJournal(ctx context.Context) error {
	ticks := time.NewTicker(trimEvery)
	defer ticks.Stop()
	blocked := 0
	for {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-c.grown:
		case <-ticks.C:
			blocked = 0
		}
		ok, err := c.trim(ctx)
		switch {
		case err != nil && ctx.Err() == nil && c.o.Conn.Connected():
			c.o.Log.WarnContext(ctx, "the journal of deliveries was not trimmed; it will be tried again", "err", err)
		case err == nil && !ok:
			if blocked++; blocked == 1 {
				c.o.Log.ErrorContext(ctx, "the journal of deliveries is larger than it may be, and all of it is needed until two snapshots are saved;"+
					" if this goes on, the log says why they are not", "max_bytes", c.o.MaxJournalBytes)
			}
		}
	}
}

// trim removes some of the oldest messages of a journal that is near its limit, as
// far as both snapshots cover them: what is told and what is still to be told is in
// each. It returns false when there is too much and nothing of it can go.
func (c *Courier) trim(ctx context.Context) (ok bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, trimLimit)
	defer cancel()
	state, err := c.o.Conn.StreamState(ctx, bus.DeliveriesStream)
	if err != nil {
		return false, fmt.Errorf("look at the journal's size: %w", err)
	}
	size, limit := float64(state.Bytes), float64(c.o.MaxJournalBytes)
	c.o.Metrics.journalBytes.Set(size)
	if size < trimAt*limit || !state.Created.Equal(c.deliveriesState.Created) {
		return true, nil // in another stream the snapshots cover nothing
	}
	before := min(state.FirstSeq+max(state.Messages/giveUp, 1), c.saved.Covered())
	if before <= state.FirstSeq {
		if size < limit {
			return true, nil // the next snapshots are soon enough
		}
		c.o.Metrics.trimBlocked.Inc()
		return false, nil
	}
	if err := c.o.Conn.PurgeBefore(ctx, bus.DeliveriesStream, before); err != nil {
		return false, fmt.Errorf("trim the journal: %w", err)
	}
	c.o.Metrics.trimmed.Add(float64(before - state.FirstSeq))
	c.o.Log.InfoContext(ctx, "oldest history of deliveries removed; what is not told yet is in the snapshots", "before_seq", before,
		"messages", before-state.FirstSeq, "bytes", state.Bytes, "max_bytes", c.o.MaxJournalBytes)
	signal(c.grown) // it may not have been enough
	return true, nil
}
