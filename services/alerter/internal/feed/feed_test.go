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
	"github.com/prometheus/client_golang/prometheus/testutil"

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

// TestNobodyIsPassedOverForOneThatIsFurther has a partition join further on than
// the reader is, which waits there for the first message of another.
func TestNobodyIsPassedOverForOneThatIsFurther(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMemory()
		m.add(3, 3, 3)
		f := begin(t, m)
		near := join(f, m, 1, 4)
		time.Sleep(time.Second)
		far := join(f, m, 2, 6)
		m.add(1, 2, 2)
		want(t, "the near one got", drain(near), 4)
		want(t, "the far one got", drain(far), 6)
	})
}

func TestEachPartitionGetsItsOwnOnceAndInOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMemory()
		m.add(1, 2, 1, 3, 2, 1)
		f := begin(t, m)
		one, two := join(f, m, 1, 3), join(f, m, 2, 1)
		want(t, "partition 1 from 3", drain(one), 3, 6)
		want(t, "partition 2 from 1", drain(two), 2, 5)
		m.add(2, 1)
		want(t, "partition 1, live", drain(one), 8)
		want(t, "partition 2, live", drain(two), 7)
		if diff := gocmp.Diff([]uint64{1}, m.began(All)); diff != "" {
			t.Errorf("reads for two that join together (-want +got):\n%s", diff)
		}
		one.Leave()
		m.add(1)
		want(t, "partition 1 after it left", drain(one))
		two.Leave()
	})
}

func TestALateJoinerMakesNobodyReadTwice(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMemory()
		m.add(1, 2, 1, 2)
		f := begin(t, m)
		one := join(f, m, 1, 1)
		want(t, "partition 1", drain(one), 1, 3)
		two := join(f, m, 2, 3)
		want(t, "partition 2 that joined late", drain(two), 4)
		m.add(1, 2)
		want(t, "partition 1 after that", drain(one), 5)
		want(t, "partition 2 after that", drain(two), 6)
		two.Leave()
		again := join(f, m, 2, 2)
		want(t, "partition 2 that loaded anew", drain(again), 2, 4, 6)
		want(t, "partition 1 meanwhile", drain(one))
	})
}

func TestHolesAreTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMemory()
		m.add(1, 2, 1, 2, 1, 2)
		m.remove(4)
		f := begin(t, m)
		one, two := join(f, m, 1, 3), join(f, m, 2, 4)
		want(t, "a partition that needed what is gone", drain(one), -5)
		want(t, "a partition that needed none of it", drain(two), 4, 6)
		m.add(1, 2)
		want(t, "only the first message after a hole says so", drain(one), 7)
		want(t, "the other", drain(two), 8)
		if got := testutil.ToFloat64(f.metrics.missing); got != 1 {
			t.Errorf("%v messages counted as missing, want 1", got)
		}
		// Going back over the hole tells nobody who was past it.
		m.remove(6)
		three := join(f, m, 3, 4)
		m.add(1, 3)
		want(t, "a partition that was past a hole", drain(one), 9)
		want(t, "one that was not", drain(three), -10)
	})
}

func TestAPausedPartitionHoldsUpNoOther(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMemory()
		f := begin(t, m)
		slow, other := join(f, m, 1, 1), join(f, m, 2, 1)
		slow.Pause()
		for range queueSize + 100 {
			m.add(1)
		}
		m.add(2)
		want(t, "the other partition", drain(other), queueSize+101)
		got := drain(slow)
		if len(got) != queueSize {
			t.Fatalf("the paused partition has %d messages, want a full queue of %d", len(got), queueSize)
		}
		want(t, "the paused partition gets nothing more", drain(slow))
		if seq, _ := slow.Covered(queueSize, time.Time{}); seq != queueSize {
			t.Errorf("a partition that was passed over at %d is said to be at %d", queueSize, seq)
		}
		slow.Resume()
		got = drain(slow)
		if len(got) != 100 || got[0] != queueSize+1 {
			t.Errorf("after it resumed it got %d messages from %v on, want 100 from %d", len(got), got[:min(1, len(got))], queueSize+1)
		}
		want(t, "the other partition meanwhile", drain(other))
	})
}

func TestASlowPartitionHoldsUpTheReader(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMemory()
		f := begin(t, m)
		slow, other := join(f, m, 1, 1), join(f, m, 2, 1)
		for range queueSize + 1 {
			m.add(1)
		}
		m.add(2)
		want(t, "the other partition waits", drain(other))
		// A third that joins interrupts the reader; nothing may be lost by that.
		third := join(f, m, 3, 1)
		time.Sleep(time.Second)
		if got := drain(slow); len(got) != queueSize+1 {
			t.Errorf("the slow partition got %d messages, want %d", len(got), queueSize+1)
		}
		want(t, "the other partition", drain(other), queueSize+2)
		third.Leave()
	})
}

func TestAReadThatEndsIsTakenUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMemory()
		m.fail = errors.New("stream replaced")
		m.add(1, 1)
		f := begin(t, m)
		one := join(f, m, 1, 1)
		want(t, "nothing at first", drain(one))
		time.Sleep(retryWait)
		want(t, "after the pause", drain(one), 1, 2)
	})
}

func TestCovered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMemory()
		m.add(1, 2, 2, 2)
		f := begin(t, m)
		one := join(f, m, 1, 1)
		time.Sleep(time.Second)
		stamp := time.Unix(77, 0)
		if seq, at := one.Covered(0, stamp); seq != 0 || !at.Equal(stamp) {
			t.Errorf("before its message is applied: %d, %v; want what it says itself", seq, at)
		}
		if seq, at := one.Covered(1, stamp); seq != 4 || !at.Equal(time.Unix(4, 0)) {
			t.Errorf("after that: %d, %v; want as far as was read", seq, at)
		}
		join(f, m, 3, 1)
		time.Sleep(time.Second)
		if seq, _ := one.Covered(1, stamp); seq != 4 {
			t.Errorf("after another made the reader go back: %d, want 4", seq)
		}
		if f.Waiting() != 0 {
			t.Errorf("%d messages wait, want none", f.Waiting())
		}
	})
}
