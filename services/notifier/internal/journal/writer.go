package journal

import (
	"context"
	"fmt"
	"sync"

	"golang.org/x/sync/errgroup"
	"google.golang.org/protobuf/proto"

	deliveryv1 "github.com/tocsin-dev/tocsin/proto/gen/tocsin/delivery/v1"
	"github.com/tocsin-dev/tocsin/services/notifier/internal/delivery"
)

const (
	// maxRecords and maxBytes bound a message of the journal. JetStream takes up
	// to 1 MiB; half of it keeps one write short. A record above maxBytes goes
	// alone.
	maxRecords = 500
	maxBytes   = 512 << 10
)

// Stored says that records of a shard are stored.
type Stored struct {
	// Shard is their shard.
	Shard int
	// Seq is the sequence of their message.
	Seq uint64
	// Records are what was stored.
	Records []*deliveryv1.Record
	// Size is the size of their message, in bytes.
	Size int
}

// Writer writes records, each shard's in order. Append may be called while Run
// runs.
type Writer struct {
	shards [delivery.Shards]*queue
	stored chan<- Stored
}

// queue is what waits for one shard.
type queue struct {
	write   write
	mu      sync.Mutex
	records []*deliveryv1.Record // guarded by mu
	busy    bool                 // guarded by mu; a write is on its way
	filled  chan struct{}        // holds a token while records may wait
}

// Writer returns a writer that goes on after the given sequences and reports
// each stored message on stored.
func (j *Journal) Writer(last [delivery.Shards]uint64, stored chan<- Stored) *Writer {
	w := &Writer{stored: stored}
	for shard := range w.shards {
		w.shards[shard] = &queue{
			write:  write{conn: j.conn, shard: shard, last: last[shard]},
			filled: make(chan struct{}, 1),
		}
	}
	return w
}

// Append queues a record. It never blocks; who appends must stop when
// [Writer.Waiting] is large.
func (w *Writer) Append(r delivery.ShardRecord) {
	q := w.shards[r.Shard]
	q.mu.Lock()
	q.records = append(q.records, r.Record)
	q.mu.Unlock()
	select {
	case q.filled <- struct{}{}:
	default:
	}
}

// Waiting returns how many records are not stored yet.
func (w *Writer) Waiting() int {
	n := 0
	for _, q := range w.shards {
		q.mu.Lock()
		n += len(q.records)
		if q.busy {
			n++
		}
		q.mu.Unlock()
	}
	return n
}

// Run writes until ctx ends, or returns [ErrFenced] when someone else wrote.
func (w *Writer) Run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	for shard, q := range w.shards {
		g.Go(func() error {
			for {
				select {
				case <-ctx.Done():
					return context.Cause(ctx)
				case <-q.filled:
				}
				if err := w.drain(ctx, shard, q); err != nil {
					return fmt.Errorf("shard %d: %w", shard, err)
				}
			}
		})
	}
	return g.Wait()
}

// drain writes what waits for a shard.
func (w *Writer) drain(ctx context.Context, shard int, q *queue) error {
	for {
		records := q.take()
		if len(records) == 0 {
			return nil
		}
		seq, size, err := q.write.store(ctx, records)
		if err != nil {
			return err
		}
		q.rest()
		select {
		case w.stored <- Stored{Shard: shard, Seq: seq, Records: records, Size: size}:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// rest notes that no write is on its way.
func (q *queue) rest() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.busy = false
}

// take removes as many records as one message may hold.
func (q *queue) take() []*deliveryv1.Record {
	q.mu.Lock()
	defer q.mu.Unlock()
	n, size := 0, 0
	for n < len(q.records) && n < maxRecords {
		size += proto.Size(q.records[n])
		if n > 0 && size > maxBytes {
			break
		}
		n++
	}
	taken := q.records[:n:n]
	if q.records = q.records[n:]; len(q.records) == 0 {
		q.records = nil // else the array behind it would live on
	}
	q.busy = n > 0
	return taken
}
