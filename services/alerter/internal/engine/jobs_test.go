package engine

import (
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/testing/protocmp"
	"google.golang.org/protobuf/types/known/durationpb"

	alertv1 "github.com/tocsin-dev/tocsin/proto/gen/tocsin/alert/v1"
	eventv1 "github.com/tocsin-dev/tocsin/proto/gen/tocsin/event/v1"
)

const (
	inQueue    = eventv1.JobState_JOB_STATE_IN_QUEUE
	inProgress = eventv1.JobState_JOB_STATE_IN_PROGRESS
	completed  = eventv1.JobState_JOB_STATE_COMPLETED
	failed     = eventv1.JobState_JOB_STATE_FAILED
	timedOut   = eventv1.JobState_JOB_STATE_TIMED_OUT
	lost       = eventv1.JobState_JOB_STATE_LOST
)

func sampledQueue(e *eventv1.Target, slot, n int64) *eventv1.Event {
	return sampled(e, slot, 15*time.Second, &eventv1.JobCounts{InQueue: &n}, nil)
}

func TestStatesOfAJobOnlyMoveForward(t *testing.T) {
	j := newJobTable()
	for i, c := range []struct {
		attempt int32
		to      eventv1.JobState
		moves   bool
	}{
		{1, inProgress, true},
		{1, inQueue, false},
		{1, inProgress, false},
		{1, failed, true},
		{1, completed, false},
		{0, completed, false}, // the latest attempt, which has ended
		{2, inQueue, true},    // retried
		{1, completed, false},
		{0, inProgress, true},
		{0, completed, true},
		{0, lost, false},
		{4, timedOut, true}, // attempts that nobody saw
	} {
		if _, moved := j.move("a", c.attempt, c.to, int64(i)); moved != c.moves {
			t.Errorf("step %d: attempt %d to %s moves: %v, want %v", i, c.attempt, c.to, moved, c.moves)
		}
	}
	if len(j.open) != 0 || len(j.ended) != 1 || len(j.byID) != 1 {
		t.Errorf("%d open, %d ended, %d known; want one that ended", len(j.open), len(j.ended), len(j.byID))
	}
	if j.register("a", 20) {
		t.Error("a job that is known was registered")
	}
}

func TestJobsAreForgottenInTime(t *testing.T) {
	j := newJobTable()
	j.move("ended", 1, completed, 0)
	j.move("open", 1, inQueue, 0)
	j.prune(0, -1)
	if len(j.byID) != 2 {
		t.Errorf("%d known, want both", len(j.byID))
	}
	j.prune(1, 0)
	if j.byID["open"] == nil || j.byID["ended"] != nil {
		t.Errorf("known %v; want only the one that has not ended", j.byID)
	}
	j.prune(1, 1)
	if len(j.byID) != 0 || len(j.open) != 0 {
		t.Errorf("known %v; want none", j.byID)
	}
}

func TestTooManyJobsDropTheOldest(t *testing.T) {
	j := newJobTable()
	for i := range int64(maxJobs) {
		state := completed
		if i%2 == 0 {
			state = inQueue
		}
		j.move(fmt.Sprint(i), 1, state, i)
	}
	j.move("newest", 1, completed, maxJobs)
	j.move("newer", 1, inQueue, maxJobs)
	if over := j.prune(0, 0); over != 2 || j.dropped != 2 || j.byID["0"] != nil || j.byID["1"] != nil || j.byID["2"] == nil {
		t.Errorf("%d dropped, %d in all", over, j.dropped)
	}
}

func TestWaitsOfFollowedJobs(t *testing.T) {
	j := newJobTable()
	for i := range int64(4) {
		j.waited(0, i*1000)
	}
	if v, ok := j.delayP95(0); ok {
		t.Errorf("percentile %v of four waits", v)
	}
	for i := range int64(100) {
		j.waited(1, i*1000)
	}
	// Of the last 64, which are 36 s to 99 s, 61 are at most 96 s.
	if v, ok := j.delayP95(1); !ok || v != 96 {
		t.Errorf("percentile %v, %v; want 96", v, ok)
	}
	if _, ok := j.delayP95(2 + delaysFor.Milliseconds()); ok {
		t.Error("waits count that are too old")
	}
}

const jobRules = `
groups:
  - name: jobs
    rules:
      - {alert: JobFailed, on: job, expr: "increase(job.failed, '10m') >= 3", keep_firing_for: 5m,
         annotations: {summary: '{{ $labels.category }}: {{ .Value "increase(job.failed, ''10m'')" }}, {{ .Message }}'}}
      - {alert: NewError, on: job, expr: job.fingerprint_new && job.category == 'handler'}
      - {alert: Stuck, on: endpoint, expr: "tracked.oldest_queued_s > 600"}
      - {alert: Overrun, on: endpoint, expr: "tracked.overrun > 0 || increase(tracked.lost, '10m') > 0"}
      - {alert: Invalid, on: endpoint, expr: "increase(tracked.invalid, '10m') >= 2"}
`

func failure(id string, category eventv1.JobErrorCategory, fingerprint string) *eventv1.JobTransitioned {
	return &eventv1.JobTransitioned{JobId: id, Attempt: 1, State: failed, Error: &eventv1.JobError{
		Category: category, Message: "it broke in " + fingerprint, Fingerprint: fingerprint,
	}}
}

func TestFailedJobsAreToldByCategory(t *testing.T) {
	const oom, handler = eventv1.JobErrorCategory_JOB_ERROR_CATEGORY_OOM, eventv1.JobErrorCategory_JOB_ERROR_CATEGORY_HANDLER
	s := newStory(t, compile(t, jobRules))
	s.want(s.job(time.Minute, "x", failure("j1", oom, "f1")))
	s.want(s.job(time.Minute, "x", failure("j1", oom, "f1"))) // the same fact from another source
	s.want(s.job(time.Minute, "x", failure("j2", oom, "f1")))
	s.want(s.job(time.Minute, "x", failure("h1", handler, "f2")), "firing NewError")
	r := s.job(time.Minute, "x", failure("j3", oom, "f3"))
	s.want(r, "firing JobFailed")
	a := r.Transitions[0].GetAlert()
	if a.GetLabels()["category"] != "oom" || a.GetLabels()["endpoint_id"] != "x" || a.GetAnnotations()["summary"] != "oom: 3, it broke in f3" {
		t.Errorf("labels %v, annotations %v", a.GetLabels(), a.GetAnnotations())
	}
	want := []*alertv1.ErrorGroup{{Category: "oom", Count: 3, JobIds: []string{"j3", "j2", "j1"}, Message: "it broke in f3", Fingerprint: "f3"}}
	if diff := cmp.Diff(want, a.GetEvidence().GetErrorGroups(), protocmp.Transform()); diff != "" {
		t.Error(diff)
	}
	// Samples let the windows move on; ten minutes later it is over, and five
	// minutes after that it is told.
	var all []string
	for range 4 * 20 {
		all = append(all, told(s.queue(15*time.Second, "x", 0))...)
	}
	if diff := cmp.Diff([]string{"resolved NewError", "resolved JobFailed"}, all); diff != "" {
		t.Error(diff)
	}
	// A fingerprint that is known is no news, also in other jobs.
	s.want(s.job(time.Minute, "x", failure("h2", handler, "f2")))
}

// TestADiagnosisWeighsFailuresOfItsOwnWindow: those of an hour are no share of what
// completed in a quarter of one.
func TestADiagnosisWeighsFailuresOfItsOwnWindow(t *testing.T) {
	s := newStory(t, compile(t, queueRule))
	for i := range 15 { // one every 4 minutes, 56 minutes in all
		s.job(4*time.Minute, "x", &eventv1.JobTransitioned{JobId: fmt.Sprint(i), State: timedOut})
	}
	known := s.p.patient(s.p.targets["a-endpoint-x"], "", s.p.nowMs())
	if e := known.Errors; len(e) != 1 || e[0].Category != "timeout" || e[0].Count != 15 || e[0].Recent != 4 {
		t.Errorf("failures %+v, want 15 in the hour and 4 in the last 15 minutes", e)
	}
}

func TestATimeLimitWithoutAnErrorIsACategory(t *testing.T) {
	s := newStory(t, compile(t, jobRules))
	var r StepResult
	for i := range 3 {
		r = s.job(time.Second, "x", &eventv1.JobTransitioned{JobId: fmt.Sprint(i), State: timedOut})
	}
	s.want(r, "firing JobFailed")
	if got := r.Transitions[0].GetAlert().GetLabels()["category"]; got != "timeout" {
		t.Errorf("category %q", got)
	}
}

func TestLateFailuresCountWhereTheyHappened(t *testing.T) {
	s := newStory(t, compile(t, jobRules))
	s.queue(0, "x", 0)
	for range 40 {
		s.queue(15*time.Second, "x", 0)
	}
	for i, held := range []time.Duration{0, 20 * time.Minute, 9 * time.Minute, 30 * time.Minute, time.Minute} {
		e := &eventv1.Event{
			Target: endpoint("x"), Held: durationpb.New(held),
			Fact: &eventv1.Event_JobTransitioned{JobTransitioned: failure(fmt.Sprint(i), eventv1.JobErrorCategory_JOB_ERROR_CATEGORY_CRASH, "f")},
		}
		r := s.send(time.Second, e)
		if want := i == 4; want != (len(r.Transitions) == 1) {
			t.Errorf("failure %d, held %v: %v; only the fifth is the third within ten minutes", i, held, told(r))
		}
	}
}

func TestJobsThatWaitRunOverOrVanish(t *testing.T) {
	s := newStory(t, compile(t, jobRules))
	s.send(0, &eventv1.Event{Target: endpoint("x"), Fact: &eventv1.Event_TargetDiscovered{TargetDiscovered: &eventv1.TargetDiscovered{
		Spec: &eventv1.TargetSpec{Kind: &eventv1.TargetSpec_Endpoint{Endpoint: &eventv1.EndpointSpec{ExecutionTimeout: durationpb.New(5 * time.Minute)}}},
	}}})
	var all []string
	pass := func(d time.Duration) {
		for range d / (15 * time.Second) {
			all = append(all, told(s.queue(15*time.Second, "x", 0))...)
		}
	}
	s.job(0, "x", &eventv1.JobTransitioned{JobId: "waits", State: inQueue})
	s.job(0, "x", &eventv1.JobTransitioned{JobId: "runs", State: inProgress})
	pass(11 * time.Minute)
	all = append(all, told(s.job(0, "x", &eventv1.JobTransitioned{JobId: "waits", State: inProgress}))...)
	all = append(all, told(s.job(0, "x", &eventv1.JobTransitioned{JobId: "runs", State: completed}))...)
	all = append(all, told(s.job(0, "x", &eventv1.JobTransitioned{JobId: "waits", State: lost}))...)
	pass(11 * time.Minute)
	want := []string{"firing Overrun", "firing Stuck", "resolved Stuck", "resolved Overrun", "firing Overrun", "resolved Overrun"}
	if diff := cmp.Diff(want, all); diff != "" {
		t.Error(diff)
	}
}

func TestRefusedInputsAreCounted(t *testing.T) {
	s := newStory(t, compile(t, jobRules))
	s.want(s.job(time.Second, "x", failure("1", eventv1.JobErrorCategory_JOB_ERROR_CATEGORY_VALIDATION, "v")))
	s.want(s.job(time.Second, "x", failure("2", eventv1.JobErrorCategory_JOB_ERROR_CATEGORY_VALIDATION, "v")), "firing Invalid")
}
