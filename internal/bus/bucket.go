package bus

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

// markerTTL is how long the marker of an expired key stays, so that watchers
// hear of it. JetStream allows no less than a second.
const markerTTL = time.Second

// BucketConfig says what a bucket of keys must be like.
type BucketConfig struct {
	// Name of the bucket.
	Name string
	// TTL is how long a value lives after its last write; 0 means for ever.
	TTL time.Duration
	// MaxBytes is the most that the bucket may hold; 0 means no limit.
	MaxBytes int64
}

// Bucket is a set of keys with one value each, and a revision that grows with
// every write to the bucket.
type Bucket struct {
	conn   *Conn
	kv     jetstream.KeyValue
	wanted jetstream.KeyValueConfig
	stream string
	prefix string
}

// Bucket opens the bucket and creates it when it does not exist, now or later:
// a server that lost its data must not stop those who ran on. An existing one
// that differs from cfg gives a *MismatchError and is left as it is.
func (c *Conn) Bucket(ctx context.Context, cfg BucketConfig) (*Bucket, error) {
	wanted := jetstream.KeyValueConfig{
		Bucket:   cfg.Name,
		History:  1,
		TTL:      cfg.TTL,
		MaxBytes: cfg.MaxBytes,
		Storage:  jetstream.FileStorage,
		Replicas: c.replicas,
	}
	if cfg.TTL > 0 {
		wanted.LimitMarkerTTL = markerTTL
	}
	b := &Bucket{conn: c, wanted: wanted, stream: "KV_" + cfg.Name, prefix: "$KV." + cfg.Name + "."}
	err := c.persist(ctx, func(ctx context.Context) (err error) {
		b.kv, _, err = b.open(ctx)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("open bucket %s: %w", cfg.Name, err)
	}
	return b, b.check(ctx, wanted)
}

// open finds the bucket, or creates it, and reports whether it did that.
func (b *Bucket) open(ctx context.Context) (kv jetstream.KeyValue, created bool, err error) {
	kv, err = b.conn.js.KeyValue(ctx, b.wanted.Bucket)
	if errors.Is(err, jetstream.ErrBucketNotFound) {
		kv, err = b.conn.js.CreateKeyValue(ctx, b.wanted)
		created = err == nil
	}
	if errors.Is(err, jetstream.ErrBucketExists) {
		kv, err = b.conn.js.KeyValue(ctx, b.wanted.Bucket)
	}
	return kv, created, err
}

// kept returns a request to the bucket with the remedy for its being gone.
func (b *Bucket) kept(request func(context.Context) error) func(context.Context) error {
	return b.conn.kept(b.stream, request, func(ctx context.Context) (bool, error) {
		_, created, err := b.open(ctx)
		return created, err
	})
}

// check compares the bucket with what is needed.
func (b *Bucket) check(ctx context.Context, wanted jetstream.KeyValueConfig) error {
	info, err := b.conn.streamInfo(ctx, b.stream)
	if err != nil {
		return fmt.Errorf("open bucket %s: %w", wanted.Bucket, err)
	}
	var diff []Setting
	check := func(name string, have, want any) {
		if h, w := fmt.Sprint(have), fmt.Sprint(want); h != w {
			diff = append(diff, Setting{Name: name, Have: h, Want: w})
		}
	}
	have := info.Config
	check("max_age", have.MaxAge, wanted.TTL)
	check("max_bytes", bytesLimit(have.MaxBytes), bytesLimit(wanted.MaxBytes))
	check("max_msgs_per_subject", have.MaxMsgsPerSubject, wanted.History)
	check("storage", have.Storage, wanted.Storage)
	check("subject_delete_marker_ttl", have.SubjectDeleteMarkerTTL, wanted.LimitMarkerTTL)
	if len(diff) > 0 {
		return &MismatchError{Stream: b.stream, Settings: diff}
	}
	return nil
}

// Get returns the value of key and its revision. ok is false when there is
// none. The bucket's leader answers it, so it sees every earlier write.
func (b *Bucket) Get(ctx context.Context, key string) (value []byte, rev uint64, ok bool, err error) {
	var m storedMsg
	err = b.kept(func(ctx context.Context) (err error) {
		m, ok, err = b.conn.stored(ctx, b.stream, msgRequest{LastBySubject: b.prefix + key})
		return err
	})(ctx)
	if err != nil {
		return nil, 0, false, fmt.Errorf("get key %s: %w", key, err)
	}
	if !ok || m.header.Get("KV-Operation") != "" || m.header.Get(jetstream.MarkerReasonHeader) != "" {
		return nil, 0, false, nil
	}
	return m.Data, m.Seq, true, nil
}

// Put sets key to value, whatever was there, and returns the new revision. It
// is retried until ctx ends.
func (b *Bucket) Put(ctx context.Context, key string, value []byte) (uint64, error) {
	var rev uint64
	err := b.conn.persist(ctx, b.kept(func(ctx context.Context) (err error) {
		rev, err = b.kv.Put(ctx, key, value)
		return err
	}))
	if err != nil {
		return 0, fmt.Errorf("put key %s: %w", key, err)
	}
	return rev, nil
}

// Create sets key to value if it has none, and returns the revision. It tries
// once: ErrExists means that there is a value, ErrUnknownOutcome that a Get must
// tell.
func (b *Bucket) Create(ctx context.Context, key string, value []byte) (uint64, error) {
	var rev uint64
	err := b.conn.once(ctx, attemptLimit, b.kept(func(ctx context.Context) (err error) {
		rev, err = b.kv.Create(ctx, key, value)
		return err
	}))
	switch {
	case errors.Is(err, jetstream.ErrKeyExists):
		return 0, fmt.Errorf("create key %s: %w", key, ErrExists)
	case err != nil:
		return 0, fmt.Errorf("create key %s: %w", key, settle(translate(err)))
	}
	return rev, nil
}

// Update sets key to value if its revision is still rev, and returns the new
// one. It tries once: ErrWrongSequence means that it is not, ErrUnknownOutcome
// that a Get must tell.
func (b *Bucket) Update(ctx context.Context, key string, value []byte, rev uint64) (uint64, error) {
	var next uint64
	err := b.conn.once(ctx, attemptLimit, b.kept(func(ctx context.Context) (err error) {
		next, err = b.kv.Update(ctx, key, value, rev)
		return err
	}))
	switch {
	case errors.Is(err, jetstream.ErrKeyRevisionMismatch):
		return 0, fmt.Errorf("update key %s at revision %d: %w", key, rev, ErrWrongSequence)
	case err != nil:
		return 0, fmt.Errorf("update key %s at revision %d: %w", key, rev, settle(translate(err)))
	}
	return next, nil
}

// Delete removes key's value; a key without one is no error. It is retried
// until ctx ends.
func (b *Bucket) Delete(ctx context.Context, key string) error {
	err := b.conn.persist(ctx, b.kept(func(ctx context.Context) error { return b.kv.Delete(ctx, key) }))
	if err != nil {
		return fmt.Errorf("delete key %s: %w", key, err)
	}
	return nil
}

// deleteAt removes key's value if its revision is still rev. It tries once.
func (b *Bucket) deleteAt(ctx context.Context, key string, rev uint64) error {
	err := b.conn.once(ctx, attemptLimit, func(ctx context.Context) error {
		return b.kv.Delete(ctx, key, jetstream.LastRevision(rev))
	})
	if err != nil {
		return fmt.Errorf("delete key %s at revision %d: %w", key, rev, translate(err))
	}
	return nil
}

// Keys returns the keys that have a value, sorted.
func (b *Bucket) Keys(ctx context.Context) ([]string, error) {
	var keys []string
	err := b.conn.persist(ctx, b.kept(func(ctx context.Context) (err error) {
		keys, err = b.kv.Keys(ctx)
		if errors.Is(err, jetstream.ErrNoKeysFound) {
			return nil
		}
		return err
	}))
	if err != nil {
		return nil, fmt.Errorf("list keys: %w", err)
	}
	slices.Sort(keys)
	return keys, nil
}
