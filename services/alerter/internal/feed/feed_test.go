package feed

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/tocsin-dev/tocsin/internal/bus"
	"github.com/tocsin-dev/tocsin/internal/event"
)

// memory is an event log in memory.
type memory struct {
	mu    sync.Mutex
	log   []bus.Delivery // guarded by mu; ordered by sequence
	last  uint64         // guarded by mu
	grown chan struct{}  // guarded by mu; closed when the log grows
	reads []uint64       // guarded by mu; where each read began
	fail  error          // guarded by mu; what the next read ends with at once
}

func newMemory() *memory { return &memory{grown: make(chan struct{})} }

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
	for len(m.log) > 0 && m.log[0].Seq < before {
		m.log = m.log[1:]
	}
}

func (m *memory) read(ctx context.Context, from uint64, idle func(), handle func(bus.Delivery) error) error {
	m.mu.Lock()
	m.reads = append(m.reads, from)
	fail := m.fail
	m.fail = nil
	m.mu.Unlock()
	if fail != nil {
		return fail
	}
	for next := from; ; {
		m.mu.Lock()
		var found *bus.Delivery
		for _, d := range m.log {
			if d.Seq >= next {
				d.Pending = m.last - d.Seq
				found = &d
				break
			}
		}
		grown := m.grown
		m.mu.Unlock()
		if found == nil {
			idle()
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-grown:
			}
			continue
		}
		if err := handle(*found); err != nil {
			return err
		}
		next = found.Seq + 1
	}
}

func begin(t *testing.T, m *memory) *Feed {
	f := New(m.read, slog.New(slog.DiscardHandler), nil)
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
	if diff := cmp.Diff(want, got); diff != "" {
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
		near := f.Join(1, 4)
		time.Sleep(time.Second)
		far := f.Join(2, 6)
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
		one, two := f.Join(1, 3), f.Join(2, 1)
		want(t, "partition 1 from 3", drain(one), 3, 6)
		want(t, "partition 2 from 1", drain(two), 2, 5)
		m.add(2, 1)
		want(t, "partition 1, live", drain(one), 8)
		want(t, "partition 2, live", drain(two), 7)
		if diff := cmp.Diff([]uint64{1}, m.reads); diff != "" {
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
		one := f.Join(1, 1)
		want(t, "partition 1", drain(one), 1, 3)
		two := f.Join(2, 3)
		want(t, "partition 2 that joined late", drain(two), 4)
		m.add(1, 2)
		want(t, "partition 1 after that", drain(one), 5)
		want(t, "partition 2 after that", drain(two), 6)
		two.Leave()
		again := f.Join(2, 2)
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
		one, two := f.Join(1, 3), f.Join(2, 4)
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
		three := f.Join(3, 4)
		m.add(1, 3)
		want(t, "a partition that was past a hole", drain(one), 9)
		want(t, "one that was not", drain(three), -10)
	})
}

func TestAPausedPartitionHoldsUpNoOther(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMemory()
		f := begin(t, m)
		slow, other := f.Join(1, 1), f.Join(2, 1)
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
		slow, other := f.Join(1, 1), f.Join(2, 1)
		for range queueSize + 1 {
			m.add(1)
		}
		m.add(2)
		want(t, "the other partition waits", drain(other))
		// A third that joins interrupts the reader; nothing may be lost by that.
		third := f.Join(3, 1)
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
		one := f.Join(1, 1)
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
		one := f.Join(1, 1)
		time.Sleep(time.Second)
		stamp := time.Unix(77, 0)
		if seq, at := one.Covered(0, stamp); seq != 0 || !at.Equal(stamp) {
			t.Errorf("before its message is applied: %d, %v; want what it says itself", seq, at)
		}
		if seq, at := one.Covered(1, stamp); seq != 4 || !at.Equal(time.Unix(4, 0)) {
			t.Errorf("after that: %d, %v; want as far as was read", seq, at)
		}
		f.Join(3, 1)
		time.Sleep(time.Second)
		if seq, _ := one.Covered(1, stamp); seq != 4 {
			t.Errorf("after another made the reader go back: %d, want 4", seq)
		}
		if f.Waiting() != 0 {
			t.Errorf("%d messages wait, want none", f.Waiting())
		}
	})
}
