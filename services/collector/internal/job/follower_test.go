package job_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/tocsin-dev/tocsin/internal/event"
	"github.com/tocsin-dev/tocsin/internal/fault"
	eventv1 "github.com/tocsin-dev/tocsin/proto/gen/tocsin/event/v1"
	"github.com/tocsin-dev/tocsin/services/collector/internal/inventory"
	"github.com/tocsin-dev/tocsin/services/collector/internal/job"
	"github.com/tocsin-dev/tocsin/services/collector/internal/poll"
	"github.com/tocsin-dev/tocsin/services/collector/runpod"
)

// world is a follower in a bubble, between a RunPod and a log in memory.
type world struct {
	*job.Follower

	mu     sync.Mutex
	jobs   map[string]runpod.Job // guarded by mu
	err    error                 // guarded by mu: what RunPod answers
	away   error                 // guarded by mu: what the log answers
	hold   chan error            // guarded by mu: the log answers what comes here, if it is set
	asked  map[string]int        // guarded by mu
	events []*eventv1.Event      // guarded by mu
	stored []string              // guarded by mu: the ids of registrations
}

// follow runs a follower of five jobs until the test ends.
func follow(t *testing.T) *world {
	t.Helper()
	return followMany(t, 5, func() float64 { return 0 })
}

func followMany(t *testing.T, open int, jitter func() float64) *world {
	t.Helper()
	w := &world{jobs: map[string]runpod.Job{}, asked: map[string]int{}}
	bounds := job.Options{MaxOpen: open, Fast: 2 * time.Second, Slow: 15 * time.Second}
	registry := prometheus.NewRegistry()
	w.Follower = job.NewFollower(job.FollowerOptions{
		Account: "default", Clock: poll.NewClock(time.Now(), time.Time{}),
		Status: func(_ context.Context, _, id string) (runpod.Job, error) {
			w.mu.Lock()
			defer w.mu.Unlock()
			w.asked[id]++
			j, ok := w.jobs[id]
			switch {
			case w.err != nil:
				return runpod.Job{}, w.err
			case !ok:
				return runpod.Job{}, &runpod.Error{Kind: runpod.NotFound, Status: 404}
			}
			return j, nil
		},
		Publish: func(e *eventv1.Event, _ time.Time) bool {
			w.mu.Lock()
			defer w.mu.Unlock()
			w.events = append(w.events, e)
			return true
		},
		Store: func(_ context.Context, e *eventv1.Event) error {
			w.mu.Lock()
			away, hold := w.away, w.hold
			w.stored = append(w.stored, e.GetId())
			w.mu.Unlock()
			if hold != nil {
				return <-hold
			}
			return away
		},
		Target: func(k inventory.Key) (inventory.Target, bool) {
			spec := &eventv1.EndpointSpec{Type: eventv1.EndpointType_ENDPOINT_TYPE_QUEUE}
			if k.ID == "lb" {
				spec.Type = eventv1.EndpointType_ENDPOINT_TYPE_LOAD_BALANCER
			}
			return inventory.Target{
				Key: k, Name: "name", Spec: &eventv1.TargetSpec{Kind: &eventv1.TargetSpec_Endpoint{Endpoint: spec}},
			}, k.ID != "nope"
		},
		Healthy: func(string) bool { return true }, Round: &poll.Round{},
		Bounds: bounds, MaxBackoff: 5 * time.Minute, FailureEvery: 15 * time.Second, Workers: 4,
		Jitter: jitter, Polls: poll.NewMetrics(registry), Metrics: job.NewMetrics(registry),
		Log: slog.New(slog.DiscardHandler),
	}, job.NewTracker(bounds))
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() { w.Run(ctx); close(ended) }()
	t.Cleanup(func() { cancel(); <-ended })
	return w
}

func (w *world) set(change func(*world)) {
	w.mu.Lock()
	defer w.mu.Unlock()
	change(w)
}

// pass lets time pass and returns the events of it.
func (w *world) pass(d time.Duration) []*eventv1.Event {
	w.mu.Lock()
	from := len(w.events)
	w.mu.Unlock()
	time.Sleep(d)
	synctest.Wait()
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.events[from:len(w.events):len(w.events)]
}

func (w *world) polls(id string) int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.asked[id]
}

func TestAJobIsPolledFastThenSlowThenNotAtAll(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := follow(t)
		w.set(func(w *world) { w.jobs["j"] = runpod.Job{ID: "j", Status: runpod.JobInProgress} })
		if n, already, err := w.Register(t.Context(), "ep", []string{"j", "j"}); n != 1 || already != 1 || err != nil {
			t.Fatalf("registered %d, %d already, %v", n, already, err)
		}
		w.pass(time.Minute)
		if n := w.polls("j"); n < 29 || n > 30 {
			t.Errorf("%d polls in the first minute, want 30", n)
		}
		w.pass(10 * time.Minute)
		if n := w.polls("j"); n < 68 || n > 71 {
			t.Errorf("%d polls in eleven minutes, want 30 and 40", n)
		}
		w.set(func(w *world) { w.jobs["j"] = runpod.Job{ID: "j", Status: runpod.JobCompleted} })
		w.pass(15 * time.Second)
		n := w.polls("j")
		w.pass(time.Hour)
		if again := w.polls("j"); again != n {
			t.Errorf("an ended job was polled %d times more", again-n)
		}
		if _, ok := w.Oldest(); ok {
			t.Error("an ended job counts as open")
		}
	})
}

func TestFailuresOfManyJobsAreToldOnceAnInterval(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := follow(t)
		w.set(func(w *world) { w.err = &runpod.Error{Op: "read job", Kind: runpod.Server, Status: 500} })
		if _, _, err := w.Register(t.Context(), "ep", []string{"a", "b", "c", "d", "e"}); err != nil {
			t.Fatal(err)
		}
		events := w.pass(10 * time.Minute)
		if len(events) == 0 || len(events) > 40 {
			t.Errorf("%d failures in ten minutes, want at most 40", len(events))
		}
		for _, e := range events {
			if f := e.GetPollFailed(); f.GetKind() != eventv1.PollKind_POLL_KIND_JOB || e.GetTarget().GetId() != "ep" {
				t.Errorf("told %v", e)
			}
		}
		before := w.polls("a")
		w.pass(time.Hour)
		if n := w.polls("a") - before; n < 11 || n > 13 {
			t.Errorf("%d polls in an hour of failures, want 12", n)
		}
		w.set(func(w *world) { w.err = nil })
		unknown := 0
		for _, e := range w.pass(6 * time.Minute) {
			switch e.GetJobTransitioned().GetState() {
			case eventv1.JobState_JOB_STATE_OUTCOME_UNKNOWN:
				unknown++
			case eventv1.JobState_JOB_STATE_LOST:
				t.Errorf("%s is lost, but it may have ended while RunPod did not answer", e.GetJobTransitioned().GetJobId())
			}
		}
		if unknown != 5 {
			t.Errorf("of %d of 5 forgotten jobs the outcome is unknown", unknown)
		}
	})
}

func TestARegistrationIsAllOrNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := follow(t)
		if _, _, err := w.Register(t.Context(), "nope", []string{"a"}); !errors.Is(err, fault.NotFound) {
			t.Errorf("an unknown endpoint is %v", err)
		}
		if _, _, err := w.Register(t.Context(), "lb", []string{"a"}); !errors.Is(err, fault.Invalid) {
			t.Errorf("a load balancer is %v", err)
		}
		if _, _, err := w.Register(t.Context(), "ep", []string{"1", "2", "3", "4", "5", "6"}); !errors.Is(err, fault.Exhausted) {
			t.Errorf("six of five are %v", err)
		}
		w.set(func(w *world) { w.away = errors.New("away") })
		if _, _, err := w.Register(t.Context(), "ep", []string{"1", "2"}); !errors.Is(err, fault.Unavailable) {
			t.Errorf("a log that is away is %v", err)
		}
		w.pass(time.Minute)
		if n := w.polls("1"); n != 0 {
			t.Errorf("a job that was not registered was polled %d times", n)
		}
		w.set(func(w *world) { w.away = nil })
		if n, _, err := w.Register(t.Context(), "ep", []string{"1", "2", "3", "4", "5"}); n != 5 || err != nil {
			t.Errorf("after that %d were registered, %v", n, err)
		}
	})
}

// TestARegistrationIsAcknowledgedWhenItIsStored has two calls register the same
// job while the log is slow, and the log store the registration of neither, either
// or both.
func TestARegistrationIsAcknowledgedWhenItIsStored(t *testing.T) {
	away := errors.New("away")
	for name, c := range map[string]struct {
		first, second error
		followed      bool
	}{
		"both are stored":  {nil, nil, true},
		"the first fails":  {away, nil, true},
		"the second fails": {nil, away, true},
		"both fail":        {away, away, false},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := follow(t)
				w.set(func(w *world) { w.hold, w.jobs["a"] = make(chan error), runpod.Job{Status: runpod.JobInQueue} })
				call := func() <-chan error {
					done := make(chan error, 1)
					go func() {
						_, _, err := w.Register(t.Context(), "ep1", []string{"a"})
						done <- err
					}()
					synctest.Wait()
					return done
				}
				calls := []<-chan error{call(), call()}
				answers := map[bool]int{}
				for _, outcome := range []error{c.first, c.second} {
					select {
					case w.hold <- outcome:
					case <-time.After(time.Second):
						t.Fatal("a call is acknowledged without storing anything")
					}
					synctest.Wait()
				}
				for _, done := range calls {
					select {
					case err := <-done:
						answers[err == nil]++
					default:
						t.Fatal("a call waits though the log answered twice")
					}
				}
				want := 0
				for _, outcome := range []error{c.first, c.second} {
					if outcome == nil {
						want++
					}
				}
				if answers[true] != want {
					t.Errorf("%d calls are acknowledged, want %d", answers[true], want)
				}
				if told := len(w.pass(time.Minute)) > 0; told != c.followed {
					t.Errorf("the job is followed: %v, want %v", told, c.followed)
				}
			})
		})
	}
}

// The log drops a registration whose id it knows, so one of a job that was sent to
// be tried again must have another.
func TestAJobThatEndedIsRegisteredAnew(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := follow(t)
		var attempts []int32
		for _, status := range []runpod.JobStatus{runpod.JobFailed, runpod.JobInQueue, runpod.JobFailed} {
			w.set(func(w *world) { w.jobs["j"] = runpod.Job{ID: "j", Status: status} })
			if _, _, err := w.Register(t.Context(), "ep", []string{"j"}); err != nil {
				t.Fatal(err)
			}
			for _, e := range w.pass(2 * time.Minute) {
				attempts = append(attempts, e.GetJobTransitioned().GetAttempt())
			}
		}
		if _, _, err := w.Register(t.Context(), "ep", []string{"j"}); err != nil {
			t.Fatal(err)
		}
		w.mu.Lock()
		defer w.mu.Unlock()
		want := []string{
			event.RegistrationID("default-endpoint-ep", "j", 0), event.RegistrationID("default-endpoint-ep", "j", 1),
			event.RegistrationID("default-endpoint-ep", "j", 2),
		}
		if diff := cmp.Diff(want, w.stored); diff != "" {
			t.Errorf("stored (-want +got):\n%s", diff)
		}
		if diff := cmp.Diff([]int32{1, 2, 2}, attempts); diff != "" {
			t.Errorf("attempts told (-want +got):\n%s", diff)
		}
	})
}

func TestWebhooksOfUnregisteredJobsAreTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := follow(t)
		for i := range 3 {
			if err := w.Webhook("ep", runpod.Job{ID: fmt.Sprint(i), Status: runpod.JobCompleted}); err != nil {
				t.Error(err)
			}
		}
		w.pass(time.Minute)
		w.mu.Lock()
		events := w.events
		w.mu.Unlock()
		if len(events) != 3 || events[0].GetSource() != eventv1.Source_SOURCE_WEBHOOK ||
			events[0].GetId() != event.JobFactID("default-endpoint-ep", "0", 1, eventv1.JobState_JOB_STATE_COMPLETED) {
			t.Errorf("told %v", events)
		}
		if err := w.Webhook("ep", runpod.Job{Status: runpod.JobCompleted}); !errors.Is(err, fault.Invalid) {
			t.Errorf("a webhook without a job is %v", err)
		}
		w.Drop("ep")
	})
}

func TestFactOf(t *testing.T) {
	delay, exec, retries := 40*time.Millisecond, 1500*time.Millisecond, int64(1)<<40
	fact := job.FactOf(runpod.Job{
		ID: "j", Status: runpod.JobTimedOut, DelayTime: &delay, ExecutionTime: &exec, WorkerID: "w", Retries: &retries,
		Failure: &runpod.Failure{Category: runpod.TimedOut, Type: "T", Message: "bearer abc.def-ghi", Frame: "h.py:3 in run"},
	})
	if fact.GetDelayMs() != 40 || fact.GetExecutionMs() != 1500 || fact.GetRetries() != 1<<31-1 || fact.GetState() != eventv1.JobState_JOB_STATE_TIMED_OUT {
		t.Errorf("fact is %v", fact)
	}
	if e := fact.GetError(); e.GetCategory() != eventv1.JobErrorCategory_JOB_ERROR_CATEGORY_TIMEOUT || e.GetFingerprint() == "" || e.GetMessage() == "bearer abc.def-ghi" {
		t.Errorf("error is %v", e)
	}
	bare := job.FactOf(runpod.Job{ID: "j", Status: runpod.JobInQueue})
	if bare.DelayMs != nil || bare.ExecutionMs != nil || bare.Retries != nil || bare.GetError() != nil {
		t.Errorf("what was absent is there: %v", bare)
	}
	for _, s := range []runpod.JobStatus{runpod.JobInQueue, runpod.JobInProgress, runpod.JobCompleted, runpod.JobFailed, runpod.JobCancelled, runpod.JobTimedOut} {
		if diff := cmp.Diff("JOB_STATE_"+string(s), job.FactOf(runpod.Job{Status: s}).GetState().String()); diff != "" {
			t.Errorf("state (-want +got):\n%s", diff)
		}
	}
}
