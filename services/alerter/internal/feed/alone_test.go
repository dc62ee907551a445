package feed

import (
	"slices"
	"testing"
	"testing/synctest"
	"time"

	gocmp "github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus/testutil"
)

// beginNear is begin with a reader that goes back for ten messages at most.
func beginNear(t *testing.T, m *memory) *Feed {
	t.Helper()
	return beginWith(t, m, 10)
}

func wantReads(t *testing.T, m *memory, partition int, want ...uint64) {
	t.Helper()
	if diff := gocmp.Diff(want, m.began(partition)); diff != "" {
		t.Errorf("reads of partition %d began at (-want +got):\n%s", partition, diff)
	}
}

func TestAPartitionFarBehindHasAReaderOfItsOwn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMemory()
		for range 10 {
			m.add(1, 2, 3)
		}
		f := beginNear(t, m)
		one := join(f, m, 1, 29)
		want(t, "the one that is near the end", drain(one))
		two := join(f, m, 2, 3)
		want(t, "the one far behind", drain(two), 5, 8, 11, 14, 17, 20, 23, 26, 29)
		wantReads(t, m, All, 29)
		wantReads(t, m, 2, 3)
		m.add(2, 1, 2)
		want(t, "it, when it has caught up", drain(two), 31, 33)
		want(t, "the other meanwhile", drain(one), 32)
		wantReads(t, m, All, 29) // nobody waited
		if seq, at := two.Covered(33, time.Time{}); seq != 33 || at.Unix() != 33 {
			t.Errorf("the one that caught up is covered up to %d, %v", seq, at)
		}
		three := join(f, m, 3, 25) // not far
		want(t, "one that is near", drain(three), 27, 30)
		wantReads(t, m, All, 29, 25)
		wantReads(t, m, 3)
		if got := testutil.ToFloat64(f.metrics.alone); got != 1 {
			t.Errorf("%v own readers were counted, want 1", got)
		}
	})
}

func TestAQuietPartitionFarBehindIsNotRead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMemory()
		m.add(2)
		for range 50 {
			m.add(1)
		}
		f := beginNear(t, m)
		one := join(f, m, 1, 51)
		want(t, "the one at the end", drain(one), 51)
		two := join(f, m, 2, 2)
		want(t, "the quiet one", drain(two))
		wantReads(t, m, 2)
		if seq, _ := two.Covered(1, time.Time{}); seq != 51 {
			t.Errorf("it is covered up to %d, want 51", seq)
		}
		m.add(2)
		want(t, "its next message", drain(two), 52)
	})
}

// TestWhatIsPublishedWhileAPartitionCatchesUpComesOnce publishes in each moment
// at which a reader of its own knows something that is no longer so.
func TestWhatIsPublishedWhileAPartitionCatchesUpComesOnce(t *testing.T) {
	for name, c := range map[string]struct {
		what  string // the question
		nth   int    // which of them
		quiet bool   // the partition has no other messages
	}{
		"between the read of a batch and its end": {what: "kept", nth: 1},
		"after nothing was found":                 {what: "newest", nth: 1, quiet: true},
		"after nothing was found, and is whole":   {what: "kept", nth: 1, quiet: true},
		"after it began":                          {what: "newest", nth: 1},
		"after all was read":                      {what: "newest", nth: 2},
		"after all was read, and is whole":        {what: "kept", nth: 2},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m := newMemory()
				for range 25 {
					m.add(1)
					if !c.quiet {
						m.add(2)
					}
				}
				for range 25 {
					m.add(1)
				}
				f := beginNear(t, m)
				end := m.last + 1
				one := join(f, m, 1, end)
				want(t, "the one at the end", drain(one))
				asked := 0
				m.asked = func(what string) {
					if what != c.what {
						return
					}
					if asked++; asked == c.nth {
						m.add(2, 1, 2, 1)
						synctest.Wait() // the shared reader has passed over them
						go m.add(1, 2)  // and may or may not be past these
					}
				}
				two := join(f, m, 2, 1)
				got := drain(two)
				if asked < c.nth {
					t.Fatalf("it asked %d times", asked)
				}
				var expected []int
				for _, d := range m.log {
					if matches(d, 2) {
						expected = append(expected, int(d.Seq))
					}
				}
				want(t, "the one behind", got, expected...)
				if f.behind() != 0 {
					t.Error("it is still behind")
				}
				wantReads(t, m, All, end)
			})
		})
	}
}

// TestWhatTheSharedReaderSkipsIsReadByThePartitionsOwn has the shared reader go
// on further ahead, since all whom it serves need nothing before.
func TestWhatTheSharedReaderSkipsIsReadByThePartitionsOwn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMemory()
		const old, unseen = queueSize + 20, batchSize + 4 // more than one batch
		for range old {
			m.add(2)
		}
		for range 50 {
			m.add(1)
		}
		f := beginNear(t, m)
		one := join(f, m, 1, m.last+1)
		time.Sleep(time.Second)
		two := join(f, m, 2, 1)
		time.Sleep(time.Second) // its queue is full
		one.Leave()
		f.mu.Lock()
		f.stop() // and is not read on
		f.mu.Unlock()
		synctest.Wait()
		for range unseen {
			m.add(2)
		}
		three := join(f, m, 3, m.last+1)
		var got []int
		for range 4 {
			got = append(got, drain(two)...)
		}
		m.add(2, 3)
		got = append(got, drain(two)...)
		if len(got) != old+unseen+1 || !slices.IsSorted(got) {
			t.Errorf("it got %d messages, want %d", len(got), old+unseen+1)
		}
		want(t, "the one further ahead", drain(three), int(m.last))
	})
}

func TestHolesAreToldToAPartitionThatIsAlone(t *testing.T) {
	for name, c := range map[string]struct {
		first  uint64 // that it needs
		remove func(m *memory)
		asked  func(m *memory) // what happens before what is kept is told
		want   []int
	}{
		"nothing is gone": {first: 2, want: []int{2, 5, 8, 11, 14, 17, 20, 35}},
		"all before what it needs is gone": {
			first: 7, remove: func(m *memory) { m.remove(7) }, want: []int{8, 11, 14, 17, 20, 35},
		},
		"what it needs first is gone": {
			first: 2, remove: func(m *memory) { m.remove(7) }, want: []int{-8, 11, 14, 17, 20, 35},
		},
		"one that may have been its own is gone": {
			first: 2, remove: func(m *memory) { m.removeOne(9) }, want: []int{2, 5, 8, -11, 14, 17, 20, 35},
		},
		"all that it has not had is gone": {
			first: 2, remove: func(m *memory) { m.remove(25) }, want: []int{-35},
		},
		"what was read is gone before it is known to be whole": {
			first: 2, asked: func(m *memory) { m.remove(13) }, want: []int{2, -5, -8, -11, -14, 17, 20, 35},
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m := newMemory()
				for range 7 {
					m.add(1, 2, 3) // 2, 5, ..., 20
				}
				for range 13 {
					m.add(1)
				}
				f := beginNear(t, m)
				one := join(f, m, 1, 34)
				want(t, "the one at the end", drain(one), 34)
				if c.remove != nil {
					c.remove(m)
				}
				if c.asked != nil {
					m.asked = func(what string) {
						if what == "before kept" {
							c.asked(m)
						}
					}
				}
				two := join(f, m, 2, c.first)
				time.Sleep(time.Minute)
				m.add(2)
				want(t, "the one far behind", drain(two), c.want...)
				want(t, "the other", drain(one))
			})
		})
	}
}

func TestTheSharedReaderGoesWhereMostAre(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMemory()
		for range 100 {
			m.add(1, 2, 3)
		}
		f := beginNear(t, m)
		// They join together: one at the start, two in the middle, two at the end.
		start, middle, near := join(f, m, 1, 1), join(f, m, 2, 151), join(f, m, 3, 155)
		end, last := join(f, m, 4, 300), join(f, m, 5, 301)
		want(t, "one at the end", drain(end))
		want(t, "the other at the end", drain(last))
		for what, s := range map[string]*Subscription{"start": start, "middle": middle, "near the middle": near} {
			got := drain(s)
			wanted := 0
			for seq := s.partition; seq <= 300; seq += 3 {
				if from := map[int]int{1: 1, 2: 151, 3: 155}[s.partition]; seq >= from {
					wanted++
				}
			}
			if len(got) != wanted || !slices.IsSorted(got) {
				t.Errorf("the one at the %s got %d messages, want %d", what, len(got), wanted)
			}
		}
		wantReads(t, m, All, 151)
		wantReads(t, m, 1, 1)
		for _, p := range []int{2, 3, 4, 5} {
			wantReads(t, m, p)
		}
		for _, s := range []*Subscription{start, middle, near, end, last} {
			s.Leave()
		}
		again := join(f, m, 1, 1)
		if got := drain(again); len(got) != 100 {
			t.Errorf("one that joins when nobody is there got %d messages, want 100", len(got))
		}
		wantReads(t, m, All, 151, 1)
	})
}

func TestFewHaveAReaderOfTheirOwnAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMemory()
		const behind = 3 * ownReaders
		for range 2 * queueSize { // more than a queue holds, so that each reader is kept busy
			for p := range behind {
				m.add(p)
			}
		}
		f := beginNear(t, m)
		one := join(f, m, 60, m.last+1)
		time.Sleep(time.Second)
		var subs []*Subscription
		for p := range behind {
			subs = append(subs, join(f, m, p, 1))
		}
		time.Sleep(time.Second)
		if got := f.behind(); got != behind {
			t.Errorf("%d partitions are behind, want %d", got, behind)
		}
		m.add(60)
		want(t, "the one that is not behind", drain(one), int(m.last))
		for p, s := range subs {
			got := drain(s)
			for range 3 { // until it is the next one's turn
				got = append(got, drain(s)...)
			}
			if len(got) != 2*queueSize {
				t.Errorf("partition %d got %d messages, want %d", p, len(got), 2*queueSize)
			}
		}
		if m.most != ownReaders {
			t.Errorf("%d had a reader of their own at once, want %d", m.most, ownReaders)
		}
		if got := f.behind(); got != 0 {
			t.Errorf("%d partitions are behind in the end", got)
		}
	})
}

func TestAPartitionThatIsAlonePausesAndLeaves(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMemory()
		for range queueSize + 100 {
			m.add(1, 2)
		}
		end := m.last
		f := beginNear(t, m)
		one := join(f, m, 1, end)
		time.Sleep(time.Second)
		two := join(f, m, 2, 1)
		time.Sleep(time.Second) // its queue is full
		two.Pause()
		time.Sleep(time.Second)
		if m.running() != 0 {
			t.Error("the reader of a paused partition goes on")
		}
		got := drain(two)
		if len(got) != queueSize {
			t.Errorf("%d messages before the pause, want %d", len(got), queueSize)
		}
		two.Resume()
		got = drain(two)
		if len(got) != 100 || got[0] != 2*queueSize+2 {
			t.Errorf("%d messages after the pause, from %v on; want 100 from %d", len(got), got[:min(1, len(got))], 2*queueSize+2)
		}
		wantReads(t, m, All, end)
		want(t, "the other meanwhile", drain(one))
		two.Leave()
		two = join(f, m, 2, 1)
		time.Sleep(time.Second) // its queue is full again
		two.Pause()
		two.Resume() // before its reader noticed
		got = append(drain(two), drain(two)...)
		if len(got) != queueSize+100 || !slices.IsSorted(got) {
			t.Errorf("%d messages around a short pause, want %d", len(got), queueSize+100)
		}
		two.Leave()
		three := join(f, m, 2, 1)
		time.Sleep(time.Second)
		three.Leave()
		time.Sleep(time.Second)
		if m.running() != 0 || f.behind() != 0 {
			t.Errorf("%d readers of one that left, %d behind", m.running(), f.behind())
		}
	})
}
