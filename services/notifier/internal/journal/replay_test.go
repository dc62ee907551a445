package journal

import (
	"context"
	"fmt"
	"log/slog"
	"testing"
	"time"

	"github.com/tocsin-dev/tocsin/internal/bus"
	"github.com/tocsin-dev/tocsin/internal/servertest"
	deliveryv1 "github.com/tocsin-dev/tocsin/proto/gen/tocsin/delivery/v1"
)

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
			if err := New(log, "slow", slog.New(slog.DiscardHandler)).replay(ctx, core, 0); err != nil {
				t.Fatal(err)
			}
			if got := len(pending(core)); got != c.want {
				t.Errorf("%d records were replayed, want %d", got, c.want)
			}
		})
	}
}

// counting is a journal that counts what is read of it.
type counting struct {
	*bus.Conn
	read int
}

func (c *counting) Read(ctx context.Context, o bus.ReadOptions, handle func(bus.Delivery) error) error {
	return c.Conn.Read(ctx, o, func(d bus.Delivery) error {
		c.read++
		return handle(d)
	})
}

func TestAShardThatIsQuietForLongCostsNoLongReplay(t *testing.T) {
	conn := servertest.NATS(t).Conn(t)
	_, first, last := open(t, conn, "first")
	busy := &write{conn: conn, shard: 4, last: last[4]}
	write := func(n int, prefix string) {
		t.Helper()
		for i := range n {
			id := fmt.Sprint(prefix, i)
			records := []*deliveryv1.Record{intended(id, id)}
			seq, _, err := busy.store(t.Context(), records)
			if err != nil {
				t.Fatal(err)
			}
			first.ApplyJournal(4, seq, records)
		}
	}
	write(50, "old")
	snapshot := first.Snapshot(time.Now())
	snapshot.DeliveriesSequence = newest(snapshot)
	write(3, "new")

	log, core := &counting{Conn: conn}, newCore(t)
	if err := core.Restore(snapshot); err != nil {
		t.Fatal(err)
	}
	if _, err := New(log, "third", slog.New(slog.DiscardHandler)).Open(t.Context(), core, snapshot.GetDeliveriesSequence(), 0); err != nil {
		t.Fatal(err)
	}
	if got := len(pending(core)); got != 53 {
		t.Errorf("%d messages are pending, want 53", got)
	}
	if log.read != 3 {
		t.Errorf("%d messages were read, want the 3 that the snapshot lacks", log.read)
	}
}
