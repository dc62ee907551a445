package rpc_test

import (
	"context"
	"errors"
	"net"
	"testing"
	"time"

	"github.com/tocsin-dev/tocsin/internal/fault"
	"github.com/tocsin-dev/tocsin/internal/rpc"
	notifyv1 "github.com/tocsin-dev/tocsin/proto/gen/tocsin/notify/v1"
)

// patience is longer than anything here may take, also on a slow machine, and
// shorter than a test's bound.
const patience = 2 * time.Minute

func TestStoppingEndsStreamsAndLetsCallsFinish(t *testing.T) {
	inCall, release, inStream := make(chan struct{}), make(chan struct{}), make(chan struct{})
	f := start(t, &notifier{
		watermark: func(context.Context, *notifyv1.WatermarkRequest) error { close(inCall); <-release; return nil },
		watch: func(ctx context.Context, _ func(string) error) error {
			close(inStream)
			<-ctx.Done()
			return ctx.Err()
		},
	}, rpc.ServerOptions{})
	conn := f.dial(t, rpc.DialOptions{})
	call, stream, stopped := make(chan error, 1), make(chan error, 1), make(chan error, 1)
	go func() { call <- watermark(t, conn) }()
	go func() { stream <- watch(t, conn) }()
	<-inCall
	<-inStream
	go func() { stopped <- f.stop() }()
	if err := <-stream; !errors.Is(err, fault.Unavailable) {
		t.Errorf("the stream ends with %v, want one that says to call again", err)
	}
	close(release)
	if err := <-call; err != nil {
		t.Errorf("the call in flight ends with %v", err)
	}
	if err := <-stopped; err != nil {
		t.Errorf("stop: %v", err)
	}
	if err := watermark(t, conn); !errors.Is(err, fault.Unavailable) {
		t.Errorf("a call to a stopped server: %v", err)
	}
}

func TestStoppingDoesNotWaitForTheDeaf(t *testing.T) {
	inCall, release := make(chan struct{}), make(chan struct{})
	f := start(t, &notifier{
		watermark: func(context.Context, *notifyv1.WatermarkRequest) error { close(inCall); <-release; return nil },
	}, rpc.ServerOptions{})
	conn := f.dial(t, rpc.DialOptions{})
	call, stopped := make(chan error, 1), make(chan error, 1)
	go func() { call <- watermark(t, conn) }()
	<-inCall
	go func() { stopped <- f.stop() }()
	if err := <-call; !errors.Is(err, fault.Unavailable) {
		t.Errorf("the deaf call ends with %v for its caller", err)
	}
	select {
	case err := <-stopped:
		if err != nil {
			t.Errorf("stop: %v", err)
		}
	case <-time.After(patience):
		t.Error("the server waits for the deaf call")
	}
	close(release)
}

func TestAClientWaitsForItsServerAndFindsItAgain(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := ln.Addr().String()
	ln.Close() // nobody is there yet

	conn, err := rpc.Dial(addr, rpc.DialOptions{WaitForReady: true, Token: "hunter2"})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	impatient, err := rpc.Dial(addr, rpc.DialOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer impatient.Close()
	if err := watermark(t, impatient); !errors.Is(err, fault.Unavailable) {
		t.Errorf("without waiting: %v", err)
	}

	for life := range 2 {
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		answer := make(chan error, 1)
		go func() {
			_, err := notifyv1.NewNotifierServiceClient(conn).Watermark(ctx, &notifyv1.WatermarkRequest{})
			answer <- err
		}()
		ln, err := net.Listen("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		server := rpc.NewServer(rpc.ServerOptions{Token: "hunter2"})
		notifyv1.RegisterNotifierServiceServer(server, &notifier{})
		serving, stop := context.WithCancel(ctx)
		stopped := make(chan error, 1)
		go func() { stopped <- server.Serve(serving, ln) }()
		if err := <-answer; err != nil {
			t.Errorf("life %d of the server: %v", life, err)
		}
		stop()
		if err := <-stopped; err != nil {
			t.Errorf("life %d: stop: %v", life, err)
		}
		cancel()
	}
}

func TestServeReportsAListenerThatFails(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ln.Close()
	if err := rpc.NewServer(rpc.ServerOptions{}).Serve(t.Context(), ln); err == nil {
		t.Error("serving on a closed listener is no error")
	}
}

func TestDialKeepsTokensOffTheNetwork(t *testing.T) {
	for name, test := range map[string]struct {
		target  string
		options rpc.DialOptions
		refused bool
	}{
		"loopback by number":            {"127.0.0.1:9092", rpc.DialOptions{Token: "t"}, false},
		"loopback by name":              {"localhost:9092", rpc.DialOptions{Token: "t"}, false},
		"loopback of IPv6":              {"[::1]:9092", rpc.DialOptions{Token: "t"}, false},
		"loopback with a scheme":        {"dns:///127.0.0.1:9092", rpc.DialOptions{Token: "t"}, false},
		"a socket of this machine":      {"unix:/run/tocsin.sock", rpc.DialOptions{Token: "t"}, false},
		"another machine":               {"notifier:9092", rpc.DialOptions{Token: "t"}, true},
		"another machine by number":     {"10.0.0.1:9092", rpc.DialOptions{Token: "t"}, true},
		"another machine with a scheme": {"dns:///notifier:9092", rpc.DialOptions{Token: "t"}, true},
		"another one, by its own name":  {"dns://127.0.0.1/notifier:9092", rpc.DialOptions{Token: "t"}, true},
		"another machine, allowed":      {"notifier:9092", rpc.DialOptions{Token: "t", Insecure: true}, false},
		"another one without a token":   {"notifier:9092", rpc.DialOptions{}, false},
	} {
		conn, err := rpc.Dial(test.target, test.options)
		if err == nil {
			conn.Close()
		}
		if (err != nil) != test.refused {
			t.Errorf("%s: %v", name, err)
		}
	}
	if conn, err := rpc.Dial("%zz://", rpc.DialOptions{}); err == nil {
		conn.Close()
		t.Error("a target that cannot be parsed was taken")
	}
}
