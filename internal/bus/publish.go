package bus

import (
	"context"
	"errors"
	"fmt"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/synadia-io/orbit.go/jetstreamext"
)

// MaxAtomic is the most messages that one atomic batch may hold; it is the
// server's limit.
const MaxAtomic = 1000

// Message is what is published.
type Message struct {
	// Subject to publish to; it must be bound to a stream.
	Subject string
	// ID, when not empty, names the message: JetStream stores one id once within
	// the stream's duplicate window, whatever the subject.
	ID string
	// Data is the payload; the caller must not change it until it is settled.
	Data []byte
}

// Ack says that a message is stored.
type Ack struct {
	// Seq is the message's sequence in its stream.
	Seq uint64
	// Duplicate tells that the ID was stored before, at Seq.
	Duplicate bool
}

func (m Message) natsMsg() *nats.Msg {
	out := nats.NewMsg(m.Subject)
	out.Data = m.Data
	if m.ID != "" {
		out.Header.Set(jetstream.MsgIDHeader, m.ID)
	}
	return out
}

// Publish stores one message and returns once JetStream has acknowledged it.
// Losses of the connection, timeouts, full streams and missing leaders are
// retried with the same ID until ctx ends; then the error wraps ctx's and the
// last refusal, such as ErrStreamFull, and the message may or may not be stored.
// A message that can never be stored fails at once.
func (c *Conn) Publish(ctx context.Context, m Message) (Ack, error) {
	retry := newBackoff()
	var last error // the last answer that was not the end of ctx
	for {
		ack, err := c.attempt(ctx, m.natsMsg())
		if err == nil {
			c.countPublished(ack)
			return ack, nil
		}
		if ctx.Err() == nil || last == nil {
			last = err
		}
		if refused(err) {
			c.metrics.published.WithLabelValues("refused").Inc()
			return Ack{}, fmt.Errorf("publish to %s: %w", m.Subject, err)
		}
		c.metrics.retries.WithLabelValues(reason(err)).Inc()
		if waitErr := c.pause(ctx, retry); waitErr != nil {
			return Ack{}, fmt.Errorf("publish to %s: %w: %w", m.Subject, waitErr, last)
		}
	}
}

func (c *Conn) countPublished(ack Ack) {
	if ack.Duplicate {
		c.metrics.published.WithLabelValues("duplicate").Inc()
		return
	}
	c.metrics.published.WithLabelValues("stored").Inc()
}

// attempt publishes m once.
func (c *Conn) attempt(ctx context.Context, m *nats.Msg, opts ...jetstream.PublishOpt) (Ack, error) {
	var ack *jetstream.PubAck
	err := c.once(ctx, attemptLimit, func(ctx context.Context) (err error) {
		ack, err = c.js.PublishMsg(ctx, m, append(opts, jetstream.WithRetryAttempts(0))...)
		return err
	})
	if err != nil {
		return Ack{}, translate(err)
	}
	return Ack{Seq: ack.Sequence, Duplicate: ack.Duplicate}, nil
}

// PublishExpecting stores data on subject if the subject's last message has the
// sequence lastSubjectSeq (0: the subject has none), and returns the new
// sequence. It tries once. ErrWrongSequence, ErrWriteInFlight, ErrStreamFull
// and ErrTooLarge mean that nothing was stored; ErrUnknownOutcome means that
// the subject must be read before another attempt.
func (c *Conn) PublishExpecting(ctx context.Context, subject string, lastSubjectSeq uint64, data []byte) (uint64, error) {
	ack, err := c.attempt(ctx, Message{Subject: subject, Data: data}.natsMsg(),
		jetstream.WithExpectLastSequencePerSubject(lastSubjectSeq))
	if err != nil {
		err = settle(err)
		c.metrics.published.WithLabelValues(result(err)).Inc()
		return 0, fmt.Errorf("publish to %s after %d: %w", subject, lastSubjectSeq, err)
	}
	c.countPublished(ack)
	return ack.Seq, nil
}

// PublishAtomic stores all messages or none, next to each other in their
// order, in the one stream that takes their subjects. There may be up to
// MaxAtomic. It tries once: ErrUnknownOutcome means that all or none are stored,
// ErrDuplicate that a message's ID is known and hence none was stored now.
func (c *Conn) PublishAtomic(ctx context.Context, ms []Message) error {
	if len(ms) == 0 {
		return nil
	}
	if len(ms) > MaxAtomic {
		return fmt.Errorf("publish %d messages atomically: %w: at most %d", len(ms), ErrTooLarge, MaxAtomic)
	}
	out := make([]*nats.Msg, len(ms))
	for i, m := range ms {
		out[i] = m.natsMsg()
	}
	err := c.once(ctx, attemptLimit, func(ctx context.Context) error {
		// The answer to the commit tells everything; waiting for the one to the
		// first message would not end with ctx.
		_, err := jetstreamext.PublishMsgBatch(ctx, c.js, out, jetstreamext.BatchFlowControl{})
		return err
	})
	if err != nil {
		err = settle(translate(err))
		c.metrics.published.WithLabelValues(result(err)).Add(float64(len(ms)))
		return fmt.Errorf("publish %d messages atomically: %w", len(ms), err)
	}
	c.metrics.published.WithLabelValues("stored").Add(float64(len(ms)))
	return nil
}

// settle marks an error that is not the server's answer as an unknown outcome.
func settle(err error) error {
	if unknown(err) || errors.Is(err, ErrClosed) {
		return fmt.Errorf("%w: %w", ErrUnknownOutcome, err)
	}
	return err
}

// result names a failed publish for the metrics.
func result(err error) string {
	if errors.Is(err, ErrUnknownOutcome) {
		return "unknown"
	}
	return "refused"
}
