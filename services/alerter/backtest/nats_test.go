package backtest_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/tocsin-dev/tocsin/internal/bus"
	"github.com/tocsin-dev/tocsin/internal/event"
	"github.com/tocsin-dev/tocsin/internal/fault"
	"github.com/tocsin-dev/tocsin/internal/servertest"
	rulev1 "github.com/tocsin-dev/tocsin/proto/gen/tocsin/rule/v1"
	"github.com/tocsin-dev/tocsin/services/alerter/backtest"
)

const atOnce = "groups: [{name: g, rules: [{alert: Up, on: endpoint, expr: jobs.in_queue > 10}, {alert: High, on: endpoint, expr: jobs.in_queue > 100}]}]"

// publish publishes samples of endpoints as a collector does, each with more jobs
// than the one before or none, and garbage among them.
func publish(t *testing.T, conn *bus.Conn, endpoints, from, rounds int) {
	t.Helper()
	var batch []bus.Message
	for round := from; round < from+rounds; round++ {
		for i := range endpoints {
			jobs := int64(0)
			if round%4 < 2 {
				jobs = int64(20 + round%2*100)
			}
			e := queue(fmt.Sprint("e", i), jobs, epoch.Add(time.Duration(round)*15*time.Second))
			data, err := event.Marshal(e)
			if err != nil {
				t.Fatal(err)
			}
			batch = append(batch, bus.Message{Subject: event.Subject(event.KindHealthSampled, e.GetTarget()), Data: data})
		}
	}
	batch = append(batch, bus.Message{Subject: event.PartitionSubject(5, event.KindHealthSampled), Data: []byte("garbage")})
	for part := range slices.Chunk(batch, 500) {
		if err := conn.PublishAtomic(t.Context(), part); err != nil {
			t.Fatal(err)
		}
	}
}

func TestALogInNATSIsPlayedAndLeftAsItIs(t *testing.T) {
	nats := servertest.NATS(t)
	conn := nats.Conn(t)
	o := backtest.Options{Log: conn, Rules: compile(t, atOnce), Workers: 2}
	none := func(*rulev1.BacktestResponse) error { return nil }
	if err := backtest.Run(t.Context(), o, none); !errors.Is(err, fault.NotFound) {
		t.Errorf("without a stream: %v", err)
	}
	if _, err := conn.EnsureStream(t.Context(), bus.Events(0)); err != nil {
		t.Fatal(err)
	}
	if err := backtest.Run(t.Context(), o, none); !errors.Is(err, fault.NotFound) {
		t.Errorf("of an empty stream: %v", err)
	}
	publish(t, conn, 40, 0, 100)
	before, err := conn.StreamState(t.Context(), bus.EventsStream)
	if err != nil {
		t.Fatal(err)
	}
	w := run(t, o)
	if up, high := w.summary.GetRules()[0], w.summary.GetRules()[1]; up.GetFirings() != 25*40 || up.GetStillFiring() != 0 || high.GetFirings() != 25*40 || len(w.firings) != 2*25*40 {
		t.Errorf("rules: %v; %d firings told", w.summary.GetRules(), len(w.firings))
	}
	if s := w.summary; s.GetEvents() != 4001 || s.GetTargets() != 40 || len(s.GetProblems()) != 1 || s.GetProblems()[0].GetCount() != 1 {
		t.Errorf("summary: %v", s)
	}
	for _, f := range w.firings {
		if want := 120.0; f.GetAlert().GetRule() == "High" && f.GetWorst().GetNumber() != want {
			t.Fatalf("the worst of %v is %v, want %v", f.GetAlert(), f.GetWorst(), want)
		}
	}
	// While it reads, messages come and go.
	first := true
	err = backtest.Run(t.Context(), backtest.Options{Log: &cutting{Conn: conn, cut: func() {
		if first {
			first = false
			publish(t, conn, 40, 100, 10)
			if err := conn.PurgeBefore(t.Context(), bus.EventsStream, 2000); err != nil {
				t.Error(err)
			}
		}
	}}, Rules: compile(t, atOnce)}, w.take)
	if err != nil || w.summary.GetEvents() > 4001 || w.summary.GetEvents()+w.summary.GetGone() < 2000 {
		t.Errorf("of a log that grows and is trimmed meanwhile: %v, %v", err, w.summary)
	}
	// What is left of a read ends with its context at the latest.
	ctx, cancel := context.WithCancel(t.Context())
	err = backtest.Run(ctx, backtest.Options{Log: &cutting{Conn: conn, cut: cancel}, Rules: compile(t, atOnce)}, none)
	if !errors.Is(err, context.Canceled) {
		t.Errorf("canceled: %v", err)
	}
	after, err := conn.StreamState(t.Context(), bus.EventsStream)
	if err != nil {
		t.Fatal(err)
	}
	if after.LastSeq != before.LastSeq+401 || after.FirstSeq != 2000 {
		t.Errorf("the stream is %+v, was %+v: somebody wrote", after, before)
	}
	if n := nats.Consumers(t); n != 0 {
		t.Errorf("%d consumers are left", n)
	}
}

// cutting is a log to which something happens when the first message is read.
type cutting struct {
	*bus.Conn
	cut func()
}

func (c *cutting) Read(ctx context.Context, o bus.ReadOptions, handle func(bus.Delivery) error) error {
	began := false
	return c.Conn.Read(ctx, o, func(d bus.Delivery) error {
		if !began {
			began = true
			c.cut()
		}
		return handle(d)
	})
}
