package eventlog_test

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/tocsin-dev/tocsin/internal/bus"
	"github.com/tocsin-dev/tocsin/internal/event"
	"github.com/tocsin-dev/tocsin/internal/servertest"
	"github.com/tocsin-dev/tocsin/services/alerter/internal/eventlog"
	"github.com/tocsin-dev/tocsin/services/alerter/internal/feed"
)

const patience = 20 * time.Second

// readable is a log that can be read.
type readable struct {
	*eventlog.Reader
	t      *testing.T
	server *servertest.NATSServer
	conn   *bus.Conn
	log    *eventlog.Log
}

func newReadable(t *testing.T) *readable {
	t.Helper()
	r := &readable{t: t, server: servertest.NATS(t)}
	r.conn = r.server.Conn(t)
	bucket, err := r.conn.Bucket(t.Context(), bus.BucketConfig{Name: "tocsin-meta"})
	if err != nil {
		t.Fatal(err)
	}
	r.log, err = eventlog.Open(t.Context(), r.conn, bus.Events(64<<20), bucket, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	r.Reader = eventlog.NewReader(r.conn, r.log)
	return r
}

// publish stores a tick for each of the partitions.
func (r *readable) publish(partitions ...int) {
	r.t.Helper()
	for _, p := range partitions {
		if _, err := r.conn.Publish(r.t.Context(), bus.Message{Subject: event.PartitionSubject(p, event.KindTick)}); err != nil {
			r.t.Fatal(err)
		}
	}
}

func TestAReaderKnowsWhatIsThere(t *testing.T) {
	r := newReadable(t)
	r.publish(3, 4, 3, 4, 4)
	newest := func(partition int, want uint64) {
		t.Helper()
		if got, err := r.Newest(t.Context(), partition); err != nil || got != want {
			t.Errorf("newest of partition %d is %d, %v; want %d", partition, got, err, want)
		}
	}
	kept := func(want feed.Kept) {
		t.Helper()
		got, err := r.Kept(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("what is kept (-want +got):\n%s", diff)
		}
	}
	newest(3, 3)
	newest(4, 5)
	newest(5, 0)
	kept(feed.Kept{First: 1})
	if err := r.conn.PurgeBefore(t.Context(), eventlog.Stream, 2); err != nil {
		t.Fatal(err)
	}
	kept(feed.Kept{First: 2})
	r.server.Call(t, "STREAM.MSG.DELETE."+eventlog.Stream, `{"seq":3}`)
	newest(3, 0)
	kept(feed.Kept{First: 2, Removed: []uint64{3}})
	r.server.Call(t, "STREAM.MSG.DELETE."+eventlog.Stream, `{"seq":2}`) // with the one after it, the beginning
	kept(feed.Kept{First: 4})

	var got []uint64
	enough := errors.New("enough")
	err := r.Read(t.Context(), feed.Reading{Log: r.ID(), Partition: 4, From: 1}, func(d bus.Delivery) error {
		if got = append(got, d.Seq); len(got) == 2 {
			return enough
		}
		return nil
	})
	if !errors.Is(err, enough) {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]uint64{4, 5}, got); diff != "" {
		t.Errorf("read of one partition (-want +got):\n%s", diff)
	}
	if seq, at, err := r.End(t.Context()); seq != 5 || at.IsZero() || err != nil {
		t.Errorf("the end is %d, %v, %v", seq, at, err)
	}
}

// TestAJoinAtTheMomentOfACutHidesNothing has a partition join while the server
// is away and its log is put back. The read that the join begins must not take
// what grew in the place of what was lost for what follows.
func TestAJoinAtTheMomentOfACutHidesNothing(t *testing.T) {
	for name, behind := range map[string]bus.Mark{
		"of one that the shared reader goes back for": {Seq: 2},
		"of one that has applied nothing":             {},
	} {
		t.Run(name, func(t *testing.T) {
			r := newReadable(t)
			r.publish(1, 2, 1, 2, 1)
			backup := r.server.Backup(t)
			r.publish(1, 2, 1, 2, 1) // 6 to 10
			if behind.Seq > 0 {
				d, _, err := r.conn.At(t.Context(), eventlog.Stream, behind.Seq)
				if err != nil {
					t.Fatal(err)
				}
				behind.Time = d.Time
			}
			f := feed.New(r, slog.New(slog.DiscardHandler), nil)
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			ended := make(chan error, 1)
			go func() { ended <- f.Run(ctx) }()
			defer func() {
				cancel()
				<-ended
			}()
			id, changed := r.log.Changed()
			one := f.Join(1, id, bus.Mark{})
			for range 6 { // 1, 3, 5, 6, 8, 10
				<-one.C()
			}
			r.server.Stop()
			backup.Restore(t)
			two := f.Join(2, id, behind)
			defer two.Leave()
			r.server.Start(t)
			r.publish(2, 2, 2, 2, 2, 2, 2, 2) // 6 to 13
			select {
			case <-changed:
			case <-ctx.Done():
				t.Fatal("nobody noticed that the log was cut")
			}
			for len(two.C()) > 0 {
				if item := <-two.C(); item.Seq > 5 {
					t.Errorf("message %d, which grew after the cut, was handed over", item.Seq)
				}
			}
		})
	}
}

// TestAPartitionFarBehindCatchesUpByItself has the feed read a partition whose
// messages are few and old, while the log grows.
func TestAPartitionFarBehindCatchesUpByItself(t *testing.T) {
	r := newReadable(t)
	const old, ofIts, later = 24_000, 600, 50 // every 40th is the partition's
	p := r.conn.NewPublisher(bus.PublisherOptions{})
	defer p.Close()
	for i := range old {
		partition := 1
		if i%(old/ofIts) == 0 {
			partition = 2
		}
		if err := p.Publish(t.Context(), bus.Message{Subject: event.PartitionSubject(partition, event.KindTick)}); err != nil {
			t.Fatal(err)
		}
	}
	if err := p.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	seq, at, err := r.End(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	registry := prometheus.NewRegistry()
	f := feed.New(r, slog.New(slog.DiscardHandler), registry)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	ended := make(chan error, 1)
	go func() { ended <- f.Run(ctx) }()
	defer func() {
		cancel()
		<-ended
	}()
	one := f.Join(1, r.ID(), bus.Mark{Seq: seq, Time: at})
	r.publish(1)
	<-one.C()
	two := f.Join(2, r.ID(), bus.Mark{})
	go func() {
		for i := range 2 * later {
			subject := event.PartitionSubject(1+i%2, event.KindTick)
			if _, err := r.conn.Publish(ctx, bus.Message{Subject: subject}); err != nil {
				t.Errorf("publish: %v", err)
			}
		}
	}()
	var got []uint64
	for len(got) < ofIts+later {
		select {
		case item := <-two.C():
			if item.Missed {
				t.Errorf("something was missed before %d", item.Seq)
			}
			got = append(got, item.Seq)
		case <-one.C():
		case <-ctx.Done():
			t.Fatalf("it got %d messages, want %d", len(got), ofIts+later)
		}
	}
	if !slices.IsSorted(got) || len(slices.Compact(got)) != ofIts+later {
		t.Error("they are out of order, or some came twice")
	}
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, family := range families {
		want, ok := map[string]float64{
			"tocsin_alerter_feed_own_readers_total": 1, "tocsin_alerter_feed_reads_total": 1,
		}[family.GetName()]
		if got := family.GetMetric()[0].GetCounter().GetValue(); ok && got != want {
			t.Errorf("%s is %v, want %v", family.GetName(), got, want)
		}
	}
}
