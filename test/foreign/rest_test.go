package foreign

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
)

// restAPI is a control plane that serves what it is given. It only answers
// what a monitor may ask, and takes down everything else.
type restAPI struct {
	url string

	mu        sync.Mutex
	endpoints []map[string]any // guarded by mu
	pods      []map[string]any // guarded by mu
	answer    http.HandlerFunc // guarded by mu; answers in place of the inventory
	lists     int              // guarded by mu; lists answered from the inventory
	faults    []string         // guarded by mu
}

func newREST(t *testing.T) *restAPI {
	t.Helper()
	r := &restAPI{endpoints: []map[string]any{}, pods: []map[string]any{}}
	server := httptest.NewServer(r)
	r.url = server.URL
	t.Cleanup(func() {
		server.CloseClientConnections() // an answer that never ends would hold Close
		server.Close()
		r.mu.Lock()
		defer r.mu.Unlock()
		report(t, "the control plane", r.faults)
	})
	return r
}

// set replaces the inventory.
func (r *restAPI) set(endpoints, pods []map[string]any) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.endpoints, r.pods = endpoints, pods
}

// misbehave answers every call with h until it is nil.
func (r *restAPI) misbehave(h http.HandlerFunc) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.answer = h
}

// listed returns how many lists were answered from the inventory.
func (r *restAPI) listed() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.lists
}

// ServeHTTP answers as the OpenAPI file says.
func (r *restAPI) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	r.mu.Lock()
	answer := r.answer
	if fault := unlikeAMonitor(req); fault != "" {
		r.faults = append(r.faults, fault)
	}
	r.mu.Unlock()
	if answer != nil {
		answer(w, req)
		return
	}
	// Quota headers as RunPod sends them, of an account with plenty left.
	w.Header().Set("RateLimit", `"minute";r=59321;t=31, "hour";r=2899999;t=1812`)
	w.Header().Set("RateLimit-Policy", `"minute";q=60000;w=60, "hour";q=3000000;w=3600`)
	r.serve(w, req)
}

// serve answers from the inventory.
func (r *restAPI) serve(w http.ResponseWriter, req *http.Request) {
	w.Header().Set("X-Request-Id", "req-1")
	body, ok := r.find(strings.Split(strings.TrimPrefix(req.URL.EscapedPath(), "/v2/"), "/"))
	if !ok {
		problem(w, http.StatusNotFound, "no such resource")
		return
	}
	w.Header().Set("Content-Type", "application/json; charset=utf-8")
	_ = json.NewEncoder(w).Encode(body)
}

// find returns what lies at a path below /v2.
func (r *restAPI) find(path []string) (any, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	lists := map[string]struct {
		name string
		all  []map[string]any
	}{"serverless": {"endpoints", r.endpoints}, "pods": {"pods", r.pods}}
	list, ok := lists[path[0]]
	switch {
	case !ok || len(path) > 2:
		r.faults = append(r.faults, "asked for "+strings.Join(path, "/"))
		return nil, false
	case len(path) == 1:
		r.lists++
		return map[string]any{list.name: list.all, "unknownMember": map[string]any{"next": nil}}, true
	}
	id, err := url.PathUnescape(path[1])
	i := slices.IndexFunc(list.all, func(one map[string]any) bool { return one["id"] == id })
	if err != nil || i < 0 {
		return nil, false
	}
	return list.all[i], true
}

// unlikeAMonitor says what is wrong with a request of somebody who may only
// read, "" if nothing.
func unlikeAMonitor(req *http.Request) string {
	switch {
	case req.Method != http.MethodGet:
		return req.Method + " " + req.URL.Path
	case req.Header.Get("Authorization") != "Bearer "+apiKey:
		return "no bearer token on " + req.URL.Path
	case strings.Contains(req.URL.String(), apiKey):
		return "the key in a URL"
	case req.URL.Query().Has("ttl"): // it would change the job
		return "ttl on " + req.URL.Path
	case req.ContentLength > 0:
		return fmt.Sprintf("a body of %d bytes on %s", req.ContentLength, req.URL.Path)
	}
	return ""
}

// problem answers as the control plane refuses.
func problem(w http.ResponseWriter, status int, detail string) {
	w.Header().Set("Content-Type", "application/problem+json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(map[string]any{"title": http.StatusText(status), "status": status, "detail": detail})
}

// endpoint returns a queue endpoint with nothing out of the ordinary, changed by
// pairs of member and value.
func endpoint(id string, pairs ...any) map[string]any {
	e := map[string]any{
		"id": id, "name": "plain " + id, "type": "QUEUE", "image": "example/worker:1", "args": "--token " + envCanary, "disk": 20,
		"ports": []any{"8000/http"}, "env": map[string]any{"HF_TOKEN": envCanary}, "registry": nil,
		"gpu":     map[string]any{"pools": []any{"ADA_24"}, "count": 1, "allowedCudaVersions": []any{}, "minCudaVersion": nil},
		"workers": map[string]any{"min": 0, "max": 3, "idleTimeout": 5}, "scaling": map[string]any{"type": "QUEUE_DELAY", "queueDelay": 4},
		"dataCenterIds": []any{"US-KS-2"}, "networkVolumes": []any{}, "timeout": 300000, "flashboot": "OFF", "createdAt": "2026-06-01T12:00:00Z",
	}
	for i := 0; i < len(pairs); i += 2 {
		e[pairs[i].(string)] = pairs[i+1]
	}
	return e
}
