package main

import (
	"bytes"
	"context"
	"encoding/xml"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/tocsin-dev/tocsin/internal/proc"
	rulev1 "github.com/tocsin-dev/tocsin/proto/gen/tocsin/rule/v1"
	"github.com/tocsin-dev/tocsin/rules"
)

// tocsin runs a command line and returns what it printed.
func tocsin(t *testing.T, args ...string) (string, error) {
	t.Helper()
	var out bytes.Buffer
	err := run(t.Context(), args, &out, &out)
	return out.String(), err
}

func TestRulesCheck(t *testing.T) {
	good := write(t, "good.yaml", `groups:
- name: g
  rules:
  - {alert: A, on: endpoint, expr: "jobs.in_queue > threshold('queue', 5)", labels: {severity: warning}, annotations: {summary: queue}}
`)
	wrong := write(t, "wrong.yaml", "groups: [{name: w, rules: [{alert: A, on: endpoint, expr: jobs.in_que > 5}]}]\n")
	doubtful := write(t, "doubtful.yaml", `groups:
- name: d
  rules:
  - {alert: D, on: endpoint, expr: tracked.delay_p95_s > 60000, labels: {severity: warning}, annotations: {summary: waits}}
`)
	config := write(t, "tocsin.yaml", "targets:\n- {match: x, overrides: {queeu: 7}}\nalerter: {rules: ["+good+"]}\n")
	for _, c := range []struct {
		name  string
		args  []string
		fails bool
		want  []string
	}{
		{"the default pack", nil, false, []string{" rules in 5 files: no mistakes, no warnings; the costliest is ", "default pack, version " + rules.Version + "\n"}},
		{"a pack that was known before", []string{"--config", write(t, "older.yaml", "alerter: {pack_version: '1.0'}\n")}, false, []string{
			"; those that came after 1.0 are only observed: HighLatency, LatencyUnusual, RetriesRising, SLOBurnFast",
		}},
		{"a pack that nobody knows", []string{"--config", write(t, "newer.yaml", "alerter: {pack_version: '7'}\n")}, true, []string{
			`alerter.pack_version: "7" is no version of the default pack; expected one of 1.0, 1.1`,
		}},
		{"a good file", []string{good}, false, []string{"1 rule in 1 file: no mistakes, no warnings"}},
		{"a wrong one", []string{good, wrong}, true, []string{
			wrong + ":1:59: `jobs.in_que` is no field of an endpoint; did you mean `jobs.in_queue`?", "1 mistake in 2 files",
		}},
		{"a doubtful one", []string{doubtful}, false, []string{"warning: `tracked.delay_p95_s` is in seconds", "no mistakes, 1 warning"}},
		{"a doubtful one, strictly", []string{"--strict", doubtful}, true, []string{"1 warning in 1 file"}},
		{"those of the configuration", []string{"--config", config}, false, []string{"the override `queeu` of `x` is read by no rule; did you mean `queue`?", "1 rule in 1 file"}},
		{"an objective in percent", []string{"--config", write(t, "percent.yaml", "targets: [{match: x, overrides: {slo: 99}}]\n")}, false, []string{
			"the override `slo` of `x` is 99; an objective is a part of 1, for example 0.99",
		}},
		{"a pattern", []string{filepath.Join(filepath.Dir(good), "*.yaml")}, false, []string{"1 rule in 1 file"}},
		{"files that are not there", []string{"/nowhere/a.yaml", "/nowhere/b.yaml"}, true, []string{`"/nowhere/a.yaml" matches no file`, `"/nowhere/b.yaml" matches no file`}},
	} {
		t.Run(c.name, func(t *testing.T) {
			out, err := tocsin(t, append([]string{"rules", "check"}, c.args...)...)
			if c.fails != (err != nil) || err != nil && !proc.IsUsage(err) {
				t.Fatalf("error %v", err)
			}
			if err != nil {
				out += err.Error()
			}
			for _, want := range c.want {
				if !strings.Contains(out, want) {
					t.Errorf("no %q in\n%s", want, out)
				}
			}
		})
	}
}

func TestRulesTest(t *testing.T) {
	write := func(dir, name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	dir := t.TempDir()
	write(dir, "rules.yaml", `groups:
- name: g
  rules:
  - {alert: A, on: endpoint, expr: jobs.in_queue > 5}
  - {alert: B, on: endpoint, expr: jobs.failed > 5}
`)
	good := write(dir, "good.yaml", `rule_files: [rules.yaml]
tests:
- {name: it fires, endpoints: {a: {series: {jobs.in_queue: 7}}}, expect: [{at: 1m, firing: [{alert: A}]}]}
- {name: it does not, endpoints: {a: {series: {jobs.in_queue: 5}}}, expect: [{at: 1m, firing: []}]}
`)
	bad := write(dir, "bad.yaml", `rule_files: [rules.yaml]
tests:
- {name: it should fire, endpoints: {a: {series: {jobs.in_queue: 5}}}, expect: [{at: 1m, firing: [{alert: A}]}]}
`)
	report := filepath.Join(dir, "junit.xml")
	for _, c := range []struct {
		name         string
		args         []string
		fails, usage bool
		want         []string
	}{
		{"good", []string{good}, false, false, []string{"good.yaml: 2 tests, 0 failed; 1 of 2 rules fired", "never fired: g/B"}},
		{"bad", []string{good, bad, "--junit", report}, true, false, []string{"FAIL it should fire", "bad.yaml:3: at 1m0s", "A is not firing", "1 test of 3 failed"}},
		{"as a difference", []string{bad, "--diff"}, true, false, []string{"--- wanted", "+++ found", "-    - alert: A", "+firing: []"}},
		{"some", []string{good, bad, "--run", "it does"}, false, false, []string{"1 test, 0 failed"}},
		{"none", []string{good, "--run", "nothing"}, true, true, []string{`no test's name matches "nothing"`}},
		{"no file", []string{filepath.Join(dir, "absent.yaml")}, true, true, []string{"matches no file"}},
		{"rules that are wrong", []string{write(dir, "wrong.yaml", "rule_files: [bad.yaml]\ntests: [{name: t, account: {series: {polls.ok: 1}}, expect: [{at: 1m, firing: []}]}]")}, true, true, []string{"`tests` is no key of a rule file"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			out, err := tocsin(t, append([]string{"rules", "test"}, c.args...)...)
			if c.fails != (err != nil) || c.usage != proc.IsUsage(err) {
				t.Fatalf("error %v", err)
			}
			if err != nil {
				out += err.Error()
			}
			for _, want := range c.want {
				if !strings.Contains(out, want) {
					t.Errorf("no %q in\n%s", want, out)
				}
			}
		})
	}
	text, err := os.ReadFile(report)
	if err != nil {
		t.Fatal(err)
	}
	var junit junitReport
	if err := xml.Unmarshal(text, &junit); err != nil {
		t.Fatal(err)
	}
	if len(junit.Suites) != 2 || junit.Suites[0].Failures+junit.Suites[1].Failures != 1 || junit.Suites[0].Cases[0].Failure == nil {
		t.Errorf("JUnit: %s", text)
	}
}

// ruleService answers the RuleService.
type ruleService struct {
	rulev1.UnimplementedRuleServiceServer
	answer *rulev1.ReloadResponse
	err    error
}

func (s *ruleService) Reload(context.Context, *rulev1.ReloadRequest) (*rulev1.ReloadResponse, error) {
	return s.answer, s.err
}

func TestRulesReload(t *testing.T) {
	for name, c := range map[string]struct {
		service *ruleService
		want    string
	}{
		"changed":   {&ruleService{answer: &rulev1.ReloadResponse{RuleSetHash: "0123456789abcdef", Changed: true, Rules: 25}}, "the files come into force now: 25 rules (rule set 0123456789ab)"},
		"unchanged": {&ruleService{answer: &rulev1.ReloadResponse{RuleSetHash: "0123456789abcdef", Rules: 1}}, "the files did not change: 1 rule"},
		"refused":   {&ruleService{err: status.Error(codes.InvalidArgument, "r.yaml:1:2: wrong")}, "r.yaml:1:2: wrong"},
		"no answer": {nil, "no alerter answers at 127.0.0.1:"},
	} {
		t.Run(name, func(t *testing.T) {
			ln, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			server := grpc.NewServer()
			defer server.Stop()
			if c.service == nil {
				ln.Close()
			} else {
				rulev1.RegisterRuleServiceServer(server, c.service)
				go func() { _ = server.Serve(ln) }() // ends with the test
			}
			out, err := tocsin(t, "rules", "reload", "--address", ln.Addr().String())
			if err != nil {
				out += err.Error()
			}
			if !strings.Contains(out, c.want) {
				t.Errorf("%q, want %q", out, c.want)
			}
		})
	}
}

func TestTheTestsOfTheDefaultRulesPass(t *testing.T) {
	out, err := tocsin(t, "rules", "test", filepath.Join("..", "..", "rules", "tests", "*.yaml"))
	if err != nil {
		t.Errorf("%v\n%s", err, out)
	}
	if strings.Contains(out, "never fired") {
		t.Errorf("not every rule of the pack is tried:\n%s", out)
	}
}

func TestTheExamplesOfTheRulesPageAreTrue(t *testing.T) {
	page, err := os.ReadFile(filepath.Join("..", "..", "docs", "rules.md"))
	if err != nil {
		t.Fatal(err)
	}
	blocks := strings.Split(string(page), "```yaml\n")
	if len(blocks) != 3 {
		t.Fatalf("%d blocks of YAML, want one of rules and one of tests", len(blocks)-1)
	}
	dir := t.TempDir()
	for i, name := range []string{"my-rules.yaml", "my-tests.yaml"} {
		text, _, _ := strings.Cut(blocks[i+1], "```")
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, args := range [][]string{{"rules", "check", "--strict", filepath.Join(dir, "my-rules.yaml")}, {"rules", "test", "--diff", filepath.Join(dir, "my-tests.yaml")}} {
		if out, err := tocsin(t, args...); err != nil {
			t.Errorf("%v: %v\n%s", args, err, out)
		}
	}
}

func TestRulesFields(t *testing.T) {
	out, err := tocsin(t, "rules", "fields", "pod")
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(out, "gpu.util_percent") || strings.Contains(out, "jobs.in_queue") || !strings.Contains(out, "absent('DURATION')") {
		t.Errorf("of pods:\n%s", out)
	}
	if _, err := tocsin(t, "rules", "fields", "pot"); !proc.IsUsage(err) {
		t.Errorf("a kind that there is not: %v", err)
	}
}

func TestTheReferencePageIsWhatTheTableSays(t *testing.T) {
	out, err := tocsin(t, "rules", "fields", "--markdown")
	if err != nil {
		t.Fatal(err)
	}
	page, err := os.ReadFile(filepath.Join("..", "..", "docs", "fields.md"))
	if err != nil || string(page) != out {
		t.Errorf("docs/fields.md is not what `tocsin rules fields --markdown` prints: run make docs (%v)", err)
	}
}
