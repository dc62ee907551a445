package sim

import (
	"encoding/json"
	"io"
	"net/http"
	"strconv"
	"time"
)

const (
	// maxRunBytes and maxRunSyncBytes are RunPod's bounds on a payload.
	maxRunBytes     = 10 << 20
	maxRunSyncBytes = 20 << 20
	// syncWait and maxSyncWait are how long /runsync waits, simulated.
	syncWait    = 90 * time.Second
	maxSyncWait = 300 * time.Second
	// syncLook is how often /runsync looks whether its job has ended.
	syncLook = 10 * time.Millisecond
)

// queueOf returns the queue endpoint that the path names at the present instant
// and locked, or answers 404. Load-balancer endpoints have no runtime API.
func (s *Sim) queueOf(w http.ResponseWriter, r *http.Request) *endpoint {
	e := s.endpoints[r.PathValue("id")]
	if e == nil || e.spec.LoadBalancer || !e.exists(s.Elapsed()) {
		runtimeError(w, http.StatusNotFound, "endpoint not found")
		return nil
	}
	e.mu.Lock()
	e.advance(s.Elapsed())
	return e
}

// runtimeError answers as the runtime API does, which knows no problem+json.
func runtimeError(w http.ResponseWriter, status int, text string) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	writeJSON(w, map[string]string{"error": text})
}

func (s *Sim) health(w http.ResponseWriter, r *http.Request) {
	e := s.queueOf(w, r)
	if e == nil {
		return
	}
	c := e.counts()
	e.mu.Unlock()
	answer(w, map[string]any{
		"jobs": map[string]int{
			"completed": c.Completed, "failed": c.Failed, "inProgress": c.InProgress, "inQueue": c.InQueue, "retried": c.Retried,
		},
		"workers": map[string]int{ // idle and ready are the same workers
			"idle": c.Idle, "ready": c.Idle, "initializing": c.Initializing, "running": c.Running,
			"throttled": c.Throttled, "unhealthy": c.Unhealthy,
		},
	})
}

// submission is the body of /run. An input may direct its own fate with
// {"sim":{"outcome":"oom","execution_ms":1500}}.
type submission struct {
	Input   json.RawMessage `json:"input"`
	Webhook string          `json:"webhook"`
}

// readJob reads a submission, or answers why not.
func readJob(w http.ResponseWriter, r *http.Request, limit int64) (JobOptions, bool) {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, limit))
	if err != nil {
		runtimeError(w, http.StatusRequestEntityTooLarge, "payload is too large")
		return JobOptions{}, false
	}
	var sub submission
	if err := json.Unmarshal(body, &sub); err != nil || len(sub.Input) == 0 || sub.Input[0] != '{' {
		runtimeError(w, http.StatusBadRequest, "input is missing")
		return JobOptions{}, false
	}
	if err := checkHook(sub.Webhook); err != nil {
		runtimeError(w, http.StatusBadRequest, err.Error())
		return JobOptions{}, false
	}
	opts := JobOptions{Input: sub.Input, Webhook: sub.Webhook}
	var fate struct {
		Sim struct {
			Outcome     Outcome `json:"outcome"`
			ExecutionMS int64   `json:"execution_ms"`
		} `json:"sim"`
	}
	if json.Unmarshal(sub.Input, &fate) == nil {
		opts.Outcome, opts.Execution = fate.Sim.Outcome, time.Duration(max(fate.Sim.ExecutionMS, 0))*time.Millisecond
	}
	if string(sub.Input) == "{}" { // taken, and then refused by the worker's library
		opts.Outcome = OutcomeCrash
	}
	return opts, true
}

// accept queues a job at the endpoint of the path and returns both, or answers.
func (s *Sim) accept(w http.ResponseWriter, r *http.Request, opts JobOptions) (*endpoint, *job, wireJob) {
	e := s.queueOf(w, r)
	if e == nil {
		return nil, nil, wireJob{}
	}
	j := e.enqueue(opts)
	e.settle()
	s.hooks.watch(e)
	state := j.wire()
	e.mu.Unlock()
	return e, j, state
}

func (s *Sim) run(w http.ResponseWriter, r *http.Request) {
	opts, ok := readJob(w, r, maxRunBytes)
	if !ok {
		return
	}
	if e, j, _ := s.accept(w, r, opts); e != nil {
		answer(w, wireJob{ID: j.id, Status: statusQueued})
	}
}

func (s *Sim) runSync(w http.ResponseWriter, r *http.Request) {
	opts, ok := readJob(w, r, maxRunSyncBytes)
	if !ok {
		return
	}
	opts.Sync = true
	e, j, state := s.accept(w, r, opts)
	if e == nil {
		return
	}
	wait := syncWait
	if ms, err := strconv.Atoi(r.URL.Query().Get("wait")); err == nil {
		wait = min(max(time.Duration(ms)*time.Millisecond, time.Second), maxSyncWait)
	}
	until := s.Elapsed() + wait
	look := time.NewTicker(syncLook)
	defer look.Stop()
	for s.Elapsed() < until {
		e.mu.Lock()
		e.advance(s.Elapsed())
		state = j.wire()
		done := j.final()
		e.mu.Unlock()
		if done {
			break
		}
		select {
		case <-look.C:
		case <-r.Context().Done():
			return
		}
	}
	answer(w, state)
}

// withJob calls f with the locked endpoint and the job that the path names and
// answers with what f returns, or answers 404.
func (s *Sim) withJob(w http.ResponseWriter, r *http.Request, f func(*endpoint, *job) (any, string)) {
	e := s.queueOf(w, r)
	if e == nil {
		return
	}
	j := e.jobs[r.PathValue("job")]
	if j == nil {
		e.mu.Unlock()
		runtimeError(w, http.StatusNotFound, "job not found")
		return
	}
	result, refusal := f(e, j)
	e.mu.Unlock()
	if refusal != "" {
		runtimeError(w, http.StatusBadRequest, refusal)
		return
	}
	answer(w, result)
}

func (s *Sim) status(w http.ResponseWriter, r *http.Request) {
	s.withJob(w, r, func(_ *endpoint, j *job) (any, string) { return j.wire(), "" })
}

func (s *Sim) cancel(w http.ResponseWriter, r *http.Request) {
	s.withJob(w, r, func(e *endpoint, j *job) (any, string) {
		e.cancel(j)
		return wireJob{ID: j.id, Status: j.status}, ""
	})
}

func (s *Sim) retry(w http.ResponseWriter, r *http.Request) {
	s.withJob(w, r, func(e *endpoint, j *job) (any, string) {
		if j.status != statusFailed {
			return nil, "only a job that failed or timed out can be retried"
		}
		e.retry(j)
		s.hooks.watch(e)
		return wireJob{ID: j.id, Status: statusQueued}, ""
	})
}

func (s *Sim) purge(w http.ResponseWriter, r *http.Request) {
	e := s.queueOf(w, r)
	if e == nil {
		return
	}
	removed := e.purge()
	e.mu.Unlock()
	answer(w, map[string]any{"removed": removed, "status": "completed"})
}
