package e2e

import (
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/tocsin-dev/tocsin/services/collector/runpod/sim"
	"github.com/tocsin-dev/tocsin/test/internal/process"
)

// account serves a simulated account with one key that may do everything and
// one that may not read the REST API.
func account(t *testing.T) (url string) {
	t.Helper()
	a, err := sim.New(sim.Options{Scenario: sim.Fleet(2), Unlimited: true, Keys: []sim.Key{
		{Value: sim.DefaultKey},
		{Value: "rpa_WITHOUTSCOPE", Without: []sim.Scope{sim.ScopeServerless, sim.ScopePods}},
	}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(a.Close)
	server := httptest.NewServer(a.Handler())
	t.Cleanup(server.Close)
	return server.URL
}

func TestWhatTheUserGotWrong(t *testing.T) {
	url := account(t)
	file := func(name, text string) string {
		path := filepath.Join(t.TempDir(), name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	ports := "collector: {ingest_address: '127.0.0.1:0', http_address: '127.0.0.1:0', grpc_address: '127.0.0.1:0'}\n" +
		"alerter: {grpc_address: '127.0.0.1:0', http_address: '127.0.0.1:0'}\n" +
		"notifier: {grpc_address: '127.0.0.1:0', http_address: '127.0.0.1:0'}\n"
	good := file("good.yaml", "runpod: {rest_url: '"+url+"/v2', serverless_url: '"+url+"/runtime/v2'}\n"+ports)
	rules := file("rules.yaml", `groups:
  - name: g
    rules:
      - alert: A
        on: endpoint
        expr: jobs.in_que > 5
      - alert: B
        on: endpoint
        expr: jobs.in_queue > 5
        fore: 5m
`)
	for name, test := range map[string]struct {
		env  []string
		args []string
		code int
		want []string // each in a line of its own
		not  string
	}{
		"no key names the variable and the demo": {
			nil, []string{"up"}, 2, []string{"RUNPOD_API_KEY"}, "",
		},
		"a key that RunPod does not know": {
			[]string{"RUNPOD_API_KEY=rpa_WRONGWRONGWRONG"},
			[]string{"up", "--config", good, "--data", t.TempDir()},
			2,
			[]string{"401"},
			"rpa_WRONGWRONGWRONG",
		},
		"a key that lacks a scope": {
			[]string{"RUNPOD_API_KEY=rpa_WITHOUTSCOPE"},
			[]string{"up", "--config", good, "--data", t.TempDir()},
			2,
			[]string{"403"},
			"rpa_WITHOUTSCOPE",
		},
		"every mistake of the configuration at once, by name and place": {
			[]string{"RUNPOD_API_KEY=k"},
			[]string{"up", "--config", file("bad.yaml", "collector:\n  health_intervall: 5s\n  pods_interval: often\nnonsense: {}\nnotifier:\n  grpc_address: 0.0.0.0:9092\n")},
			2,
			[]string{"bad.yaml:2:3", "bad.yaml:3:", "bad.yaml:4:1", "notifier.grpc_address"},
			"",
		},
		"a variable of the environment counts as the file does": {
			[]string{"RUNPOD_API_KEY=k", "TOCSIN_COLLECTOR_MAX_CONCURRENT=none"},
			[]string{"up", "--config", good},
			2,
			[]string{"TOCSIN_COLLECTOR_MAX_CONCURRENT"},
			"",
		},
		"every mistake of the rules at once, by name and place": {
			[]string{"RUNPOD_API_KEY=" + sim.DefaultKey, "TOCSIN_ALERTER_RULES=" + rules},
			[]string{"up", "--config", good, "--data", t.TempDir()},
			2,
			[]string{"rules.yaml:10:9"},
			"",
		},
		"an expression with a field that does not exist": {
			[]string{"RUNPOD_API_KEY=" + sim.DefaultKey, "TOCSIN_ALERTER_RULES=" + file("field.yaml",
				"groups:\n  - name: g\n    rules:\n      - {alert: A, on: endpoint, expr: 'jobs.in_que > 5'}\n")},
			[]string{"up", "--config", good, "--data", t.TempDir()},
			2,
			[]string{"field.yaml:4:", "jobs.in_queue"},
			"",
		},
		"a command that does not exist": {nil, []string{"watch"}, 2, []string{"watch"}, ""},
		"a configuration that does not exist": {
			[]string{"RUNPOD_API_KEY=k"}, []string{"up", "--config", "/does/not/exist.yaml"}, 2, []string{"/does/not/exist.yaml"}, "",
		},
		"help is no mistake": {nil, []string{"up", "--help"}, 0, nil, ""},
	} {
		t.Run(name, func(t *testing.T) {
			code, stdout, stderr := process.Once(t, test.env, test.args...)
			if code != test.code {
				t.Errorf("ended with code %d, want %d; it printed:\n%s%s", code, test.code, stdout, stderr)
			}
			for _, want := range test.want {
				if !strings.Contains(stderr, want) {
					t.Errorf("it does not say %q:\n%s", want, stderr)
				}
			}
			if test.not != "" && strings.Contains(stdout+stderr, test.not) {
				t.Errorf("it prints the key:\n%s%s", stdout, stderr)
			}
		})
	}
}
