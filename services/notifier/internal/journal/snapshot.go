package journal

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/klauspost/compress/zstd"
	"google.golang.org/protobuf/proto"

	"github.com/tocsin-dev/tocsin/internal/bus"
	deliveryv1 "github.com/tocsin-dev/tocsin/proto/gen/tocsin/delivery/v1"
)

const (
	// snapshotPrefix begins the name of every snapshot; the rest sorts by age.
	snapshotPrefix = "snapshot/"
	// keptSnapshots is how many are kept: if the newest cannot be read, the one
	// before and a longer replay do.
	keptSnapshots = 2
	// maxSnapshot bounds what is packed and unpacked, in bytes: 100,000 alerts of
	// 2 KiB are 200 MiB. Beyond it no snapshot is saved, hence nothing trimmed.
	maxSnapshot = 1 << 30
)

// Snapshots keeps snapshots in an object store.
type Snapshots struct {
	objects *bus.Objects
	log     *slog.Logger
	newest  string // name of the last one written or read
	damaged []string

	mu           sync.Mutex
	older, newer uint64 // guarded by mu; up to where the two that are kept hold all of the journal
}

// OpenSnapshots opens the object store of that name.
func OpenSnapshots(ctx context.Context, conn *bus.Conn, bucket string, log *slog.Logger) (*Snapshots, error) {
	objects, err := conn.Objects(ctx, bucket)
	if err != nil {
		return nil, fmt.Errorf("open snapshots: %w", err)
	}
	return &Snapshots{objects: objects, log: log}, nil
}

// Load returns the newest snapshot that can be read, or nil when there is none.
// It waits for a store that does not answer until ctx ends: who begins without a
// snapshot that is there tells less than there is to tell.
func (s *Snapshots) Load(ctx context.Context) (*deliveryv1.Snapshot, error) {
	names, err := s.names(ctx)
	if err != nil {
		return nil, err
	}
	for _, name := range names {
		s.newest = max(s.newest, name)
		data, ok, err := s.objects.Get(ctx, name)
		if err != nil && !errors.Is(err, bus.ErrDamaged) {
			return nil, fmt.Errorf("load snapshot: %w", err)
		}
		if err == nil && ok {
			snapshot, decodeErr := decode(data)
			if err = decodeErr; err == nil {
				return snapshot, nil
			}
		}
		s.damaged = append(s.damaged, name)
		s.log.ErrorContext(ctx, "a snapshot cannot be read; trying an older one", "name", name, "err", err)
	}
	return nil, nil
}

// names returns the names of all snapshots, newest first.
func (s *Snapshots) names(ctx context.Context) ([]string, error) {
	names, err := s.objects.List(ctx, snapshotPrefix)
	if err != nil {
		return nil, fmt.Errorf("list snapshots: %w", err)
	}
	slices.Sort(names)
	slices.Reverse(names)
	return names, nil
}

// Save stores a snapshot and removes all but the newest two that can be read. It
// returns its size in bytes.
func (s *Snapshots) Save(ctx context.Context, snapshot *deliveryv1.Snapshot) (int, error) {
	data, err := encode(snapshot)
	if err != nil {
		return 0, err
	}
	name := nameOf(time.Now())
	if name <= s.newest { // the clock went back
		name = s.newest + "+"
	}
	if err := s.objects.Put(ctx, name, data); err != nil {
		return 0, fmt.Errorf("save snapshot: %w", err)
	}
	s.newest = name
	s.cover(snapshot)
	names, err := s.names(ctx)
	if err != nil {
		return len(data), err
	}
	readable := slices.DeleteFunc(slices.Clone(names), func(name string) bool { return slices.Contains(s.damaged, name) })
	for _, old := range names {
		if slices.Contains(readable[:min(keptSnapshots, len(readable))], old) {
			continue
		}
		if err := s.objects.Delete(ctx, old); err != nil {
			return len(data), fmt.Errorf("remove old snapshot: %w", err)
		}
	}
	return len(data), nil
}

// Loaded notes that a snapshot is the newest one and is of the journal as it is.
func (s *Snapshots) Loaded(snapshot *deliveryv1.Snapshot) { s.cover(snapshot) }

// cover notes up to where the newest snapshot holds all of the journal.
func (s *Snapshots) cover(snapshot *deliveryv1.Snapshot) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.older, s.newer = s.newer, newest(snapshot)
}

// Covered returns the sequence up to which either of the two snapshots that are
// kept holds all that the journal says; 0 while there are no two.
func (s *Snapshots) Covered() uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.older
}

func nameOf(t time.Time) string { return fmt.Sprintf("%s%020d", snapshotPrefix, t.UnixNano()) }

func encode(s *deliveryv1.Snapshot) ([]byte, error) {
	raw, err := proto.Marshal(s)
	if err != nil {
		return nil, fmt.Errorf("encode snapshot: %w", err)
	}
	if len(raw) > maxSnapshot {
		return nil, fmt.Errorf("encode snapshot: %d bytes, and at most %d could be read again", len(raw), maxSnapshot)
	}
	z, err := zstd.NewWriter(nil, zstd.WithEncoderConcurrency(1))
	if err != nil {
		return nil, fmt.Errorf("compress snapshot: %w", err)
	}
	packed := z.EncodeAll(raw, nil)
	if err := z.Close(); err != nil {
		return nil, fmt.Errorf("compress snapshot: %w", err)
	}
	return packed, nil
}

func decode(data []byte) (*deliveryv1.Snapshot, error) {
	z, err := zstd.NewReader(nil, zstd.WithDecoderMaxMemory(maxSnapshot), zstd.WithDecoderConcurrency(1))
	if err != nil {
		return nil, fmt.Errorf("unpack snapshot: %w", err)
	}
	defer z.Close()
	raw, err := z.DecodeAll(data, nil)
	if err != nil {
		return nil, fmt.Errorf("unpack snapshot: %w", err)
	}
	var s deliveryv1.Snapshot
	if err := proto.Unmarshal(raw, &s); err != nil {
		return nil, fmt.Errorf("decode snapshot: %w", err)
	}
	return &s, nil
}
