package backtest

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/tocsin-dev/tocsin/internal/bus"
	"github.com/tocsin-dev/tocsin/internal/event"
	"github.com/tocsin-dev/tocsin/internal/fault"
	rulev1 "github.com/tocsin-dev/tocsin/proto/gen/tocsin/rule/v1"
)

const (
	// prefetch is how many messages wait in memory: as much as a few milliseconds of
	// folding, 1 MiB of usual ones, and 256 MiB of the largest.
	prefetch = 4000
	// batchMessages and batchBytes bound what a worker is given at once: few enough
	// hand-overs to cost nothing, and some 100 KiB for each batch.
	batchMessages, batchBytes = 512, 256 << 10
	// queued is how many batches wait for a worker: one while it works on another.
	queued = 2
	// checkEvery is after how many messages the time is looked at.
	checkEvery = 1024
	// longestRest bounds a rest, so that an end is noticed.
	longestRest = 50 * time.Millisecond
)

// errRead ends the reading of a log that was read.
var errRead = errors.New("read")

// read plays the log.
func read(ctx context.Context, o *Options, s span, f *fold, tell func(*rulev1.BacktestResponse) error) (played, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	r := &reader{
		ctx: ctx, o: o, span: s, tell: tell,
		pool: newPool(o, f), told: time.Now(), checked: time.Now(),
	}
	// A message that went meanwhile, and no other after it: nothing more may come.
	idle := func() {
		state, err := o.Log.StreamState(ctx, bus.EventsStream)
		if err == nil && state.FirstSeq > s.newest.Seq {
			cancel(errRead)
		}
	}
	err := o.Log.Read(ctx, bus.ReadOptions{Stream: bus.EventsStream, Prefetch: prefetch, Idle: idle}, r.handle)
	r.pool.close()
	switch {
	case errors.Is(err, errRead):
		return r.played, r.pool.err()
	case errors.Is(err, bus.ErrStreamReplaced), errors.Is(err, bus.ErrStreamNotFound):
		return played{}, fault.Wrap(fault.Conflict, fmt.Errorf("the event log was cut or replaced while it was read; try again: %w", err))
	default:
		return played{}, err
	}
}

// played counts what was read.
type played struct {
	// events is how many messages there were, and gone how many were missing among
	// them. strays have a subject that names no partition: nobody but an operator
	// publishes one, and the alerter passes over it too.
	events, gone, strays uint64
}

// reader reads the log from its beginning to its end.
type reader struct {
	ctx  context.Context
	o    *Options
	span span
	tell func(*rulev1.BacktestResponse) error
	pool *pool

	played
	last          uint64 // the sequence before, 0 at first
	told, checked time.Time
}

// handle takes the next message.
func (r *reader) handle(d bus.Delivery) error {
	if d.Seq > r.span.newest.Seq {
		return errRead
	}
	if r.last > 0 {
		r.gone += d.Seq - r.last - 1
	}
	r.last = d.Seq
	r.events++
	if address, ok := event.ParseSubject(d.Subject); ok {
		r.pool.give(address.Partition, d)
	} else {
		r.strays++
	}
	if r.events%checkEvery == 0 {
		if err := r.check(d); err != nil {
			return err
		}
	}
	if d.Seq == r.span.newest.Seq || d.Pending == 0 {
		return errRead
	}
	return nil
}

// check tells progress when it is time to, and gives way.
func (r *reader) check(d bus.Delivery) error {
	if err := r.pool.err(); err != nil {
		return err
	}
	now := time.Now()
	if now.Sub(r.told) >= progressEvery {
		r.told = now
		err := r.tell(&rulev1.BacktestResponse{Part: &rulev1.BacktestResponse_Progress{Progress: &rulev1.BacktestProgress{
			Read: r.events, Total: r.span.newest.Seq - min(r.span.oldest.Seq, r.span.newest.Seq) + 1, At: timestamppb.New(d.Time),
		}}})
		if err != nil {
			return err
		}
	}
	if r.o.Gentle && runtime.GOMAXPROCS(0) == 1 {
		rest := time.NewTimer(min(now.Sub(r.checked), longestRest))
		defer rest.Stop()
		select {
		case <-rest.C:
		case <-r.ctx.Done():
			return context.Cause(r.ctx)
		}
	}
	r.checked = time.Now()
	return nil
}

// item is a message and its partition.
type item struct {
	partition int
	bus.Delivery
}

// batch is what a worker is given at once.
type batch struct {
	items []item
	bytes int
}

// pool is the workers that fold. A partition always has the same one, so that its
// messages stay in order. With one worker the reader folds.
type pool struct {
	fold    *fold
	most    bounds
	filling []*batch
	queues  []chan *batch
	empty   chan *batch // batches to fill again
	working sync.WaitGroup

	failed atomic.Pointer[error]
	known  [event.Partitions]held // by each partition when last looked at
	// targets and conditions are the sums of what is known.
	targets, conditions atomic.Int64
}

// bounds are what a backtest may hold in memory; 0 is no bound.
type bounds struct{ targets, conditions int64 }

// held is what a partition holds in memory.
type held struct{ targets, conditions int }

func newPool(o *Options, f *fold) *pool {
	p := &pool{fold: f, most: bounds{int64(o.MaxTargets), int64(o.MaxConditions)}}
	if o.Workers <= 1 {
		return p
	}
	workers := min(o.Workers, event.Partitions)
	p.empty = make(chan *batch, workers*(queued+2))
	for range workers {
		queue := make(chan *batch, queued)
		p.queues = append(p.queues, queue)
		p.filling = append(p.filling, p.blank())
		p.working.Go(func() { p.work(queue) })
	}
	return p
}

// blank returns a batch to fill.
func (p *pool) blank() *batch {
	select {
	case b := <-p.empty:
		return b
	default:
		return &batch{items: make([]item, 0, batchMessages)}
	}
}

// give has a message folded.
func (p *pool) give(partition int, d bus.Delivery) {
	if len(p.queues) == 0 {
		p.apply(partition, d)
		return
	}
	w := partition % len(p.queues)
	b := p.filling[w]
	b.items = append(b.items, item{partition, d})
	b.bytes += len(d.Data)
	if len(b.items) >= batchMessages || b.bytes >= batchBytes {
		p.queues[w] <- b
		p.filling[w] = p.blank()
	}
}

// work folds what comes until the queue is closed.
func (p *pool) work(queue <-chan *batch) {
	for b := range queue {
		for i := range b.items {
			p.apply(b.items[i].partition, b.items[i].Delivery)
		}
		clear(b.items) // the messages may go
		b.items, b.bytes = b.items[:0], 0
		select {
		case p.empty <- b:
		default:
		}
	}
}

// apply folds a message, but nothing more once a bound is passed: the reader may
// have read ahead, and rules may ask for much of each target.
func (p *pool) apply(partition int, d bus.Delivery) {
	if p.failed.Load() != nil {
		return
	}
	p.fold.apply(partition, d)
	if p.most != (bounds{}) {
		p.count(partition)
	}
}

// count looks at what a partition holds if it knows other targets than before.
func (p *pool) count(partition int) {
	before := p.known[partition]
	now := held{targets: p.fold.sides[0].partitions[partition].TargetCount()}
	if now.targets == before.targets {
		return
	}
	for _, s := range p.fold.sides {
		now.conditions += s.partitions[partition].ConditionCount()
	}
	p.known[partition] = now
	targets := p.targets.Add(int64(now.targets - before.targets))
	conditions := p.conditions.Add(int64(now.conditions - before.conditions))
	switch most := p.most; {
	case most.targets > 0 && targets > most.targets:
		p.fail(fault.Newf(fault.Exhausted, "the log knows more than %d targets, which is as many as a backtest may hold in this process: run it elsewhere, with `tocsin rules backtest --nats`", most.targets))
	case most.conditions > 0 && conditions > most.conditions:
		p.fail(fault.Newf(fault.Exhausted, "the rules ask for more than %d courses of conditions (one for each count_true and target, and for each category of failed jobs), which is as many as a backtest may hold in this process: try fewer rules with count_true at once, or run it elsewhere, with `tocsin rules backtest --nats`", most.conditions))
	}
}

// fail notes why folding is of no use any more.
func (p *pool) fail(err error) { p.failed.CompareAndSwap(nil, &err) }

// err returns why folding is of no use any more.
func (p *pool) err() error {
	if err := p.failed.Load(); err != nil {
		return *err
	}
	return nil
}

// close folds what is left and waits for the workers.
func (p *pool) close() {
	for w, queue := range p.queues {
		queue <- p.filling[w]
		close(queue)
	}
	p.working.Wait()
}
