package job_test

import (
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
