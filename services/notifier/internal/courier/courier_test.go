package courier

import (
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/tocsin-dev/tocsin/internal/bus"
	"github.com/tocsin-dev/tocsin/internal/servertest"
	alertv1 "github.com/tocsin-dev/tocsin/proto/gen/tocsin/alert/v1"
	"github.com/tocsin-dev/tocsin/services/notifier/internal/delivery"
	"github.com/tocsin-dev/tocsin/services/notifier/internal/receiver"
	"github.com/tocsin-dev/tocsin/services/notifier/internal/settings"
)

const patience = 20 * time.Second

// loaded returns a courier that leads but whose loop and writer do not run.
func loaded(t *testing.T, conn *bus.Conn, url string, change ...func(*Options)) *Courier {
	t.Helper()
	conf, err := settings.Parse("test.yml", []byte("route: {receiver: ops, group_by: ['...'], group_wait: 0s}\n"+
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
		Metrics: NewMetrics(prometheus.NewRegistry()), Log: slog.New(slog.NewTextHandler(io.Discard, nil)),
	}
	for _, f := range change {
		f(&o)
	}
	c := New(o)
	c.attempts = t.Context()
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
