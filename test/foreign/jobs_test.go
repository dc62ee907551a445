package foreign

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"
)

// raised is what the handler library sends of an exception: a string that holds
// JSON.
func raised(kind, message, frame string) string {
	text, err := json.Marshal(map[string]any{
		"error_type": kind, "error_message": message, "hostname": "abc-64410c4f", "worker_id": "w1", "runpod_version": "1.12.0",
		"error_traceback": "Traceback (most recent call last):\n  File \"/rp_job.py\", line 164, in run_job\n    out = handler(job)\n" +
			"  File \"/src/handler.py\", line 7, in " + frame + "\n    raise X('" + inputCanary + "')\n",
	})
	if err != nil {
		panic(err)
	}
	return string(text)
}

// ends are the ways in which RunPod's documentation says that a job ends.
var ends = map[string]struct {
	status   string
	rest     map[string]any
	category string // of its error, "" for none
}{
	"completed":         {"COMPLETED", map[string]any{"output": map[string]any{"text": outputCanary}}, ""},
	"cancelled":         {"CANCELLED", map[string]any{"output": outputCanary}, ""},
	"timed_out":         {"TIMED_OUT", nil, "timeout"},
	"execution_timeout": {"FAILED", map[string]any{"error": "executionTimeout exceeded"}, "timeout"},
	"worker_died":       {"FAILED", map[string]any{"error": "job timed out after 3 retries", "retries": 3}, "crash"},
	"raised":            {"FAILED", map[string]any{"error": raised("<class 'ValueError'>", "no such voice", "speak")}, "handler"},
	"raised_twice":      {"FAILED", map[string]any{"error": raised("<class 'ValueError'>", "no such voice", "speak"), "retries": 1}, "handler"},
	"gpu_memory": {"FAILED", map[string]any{
		"error": raised("<class 'torch.cuda.OutOfMemoryError'>", "CUDA out of memory. Tried to allocate 2.00 GiB", "infer"),
	}, "oom"},
	"refused_input":     {"FAILED", map[string]any{"error": "Job has missing field(s): id or input."}, "validation"},
	"generator":         {"FAILED", map[string]any{"error": "handler: bad things\ntraceback: File \"/h.py\", line 3, in gen"}, "handler"},
	"returned_text":     {"FAILED", map[string]any{"error": "could not load the picture", "output": outputCanary}, "unknown"},
	"returned_object":   {"FAILED", map[string]any{"error": map[string]any{"code": 7, "message": "quota of the model"}}, "handler"},
	"returned_list":     {"FAILED", map[string]any{"error": []any{"a", 1}}, "handler"},
	"returned_number":   {"FAILED", map[string]any{"error": 42}, "handler"},
	"returned_nothing":  {"FAILED", map[string]any{"error": nil}, "unknown"},
	"says_nothing":      {"FAILED", nil, "unknown"},
	"tells_secrets":     {"FAILED", map[string]any{"error": raised("ApiError", "GET https://bob:"+userCanary+"@example.com/ with Bearer "+errorCanary+" and api_key="+apiKey, "call")}, "handler"},
	"enormous_error":    {"FAILED", map[string]any{"error": raised("E", strings.Repeat("x ", 100_000), "f")}, "handler"},
	"enormous_output":   {"FAILED", map[string]any{"error": "x", "output": strings.Repeat(outputCanary, 200_000)}, "unknown"},
	"times_are_strange": {"COMPLETED", map[string]any{"delayTime": -1, "executionTime": 1e300, "workerId": nil, "later": 1}, ""},
}

// TestEachWayInWhichAJobEnds registers a job for each way, follows it through
// its states, lets RunPod's webhook tell of its end as well, and counts: each
// end once. Then it looks for inputs, outputs and keys everywhere.
func TestEachWayInWhichAJobEnds(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 1000)
	endpoints := []map[string]any{endpoint("forgets"), endpoint("only_hooks"), endpoint("balanced", "type", "LOAD_BALANCER")}
	for name := range ends {
		endpoints = append(endpoints, endpoint(name))
	}
	w.rest.set(endpoints, nil)
	s := w.up(t)
	query := reflectOn(t, s.query, queryToken)
	ingest := reflectOn(t, s.jobs, ingestToken)
	hooks := w.hooks(t, s, len(endpoints))

	// A job that RunPod has forgotten is lost, but not in its first seconds.
	began := time.Now()
	register(t, s, "forgets", "lost-1")

	for i, name := range slices.Sorted(maps.Keys(ends)) {
		end := ends[name]
		rest := map[string]any{"delayTime": 61372, "executionTime": 1500, "workerId": "worker1", "input": map[string]any{"prompt": inputCanary}}
		maps.Copy(rest, end.rest)
		id := "0b2f" + name + "-u1"
		final := jobBody(id, end.status, rest)
		w.runtime.setJob(name, id, course(
			jobBody(id, "IN_QUEUE", nil),
			jobBody(id, "IN_QUEUE", map[string]any{"delayTime": 40}),
			jobBody(id, map[bool]string{true: "RUNNING", false: "IN_PROGRESS"}[i%2 == 0], map[string]any{"delayTime": 61372, "workerId": "worker1", "output": "progress " + outputCanary}),
			final))
		if i%2 == 0 {
			register(t, s, name, id)
		} else if _, err := ingest.call(t.Context(), "tocsin.ingest.v1.IngestService/TrackJob",
			fmt.Sprintf(`{"endpointId":%q,"jobIds":[%q,%q]}`, name, id, id)); err != nil {
			t.Fatalf("TrackJob: %v", err)
		}
		if i%3 == 0 { // the webhook comes before any poll can see the end, and RunPod repeats it
			hook(t, hooks[name], final)
			hook(t, hooks[name], final)
		}
	}
	// A job that nobody registered is known by its webhook alone.
	hook(t, hooks["only_hooks"], jobBody("unregistered", "FAILED", map[string]any{"error": "job timed out after 1 retries", "input": inputCanary}))

	for name, end := range ends {
		eventually(t, name+" is counted", func() string { return miscounted(s, t, name, end.category) })
	}
	eventually(t, "the webhook's job is counted", func() string { return miscounted(s, t, "only_hooks", "crash") })
	for name := range ends { // told late, and again
		hook(t, hooks[name], jobBody("0b2f"+name+"-u1", ends[name].status, ends[name].rest))
	}
	eventually(t, "the forgotten job is lost", func() string {
		return unequal(field(query.targets(t, "TARGET_KIND_ENDPOINT")["forgets"], "tracked.lost"), "1")
	})
	if age := time.Since(began); age < 5*time.Second {
		t.Errorf("a job was lost %v after its registration, which RunPod may not have noticed yet", age)
	}
	failing := 1 // only_hooks
	for name, end := range ends {
		if wrong := miscounted(s, t, name, end.category); wrong != "" {
			t.Errorf("%s, after webhooks that came late: %s", name, wrong)
		}
		if end.category != "" {
			failing++
		}
	}
	eventually(t, "each endpoint with a failed job has an alert", func() string {
		return unequal(fmt.Sprint(len(query.alerts(t, "JobsFailing"))), fmt.Sprint(failing))
	})
	eventually(t, "the receivers are told", told(w.receiver, "JobsFailing", "firing"))

	served := fmt.Sprint(query.targets(t, "TARGET_KIND_ENDPOINT"), query.alerts(t, "JobsFailing"))
	page := scrapeOf(t, s.metrics, ingestToken)
	page.lint(t)
	if open, _ := page.value("tocsin_collector_tracked_jobs", "state", "open"); open != 0 {
		t.Errorf("%v jobs are open", open)
	}
	alerter, notifier := scrapeOf(t, s.alerterHTTP, queryToken), scrapeOf(t, s.notifierHTTP, queryToken)
	if code := s.Stop(); code != 0 {
		t.Errorf("it ended with code %d, want 0", code)
	}
	for name, url := range hooks {
		if strings.Contains(s.Output(), url[strings.LastIndex(url, "/")+1:]) {
			t.Errorf("the token of the webhook of %s was printed", name)
		}
	}
	w.searchForSecrets(t, s.Output(), served, page.text, alerter.text, notifier.text)
}

// TestAJobIsSeenInEachOfItsStates moves one job through its states, RUNNING among
// them, and a retry, and looks at the alerts of rules on these states.
func TestAJobIsSeenInEachOfItsStates(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 1000)
	w.rest.set([]map[string]any{endpoint("watched")}, nil)
	s := w.up(t)
	query := reflectOn(t, s.query, queryToken)
	w.hooks(t, s, 1)
	for _, step := range []struct {
		body          string
		open, waiting int
		failed        float64
	}{
		{jobBody("job", "IN_QUEUE", nil), 1, 1, 0},
		{jobBody("job", "RUNNING", map[string]any{"delayTime": 100, "workerId": "w"}), 1, 0, 0},
		{jobBody("job", "IN_PROGRESS", map[string]any{"delayTime": 100, "workerId": "w"}), 1, 0, 0}, // the same
		{jobBody("job", "FAILED", map[string]any{"executionTime": 5, "error": "executionTimeout exceeded"}), 0, 0, 1},
		{jobBody("job", "IN_QUEUE", nil), 1, 1, 1}, // its owner had it retried
		{jobBody("job", "IN_PROGRESS", map[string]any{"delayTime": 200}), 1, 0, 1},
		{jobBody("job", "FAILED", map[string]any{"error": "executionTimeout exceeded"}), 0, 0, 2},
	} {
		w.runtime.setJob("watched", "job", says(200, step.body))
		if step.waiting == 1 {
			register(t, s, "watched", "job") // an ended job is not polled until somebody asks for it
		}
		eventually(t, step.body, func() string {
			open, waiting := len(query.alerts(t, "JobOpen")), len(query.alerts(t, "JobWaiting"))
			if open != step.open || waiting != step.waiting {
				return fmt.Sprintf("%d open and %d waiting jobs, want %d and %d", open, waiting, step.open, step.waiting)
			}
			return miscountedErrors(t, s, step.failed)
		})
	}
	if code := s.Stop(); code != 0 {
		t.Errorf("it ended with code %d, want 0", code)
	}
}

// miscounted says how the counts of an endpoint with one job differ from those
// of a job with an error of a category.
func miscounted(s *system, t *testing.T, endpoint, category string) string {
	t.Helper()
	page := scrapeOf(t, s.metrics, ingestToken)
	all, _ := page.value("runpod_job_errors_total", "endpoint_id", endpoint)
	right, _ := page.value("runpod_job_errors_total", "endpoint_id", endpoint, "category", category)
	want := map[bool]float64{true: 0, false: 1}[category == ""]
	if all != want || right != want {
		return fmt.Sprintf("%v errors, %v of them %q, want %v", all, right, category, want)
	}
	ended, _ := page.value("runpod_job_duration_seconds", "endpoint_id", endpoint)
	if want := map[bool]float64{true: 0, false: 1}[endpoint == "only_hooks" || endpoint == "times_are_strange"]; ended != want {
		return fmt.Sprintf("%v durations, want %v", ended, want)
	}
	return ""
}

func unequal(got, want string) string {
	if got != want {
		return fmt.Sprintf("%q, want %q", got, want)
	}
	return ""
}

// register registers a job over HTTP.
func register(t *testing.T, s *system, endpoint, id string) {
	t.Helper()
	status, _, answer := send(t, http.MethodPost, s.ingest+"/v1/jobs", fmt.Sprintf(`{"endpoint_id":%q,"job_ids":[%q]}`, endpoint, id),
		map[string]string{"Authorization": "Bearer " + ingestToken, "Content-Type": "application/json"})
	if status != http.StatusOK {
		t.Fatalf("register %s: %d %s", id, status, answer)
	}
}

// hooks returns the URL of each endpoint's webhook, when n endpoints are known.
func (w *world) hooks(t *testing.T, s *system, n int) map[string]string {
	t.Helper()
	urls := map[string]string{}
	eventually(t, "each endpoint has a webhook", func() string {
		_, _, answer := get(t, s.ingest+"/v1/endpoints", ingestToken)
		var known map[string]any
		if err := json.Unmarshal([]byte(answer), &known); err != nil {
			t.Fatalf("list endpoints: %v: %s", err, answer)
		}
		for _, e := range list(known, "endpoints") {
			urls[text(e, "endpoint_id")] = s.ingest + text(e, "webhook_path")
		}
		if len(urls) != n {
			return fmt.Sprintf("%d of %d", len(urls), n)
		}
		return ""
	})
	return urls
}

// hook posts a completion webhook as RunPod does.
func hook(t *testing.T, url, body string) {
	t.Helper()
	status, _, answer := send(t, http.MethodPost, url, body, map[string]string{"Content-Type": "application/json"})
	if status != http.StatusOK {
		t.Errorf("webhook: %d %s, want 200", status, answer)
	}
}
