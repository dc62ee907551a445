package eventlog

import (
	"context"
	"errors"
	"time"

	"github.com/tocsin-dev/tocsin/internal/bus"
	"github.com/tocsin-dev/tocsin/internal/event"
	"github.com/tocsin-dev/tocsin/services/alerter/internal/engine"
	"github.com/tocsin-dev/tocsin/services/alerter/internal/feed"
)

// Reader reads the event log for a feed, which it serves as the Source.
type Reader struct {
	conn *bus.Conn
	log  *Log
}

// NewReader returns a Reader of the present log.
func NewReader(conn *bus.Conn, log *Log) *Reader { return &Reader{conn: conn, log: log} }

// ID names the present log.
func (r *Reader) ID() string { return r.log.ID() }

// Read reads the log. A stream that is not the one that the reading means, or
// lost what is known of it, begins another log: all partitions load anew.
func (r *Reader) Read(ctx context.Context, what feed.Reading, handle func(bus.Delivery) error) error {
	o := bus.ReadOptions{Stream: Stream, From: what.From, Known: what.Known, Idle: what.Idle}
	if what.Partition != feed.All {
		o.Filter = event.PartitionFilter(what.Partition)
	}
	err := r.conn.Read(ctx, o, handle)
	if errors.Is(err, bus.ErrStreamReplaced) {
		return errors.Join(err, r.replaced(ctx, what.Log))
	}
	return err
}

// replaced makes everybody load anew: the messages that were read last are no
// longer what the log holds, so the states made of them may be wrong. A log
// that was made anew is told by its creation; one that was cut and grew again
// only by this.
func (r *Reader) replaced(ctx context.Context, id string) error {
	if err := r.log.Refresh(ctx); err != nil {
		return err
	}
	if r.log.ID() != id {
		return nil
	}
	return r.log.Raise(ctx, id, "")
}

// ReadPartition reads the messages of one partition from the oldest on, until
// ctx ends or handle returns an error, which it returns.
func (r *Reader) ReadPartition(ctx context.Context, partition int, handle func(bus.Delivery) error) error {
	return r.conn.Read(ctx, bus.ReadOptions{Stream: Stream, Filter: event.PartitionFilter(partition)}, handle)
}

// Newest returns the sequence of a partition's newest message, 0 when none is
// kept. The stream's leader answers, which has all that any reader was given.
func (r *Reader) Newest(ctx context.Context, partition int) (uint64, error) {
	d, ok, err := r.conn.Last(ctx, Stream, event.PartitionFilter(partition))
	if err != nil || !ok {
		return 0, err
	}
	return d.Seq, nil
}

// Kept tells which messages are kept.
func (r *Reader) Kept(ctx context.Context) (feed.Kept, error) {
	s, err := r.conn.StreamState(ctx, Stream)
	if err != nil {
		return feed.Kept{}, err
	}
	kept := feed.Kept{First: s.FirstSeq}
	if s.LastSeq+1 > s.FirstSeq+s.Messages {
		// Only an operator takes messages out of the middle.
		kept.Removed, err = r.conn.Removed(ctx, Stream)
	}
	return kept, err
}

// End finds the last message of the log.
func (r *Reader) End(ctx context.Context) (seq uint64, at time.Time, err error) {
	s, err := r.conn.StreamState(ctx, Stream)
	if err != nil || s.Messages == 0 {
		return s.LastSeq, time.Time{}, err
	}
	last, _, err := r.conn.At(ctx, Stream, s.LastSeq)
	return s.LastSeq, last.Time, err
}

// Message decodes a message for the fold. What cannot be decoded is an event that
// says nothing.
func Message(d bus.Delivery) engine.Message {
	e, err := event.Unmarshal(d.Data)
	if err != nil {
		e = nil
	}
	return engine.Message{Seq: d.Seq, Time: d.Time, Event: e}
}
