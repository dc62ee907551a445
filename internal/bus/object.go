package bus

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/nats-io/nats.go/jetstream"
)

// chunksAhead is how many chunks of an object wait to be taken in: 4 MiB. A
// server cuts a client off that has 64 MiB waiting.
const chunksAhead = 32

// Objects is a store of named blobs of any size, in chunks of 128 KiB with a
// digest that is checked when they are read.
type Objects struct {
	conn   *Conn
	store  jetstream.ObjectStore
	bucket string
}

// Objects opens the store and creates it, on disk and without limits, when it
// does not exist, now or later.
func (c *Conn) Objects(ctx context.Context, bucket string) (*Objects, error) {
	o := &Objects{conn: c, bucket: bucket}
	err := c.persist(ctx, func(ctx context.Context) (err error) {
		o.store, _, err = o.open(ctx)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("open object store %s: %w", bucket, err)
	}
	return o, nil
}

// open finds the store, or creates it, and reports whether it did that.
func (o *Objects) open(ctx context.Context) (store jetstream.ObjectStore, created bool, err error) {
	store, err = o.conn.js.ObjectStore(ctx, o.bucket)
	if errors.Is(err, jetstream.ErrBucketNotFound) {
		store, err = o.conn.js.CreateObjectStore(ctx, jetstream.ObjectStoreConfig{
			Bucket: o.bucket, Storage: jetstream.FileStorage, Replicas: o.conn.replicas,
		})
		created = err == nil
	}
	if errors.Is(err, jetstream.ErrBucketExists) {
		store, err = o.conn.js.ObjectStore(ctx, o.bucket)
	}
	return store, created, err
}

// kept is [Bucket.kept] for the store.
func (o *Objects) kept(request func(context.Context) error) func(context.Context) error {
	return o.conn.kept("OBJ_"+o.bucket, request, func(ctx context.Context) (bool, error) {
		_, created, err := o.open(ctx)
		return created, err
	})
}

// Put stores data under name, in place of what was there. Readers see the old
// content, the new, or an error while it is being replaced, never a mixture. It
// is retried until ctx ends.
func (o *Objects) Put(ctx context.Context, name string, data []byte) error {
	err := o.conn.persistFor(ctx, bulkLimit, o.kept(func(ctx context.Context) error {
		_, err := o.store.PutBytes(ctx, name, data)
		return err
	}))
	if err != nil {
		return fmt.Errorf("put object %s: %w", name, err)
	}
	return nil
}

// Get returns the content of name. ok is false when there is none. It is retried
// until ctx ends, and returns ctx's cause then. Content that is not what was
// stored is an error wrapping ErrDamaged.
//
// The client's own Get cannot be ended while it waits for content: it ends with
// its context's deadline, whatever becomes of the context before.
func (o *Objects) Get(ctx context.Context, name string) (data []byte, ok bool, err error) {
	for before := ""; ; {
		info, err := o.info(ctx, name)
		switch {
		case errors.Is(err, jetstream.ErrObjectNotFound):
			return nil, false, nil
		case err == nil && info.NUID == before:
			err = ErrDamaged // it was not replaced meanwhile
		case err == nil:
			data, err = o.content(ctx, info)
		}
		switch {
		case err == nil:
			return data, true, nil
		case !errors.Is(err, errIncomplete):
			return nil, false, fmt.Errorf("get object %s: %w", name, err)
		}
		before = info.NUID
	}
}

// info returns what is known of an object.
func (o *Objects) info(ctx context.Context, name string) (info *jetstream.ObjectInfo, err error) {
	err = o.conn.persist(ctx, o.kept(func(ctx context.Context) error {
		info, err = o.store.GetInfo(ctx, name)
		return err
	}))
	if errors.Is(err, jetstream.ErrBadObjectMeta) || err == nil && info.NUID == "" {
		return nil, fmt.Errorf("%w: %w", ErrDamaged, jetstream.ErrBadObjectMeta)
	}
	return info, err
}

var (
	// errIncomplete says that an object has fewer chunks than it should: it is
	// damaged, or being replaced or deleted.
	errIncomplete = errors.New("chunks are missing")
	errWhole      = errors.New("all chunks are read")
)

// content reads the chunks of an object.
func (o *Objects) content(ctx context.Context, info *jetstream.ObjectInfo) ([]byte, error) {
	if info.Size == 0 {
		return []byte{}, nil
	}
	stream, chunks := "OBJ_"+o.bucket, fmt.Sprintf("$O.%s.C.%s", o.bucket, info.NUID)
	var data []byte
	var last uint64
	read, end := context.WithCancelCause(ctx)
	defer end(nil)
	err := o.conn.Read(read, ReadOptions{
		Stream: stream, Filter: chunks, Prefetch: chunksAhead,
		Idle: func() {
			if d, _, err := o.conn.Last(read, stream, chunks); err == nil && d.Seq <= last {
				end(errIncomplete)
			}
		},
	}, func(d Delivery) error {
		data, last = append(data, d.Data...), d.Seq
		if uint64(len(data)) >= info.Size {
			return errWhole
		}
		return nil
	})
	switch {
	case errors.Is(err, ErrStreamNotFound), errors.Is(err, ErrStreamReplaced):
		return nil, errIncomplete // what is there now has to tell
	case !errors.Is(err, errWhole):
		return nil, err
	}
	digest, err := jetstream.DecodeObjectDigest(info.Digest)
	if sum := sha256.Sum256(data); err != nil || uint64(len(data)) != info.Size || !bytes.Equal(sum[:], digest) {
		return nil, ErrDamaged
	}
	return data, nil
}

// List returns the names that begin with prefix, sorted.
func (o *Objects) List(ctx context.Context, prefix string) ([]string, error) {
	var infos []*jetstream.ObjectInfo
	err := o.conn.persist(ctx, o.kept(func(ctx context.Context) (err error) {
		infos, err = o.store.List(ctx)
		if errors.Is(err, jetstream.ErrNoObjectsFound) {
			return nil
		}
		return err
	}))
	if err != nil {
		return nil, fmt.Errorf("list objects: %w", err)
	}
	var names []string
	for _, info := range infos {
		if strings.HasPrefix(info.Name, prefix) {
			names = append(names, info.Name)
		}
	}
	slices.Sort(names)
	return names, nil
}

// Delete removes name; a name that does not exist is no error.
func (o *Objects) Delete(ctx context.Context, name string) error {
	err := o.conn.persist(ctx, o.kept(func(ctx context.Context) error { return o.store.Delete(ctx, name) }))
	if err != nil && !errors.Is(err, jetstream.ErrObjectNotFound) {
		return fmt.Errorf("delete object %s: %w", name, err)
	}
	return nil
}
