package feed

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	gocmp "github.com/google/go-cmp/cmp"

	"github.com/tocsin-dev/tocsin/internal/bus"
	"github.com/tocsin-dev/tocsin/internal/event"
)

// memory is an event log in memory.
type memory struct {
	mu    sync.Mutex
	id    string            // guarded by mu
	log   []bus.Delivery    // guarded by mu; ordered by sequence
	last  uint64            // guarded by mu
	first uint64            // guarded by mu; the oldest that is kept
	grown chan struct{}     // guarded by mu; closed when the log grows
	reads []Reading         // guarded by mu; every read that began
	open  int               // guarded by mu; reads of one partition that run
	most  int               // guarded by mu; the most that ran at once
	fail  error             // guarded by mu; what the next read ends with at once
	asked func(what string) // guarded by mu; called when a question was answered
}

func newMemory() *memory { return &memory{id: "log", first: 1, grown: make(chan struct{})} }

// add stores one message for each partition.
func (m *memory) add(partitions ...int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, p := range partitions {
		m.last++
		m.log = append(m.log, bus.Delivery{
			Subject: event.PartitionSubject(p, "tick"), Seq: m.last, Time: time.Unix(int64(m.last), 0),
		})
	}
	close(m.grown)
	m.grown = make(chan struct{})
}

// remove takes the messages below seq away.
func (m *memory) remove(before uint64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.first = before
	m.log = m.log[m.find(before):]
}

// removeOne takes one message out of the middle.
func (m *memory) removeOne(seq uint64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	i := m.find(seq)
	m.log = slices.Delete(m.log, i, i+1)
}

// find returns the place of the first message from seq on. The caller holds mu.
func (m *memory) find(seq uint64) int {
	i, _ := slices.BinarySearchFunc(m.log, seq, func(d bus.Delivery, seq uint64) int { return cmp.Compare(d.Seq, seq) })
	return i
}

func (m *memory) ID() string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.id
}

func (m *memory) Newest(_ context.Context, partition int) (uint64, error) {
	defer m.meanwhile("newest")
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, d := range slices.Backward(m.log) {
		if matches(d, partition) {
			return d.Seq, nil
		}
	}
	return 0, nil
}

func (m *memory) Kept(context.Context) (Kept, error) {
	m.meanwhile("before kept")
	defer m.meanwhile("kept")
	m.mu.Lock()
	defer m.mu.Unlock()
	kept, next := Kept{First: m.first}, m.first
	for _, d := range m.log {
		for ; next < d.Seq; next++ {
			kept.Removed = append(kept.Removed, next)
		}
		next++
	}
	return kept, nil
}

// meanwhile is between an answer and what is made of it.
func (m *memory) meanwhile(what string) {
	m.mu.Lock()
	asked := m.asked
	m.mu.Unlock()
	if asked != nil {
		asked(what)
	}
}

func matches(d bus.Delivery, partition int) bool {
	address, ok := event.ParseSubject(d.Subject)
	return partition == All || ok && address.Partition == partition
}

func (m *memory) Read(ctx context.Context, r Reading, handle func(bus.Delivery) error) error {
	m.mu.Lock()
	idle := r.Idle
	r.Idle = nil
	m.reads = append(m.reads, r)
	fail := m.fail
	m.fail = nil
	if r.Partition != All {
		m.open++
		m.most = max(m.most, m.open)
		defer func() {
			m.mu.Lock()
			m.open--
			m.mu.Unlock()
		}()
	}
	m.mu.Unlock()
	if fail != nil {
		return fail
	}
	for next := r.From; ; {
		m.mu.Lock()
		var found []bus.Delivery
		for _, d := range m.log[m.find(next):] {
			if matches(d, r.Partition) {
				if found = append(found, d); len(found) == 2 {
					break
				}
			}
		}
		grown := m.grown
		m.mu.Unlock()
		if len(found) == 0 {
			idle()
			select {
			case <-ctx.Done():
				return context.Cause(ctx)
			case <-grown:
			case <-time.After(time.Second):
			}
			continue
		}
		d := found[0]
		d.Pending = uint64(len(found) - 1)
		if err := handle(d); err != nil {
			return err
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		next = d.Seq + 1
	}
}

// began returns where the reads of all, or of one partition, began.
func (m *memory) began(partition int) []uint64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	var from []uint64
	for _, r := range m.reads {
		if r.Partition == partition {
			from = append(from, r.From)
		}
	}
	return from
}

// known returns what each read was told that the log is known to have held.
func (m *memory) known() [][]bus.Mark {
	m.mu.Lock()
	defer m.mu.Unlock()
	var all [][]bus.Mark
	for _, r := range m.reads {
		all = append(all, slices.DeleteFunc(slices.Clone(r.Known), func(k bus.Mark) bool { return k.Seq == 0 }))
	}
	return all
}

// running returns how many reads of one partition run.
func (m *memory) running() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.open
}

// join has a partition join that needs the message from next.
func join(f *Feed, m *memory, partition int, from uint64) *Subscription {
	return f.Join(partition, m.ID(), bus.Mark{Seq: from - 1, Time: time.Unix(int64(from-1), 0)})
}

func begin(t *testing.T, m *memory) *Feed {
	t.Helper()
	return beginWith(t, m, farBehind)
}

// beginWith runs a feed whose reader goes back for so many messages at most.
func beginWith(t *testing.T, m *memory, goBack uint64) *Feed {
	t.Helper()
	f := New(m, slog.New(slog.DiscardHandler), nil)
	f.goBack = goBack
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- f.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Errorf("Run: %v", err)
		}
	})
	return f
}

// drain returns the sequences that lie ready, a negative one after a hole.
func drain(s *Subscription) []int {
	time.Sleep(time.Second)
	got := []int{}
	for {
		select {
		case item := <-s.C():
			if item.Missed {
				got = append(got, -int(item.Seq))
			} else {
				got = append(got, int(item.Seq))
			}
			synctest.Wait()
		default:
			return got
		}
	}
}

func want(t *testing.T, what string, got []int, want ...int) {
	t.Helper()
	if want == nil {
		want = []int{}
	}
	if diff := gocmp.Diff(want, got); diff != "" {
		t.Errorf("%s (-want +got):\n%s", what, diff)
	}
}
