package poll

import (
	"container/heap"
	"context"
	"sync"
	"time"
)

// Func makes one poll that was due at slot and returns when the next one is due.
// The zero time ends the schedule.
type Func func(ctx context.Context, slot time.Time) time.Time

// Queue calls functions when they are due, a bounded number at once, the one
// due longest first, and never the same key twice at a time. It is safe for
// concurrent use.
type Queue struct {
	clock Clock
	slots chan struct{} // one token for each call in progress
	wake  chan struct{} // holds a token when the head may have changed

	mu    sync.Mutex
	items map[string]*item // guarded by mu
	due   dueHeap          // guarded by mu: the items that do not run
}

type item struct {
	key     string
	due     time.Time
	run     Func
	index   int       // position in the heap, -1 while it runs
	removed bool      // its call in progress is the last
	wanted  time.Time // when it was put to be called during the call in progress, zero if it was not
}

// NewQueue returns an empty queue that makes at most workers calls at once.
func NewQueue(clock Clock, workers int) *Queue {
	return &Queue{
		clock: clock,
		slots: make(chan struct{}, workers),
		wake:  make(chan struct{}, 1),
		items: map[string]*item{},
	}
}

// Put schedules the first call of run for the instant due. A key that is
// scheduled already keeps its time and its function. One whose call in progress
// then ends the schedule, which cannot have known of this, is called once more.
func (q *Queue) Put(key string, due time.Time, run Func) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if i, there := q.items[key]; there {
		if i.index < 0 {
			i.wanted = due
		}
		return
	}
	i := &item{key: key, due: due, run: run}
	q.items[key] = i
	heap.Push(&q.due, i)
	q.signal()
}

// Remove ends a schedule. A call in progress is not interrupted.
func (q *Queue) Remove(key string) {
	q.mu.Lock()
	defer q.mu.Unlock()
	i, there := q.items[key]
	if !there {
		return
	}
	i.removed = true
	delete(q.items, key)
	if i.index >= 0 {
		heap.Remove(&q.due, i.index)
	}
}

// Hasten brings calls forward: next returns for each key when it is due at the
// latest.
func (q *Queue) Hasten(next func(key string) time.Time) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, i := range q.due {
		if latest := next(i.key); latest.Before(i.due) {
			i.due = latest
		}
	}
	heap.Init(&q.due)
	q.signal()
}

// Len returns the number of schedules.
func (q *Queue) Len() int {
	q.mu.Lock()
	defer q.mu.Unlock()
	return len(q.items)
}

// Late returns by how much the call that is due longest is late, 0 when none is due.
func (q *Queue) Late() time.Duration {
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.due) == 0 {
		return 0
	}
	return max(q.clock.Now().Sub(q.due[0].due), 0)
}

// Run makes the calls until ctx ends, and returns when the last one has.
func (q *Queue) Run(ctx context.Context) {
	var calls sync.WaitGroup
	defer calls.Wait()
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case q.slots <- struct{}{}:
		case <-ctx.Done():
			return
		}
		i := q.next(ctx, timer)
		if i == nil {
			return
		}
		calls.Go(func() {
			defer func() { <-q.slots }()
			q.settle(i, i.run(ctx, i.due))
		})
	}
}

// next waits for the next item that is due and takes it. It returns nil when ctx
// ends.
func (q *Queue) next(ctx context.Context, timer *time.Timer) *item {
	for ctx.Err() == nil {
		wait := time.Hour
		q.mu.Lock()
		if len(q.due) > 0 {
			wait = q.due[0].due.Sub(q.clock.Now())
		}
		if wait <= 0 {
			i := heap.Pop(&q.due).(*item)
			q.mu.Unlock()
			return i
		}
		q.mu.Unlock()
		timer.Reset(wait)
		select {
		case <-timer.C:
		case <-q.wake:
		case <-ctx.Done():
		}
	}
	return nil
}

func (q *Queue) settle(i *item, next time.Time) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if next.IsZero() {
		next = i.wanted
	}
	i.wanted = time.Time{}
	switch {
	case i.removed:
	case next.IsZero():
		delete(q.items, i.key)
	default:
		i.due = next
		heap.Push(&q.due, i)
		q.signal()
	}
}

func (q *Queue) signal() {
	select {
	case q.wake <- struct{}{}:
	default:
	}
}

// dueHeap orders items by their time, then by key.
type dueHeap []*item

func (h dueHeap) Len() int { return len(h) }

func (h dueHeap) Less(i, j int) bool {
	if c := h[i].due.Compare(h[j].due); c != 0 {
		return c < 0
	}
	return h[i].key < h[j].key
}

func (h dueHeap) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].index, h[j].index = i, j
}

// Push appends an item; only the heap package calls it.
func (h *dueHeap) Push(x any) {
	i := x.(*item)
	i.index = len(*h)
	*h = append(*h, i)
}

// Pop removes the last item; only the heap package calls it.
func (h *dueHeap) Pop() any {
	old := *h
	i := old[len(old)-1]
	old[len(old)-1] = nil
	*h = old[:len(old)-1]
	i.index = -1
	return i
}
