package job_test

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tocsin-dev/tocsin/services/collector/internal/job"
	"github.com/tocsin-dev/tocsin/services/collector/runpod"
)

func TestASynchronousJobIsPolledWithinTheMinuteForWhichItsEndIsKept(t *testing.T) {
	slow := job.NewTracker(job.Options{MaxOpen: 10, Fast: 5 * time.Minute, Slow: 10 * time.Minute})
	for id, want := range map[string][2]time.Duration{
		"sync-0b2f-u1": {20 * time.Second, 20 * time.Second},
		"0b2f-sync-u1": {5 * time.Minute, 10 * time.Minute},
	} {
		k := job.Key{Endpoint: "ep", ID: id}
		if _, err := slow.Register(k, noon); err != nil {
			t.Fatal(err)
		}
		for i, age := range []time.Duration{0, 2 * time.Minute} {
			now := noon.Add(age)
			if at, open := slow.Next(k, now); !open || at.Sub(now) != want[i] {
				t.Errorf("%s at the age of %v is polled after %v (%v), want %v", id, age, at.Sub(now), open, want[i])
			}
		}
	}
}

func TestAnOutageDoesNotCostTheEndOfASynchronousJob(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := follow(t)
		w.set(func(w *world) { w.err = &runpod.Error{Op: "read job", Kind: runpod.Server, Status: 500} })
		if _, _, err := w.Register(t.Context(), "ep", []string{"sync-1", "other"}); err != nil {
			t.Fatal(err)
		}
		w.pass(time.Hour)
		before := w.polls("sync-1")
		w.pass(10 * time.Minute)
		if n := w.polls("sync-1") - before; n < 30 || n > 42 {
			t.Errorf("%d polls in ten minutes of an outage, want three a minute", n)
		}
		w.set(func(w *world) {
			w.err = nil
			w.jobs["sync-1"] = runpod.Job{ID: "sync-1", Status: runpod.JobCompleted}
		})
		told := 0
		for _, e := range w.pass(25 * time.Second) {
			if e.GetJobTransitioned().GetJobId() == "sync-1" {
				told++
			}
		}
		if told != 1 {
			t.Errorf("its end was told %d times in the 25 s after the outage", told)
		}
	})
}

func TestJobsOfEndpointsWhoseIdsHoldSlashesAreTwo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := follow(t)
		w.set(func(w *world) {
			w.jobs["b/c"] = runpod.Job{ID: "b/c", Status: runpod.JobCompleted}
			w.jobs["c"] = runpod.Job{ID: "c", Status: runpod.JobCompleted}
		})
		for endpoint, id := range map[string]string{"a": "b/c", "a/b": "c"} {
			if _, _, err := w.Register(t.Context(), endpoint, []string{id}); err != nil {
				t.Fatal(err)
			}
		}
		if told := w.pass(time.Minute); len(told) != 2 {
			t.Errorf("told %v, want the ends of both", told)
		}
	})
}

// TestTheJobsOfOneEndpointDoNotEatItsQuota registers far more jobs of one endpoint
// than may be asked for every two seconds, and one of another.
func TestTheJobsOfOneEndpointDoNotEatItsQuota(t *testing.T) {
	for name, answer := range map[string]error{
		"while RunPod answers":      nil,
		"while RunPod refuses them": &runpod.Error{Op: "read job", Kind: runpod.RateLimited, Status: 429},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				const many = 4000
				w := followMany(t, many+1, rand.Float64)
				ids := make([]string, many)
				w.set(func(w *world) {
					w.err = answer
					for i := range ids {
						ids[i] = fmt.Sprint(i)
						w.jobs[ids[i]] = runpod.Job{ID: ids[i], Status: runpod.JobInProgress}
					}
					w.jobs["lone"] = runpod.Job{ID: "lone", Status: runpod.JobInProgress}
				})
				if _, _, err := w.Register(t.Context(), "ep", ids); err != nil {
					t.Fatal(err)
				}
				if _, _, err := w.Register(t.Context(), "other", []string{"lone"}); err != nil {
					t.Fatal(err)
				}
				polls := func() int {
					w.mu.Lock()
					defer w.mu.Unlock()
					n := 0
					for id, asked := range w.asked {
						if id != "lone" {
							n += asked
						}
					}
					return n
				}
				before := 0
				for range 180 { // half an hour in steps of the 10 s of RunPod's quota
					w.pass(10 * time.Second)
					now := polls()
					if now-before > 2000 {
						t.Fatalf("%d polls in 10 s, where RunPod allows 2000 to all tools", now-before)
					}
					before = now
				}
				if least := many * 30 * 60 / 600; before < least { // each every 10 minutes
					t.Errorf("%d polls in half an hour, want %d at least", before, least)
				}
				if n := w.polls("lone"); answer == nil && (n < 140 || n > 150) { // 30 in its first minute, then 4 a minute
					t.Errorf("the other endpoint's job was polled %d times in half an hour, want 146", n)
				}
			})
		})
	}
}
