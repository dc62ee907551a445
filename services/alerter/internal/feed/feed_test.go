package feed

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"

	gocmp "github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/tocsin-dev/tocsin/internal/bus"
)

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

// TestAReadRemembersHowFarTheLogWas has partitions join while the log may have
// been cut: each read must be able to tell.
func TestAReadRemembersHowFarTheLogWas(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMemory()
		for range 20 {
			m.add(1, 2)
		}
		f := beginNear(t, m)
		one := join(f, m, 1, 39)
		time.Sleep(time.Second)
		near := f.Join(3, "log", bus.Mark{Seq: 35, Time: time.Unix(35, 1)})
		time.Sleep(time.Second)
		far := f.Join(2, "log", bus.Mark{Seq: 4, Time: time.Unix(4, 1)})
		time.Sleep(time.Second)
		end := bus.Mark{Seq: 40, Time: time.Unix(40, 0)}
		wanted := [][]bus.Mark{
			{{Seq: 38, Time: time.Unix(38, 0)}},
			{end, {Seq: 35, Time: time.Unix(35, 1)}},
			{{Seq: 4, Time: time.Unix(4, 1)}, end},
		}
		if diff := gocmp.Diff(wanted, m.known()); diff != "" {
			t.Errorf("what the reads know (-want +got):\n%s", diff)
		}
		if id, last := f.Reached(); id != "log" || last != end {
			t.Errorf("reached %s, %v", id, last)
		}

		// Another log: what was known of this one says nothing of it.
		m.mu.Lock()
		m.id, m.last, m.log, m.reads = "log2", 3, nil, nil
		m.mu.Unlock()
		m.add(2, 2)
		again := join(f, m, 2, 4)
		want(t, "a partition of the other log", drain(again), 4, 5)
		if diff := gocmp.Diff([][]bus.Mark{{{Seq: 3, Time: time.Unix(3, 0)}}}, m.known()); diff != "" {
			t.Errorf("what the read of another log knows (-want +got):\n%s", diff)
		}
		for _, s := range []*Subscription{one, near, far} {
			drain(s)
		}
		m.add(1, 3)
		want(t, "a partition that is about to load anew", drain(one))
		if seq, _ := one.Covered(40, time.Time{}); seq != 40 {
			t.Errorf("it is covered up to %d", seq)
		}
	})
}

func TestAReadOfOnePartitionThatEndsIsTakenUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMemory()
		for range 20 {
			m.add(1, 2)
		}
		f := beginNear(t, m)
		join(f, m, 1, 39)
		time.Sleep(time.Second)
		m.mu.Lock()
		m.fail = errors.New("the server went away")
		m.mu.Unlock()
		two := join(f, m, 2, 35)
		two.Leave()
		two = join(f, m, 2, 1)
		time.Sleep(2 * retryWait)
		if got := drain(two); len(got) != 20 {
			t.Errorf("%d messages, want 20", len(got))
		}
	})
}
