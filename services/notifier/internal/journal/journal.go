// Package journal keeps the notifier's deliveries in JetStream: records in the
// DELIVERIES stream, one subject for each shard, and snapshots in an object store.
//
// Whoever opens the journal fences all who had it before: each write names the
// sequence that it follows, so that the next write of a former owner is refused
// and ends it with [ErrFenced]. All records that wait when a write ends go into
// the next one together, which is the group commit of a server that syncs.
package journal

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/tocsin-dev/tocsin/internal/bus"
	deliveryv1 "github.com/tocsin-dev/tocsin/proto/gen/tocsin/delivery/v1"
	"github.com/tocsin-dev/tocsin/services/notifier/internal/delivery"
)

// ErrFenced means that another notifier took the journal over.
var ErrFenced = errors.New("another notifier took the journal over")

const (
	// subjectPrefix begins the subject of every shard.
	subjectPrefix = "tocsin.delivery."
	// fenceTries bounds how often opening starts again because a former owner
	// still wrote; its lease ended before ours began, so once is usual.
	fenceTries = 20
)

func subject(shard int) string { return subjectPrefix + strconv.Itoa(shard) }

// shardOf returns the shard of a subject, and false for other subjects.
func shardOf(subject string) (int, bool) {
	text, ok := strings.CutPrefix(subject, subjectPrefix)
	if !ok {
		return 0, false
	}
	shard, err := strconv.Atoi(text)
	return shard, err == nil && shard >= 0 && shard < delivery.Shards
}

// Journal is the journal of one owner.
type Journal struct {
	conn  *bus.Conn
	log   *slog.Logger
	owner string
}

// New returns the journal for the owner of that name, unopened.
func New(conn *bus.Conn, owner string, log *slog.Logger) *Journal {
	return &Journal{conn: conn, owner: owner, log: log}
}

// Open feeds core with every record that it lacks, fences former owners, and
// returns the sequences that the next writes follow. alertsSeq is noted in the
// journal for people.
func (j *Journal) Open(ctx context.Context, core *delivery.Core, alertsSeq uint64) ([delivery.Shards]uint64, error) {
	for range fenceTries {
		if err := j.replay(ctx, core); err != nil {
			return [delivery.Shards]uint64{}, err
		}
		last, err := j.fence(ctx, core.ShardSequences(), alertsSeq)
		if !errors.Is(err, bus.ErrWrongSequence) {
			return last, err
		}
		j.log.InfoContext(ctx, "a former owner still writes; opening the journal again", "err", err)
	}
	return [delivery.Shards]uint64{}, errors.New("open the journal: a former owner does not stop writing")
}

// replay applies what the stream holds beyond what core has.
func (j *Journal) replay(ctx context.Context, core *delivery.Core) error {
	state, err := j.conn.StreamState(ctx, bus.DeliveriesStream)
	if err != nil {
		return fmt.Errorf("replay deliveries: %w", err)
	}
	known := core.ShardSequences()
	from := known[0]
	for _, seq := range known {
		from = min(from, seq)
	}
	if state.Messages == 0 || from >= state.LastSeq {
		return nil
	}
	caughtUp := errors.New("caught up")
	read, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	err = j.conn.Read(read, bus.ReadOptions{
		Stream: bus.DeliveriesStream, From: from + 1,
		Idle: func() {
			// Nothing comes: either the server is slow, or the last message was
			// removed from the stream.
			if _, kept, err := j.conn.At(read, bus.DeliveriesStream, state.LastSeq); err == nil && !kept {
				stop(caughtUp)
			}
		},
	}, func(d bus.Delivery) error {
		if shard, ok := shardOf(d.Subject); ok {
			core.ApplyJournal(shard, d.Seq, j.decode(ctx, d))
		}
		if d.Seq >= state.LastSeq || d.Pending == 0 {
			return caughtUp
		}
		return nil
	})
	if errors.Is(err, caughtUp) {
		return nil
	}
	return fmt.Errorf("replay deliveries: %w", err)
}

// decode returns the records of a message. One that cannot be read is skipped:
// what it said is decided again from the alerts.
func (j *Journal) decode(ctx context.Context, d bus.Delivery) []*deliveryv1.Record {
	var b deliveryv1.Batch
	if err := proto.Unmarshal(d.Data, &b); err != nil {
		j.log.ErrorContext(ctx, "a journal message cannot be read and is skipped", "seq", d.Seq, "err", err)
		return nil
	}
	return b.GetRecords()
}

// fence writes a record to each shard, which no former owner expects. It returns
// an error wrapping bus.ErrWrongSequence when a shard has more than is known.
func (j *Journal) fence(ctx context.Context, known [delivery.Shards]uint64, alertsSeq uint64) ([delivery.Shards]uint64, error) {
	var last [delivery.Shards]uint64
	for shard := range last {
		d, found, err := j.conn.Last(ctx, bus.DeliveriesStream, subject(shard))
		if err != nil {
			return last, fmt.Errorf("fence shard %d: %w", shard, err)
		}
		if found && d.Seq > known[shard] {
			return last, fmt.Errorf("fence shard %d: %w", shard, bus.ErrWrongSequence)
		}
		w := &write{conn: j.conn, shard: shard, last: d.Seq}
		seq, err := w.store(ctx, []*deliveryv1.Record{{
			At:   timestamppb.New(time.Now()),
			Fact: &deliveryv1.Record_Opened{Opened: &deliveryv1.Opened{Owner: j.owner, AlertsSequence: alertsSeq}},
		}})
		if errors.Is(err, ErrFenced) {
			return last, fmt.Errorf("fence shard %d: %w", shard, bus.ErrWrongSequence)
		} else if err != nil {
			return last, fmt.Errorf("fence shard %d: %w", shard, err)
		}
		last[shard] = seq
	}
	return last, nil
}

const (
	// retryWait and maxRetryWait bound the pause between two tries of a write.
	retryWait    = 20 * time.Millisecond
	maxRetryWait = time.Second
)

// write stores messages on one shard, one after the other.
type write struct {
	conn  *bus.Conn
	shard int
	last  uint64
}

// store writes records as one message and returns its sequence. It tries until
// it knows what became of the message or ctx ends; it returns [ErrFenced] when
// someone else wrote to the shard.
func (w *write) store(ctx context.Context, records []*deliveryv1.Record) (uint64, error) {
	data, err := proto.Marshal(&deliveryv1.Batch{Records: records})
	if err != nil {
		return 0, fmt.Errorf("encode records: %w", err)
	}
	for wait := retryWait; ; wait = min(2*wait, maxRetryWait) {
		seq, err := w.conn.PublishExpecting(ctx, subject(w.shard), w.last, data)
		switch {
		case err == nil:
			w.last = seq
			return seq, nil
		case errors.Is(err, bus.ErrTooLarge), errors.Is(err, bus.ErrClosed):
			return 0, fmt.Errorf("journal %d records: %w", len(records), err)
		case errors.Is(err, bus.ErrWrongSequence), errors.Is(err, bus.ErrUnknownOutcome):
			seq, settled, lookErr := w.look(ctx, data)
			if settled {
				return seq, lookErr
			}
		}
		select {
		case <-ctx.Done():
			return 0, fmt.Errorf("journal %d records: %w: %w", len(records), context.Cause(ctx), err)
		case <-time.After(wait):
		}
	}
}

// look reads the shard's last message to learn what became of data: it is
// settled when that is the message, or someone else's.
func (w *write) look(ctx context.Context, data []byte) (seq uint64, settled bool, err error) {
	d, found, err := w.conn.Last(ctx, bus.DeliveriesStream, subject(w.shard))
	switch {
	case err != nil, !found && w.last == 0, found && d.Seq == w.last:
		return 0, false, nil // not stored, or not known yet: try again
	case !found:
		w.last = 0 // what we followed has aged out of the stream
		return 0, false, nil
	case d.Seq > w.last && bytes.Equal(d.Data, data):
		w.last = d.Seq
		return d.Seq, true, nil
	}
	return 0, true, ErrFenced
}
