package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/tocsin-dev/tocsin/internal/proc"
	"github.com/tocsin-dev/tocsin/services/collector"
)

func write(t *testing.T, name, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// Whatever is wrong, in whichever file or variable, is told in one run.
func TestUpTellsEveryMistakeInOneRun(t *testing.T) {
	rules := write(t, "rules.yaml", `groups:
- name: g
  rules:
  - {alert: A, on: endpoint, expr: jobs.in_que > 1, fro: 5m}
`)
	routes := write(t, "routes.yml", `route:
  receiver: ghost
  group_wiat: 1s
receivers:
- name: ops
  tocsin_configs: [{url: ftp://x}]
`)
	file := write(t, "tocsin.yaml", `runpod: {account: a b}
targets:
- match: '('
collector: {health_interval: 1ms}
alerter:
  rules: [`+rules+`, /nowhere/*.yaml]
  tocen: x
notifier:
  config_file: `+routes+`
  token_file: /nowhere/token
`)
	t.Setenv(collector.APIKeyVariable, "")
	t.Setenv("TOCSIN_ALERTER_SNAPSHOT_INTERVAL", "soon")
	t.Setenv("TOCSIN_NOTIFIER_GRPC_ADDRESS", "nonsense")
	var out bytes.Buffer
	err := run(t.Context(), []string{"up", "--config", file, "--data", t.TempDir()}, &out, &out)
	if !proc.IsUsage(err) {
		t.Fatalf("error %v, want one of usage", err)
	}
	want := []string{
		file + `:1:19: runpod.account: "a b" is not 1 to 63 letters, digits, - or _`,
		file + ":3:10: targets[0].match: error parsing regexp: missing closing ): `(`",
		file + `:4:30: collector.health_interval: 1ms is not between 100ms and 10m0s`,
		file + `:6:` + column(file, "/nowhere/*") + `: alerter.rules[1]: "/nowhere/*.yaml" matches no file`,
		file + `:7:3: alerter.tocen: unknown key; did you mean token?`,
		file + `:10:15: notifier.token_file: read secret: open /nowhere/token: no such file or directory`,
		`TOCSIN_ALERTER_SNAPSHOT_INTERVAL: alerter.snapshot_interval: "soon" is not a duration such as 15s, 1m30s or 7d`,
		`TOCSIN_NOTIFIER_GRPC_ADDRESS: notifier.grpc_address: "nonsense" is not an address such as 127.0.0.1:8082`,
		collector.ErrNoKey.Error(),
		rules + ":4:36: `jobs.in_que` is no field of an endpoint; did you mean `jobs.in_queue`?",
		rules + ":4:53: `fro` is no key of a rule; did you mean `for`?",
		routes + `:2:13: route: there is no receiver "ghost"`,
		routes + `:3:3: route: unknown key "group_wiat"; did you mean group_wait?`,
		routes + `:6:26: receiver "ops": tocsin_configs[0]: url: not an http or https URL`,
	}
	if diff := cmp.Diff(want, strings.Split(err.Error(), "\n")); diff != "" {
		t.Errorf("mistakes (-want +got):\n%s", diff)
	}
}

// column returns in which column of its line a text stands in a file.
func column(file, text string) string {
	all, err := os.ReadFile(file)
	if err != nil {
		return err.Error()
	}
	for line := range strings.Lines(string(all)) {
		if at := strings.Index(line, text); at >= 0 {
			return strconv.Itoa(at + 1)
		}
	}
	return "none"
}

func TestUpWithoutAKeySaysSoInOneLine(t *testing.T) {
	t.Setenv(collector.APIKeyVariable, "")
	var out bytes.Buffer
	err := run(t.Context(), []string{"up", "--data", t.TempDir()}, &out, &out)
	if !proc.IsUsage(err) || strings.Contains(err.Error(), "\n") || !strings.Contains(err.Error(), "make demo needs none") {
		t.Errorf("error %v, want one line that names the key and the demo", err)
	}
	err = run(t.Context(), []string{"up", "--config", "/nowhere/tocsin.yaml"}, &out, &out)
	if !proc.IsUsage(err) || err.Error() != "read config: open /nowhere/tocsin.yaml: no such file or directory" {
		t.Errorf("error %v, want the file that is missing", err)
	}
}

func TestADataDirectoryThatCannotBeUsedIsNamed(t *testing.T) {
	file := write(t, "file", "")
	for _, args := range [][]string{{"demo", "--data", file}, {"demo", "--data", file + "/below"}, {"up", "--data", file}} {
		t.Setenv(collector.APIKeyVariable, "key")
		var out bytes.Buffer
		err := run(t.Context(), args, &out, &out)
		if err == nil || proc.IsUsage(err) || !strings.HasPrefix(err.Error(), "the data directory "+args[2]+" cannot be used: not a directory; choose another one with --data") {
			t.Errorf("%q: %v", args, err)
		}
	}
	dir := filepath.Join(t.TempDir(), "a", "b")
	if err := makeData(dir); err != nil {
		t.Fatal(err)
	}
	left, err := os.ReadDir(dir)
	if err != nil || len(left) != 0 {
		t.Errorf("a new directory holds %v, %v", left, err)
	}
}

func TestAPersonAtATerminalIsToldWhatGoesWrong(t *testing.T) {
	if got := logDefaults(true); got != (proc.LogConfig{Level: "warn", Format: "text"}) {
		t.Errorf("a terminal gets %+v", got)
	}
	if got := logDefaults(false); got != proc.DefaultLogConfig() {
		t.Errorf("others get %+v", got)
	}
	t.Setenv(collector.APIKeyVariable, "key")
	t.Setenv("TOCSIN_LOG_LEVEL", "debug")
	c, err := load("", false, logDefaults(true))
	if err != nil || c.log != (proc.LogConfig{Level: "debug", Format: "text"}) {
		t.Errorf("with a variable: %+v, %v", c.log, err)
	}
}
