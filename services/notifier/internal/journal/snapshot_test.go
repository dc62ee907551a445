package journal

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/testing/protocmp"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/tocsin-dev/tocsin/internal/bus"
	"github.com/tocsin-dev/tocsin/internal/servertest"
	deliveryv1 "github.com/tocsin-dev/tocsin/proto/gen/tocsin/delivery/v1"
	"github.com/tocsin-dev/tocsin/services/notifier/internal/delivery"
)

func TestSnapshots(t *testing.T) {
	conn := servertest.NATS(t).Conn(t)
	openStore := func() *Snapshots {
		t.Helper()
		s, err := OpenSnapshots(t.Context(), conn, bus.DeliverySnapshotsBucket, slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	s := openStore()
	if got, err := s.Load(t.Context()); got != nil || err != nil {
		t.Fatalf("an empty store has %v, %v", got, err)
	}
	state := func(n uint64) *deliveryv1.Snapshot {
		return &deliveryv1.Snapshot{Format: 1, AlertsSequence: n, ShardSequences: make([]uint64, delivery.Shards)}
	}
	for n := range uint64(4) {
		if _, err := s.Save(t.Context(), state(n)); err != nil {
			t.Fatal(err)
		}
	}
	names, err := openStore().names(t.Context())
	if err != nil || len(names) != keptSnapshots {
		t.Errorf("%d snapshots are kept, %v: want %d", len(names), err, keptSnapshots)
	}
	got, err := openStore().Load(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(state(3), got, protocmp.Transform()); diff != "" {
		t.Error(diff)
	}

	objects, err := conn.Objects(t.Context(), bus.DeliverySnapshotsBucket)
	if err != nil {
		t.Fatal(err)
	}
	if err := objects.Put(t.Context(), names[0], []byte("not a snapshot")); err != nil {
		t.Fatal(err)
	}
	if got, err := openStore().Load(t.Context()); err != nil || got.GetAlertsSequence() != 2 {
		t.Errorf("beside a broken snapshot: %v, %v, want the older one", got.GetAlertsSequence(), err)
	}

	// A broken one does not take the place of one that can be read.
	beside := openStore()
	if _, err := beside.Load(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := beside.Save(t.Context(), state(4)); err != nil {
		t.Fatal(err)
	}
	kept, err := openStore().names(t.Context())
	if err != nil || len(kept) != keptSnapshots || kept[1] != names[1] {
		t.Errorf("kept are %q, %v, want a new one and %q", kept, err, names[1])
	}

	// A clock that went back does not make a new snapshot an old one.
	ahead := openStore()
	ahead.newest = nameOf(time.Now().Add(time.Hour))
	if _, err := ahead.Save(t.Context(), state(9)); err != nil {
		t.Fatal(err)
	}
	if got, err := openStore().Load(t.Context()); err != nil || got.GetAlertsSequence() != 9 {
		t.Errorf("after the clock went back: %v, %v, want the last one saved", got.GetAlertsSequence(), err)
	}
}

// TestASnapshotForgetsWhatTheJournalLost puts the journal back to what it was
// before the snapshot, and writes on.
func TestASnapshotForgetsWhatTheJournalLost(t *testing.T) {
	nats := servertest.NATS(t)
	conn := nats.Conn(t)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	j, _, last := open(t, conn, "first")
	writeTo := func(shard int, id string) uint64 {
		t.Helper()
		w := &write{conn: conn, shard: shard, last: last[shard]}
		seq, _, err := w.store(ctx, []*deliveryv1.Record{intended(id, "g")})
		if err != nil {
			t.Fatal(err)
		}
		last[shard] = seq
		return seq
	}
	created := func() bus.StreamState {
		t.Helper()
		state, err := conn.StreamState(ctx, bus.DeliveriesStream)
		if err != nil {
			t.Fatal(err)
		}
		return state
	}
	take := func() *deliveryv1.Snapshot {
		t.Helper()
		s := &deliveryv1.Snapshot{DeliveriesCreated: timestamppb.New(created().Created), ShardSequences: slices.Clone(last[:])}
		var err error
		if s.DeliveriesStoredAt, err = j.StoredAt(ctx, s); err != nil || s.GetDeliveriesStoredAt() == nil {
			t.Fatalf("stored at %v, %v", s.GetDeliveriesStoredAt(), err)
		}
		return s
	}
	fit := func(what string, s *deliveryv1.Snapshot, other bool, want [delivery.Shards]uint64) {
		t.Helper()
		got, err := j.Fit(ctx, s, created())
		if err != nil || got != other {
			t.Errorf("%s: another journal %v, %v; want %v", what, got, err, other)
		}
		if other && s.GetDeliveriesSequence() != 0 {
			t.Errorf("%s: all up to %d is taken for known", what, s.GetDeliveriesSequence())
		}
		if diff := cmp.Diff(want[:], s.GetShardSequences()); diff != "" {
			t.Errorf("%s (-want +got):\n%s", what, diff)
		}
	}

	writeTo(3, "kept")
	kept := last
	backup := nats.Backup(t)
	fit("a journal that is whole", take(), false, kept)
	writeTo(3, "lost")
	writeTo(5, "lost too")
	snapshot := take()
	snapshot.DeliveriesSequence = newest(snapshot)
	nats.Stop()
	backup.Restore(t)
	nats.Start(t)
	fit("a journal that was cut", proto.CloneOf(snapshot), true, kept)

	// A writer that knows more notices it as well.
	w := &write{conn: conn, shard: 5, last: last[5]}
	if _, _, err := w.store(ctx, []*deliveryv1.Record{intended("late", "g")}); !errors.Is(err, ErrCut) {
		t.Errorf("a write after the cut gave %v, want %v", err, ErrCut)
	}
	last = kept
	for range 3 {
		writeTo(7, "again") // to sequences that were in the journal before
	}
	wanted := kept
	fit("a journal that grew again", proto.CloneOf(snapshot), true, wanted)
	if err := conn.PurgeBefore(ctx, bus.DeliveriesStream, created().LastSeq); err != nil {
		t.Fatal(err)
	}
	aged := proto.CloneOf(snapshot)
	aged.ShardSequences, aged.DeliveriesStoredAt = slices.Clone(kept[:]), nil
	fit("a journal whose oldest left", aged, false, kept)
	aged.DeliveriesCreated, aged.DeliveriesSequence = timestamppb.New(created().Created.Add(1)), 7
	fit("a journal that was made anew", aged, true, [delivery.Shards]uint64{})
	nats.Call(t, "STREAM.DELETE."+bus.DeliveriesStream, "")
	if _, _, err := w.store(ctx, []*deliveryv1.Record{intended("later", "g")}); !errors.Is(err, ErrCut) {
		t.Errorf("a write to a journal that is gone gave %v, want %v", err, ErrCut)
	}
	if at, err := j.StoredAt(ctx, snapshot); at != nil || err != nil {
		t.Errorf("of a journal that is gone: %v, %v", at, err)
	}
}
