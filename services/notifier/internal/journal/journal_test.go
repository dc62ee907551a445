package journal

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/alertmanager/config"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/testing/protocmp"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/tocsin-dev/tocsin/internal/bus"
	"github.com/tocsin-dev/tocsin/internal/servertest"
	alertv1 "github.com/tocsin-dev/tocsin/proto/gen/tocsin/alert/v1"
	deliveryv1 "github.com/tocsin-dev/tocsin/proto/gen/tocsin/delivery/v1"
	"github.com/tocsin-dev/tocsin/services/notifier/internal/delivery"
	"github.com/tocsin-dev/tocsin/services/notifier/internal/route"
)

const patience = 20 * time.Second

func newCore(t *testing.T) *delivery.Core {
	t.Helper()
	conf, err := config.Load("route: {receiver: ops}\nreceivers: [{name: ops}]\n")
	if err != nil {
		t.Fatal(err)
	}
	return delivery.New(delivery.Options{
		Table:     route.NewTable(conf.Route, map[string][]route.Integration{"ops": {{Name: "webhook/0"}}}),
		Inhibitor: route.NewInhibitor(nil),
		Render:    func(delivery.Notice) delivery.Body { return delivery.Body{} },
	})
}

func open(t *testing.T, conn *bus.Conn, owner string) (*Journal, *delivery.Core, [delivery.Shards]uint64) {
	t.Helper()
	if _, err := conn.EnsureStream(t.Context(), bus.Deliveries()); err != nil {
		t.Fatal(err)
	}
	j, core := New(conn, owner, slog.New(slog.DiscardHandler)), newCore(t)
	last, err := j.Open(t.Context(), core, 0)
	if err != nil {
		t.Fatal(err)
	}
	return j, core, last
}

// intended is a message to a lane of the given group.
func intended(id, group string) *deliveryv1.Record {
	return &deliveryv1.Record{At: timestamppb.Now(), Fact: &deliveryv1.Record_Intended{Intended: &deliveryv1.Intended{
		Id: id, Lane: &deliveryv1.Lane{Receiver: "ops", Integration: "webhook/0", GroupKey: group},
		Mentions: []*deliveryv1.Mention{{AlertId: id, State: alertv1.AlertState_ALERT_STATE_FIRING, Version: 1}},
		Body:     []byte(strings.Repeat("x", 2000)),
	}}}
}

// pending returns the ids of the messages that a core holds.
func pending(core *delivery.Core) map[string]bool {
	ids := map[string]bool{}
	for _, l := range core.Snapshot(time.Now()).GetLanes() {
		ids[l.GetPending().GetId()] = true
	}
	return ids
}

func TestWhatIsWrittenIsReplayed(t *testing.T) {
	conn := servertest.NATS(t).Conn(t)
	j, _, last := open(t, conn, "first")
	stored := make(chan Stored)
	w := j.Writer(last, stored)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	ended := make(chan error, 1)
	go func() { ended <- w.Run(ctx) }()
	const records = 1500 // about 3 MB: several messages for each shard
	for i := range records {
		group := fmt.Sprint("group", i)
		w.Append(delivery.ShardRecord{Shard: delivery.ShardOf(group), Record: intended(fmt.Sprint("msg", i), group)})
	}
	messages := 0
	for n := 0; n < records; messages++ {
		select {
		case s := <-stored:
			n += len(s.Records)
			if len(s.Records) > maxRecords {
				t.Errorf("%d records in one message", len(s.Records))
			}
		case <-ctx.Done():
			t.Fatalf("%d of %d records stored", n, records)
		}
	}
	if messages == records {
		t.Error("nothing was packed")
	}
	if n := w.Waiting(); n != 0 {
		t.Errorf("%d records wait", n)
	}
	_, core, _ := open(t, conn, "second")
	if got := len(pending(core)); got != records {
		t.Errorf("%d messages replayed, want %d", got, records)
	}
	cancel()
	<-ended
}

func TestAFormerOwnerIsFenced(t *testing.T) {
	conn := servertest.NATS(t).Conn(t)
	j, _, last := open(t, conn, "first")
	stored := make(chan Stored, 1)
	w := j.Writer(last, stored)
	ended := make(chan error, 1)
	go func() { ended <- w.Run(t.Context()) }()
	open(t, conn, "second")
	w.Append(delivery.ShardRecord{Shard: 3, Record: intended("late", "g")})
	select {
	case err := <-ended:
		if !errors.Is(err, ErrFenced) {
			t.Errorf("ended with %v, want to be fenced", err)
		}
	case <-time.After(patience):
		t.Fatal("the former owner goes on")
	}
	_, core, _ := open(t, conn, "third")
	if got := pending(core); got["late"] {
		t.Error("the former owner's record was stored")
	}
}

func TestOpeningReadsWhatAFormerOwnerStillWrote(t *testing.T) {
	conn := servertest.NATS(t).Conn(t)
	j, core, _ := open(t, conn, "first")
	// Between a replay and its fence another record arrives.
	w := &write{conn: conn, shard: 5, last: core.ShardSequences()[5]}
	d, _, err := conn.Last(t.Context(), bus.DeliveriesStream, subject(5))
	if err != nil {
		t.Fatal(err)
	}
	w.last = d.Seq
	if _, _, err := w.store(t.Context(), []*deliveryv1.Record{intended("between", "g")}); err != nil {
		t.Fatal(err)
	}
	if _, err := j.fence(t.Context(), core.ShardSequences(), 0); !errors.Is(err, bus.ErrWrongSequence) {
		t.Errorf("the fence gave %v, want a wrong sequence", err)
	}
	if _, err := j.Open(t.Context(), core, 0); err != nil {
		t.Fatal(err)
	}
	if !pending(core)["between"] {
		t.Error("the record was not read")
	}
}

func TestAWriteWhoseAnswerWasLostIsFound(t *testing.T) {
	nats := servertest.NATS(t)
	proxy := servertest.NewProxy(t, nats.Addr())
	conn := nats.Connect(t, bus.Options{URL: "nats://" + proxy.Addr(), Name: "behind a proxy"})
	if _, err := conn.EnsureStream(t.Context(), bus.Deliveries()); err != nil {
		t.Fatal(err)
	}
	w := &write{conn: conn, shard: 1}
	records := []*deliveryv1.Record{intended("a", "g")}
	data, err := proto.Marshal(&deliveryv1.Batch{Records: records})
	if err != nil {
		t.Fatal(err)
	}
	// The message is there, as after a lost answer; the writer does not know.
	if _, err := nats.Conn(t).PublishExpecting(t.Context(), subject(1), 0, data); err != nil {
		t.Fatal(err)
	}
	seq, _, err := w.store(t.Context(), records)
	if err != nil || seq != 1 || w.last != 1 {
		t.Errorf("sequence %d, last %d, %v: want the message that is there", seq, w.last, err)
	}
	proxy.Cut()
	done := make(chan error, 1)
	go func() {
		_, _, err := w.store(t.Context(), []*deliveryv1.Record{intended("b", "g")})
		done <- err
	}()
	proxy.Heal()
	select {
	case err := <-done:
		if err != nil {
			t.Errorf("after the connection came back: %v", err)
		}
	case <-time.After(patience):
		t.Fatal("the write does not end")
	}
	d, _, err := nats.Conn(t).Last(t.Context(), bus.DeliveriesStream, subject(1))
	if err != nil || d.Seq != 2 {
		t.Errorf("last message %d, %v: want the second, once", d.Seq, err)
	}
}

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
	aged.DeliveriesCreated = timestamppb.New(created().Created.Add(1))
	fit("a journal that was made anew", aged, true, [delivery.Shards]uint64{})
	nats.Call(t, "STREAM.DELETE."+bus.DeliveriesStream, "")
	if _, _, err := w.store(ctx, []*deliveryv1.Record{intended("later", "g")}); !errors.Is(err, ErrCut) {
		t.Errorf("a write to a journal that is gone gave %v, want %v", err, ErrCut)
	}
	if at, err := j.StoredAt(ctx, snapshot); at != nil || err != nil {
		t.Errorf("of a journal that is gone: %v, %v", at, err)
	}
}

// slow is a journal whose server does not speak up before the n-th message for
// long, and loses its newest messages meanwhile.
type slow struct {
	*bus.Conn
	before uint64
	lose   func()
}

func (s *slow) Read(ctx context.Context, o bus.ReadOptions, handle func(bus.Delivery) error) error {
	return s.Conn.Read(ctx, o, func(d bus.Delivery) error {
		if d.Seq == s.before {
			s.lose()
			for range 3 {
				if o.Idle(); ctx.Err() != nil {
					return context.Cause(ctx)
				}
			}
		}
		// It does not know that nothing follows.
		d.Pending = 0
		return handle(d)
	})
}

func TestAReplayEndsWithTheNewestRecordThatIsKept(t *testing.T) {
	const records = 5
	for name, c := range map[string]struct {
		before uint64 // nothing comes for long before this record
		lost   int    // how many of the newest are removed then
		want   int
	}{
		"all are kept":                         {2, 0, records},
		"the newest is gone":                   {2, 1, records - 1},
		"the newest is gone when it is due":    {records, 1, records - 1},
		"all that were not read are gone":      {3, 3, 2},
		"all are gone before any of them came": {1, records, 0},
	} {
		t.Run(name, func(t *testing.T) {
			nats := servertest.NATS(t)
			conn := nats.Conn(t)
			if _, err := conn.EnsureStream(t.Context(), bus.Deliveries()); err != nil {
				t.Fatal(err)
			}
			w := map[int]*write{}
			for i := range records {
				shard := i % 2
				if w[shard] == nil {
					w[shard] = &write{conn: conn, shard: shard}
				}
				if _, _, err := w[shard].store(t.Context(), []*deliveryv1.Record{intended(fmt.Sprint("msg", i), fmt.Sprint("group", i))}); err != nil {
					t.Fatal(err)
				}
			}
			log := &slow{Conn: conn, before: c.before, lose: func() {
				for i := range c.lost {
					nats.Call(t, "STREAM.MSG.DELETE."+bus.DeliveriesStream, fmt.Sprintf(`{"seq":%d}`, records-i))
				}
			}}
			core := newCore(t)
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			defer cancel()
			if err := New(log, "slow", slog.New(slog.DiscardHandler)).replay(ctx, core); err != nil {
				t.Fatal(err)
			}
			if got := len(pending(core)); got != c.want {
				t.Errorf("%d records were replayed, want %d", got, c.want)
			}
		})
	}
}

// TestAShardWhoseLastMessageAgedOutBeginsAnew writes after everything left.
func TestAShardWhoseLastMessageAgedOutBeginsAnew(t *testing.T) {
	conn := servertest.NATS(t).Conn(t)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	_, _, last := open(t, conn, "first")
	if err := conn.PurgeBefore(ctx, bus.DeliveriesStream, last[4]+1); err != nil {
		t.Fatal(err)
	}
	w := &write{conn: conn, shard: 4, last: last[4]}
	if _, _, err := w.store(ctx, []*deliveryv1.Record{intended("a", "g")}); err != nil {
		t.Error(err)
	}
}
