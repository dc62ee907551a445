package journal

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/alertmanager/config"
	"google.golang.org/protobuf/proto"
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
	last, err := j.Open(t.Context(), core, 0, 0)
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
	if _, err := j.Open(t.Context(), core, 0, 0); err != nil {
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
