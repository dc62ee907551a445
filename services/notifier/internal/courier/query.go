package courier

import (
	"context"
	"fmt"

	alertv1 "github.com/tocsin-dev/tocsin/proto/gen/tocsin/alert/v1"
	"github.com/tocsin-dev/tocsin/services/notifier/internal/cause"
)

// query asks for the alerts that fire in a partition, once all up to a message of
// ALERTS, and to the last cause in it, is applied.
type query struct {
	ctx       context.Context // of who asks
	partition int
	seq       uint64
	newest    *alertv1.Cause
	answer    chan []*alertv1.Alert // has room for the answer
}

// Active returns the alerts of a partition that fire, by everything that is
// stored up to the message seq of ALERTS, whose last cause is newest.
func (c *Courier) Active(ctx context.Context, partition int, newest *alertv1.Cause, seq uint64) ([]*alertv1.Alert, error) {
	q := query{ctx: ctx, partition: partition, newest: newest, seq: seq, answer: make(chan []*alertv1.Alert, 1)}
	select {
	case c.queries <- q:
	case <-ctx.Done():
		return nil, fmt.Errorf("list active alerts: %w", context.Cause(ctx))
	}
	select {
	case list := <-q.answer:
		return list, nil
	case <-ctx.Done():
		return nil, fmt.Errorf("list active alerts: %w", context.Cause(ctx))
	}
}

// answer answers the queries whose alerts are applied by now, and forgets those
// that nobody waits for any more.
func (c *Courier) answer() {
	kept := c.waiting[:0]
	for _, q := range c.waiting {
		if q.ctx.Err() != nil {
			continue
		}
		// In a stream that was cut unnoticed a sequence says nothing; the cause does.
		known := c.core.Watermark(q.partition)
		if c.core.AlertsSequence() < q.seq || known != nil && cause.Compare(known, q.newest) < 0 {
			kept = append(kept, q)
			continue
		}
		q.answer <- c.core.Active(q.partition)
	}
	clear(c.waiting[len(kept):])
	c.waiting = kept
}
