package feed

import (
	"context"
	"fmt"
	"math/rand/v2"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tocsin-dev/tocsin/internal/bus"
)

// TestWhateverHappensEachMessageComesOnce lets partitions join, leave, pause and
// resume at random, with work that stands still at times.
func TestWhateverHappensEachMessageComesOnce(t *testing.T) {
	const partitions, rounds = 12, 150
	shared, own := 0, 0
	for seed := range uint64(20) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := rand.New(rand.NewPCG(seed, 5))
				m := newMemory()
				f := beginWith(t, m, 40+100*(seed%4))
				subs := [partitions]*Subscription{}
				next := [partitions]uint64{} // the sequence that each has applied
				paused := [partitions]bool{}
				consume := func(p, most int) {
					for range most {
						select {
						case item := <-subs[p].C():
							if item.Missed {
								t.Errorf("partition %d missed something before %d", p, item.Seq)
							}
							for _, d := range m.log[m.find(next[p]+1):m.find(item.Seq)] {
								if matches(d, p) {
									t.Errorf("partition %d did not get %d", p, d.Seq)
								}
							}
							if item.Seq <= next[p] {
								t.Errorf("partition %d got %d after %d", p, item.Seq, next[p])
							}
							next[p] = item.Seq
						default:
							return
						}
						synctest.Wait()
					}
				}
				for range rounds {
					for range r.IntN(60) {
						m.add(r.IntN(partitions))
					}
					p := r.IntN(partitions)
					switch {
					case subs[p] == nil:
						next[p] -= min(next[p], uint64(r.IntN(200))) // what was not committed is applied again
						subs[p] = f.Join(p, "log", bus.Mark{Seq: next[p], Time: time.Unix(int64(next[p]), 0)})
						paused[p] = false
					case r.IntN(4) == 0:
						subs[p].Leave()
						subs[p] = nil
					case paused[p]:
						subs[p].Resume()
						paused[p] = false
					case r.IntN(3) == 0:
						subs[p].Pause()
						paused[p] = true
					}
					if r.IntN(2) == 0 {
						time.Sleep(time.Duration(r.IntN(60)) * time.Millisecond)
					}
					for p, s := range subs {
						if s != nil && !paused[p] && r.IntN(3) > 0 {
							consume(p, r.IntN(40))
						}
					}
				}
				for p := range subs {
					if subs[p] == nil {
						subs[p] = f.Join(p, "log", bus.Mark{Seq: next[p], Time: time.Unix(int64(next[p]), 0)})
					}
					subs[p].Resume()
				}
				for range 20 {
					time.Sleep(time.Second)
					for p := range subs {
						consume(p, 10_000)
					}
				}
				for p, s := range subs {
					newest, err := m.Newest(context.Background(), p)
					if err != nil || next[p] != max(newest, next[p]) || newest > next[p] {
						t.Errorf("partition %d ended at %d, want %d", p, next[p], newest)
					}
					if seq, _ := s.Covered(next[p], time.Time{}); seq != m.last {
						t.Errorf("partition %d is covered up to %d, want %d", p, seq, m.last)
					}
				}
				all := len(m.began(All))
				shared, own = shared+all, own+len(m.reads)-all
			})
		})
	}
	if shared < 40 || own < 40 {
		t.Errorf("only %d reads of everything and %d of one partition", shared, own)
	}
}
