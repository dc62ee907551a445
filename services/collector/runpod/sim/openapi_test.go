package sim_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/getkin/kin-openapi/openapi3"

	"github.com/tocsin-dev/tocsin/services/collector/runpod/sim"
)

// specPath is RunPod's own OpenAPI file, which is not part of this repository:
// it may lie in a folder beside it.
var specPath = filepath.Join("..", "..", "..", "..", "..", "shared", "runpod", "openapi-v2.json")

// required are the members that RunPod's file requires of each answer; the test
// checks them where the file itself is not at hand.
var required = map[string][]string{
	"ListEndpointsResponse":       {"endpoints"},
	"Endpoint":                    {"id", "name", "workers", "scaling", "dataCenterIds", "networkVolumes", "timeout", "flashboot", "createdAt"},
	"ListEndpointWorkersResponse": {"workers", "summary"},
	"ListPodsResponse":            {"pods"},
	"Pod": {
		"id", "name", "status", "actions", "image", "args", "disk", "mounts", "ports", "env", "registry", "cloud", "dataCenterId",
		"cudaVersion", "ssh", "template", "cost", "locked", "runtime", "createdAt", "startedAt", "globalNetworking",
	},
	"ErrorResponse": {"title", "status", "detail"},
}

func TestRESTAnswersMatchOpenAPI(t *testing.T) {
	t.Parallel()
	var spec *openapi3.T
	switch _, err := os.Stat(specPath); {
	case errors.Is(err, fs.ErrNotExist):
		t.Logf("%s is not here: checking the required members alone", specPath)
	default:
		if spec, err = openapi3.NewLoader().LoadFromFile(specPath); err != nil {
			t.Fatal(err)
		}
	}
	_, srv := account(t, everything(), nil)
	for name, call := range map[string]struct {
		path, key, schema string
		status            int
	}{
		"endpoints":          {"/v2/serverless", sim.DefaultKey, "ListEndpointsResponse", 200},
		"a queue endpoint":   {"/v2/serverless/queue", sim.DefaultKey, "Endpoint", 200},
		"a CPU endpoint":     {"/v2/serverless/cpu", sim.DefaultKey, "Endpoint", 200},
		"a load balancer":    {"/v2/serverless/balance", sim.DefaultKey, "Endpoint", 200},
		"a disabled one":     {"/v2/serverless/disabled", sim.DefaultKey, "Endpoint", 200},
		"busy workers":       {"/v2/serverless/queue/workers", sim.DefaultKey, "ListEndpointWorkersResponse", 200},
		"throttled workers":  {"/v2/serverless/throttled/workers", sim.DefaultKey, "ListEndpointWorkersResponse", 200},
		"crashing workers":   {"/v2/serverless/crashing/workers", sim.DefaultKey, "ListEndpointWorkersResponse", 200},
		"pods":               {"/v2/pods", sim.DefaultKey, "ListPodsResponse", 200},
		"a GPU pod":          {"/v2/pods/gpu", sim.DefaultKey, "Pod", 200},
		"a CPU pod":          {"/v2/pods/cpupod", sim.DefaultKey, "Pod", 200},
		"a stopped pod":      {"/v2/pods/stopped", sim.DefaultKey, "Pod", 200},
		"a pod without GPUs": {"/v2/pods/blind", sim.DefaultKey, "Pod", 200},
		"no such pod":        {"/v2/pods/other", sim.DefaultKey, "ErrorResponse", 404},
		"no such endpoint":   {"/v2/serverless/other", sim.DefaultKey, "ErrorResponse", 404},
		"no such path":       {"/v2/other", sim.DefaultKey, "ErrorResponse", 404},
		"no such key":        {"/v2/pods", "rpa_other", "ErrorResponse", 401},
		"no scope":           {"/v2/pods", "rpa_nopods", "ErrorResponse", 403},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			status, header, body := get(t, srv, call.path, call.key)
			if status != call.status {
				t.Fatalf("status %d, want %d: %s", status, call.status, body)
			}
			if want := map[bool]string{true: "application/json", false: "application/problem+json"}[status == 200]; header.Get("Content-Type") != want {
				t.Errorf("content type %q, want %q", header.Get("Content-Type"), want)
			}
			var value any
			if err := json.Unmarshal(body, &value); err != nil {
				t.Fatal(err)
			}
			for _, member := range required[call.schema] {
				if _, ok := value.(map[string]any)[member]; !ok {
					t.Errorf("member %q is missing", member)
				}
			}
			if spec == nil {
				return
			}
			if err := spec.Components.Schemas[call.schema].Value.VisitJSON(value, openapi3.MultiErrors()); err != nil {
				t.Errorf("answer does not match %s:\n%s\n%v", call.schema, body, err)
			}
		})
	}
}

// everything is an account with an endpoint and a pod of each sort.
func everything() sim.Scenario {
	gpu := []string{"ADA_24"}
	return sim.Scenario{
		Endpoints: []sim.EndpointSpec{
			{ID: "queue", Name: "a-prod-queue", Pools: gpu, MinWorkers: 1, MaxWorkers: 3, JobsPerMinute: 10, Backlog: 4, ThrottledLeftover: 1},
			{ID: "cpu", Name: "a-prod-cpu", MaxWorkers: 2},
			{ID: "balance", Name: "a-prod-balance", Pools: gpu, LoadBalancer: true, MinWorkers: 1, MaxWorkers: 2},
			{ID: "disabled", Name: "a-prod-disabled", Pools: gpu, MaxWorkers: 5, Backlog: 1},
			{ID: "throttled", Name: "a-prod-throttled", Pools: gpu, MaxWorkers: 2, Backlog: 9},
			{ID: "crashing", Name: "a-prod-crashing", Pools: gpu, MaxWorkers: 2, Backlog: 9},
		},
		Pods: []sim.PodSpec{
			{ID: "gpu", Name: "train", GPU: "NVIDIA H100 PCIe", GPUs: 2, CostPerHour: 2.49, Util: 90, Age: time.Hour},
			{ID: "cpupod", Name: "web", CostPerHour: 0.12, Age: time.Hour},
			{ID: "stopped", Name: "old", GPU: "NVIDIA A40", GPUs: 1, CostPerHour: 0.4, Stopped: true},
			{ID: "blind", Name: "blind", GPU: "NVIDIA A40", GPUs: 1, CostPerHour: 0.4, Util: 90},
		},
		Events: []sim.Event{
			{Target: "disabled", Effect: sim.MaxWorkersZero(0)},
			{Target: "throttled", Effect: sim.Throttle(0)},
			{Target: "crashing", Effect: sim.CrashLoop(0)},
			{Target: "blind", Effect: sim.GPUMissing(0)},
		},
	}
}

// account serves a scenario whose time stands still at one minute and moves by
// Advance alone.
func account(t testing.TB, scenario sim.Scenario, change func(*sim.Options)) (*sim.Sim, *httptest.Server) {
	t.Helper()
	began := time.Unix(1_800_000_000, 0)
	opts := sim.Options{
		Scenario: scenario, Now: func() time.Time { return began },
		Keys: []sim.Key{{Value: sim.DefaultKey}, {Value: "rpa_nopods", Without: []sim.Scope{sim.ScopePods}}},
	}
	if change != nil {
		change(&opts)
	}
	s, err := sim.New(opts)
	if err != nil {
		t.Fatal(err)
	}
	s.Advance(time.Minute)
	srv := httptest.NewServer(s.Handler())
	t.Cleanup(srv.Close)
	t.Cleanup(s.Close) // first, so that no answer is held open
	return s, srv
}

// get makes one call and returns the answer.
func get(t testing.TB, srv *httptest.Server, path, key string) (int, http.Header, []byte) {
	t.Helper()
	return send(t, srv, http.MethodGet, path, key, nil)
}

func send(t testing.TB, srv *httptest.Server, method, path, key string, body io.Reader) (int, http.Header, []byte) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, srv.URL+path, body)
	if err != nil {
		t.Fatal(err)
	}
	if key != "" {
		req.Header.Set("Authorization", "Bearer "+key)
	}
	resp, err := srv.Client().Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(fmt.Errorf("read the answer to %s: %w", path, err))
	}
	return resp.StatusCode, resp.Header, text
}
