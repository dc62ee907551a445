package bus_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/tocsin-dev/tocsin/internal/bus"
	"github.com/tocsin-dev/tocsin/internal/servertest"
)

// patience bounds every wait of these tests. Nothing takes that long; a
// test that reaches it has failed.
const patience = 60 * time.Second

// patient returns the test's context with patience as its deadline.
func patient(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	t.Cleanup(cancel)
	return ctx
}

// eventually asks until ok says yes, or fails the test.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	ctx := patient(t)
	poll := time.NewTicker(5 * time.Millisecond)
	defer poll.Stop()
	for !ok() {
		select {
		case <-poll.C:
		case <-ctx.Done():
			t.Fatalf("%s: not within %v", what, patience)
		}
	}
}

// closed waits for ch to be closed.
func closed(t *testing.T, what string, ch <-chan struct{}) {
	t.Helper()
	select {
	case <-ch:
	case <-time.After(patience):
		t.Fatalf("%s: not within %v", what, patience)
	}
}

// isClosed tells whether ch is closed now.
func isClosed(ch <-chan struct{}) bool {
	select {
	case <-ch:
		return true
	default:
		return false
	}
}

// stream is a small stream for tests.
func stream(change ...func(*bus.StreamConfig)) bus.StreamConfig {
	cfg := bus.StreamConfig{
		Name: "TEST", Subjects: []string{"test.>"}, MaxAge: time.Hour,
		DuplicateWindow: 10 * time.Minute, DiscardNew: true, AtomicPublish: true,
	}
	for _, f := range change {
		f(&cfg)
	}
	return cfg
}

// open connects to a new server that has the stream.
func open(t *testing.T, cfg bus.StreamConfig) (*servertest.NATSServer, *bus.Conn) {
	t.Helper()
	s := servertest.NATS(t)
	c := s.Conn(t)
	if _, err := c.EnsureStream(patient(t), cfg); err != nil {
		t.Fatal(err)
	}
	return s, c
}

// publish stores n messages on subject, named and filled by their numbers.
func publish(t *testing.T, c *bus.Conn, subject string, n int) {
	t.Helper()
	for i := range n {
		m := bus.Message{Subject: subject, ID: fmt.Sprintf("%s-%d", subject, i), Data: fmt.Append(nil, i)}
		if _, err := c.Publish(patient(t), m); err != nil {
			t.Fatal(err)
		}
	}
}

// readAll returns what the stream holds, in its order.
func readAll(t *testing.T, c *bus.Conn, o bus.ReadOptions) []bus.Delivery {
	t.Helper()
	state, err := c.StreamState(patient(t), o.Stream)
	if err != nil {
		t.Fatal(err)
	}
	if state.Messages == 0 {
		return nil
	}
	var all []bus.Delivery
	enough := errors.New("enough")
	err = c.Read(patient(t), o, func(d bus.Delivery) error {
		all = append(all, d)
		if d.Pending == 0 {
			return enough
		}
		return nil
	})
	if !errors.Is(err, enough) {
		t.Fatalf("read %s: %v", o.Stream, err)
	}
	return all
}

// metric returns the sum of a metric's values whose labels hold all of labels,
// given as name, value, name, value ...
func metric(t *testing.T, reg *prometheus.Registry, name string, labels ...string) float64 {
	t.Helper()
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	sum := 0.0
	for _, f := range families {
		if f.GetName() != name {
			continue
		}
	samples:
		for _, m := range f.GetMetric() {
			have := map[string]string{}
			for _, l := range m.GetLabel() {
				have[l.GetName()] = l.GetValue()
			}
			for i := 0; i < len(labels); i += 2 {
				if have[labels[i]] != labels[i+1] {
					continue samples
				}
			}
			sum += m.GetCounter().GetValue() + m.GetGauge().GetValue()
		}
	}
	return sum
}
