package collector_test

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

// The key that the fake accepts, and texts that must never reach an event.
const (
	goodKey      = "rpa_CANARYKEYCANARYKEYCANARYKEY"
	canaryEnv    = "canary-in-the-environment"
	canaryInput  = "canary-in-the-input"
	canaryOutput = "canary-in-the-output"
)

// fakeRunPod answers as RunPod does, from maps that a test may change. It is not
// the project's simulator, so that the two cannot share a mistake.
type fakeRunPod struct {
	*httptest.Server

	mu        sync.Mutex
	endpoints map[string]string           // guarded by mu: JSON by id
	pods      map[string]string           // guarded by mu: JSON by id
	health    map[string]string           // guarded by mu: JSON by endpoint
	jobs      map[string]string           // guarded by mu: JSON by endpoint/job
	instead   map[string]http.HandlerFunc // guarded by mu: by the path's prefix
	asked     map[string]int              // guarded by mu: calls by path
}

const healthy = `{"jobs":{"completed":31,"failed":1,"inProgress":0,"inQueue":2,"retried":1},
	"workers":{"idle":1,"initializing":0,"ready":1,"running":1,"throttled":0,"unhealthy":0}}`

func newFakeRunPod(t *testing.T) *fakeRunPod {
	t.Helper()
	f := &fakeRunPod{
		endpoints: map[string]string{"ep1": endpointJSON("ep1", "img-prod", "QUEUE", 3)},
		pods:      map[string]string{},
		health:    map[string]string{"ep1": healthy},
		jobs:      map[string]string{},
		instead:   map[string]http.HandlerFunc{},
		asked:     map[string]int{},
	}
	f.Server = httptest.NewServer(f)
	t.Cleanup(f.CloseClientConnections)
	t.Cleanup(f.Close)
	return f
}

func endpointJSON(id, name, kind string, workers int) string {
	return fmt.Sprintf(`{"id":%q,"name":%q,"type":%q,"image":"team/app:1","env":{"TOKEN":%q},
		"gpu":{"pools":["ADA_24"],"count":1},"workers":{"min":0,"max":%d,"idleTimeout":5},
		"scaling":{"type":"QUEUE_DELAY","queueDelay":4},"timeout":600000,"flashboot":"OFF","surprise":[1]}`,
		id, name, kind, canaryEnv, workers)
}

func podJSON(id, name, runtime string) string {
	return fmt.Sprintf(`{"id":%q,"name":%q,"status":"RUNNING","cost":2.49,"env":{"TOKEN":%q},
		"gpu":{"id":"NVIDIA H200","count":1},"runtime":%s}`, id, name, canaryEnv, runtime)
}

// set changes the fake under its lock.
func (f *fakeRunPod) set(change func(*fakeRunPod)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	change(f)
}

func (f *fakeRunPod) calls(path string) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.asked[path]
}

// await waits until a path was asked for n times.
func (f *fakeRunPod) await(t *testing.T, path string, n int) {
	t.Helper()
	deadline := time.After(limit)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for f.calls(path) < n {
		select {
		case <-deadline:
			t.Fatalf("%s was asked for %d times in %v, want %d", path, f.calls(path), limit, n)
		case <-tick.C:
		}
	}
}

func (f *fakeRunPod) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	f.mu.Lock()
	f.asked[r.URL.Path]++
	for prefix, h := range f.instead {
		if strings.HasPrefix(r.URL.Path, prefix) {
			f.mu.Unlock()
			h(w, r)
			return
		}
	}
	defer f.mu.Unlock()
	if r.Header.Get("Authorization") != "Bearer "+goodKey {
		problem(w, http.StatusUnauthorized, "no such key: "+r.Header.Get("Authorization"))
		return
	}
	parts := strings.Split(strings.Trim(r.URL.Path, "/"), "/")
	switch {
	case r.URL.Path == "/rest/serverless":
		list(w, "endpoints", f.endpoints)
	case r.URL.Path == "/rest/pods":
		list(w, "pods", f.pods)
	case strings.HasPrefix(r.URL.Path, "/rest/serverless/"):
		one(w, f.endpoints, parts[2])
	case strings.HasPrefix(r.URL.Path, "/rest/pods/"):
		one(w, f.pods, parts[2])
	case len(parts) == 3 && parts[0] == "run" && parts[2] == "health":
		one(w, f.health, parts[1])
	case len(parts) == 4 && parts[2] == "status":
		one(w, f.jobs, parts[1]+"/"+parts[3])
	default:
		problem(w, http.StatusNotFound, "no such path")
	}
}

func list(w http.ResponseWriter, name string, items map[string]string) {
	raw := make([]json.RawMessage, 0, len(items))
	for _, item := range items {
		raw = append(raw, json.RawMessage(item))
	}
	_ = json.NewEncoder(w).Encode(map[string]any{name: raw})
}

func one(w http.ResponseWriter, items map[string]string, id string) {
	item, ok := items[id]
	if !ok {
		problem(w, http.StatusNotFound, "not found")
		return
	}
	_, _ = w.Write([]byte(item))
}

func problem(w http.ResponseWriter, status int, detail string) {
	w.Header().Set("Content-Type", "application/problem+json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(map[string]any{"title": "refused", "status": status, "detail": detail})
}
