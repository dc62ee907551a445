package bus

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"golang.org/x/sync/semaphore"
)

// defaultInFlight bounds a publisher: at most 1,024 messages of at most 64 KiB
// wait in memory (64 MiB at the very worst), and a local server answers about
// 50,000 a second at that depth.
const defaultInFlight = 1024

// PublisherOptions configure a Publisher.
type PublisherOptions struct {
	// MaxInFlight bounds the messages that are accepted and not settled; 0
	// means 1,024.
	MaxInFlight int
	// OrderBy names the queue of a message by its subject. Messages of one queue
	// are stored in the order of their Publish calls, those of different queues
	// in any order. nil means one queue per subject.
	OrderBy func(subject string) string
	// Settled, when set, is called once for each accepted message: with its Ack,
	// or with the error that refused it for good (ErrTooLarge, ErrClosed). It
	// is called from several goroutines, one at a time per queue, and must
	// not call Flush or Close.
	Settled func(Message, Ack, error)
}

// Publisher publishes without waiting for each answer. Every message is
// retried with the same ID for as long as the Publisher is open; the next one of
// its queue is sent only when it is settled, so that retries cannot change
// the order. A message without ID whose answer got lost may be stored twice.
type Publisher struct {
	conn    *Conn
	opts    PublisherOptions
	max     int64
	slots   *semaphore.Weighted // first come, first served
	life    context.Context
	cancel  context.CancelCauseFunc
	detach  func() bool
	senders sync.WaitGroup

	mu     sync.Mutex
	closed bool                 // guarded by mu
	queues map[string][]Message // guarded by mu; a queue exists while it has a sender
}

// NewPublisher returns a Publisher. Close it to end its goroutines; the end of
// the Conn closes it too.
func (c *Conn) NewPublisher(o PublisherOptions) *Publisher {
	if o.MaxInFlight <= 0 {
		o.MaxInFlight = defaultInFlight
	}
	if o.OrderBy == nil {
		o.OrderBy = func(subject string) string { return subject }
	}
	p := &Publisher{
		conn:   c,
		opts:   o,
		max:    int64(o.MaxInFlight),
		slots:  semaphore.NewWeighted(int64(o.MaxInFlight)),
		queues: make(map[string][]Message),
	}
	p.life, p.cancel = context.WithCancelCause(context.Background())
	p.detach = context.AfterFunc(c.life, func() { p.cancel(ErrClosed) })
	return p
}

// Publish accepts m and returns, or blocks while MaxInFlight messages are not
// settled (for instance because the stream is full). It returns ctx's error,
// or ErrClosed; then m was not accepted. What becomes of an accepted message is
// told to Settled.
func (p *Publisher) Publish(ctx context.Context, m Message) error {
	if !p.slots.TryAcquire(1) {
		p.conn.metrics.stalls.Inc()
		if err := p.acquire(ctx, 1); err != nil {
			return fmt.Errorf("publish to %s: %w", m.Subject, err)
		}
	}
	queue := p.opts.OrderBy(m.Subject)
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed || p.life.Err() != nil {
		p.slots.Release(1)
		return fmt.Errorf("publish to %s: %w", m.Subject, ErrClosed)
	}
	p.conn.metrics.inFlight.Inc()
	waiting, running := p.queues[queue]
	p.queues[queue] = append(waiting, m)
	if !running {
		p.senders.Go(func() { p.send(queue) })
	}
	return nil
}

// acquire waits for n slots, for ctx's end or for Close.
func (p *Publisher) acquire(ctx context.Context, n int64) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	defer context.AfterFunc(p.life, func() { cancel(ErrClosed) })()
	if err := p.slots.Acquire(ctx, n); err != nil {
		return context.Cause(ctx)
	}
	if p.life.Err() != nil {
		p.slots.Release(n)
		return ErrClosed
	}
	return nil
}

// send settles the messages of one queue, one after the other, until none waits.
func (p *Publisher) send(queue string) {
	for {
		p.mu.Lock()
		waiting := p.queues[queue]
		if len(waiting) == 0 {
			delete(p.queues, queue)
			p.mu.Unlock()
			return
		}
		m := waiting[0]
		p.queues[queue] = waiting[1:]
		p.mu.Unlock()

		ack, err := p.conn.Publish(p.life, m)
		if err != nil && !errors.Is(err, ErrClosed) {
			p.conn.log.Error("message refused", "subject", m.Subject, "id", m.ID, "bytes", len(m.Data), "err", err)
		}
		if p.opts.Settled != nil {
			p.opts.Settled(m, ack, err)
		}
		p.conn.metrics.inFlight.Dec()
		p.slots.Release(1)
	}
}

// Flush waits until every message accepted before it is settled. Later
// Publish calls wait for it. It returns ctx's error, or ErrClosed.
func (p *Publisher) Flush(ctx context.Context) error {
	if err := p.acquire(ctx, p.max); err != nil {
		return fmt.Errorf("flush publisher: %w", err)
	}
	p.slots.Release(p.max)
	return nil
}

// Close gives up what is not settled, which Settled is told, and waits for the
// senders. Call Flush before it to lose nothing.
func (p *Publisher) Close() {
	p.mu.Lock()
	p.closed = true
	p.mu.Unlock()
	p.detach()
	p.cancel(ErrClosed)
	p.senders.Wait()
}
