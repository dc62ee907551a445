// Package foreign runs the binary against a RunPod that shares no code with
// this project's simulator: an inventory made at random from RunPod's OpenAPI
// file, and a runtime API written from its documentation alone. It looks at
// Tocsin only from outside: gRPC through reflection, metrics, HTTP, and what
// its receivers are sent, checked by verifiers that are not ours.
package foreign

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/tocsin-dev/tocsin/test/internal/process"
)

func TestMain(m *testing.M) { os.Exit(process.Main(m)) }

// The secrets of these tests. None may be found in anything that Tocsin prints,
// serves, sends or stores.
const (
	apiKey       = "F0REIGNKEYCANARY0123456789ABCDEFGHIJKLMN" // as RunPod made them before the prefix
	ingestToken  = "ingest-token-canary-4f1d"
	queryToken   = "query-token-canary-9a77"
	hookSecret   = "whsec_Y2FuYXJ5LXdlYmhvb2stc2VjcmV0LTAxMjM0NTY3" // of the receiver
	envCanary    = "env-canary-51c2d9"
	inputCanary  = "input-canary-77b0e1"
	outputCanary = "output-canary-0d93f4"
	errorCanary  = "rpa_ERRORCANARY9876543210" // a key in the text of an error
	userCanary   = "userinfo-canary-6e20"      // the password in a URL in such a text
)

// quickRules fire as soon as their facts are there.
const quickRules = `
groups:
  - name: quick
    rules:
      - alert: Disabled
        on: endpoint
        expr: workers.max == 0 && jobs.in_queue > 0
        labels: {severity: critical}
        annotations: {summary: '{{ .Name }} has {{ .Value "jobs.in_queue" }} jobs that cannot run'}
      - alert: JobsFailing
        on: job
        expr: increase(job.failed, '10m') > 0
        labels: {severity: warning}
        annotations: {summary: '{{ .Name }} fails'}
      - alert: JobOpen
        on: endpoint
        expr: tracked.open > 0
      - alert: JobWaiting
        on: endpoint
        expr: tracked.oldest_queued_s > 0
      - alert: AllFailuresCounted
        on: job
        expr: increase(job.failed, '10m') >= threshold('expected_failures', 1000)
        labels: {severity: info}
      - alert: FailuresInvented
        on: job
        expr: increase(job.failed, '10m') > threshold('expected_failures', 1000)
        labels: {severity: critical}
      - alert: KeyRejected
        on: account
        expr: polls.unauthorized > 0 && polls.ok == 0
        labels: {severity: critical}
        annotations: {summary: 'RunPod rejects the key of {{ .Name }}'}
`

// everyConfig polls as fast as a test wants.
const everyConfig = `
runpod: {rest_url: "%[1]s/v2", serverless_url: "%[2]s/v2", api_key_file: "%[3]s"}
targets:
  - match: 'killed'
    overrides: {expected_failures: %[9]d}
collector:
  health_interval: 250ms
  pods_interval: 250ms
  inventory_interval: 250ms
  job_fast_interval: 100ms
  job_interval: 500ms
  max_backoff: 500ms
  timeout: 3s
  token_file: "%[4]s"
  ingest_address: "127.0.0.1:0"
  http_address: "127.0.0.1:0"
  grpc_address: "127.0.0.1:0"
alerter: {rules: ["%[5]s"], token_file: "%[6]s", grpc_address: "127.0.0.1:0", http_address: "127.0.0.1:0"}
notifier: {config_file: "%[7]s", token_file: "%[8]s", grpc_address: "127.0.0.1:0", http_address: "127.0.0.1:0"}
log: {level: debug}
`

// everyRoute sends each alert on its own, at once, in each format.
const everyRoute = `
route: {receiver: all, group_by: ['...'], group_wait: 0s, group_interval: 100ms, repeat_interval: 24h}
receivers:
  - name: all
    webhook_configs: [{url: "%[1]s/alertmanager"}]
    tocsin_configs:
      - {url: "%[1]s/standard", format: standard, secret: %[2]s}
      - {url: "%[1]s/simple", format: simple}
`

// world is a RunPod, a receiver, and the configuration of a Tocsin between them.
type world struct {
	rest     *restAPI
	runtime  *runtimeAPI
	receiver *receiver
	config   string
	data     string
	env      []string // of Tocsin
}

func newWorld(t *testing.T, expectedFailures int) *world {
	t.Helper()
	w := &world{rest: newREST(t), runtime: newRuntime(t), receiver: newReceiver(t), data: filepath.Join(t.TempDir(), "data")}
	dir := t.TempDir()
	write := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	w.config = write("tocsin.yaml", fmt.Sprintf(everyConfig, w.rest.url, w.runtime.url,
		write("key", apiKey+"\n"), write("ingest.token", ingestToken), write("rules.yaml", quickRules), write("query.token", queryToken),
		write("routes.yml", fmt.Sprintf(everyRoute, w.receiver.url, hookSecret)), write("notify.token", queryToken), expectedFailures))
	return w
}

// system is a running Tocsin.
type system struct {
	*process.Process
	ingest, metrics     string // base URLs of the collector
	query, notify, jobs string // gRPC addresses
	alerterHTTP         string
	notifierHTTP        string
}

// up starts Tocsin and waits until it serves.
func (w *world) up(t *testing.T) *system {
	t.Helper()
	s := &system{Process: process.Start(t, w.env, "up", "--config", w.config, "--data", w.data)}
	s.WaitFor(0, "ingest API (gRPC)") // the last line of the addresses
	printed := s.Output()
	for _, a := range []struct {
		to    *string
		label string
	}{
		{&s.ingest, "jobs and webhooks"},
		{&s.metrics, "fleet metrics"},
		{&s.alerterHTTP, "alerter metrics"},
		{&s.notifierHTTP, "notifier metrics"},
		{&s.query, "query API (gRPC)"},
		{&s.notify, "notifier API (gRPC)"},
		{&s.jobs, "ingest API (gRPC)"},
	} {
		address := regexp.MustCompile(regexp.QuoteMeta(a.label) + `\s+(?:http://)?([0-9.]+:[0-9]+)`).FindStringSubmatch(printed)
		if address == nil {
			t.Fatalf("no address of %s in what it printed:\n%s", a.label, printed)
		}
		*a.to = address[1]
	}
	s.ingest, s.metrics = "http://"+s.ingest, "http://"+s.metrics
	return s
}

// eventually polls until check returns "", and fails with what it returned last
// when patience ends. What is awaited comes with a poll, which nobody signals.
func eventually(t *testing.T, what string, check func() string) {
	t.Helper()
	const every = 50 * time.Millisecond
	ticker := time.NewTicker(every)
	defer ticker.Stop()
	deadline := time.After(process.Patience)
	for {
		missing := check()
		if missing == "" {
			return
		}
		select {
		case <-ticker.C:
		case <-deadline:
			t.Fatalf("%s: not yet, after %v: %s", what, process.Patience, missing)
		}
	}
}

// report fails the test when a server saw what it must not see.
func report(t *testing.T, who string, faults []string) {
	t.Helper()
	if len(faults) > 0 {
		t.Errorf("%s saw what it must not see:\n  %s", who, strings.Join(faults, "\n  "))
	}
}
