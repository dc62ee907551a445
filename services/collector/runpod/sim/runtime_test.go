package sim_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/tocsin-dev/tocsin/services/collector/runpod"
	"github.com/tocsin-dev/tocsin/services/collector/runpod/sim"
)

// one is an endpoint to which nothing comes by itself.
func one(change ...func(*sim.EndpointSpec)) sim.Scenario {
	spec := sim.EndpointSpec{ID: "ep", Name: "ep", MaxWorkers: 1, ColdStart: 20 * time.Second, Timeout: 2 * time.Minute}
	for _, c := range change {
		c(&spec)
	}
	return sim.Scenario{Endpoints: []sim.EndpointSpec{spec}}
}

// submit posts a job to /run and returns its id.
func submit(t testing.TB, srv *httptest.Server, body string) string {
	t.Helper()
	status, _, answer := send(t, srv, http.MethodPost, "/runtime/v2/ep/run", sim.DefaultKey, strings.NewReader(body))
	var job struct{ ID, Status string }
	if err := json.Unmarshal(answer, &job); err != nil || status != 200 || job.Status != "IN_QUEUE" || job.ID == "" {
		t.Fatalf("run: status %d: %s", status, answer)
	}
	return job.ID
}

func TestAJobGoesThroughItsStatesAndIsForgotten(t *testing.T) {
	t.Parallel()
	s, srv := account(t, one(), nil)
	c := client(t, srv, sim.DefaultKey)
	id := submit(t, srv, `{"input":{"prompt":"x","sim":{"execution_ms":30000}}}`)
	state := func() runpod.Job {
		t.Helper()
		j, err := c.JobStatus(t.Context(), "ep", id)
		if err != nil {
			t.Fatal(err)
		}
		return j
	}
	if j := state(); j.Status != runpod.JobInQueue || j.DelayTime != nil || j.WorkerID != "" {
		t.Errorf("at first %+v, want IN_QUEUE and nothing else", j)
	}
	s.Advance(26 * time.Second) // a cold start takes at most 25 s
	j := state()
	if j.Status != runpod.JobInProgress || j.WorkerID == "" || *j.DelayTime < 15*time.Second || *j.DelayTime > 25*time.Second || j.ExecutionTime != nil {
		t.Errorf("then %+v, want IN_PROGRESS on a worker", j)
	}
	s.Advance(30 * time.Second)
	if j := state(); j.Status != runpod.JobCompleted || *j.ExecutionTime != 30*time.Second || j.Failure != nil {
		t.Errorf("at last %+v, want COMPLETED after 30 s", j)
	}
	s.Advance(29 * time.Minute)
	state()
	s.Advance(time.Minute)
	if _, err := c.JobStatus(t.Context(), "ep", id); runpod.KindOf(err) != runpod.NotFound {
		t.Errorf("half an hour after its end: %v, want not found", err)
	}
}

// TestEachOutcomeIsFoundByItsName is also the test of the client's categories.
func TestEachOutcomeIsFoundByItsName(t *testing.T) {
	t.Parallel()
	s, srv := account(t, one(), nil)
	c := client(t, srv, sim.DefaultKey)
	for _, outcome := range []sim.Outcome{
		sim.OutcomeOK, sim.OutcomeValidation, sim.OutcomeTimeout, sim.OutcomeOOM, sim.OutcomeCrash, sim.OutcomeHandler, sim.OutcomeUnknown,
	} {
		id, err := s.Submit("ep", sim.JobOptions{Outcome: outcome})
		if err != nil {
			t.Fatal(err)
		}
		s.Advance(3 * time.Minute)
		j, err := c.JobStatus(t.Context(), "ep", id)
		if err != nil {
			t.Fatal(err)
		}
		if outcome == sim.OutcomeOK {
			if j.Status != runpod.JobCompleted {
				t.Errorf("%s: %+v", outcome, j)
			}
			continue
		}
		if j.Status != runpod.JobFailed || string(j.Failure.Category) != string(outcome) {
			t.Errorf("%s: %s with %+v", outcome, j.Status, j.Failure)
		}
		raised := outcome == sim.OutcomeValidation || outcome == sim.OutcomeOOM || outcome == sim.OutcomeHandler
		if raised != (j.Failure.Frame != "") || raised != (j.Failure.Type != "") {
			t.Errorf("%s: type %q and frame %q", outcome, j.Failure.Type, j.Failure.Frame)
		}
	}
	got, _ := s.Counts("ep")
	if got.Completed != 1 || got.Failed != 6 || got.Retried != 3 {
		t.Errorf("counts %+v, want 1 completed, 6 failed, 3 retries of the crash", got)
	}
}

func TestAJobThatRunsTooLongIsStopped(t *testing.T) {
	t.Parallel()
	s, srv := account(t, one(), nil)
	id, err := s.Submit("ep", sim.JobOptions{Execution: time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	s.Advance(3 * time.Minute)
	j, err := client(t, srv, sim.DefaultKey).JobStatus(t.Context(), "ep", id)
	if err != nil || j.Failure == nil || j.Failure.Category != runpod.TimedOut || *j.ExecutionTime != 2*time.Minute {
		t.Errorf("%+v, %v; want a timeout after 2 minutes", j, err)
	}
}

func TestJobsAreCancelledRetriedAndPurged(t *testing.T) {
	t.Parallel()
	s, srv := account(t, one(), nil)
	c := client(t, srv, sim.DefaultKey)
	post := func(path string) (int, string) {
		t.Helper()
		status, _, body := send(t, srv, http.MethodPost, "/runtime/v2/ep/"+path, sim.DefaultKey, nil)
		return status, strings.TrimSpace(string(body))
	}
	running := submit(t, srv, `{"input":{"sim":{"outcome":"handler"}}}`)
	s.Advance(26 * time.Second)
	queued := submit(t, srv, `{"input":{"x":1}}`)
	if status, body := post("retry/" + queued); status != 400 {
		t.Errorf("retry of a queued job: %d %s", status, body)
	}
	if _, body := post("cancel/" + queued); body != fmt.Sprintf(`{"id":%q,"status":"CANCELLED"}`, queued) {
		t.Errorf("cancel: %s", body)
	}
	s.Advance(time.Minute)
	if _, body := post("retry/" + running); body != fmt.Sprintf(`{"id":%q,"status":"IN_QUEUE"}`, running) {
		t.Errorf("retry: %s", body)
	}
	submit(t, srv, `{"input":{"x":2}}`)
	submit(t, srv, `{"input":{"x":3}}`)
	if _, body := post("purge-queue"); body != `{"removed":3,"status":"completed"}` {
		t.Errorf("purge: %s", body)
	}
	if j, err := c.JobStatus(t.Context(), "ep", running); err != nil || j.Status != runpod.JobCancelled || *j.Retries != 1 {
		t.Errorf("the purged job: %+v, %v", j, err)
	}
	last := submit(t, srv, `{"input":{"sim":{"execution_ms":60000}}}`)
	s.Advance(30 * time.Second)
	post("cancel/" + last) // while it runs
	s.Advance(time.Hour)
	got, _ := s.Counts("ep")
	want := sim.Counts{Failed: 1, Retried: 1, Arrived: 6, Cancelled: 5, MaxWorkers: 1}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("counts (-want +got):\n%s", diff)
	}
	if status, body := post("cancel/none"); status != 404 {
		t.Errorf("cancel of no job: %d %s", status, body)
	}
}

func TestSubmissionsThatAreWrongAreRefused(t *testing.T) {
	t.Parallel()
	s, srv := account(t, everything(), nil)
	for name, test := range map[string]struct {
		path, body string
		want       int
	}{
		"no JSON":               {"queue/run", "hello", 400},
		"no input":              {"queue/run", `{}`, 400},
		"an input that is text": {"queue/run", `{"input":"x"}`, 400},
		"a webhook elsewhere":   {"queue/run", `{"input":{"x":1},"webhook":"http://example.com/x"}`, 400},
		"a webhook by TLS":      {"queue/run", `{"input":{"x":1},"webhook":"https://127.0.0.1/x"}`, 400},
		"a webhook with a user": {"queue/run", `{"input":{"x":1},"webhook":"http://a:b@127.0.0.1/x"}`, 400},
		"11 MB":                 {"queue/run", `{"input":{"x":"` + strings.Repeat("x", 11<<20) + `"}}`, 413},
		"a load balancer":       {"balance/run", `{"input":{"x":1}}`, 404},
		"no such endpoint":      {"other/run", `{"input":{"x":1}}`, 404},
	} {
		if status, _, body := send(t, srv, http.MethodPost, "/runtime/v2/"+test.path, sim.DefaultKey, strings.NewReader(test.body)); status != test.want {
			t.Errorf("%s: status %d, want %d: %s", name, status, test.want, body)
		}
	}
	if _, err := s.Submit("balance", sim.JobOptions{}); err == nil {
		t.Error("a load balancer takes a job")
	}
	if _, err := s.Submit("queue", sim.JobOptions{Webhook: "http://10.0.0.1/"}); err == nil {
		t.Error("a webhook may go to the network")
	}
}

func TestRunSyncWaitsForTheEnd(t *testing.T) {
	t.Parallel()
	// At a speed of 1000 a cold start takes 20 ms.
	_, srv := account(t, one(), func(o *sim.Options) { o.Now, o.Speed = time.Now, 1000 })
	_, _, body := send(t, srv, http.MethodPost, "/runtime/v2/ep/runsync", sim.DefaultKey, strings.NewReader(`{"input":{"x":1}}`))
	var job struct{ ID, Status string }
	if err := json.Unmarshal(body, &job); err != nil || job.Status != "COMPLETED" || !strings.HasPrefix(job.ID, "sync-") {
		t.Errorf("answer %s, want COMPLETED", body)
	}
	slow := `{"input":{"sim":{"execution_ms":60000}}}`
	_, _, body = send(t, srv, http.MethodPost, "/runtime/v2/ep/runsync?wait=1000", sim.DefaultKey, strings.NewReader(slow))
	if err := json.Unmarshal(body, &job); err != nil || job.Status == "COMPLETED" {
		t.Errorf("answer %s, want one that is not final after a wait of 1 s", body)
	}
}
