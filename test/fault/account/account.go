// Package account is a RunPod whose facts are known: endpoints whose queues are
// as long as the test says, and jobs that take their course. Each answer about
// an endpoint carries a number of its own, so that what arrives anywhere can be
// told to be an answer that was given, once. It shares nothing with the
// simulator.
package account

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"
)

// Key is the API key that is accepted.
const Key = "rpa_FAULTFAULTFAULTFAULTFAULT"

// jobStage is how long a job waits, and how long it then runs.
const jobStage = 700 * time.Millisecond

// Mood is how RunPod answers.
type Mood int

// The moods.
const (
	// Fine answers.
	Fine Mood = iota
	// Broken answers 500.
	Broken
	// Hanging answers nothing until the caller goes.
	Hanging
)

// Account is the fake. It is safe for concurrent use.
type Account struct {
	server *httptest.Server

	mu     sync.Mutex
	mood   Mood                 // guarded by mu
	levels map[string]int64     // guarded by mu; jobs in queue, by endpoint
	given  map[string][]int64   // guarded by mu; the level of each answer, by endpoint
	jobs   map[string]time.Time // guarded by mu; when each was submitted, by endpoint/id
}

// New starts a RunPod that has these endpoints, all with empty queues.
func New(t testing.TB, endpoints []string) *Account {
	t.Helper()
	a := &Account{levels: map[string]int64{}, given: map[string][]int64{}, jobs: map[string]time.Time{}}
	for _, id := range endpoints {
		a.levels[id] = 0
	}
	a.server = httptest.NewServer(a)
	t.Cleanup(func() {
		a.server.CloseClientConnections()
		a.server.Close()
	})
	return a
}

// Addr returns the host and port that the fake listens on.
func (a *Account) Addr() string { return a.server.Listener.Addr().String() }

// SetLevel makes so many jobs wait on an endpoint.
func (a *Account) SetLevel(endpoint string, jobs int64) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.levels[endpoint] = jobs
}

// SetMood changes how the fake answers.
func (a *Account) SetMood(m Mood) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.mood = m
}

// Submit begins a job.
func (a *Account) Submit(endpoint, job string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.jobs[endpoint+"/"+job] = time.Now()
}

// Given returns the queue that the answer with a number told, and whether there
// was such an answer.
func (a *Account) Given(endpoint string, number int64) (level int64, ok bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	answers := a.given[endpoint]
	if number < 1 || number > int64(len(answers)) {
		return 0, false
	}
	return answers[number-1], true
}

// ServeHTTP answers as RunPod's REST and serverless APIs do.
func (a *Account) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	a.mu.Lock()
	defer a.mu.Unlock()
	switch {
	case a.mood == Hanging:
		a.mu.Unlock()
		<-r.Context().Done()
		a.mu.Lock()
		return
	case a.mood == Broken:
		problem(w, http.StatusInternalServerError)
		return
	case r.Header.Get("Authorization") != "Bearer "+Key:
		problem(w, http.StatusUnauthorized)
		return
	}
	parts := strings.Split(strings.Trim(r.URL.Path, "/"), "/")
	switch {
	case r.URL.Path == "/rest/serverless":
		var all []json.RawMessage
		for id := range a.levels {
			all = append(all, json.RawMessage(endpointJSON(id)))
		}
		_ = json.NewEncoder(w).Encode(map[string]any{"endpoints": all})
	case r.URL.Path == "/rest/pods":
		_, _ = w.Write([]byte(`{"pods":[]}`))
	case strings.HasPrefix(r.URL.Path, "/rest/serverless/") && a.has(parts[2]):
		_, _ = w.Write([]byte(endpointJSON(parts[2])))
	case len(parts) == 3 && parts[0] == "run" && parts[2] == "health" && a.has(parts[1]):
		_, _ = w.Write([]byte(a.health(parts[1])))
	case len(parts) == 4 && parts[0] == "run" && parts[2] == "status":
		a.status(w, parts[1]+"/"+parts[3], parts[3])
	default:
		problem(w, http.StatusNotFound)
	}
}

func (a *Account) has(endpoint string) bool {
	_, ok := a.levels[endpoint]
	return ok
}

// health gives one numbered answer. The caller holds mu.
func (a *Account) health(endpoint string) string {
	level := a.levels[endpoint]
	a.given[endpoint] = append(a.given[endpoint], level)
	return fmt.Sprintf(`{"jobs":{"completed":%d,"failed":0,"inProgress":0,"inQueue":%d,"retried":0},
		"workers":{"idle":1,"initializing":0,"ready":1,"running":1,"throttled":0,"unhealthy":0}}`, len(a.given[endpoint]), level)
}

// status tells how far a job is. The caller holds mu.
func (a *Account) status(w http.ResponseWriter, key, id string) {
	began, ok := a.jobs[key]
	if !ok {
		problem(w, http.StatusNotFound)
		return
	}
	state := "IN_QUEUE"
	switch since := time.Since(began); {
	case since > 2*jobStage:
		state = "COMPLETED"
	case since > jobStage:
		state = "IN_PROGRESS"
	}
	_, _ = fmt.Fprintf(w, `{"id":%q,"status":%q}`, id, state)
}

func endpointJSON(id string) string {
	return fmt.Sprintf(`{"id":%q,"name":%q,"type":"QUEUE","image":"team/app:1","env":{},
		"gpu":{"pools":["ADA_24"],"count":1},"workers":{"min":0,"max":3,"idleTimeout":5},
		"scaling":{"type":"QUEUE_DELAY","queueDelay":4},"timeout":600000,"flashboot":"OFF"}`, id, id)
}

func problem(w http.ResponseWriter, status int) {
	w.Header().Set("Content-Type", "application/problem+json")
	w.WriteHeader(status)
	_, _ = fmt.Fprintf(w, `{"title":%q,"status":%d}`, http.StatusText(status), status)
}
