package alerter_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/tocsin-dev/tocsin/internal/bus"
	"github.com/tocsin-dev/tocsin/internal/event"
	"github.com/tocsin-dev/tocsin/internal/rpc"
	"github.com/tocsin-dev/tocsin/internal/servertest"
	eventv1 "github.com/tocsin-dev/tocsin/proto/gen/tocsin/event/v1"
	queryv1 "github.com/tocsin-dev/tocsin/proto/gen/tocsin/query/v1"
	"github.com/tocsin-dev/tocsin/services/alerter"
)

// patience is how long a test waits for what must happen.
const patience = 30 * time.Second

const testRules = `
groups:
  - name: test
    rules:
      - alert: QueueHigh
        on: endpoint
        expr: jobs.in_queue > 10
        labels: {severity: critical}

        annotations: {summary: "{{ $value }} jobs wait"}
      - alert: QueueLong
        on: endpoint
        expr: jobs.in_queue > 5
        for: 1h
        labels: {severity: warning}

`

// world is all that an alerter stands on, but the alerter.
type world struct {
	t        *testing.T
	nats     *servertest.NATSServer
	redis    *servertest.RedisServer
	conn     *bus.Conn
	notifier *notifier
	rules    string

	mu   sync.Mutex
	slot int64 // guarded by mu; the last poll slot used
}

func newWorld(t *testing.T) *world {
	t.Helper()
	if testing.Short() {
		t.Skip("it needs NATS and Redis, and takes seconds")
	}
	w := &world{t: t, nats: servertest.NATS(t), redis: servertest.Redis(t), notifier: newNotifier(t), rules: testRules}
	w.conn = w.nats.Conn(t)
	if _, err := w.conn.EnsureStream(t.Context(), bus.Events(0)); err != nil {
		t.Fatal(err)
	}
	return w
}

// options are those of an alerter in this world.
func (w *world) options() alerter.Options {
	o := alerter.DefaultOptions()
	o.NATS.URL = w.nats.URL()
	o.Redis.Address = w.redis.Addr()
	o.Notifier.Address = w.notifier.address
	o.RuleFiles = map[string][]byte{"test.yaml": []byte(w.rules)}
	o.GRPCAddress, o.HTTPAddress = "127.0.0.1:0", "127.0.0.1:0"
	if os.Getenv("TOCSIN_TEST_LOG") != "" {
		o.Log = slog.New(slog.NewTextHandler(os.Stderr, nil))
	}
	return o
}

// running is an alerter that runs.
type running struct {
	t       *testing.T
	world   *world
	cancel  context.CancelFunc
	done    chan error
	address alerter.Addresses
	metrics *prometheus.Registry
}

// start runs an alerter and waits until it works.
func (w *world) start(change ...func(*alerter.Options)) *running {
	w.t.Helper()
	o := w.options()
	for _, f := range change {
		f(&o)
	}
	r := &running{t: w.t, world: w, done: make(chan error, 1), metrics: prometheus.NewRegistry()}
	o.Registerer = r.metrics
	ready := make(chan alerter.Addresses, 1)
	o.Ready = func(a alerter.Addresses) { ready <- a }
	ctx, cancel := context.WithCancel(context.Background())
	r.cancel = cancel
	go func() { r.done <- alerter.Run(ctx, o) }()
	w.t.Cleanup(func() { r.stop() })
	select {
	case r.address = <-ready:
	case err := <-r.done:
		r.done <- nil
		w.t.Fatalf("the alerter did not start: %v", err)
	case <-time.After(patience):
		w.t.Fatal("the alerter is not ready")
	}
	return r
}

// stop stops the alerter as Ctrl-C does.
func (r *running) stop() {
	r.t.Helper()
	r.cancel()
	select {
	case err := <-r.done:
		r.done <- nil
		if err != nil {
			r.t.Errorf("the alerter stopped with: %v", err)
		}
	case <-time.After(patience):
		r.t.Error("the alerter does not stop")
	}
}

// query returns a client of the alerter.
func (r *running) query() queryv1.QueryServiceClient {
	r.t.Helper()
	conn, err := rpc.Dial(r.address.GRPC, rpc.DialOptions{})
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { conn.Close() })
	return queryv1.NewQueryServiceClient(conn)
}

// serves waits until gRPC's health service says this of the alerter as a whole and
// of its questions.
func (r *running) serves(want string) {
	r.t.Helper()
	conn, err := rpc.Dial(r.address.GRPC, rpc.DialOptions{})
	if err != nil {
		r.t.Fatal(err)
	}
	defer conn.Close()
	for _, service := range []string{"", "tocsin.query.v1.QueryService"} {
		eventually(r.t, fmt.Sprintf("the health of %q", service), func() error {
			out, err := healthpb.NewHealthClient(conn).Check(r.t.Context(), &healthpb.HealthCheckRequest{Service: service})
			if err == nil && out.GetStatus().String() != want {
				err = fmt.Errorf("%v, want %v", out.GetStatus(), want)
			}
			return err
		})
	}
}

// metric sums the values of a metric whose labels contain all of these.
func (r *running) metric(name string, labels ...string) float64 {
	r.t.Helper()
	families, err := r.metrics.Gather()
	if err != nil {
		r.t.Fatal(err)
	}
	sum := 0.0
	for _, f := range families {
		if f.GetName() != name {
			continue
		}
		for _, m := range f.GetMetric() {
			text := fmt.Sprint(m.GetLabel())
			matches := true
			for _, l := range labels {
				matches = matches && strings.Contains(text, `"`+l+`"`)
			}
			if matches {
				sum += m.GetCounter().GetValue() + m.GetGauge().GetValue()
			}
		}
	}
	return sum
}

// await waits until all partitions were loaded.
func (r *running) await(partitions float64) *running {
	r.t.Helper()
	eventually(r.t, fmt.Sprintf("%v partitions loaded", partitions), func() error {
		if n := r.metric("tocsin_alerter_partitions_owned"); n != partitions {
			return fmt.Errorf("%v are owned", n)
		}
		if n := r.metric("tocsin_alerter_loads_total"); n < partitions {
			return fmt.Errorf("%v loads", n)
		}
		return nil
	})
	return r
}

// inForce waits until the first alerter of a world has its rules in force: what
// happens before is judged by nothing.
func (r *running) inForce() *running {
	r.t.Helper()
	store := r.world.store()
	eventually(r.t, "the rules are in force", func() error {
		heads, err := store.Heads(r.t.Context())
		for p, head := range heads {
			if head.GetPosition().GetRuleSetHash() == "" {
				err = errors.Join(err, fmt.Errorf("partition %d has none", p))
			}
		}
		return err
	})
	return r
}

// eventually waits until check has no error.
func eventually(t *testing.T, what string, check func() error) {
	t.Helper()
	deadline := time.NewTimer(patience)
	defer deadline.Stop()
	poll := time.NewTicker(10 * time.Millisecond)
	defer poll.Stop()
	for {
		err := check()
		if err == nil {
			return
		}
		select {
		case <-deadline.C:
			t.Fatalf("%s: %v", what, err)
		case <-poll.C:
		}
	}
}

func endpoint(id string) *eventv1.Target {
	return &eventv1.Target{Account: "acme", Kind: eventv1.TargetKind_TARGET_KIND_ENDPOINT, Id: id, Name: "name of " + id}
}

// queue publishes that so many jobs wait on an endpoint, and returns the sequence.
func (w *world) queue(id string, jobs int64) uint64 {
	w.t.Helper()
	w.mu.Lock()
	w.slot += 1000
	slot := w.slot
	w.mu.Unlock()
	e := &eventv1.Event{
		OccurredAt: timestamppb.Now(), Target: endpoint(id), Source: eventv1.Source_SOURCE_POLL,
		Fact: &eventv1.Event_HealthSampled{HealthSampled: &eventv1.HealthSampled{
			PollSlotMs: slot, Interval: durationpb.New(15 * time.Second),
			Jobs:    &eventv1.JobCounts{InQueue: new(jobs)},
			Workers: &eventv1.WorkerCounts{Idle: new(int64(1))},
		}},
	}
	data, err := event.Marshal(e)
	if err != nil {
		w.t.Fatal(err)
	}
	ack, err := w.conn.Publish(w.t.Context(), bus.Message{Subject: event.Subject(event.KindHealthSampled, e.GetTarget()), Data: data})
	if err != nil {
		w.t.Fatal(err)
	}
	return ack.Seq
}
