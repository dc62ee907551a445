package foreign

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// TestRequestsThatAreRefused sends what must be refused, to each port.
func TestRequestsThatAreRefused(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 1000)
	w.rest.set([]map[string]any{endpoint("known"), endpoint("balanced", "type", "LOAD_BALANCER")}, nil)
	s := w.up(t)
	hooks := w.hooks(t, s, 2)
	many := strings.Repeat(`"j",`, 1001)

	for name, test := range map[string]struct {
		method, url, token, media, body string
		want                            int
	}{
		"no token":                      {http.MethodPost, "/v1/jobs", "", "application/json", `{}`, 401},
		"a wrong token":                 {http.MethodPost, "/v1/jobs", "wrong", "application/json", `{}`, 401},
		"no token for the endpoints":    {http.MethodGet, "/v1/endpoints", "", "", "", 401},
		"a method that is not known":    {http.MethodGet, "/v1/jobs", ingestToken, "", "", 405},
		"a webhook that is read":        {http.MethodGet, hooks["known"], "", "", "", 405},
		"no such path":                  {http.MethodPost, "/v1/job", ingestToken, "application/json", `{}`, 404},
		"nothing at the root":           {http.MethodGet, "/", ingestToken, "", "", 404},
		"no metrics here":               {http.MethodGet, "/metrics", ingestToken, "", "", 404},
		"a webhook of nobody":           {http.MethodPost, "/webhook/" + strings.Repeat("A", 43), "", "application/json", `{}`, 404},
		"a webhook without a token":     {http.MethodPost, "/webhook/", "", "application/json", `{}`, 404},
		"a webhook cut short":           {http.MethodPost, hooks["known"][:len(hooks["known"])-1], "", "application/json", `{}`, 404},
		"a form":                        {http.MethodPost, "/v1/jobs", ingestToken, "application/x-www-form-urlencoded", "a=b", 415},
		"no media type":                 {http.MethodPost, "/v1/jobs", ingestToken, "", `{}`, 415},
		"a body of 100 KB":              {http.MethodPost, "/v1/jobs", ingestToken, "application/json", `{"endpoint_id":"` + strings.Repeat("x", 100_000) + `"}`, 413},
		"no JSON":                       {http.MethodPost, "/v1/jobs", ingestToken, "application/json", `ids`, 400},
		"half JSON":                     {http.MethodPost, "/v1/jobs", ingestToken, "application/json", `{"endpoint_id":`, 400},
		"JSON and more":                 {http.MethodPost, "/v1/jobs", ingestToken, "application/json", `{"endpoint_id":"known","job_ids":["a"]}{}`, 400},
		"a list":                        {http.MethodPost, "/v1/jobs", ingestToken, "application/json", `[]`, 400},
		"null":                          {http.MethodPost, "/v1/jobs", ingestToken, "application/json", `null`, 400},
		"nothing":                       {http.MethodPost, "/v1/jobs", ingestToken, "application/json", ``, 400},
		"an unknown key":                {http.MethodPost, "/v1/jobs", ingestToken, "application/json", `{"endpoint_id":"known","job_id":"a"}`, 400},
		"no jobs":                       {http.MethodPost, "/v1/jobs", ingestToken, "application/json", `{"endpoint_id":"known","job_ids":[]}`, 400},
		"no endpoint":                   {http.MethodPost, "/v1/jobs", ingestToken, "application/json", `{"job_ids":["a"]}`, 400},
		"jobs as a text":                {http.MethodPost, "/v1/jobs", ingestToken, "application/json", `{"endpoint_id":"known","job_ids":"a"}`, 400},
		"a number for a job":            {http.MethodPost, "/v1/jobs", ingestToken, "application/json", `{"endpoint_id":"known","job_ids":[1]}`, 400},
		"an empty id":                   {http.MethodPost, "/v1/jobs", ingestToken, "application/json", `{"endpoint_id":"known","job_ids":[""]}`, 400},
		"an id that is a path":          {http.MethodPost, "/v1/jobs", ingestToken, "application/json", `{"endpoint_id":"known","job_ids":[".."]}`, 400},
		"an id of a line":               {http.MethodPost, "/v1/jobs", ingestToken, "application/json", `{"endpoint_id":"known","job_ids":["a\nb"]}`, 400},
		"an id that is too long":        {http.MethodPost, "/v1/jobs", ingestToken, "application/json", `{"endpoint_id":"known","job_ids":["` + strings.Repeat("x", 129) + `"]}`, 400},
		"more jobs than a thousand":     {http.MethodPost, "/v1/jobs", ingestToken, "application/json", `{"endpoint_id":"known","job_ids":[` + many[:len(many)-1] + `]}`, 400},
		"an endpoint that is not known": {http.MethodPost, "/v1/jobs", ingestToken, "application/json", `{"endpoint_id":"other","job_ids":["a"]}`, 404},
		"an account that is not known":  {http.MethodPost, "/v1/jobs", ingestToken, "application/json", `{"account":"other","endpoint_id":"known","job_ids":["a"]}`, 404},
		"an endpoint without a queue":   {http.MethodPost, "/v1/jobs", ingestToken, "application/json", `{"endpoint_id":"balanced","job_ids":["a"]}`, 400},
		"metrics without a token":       {http.MethodGet, s.metrics + "/metrics", "", "", "", 401},
		"metrics that are written":      {http.MethodPost, s.metrics + "/metrics", ingestToken, "", "", 405},
		"the alerter's without a token": {http.MethodGet, "http://" + s.alerterHTTP + "/metrics", "", "", "", 401},
		"the notifier's without one":    {http.MethodGet, "http://" + s.notifierHTTP + "/metrics", ingestToken, "", "", 401},
	} {
		if !strings.Contains(test.url, "://") {
			test.url = s.ingest + test.url
		}
		status, header, body := send(t, test.method, test.url, test.body, map[string]string{"Authorization": "Bearer " + test.token, "Content-Type": test.media})
		if status != test.want {
			t.Errorf("%s: %d %s, want %d", name, status, body, test.want)
			continue
		}
		if wrong := noProblem(status, header, body); wrong != "" {
			t.Errorf("%s: %s: %v %s", name, wrong, header, body)
		}
	}
	for _, base := range []string{s.ingest, s.metrics, "http://" + s.alerterHTTP, "http://" + s.notifierHTTP} {
		if status, _, body := get(t, base+"/healthz", ""); status != 200 {
			t.Errorf("%s/healthz: %d %s", base, status, body)
		}
	}
	for _, base := range []string{s.metrics, "http://" + s.alerterHTTP, "http://" + s.notifierHTTP} {
		eventually(t, base+" is ready", func() string {
			status, _, body := get(t, base+"/readyz", "")
			return unequal(fmt.Sprint(status), "200") + map[bool]string{true: "", false: body}[status == 200]
		})
	}
	webhooksThatSayNothing(t, s, hooks["known"])
	callsThatAreRefused(t, s)
	if code := s.Stop(); code != 0 {
		t.Errorf("it ended with code %d, want 0", code)
	}
}

// noProblem says how an answer differs from a problem after RFC 9457.
func noProblem(status int, header http.Header, body string) string {
	var problem struct {
		Title, Detail string
		Status        int
	}
	switch {
	case header.Get("Content-Type") != "application/problem+json":
		return "it is no problem+json"
	case json.Unmarshal([]byte(body), &problem) != nil:
		return "it is no JSON"
	case problem.Status != status || problem.Title == "" || problem.Detail == "":
		return "it lacks the status, a title or a detail"
	case status == 401 && header.Get("WWW-Authenticate") == "":
		return "it does not say how to authenticate"
	case status == 405 && header.Get("Allow") == "":
		return "it does not say what is allowed"
	}
	return ""
}

// webhooksThatSayNothing sends webhooks that are answered with 200, since
// sending them again would help nobody, and tell nothing.
func webhooksThatSayNothing(t *testing.T, s *system, url string) {
	t.Helper()
	for name, body := range map[string]string{
		"nothing":           "",
		"no JSON":           "input=" + inputCanary,
		"a list":            "[]",
		"no id":             `{"status":"FAILED","error":"x"}`,
		"no status":         `{"id":"a"}`,
		"an unknown status": `{"id":"a","status":"LATER"}`,
		"an id of 1 KB":     jobBody(strings.Repeat("i", 1024), "FAILED", nil),
		"22 MB":             jobBody("big", "FAILED", map[string]any{"output": strings.Repeat("x", 22<<20)}),
		"cut short":         `{"id":"a","status":"FAILED","output":"`,
	} {
		if status, _, answer := send(t, http.MethodPost, url, body, nil); status != 200 {
			t.Errorf("a webhook with %s: %d %s, want 200", name, status, answer)
		}
	}
	page := scrapeOf(t, s.metrics, ingestToken)
	if n, _ := page.value("runpod_job_errors_total"); n != 0 {
		t.Errorf("%v errors were counted of webhooks that say nothing", n)
	}
	// One with an output of 20 MB, as RunPod may send, counts.
	hook(t, url, jobBody("big", "FAILED", map[string]any{"output": strings.Repeat("x", 20<<20)}))
	eventually(t, "the large webhook is counted", func() string { return miscountedErrors(t, s, 1) })
}

func miscountedErrors(t *testing.T, s *system, want float64) string {
	t.Helper()
	n, _ := scrapeOf(t, s.metrics, ingestToken).value("runpod_job_errors_total")
	return unequal(fmt.Sprint(n), fmt.Sprint(want))
}

// callsThatAreRefused makes gRPC calls that must be refused.
func callsThatAreRefused(t *testing.T, s *system) {
	t.Helper()
	ports := map[string]*remote{"query": reflectOn(t, s.query, queryToken), "ingest": reflectOn(t, s.jobs, ingestToken), "notify": reflectOn(t, s.notify, queryToken)}
	for name, test := range map[string]struct {
		port, token, method, request string
		want                         codes.Code
	}{
		"no token":                  {"ingest", "", "tocsin.ingest.v1.IngestService/TrackJob", `{}`, codes.Unauthenticated},
		"another port's token":      {"query", ingestToken, queryService + "ListTargets", `{}`, codes.Unauthenticated},
		"no jobs":                   {"ingest", ingestToken, "tocsin.ingest.v1.IngestService/TrackJob", `{"endpointId":"known"}`, codes.InvalidArgument},
		"an endpoint not known":     {"ingest", ingestToken, "tocsin.ingest.v1.IngestService/TrackJob", `{"endpointId":"other","jobIds":["a"]}`, codes.NotFound},
		"a target not known":        {"query", queryToken, queryService + "GetTarget", `{"kind":"TARGET_KIND_POD","id":"none"}`, codes.NotFound},
		"a target of no kind":       {"query", queryToken, queryService + "GetTarget", `{"id":"known"}`, codes.InvalidArgument},
		"an alert not known":        {"query", queryToken, queryService + "GetAlert", `{"id":"none"}`, codes.NotFound},
		"a page that is too large":  {"query", queryToken, queryService + "ListTargets", `{"pageSize":1001}`, codes.InvalidArgument},
		"a page token of nobody":    {"query", queryToken, queryService + "ListAlerts", `{"pageToken":"x"}`, codes.InvalidArgument},
		"a matcher that is none":    {"query", queryToken, queryService + "ListAlerts", `{"matchers":["{"]}`, codes.InvalidArgument},
		"transitions of nobody":     {"notify", "", "tocsin.notify.v1.NotifierService/Notify", `{}`, codes.Unauthenticated},
		"a partition that is wrong": {"notify", queryToken, "tocsin.notify.v1.NotifierService/Notify", `{"partition":99}`, codes.InvalidArgument},
	} {
		r := *ports[test.port]
		r.token = test.token
		_, err := r.call(t.Context(), test.method, test.request)
		if status.Code(err) != test.want {
			t.Errorf("%s: %v, want %v", name, err, test.want)
			continue
		}
		if refusal := status.Convert(err); refusal.Message() == "" || len(refusal.Details()) == 0 {
			t.Errorf("%s: no reason is given: %v", name, err)
		}
	}
}
