package firing

import (
	"cmp"
	"container/heap"
	"slices"
	"sync"

	rulev1 "github.com/tocsin-dev/tocsin/proto/gen/tocsin/rule/v1"
)

// Shelf keeps firings, the earliest if there are too many: which those are does not
// depend on how the books take turns. It is safe for concurrent use.
type Shelf struct {
	limit int

	mu      sync.Mutex
	firings latestFirst // guarded by mu
	leftOut uint64      // guarded by mu
}

// NewShelf returns a shelf for so many firings.
func NewShelf(limit int) *Shelf { return &Shelf{limit: limit} }

// put takes a firing.
func (s *Shelf) put(f *rulev1.BacktestFiring) {
	s.mu.Lock()
	defer s.mu.Unlock()
	heap.Push(&s.firings, f)
	if len(s.firings) > s.limit {
		heap.Pop(&s.firings)
		s.leftOut++
	}
}

// Firings returns what is kept, by start, rule and target, and how many more there were.
func (s *Shelf) Firings() (kept []*rulev1.BacktestFiring, leftOut uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	kept = slices.Clone([]*rulev1.BacktestFiring(s.firings))
	slices.SortFunc(kept, byStart)
	return kept, s.leftOut
}

func byStart(a, b *rulev1.BacktestFiring) int {
	x, y := a.GetAlert(), b.GetAlert()
	return cmp.Or(
		x.GetFiredAt().AsTime().Compare(y.GetFiredAt().AsTime()), cmp.Compare(x.GetRule(), y.GetRule()),
		cmp.Compare(x.GetTarget().GetId(), y.GetTarget().GetId()), cmp.Compare(x.GetId(), y.GetId()),
	)
}

// latestFirst is a heap whose top is the latest firing.
type latestFirst []*rulev1.BacktestFiring

func (h latestFirst) Len() int           { return len(h) }
func (h latestFirst) Less(i, j int) bool { return byStart(h[i], h[j]) > 0 }
func (h latestFirst) Swap(i, j int)      { h[i], h[j] = h[j], h[i] }
func (h *latestFirst) Push(x any)        { *h = append(*h, x.(*rulev1.BacktestFiring)) }
func (h *latestFirst) Pop() any {
	last := (*h)[len(*h)-1]
	(*h)[len(*h)-1] = nil
	*h = (*h)[:len(*h)-1]
	return last
}
