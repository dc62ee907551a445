// Package eventlog tells one event log from another, and where a stored state
// stands in it.
//
// A log is EVENTS from its creation on, until messages that were applied turn
// out to be missing at its end: what follows then is another log, though the
// stream is the same. Each log has an id that sorts by age. All replicas agree
// on it through one key, which is raised by compare-and-set.
package eventlog

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/tocsin-dev/tocsin/internal/bus"
	statev1 "github.com/tocsin-dev/tocsin/proto/gen/tocsin/state/v1"
)

const (
	// Stream is the name of the stream of events.
	Stream = "EVENTS"
	// key holds the present log in the bucket.
	key = "log"
	// lookEvery is how often a replica looks whether the log is still the one
	// that it folds. A log that was replaced costs at most that much wrong work,
	// none of which enters the new log's states.
	lookEvery = 2 * time.Second
	// settleWait is the pause after another replica wrote the key first, or nobody
	// knows: 64 partitions of a few replicas may try at once.
	settleWait = 20 * time.Millisecond
	// lookTimeout bounds one look.
	lookTimeout = 5 * time.Second
	// maxGeneration is the last one that an id has digits for. Unix seconds reach
	// it in the year 33658, so only a name that somebody made up is near it.
	maxGeneration = 999_999_999_999
)

// ErrNoYounger says that no log can have a name that sorts after what was told.
var ErrNoYounger = errors.New("no event log can be named that sorts after it")

// Bus is the part of the bus that a Log needs.
type Bus interface {
	// StreamState returns what a stream holds now.
	StreamState(ctx context.Context, name string) (bus.StreamState, error)
	// EnsureStream creates a stream unless it is there.
	EnsureStream(ctx context.Context, cfg bus.StreamConfig) (bus.StreamState, error)
	// At returns the message with a sequence; ok is false when there is none.
	At(ctx context.Context, stream string, seq uint64) (d bus.Delivery, ok bool, err error)
}

// Bucket holds the key on which replicas agree.
type Bucket interface {
	// Get returns the value of key and its revision.
	Get(ctx context.Context, key string) (value []byte, rev uint64, ok bool, err error)
	// Create sets key if it has no value.
	Create(ctx context.Context, key string, value []byte) (uint64, error)
	// Update sets key if its revision is still rev.
	Update(ctx context.Context, key string, value []byte, rev uint64) (uint64, error)
}

// record is the value of the key.
type record struct {
	// Generation grows with each log. It begins with the stream's creation in
	// Unix seconds, so that it grows even if the bucket was lost.
	Generation int64 `json:"generation"`
	// Created is the stream's creation, Unix nanoseconds.
	Created int64 `json:"created_unix_ns"`
	// Original is true for the first log that was ever seen here. Unless the
	// bucket was lost with older ones, nothing was told of any other.
	Original bool `json:"original"`
}

func (r record) id() string { return fmt.Sprintf("%012d-%019d", r.Generation, r.Created) }

// Log is the present log. It is safe for concurrent use.
type Log struct {
	bus    Bus
	stream bus.StreamConfig
	bucket Bucket
	log    *slog.Logger

	mu      sync.Mutex
	present record        // guarded by mu
	changed chan struct{} // guarded by mu; closed when present changes
}

// Open finds the present log, and begins one if there is none, now or later: it
// creates the stream as cfg says. It waits for NATS until ctx ends.
func Open(ctx context.Context, b Bus, cfg bus.StreamConfig, bucket Bucket, log *slog.Logger) (*Log, error) {
	l := &Log{bus: b, stream: cfg, bucket: bucket, log: log, changed: make(chan struct{})}
	if err := l.Refresh(ctx); err != nil {
		return nil, fmt.Errorf("open the event log: %w", err)
	}
	return l, nil
}

// ID names the log. Ids of younger logs sort after those of older ones.
func (l *Log) ID() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.present.id()
}

// Original is true when no other log was ever seen here, by all that the bucket
// knows. What was told of another log proves it wrong; then raise this one.
func (l *Log) Original() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.present.Original
}

// Changed returns the log's id and a channel that is closed when another log
// takes its place.
func (l *Log) Changed() (id string, changed <-chan struct{}) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.present.id(), l.changed
}

// Refresh looks which log is the present one, and raises the generation when
// the stream was created anew. It does that itself when there is none.
func (l *Log) Refresh(ctx context.Context) error {
	state, err := l.bus.StreamState(ctx, Stream)
	if errors.Is(err, bus.ErrStreamNotFound) {
		if state, err = l.bus.EnsureStream(ctx, l.stream); err == nil {
			l.log.LogAttrs(ctx, slog.LevelError, "the event log was gone; a new one begins")
		}
	}
	if err != nil {
		return err
	}
	return l.settle(ctx, state.Created, func(r record) (record, bool) {
		if r.Created == state.Created.UnixNano() {
			return r, false
		}
		// At the last generation the creation alone tells which is younger.
		next := min(max(r.Generation+1, state.Created.Unix()), maxGeneration)
		return record{Generation: next, Created: state.Created.UnixNano()}, true
	})
}

// Raise begins a new log in place of the one called id, younger than above,
// which may be empty. When another replica did so before, or above is present
// by now, the log that is there stays. It also stays when none can be younger,
// and the error wraps ErrNoYounger.
func (l *Log) Raise(ctx context.Context, id, above string) error {
	state, err := l.bus.StreamState(ctx, Stream)
	if err != nil {
		return fmt.Errorf("raise the log: %w", err)
	}
	var refused error
	err = l.settle(ctx, state.Created, func(r record) (record, bool) {
		refused = nil
		if r.id() != id && r.id() >= above {
			return r, false
		}
		next := record{
			// A bucket that was restored from a backup knows less than was told: the
			// clock keeps it from naming another log as one was named before.
			Generation: min(max(r.Generation+1, generationOf(above)+1, time.Now().Unix()), maxGeneration),
			Created:    state.Created.UnixNano(),
		}
		if last := max(r.id(), above); next.id() <= last {
			refused = fmt.Errorf("%w: %s", ErrNoYounger, last)
			return r, false
		}
		return next, true
	})
	if err := errors.Join(err, refused); err != nil {
		return fmt.Errorf("raise the log: %w", err)
	}
	return nil
}

// generationOf returns the generation in a log's id, 0 for what is none, and no
// more than there is.
func generationOf(id string) int64 {
	text, _, _ := strings.Cut(id, "-")
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil {
		return 0
	}
	return min(n, maxGeneration)
}

// settle replaces the stored record by what next makes of it, when next says
// so, and takes over what is stored then.
func (l *Log) settle(ctx context.Context, created time.Time, next func(record) (record, bool)) error {
	for {
		value, rev, ok, err := l.bucket.Get(ctx, key)
		if err != nil {
			return err
		}
		first := record{Generation: created.Unix(), Created: created.UnixNano(), Original: true}
		if !ok {
			if err = l.store(ctx, first, 0); err == nil {
				l.adopt(first)
				return nil
			}
		} else {
			var r record
			if err := json.Unmarshal(value, &r); err != nil {
				return fmt.Errorf("decode key %s: %w", key, err)
			}
			changed, change := next(r)
			if !change {
				l.adopt(r)
				return nil
			}
			if err = l.store(ctx, changed, rev); err == nil {
				l.log.LogAttrs(ctx, slog.LevelWarn, "the event log is another one now",
					slog.String("log_id", changed.id()), slog.String("before", r.id()))
				l.adopt(changed)
				return nil
			}
		}
		if !errors.Is(err, bus.ErrExists) && !errors.Is(err, bus.ErrWrongSequence) && !errors.Is(err, bus.ErrUnknownOutcome) {
			return err
		}
		timer := time.NewTimer(settleWait)
		select {
		case <-ctx.Done():
			timer.Stop()
			return ctx.Err()
		case <-timer.C:
		}
	}
}

// store writes r over revision rev; 0 means that there must be no value.
func (l *Log) store(ctx context.Context, r record, rev uint64) error {
	value, err := json.Marshal(r)
	if err != nil {
		return fmt.Errorf("encode key %s: %w", key, err)
	}
	if rev == 0 {
		_, err = l.bucket.Create(ctx, key, value)
	} else {
		_, err = l.bucket.Update(ctx, key, value, rev)
	}
	return err
}

func (l *Log) adopt(r record) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if r == l.present {
		return
	}
	l.present = r
	close(l.changed)
	l.changed = make(chan struct{})
}

// Run looks for changes of the log until ctx ends, and returns ctx's error.
// reached tells the last message that was read of which log: a log that ends
// before, or has another message in that place, was cut.
func (l *Log) Run(ctx context.Context, reached func() (logID string, last bus.Mark)) error {
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
		if err := l.look(ctx, reached); err != nil && ctx.Err() == nil {
			l.log.LogAttrs(ctx, slog.LevelWarn, "event log not looked at; will try again", slog.Any("err", err))
		}
	}
}

func (l *Log) look(ctx context.Context, reached func() (string, bus.Mark)) error {
	ctx, cancel := context.WithTimeout(ctx, lookTimeout)
	defer cancel()
	if err := l.Refresh(ctx); err != nil {
		return err
	}
	// First what was read, then the log: it only grows in between.
	id, last := reached()
	if id != l.ID() || last.Seq == 0 {
		return nil
	}
	verdict, err := l.verdict(ctx, last)
	if err != nil || verdict != Cut {
		return err
	}
	return l.Raise(ctx, id, "")
}

// Verdict says whether a stored state fits the log.
type Verdict int

// The verdicts.
const (
	// Fits: the log goes on where the state ends.
	Fits Verdict = iota
	// OtherLog: the state is of another log.
	OtherLog
	// Gap: messages between the state and what is kept are gone.
	Gap
	// Cut: the log lost messages that the state has applied.
	Cut
)

// String names the verdict.
func (v Verdict) String() string {
	return [...]string{"fits", "other_log", "gap", "cut"}[v]
}

// Check tells whether a state at position can be brought up to date from the log.
func (l *Log) Check(ctx context.Context, position *statev1.Position) (Verdict, error) {
	if position.GetLogId() != l.ID() {
		return OtherLog, nil
	}
	return l.verdict(ctx, bus.Mark{Seq: position.GetAppliedSequence(), Time: position.GetAppliedTime().AsTime()})
}

// verdict tells whether the log goes on after the last message that was applied.
func (l *Log) verdict(ctx context.Context, last bus.Mark) (Verdict, error) {
	state, err := l.bus.StreamState(ctx, Stream)
	if err != nil {
		return 0, fmt.Errorf("check a state against the log: %w", err)
	}
	switch {
	case last.Seq > state.LastSeq:
		return Cut, nil
	case last.Seq+1 < state.FirstSeq:
		return Gap, nil
	case last.Seq == 0 || last.Seq < state.FirstSeq:
		return Fits, nil // exactly the one before the first kept
	}
	message, ok, err := l.bus.At(ctx, Stream, last.Seq)
	switch {
	case err != nil:
		return 0, fmt.Errorf("check a state against the log: %w", err)
	case !ok:
		return Gap, nil
	case !message.Time.Equal(last.Time):
		return Cut, nil
	}
	return Fits, nil
}

// Reaches tells whether the log ever had a message with a sequence, as far as
// its end says.
func (l *Log) Reaches(ctx context.Context, seq uint64) (bool, error) {
	state, err := l.bus.StreamState(ctx, Stream)
	if err != nil {
		return false, fmt.Errorf("find the end of the log: %w", err)
	}
	return seq <= state.LastSeq, nil
}

// First returns the sequence of the oldest message that is kept.
func (l *Log) First(ctx context.Context) (uint64, error) {
	state, err := l.bus.StreamState(ctx, Stream)
	if err != nil {
		return 0, fmt.Errorf("find the start of the log: %w", err)
	}
	return state.FirstSeq, nil
}
