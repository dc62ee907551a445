package bus

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/nats-io/nats.go/jetstream"
)

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

// Get returns the content of name. ok is false when there is none. Content that
// does not match its digest is an error.
func (o *Objects) Get(ctx context.Context, name string) (data []byte, ok bool, err error) {
	err = o.conn.persistFor(ctx, bulkLimit, o.kept(func(ctx context.Context) (err error) {
		data, err = o.store.GetBytes(ctx, name)
		return err
	}))
	switch {
	case errors.Is(err, jetstream.ErrObjectNotFound):
		return nil, false, nil
	case err != nil:
		return nil, false, fmt.Errorf("get object %s: %w", name, err)
	}
	return data, true, nil
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
