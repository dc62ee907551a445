package foreign

import (
	"bytes"
	"fmt"
	"net/http"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"
)

// What a server can do instead of answering. Each is an answer to any call.
var misbehaviours = map[string]struct {
	answer http.HandlerFunc
	reason string // of a poll of health: the proto's name without its prefix
	name   string // of the reason in metrics
}{
	"not_json":       {says(200, "ready"), "MALFORMED", "malformed"},
	"html":           {says(200, "<!doctype html><title>Just a moment</title>", "Content-Type", "text/html"), "MALFORMED", "malformed"},
	"array":          {says(200, "[]"), "MALFORMED", "malformed"},
	"empty":          {says(200, ""), "MALFORMED", "malformed"},
	"null":           {says(200, "null"), "MALFORMED", "malformed"},
	"cut_short":      {says(200, `{"jobs":{"completed":1`), "MALFORMED", "malformed"},
	"missing_fields": {says(200, `{"jobs":{"completed":1},"later":[]}`), "MALFORMED", "malformed"},
	"wrong_types":    {says(200, `{"jobs":{"completed":"many"},"workers":[],"endpoints":{},"pods":7}`), "MALFORMED", "malformed"},
	"negative":       {says(200, `{"jobs":{"completed":-1},"workers":{},"endpoints":[{"id":""}],"pods":[{}]}`), "MALFORMED", "malformed"},
	"20_mb":          {flood(20 << 20), "TOO_LARGE", "too_large"},
	"endless_flood":  {flood(1 << 40), "TOO_LARGE", "too_large"},
	"endless_drip":   {drip, "TIMEOUT", "timeout"},
	"slow":           {sleepy, "TIMEOUT", "timeout"},
	"hang_up":        {hangUp, "NETWORK", "network"},
	"bad_gzip":       {says(200, "\x1f\x8b\x08broken", "Content-Encoding", "gzip"), "MALFORMED", "malformed"},
	"redirect":       {says(302, "", "Location", "https://example.com/?to="+outputCanary), "UNEXPECTED_STATUS", "unexpected_status"},
	"no_content":     {says(204, ""), "UNEXPECTED_STATUS", "unexpected_status"},
	"bad_request":    {says(400, `{"error":"no"}`), "UNEXPECTED_STATUS", "unexpected_status"},
	"unauthorized":   {says(401, `{"error":"key `+apiKey+` is wrong"}`), "UNAUTHORIZED", "unauthorized"},
	"forbidden":      {says(403, "Bearer "+apiKey+" may not"), "FORBIDDEN", "forbidden"},
	"not_found":      {says(404, "404 page not found\n"), "NOT_FOUND", "not_found"},
	"too_many":       {says(429, "slow down", "Retry-After", "1"), "RATE_LIMITED", "rate_limited"},
	"broken":         {says(500, "at https://admin:"+userCanary+"@internal.example/ failed"), "SERVER_ERROR", "server_error"},
	"html_500":       {says(502, "<html>Bad Gateway "+outputCanary+"</html>", "Content-Type", "text/html"), "SERVER_ERROR", "server_error"},
	"unavailable":    {says(503, "", "Retry-After", "soon"), "SERVER_ERROR", "server_error"},
}

// flood answers with one JSON string of n bytes.
func flood(n int64) http.HandlerFunc {
	chunk := bytes.Repeat([]byte("a"), 64<<10)
	return func(w http.ResponseWriter, _ *http.Request) {
		_, err := w.Write([]byte(`{"jobs":"`))
		for sent := int64(0); sent < n && err == nil; sent += int64(len(chunk)) {
			_, err = w.Write(chunk)
		}
	}
}

// drip answers a byte at a time and never ends.
func drip(w http.ResponseWriter, req *http.Request) {
	for {
		if _, err := w.Write([]byte(" ")); err != nil {
			return
		}
		_ = http.NewResponseController(w).Flush()
		select {
		case <-req.Context().Done():
			return
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// sleepy never answers.
func sleepy(_ http.ResponseWriter, req *http.Request) { <-req.Context().Done() }

// hangUp closes the connection in the middle of an answer.
func hangUp(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Length", "100")
	_, _ = w.Write([]byte(`{"jobs":{`))
	panic(http.ErrAbortHandler)
}

// TestARunPodThatMisbehavesInEveryWay gives each endpoint a misbehaviour of its
// own beside two good ones, then lets the lists and jobs misbehave, and at last
// rejects the key: everywhere a reason, nowhere a crash or a guess.
func TestARunPodThatMisbehavesInEveryWay(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 1000)
	endpoints := []map[string]any{endpoint("good"), endpoint("odd")}
	w.runtime.setHealth("good", healthy(31, 1, 2))
	w.runtime.setHealth("odd", says(200, `{"workers":{"running":2.0,"new_state":9},"jobs":{"inQueue":null,"completed":9007199254740993}, "x":[]}`))
	for name, m := range misbehaviours {
		endpoints = append(endpoints, endpoint(name))
		w.runtime.setHealth(name, m.answer)
	}
	w.rest.set(endpoints, nil)
	s := w.up(t)
	query := reflectOn(t, s.query, queryToken)

	eventually(t, "each endpoint has the reason of its failure", func() string {
		known := query.targets(t, "TARGET_KIND_ENDPOINT")
		for name, m := range misbehaviours {
			failure := at(known[name], "lastFailure")
			if text(failure, "reason") != "POLL_FAILURE_REASON_"+m.reason || text(failure, "kind") != "POLL_KIND_HEALTH" {
				return fmt.Sprintf("%s: %v, want %s", name, failure, m.reason)
			}
			if field(known[name], "jobs.completed") != "" || text(known[name], "lastSampleAt") != "" {
				return fmt.Sprintf("%s: something was guessed: %v", name, known[name])
			}
		}
		return ""
	})
	good := query.targets(t, "TARGET_KIND_ENDPOINT")
	if field(good["good"], "jobs.completed") != "31" || field(good["good"], "jobs.in_queue") != "2" || at(good["good"], "lastFailure") != nil {
		t.Errorf("the good endpoint has %v", good["good"])
	}
	if field(good["odd"], "workers.running") != "2" || field(good["odd"], "jobs.in_queue") != "" {
		t.Errorf("the odd endpoint has %v", good["odd"])
	}
	page := scrapeOf(t, s.metrics, ingestToken)
	for name := range misbehaviours {
		if _, series := page.value("runpod_queue_depth", "endpoint_id", name); series > 0 {
			t.Errorf("%s has a queue depth", name)
		}
	}
	page.lint(t)

	// Now the lists.
	for name, m := range misbehaviours {
		before := scrapeOf(t, s.metrics, ingestToken)
		w.rest.misbehave(m.answer)
		for _, kind := range []string{"endpoints", "pods"} {
			had, _ := before.value("tocsin_collector_polls_total", "kind", kind, "result", m.name)
			eventually(t, "the list of "+kind+" fails by "+name, func() string {
				has, _ := scrapeOf(t, s.metrics, ingestToken).value("tocsin_collector_polls_total", "kind", kind, "result", m.name)
				if has <= had {
					return fmt.Sprintf("no poll of %s with the result %s", kind, m.name)
				}
				return ""
			})
		}
	}
	w.rest.misbehave(nil)
	if n := len(query.targets(t, "TARGET_KIND_ENDPOINT")); n != len(endpoints) {
		t.Errorf("%d endpoints after lists that failed, want all %d", n, len(endpoints))
	}

	w.jobsWhoseStatusMisbehaves(t, s)

	// The key is revoked, and comes back.
	w.rest.misbehave(misbehaviours["unauthorized"].answer)
	w.runtime.misbehave(misbehaviours["unauthorized"].answer)
	eventually(t, "the rejected key is told", told(w.receiver, "KeyRejected", "firing"))
	w.rest.misbehave(nil)
	w.runtime.misbehave(healthy(1, 0, 0))
	eventually(t, "the key that works again is told", told(w.receiver, "KeyRejected", "resolved"))

	// 139 MB of floods passed by, and none of it was kept.
	if peak := peakMemory(t, s.PID()); peak > 400<<20 {
		t.Errorf("it took %d MiB of memory", peak>>20)
	}
	if code := s.Stop(); code != 0 {
		t.Errorf("it ended with code %d, want 0", code)
	}
	w.searchForSecrets(t, s.Output(), page.text, fmt.Sprint(good))
}

// jobsWhoseStatusMisbehaves follows a job through each misbehaviour to its end:
// none of them ends a job.
func (w *world) jobsWhoseStatusMisbehaves(t *testing.T, s *system) {
	t.Helper()
	var jobs []string
	for name, m := range misbehaviours {
		if name == "not_found" {
			continue // that is an answer
		}
		jobs = append(jobs, `"job-`+name+`"`)
		w.runtime.setJob("good", "job-"+name, m.answer)
	}
	status, _, answer := send(t, http.MethodPost, s.ingest+"/v1/jobs", `{"endpoint_id":"good","job_ids":[`+strings.Join(jobs, ",")+`]}`,
		map[string]string{"Authorization": "Bearer " + ingestToken, "Content-Type": "application/json"})
	if status != 200 || answer != fmt.Sprintf(`{"already_tracked":0,"registered":%d}`, len(jobs)) {
		t.Fatalf("register jobs: %d %s", status, answer)
	}
	for name := range misbehaviours {
		eventually(t, "the status of job-"+name+" is read", func() string {
			if name != "not_found" && w.runtime.times("good/status/job-"+name) == 0 {
				return "not asked for"
			}
			return ""
		})
	}
	page := scrapeOf(t, s.metrics, ingestToken)
	if open, _ := page.value("tocsin_collector_tracked_jobs", "state", "open"); int(open) != len(jobs) {
		t.Errorf("%v jobs are open, want %d: an answer that is none ended a job", open, len(jobs))
	}
	for name := range misbehaviours {
		w.runtime.setJob("good", "job-"+name, says(200, jobBody("job-"+name, "COMPLETED", map[string]any{"executionTime": 5, "output": outputCanary})))
	}
	eventually(t, "all jobs end", func() string {
		page := scrapeOf(t, s.metrics, ingestToken)
		open, _ := page.value("tocsin_collector_tracked_jobs", "state", "open")
		ended, _ := page.value("runpod_job_duration_seconds", "endpoint_id", "good")
		if open != 0 || int(ended) != len(jobs) {
			return fmt.Sprintf("%v open, %v ended, want 0 and %d", open, ended, len(jobs))
		}
		return ""
	})
}

// told says whether all receivers were told of an alert; the simple one is not
// told a status.
func told(r *receiver, name, status string) func() string {
	return func() string {
		for _, format := range []string{"standard", "alertmanager"} {
			if !r.has(format, name, status) {
				return fmt.Sprintf("%s was not told that %s is %s", format, name, status)
			}
		}
		return ""
	}
}

// peakMemory returns the most memory that a process had, in bytes.
func peakMemory(t *testing.T, pid int) int64 {
	t.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Logf("no /proc here, memory is not looked at: %v", err)
		return 0
	}
	for line := range strings.Lines(string(status)) {
		if rest, ok := strings.CutPrefix(line, "VmHWM:"); ok {
			kb, err := strconv.ParseInt(strings.Fields(rest)[0], 10, 64)
			if err != nil {
				t.Fatal(err)
			}
			t.Logf("at most %d MiB of memory", kb>>10)
			return kb << 10
		}
	}
	t.Fatal("no VmHWM in /proc")
	return 0
}
