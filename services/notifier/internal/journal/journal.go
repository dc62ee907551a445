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
	"slices"
	"strconv"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/tocsin-dev/tocsin/internal/bus"
	deliveryv1 "github.com/tocsin-dev/tocsin/proto/gen/tocsin/delivery/v1"
	"github.com/tocsin-dev/tocsin/services/notifier/internal/delivery"
)

var (
	// ErrFenced means that another notifier took the journal over.
	ErrFenced = errors.New("another notifier took the journal over")
	// ErrCut means that the journal lost what was written to it.
	ErrCut = errors.New("the journal of deliveries was cut")
)

const (
	// subjectPrefix begins the subject of every shard.
	subjectPrefix = "tocsin.delivery."
	// allShards are the subjects of all shards.
	allShards = subjectPrefix + "*"
	// fenceTries bounds how often opening starts again because a former owner
	// still wrote; its lease ended before ours began, so once is usual.
	fenceTries = 20
	// replayAhead bounds the messages of up to 1 MiB that a replay holds in memory.
	replayAhead = 64
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

// Log is the part of the bus that a journal needs.
type Log interface {
	// StreamState tells what a stream holds.
	StreamState(ctx context.Context, name string) (bus.StreamState, error)
	// Recognize tells whether a stream is the one that a message came from.
	Recognize(ctx context.Context, stream string, m bus.Mark) error
	// At returns the message with a sequence.
	At(ctx context.Context, stream string, seq uint64) (bus.Delivery, bool, error)
	// Last returns the newest message of a subject.
	Last(ctx context.Context, stream, subject string) (bus.Delivery, bool, error)
	// Read calls handle for each message.
	Read(ctx context.Context, o bus.ReadOptions, handle func(bus.Delivery) error) error
	// PublishExpecting stores data if the subject's last sequence is as given.
	PublishExpecting(ctx context.Context, subject string, lastSubjectSeq uint64, data []byte) (uint64, error)
}

// Journal is the journal of one owner.
type Journal struct {
	conn  Log
	log   *slog.Logger
	owner string
}

// New returns the journal for the owner of that name, unopened.
func New(conn Log, owner string, log *slog.Logger) *Journal {
	return &Journal{conn: conn, owner: owner, log: log}
}

// Fit makes a snapshot forget the places in the journal that are not there any
// more, and reports whether it had to, or the journal is not the one that it was
// taken of. What was written to a shard after a cut was written by who had
// noticed the cut, and saved a snapshot before.
func (j *Journal) Fit(ctx context.Context, s *deliveryv1.Snapshot, state bus.StreamState) (other bool, err error) {
	if !s.GetDeliveriesCreated().AsTime().Equal(state.Created) {
		s.ShardSequences, s.DeliveriesSequence = make([]uint64, delivery.Shards), 0
		return true, nil
	}
	if s.GetDeliveriesStoredAt() != nil {
		known := bus.Mark{Seq: newest(s), Time: s.GetDeliveriesStoredAt().AsTime()}
		err := j.conn.Recognize(ctx, bus.DeliveriesStream, known)
		if other = errors.Is(err, bus.ErrStreamReplaced); err != nil && !other {
			return false, fmt.Errorf("compare the journal with a snapshot: %w", err)
		}
	}
	for shard, known := range s.GetShardSequences() {
		if known < state.FirstSeq {
			continue // it may have left with the oldest
		}
		d, _, err := j.conn.Last(ctx, bus.DeliveriesStream, subject(shard))
		if err != nil {
			return false, fmt.Errorf("compare the journal with a snapshot: %w", err)
		}
		if known > d.Seq {
			s.ShardSequences[shard], other = d.Seq, true
		}
	}
	if other {
		s.DeliveriesSequence = 0
	}
	return other, nil
}

// StoredAt tells when the newest message of the journal that a snapshot knows
// was stored, or nil.
func (j *Journal) StoredAt(ctx context.Context, s *deliveryv1.Snapshot) (*timestamppb.Timestamp, error) {
	seq := newest(s)
	if seq == 0 {
		return nil, nil
	}
	d, kept, err := j.conn.At(ctx, bus.DeliveriesStream, seq)
	if errors.Is(err, bus.ErrStreamNotFound) || err == nil && !kept {
		return nil, nil // a snapshot is saved all the same
	} else if err != nil {
		return nil, err
	}
	return timestamppb.New(d.Time), nil
}

// newest returns the highest sequence of the journal that a snapshot knows.
func newest(s *deliveryv1.Snapshot) (seq uint64) {
	for _, known := range s.GetShardSequences() {
		seq = max(seq, known)
	}
	return seq
}

// Open feeds core with every record that it lacks, fences former owners, and
// returns the sequences that the next writes follow. What is up to covered is known
// to be in core, whatever its shard. alertsSeq is noted in the journal for people.
func (j *Journal) Open(ctx context.Context, core *delivery.Core, covered, alertsSeq uint64) ([delivery.Shards]uint64, error) {
	for range fenceTries {
		if err := j.replay(ctx, core, covered); err != nil {
			return [delivery.Shards]uint64{}, err
		}
		last, err := j.fence(ctx, core.ShardSequences(), alertsSeq)
		if err == nil {
			for shard, seq := range last {
				core.Journaled(shard, seq, nil) // what the next snapshot is said to hold includes the fences
			}
		}
		if !errors.Is(err, bus.ErrWrongSequence) {
			return last, err
		}
		covered = 0 // look at each shard for itself
		j.log.InfoContext(ctx, "a former owner still writes; opening the journal again", "err", err)
	}
	return [delivery.Shards]uint64{}, errors.New("open the journal: a former owner does not stop writing")
}

// replay applies what the stream holds beyond what core has: everything up to the
// newest record, as of when it begins, that is still kept.
func (j *Journal) replay(ctx context.Context, core *delivery.Core, covered uint64) error {
	newest, kept, err := j.conn.Last(ctx, bus.DeliveriesStream, allShards)
	if err != nil {
		return fmt.Errorf("replay deliveries: %w", err)
	}
	known := core.ShardSequences()
	reached, end := max(slices.Min(known[:]), covered), newest.Seq
	if !kept || reached >= end {
		return nil
	}
	caughtUp := errors.New("caught up")
	read, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	err = j.conn.Read(read, bus.ReadOptions{
		Stream: bus.DeliveriesStream, From: reached + 1, Prefetch: replayAhead,
		Idle: func() {
			// Nothing comes: either the server is slow, or what was newest has been
			// removed from the stream, and less is to be waited for.
			newest, kept, err := j.conn.Last(read, bus.DeliveriesStream, allShards)
			if err != nil {
				return
			}
			if end = min(end, newest.Seq); !kept || reached >= end {
				stop(caughtUp)
			}
		},
	}, func(d bus.Delivery) error {
		if shard, ok := shardOf(d.Subject); ok {
			core.ApplyJournal(shard, d.Seq, j.decode(ctx, d))
		}
		if reached = d.Seq; reached >= end {
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
		seq, _, err := w.store(ctx, []*deliveryv1.Record{{
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
	conn  Log
	shard int
	last  uint64
}

// store writes records as one message and returns its sequence and its size in
// bytes. It tries until it knows what became of the message or ctx ends; it
// returns [ErrFenced] when someone else wrote to the shard.
func (w *write) store(ctx context.Context, records []*deliveryv1.Record) (seq uint64, size int, err error) {
	data, err := proto.Marshal(&deliveryv1.Batch{Records: records})
	if err != nil {
		return 0, 0, fmt.Errorf("encode records: %w", err)
	}
	seq, err = w.publish(ctx, data)
	if err != nil {
		return 0, 0, fmt.Errorf("journal %d records: %w", len(records), err)
	}
	return seq, len(data), nil
}

// publish is store for what is encoded.
func (w *write) publish(ctx context.Context, data []byte) (uint64, error) {
	for wait := retryWait; ; wait = min(2*wait, maxRetryWait) {
		seq, err := w.conn.PublishExpecting(ctx, subject(w.shard), w.last, data)
		switch {
		case err == nil:
			w.last = seq
			return seq, nil
		case errors.Is(err, bus.ErrTooLarge), errors.Is(err, bus.ErrClosed):
			return 0, err
		case errors.Is(err, bus.ErrWrongSequence), errors.Is(err, bus.ErrUnknownOutcome):
			seq, settled, lookErr := w.look(ctx, data)
			if settled {
				return seq, lookErr
			}
		}
		select {
		case <-ctx.Done():
			return 0, fmt.Errorf("%w: %w", context.Cause(ctx), err)
		case <-time.After(wait):
		}
	}
}

// look reads the shard's last message to learn what became of data: it is
// settled when that is the message, or someone else's, or what was written before
// is gone.
func (w *write) look(ctx context.Context, data []byte) (seq uint64, settled bool, err error) {
	d, found, err := w.conn.Last(ctx, bus.DeliveriesStream, subject(w.shard))
	switch {
	case errors.Is(err, bus.ErrStreamNotFound):
		return 0, true, fmt.Errorf("%w: %w", ErrCut, err)
	case err != nil, !found && w.last == 0, found && d.Seq == w.last:
		return 0, false, nil // not stored, or not known yet: try again
	case !found:
		return w.lookForOldest(ctx)
	case d.Seq > w.last && bytes.Equal(d.Data, data):
		w.last = d.Seq
		return d.Seq, true, nil
	case d.Seq < w.last:
		return 0, true, fmt.Errorf("%w: it ends at %d, and %d was written", ErrCut, d.Seq, w.last)
	}
	return 0, true, ErrFenced
}

// lookForOldest tells whether what was written last left the stream with its
// oldest messages: then the shard begins anew.
func (w *write) lookForOldest(ctx context.Context) (seq uint64, settled bool, err error) {
	state, err := w.conn.StreamState(ctx, bus.DeliveriesStream)
	switch {
	case err != nil:
		return 0, false, nil //nolint:nilerr // not known yet: try again
	case w.last >= state.FirstSeq:
		return 0, true, fmt.Errorf("%w: message %d, which was written, is gone", ErrCut, w.last)
	}
	w.last = 0
	return 0, false, nil
}
