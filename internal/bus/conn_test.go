package bus_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/tocsin-dev/tocsin/internal/bus"
	"github.com/tocsin-dev/tocsin/internal/servertest"
)

func TestConnectFailsAtOnceWhereWaitingIsPointless(t *testing.T) {
	withUser := func(o *server.Options) { o.Username, o.Password = "tocsin", "right" }
	tests := map[string]struct {
		server func(*server.Options)
		opts   bus.Options
		want   string
	}{
		"a wrong password": {
			server: withUser,
			opts:   bus.Options{User: "tocsin", Password: "wrong"},
			want:   `log in to NATS as "tocsin"`,
		},
		"no password where one is needed": {
			server: withUser,
			want:   `log in to NATS as ""`,
		},
		"a server without JetStream": {
			server: func(o *server.Options) { o.JetStream = false },
			want:   "ask NATS for JetStream",
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			s := servertest.NATS(t, test.server)
			test.opts.URL = s.URL()
			ctx := patient(t)
			c, err := bus.Connect(ctx, test.opts)
			if err == nil {
				c.Close()
				t.Fatal("connected")
			}
			if ctx.Err() != nil {
				t.Error("it waited until the end")
			}
			if !strings.Contains(err.Error(), test.want) {
				t.Errorf("error %q does not say %q", err, test.want)
			}
			if strings.Contains(err.Error(), "wrong") && test.opts.Password != "" {
				t.Errorf("error %q shows the password", err)
			}
		})
	}
}

func TestConnectLogsInWithTheRightPassword(t *testing.T) {
	s := servertest.NATS(t, func(o *server.Options) { o.Username, o.Password = "tocsin", "right" })
	c := s.Connect(t, bus.Options{User: "tocsin", Password: "right"})
	if !c.Connected() {
		t.Error("not connected")
	}
}

// A server may let each user listen to no answers but its own.
func TestAUsersAnswersComeToItsOwnInbox(t *testing.T) {
	s := servertest.NATS(t, func(o *server.Options) {
		o.Users = []*server.User{{
			Username: "tocsin", Password: "right",
			Permissions: &server.Permissions{Subscribe: &server.SubjectPermission{Allow: []string{"_INBOX.tocsin.>"}}},
		}}
	})
	c := s.Connect(t, bus.Options{User: "tocsin", Password: "right"})
	ctx := patient(t)
	if _, err := c.EnsureStream(ctx, bus.Alerts()); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Publish(ctx, bus.Message{Subject: "tocsin.alert.1", Data: []byte("x")}); err != nil {
		t.Fatal(err)
	}
	read := errors.New("read")
	err := c.Read(ctx, bus.ReadOptions{Stream: bus.AlertsStream}, func(bus.Delivery) error { return read })
	if !errors.Is(err, read) {
		t.Errorf("read: %v", err)
	}
	objects, err := c.Objects(ctx, "blobs")
	if err != nil {
		t.Fatal(err)
	}
	if err := objects.Put(ctx, "a", []byte("x")); err != nil {
		t.Fatal(err)
	}
	if names, err := objects.List(ctx, ""); err != nil || len(names) != 1 {
		t.Errorf("objects are %v, %v", names, err)
	}
}

func TestConnectGivesUpWhenItsContextEnds(t *testing.T) {
	s := servertest.NATS(t)
	s.Stop()
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	_, err := bus.Connect(ctx, bus.Options{URL: s.URL()})
	if !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("error %v does not wrap the context's", err)
	}
	if !errors.Is(err, nats.ErrNoServers) {
		t.Errorf("error %v does not tell what was wrong", err)
	}
}

func TestConnectWaitsForAServerThatStartsLater(t *testing.T) {
	s := servertest.NATS(t)
	s.Stop()
	connected := make(chan error, 1)
	ctx := patient(t)
	go func() {
		c, err := bus.Connect(ctx, bus.Options{URL: s.URL()})
		if err == nil {
			c.Close()
		}
		connected <- err
	}()
	s.Start(t)
	if err := <-connected; err != nil {
		t.Error(err)
	}
}

func TestConnReturnsAfterEveryRestart(t *testing.T) {
	t.Parallel()
	s := servertest.NATS(t)
	reg := prometheus.NewRegistry()
	c := s.Connect(t, bus.Options{Name: "test", Registerer: reg})
	for n := range 3 {
		s.Stop()
		eventually(t, "the loss is seen", func() bool {
			return !c.Connected() && metric(t, reg, "tocsin_bus_connected") == 0
		})
		s.Start(t)
		eventually(t, "the return is seen", func() bool {
			return c.Connected() && metric(t, reg, "tocsin_bus_connected") == 1
		})
		if got, want := metric(t, reg, "tocsin_bus_reconnects_total"), float64(n+1); got != want {
			t.Errorf("%v reconnects counted, want %v", got, want)
		}
	}
}

func TestConnWorksInProcess(t *testing.T) {
	s := servertest.NATS(t, func(o *server.Options) { o.DontListen = true })
	c := s.Connect(t, bus.Options{InProcess: s.InProcess(), Name: "inside"})
	if _, err := c.EnsureStream(patient(t), stream()); err != nil {
		t.Fatal(err)
	}
	publish(t, c, "test.a", 3)
	if got := len(readAll(t, c, bus.ReadOptions{Stream: "TEST"})); got != 3 {
		t.Errorf("%d messages, want 3", got)
	}
}

func TestTwoConnsOfOneNameShareTheirMetrics(t *testing.T) {
	s := servertest.NATS(t)
	reg := prometheus.NewRegistry()
	for range 2 {
		c := s.Connect(t, bus.Options{Name: "same", Registerer: reg})
		if _, err := c.EnsureStream(patient(t), stream()); err != nil {
			t.Fatal(err)
		}
		if _, err := c.Publish(patient(t), bus.Message{Subject: "test.a"}); err != nil {
			t.Fatal(err)
		}
	}
	if got := metric(t, reg, "tocsin_bus_published_total", "result", "stored", "client", "same"); got != 2 {
		t.Errorf("%v messages counted, want 2", got)
	}
}

func TestCloseEndsEverything(t *testing.T) {
	t.Parallel()
	_, c := open(t, stream())
	leases, err := c.Leases(patient(t), "leases", bus.LeaseOptions{Owner: "a"})
	if err != nil {
		t.Fatal(err)
	}
	lease, ok, err := leases.Claim(patient(t), "x")
	if err != nil || !ok {
		t.Fatalf("claim: %v, %v", ok, err)
	}
	p := c.NewPublisher(bus.PublisherOptions{})
	defer p.Close()
	idle := make(chan struct{}, 1)
	read := make(chan error, 1)
	go func() {
		read <- c.Read(patient(t), bus.ReadOptions{Stream: "TEST", Idle: func() {
			select {
			case idle <- struct{}{}:
			default:
			}
		}}, func(bus.Delivery) error { return nil })
	}()
	<-idle

	c.Close()
	if err := <-read; !errors.Is(err, bus.ErrClosed) {
		t.Errorf("the read ended with %v, want ErrClosed", err)
	}
	closed(t, "the lease ends", lease.Done())
	if lease.Valid() {
		t.Error("the lease is still valid")
	}
	if err := p.Publish(patient(t), bus.Message{Subject: "test.a"}); !errors.Is(err, bus.ErrClosed) {
		t.Errorf("the publisher says %v, want ErrClosed", err)
	}
	if _, err := c.Publish(patient(t), bus.Message{Subject: "test.a"}); !errors.Is(err, bus.ErrClosed) {
		t.Errorf("publishing says %v, want ErrClosed", err)
	}
	if _, _, err := leases.Claim(patient(t), "y"); !errors.Is(err, bus.ErrClosed) {
		t.Errorf("claiming says %v, want ErrClosed", err)
	}
	c.Close() // a second time does no harm
}
