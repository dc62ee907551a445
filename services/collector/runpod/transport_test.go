package runpod

import (
	"context"
	"crypto/x509"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// pipes is a network in memory, for a bubble.
type pipes struct {
	accept chan net.Conn
	once   sync.Once
	closed chan struct{}
	dialed atomic.Int64
	dead   atomic.Pointer[wire] // the connection that a router forgot
	last   atomic.Pointer[wire]
}

func (p *pipes) Accept() (net.Conn, error) {
	select {
	case c := <-p.accept:
		return c, nil
	case <-p.closed:
		return nil, net.ErrClosed
	}
}

func (p *pipes) Close() error   { p.once.Do(func() { close(p.closed) }); return nil }
func (p *pipes) Addr() net.Addr { return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 443} }

func (p *pipes) dial(context.Context, string, string) (net.Conn, error) {
	here, there := net.Pipe()
	w := &wire{Conn: here, of: p}
	p.last.Store(w)
	p.dialed.Add(1)
	p.accept <- there
	return w, nil
}

// wire is the client's end of a connection. What is written to a dead one is taken
// and arrives nowhere.
type wire struct {
	net.Conn
	of *pipes
}

func (w *wire) Write(b []byte) (int, error) {
	if w.of.dead.Load() == w {
		return len(b), nil
	}
	return w.Conn.Write(b)
}

// overHTTP2 returns a client with the transport that a client has by itself, of a
// server with TLS and HTTP/2.
func overHTTP2(t *testing.T, srv *httptest.Server, dial func(context.Context, string, string) (net.Conn, error)) *Client {
	t.Helper()
	srv.EnableHTTP2 = true
	srv.StartTLS()
	t.Cleanup(srv.Close)
	transport := newTransport(4)
	transport.TLSClientConfig.RootCAs = x509.NewCertPool()
	transport.TLSClientConfig.RootCAs.AddCert(srv.Certificate())
	if dial != nil {
		transport.DialContext = dial
	}
	c, err := New(Options{APIKey: plain("rpa_TESTKEY0123456789"), RESTURL: "https://example.com/v2", ServerlessURL: srv.URL, Transport: transport})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.CloseIdle)
	return c
}

const healthBody = `{"jobs":{"inQueue":0},"workers":{}}`

func TestAConnectionThatIsForgottenIsGivenUpWithinTwoRounds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network := &pipes{accept: make(chan net.Conn), closed: make(chan struct{})}
		srv := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.ProtoMajor != 2 {
				t.Errorf("asked over %s, want HTTP/2", r.Proto)
			}
			_, _ = io.WriteString(w, healthBody)
		}))
		srv.Listener.Close()
		srv.Listener = network
		c := overHTTP2(t, srv, network.dial)
		defer c.CloseIdle()
		poll := func() error {
			_, err := c.Health(t.Context(), Endpoint{ID: "ep1"})
			return err
		}
		for range 3 {
			if err := poll(); err != nil {
				t.Fatal(err)
			}
		}
		if n := network.dialed.Load(); n != 1 {
			t.Fatalf("%d connections for three calls", n)
		}
		network.dead.Store(network.last.Load())
		failed := 0
		for ; failed < 100; failed++ { // every 15 s, as health is polled
			if poll() == nil {
				break
			}
			time.Sleep(5 * time.Second)
		}
		if failed == 0 || failed > 2 {
			t.Errorf("%d polls failed on a connection that a router forgot, want one or two", failed)
		}
	})
}

func TestAServerThatSaysGoAwayCostsNoCall(t *testing.T) {
	t.Parallel()
	var calls atomic.Int64
	srv := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if calls.Add(1)%3 == 0 {
			w.Header().Set("Connection", "close") // over HTTP/2 that is GOAWAY
		}
		_, _ = io.WriteString(w, healthBody)
	}))
	var connections atomic.Int64
	srv.Config.ConnState = func(_ net.Conn, s http.ConnState) {
		if s == http.StateNew {
			connections.Add(1)
		}
	}
	c := overHTTP2(t, srv, nil)
	var polls sync.WaitGroup
	for range 4 {
		polls.Go(func() {
			for range 30 {
				if _, err := c.Health(t.Context(), Endpoint{ID: "ep1"}); err != nil {
					t.Error(err)
				}
			}
		})
	}
	polls.Wait()
	if n := connections.Load(); n < 10 {
		t.Errorf("%d connections: the server did not go away", n)
	}
}
