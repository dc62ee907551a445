// Package snapshot keeps the root of each partition's state: whole states,
// compressed, in an object store, from which the log is replayed.
//
// A snapshot is named after its partition and the sequence that it reaches. It
// is true at that sequence whoever wrote it, so that a writer that was replaced
// in the middle does no harm. The newest two of each partition are kept.
package snapshot

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/klauspost/compress/zstd"
	"google.golang.org/protobuf/proto"

	statev1 "github.com/tocsin-dev/tocsin/proto/gen/tocsin/state/v1"
)

// Format is the version of what this package writes.
const Format = 1

const (
	// Kept is how many snapshots of a partition are kept: the second is for the
	// day on which the first cannot be read.
	Kept = 2
	// maxSize bounds a snapshot when it is unpacked. 100,000 targets of 10 KiB in
	// 64 partitions make 16 MB; 1 GiB is no state of ours.
	maxSize = 1 << 30
)

var (
	// ErrUnreadable says that a snapshot is damaged or gone.
	ErrUnreadable = errors.New("the snapshot cannot be read")
	// ErrNewer says that a newer release wrote a snapshot.
	ErrNewer = errors.New("the snapshot is of a newer release")
)

// Objects is a store of named blobs.
type Objects interface {
	// Put stores data under name.
	Put(ctx context.Context, name string, data []byte) error
	// Get returns the content of name; ok is false when there is none.
	Get(ctx context.Context, name string) (data []byte, ok bool, err error)
	// List returns the names that begin with prefix, sorted.
	List(ctx context.Context, prefix string) ([]string, error)
	// Delete removes name.
	Delete(ctx context.Context, name string) error
}

// Store keeps snapshots. It is safe for concurrent use.
type Store struct {
	objects Objects
	encoder *zstd.Encoder
	decoder *zstd.Decoder
}

// NewStore returns a Store over objects.
func NewStore(objects Objects) (*Store, error) {
	encoder, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithEncoderConcurrency(1))
	if err != nil {
		return nil, fmt.Errorf("make an encoder: %w", err)
	}
	decoder, err := zstd.NewReader(nil, zstd.WithDecoderMaxMemory(maxSize), zstd.WithDecoderConcurrency(1))
	if err != nil {
		return nil, fmt.Errorf("make a decoder: %w", err)
	}
	return &Store{objects: objects, encoder: encoder, decoder: decoder}, nil
}

// Save stores a snapshot.
func (s *Store) Save(ctx context.Context, partition int, snap *statev1.StoredSnapshot) error {
	snap.Format = Format
	raw, err := proto.Marshal(snap)
	if err != nil {
		return fmt.Errorf("encode snapshot of partition %d: %w", partition, err)
	}
	name := nameOf(partition, snap.GetPosition().GetAppliedSequence())
	if err := s.objects.Put(ctx, name, s.encoder.EncodeAll(raw, nil)); err != nil {
		return fmt.Errorf("save snapshot %s: %w", name, err)
	}
	return nil
}

// Prune removes all but the newest two snapshots of a partition. It is apart
// from Save, which may be in a hurry when a process ends.
func (s *Store) Prune(ctx context.Context, partition int) error {
	sequences, err := s.List(ctx, partition)
	if err != nil {
		return err
	}
	return s.Remove(ctx, partition, sequences[min(Kept, len(sequences)):])
}

// Remove removes snapshots of a partition.
func (s *Store) Remove(ctx context.Context, partition int, sequences []uint64) error {
	for _, seq := range sequences {
		if err := s.objects.Delete(ctx, nameOf(partition, seq)); err != nil {
			return fmt.Errorf("remove old snapshot %s: %w", nameOf(partition, seq), err)
		}
	}
	return nil
}

// List returns the sequences of a partition's snapshots, newest first.
func (s *Store) List(ctx context.Context, partition int) ([]uint64, error) {
	all, err := s.list(ctx, prefixOf(partition))
	return all[partition], err
}

// Older returns, by partition, the sequence of the older of its two snapshots:
// history before it is not needed by that partition. A partition that has
// fewer than two is missing.
func (s *Store) Older(ctx context.Context) (map[int]uint64, error) {
	all, err := s.list(ctx, "")
	if err != nil {
		return nil, err
	}
	older := map[int]uint64{}
	for partition, sequences := range all {
		if len(sequences) >= Kept {
			older[partition] = sequences[Kept-1]
		}
	}
	return older, nil
}

// list returns sequences by partition, newest first.
func (s *Store) list(ctx context.Context, prefix string) (map[int][]uint64, error) {
	names, err := s.objects.List(ctx, prefix)
	if err != nil {
		return nil, fmt.Errorf("list snapshots: %w", err)
	}
	all := map[int][]uint64{}
	for _, name := range slices.Backward(names) { // names sort by sequence
		if partition, seq, ok := parse(name); ok {
			all[partition] = append(all[partition], seq)
		}
	}
	return all, nil
}

// Load reads a snapshot. It returns an error wrapping ErrUnreadable when the
// snapshot is damaged or gone, and ErrNewer when this release cannot read it.
func (s *Store) Load(ctx context.Context, partition int, seq uint64) (*statev1.StoredSnapshot, error) {
	name := nameOf(partition, seq)
	packed, ok, err := s.objects.Get(ctx, name)
	switch {
	case ctx.Err() != nil:
		return nil, fmt.Errorf("load snapshot %s: %w", name, ctx.Err())
	case err != nil: // the store's digest did not match
		return nil, fmt.Errorf("load snapshot %s: %w: %w", name, ErrUnreadable, err)
	case !ok:
		return nil, fmt.Errorf("load snapshot %s: %w: it is gone", name, ErrUnreadable)
	}
	raw, err := s.decoder.DecodeAll(packed, nil)
	if err != nil {
		return nil, fmt.Errorf("unpack snapshot %s: %w: %w", name, ErrUnreadable, err)
	}
	snap := new(statev1.StoredSnapshot)
	if err := proto.Unmarshal(raw, snap); err != nil {
		return nil, fmt.Errorf("decode snapshot %s: %w: %w", name, ErrUnreadable, err)
	}
	if snap.GetFormat() > Format {
		return nil, fmt.Errorf("load snapshot %s: %w", name, ErrNewer)
	}
	if snap.GetFormat() != Format || snap.GetPosition().GetAppliedSequence() != seq {
		return nil, fmt.Errorf("load snapshot %s: %w: it says format %d, sequence %d", name, ErrUnreadable,
			snap.GetFormat(), snap.GetPosition().GetAppliedSequence())
	}
	return snap, nil
}

func prefixOf(partition int) string { return fmt.Sprintf("p%02d/", partition) }

// nameOf pads the sequence, so that names sort as sequences do.
func nameOf(partition int, seq uint64) string {
	return fmt.Sprintf("%s%020d", prefixOf(partition), seq)
}

func parse(name string) (partition int, seq uint64, ok bool) {
	before, after, _ := strings.Cut(name, "/")
	partition, err := strconv.Atoi(strings.TrimPrefix(before, "p"))
	if err != nil {
		return 0, 0, false
	}
	seq, err = strconv.ParseUint(after, 10, 64)
	return partition, seq, err == nil && nameOf(partition, seq) == name
}
