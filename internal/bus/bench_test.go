package bus_test

import (
	"errors"
	"fmt"
	"testing"

	"github.com/tocsin-dev/tocsin/internal/bus"
	"github.com/tocsin-dev/tocsin/internal/servertest"
)

// payload is about what a HealthSampled takes.
var payload = make([]byte, 256)

func BenchmarkPublish(b *testing.B) {
	c := eventsConn(b)
	for b.Loop() {
		if _, err := c.Publish(b.Context(), bus.Message{Subject: "tocsin.event.tick.x", Data: payload}); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkPublisher(b *testing.B) {
	for _, targets := range []int{1, 16, 1000} {
		b.Run(fmt.Sprintf("%d targets", targets), func(b *testing.B) {
			p := eventsConn(b).NewPublisher(bus.PublisherOptions{})
			defer p.Close()
			n := 0
			for b.Loop() {
				n++
				m := bus.Message{Subject: fmt.Sprintf("tocsin.event.tick.t%d", n%targets), Data: payload}
				if err := p.Publish(b.Context(), m); err != nil {
					b.Fatal(err)
				}
			}
			if err := p.Flush(b.Context()); err != nil {
				b.Fatal(err)
			}
		})
	}
}

func BenchmarkRead(b *testing.B) {
	c := eventsConn(b)
	p := c.NewPublisher(bus.PublisherOptions{})
	defer p.Close()
	const stored = 100_000
	for i := range stored {
		m := bus.Message{Subject: fmt.Sprintf("tocsin.event.tick.t%d", i%1000), Data: payload}
		if err := p.Publish(b.Context(), m); err != nil {
			b.Fatal(err)
		}
	}
	if err := p.Flush(b.Context()); err != nil {
		b.Fatal(err)
	}
	enough := errors.New("enough")
	for b.Loop() {
		err := c.Read(b.Context(), bus.ReadOptions{Stream: bus.EventsStream}, func(d bus.Delivery) error {
			if d.Seq == stored {
				return enough
			}
			return nil
		})
		if !errors.Is(err, enough) {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(stored)*float64(b.N)/b.Elapsed().Seconds(), "msgs/s")
}

func eventsConn(b *testing.B) *bus.Conn {
	b.Helper()
	c := servertest.NATS(b).Conn(b)
	if _, err := c.EnsureStream(b.Context(), bus.Events(0)); err != nil {
		b.Fatal(err)
	}
	return c
}
