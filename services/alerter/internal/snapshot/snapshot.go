// Package snapshot keeps the root of each partition's state: whole states,
// compressed, in an object store, from which the log is replayed.
//
// A snapshot is named after its partition, its log and the sequence that it
// reaches there. It is true at that place whoever wrote it, so that a writer
// that was replaced in the middle does no harm. Pruning leaves two of each
// partition: the one that was just saved and the newest of the others. A stop is
// in too much of a hurry to prune, so that there may be one more until the next
// load.
package snapshot

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/klauspost/compress/zstd"
	"google.golang.org/protobuf/proto"

	"github.com/tocsin-dev/tocsin/internal/bus"
	statev1 "github.com/tocsin-dev/tocsin/proto/gen/tocsin/state/v1"
)

// Format is the version of what this package writes.
const Format = 1

const (
	// Kept is how many snapshots of a partition are kept: the second is for the
	// day on which the first cannot be read.
	Kept = 2
	// loadTimeout bounds the reading of one snapshot: 16 MB at 1 MB/s and a half.
	loadTimeout = 30 * time.Second
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

// Ref says which snapshot of a partition is meant.
type Ref struct {
	// LogID is the log that was folded. Ids of younger logs sort after others.
	LogID string
	// Seq is the last sequence of that log that it holds.
	Seq uint64
}

// RefOf returns where Save stores a snapshot.
func RefOf(snap *statev1.StoredSnapshot) Ref {
	return Ref{snap.GetPosition().GetLogId(), snap.GetPosition().GetAppliedSequence()}
}

// Save stores a snapshot.
func (s *Store) Save(ctx context.Context, partition int, snap *statev1.StoredSnapshot) error {
	snap.Format = Format
	raw, err := proto.Marshal(snap)
	if err != nil {
		return fmt.Errorf("encode snapshot of partition %d: %w", partition, err)
	}
	name := nameOf(partition, RefOf(snap))
	if err := s.objects.Put(ctx, name, s.encoder.EncodeAll(raw, nil)); err != nil {
		return fmt.Errorf("save snapshot %s: %w", name, err)
	}
	return nil
}

// Prune removes all snapshots of a partition but the one just saved and the
// newest of the others. It is apart from Save, which may be in a hurry when a
// process ends.
func (s *Store) Prune(ctx context.Context, partition int, saved Ref) error {
	refs, err := s.List(ctx, partition)
	if err != nil {
		return err
	}
	others := slices.DeleteFunc(refs, func(r Ref) bool { return r == saved })
	return s.Remove(ctx, partition, others[min(Kept-1, len(others)):])
}

// Remove removes snapshots of a partition.
func (s *Store) Remove(ctx context.Context, partition int, refs []Ref) error {
	for _, ref := range refs {
		if err := s.objects.Delete(ctx, nameOf(partition, ref)); err != nil {
			return fmt.Errorf("remove old snapshot %s: %w", nameOf(partition, ref), err)
		}
	}
	return nil
}

// List returns a partition's snapshots, those of the youngest log and the
// highest sequence first.
func (s *Store) List(ctx context.Context, partition int) ([]Ref, error) {
	all, err := s.list(ctx, prefixOf(partition))
	return all[partition], err
}

// Older returns, by partition, the sequence of the older of its two snapshots
// of a log: history before it is not needed by that partition. A partition that
// has fewer than two is missing.
func (s *Store) Older(ctx context.Context, logID string) (map[int]uint64, error) {
	all, err := s.list(ctx, "")
	if err != nil {
		return nil, err
	}
	older := map[int]uint64{}
	for partition, refs := range all {
		ours := slices.DeleteFunc(refs, func(r Ref) bool { return r.LogID != logID })
		if len(ours) >= Kept {
			older[partition] = ours[Kept-1].Seq
		}
	}
	return older, nil
}

// list returns snapshots by partition, newest first.
func (s *Store) list(ctx context.Context, prefix string) (map[int][]Ref, error) {
	names, err := s.objects.List(ctx, prefix)
	if err != nil {
		return nil, fmt.Errorf("list snapshots: %w", err)
	}
	all := map[int][]Ref{}
	for _, name := range slices.Backward(names) { // names sort by log and sequence
		if partition, ref, ok := parse(name); ok {
			all[partition] = append(all[partition], ref)
		}
	}
	return all, nil
}

// Load reads a snapshot. It returns an error wrapping ErrUnreadable when the
// snapshot is damaged or gone, and ErrNewer when this release cannot read it.
func (s *Store) Load(ctx context.Context, partition int, ref Ref) (*statev1.StoredSnapshot, error) {
	name := nameOf(partition, ref)
	bounded, cancel := context.WithTimeoutCause(ctx, loadTimeout, errNoAnswer)
	defer cancel()
	packed, ok, err := s.objects.Get(bounded, name)
	switch {
	case errors.Is(err, bus.ErrDamaged):
		return nil, fmt.Errorf("load snapshot %s: %w: %w", name, ErrUnreadable, err)
	case err != nil: // nothing is known of it, and another attempt may find it
		return nil, fmt.Errorf("load snapshot %s: %w", name, err)
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
	if snap.GetFormat() != Format || RefOf(snap) != ref {
		return nil, fmt.Errorf("load snapshot %s: %w: it says format %d, log %q, sequence %d", name, ErrUnreadable,
			snap.GetFormat(), snap.GetPosition().GetLogId(), snap.GetPosition().GetAppliedSequence())
	}
	return snap, nil
}

// errNoAnswer says that the store did not answer in time.
var errNoAnswer = errors.New("the object store does not answer")

func prefixOf(partition int) string { return fmt.Sprintf("p%02d/", partition) }

// nameOf pads the sequence, so that names sort as logs and sequences do.
func nameOf(partition int, ref Ref) string {
	return fmt.Sprintf("%s%s/%020d", prefixOf(partition), ref.LogID, ref.Seq)
}

func parse(name string) (partition int, ref Ref, ok bool) {
	before, rest, _ := strings.Cut(name, "/")
	logID, after, _ := strings.Cut(rest, "/")
	partition, err := strconv.Atoi(strings.TrimPrefix(before, "p"))
	if err != nil {
		return 0, Ref{}, false
	}
	seq, err := strconv.ParseUint(after, 10, 64)
	ref = Ref{logID, seq}
	return partition, ref, err == nil && nameOf(partition, ref) == name
}
