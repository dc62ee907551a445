package courier

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/tocsin-dev/tocsin/internal/bus"
	"github.com/tocsin-dev/tocsin/internal/servertest"
	alertv1 "github.com/tocsin-dev/tocsin/proto/gen/tocsin/alert/v1"
	"github.com/tocsin-dev/tocsin/services/notifier/internal/delivery"
	"github.com/tocsin-dev/tocsin/services/notifier/internal/journal"
	"github.com/tocsin-dev/tocsin/services/notifier/internal/receiver"
	"github.com/tocsin-dev/tocsin/services/notifier/internal/settings"
)

const patience = 20 * time.Second

// unloaded returns a courier that has not begun.
func unloaded(t *testing.T, conn *bus.Conn, url string, change ...func(*Options)) *Courier {
	t.Helper()
	conf, err := settings.Parse("test.yml", []byte("route: {receiver: ops, group_by: ['...'], group_wait: 0s, group_interval: 10ms}\n"+
		"receivers:\n- name: ops\n  webhook_configs:\n  - url: "+url+"\n"), ".")
	if err != nil {
		t.Fatal(err)
	}
	sender, err := NewSender(conf.Integrations, "Tocsin/test", nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(sender.Close)
	o := Options{
		Conn: conn, Owner: "test", Settings: conf, Sender: sender, Render: receiver.NewWriter(conf.Integrations, "").Write,
		Metrics: NewMetrics(prometheus.NewRegistry()), Log: slog.New(slog.DiscardHandler),
	}
	for _, f := range change {
		f(&o)
	}
	return New(o)
}

// loaded returns a courier that leads but whose loop and writer do not run.
func loaded(t *testing.T, conn *bus.Conn, url string, change ...func(*Options)) *Courier {
	t.Helper()
	c := unloaded(t, conn, url, change...)
	c.attempts = t.Context()
	c.alerts = make(chan delivery.AlertMessage) // so that tests know what was taken
	if _, err := c.load(t.Context()); err != nil {
		t.Fatal(err)
	}
	return c
}

// firing is a message of ALERTS.
func firing(seq uint64, id string) delivery.AlertMessage {
	return delivery.AlertMessage{Seq: seq, Stored: time.Now(), Transitions: []*alertv1.Transition{{
		Id: id, Kind: alertv1.TransitionKind_TRANSITION_KIND_FIRING,
		Alert: &alertv1.Alert{Id: id, Labels: map[string]string{"alertname": id}, FiredAt: timestamppb.Now()},
	}}}
}

func TestASnapshotKnowsNoMoreThanTheJournal(t *testing.T) {
	hook := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	defer hook.Close()
	conn := servertest.NATS(t).Conn(t)
	c := loaded(t, conn, hook.URL)
	c.core.GoLive(time.Now())
	ctx, cancel := context.WithCancel(t.Context())
	helping, dismiss := context.WithTimeout(t.Context(), patience)
	defer dismiss()
	c.attempts, c.cancelAttempts = context.WithCancelCause(helping)
	defer c.cancelAttempts(nil)
	c.apply(time.Now(), firing(1, "a"))
	c.act() // the intent waits in the writer, which does not run
	c.saveDue = true
	ended := make(chan error, 1)
	go func() {
		_, err := c.loop(ctx, helping)
		ended <- err
	}()
	for range 20 { // each round of the loop is a chance to save
		if _, err := c.Active(helping, 0, nil, 0); err != nil {
			t.Fatal(err)
		}
	}
	saved, err := journal.OpenSnapshots(helping, conn, bus.DeliverySnapshotsBucket, c.o.Log)
	if err != nil {
		t.Fatal(err)
	}
	if s, err := saved.Load(helping); s != nil || err != nil {
		t.Fatalf("a snapshot %v, %v was saved while the journal was behind", s, err)
	}
	go func() { _ = c.writer.Run(helping) }()
	var seqs []uint64
	for seqs == nil {
		s, err := saved.Load(helping)
		if err != nil {
			t.Fatal(err)
		}
		seqs = s.GetShardSequences()
	}
	if got := slices.Max(seqs); got <= delivery.Shards {
		t.Errorf("the snapshot is at %d, want to hold the intent after the %d fences", got, delivery.Shards)
	}
	cancel()
	if err := <-ended; err != nil {
		t.Fatal(err)
	}
	if err := c.stop(helping); err != nil || c.unstored != 0 {
		t.Errorf("stopped with %d records that are not stored, %v", c.unstored, err)
	}
}

func TestCatchingUpEndsWithTheLastAlertThatIsKept(t *testing.T) {
	conn := servertest.NATS(t).Conn(t)
	c := loaded(t, conn, "http://127.0.0.1:1")
	if err := c.catchUp(t.Context(), t.Context()); err != nil {
		t.Fatalf("without alerts: %v", err)
	}
	for _, partition := range []string{"7", "63"} {
		if _, err := conn.Publish(t.Context(), bus.Message{Subject: "tocsin.alert." + partition}); err != nil {
			t.Fatal(err)
		}
	}
	c.alertsState.Messages, c.alertsState.LastSeq = 3, 3 // as if a third had been removed since
	c.idle <- struct{}{}                                 // the server is slow
	ended := make(chan error, 1)
	go func() { ended <- c.catchUp(t.Context(), t.Context()) }()
	for seq := range uint64(2) {
		select {
		case err := <-ended:
			t.Fatalf("ended with %v before alert %d was applied", err, seq+1)
		case c.alerts <- firing(seq+1, "a"):
		}
	}
	select {
	case err := <-ended:
		if err != nil || c.core.AlertsSequence() != 2 {
			t.Errorf("ended at %d with %v", c.core.AlertsSequence(), err)
		}
	case <-time.After(patience):
		t.Fatal("it waits for an alert that does not exist")
	}
}

func TestTheOwnersErrorIsNotSwallowed(t *testing.T) {
	broken := errors.New("broken")
	for want, owner := range map[error]error{broken: broken, errDone: nil} {
		var told [2]error // why each helper ended, which may be what is reported
		helper := func(i int) func(context.Context) error {
			return func(ctx context.Context) error {
				<-ctx.Done()
				told[i] = context.Cause(ctx)
				return told[i]
			}
		}
		err := accompany(t.Context(), func(context.Context) error { return owner }, helper(0), helper(1))
		for _, err := range []error{err, told[0], told[1]} {
			if !errors.Is(err, want) {
				t.Errorf("ended with %v, want %v", err, want)
			}
		}
	}
}

func TestAFormerLeaderThatWakesUpStartsNothing(t *testing.T) {
	var valid atomic.Bool
	hook := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	defer hook.Close()
	c := loaded(t, servertest.NATS(t).Conn(t), hook.URL, func(o *Options) { o.Valid = valid.Load })
	c.core.GoLive(time.Now())
	c.apply(time.Now(), firing(1, "a"))
	c.act()
	if n := c.writer.Waiting(); n != 0 || c.running != 0 {
		t.Fatalf("%d records and %d attempts without a valid lease", n, c.running)
	}
	if c.wait() != leaseWait {
		t.Errorf("it waits %v, want a pause", c.wait())
	}
	valid.Store(true)
	c.act()
	if n := c.writer.Waiting(); n != 1 {
		t.Errorf("%d records with a valid lease, want the intent", n)
	}
}
