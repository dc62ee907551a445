package state

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"time"

	"github.com/redis/go-redis/v9"
	"google.golang.org/protobuf/proto"

	alertv1 "github.com/tocsin-dev/tocsin/proto/gen/tocsin/alert/v1"
	statev1 "github.com/tocsin-dev/tocsin/proto/gen/tocsin/state/v1"
)

// fieldsPerCommand bounds the arguments of one HSET or RPUSH. 500 states of
// 2 KiB are 1 MB, a size at which Redis still answers others in between.
const fieldsPerCommand = 500

// Owner writes one partition. It is not safe for concurrent use.
type Owner struct {
	store     *Store
	partition int
	keys      keys
	token     string
	commit    uint64
	last      []byte // the head as this owner last wrote it
	held      held
}

// held is what lies beside a head: the keys of its hashes, and how long its
// outbox is. About 100 bytes for each key.
type held struct {
	targets, active map[string]struct{}
	outbox          int
}

// after returns how many fields a hash has after a change.
func after(fields map[string]struct{}, change map[string][]byte) uint64 {
	n := len(fields)
	for field, value := range change {
		switch _, there := fields[field]; {
		case there && value == nil:
			n--
		case !there && value != nil:
			n++
		}
	}
	return uint64(n)
}

// follow makes the change that after counts.
func follow(fields map[string]struct{}, change map[string][]byte) {
	for field, value := range change {
		if value == nil {
			delete(fields, field)
		} else {
			fields[field] = struct{}{}
		}
	}
}

func fieldsOf(stored map[string][]byte) map[string]struct{} {
	fields := make(map[string]struct{}, len(stored))
	for field := range stored {
		fields[field] = struct{}{}
	}
	return fields
}

// Token names the owner: random, and new at each takeover.
func (o *Owner) Token() string { return o.token }

// Take makes the caller the owner of the state that it read: it writes the
// same head under a new token. It repeats until it knows the outcome or ctx
// ends. It returns ErrNotOwner when the head changed since it was read, and
// ErrLost when it is gone; then the caller reads again.
func (s *Store) Take(ctx context.Context, partition int, read *Saved) (*Owner, error) {
	o := s.owner(partition, read)
	o.held = held{fieldsOf(read.Targets), fieldsOf(read.Active), len(read.Outbox)}
	change := Change{
		Position:     read.Stored.GetPosition(),
		Acknowledged: read.Stored.GetAcknowledged(),
		Fold:         read.Stored.GetFold(),
	}
	if err := o.write(ctx, change, false); err != nil {
		return nil, fmt.Errorf("take partition %d: %w", partition, err)
	}
	return o, nil
}

// Install makes the caller the owner of content, in place of what it read:
// nothing, or a state that does not fit the log. It returns ErrNotOwner when
// the head changed since it was read. It repeats until it knows the outcome or
// ctx ends.
func (s *Store) Install(ctx context.Context, partition int, read *Saved, content Content) (*Owner, error) {
	o := s.owner(partition, read)
	change := Change{
		Position:     content.Position,
		Acknowledged: content.Acknowledged,
		Fold:         content.Fold,
		Targets:      content.Targets,
		Active:       content.Active,
		Push:         content.Outbox,
	}
	if err := o.write(ctx, change, true); err != nil {
		return nil, fmt.Errorf("install partition %d: %w", partition, err)
	}
	return o, nil
}

// Commit stores change. It repeats while Redis is away until ctx ends; when it
// returns ctx's error the outcome is not known and the Owner must be dropped.
// It returns ErrNotOwner or ErrLost when the partition is no longer the
// caller's.
func (o *Owner) Commit(ctx context.Context, change Change) error {
	if err := o.write(ctx, change, false); err != nil {
		return fmt.Errorf("commit partition %d: %w", o.partition, err)
	}
	return nil
}

func (s *Store) owner(partition int, read *Saved) *Owner {
	return &Owner{
		store: s, partition: partition, keys: keysOf(partition), token: rand.Text(), last: read.Head,
		held: held{map[string]struct{}{}, map[string]struct{}{}, 0},
	}
}

// write brings change into Redis, after wiping what is there if wipe says so.
func (o *Owner) write(ctx context.Context, change Change, wipe bool) error {
	head, err := o.head(change)
	if err != nil {
		return err
	}
	pushes, err := encodeAll(change.Push)
	if err != nil {
		return err
	}
	began := time.Now()
	for attempt := 0; ; attempt++ {
		err := o.attempt(ctx, func(tx redis.Pipeliner) {
			o.fill(ctx, tx, head, change, pushes, wipe)
		}, head, wipe)
		if err != nil && !errors.Is(err, ErrNotOwner) && !errors.Is(err, ErrLost) {
			o.store.metrics.failures.WithLabelValues("unknown").Inc()
			if attempt&(attempt+1) == 0 { // 1, 2, 4, 8, ...: an hour of a full Redis is a dozen lines
				o.store.log.LogAttrs(ctx, slog.LevelWarn, "commit outcome unknown; reading the head",
					slog.Int("partition", o.partition), slog.Int("attempt", attempt+1), slog.Any("err", err))
			}
			err = o.settle(ctx, head, wipe)
		}
		switch {
		case err == nil:
			o.last = head
			o.commit++
			follow(o.held.targets, change.Targets)
			follow(o.held.active, change.Active)
			o.held.outbox += len(change.Push) - change.Trim
			o.store.metrics.commits.Inc()
			o.store.metrics.seconds.Observe(time.Since(began).Seconds())
			return nil
		case errors.Is(err, ErrNotOwner):
			o.store.metrics.failures.WithLabelValues("not_owner").Inc()
			return err
		case errors.Is(err, ErrLost):
			o.store.metrics.failures.WithLabelValues("lost").Inc()
			return err
		case !errors.Is(err, errRetry):
			return err
		}
		if err := pause(ctx, attempt); err != nil {
			return err
		}
	}
}

// Check tells whether the partition is still the caller's: nil, or ErrNotOwner or
// ErrLost. Any other error says that Redis did not answer.
func (o *Owner) Check(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, attemptTimeout)
	defer cancel()
	head, err := o.store.head(ctx, o.keys.head)
	if err == nil {
		err = o.judge(head, o.last, false)
	}
	if err != nil {
		return fmt.Errorf("check partition %d: %w", o.partition, err)
	}
	return nil
}

// errRetry says that the head is still the old one: the commit was not done.
var errRetry = errors.New("not committed yet")

// attempt tries once to replace the head that this owner last wrote by next.
func (o *Owner) attempt(ctx context.Context, fill func(redis.Pipeliner), next []byte, mayBeAbsent bool) error {
	ctx, cancel := context.WithTimeout(ctx, attemptTimeout)
	defer cancel()
	return o.store.redis.Watch(ctx, func(tx *redis.Tx) error {
		head, err := o.watch(ctx, tx)
		if err != nil {
			return err
		}
		verdict := o.judge(head, next, mayBeAbsent)
		if !errors.Is(verdict, errRetry) {
			// The client does not know of the watch: it was not made by its own call.
			if err := tx.Unwatch(ctx).Err(); err != nil {
				return err
			}
			return verdict // nil: an earlier attempt reached Redis late
		}
		_, err = tx.TxPipelined(ctx, func(p redis.Pipeliner) error {
			fill(p)
			return nil
		})
		return err
	})
}

// watch makes the transaction fail if anybody writes the head from now on, and
// returns the head, which is empty if there is none. Redis gets both commands in
// one message: each further one costs a commit a third of its time.
func (o *Owner) watch(ctx context.Context, tx *redis.Tx) ([]byte, error) {
	pipe := tx.Pipeline()
	watched := pipe.Do(ctx, "watch", o.keys.head)
	read := pipe.Get(ctx, o.keys.head)
	if _, err := pipe.Exec(ctx); err != nil && !errors.Is(err, redis.Nil) {
		return nil, err
	}
	if err := watched.Err(); err != nil {
		return nil, err
	}
	head, err := read.Bytes()
	if errors.Is(err, redis.Nil) {
		return nil, nil
	}
	return head, err
}

// settle finds out what became of an attempt that ended in an error.
func (o *Owner) settle(ctx context.Context, next []byte, mayBeAbsent bool) error {
	for n := 0; ; n++ {
		head, err := o.store.head(ctx, o.keys.head)
		if err == nil {
			return o.judge(head, next, mayBeAbsent)
		}
		if err := pause(ctx, n); err != nil {
			return err
		}
	}
}

// judge compares the head in Redis with the one that an attempt writes: nil
// when it is there, errRetry when the one before is, else why it never will be.
func (o *Owner) judge(head, next []byte, mayBeAbsent bool) error {
	absentBefore := mayBeAbsent && len(o.last) == 0
	switch {
	case bytes.Equal(head, next):
		return nil
	case len(head) == 0 && !absentBefore:
		return ErrLost
	case bytes.Equal(head, o.last):
		return errRetry
	default:
		return ErrNotOwner
	}
}

// fill queues the commands of one transaction.
func (o *Owner) fill(ctx context.Context, tx redis.Pipeliner, head []byte, c Change, pushes [][]byte, wipe bool) {
	if wipe {
		tx.Del(ctx, o.keys.targets, o.keys.active, o.keys.outbox)
	}
	tx.Set(ctx, o.keys.head, head, 0)
	fillHash(ctx, tx, o.keys.targets, c.Targets)
	fillHash(ctx, tx, o.keys.active, c.Active)
	if c.Trim > 0 {
		tx.LTrim(ctx, o.keys.outbox, int64(c.Trim), -1)
	}
	for chunk := range slices.Chunk(pushes, fieldsPerCommand) {
		values := make([]any, len(chunk))
		for i, v := range chunk {
			values[i] = v
		}
		tx.RPush(ctx, o.keys.outbox, values...)
	}
}

func fillHash(ctx context.Context, tx redis.Pipeliner, key string, fields map[string][]byte) {
	var set []any
	var del []string
	for _, field := range slices.Sorted(maps.Keys(fields)) {
		if value := fields[field]; value == nil {
			del = append(del, field)
		} else {
			set = append(set, field, value)
		}
	}
	for chunk := range slices.Chunk(set, 2*fieldsPerCommand) {
		tx.HSet(ctx, key, chunk...)
	}
	for chunk := range slices.Chunk(del, fieldsPerCommand) {
		tx.HDel(ctx, key, chunk...)
	}
}

func (o *Owner) head(c Change) ([]byte, error) {
	head, err := proto.MarshalOptions{Deterministic: true}.Marshal(&statev1.StoredHead{
		Format:       Format,
		OwnerToken:   o.token,
		Commit:       o.commit + 1,
		Position:     c.Position,
		Acknowledged: c.Acknowledged,
		Fold:         c.Fold,
		Targets:      after(o.held.targets, c.Targets),
		Active:       after(o.held.active, c.Active),
		Outbox:       uint64(o.held.outbox + len(c.Push) - c.Trim),
	})
	if err != nil {
		return nil, fmt.Errorf("encode the head: %w", err)
	}
	return head, nil
}

func encodeAll(transitions []*alertv1.Transition) ([][]byte, error) {
	encoded := make([][]byte, len(transitions))
	for i, t := range transitions {
		var err error
		if encoded[i], err = proto.Marshal(t); err != nil {
			return nil, fmt.Errorf("encode transition %s: %w", t.GetId(), err)
		}
	}
	return encoded, nil
}
