package servertest

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"

	"github.com/tocsin-dev/tocsin/internal/bus"
)

// NATSServer is a NATS server with JetStream on disk, in this process. It is
// safe for concurrent use, so that one goroutine can restart it under another.
type NATSServer struct {
	opts server.Options
	addr string // the same for all the server's lives

	mu     sync.Mutex
	server *server.Server // guarded by mu; nil while stopped
}

// NATS starts a server on a free loopback port. configure may change its
// options before that, for instance to set limits.
func NATS(t testing.TB, configure ...func(*server.Options)) *NATSServer {
	t.Helper()
	s := &NATSServer{opts: server.Options{
		Host:      "127.0.0.1",
		Port:      server.RANDOM_PORT,
		JetStream: true,
		StoreDir:  t.TempDir(),
		NoLog:     true,
		NoSigs:    true, // else it would take the signals of the test binary
	}}
	for _, f := range configure {
		f(&s.opts)
	}
	t.Cleanup(s.Stop)
	s.Start(t)
	s.addr = net.JoinHostPort(s.opts.Host, strconv.Itoa(s.opts.Port))
	return s
}

// Start starts the server on the same directory and port after a Stop.
func (s *NATSServer) Start(t testing.TB) {
	t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	opts := s.opts
	ns, err := server.NewServer(&opts)
	if err != nil {
		t.Fatalf("create NATS server: %v", err)
	}
	s.server = ns
	ns.Start()
	if !ns.ReadyForConnections(startLimit) {
		t.Fatalf("NATS server is not ready after %v; is its directory %s writable?", startLimit, s.opts.StoreDir)
	}
	s.opts.Port = opts.Port // the server wrote the port that it chose
}

// Stop stops the server: clients are cut off, and what was acknowledged stays in
// its directory.
func (s *NATSServer) Stop() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.server == nil {
		return
	}
	s.server.Shutdown()
	s.server.WaitForShutdown()
	s.server = nil
}

// Restart stops the server and starts it on the same directory and port.
func (s *NATSServer) Restart(t testing.TB) {
	t.Helper()
	s.Stop()
	s.Start(t)
}

// URL returns the address for clients, also while the server is stopped.
func (s *NATSServer) URL() string { return "nats://" + s.addr }

// Addr returns the host and port that the server listens on.
func (s *NATSServer) Addr() string { return s.addr }

// InProcess returns the running server, for connections without a network. It
// is of no use after a Stop.
func (s *NATSServer) InProcess() bus.InProcess {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.server
}

// Conn connects to the server, and closes the connection when the test ends.
func (s *NATSServer) Conn(t testing.TB) *bus.Conn {
	t.Helper()
	return s.Connect(t, bus.Options{Name: t.Name()})
}

// Connect is like Conn with options of the caller's; an empty URL is filled in.
func (s *NATSServer) Connect(t testing.TB, o bus.Options) *bus.Conn {
	t.Helper()
	if o.URL == "" {
		o.URL = s.URL()
	}
	ctx, cancel := context.WithTimeout(t.Context(), startLimit)
	defer cancel()
	c, err := bus.Connect(ctx, o)
	if err != nil {
		t.Fatalf("connect to the NATS server of the test: %v", err)
	}
	t.Cleanup(c.Close)
	return c
}

// Consumers returns how many consumers the streams have in all: what a read left
// behind, if nothing reads.
func (s *NATSServer) Consumers(t testing.TB) int {
	t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	info, err := s.server.Jsz(&server.JSzOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return info.Consumers
}

// Call calls JetStream's API past the bus, for what only tests and operators do:
// call is such as "STREAM.DELETE.EVENTS", body its request as JSON or empty. It
// waits for the answer that it succeeded.
func (s *NATSServer) Call(t testing.TB, call, body string) {
	t.Helper()
	conn, err := net.Dial("tcp", s.addr)
	if err != nil {
		t.Fatalf("call JetStream's %s: %v", call, err)
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(startLimit)); err != nil {
		t.Fatalf("call JetStream's %s: %v", call, err)
	}
	fmt.Fprintf(conn, "CONNECT {\"verbose\":false}\r\nSUB answer 1\r\nPUB $JS.API.%s answer %d\r\n%s\r\n", call, len(body), body)
	var answer bytes.Buffer
	for !strings.Contains(answer.String(), `"success":true`) {
		chunk := make([]byte, 4096)
		n, err := conn.Read(chunk)
		answer.Write(chunk[:n])
		if err != nil {
			t.Fatalf("call JetStream's %s: %v: %s", call, err, answer.String())
		}
	}
}
