// Package durable reads a stream as `nats bench js consume` does: one client,
// one durable pull consumer, every message acknowledged. It is the yardstick
// for the alerter, which must read the same messages, and is the only part of
// the benchmarks that knows nats.go: Tocsin itself has no such consumer.
package durable

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

const (
	// name is the consumer's name.
	name = "bench-durable"
	// batch is how many messages the client asks for ahead; the default of
	// `nats bench`.
	batch = 500
)

// Read reads n messages from the beginning of a stream, acknowledging each, and
// returns how long that took.
func Read(ctx context.Context, url, stream string, n int) (took time.Duration, err error) {
	nc, err := nats.Connect(url)
	if err != nil {
		return 0, fmt.Errorf("read with a durable consumer: %w", err)
	}
	defer nc.Close()
	js, err := jetstream.New(nc)
	if err != nil {
		return 0, fmt.Errorf("read with a durable consumer: %w", err)
	}
	consumer, err := js.CreateConsumer(ctx, stream, jetstream.ConsumerConfig{
		Durable: name, AckPolicy: jetstream.AckExplicitPolicy, DeliverPolicy: jetstream.DeliverAllPolicy,
	})
	if err != nil {
		return 0, fmt.Errorf("create a durable consumer: %w", err)
	}
	defer func() {
		err = errors.Join(err, js.DeleteConsumer(context.WithoutCancel(ctx), stream, name))
	}()
	done := make(chan error, 1)
	read := 0
	began := time.Now()
	reading, err := consumer.Consume(func(m jetstream.Msg) {
		if read >= n {
			return
		}
		if err := m.Ack(); err != nil {
			read = n
			done <- fmt.Errorf("acknowledge: %w", err)
			return
		}
		if read++; read == n {
			done <- nil
		}
	}, jetstream.PullMaxMessages(batch))
	if err != nil {
		return 0, fmt.Errorf("read with a durable consumer: %w", err)
	}
	defer reading.Stop()
	select {
	case err := <-done:
		return time.Since(began), err
	case <-ctx.Done():
		return 0, fmt.Errorf("read with a durable consumer: %w", ctx.Err())
	}
}
