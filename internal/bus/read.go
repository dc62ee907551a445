package bus

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

const (
	// heartbeat is how often the server speaks up when there is nothing to read,
	// and how long a read waits before it does what is to be done in between.
	heartbeat = time.Second
	// pullExpiry is the life of one pull request. An orphaned one costs the
	// server no more than that.
	pullExpiry = 10 * time.Second
	// prefetch bounds what waits in memory for the handler: 1,000 events of at
	// most 64 KiB are 64 MiB at the very worst, and about 1 MiB in practice.
	prefetch = 1000
	// consumerIdle is how long the server keeps a read that nobody pulls from.
	consumerIdle = 30 * time.Second
	// forgetLimit bounds the courtesy of deleting a consumer at the end.
	forgetLimit = time.Second
	// quietTurns is after how many quiet heartbeats a read asks whether its consumer
	// is still there: the client begins to count missing heartbeats anew with each
	// wait, and a consumer that is lost with its server in a cluster says nothing.
	quietTurns = 5
)

// errGap means that the server skipped a message of this read.
var errGap = errors.New("delivery lost between server and client")

// ReadOptions say what to read.
type ReadOptions struct {
	// Stream to read.
	Stream string
	// Filter is one subject pattern; empty reads everything. There is never a
	// list: consumers with several filters are a hundred times slower.
	Filter string
	// From is the first sequence to deliver, or the first one kept after it; 0
	// means the oldest.
	From uint64
	// FromTime, when From is 0, starts at the first message stored at or after it.
	FromTime time.Time
	// Known are messages that the stream is known to have held. Without them a
	// read cannot tell whether From is after a cut.
	Known []Mark
	// Idle, when set, is called between messages whenever a second passed
	// without one while the connection is up. It does not say that everything
	// has been read: compare with StreamState for that.
	Idle func()
	// Prefetch is how many messages may wait in memory for the handler. 0 means
	// 1,000, which is meant for events: who reads what may have 1 MiB asks for less.
	Prefetch int
}

// Read calls handle for each message of the stream, in order and one at a time,
// and goes on waiting for new ones. It outlives losses of the connection and
// restarts of the server: it sets itself up again after the last message
// handled, so that none is delivered twice. It returns handle's first error as
// it is, the cause of ctx's end, ErrClosed, ErrStreamNotFound when there is no
// such stream, or ErrStreamReplaced when it is not the same stream as before, or
// lost the last message handled, or one that is Known, other than by removing its
// oldest ones: after such a cut the same sequences are given to other messages.
//
// Without a Filter, sequences are contiguous: a hole between two deliveries (or
// between From and the first) means messages that were removed from the stream.
func (c *Conn) Read(ctx context.Context, o ReadOptions, handle func(Delivery) error) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	defer context.AfterFunc(c.life, func() { cancel(ErrClosed) })()

	r := &reader{conn: c, opts: o, next: o.From, handle: handle}
	retry := newBackoff()
	for {
		before := r.next
		err := r.run(ctx)
		switch {
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case r.verdict != nil:
			return r.verdict
		case errors.Is(err, ErrStreamNotFound), errors.Is(err, ErrStreamReplaced), errors.Is(err, ErrClosed):
			return fmt.Errorf("read stream %s: %w", o.Stream, err)
		}
		if r.next != before {
			retry.reset()
		}
		c.metrics.restarts.WithLabelValues(o.Stream).Inc()
		c.log.Info("reading again", "stream", o.Stream, "from_seq", r.next, "err", err)
		if err := c.pause(ctx, retry); err != nil {
			return err
		}
	}
}

// reader is one Read across its restarts.
type reader struct {
	conn    *Conn
	opts    ReadOptions
	handle  func(Delivery) error
	next    uint64    // the first sequence not yet handled; 0 = not known
	last    Mark      // the last message handled
	created time.Time // of the stream, when first seen
	verdict error     // what handle returned
}

// run reads until something breaks. It leaves a verdict if that was handle.
func (r *reader) run(ctx context.Context) error {
	// The consumer dies with the server, which may be before it is first used.
	epoch := r.conn.link.present()
	consumer, err := r.subscribe(ctx)
	if err != nil {
		return err
	}
	defer r.forget(consumer.CachedInfo().Name)
	if err := r.recognize(ctx); err != nil {
		return err
	}
	messages, err := consumer.Messages(
		jetstream.PullHeartbeat(heartbeat),
		jetstream.PullExpiry(pullExpiry),
		jetstream.PullMaxMessages(cmp.Or(r.opts.Prefetch, prefetch)),
		jetstream.WithMessagesErrOnMissingHeartbeat(true),
	)
	if err != nil {
		return err
	}
	defer messages.Stop()
	defer context.AfterFunc(ctx, messages.Stop)()
	defer context.AfterFunc(epoch, messages.Stop)()
	return r.drain(ctx, consumer, messages)
}

// subscribe creates a consumer that starts at the next message.
func (r *reader) subscribe(ctx context.Context) (jetstream.Consumer, error) {
	info, err := r.conn.streamInfo(ctx, r.opts.Stream)
	if err != nil {
		return nil, err
	}
	if r.created.IsZero() {
		r.created = info.Created
	}
	if !r.created.Equal(info.Created) {
		return nil, fmt.Errorf("%w: created %v, was %v", ErrStreamReplaced, info.Created, r.created)
	}
	cfg := jetstream.ConsumerConfig{
		AckPolicy:         jetstream.AckNonePolicy,
		DeliverPolicy:     jetstream.DeliverAllPolicy,
		FilterSubject:     r.opts.Filter,
		InactiveThreshold: consumerIdle,
		MemoryStorage:     true,
		Replicas:          1,
	}
	switch {
	case r.next > 0:
		cfg.DeliverPolicy, cfg.OptStartSeq = jetstream.DeliverByStartSequencePolicy, r.next
	case !r.opts.FromTime.IsZero():
		cfg.DeliverPolicy, cfg.OptStartTime = jetstream.DeliverByStartTimePolicy, &r.opts.FromTime
	}
	var consumer jetstream.Consumer
	err = r.conn.once(ctx, attemptLimit, func(ctx context.Context) (err error) {
		consumer, err = r.conn.js.CreateConsumer(ctx, r.opts.Stream, cfg)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("create consumer: %w", translate(err))
	}
	return consumer, nil
}

// recognize returns an error wrapping ErrStreamReplaced unless the stream still
// is the one that all that is known came from. It must run after the consumer
// was created: a server that is restored later takes the consumer with it, and
// the read comes here again.
func (r *reader) recognize(ctx context.Context) error {
	for _, m := range r.opts.Known {
		if m.Seq <= r.last.Seq {
			continue // the last message came after it, out of the same stream
		}
		if err := r.conn.Recognize(ctx, r.opts.Stream, m); err != nil {
			return err
		}
	}
	return r.conn.Recognize(ctx, r.opts.Stream, r.last)
}

// forget deletes the consumer, so that the server need not wait for consumerIdle.
func (r *reader) forget(consumer string) {
	if !r.conn.Connected() {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), forgetLimit)
	defer cancel()
	if err := r.conn.js.DeleteConsumer(ctx, r.opts.Stream, consumer); err != nil &&
		!errors.Is(err, jetstream.ErrConsumerNotFound) {
		r.conn.log.Debug("consumer not deleted; the server will do it", "stream", r.opts.Stream, "err", err)
	}
}

func (r *reader) drain(ctx context.Context, consumer jetstream.Consumer, messages jetstream.MessagesContext) error {
	quiet := 0
	for delivered := uint64(1); ; delivered++ {
		m, err := messages.Next(jetstream.NextMaxWait(heartbeat))
		if errors.Is(err, nats.ErrTimeout) {
			if quiet++; quiet%quietTurns == 0 {
				if err := r.ask(ctx, consumer); err != nil {
					return err
				}
			}
			if r.opts.Idle != nil && ctx.Err() == nil && r.conn.Connected() {
				r.opts.Idle()
			}
			delivered--
			continue
		}
		if err != nil {
			return err
		}
		quiet = 0
		meta, err := m.Metadata()
		if err != nil {
			return fmt.Errorf("read metadata: %w", err)
		}
		if meta.Sequence.Consumer != delivered {
			return fmt.Errorf("%w: delivery %d came after %d", errGap, meta.Sequence.Consumer, delivered-1)
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		r.verdict = r.handle(Delivery{
			Subject: m.Subject(),
			ID:      m.Headers().Get(jetstream.MsgIDHeader),
			Data:    m.Data(),
			Seq:     meta.Sequence.Stream,
			Time:    meta.Timestamp,
			Pending: meta.NumPending,
		})
		if r.verdict != nil {
			return r.verdict
		}
		r.next = meta.Sequence.Stream + 1
		r.last = Mark{Seq: meta.Sequence.Stream, Time: meta.Timestamp}
	}
}

// ask returns an error unless the server knows the consumer.
func (r *reader) ask(ctx context.Context, consumer jetstream.Consumer) error {
	err := r.conn.once(ctx, attemptLimit, func(ctx context.Context) error {
		_, err := consumer.Info(ctx)
		return err
	})
	if err != nil {
		return fmt.Errorf("ask for the consumer: %w", translate(err))
	}
	return nil
}
