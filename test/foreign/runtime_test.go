package foreign

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"
)

// runtimeAPI is the serverless runtime, written from its documentation: health
// per endpoint and the status of single jobs.
type runtimeAPI struct {
	url string

	mu     sync.Mutex
	health map[string]http.HandlerFunc // guarded by mu, by endpoint
	jobs   map[string]http.HandlerFunc // guarded by mu, by endpoint/job
	all    http.HandlerFunc            // guarded by mu; answers every call
	asked  map[string]int              // guarded by mu, by path below /v2
	faults []string                    // guarded by mu
}

func newRuntime(t *testing.T) *runtimeAPI {
	t.Helper()
	r := &runtimeAPI{health: map[string]http.HandlerFunc{}, jobs: map[string]http.HandlerFunc{}, asked: map[string]int{}}
	server := httptest.NewServer(r)
	r.url = server.URL
	t.Cleanup(func() {
		server.CloseClientConnections()
		server.Close()
		r.mu.Lock()
		defer r.mu.Unlock()
		report(t, "the runtime", r.faults)
	})
	return r
}

// setHealth answers the health of an endpoint with h.
func (r *runtimeAPI) setHealth(endpoint string, h http.HandlerFunc) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.health[endpoint] = h
}

// setJob answers the status of a job with h; nil forgets the job.
func (r *runtimeAPI) setJob(endpoint, job string, h http.HandlerFunc) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.jobs[endpoint+"/"+job] = h
}

// misbehave answers every call with h until it is nil.
func (r *runtimeAPI) misbehave(h http.HandlerFunc) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.all = h
}

// times returns how often a path below /v2 was asked for.
func (r *runtimeAPI) times(path string) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.asked[path]
}

// ServeHTTP answers GET /v2/{endpoint}/health and /v2/{endpoint}/status/{job}.
func (r *runtimeAPI) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	path := strings.TrimPrefix(req.URL.EscapedPath(), "/v2/")
	parts := strings.Split(path, "/")
	for i := range parts {
		parts[i], _ = url.PathUnescape(parts[i])
	}
	r.mu.Lock()
	r.asked[path]++
	if fault := unlikeAMonitor(req); fault != "" {
		r.faults = append(r.faults, fault)
	}
	var h http.HandlerFunc
	switch {
	case r.all != nil:
		h = r.all
	case len(parts) == 2 && parts[1] == "health":
		if h = r.health[parts[0]]; h == nil {
			h = healthy(0, 0, 0)
		}
	case len(parts) == 3 && parts[1] == "status":
		h = r.jobs[parts[0]+"/"+parts[2]]
	default:
		r.faults = append(r.faults, "asked for "+path)
	}
	r.mu.Unlock()
	if h == nil { // what RunPod says of a job that it does not know
		w.WriteHeader(http.StatusNotFound)
		_, _ = w.Write([]byte(`{"error":"job not found"}`))
		return
	}
	h(w, req)
}

// healthy answers with the counts that a good endpoint has.
func healthy(completed, failed, queued int) http.HandlerFunc {
	return says(200, fmt.Sprintf(`{"jobs":{"completed":%d,"failed":%d,"inProgress":0,"inQueue":%d,"retried":1},`+
		`"workers":{"idle":1,"initializing":0,"ready":1,"running":1,"throttled":0,"unhealthy":0}}`, completed, failed, queued))
}

// says answers with a status and a text.
func says(status int, text string, headers ...string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		for i := 0; i < len(headers); i += 2 {
			w.Header().Set(headers[i], headers[i+1])
		}
		w.WriteHeader(status)
		_, _ = w.Write([]byte(text))
	}
}

// course answers with each of the bodies in turn and then with the last.
func course(bodies ...string) http.HandlerFunc {
	var mu sync.Mutex
	next := 0
	return func(w http.ResponseWriter, req *http.Request) {
		mu.Lock()
		body := bodies[min(next, len(bodies)-1)]
		next++
		mu.Unlock()
		says(200, body)(w, req)
	}
}

// jobBody returns a job's status as RunPod sends it; rest are further members.
func jobBody(id, status string, rest map[string]any) string {
	body := map[string]any{"id": id, "status": status}
	maps.Copy(body, rest)
	text, err := json.Marshal(body)
	if err != nil {
		panic(err)
	}
	return string(text)
}
