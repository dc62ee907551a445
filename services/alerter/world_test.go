package alerter_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/tocsin-dev/tocsin/internal/bus"
	"github.com/tocsin-dev/tocsin/internal/event"
	"github.com/tocsin-dev/tocsin/internal/rpc"
	"github.com/tocsin-dev/tocsin/internal/servertest"
	alertv1 "github.com/tocsin-dev/tocsin/proto/gen/tocsin/alert/v1"
	eventv1 "github.com/tocsin-dev/tocsin/proto/gen/tocsin/event/v1"
	notifyv1 "github.com/tocsin-dev/tocsin/proto/gen/tocsin/notify/v1"
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
	r := &running{t: w.t, done: make(chan error, 1), metrics: prometheus.NewRegistry()}
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
	eventually(r.t, "the rules are in force", func() error {
		if n := r.metric("tocsin_alerter_events_applied_total"); n < 64 {
			return fmt.Errorf("%v messages are applied", n)
		}
		return nil
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
			Jobs:    &eventv1.JobCounts{InQueue: proto.Int64(jobs)},
			Workers: &eventv1.WorkerCounts{Idle: proto.Int64(1)},
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

// notifier is a NotifierService that keeps everything in memory. It stores each
// transition once, in order, and can be told to fail.
type notifier struct {
	notifyv1.UnimplementedNotifierServiceServer
	t       *testing.T
	address string

	mu     sync.Mutex
	stored map[uint32][]*alertv1.Transition // guarded by mu; by partition
	calls  int                              // guarded by mu
	deaf   int                              // guarded by mu; a partition that is not taken, -1 = none
	fail   func(call int) error             // guarded by mu; before a batch is stored
	lose   func(call int) error             // guarded by mu; after it is stored
}

func newNotifier(t *testing.T) *notifier {
	t.Helper()
	n := &notifier{t: t, stored: map[uint32][]*alertv1.Transition{}, deaf: -1}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	n.address = ln.Addr().String()
	server := grpc.NewServer()
	notifyv1.RegisterNotifierServiceServer(server, n)
	served := make(chan error, 1)
	go func() { served <- server.Serve(ln) }()
	t.Cleanup(func() {
		server.Stop()
		if err := <-served; err != nil && !errors.Is(err, grpc.ErrServerStopped) {
			t.Error(err)
		}
	})
	return n
}

// ignore makes the notifier refuse what comes from a partition; -1 ends that.
func (n *notifier) ignore(partition int) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.deaf = partition
}

// fault makes calls fail before or after they took effect.
func (n *notifier) fault(fail, lose func(call int) error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.calls, n.fail, n.lose = 0, fail, lose
}

func (n *notifier) watermark(p uint32) *alertv1.Cause {
	if s := n.stored[p]; len(s) > 0 {
		return s[len(s)-1].GetCause()
	}
	return nil
}

func above(a, b *alertv1.Cause) bool {
	if b == nil {
		return true
	}
	if a.GetLogId() != b.GetLogId() {
		return a.GetLogId() > b.GetLogId()
	}
	if a.GetSequence() != b.GetSequence() {
		return a.GetSequence() > b.GetSequence()
	}
	return a.GetIndex() > b.GetIndex()
}

func (n *notifier) Notify(_ context.Context, in *notifyv1.NotifyRequest) (*notifyv1.NotifyResponse, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.calls++
	if n.fail != nil {
		if err := n.fail(n.calls); err != nil {
			return nil, err
		}
	}
	p := in.GetPartition()
	if int(p) == n.deaf {
		return nil, status.Error(codes.Unavailable, "deaf to this partition")
	}
	var last *alertv1.Cause
	var fresh []*alertv1.Transition
	for _, t := range in.GetTransitions() {
		if !above(t.GetCause(), last) || event.Partition(event.Token(t.GetAlert().GetTarget())) != int(p) {
			n.t.Errorf("a batch of partition %d is out of order or place: %v after %v", p, t.GetCause(), last)
			return nil, status.Error(codes.InvalidArgument, "out of order")
		}
		last = t.GetCause()
		if above(t.GetCause(), n.watermark(p)) {
			fresh = append(fresh, t)
		}
	}
	n.stored[p] = append(n.stored[p], fresh...)
	if n.lose != nil {
		if err := n.lose(n.calls); err != nil {
			return nil, err
		}
	}
	return &notifyv1.NotifyResponse{Watermark: n.watermark(p), Stored: uint32(len(fresh))}, nil
}

func (n *notifier) Watermark(_ context.Context, in *notifyv1.WatermarkRequest) (*notifyv1.WatermarkResponse, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	return &notifyv1.WatermarkResponse{Watermark: n.watermark(in.GetPartition())}, nil
}

func (n *notifier) ListActive(_ context.Context, in *notifyv1.ListActiveRequest) (*notifyv1.ListActiveResponse, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	active := map[string]*alertv1.Alert{}
	for _, t := range n.stored[in.GetPartition()] {
		if t.GetKind() == alertv1.TransitionKind_TRANSITION_KIND_RESOLVED {
			delete(active, t.GetAlert().GetId())
		} else {
			active[t.GetAlert().GetId()] = t.GetAlert()
		}
	}
	out := &notifyv1.ListActiveResponse{}
	for _, a := range active {
		out.Alerts = append(out.Alerts, a)
	}
	return out, nil
}

// told returns what was stored about an endpoint, in order.
func (n *notifier) told(id string) []*alertv1.Transition {
	n.mu.Lock()
	defer n.mu.Unlock()
	var told []*alertv1.Transition
	for _, t := range n.stored[uint32(event.Partition(event.Token(endpoint(id))))] {
		if t.GetAlert().GetTarget().GetId() == id {
			told = append(told, t)
		}
	}
	return told
}

// kinds are the kinds of what was stored about an endpoint, as letters: f for
// firing, r for resolved.
func (n *notifier) kinds(id string) string {
	var b strings.Builder
	for _, t := range n.told(id) {
		switch t.GetKind() {
		case alertv1.TransitionKind_TRANSITION_KIND_FIRING:
			b.WriteByte('f')
		case alertv1.TransitionKind_TRANSITION_KIND_RESOLVED:
			b.WriteByte('r')
		default:
			b.WriteByte('?')
		}
	}
	return b.String()
}

// await waits until these kinds were stored about an endpoint.
func (n *notifier) await(id, kinds string) []*alertv1.Transition {
	n.t.Helper()
	eventually(n.t, "what was told about "+id, func() error {
		if got := n.kinds(id); got != kinds {
			return fmt.Errorf("%q, want %q", got, kinds)
		}
		return nil
	})
	return n.told(id)
}
