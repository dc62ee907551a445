package collector_test

import (
	"bytes"
	"encoding/json"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/tocsin-dev/tocsin/internal/proc"
	"github.com/tocsin-dev/tocsin/internal/servertest"
	eventv1 "github.com/tocsin-dev/tocsin/proto/gen/tocsin/event/v1"
)

// TestTheFiguresHaveTheNamesThatPeopleKnow has a collector make every figure that
// it can, and compares them with what is promised and with Prometheus's own rules.
func TestTheFiguresHaveTheNamesThatPeopleKnow(t *testing.T) {
	f, n := newFakeRunPod(t), servertest.NATS(t)
	f.set(func(f *fakeRunPod) {
		f.pods["pod1"] = podJSON("pod1", "train", `{"uptime":3600,"gpus":[{"util":12,"memoryUtil":7}],"cpu":{"util":12},"memory":{"util":5}}`)
		f.jobs["ep1/job1"] = `{"id":"job1","status":"FAILED","executionTime":1500,"error":"job timed out after 3 retries"}`
	})
	log := follow(t, n.Conn(t))
	o := options(f, n)
	registry := prometheus.NewRegistry()
	o.Registerer = registry
	c := start(t, o)
	register(t, c, "job1")
	log.wait(t, "health", 0, health)
	log.wait(t, "a sample of the pod", 0, func(e *eventv1.Event) bool { return e.GetGpuSampled() != nil })
	log.wait(t, "the end of the job", 0, enters("job1", failedJob))
	// What was published is counted a moment later.
	for deadline := time.After(limit); ; {
		n, err := testutil.GatherAndCount(registry, "runpod_job_errors_total")
		if err != nil {
			t.Fatal(err)
		}
		if n > 0 {
			break
		}
		select {
		case <-deadline:
			t.Fatalf("the failed job is not counted in %v", limit)
		case <-time.After(10 * time.Millisecond):
		}
	}

	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]string{}
	for _, family := range families {
		if !strings.HasPrefix(family.GetName(), "runpod_") {
			continue
		}
		var labels []string
		for _, l := range family.GetMetric()[0].GetLabel() {
			labels = append(labels, l.GetName())
		}
		slices.Sort(labels)
		got[family.GetName()] = strings.ToLower(family.GetType().String()) + " " + strings.Join(labels, ",")
	}
	want := map[string]string{
		"runpod_jobs_total":                     "counter endpoint_id,state",
		"runpod_job_duration_seconds":           "histogram endpoint_id",
		"runpod_job_errors_total":               "counter category,endpoint_id",
		"runpod_queue_depth":                    "gauge endpoint_id",
		"runpod_jobs_in_progress":               "gauge endpoint_id",
		"runpod_workers":                        "gauge endpoint_id,state",
		"runpod_gpu_utilization_percent":        "gauge gpu,pod_id",
		"runpod_gpu_memory_utilization_percent": "gauge gpu,pod_id",
		"runpod_pod_cpu_utilization_percent":    "gauge pod_id",
		"runpod_pod_memory_utilization_percent": "gauge pod_id",
		"runpod_pod_cost_dollars_per_hour":      "gauge pod_id",
		"runpod_pod_uptime_seconds":             "gauge pod_id",
		"runpod_endpoint_info":                  "gauge endpoint_id,name",
		"runpod_pod_info":                       "gauge name,pod_id,status",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("figures of the fleet (-want +got):\n%s", diff)
	}

	problems, err := testutil.GatherAndLint(registry)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range problems {
		// RunPod gives percent, and the first of these names is asked for.
		if strings.HasPrefix(p.Metric, "runpod_") && strings.HasSuffix(p.Metric, "_percent") {
			continue
		}
		t.Errorf("%s: %s", p.Metric, p.Text)
	}
}

// lines keeps what is logged.
type lines struct {
	mu  sync.Mutex
	buf bytes.Buffer // guarded by mu
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(p)
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.String()
}

func TestEachUnitOfWorkIsALineOfTheLog(t *testing.T) {
	f, n := newFakeRunPod(t), servertest.NATS(t)
	f.set(func(f *fakeRunPod) {
		f.jobs["ep1/job1"] = jobJSON("FAILED", `,"error":"no voice"`)
		f.endpoints["ep2"] = endpointJSON("ep2", "broken", "QUEUE", 1)
		f.instead["/run/ep2/health"] = func(w http.ResponseWriter, _ *http.Request) { problem(w, http.StatusBadGateway, "key "+goodKey) }
	})
	log, out := follow(t, n.Conn(t)), new(lines)
	o := options(f, n)
	var err error
	if o.Log, err = proc.Logger(out, proc.LogConfig{Level: "debug", Format: "json"}); err != nil {
		t.Fatal(err)
	}
	c := start(t, o)
	register(t, c, "job1")
	post(t, webhook(t, c), "application/json", jobJSON("COMPLETED", ""))
	log.wait(t, "the end of the job", 0, enters("job1", failedJob))
	log.wait(t, "health", 0, health)
	log.wait(t, "a failure", 0, failed(eventv1.PollFailureReason_POLL_FAILURE_REASON_SERVER_ERROR))
	if err := c.stop(); err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{}
	for line := range strings.Lines(out.String()) {
		var entry struct {
			Msg, Kind, Err string
			Endpoint       string `json:"endpoint_id"`
		}
		if err := json.Unmarshal([]byte(line), &entry); err != nil {
			t.Fatalf("%v: %s", err, line)
		}
		name := entry.Msg + " " + entry.Kind + " " + entry.Endpoint
		if entry.Err != "" {
			name += " failed"
		}
		seen[strings.Join(strings.Fields(name), " ")] = true
		for _, canary := range []string{canaryInput, canaryOutput, canaryEnv, goodKey} {
			if strings.Contains(line, canary) {
				t.Errorf("%q is logged: %s", canary, line)
			}
		}
	}
	for _, want := range []string{
		"polled health ep1", "polled health ep2 failed", "polled endpoints", "polled pods", "polled job ep1", "jobs registered ep1", "webhook taken ep1",
	} {
		if !seen[want] {
			t.Errorf("no line says %q", want)
		}
	}
}
