package collector_test

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/tocsin-dev/tocsin/internal/bus"
	"github.com/tocsin-dev/tocsin/internal/event"
	"github.com/tocsin-dev/tocsin/internal/rpc"
	"github.com/tocsin-dev/tocsin/internal/servertest"
	eventv1 "github.com/tocsin-dev/tocsin/proto/gen/tocsin/event/v1"
	ingestv1 "github.com/tocsin-dev/tocsin/proto/gen/tocsin/ingest/v1"
)

const (
	inQueue    = eventv1.JobState_JOB_STATE_IN_QUEUE
	inProgress = eventv1.JobState_JOB_STATE_IN_PROGRESS
	completed  = eventv1.JobState_JOB_STATE_COMPLETED
	failedJob  = eventv1.JobState_JOB_STATE_FAILED
	lost       = eventv1.JobState_JOB_STATE_LOST
)

// client gives up before a test does.
var client = &http.Client{Timeout: limit}

// post sends a body and returns status and answer.
func post(t *testing.T, url, contentType, body string, header ...string) (int, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", contentType)
	for i := 0; i+1 < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	resp, err := client.Do(req)
	if err != nil {
		t.Fatalf("post to %s: %v", url, err)
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(answer)
}

func get(t *testing.T, url string) (int, string) {
	t.Helper()
	resp, err := client.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(answer)
}

func register(t *testing.T, c running, jobs ...string) {
	t.Helper()
	ids, err := json.Marshal(jobs)
	if err != nil {
		t.Fatal(err)
	}
	code, answer := post(t, fmt.Sprintf("http://%s/v1/jobs", c.Ingest), "application/json",
		fmt.Sprintf(`{"endpoint_id":"ep1","job_ids":%s}`, ids))
	if code != http.StatusOK {
		t.Fatalf("registration answered %d %s", code, answer)
	}
}

// webhook returns the URL of ep1's webhook.
func webhook(t *testing.T, c running) string {
	t.Helper()
	code, body := get(t, fmt.Sprintf("http://%s/v1/endpoints", c.Ingest))
	var answer struct {
		Endpoints []struct {
			ID   string `json:"endpoint_id"`
			Path string `json:"webhook_path"`
		} `json:"endpoints"`
	}
	if err := json.Unmarshal([]byte(body), &answer); err != nil || code != http.StatusOK {
		t.Fatalf("list of endpoints answered %d %s", code, body)
	}
	for _, e := range answer.Endpoints {
		if e.ID == "ep1" {
			return fmt.Sprintf("http://%s%s", c.Ingest, e.Path)
		}
	}
	t.Fatalf("ep1 has no webhook: %s", body)
	return ""
}

func jobJSON(state, rest string) string {
	return fmt.Sprintf(`{"id":"","status":%q,"input":{"prompt":%q},"output":{"text":%q}%s}`, state, canaryInput, canaryOutput, rest)
}

func TestAJobIsFollowedToItsEnd(t *testing.T) {
	f, n := newFakeRunPod(t), servertest.NATS(t)
	f.set(func(f *fakeRunPod) { f.jobs["ep1/job1"] = `{"id":"job1","status":"IN_QUEUE"}` })
	log := follow(t, n.Conn(t))
	c := start(t, options(f, n))
	register(t, c, "job1")
	if found := log.wait(t, "the registration", 0, func(e *eventv1.Event) bool { return e.GetJobRegistered() != nil }); found.GetSource() != eventv1.Source_SOURCE_CLIENT {
		t.Errorf("registration is from %v", found.GetSource())
	}
	log.wait(t, "the queue", 0, enters("job1", inQueue))
	f.set(func(f *fakeRunPod) {
		f.jobs["ep1/job1"] = `{"id":"job1","status":"RUNNING","delayTime":40,"workerId":"w1"}`
	})
	log.wait(t, "its start", 0, enters("job1", inProgress))
	f.set(func(f *fakeRunPod) {
		f.jobs["ep1/job1"] = strings.Replace(jobJSON("FAILED", `,"executionTime":1500,"error":"{\"error_type\":\"<class 'ValueError'>\",\"error_message\":\"bad key rpa_SECRETSECRETSECRET\",\"error_traceback\":\"File \\\"/app/h.py\\\", line 3, in run\"}"`), `"id":""`, `"id":"job1"`, 1)
	})
	end := log.wait(t, "its end", 0, enters("job1", failedJob)).GetJobTransitioned()
	if end.GetError().GetCategory() != eventv1.JobErrorCategory_JOB_ERROR_CATEGORY_HANDLER || end.GetError().GetType() != "ValueError" ||
		end.GetExecutionMs() != 1500 || end.GetAttempt() != 1 || strings.Contains(end.GetError().GetMessage(), "SECRETSECRET") {
		t.Errorf("the end is %v", end)
	}
	// After the end it is not polled: of two more rounds of health none asks.
	asked := f.calls("/run/ep1/status/job1")
	for range 2 {
		log.wait(t, "another round", log.len(), health)
	}
	if again := f.calls("/run/ep1/status/job1"); again > asked+1 {
		t.Errorf("an ended job was polled %d times more", again-asked)
	}
	if found := log.all(transitions("job1")); len(found) != 3 {
		t.Errorf("%d transitions, want 3: %v", len(found), found)
	}
	for _, raw := range log.raw {
		for _, canary := range []string{canaryEnv, canaryInput, canaryOutput, "CANARYKEY", "SECRETSECRET"} {
			if strings.Contains(raw, canary) {
				t.Errorf("%q is in an event: %q", canary, raw)
			}
		}
	}
}

func TestWebhookAndPollOfOneJobAreOneEvent(t *testing.T) {
	f, n := newFakeRunPod(t), servertest.NATS(t)
	f.set(func(f *fakeRunPod) {
		f.jobs["ep1/job1"] = `{"id":"job1","status":"IN_PROGRESS"}`
		f.jobs["ep1/job2"] = `{"id":"job2","status":"IN_PROGRESS"}`
	})
	log := follow(t, n.Conn(t))
	c := start(t, options(f, n))
	register(t, c, "job1")
	log.wait(t, "its start", 0, enters("job1", inProgress))
	done := `{"delayTime":5,"executionTime":7,"id":"job1","input":{"a":"` + canaryInput + `"},"output":"` +
		strings.Repeat(canaryOutput, 1<<20/len(canaryOutput)) + `","status":"COMPLETED","webhook":"https://x"}`
	url := webhook(t, c)
	for range 3 { // RunPod repeats what it thinks was not heard
		if code, answer := post(t, url, "application/json", done); code != http.StatusOK {
			t.Fatalf("webhook answered %d %s", code, answer)
		}
	}
	e := log.wait(t, "its end", 0, enters("job1", completed))
	if e.GetSource() != eventv1.Source_SOURCE_WEBHOOK || e.GetJobTransitioned().GetExecutionMs() != 7 {
		t.Errorf("the end is %v", e)
	}
	f.set(func(f *fakeRunPod) { f.jobs["ep1/job1"] = `{"id":"job1","status":"COMPLETED"}` })
	register(t, c, "job1", "job2") // the first is polled once more
	log.wait(t, "the start of the second job", 0, enters("job2", inProgress))
	if err := c.stop(); err != nil {
		t.Fatal(err)
	}

	c = start(t, options(f, n))
	if again := webhook(t, c); !strings.HasSuffix(url, again[strings.Index(again, "/webhook"):]) {
		t.Errorf("the webhook changed with the restart")
	}
	if code, _ := post(t, webhook(t, c), "application/json", done); code != http.StatusOK {
		t.Errorf("a late webhook was answered %d", code)
	}
	f.set(func(f *fakeRunPod) { f.jobs["ep1/job2"] = `{"id":"job2","status":"COMPLETED"}` })
	log.wait(t, "the end of the job that was open at the restart", 0, enters("job2", completed))
	if found := log.all(transitions("job1")); len(found) != 2 {
		t.Errorf("%d transitions of job1, want 2: %v", len(found), found)
	}
	if found := log.all(transitions("job2")); len(found) != 2 {
		t.Errorf("%d transitions of job2, want 2: %v", len(found), found)
	}
	// Not even as duplicates that only the log refused: its duplicates are none.
	state, err := n.Conn(t).StreamState(t.Context(), bus.EventsStream)
	if err != nil || state.LastSeq == 0 {
		t.Errorf("state of the log is %v, %v", state, err)
	}
}

func TestAWebhookIsAnsweredWhenItIsStored(t *testing.T) {
	f, n := newFakeRunPod(t), servertest.NATS(t)
	c := start(t, options(f, n))
	url, conn := webhook(t, c), n.Conn(t)
	target := &eventv1.Target{Account: "default", Kind: eventv1.TargetKind_TARGET_KIND_ENDPOINT, Id: "ep1"}
	for i := range 20 {
		id, began := fmt.Sprint("unregistered", i), time.Now()
		if code, answer := post(t, url, "application/json", fmt.Sprintf(`{"id":%q,"status":"COMPLETED"}`, id)); code != http.StatusOK {
			t.Fatalf("webhook answered %d %s", code, answer)
		}
		if time.Since(began) >= 500*time.Millisecond {
			continue // after that it is answered also while the log is slow, as it is on this machine
		}
		last, ok, err := conn.Last(t.Context(), bus.EventsStream, event.StoredSubject(event.KindJobTransitioned, event.Token(target)))
		if err != nil || !ok {
			t.Fatalf("the log has no transition when the webhook is answered: %v", err)
		}
		e, err := event.Unmarshal(last.Data)
		if err != nil || e.GetJobTransitioned().GetJobId() != id {
			t.Fatalf("the log has %v when the webhook of %s is answered, %v", e, id, err)
		}
	}
}

func TestAWebhookThatSaysNothingIsAnsweredAllTheSame(t *testing.T) {
	f, n := newFakeRunPod(t), servertest.NATS(t)
	log := follow(t, n.Conn(t))
	c := start(t, options(f, n))
	url := webhook(t, c)
	for name, body := range map[string]string{
		"nothing":            "",
		"garbage":            "\x00\xff<html>",
		"half a job":         `{"id":"half","status":"COMPL`,
		"no id":              `{"status":"COMPLETED"}`,
		"an unknown state":   `{"id":"odd","status":"EXPLODED"}`,
		"more than its 21 M": `{"id":"big","input":"` + strings.Repeat("x", 22<<20) + `","status":"COMPLETED"}`,
	} {
		if code, answer := post(t, url, "text/plain", body); code != http.StatusOK {
			t.Errorf("%s: answered %d %s, want 200", name, code, answer)
		}
	}
	large := `{"id":"large","input":"` + strings.Repeat("x", 20<<20) + `","status":"COMPLETED"}`
	if code, _ := post(t, url, "application/json", large); code != http.StatusOK {
		t.Errorf("20 MiB were answered %d", code)
	}
	log.wait(t, "the end of the large job", 0, enters("large", completed))
	if found := log.all(func(e *eventv1.Event) bool { return e.GetJobTransitioned() != nil }); len(found) != 1 {
		t.Errorf("%d transitions, want 1: %v", len(found), found)
	}
	code, answer := post(t, fmt.Sprintf("http://%s/webhook/%s", c.Ingest, strings.Repeat("A", 43)), "application/json", large)
	if code != http.StatusNotFound || !strings.Contains(answer, `"status":404`) {
		t.Errorf("an unknown token was answered %d %s", code, answer)
	}
}

func TestAForgottenJobIsLostWhileRunPodAnswers(t *testing.T) {
	if testing.Short() {
		t.Skip("takes the 10 s in which RunPod may not know a new job")
	}
	f, n := newFakeRunPod(t), servertest.NATS(t)
	log := follow(t, n.Conn(t))
	c := start(t, options(f, n))
	registered := time.Now()
	register(t, c, "ghost")
	log.wait(t, "the loss", 0, enters("ghost", lost))
	if took := time.Since(registered); took < 9*time.Second {
		t.Errorf("lost after %v, before RunPod could know it", took)
	}
}

func TestRequestsThatAreWrongAreRefusedAsProblems(t *testing.T) {
	f, n := newFakeRunPod(t), servertest.NATS(t)
	o := options(f, n)
	o.Collector.Token = "open-sesame"
	o.Collector.MaxTrackedJobs = 2
	c := start(t, o)
	url := fmt.Sprintf("http://%s/v1/jobs", c.Ingest)
	good := `{"endpoint_id":"ep1","job_ids":["a"]}`
	const asJSON = "application/json"
	for name, test := range map[string]struct {
		contentType, body, token string
		want                     int
	}{
		"no token":                {asJSON, good, "", 401},
		"a wrong token":           {asJSON, good, "Bearer open-sesam", 401},
		"no JSON":                 {asJSON, `{"endpoint_id":`, "Bearer open-sesame", 400},
		"an unknown key":          {asJSON, `{"endpoint":"ep1"}`, "Bearer open-sesame", 400},
		"no jobs":                 {asJSON, `{"endpoint_id":"ep1","job_ids":[]}`, "Bearer open-sesame", 400},
		"an empty id":             {asJSON, `{"endpoint_id":"ep1","job_ids":[""]}`, "Bearer open-sesame", 400},
		"an id that is a path":    {asJSON, `{"endpoint_id":"ep1","job_ids":[".."]}`, "Bearer open-sesame", 400},
		"another media type":      {"text/plain", good, "Bearer open-sesame", 415},
		"more than 64 KiB":        {asJSON, good + strings.Repeat(" ", 64<<10), "Bearer open-sesame", 413},
		"an unknown endpoint":     {asJSON, `{"endpoint_id":"nope","job_ids":["a"]}`, "Bearer open-sesame", 404},
		"another account":         {asJSON, `{"account":"b","endpoint_id":"ep1","job_ids":["a"]}`, "Bearer open-sesame", 404},
		"more jobs than bearable": {asJSON, `{"endpoint_id":"ep1","job_ids":["a","b","c"]}`, "Bearer open-sesame", 429},
		"what is right":           {asJSON, good, "Bearer open-sesame", 200},
	} {
		code, answer := post(t, url, test.contentType, test.body, "Authorization", test.token)
		if code != test.want || code != 200 && !strings.Contains(answer, fmt.Sprintf(`"status":%d`, test.want)) {
			t.Errorf("%s: answered %d %s, want %d", name, code, answer, test.want)
		}
	}
	if code, _ := get(t, fmt.Sprintf("http://%s/v1/endpoints", c.Ingest)); code != http.StatusUnauthorized {
		t.Errorf("the webhooks were told without a token: %d", code)
	}
	if code, _ := get(t, fmt.Sprintf("http://%s/healthz", c.Ingest)); code != http.StatusOK {
		t.Errorf("healthz answered %d", code)
	}
}

func TestJobsAreRegisteredOverGRPC(t *testing.T) {
	f, n := newFakeRunPod(t), servertest.NATS(t)
	f.set(func(f *fakeRunPod) { f.jobs["ep1/job1"] = `{"id":"job1","status":"COMPLETED"}` })
	log := follow(t, n.Conn(t))
	o := options(f, n)
	o.Collector.Token = "open-sesame"
	c := start(t, o)
	conn, err := rpc.Dial(c.GRPC.String(), rpc.DialOptions{Token: "open-sesame"})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	jobs := ingestv1.NewIngestServiceClient(conn)
	got, err := jobs.TrackJob(t.Context(), &ingestv1.TrackJobRequest{EndpointId: "ep1", JobIds: []string{"job1", "job1", "job2"}})
	if err != nil || got.GetRegistered() != 2 || got.GetAlreadyTracked() != 1 {
		t.Errorf("TrackJob = %v, %v; want 2 registered and 1 tracked already", got, err)
	}
	e := log.wait(t, "the end", 0, enters("job1", completed))
	if e.GetJobTransitioned().GetAttempt() != 1 {
		t.Errorf("the end is %v", e)
	}
	if found := log.all(enters("job1", inProgress)); len(found) != 0 {
		t.Errorf("a start that nobody saw was told: %v", found)
	}
	_, err = jobs.TrackJob(t.Context(), &ingestv1.TrackJobRequest{EndpointId: "nope", JobIds: []string{"a"}})
	if status.Code(err) != codes.NotFound {
		t.Errorf("an unknown endpoint is %v", err)
	}
}

func TestNATSAwayIsOutlived(t *testing.T) {
	f, n := newFakeRunPod(t), servertest.NATS(t)
	f.set(func(f *fakeRunPod) { f.jobs["ep1/job1"] = `{"id":"job1","status":"IN_QUEUE"}` })
	log := follow(t, n.Conn(t))
	c := start(t, options(f, n))
	register(t, c, "job1")
	log.wait(t, "the queue", 0, enters("job1", inQueue))

	n.Stop()
	asked := f.calls("/run/ep1/status/job1")
	f.set(func(f *fakeRunPod) { f.jobs["ep1/job1"] = `{"id":"job1","status":"COMPLETED"}` })
	f.await(t, "/run/ep1/status/job1", asked+1) // its end is seen
	f.await(t, "/run/ep1/health", f.calls("/run/ep1/health")+5)
	hooked := webhook(t, c)
	if code, answer := post(t, hooked, "application/json", `{"id":"job2","status":"COMPLETED"}`); code != http.StatusOK {
		t.Errorf("a webhook was answered %d %s while NATS is away", code, answer)
	}
	before := log.len()
	n.Start(t)
	log.wait(t, "the end that a webhook told meanwhile", before, enters("job2", completed))
	end := log.wait(t, "the end that came meanwhile", before, enters("job1", completed))
	if end.GetHeld().AsDuration() < 100*time.Millisecond {
		t.Errorf("the end was held %v, want the outage", end.GetHeld().AsDuration())
	}
	log.wait(t, "fresh health", before, func(e *eventv1.Event) bool {
		return health(e) && e.GetHeld().AsDuration() < 100*time.Millisecond
	})
}

func TestATargetThatIsGoneIsRemoved(t *testing.T) {
	f, n := newFakeRunPod(t), servertest.NATS(t)
	f.set(func(f *fakeRunPod) {
		f.pods["pod1"] = podJSON("pod1", "train", "null")
		f.endpoints["ep2"] = endpointJSON("ep2", "other", "QUEUE", 1)
		f.health["ep2"] = healthy
	})
	log := follow(t, n.Conn(t))
	c := start(t, options(f, n))
	log.wait(t, "health of ep2", 0, func(e *eventv1.Event) bool { return health(e) && e.GetTarget().GetId() == "ep2" })
	f.set(func(f *fakeRunPod) { delete(f.endpoints, "ep2") })
	gone := log.wait(t, "the removal", 0, func(e *eventv1.Event) bool { return e.GetTargetRemoved() != nil })
	if gone.GetTarget().GetId() != "ep2" {
		t.Errorf("removed %v", gone)
	}
	if asked := f.calls("/rest/serverless/ep2"); asked != 1 {
		t.Errorf("RunPod was asked %d times whether ep2 exists, want once", asked)
	}
	before := log.len()
	f.set(func(f *fakeRunPod) { f.endpoints["ep2"] = endpointJSON("ep2", "other", "QUEUE", 1) })
	log.wait(t, "its discovery anew", before, func(e *eventv1.Event) bool {
		return e.GetTargetDiscovered() != nil && e.GetTarget().GetId() == "ep2"
	})
	code, figures := get(t, fmt.Sprintf("http://%s/metrics", c.HTTP))
	for _, series := range []string{
		`runpod_jobs_total{endpoint_id="ep1",state="completed"} 31`,
		`runpod_queue_depth{endpoint_id="ep1"} 2`,
		`runpod_workers{endpoint_id="ep1",state="throttled"} 0`,
		`tocsin_collector_polls_total{kind="health",result="ok"}`,
	} {
		if code != http.StatusOK || !strings.Contains(figures, series) {
			t.Errorf("metrics answered %d without %s", code, series)
		}
	}
	if code, answer := get(t, fmt.Sprintf("http://%s/readyz", c.HTTP)); code != http.StatusOK {
		t.Errorf("readyz answered %d %s", code, answer)
	}
}
