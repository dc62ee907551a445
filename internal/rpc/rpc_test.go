package rpc_test

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"net"
	"strings"
	"sync"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"
	"google.golang.org/grpc/test/bufconn"

	"github.com/tocsin-dev/tocsin/internal/fault"
	"github.com/tocsin-dev/tocsin/internal/rpc"
	notifyv1 "github.com/tocsin-dev/tocsin/proto/gen/tocsin/notify/v1"
)

const serviceName = "tocsin.notify.v1.NotifierService"

// notifier answers calls by functions that a test gives.
type notifier struct {
	notifyv1.UnimplementedNotifierServiceServer
	watermark func(ctx context.Context, req *notifyv1.WatermarkRequest) error
	watch     func(ctx context.Context, send func(token string) error) error
}

func (n *notifier) Watermark(ctx context.Context, req *notifyv1.WatermarkRequest) (*notifyv1.WatermarkResponse, error) {
	if n.watermark != nil {
		if err := n.watermark(ctx, req); err != nil {
			return nil, err
		}
	}
	return &notifyv1.WatermarkResponse{}, nil
}

func (n *notifier) WatchAlerts(_ *notifyv1.WatchAlertsRequest, s grpc.ServerStreamingServer[notifyv1.WatchAlertsResponse]) error {
	return n.watch(s.Context(), func(token string) error {
		return s.Send(&notifyv1.WatchAlertsResponse{ResumeToken: token})
	})
}

// lockedBuffer is a log that a test reads while a server writes.
type lockedBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer // guarded by mu
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}

// fixture is a server that runs in memory.
type fixture struct {
	server *rpc.Server
	ln     *bufconn.Listener
	reg    *prometheus.Registry
	log    *lockedBuffer
	stop   func() error // ends the server and returns what Serve returned
}

// start runs a server with n until the test ends.
func start(t *testing.T, n *notifier, o rpc.ServerOptions) *fixture {
	t.Helper()
	f := &fixture{ln: bufconn.Listen(64 << 10), reg: prometheus.NewRegistry(), log: new(lockedBuffer)}
	o.Registerer = f.reg
	o.Log = slog.New(slog.NewJSONHandler(f.log, nil))
	f.server = rpc.NewServer(o)
	notifyv1.RegisterNotifierServiceServer(f.server, n)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- f.server.Serve(ctx, f.ln) }()
	f.stop = sync.OnceValue(func() error { cancel(); return <-done })
	t.Cleanup(func() {
		if err := f.stop(); err != nil {
			t.Errorf("serve: %v", err)
		}
	})
	return f
}

// dial returns a connection to the fixture.
func (f *fixture) dial(t *testing.T, o rpc.DialOptions) *grpc.ClientConn {
	t.Helper()
	o.Dialer = func(ctx context.Context, _ string) (net.Conn, error) { return f.ln.DialContext(ctx) }
	conn, err := rpc.Dial("passthrough:///memory", o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}

// watermark makes a unary call.
func watermark(t *testing.T, conn *grpc.ClientConn) error {
	t.Helper()
	_, err := notifyv1.NewNotifierServiceClient(conn).Watermark(t.Context(), &notifyv1.WatermarkRequest{})
	return err
}

// watch opens a stream and returns its first error.
func watch(t *testing.T, conn *grpc.ClientConn) error {
	t.Helper()
	stream, err := notifyv1.NewNotifierServiceClient(conn).WatchAlerts(t.Context(), &notifyv1.WatchAlertsRequest{})
	if err != nil {
		return err
	}
	_, err = stream.Recv()
	return err
}

// count returns the value of the counter, gauge or histogram count whose name
// and label values are given, in the order of the labels' names.
func count(t *testing.T, reg *prometheus.Registry, name string, values ...string) float64 {
	t.Helper()
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, family := range families {
		for _, m := range family.GetMetric() {
			var have []string
			for _, label := range m.GetLabel() {
				have = append(have, label.GetValue())
			}
			if family.GetName() == name && strings.Join(have, " ") == strings.Join(values, " ") {
				return m.GetCounter().GetValue() + m.GetGauge().GetValue() + float64(m.GetHistogram().GetSampleCount())
			}
		}
	}
	return 0
}

func TestErrorsKeepTheirKindOverTheWire(t *testing.T) {
	var answer error
	f := start(t, &notifier{
		watermark: func(context.Context, *notifyv1.WatermarkRequest) error { return answer },
		watch:     func(context.Context, func(string) error) error { return answer },
	}, rpc.ServerOptions{})
	conn := f.dial(t, rpc.DialOptions{})
	for name, test := range map[string]struct {
		err  error
		kind fault.Kind
		text string
	}{
		"a kind and its sentence arrive":    {fault.WithReason("STALE_OWNER", fault.New(fault.Conflict, "partition 7 has another owner")), fault.Conflict, "partition 7 has another owner"},
		"an error without a kind is mute":   {errors.New("dial tcp 10.0.0.1:6379: refused"), fault.Internal, "internal error"},
		"a kind that shares its code stays": {fault.New(fault.TooLarge, "600 transitions"), fault.TooLarge, "600 transitions"},
	} {
		answer = test.err
		for how, err := range map[string]error{"unary": watermark(t, conn), "stream": watch(t, conn)} {
			if !errors.Is(err, test.kind) || !strings.HasSuffix(err.Error(), test.text) {
				t.Errorf("%s, %s: %v", name, how, err)
			}
		}
	}
	if text := f.log.String(); strings.Count(text, "10.0.0.1:6379") != 2 || strings.Contains(text, "another owner") {
		t.Errorf("the log should have what was hidden, once for each call, and nothing else:\n%s", text)
	}
}

func TestAPanicIsInternalCountedAndNotTheEnd(t *testing.T) {
	panics := true
	f := start(t, &notifier{
		watermark: func(context.Context, *notifyv1.WatermarkRequest) error {
			if panics {
				panic("hunter2")
			}
			return nil
		},
		watch: func(context.Context, func(string) error) error { panic("hunter2") },
	}, rpc.ServerOptions{})
	conn := f.dial(t, rpc.DialOptions{})
	for how, err := range map[string]error{"unary": watermark(t, conn), "stream": watch(t, conn)} {
		if !errors.Is(err, fault.Internal) || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%s: %v", how, err)
		}
	}
	panics = false
	if err := watermark(t, conn); err != nil {
		t.Errorf("afterwards: %v", err)
	}
	for _, method := range []string{"Watermark", "WatchAlerts"} {
		if got := count(t, f.reg, "tocsin_grpc_panics_total", "/"+serviceName+"/"+method); got != 1 {
			t.Errorf("%v panics of %s are counted", got, method)
		}
	}
	if !strings.Contains(f.log.String(), "rpc_test.go") {
		t.Errorf("the log lacks the stack:\n%s", f.log)
	}
}

func TestMetricsCountCallsByMethodAndCode(t *testing.T) {
	entered := make(chan struct{})
	f := start(t, &notifier{
		watermark: func(_ context.Context, req *notifyv1.WatermarkRequest) error {
			if req.GetPartition() > 63 {
				return fault.New(fault.Invalid, "no such partition")
			}
			return nil
		},
		watch: func(ctx context.Context, _ func(string) error) error { close(entered); <-ctx.Done(); return nil },
	}, rpc.ServerOptions{})
	client := notifyv1.NewNotifierServiceClient(f.dial(t, rpc.DialOptions{}))
	for _, partition := range []uint32{1, 2, 64} {
		_, _ = client.Watermark(t.Context(), &notifyv1.WatermarkRequest{Partition: partition})
	}
	ctx, cancel := context.WithCancel(t.Context())
	if _, err := client.WatchAlerts(ctx, &notifyv1.WatchAlertsRequest{}); err != nil {
		t.Fatal(err)
	}
	<-entered
	const unary, stream = "/" + serviceName + "/Watermark", "/" + serviceName + "/WatchAlerts"
	for name, test := range map[string]struct {
		got, want float64
	}{
		"calls that went well":           {count(t, f.reg, "tocsin_grpc_requests_total", "OK", unary), 2},
		"calls that did not":             {count(t, f.reg, "tocsin_grpc_requests_total", "InvalidArgument", unary), 1},
		"durations of unary calls":       {count(t, f.reg, "tocsin_grpc_request_duration_seconds", unary), 3},
		"open streams":                   {count(t, f.reg, "tocsin_grpc_streams", stream), 1},
		"streams that are not over yet":  {count(t, f.reg, "tocsin_grpc_requests_total", "OK", stream), 0},
		"durations of streams, not kept": {count(t, f.reg, "tocsin_grpc_request_duration_seconds", stream), 0},
	} {
		if test.got != test.want {
			t.Errorf("%s: %v, want %v", name, test.got, test.want)
		}
	}
	cancel()
	if err := f.stop(); err != nil {
		t.Fatal(err)
	}
	if got := count(t, f.reg, "tocsin_grpc_streams", stream); got != 0 {
		t.Errorf("%v streams are open after the stop", got)
	}
}

func TestMessagesAreBounded(t *testing.T) {
	f := start(t, &notifier{}, rpc.ServerOptions{MaxMessage: 1000})
	client := notifyv1.NewNotifierServiceClient(f.dial(t, rpc.DialOptions{}))
	_, err := client.Notify(t.Context(), &notifyv1.NotifyRequest{OwnerToken: strings.Repeat("x", 1001)})
	if !errors.Is(err, fault.Exhausted) {
		t.Errorf("a message above the bound: %v", err)
	}
	if err := watermark(t, f.dial(t, rpc.DialOptions{})); err != nil {
		t.Errorf("one below it: %v", err)
	}
}
