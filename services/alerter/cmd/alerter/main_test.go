package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/tocsin-dev/tocsin/internal/proc"
)

const whole = `
runpod: {account: other-service}
nats: {url: "nats://nats:4222", user: tocsin, password: hidden1}
redis: {address: "redis:6379", user: alerter, password: hidden2, db: 3}
targets:
  - {match: "^(?P<team>\\w+)-", kind: endpoint, labels: {env: prod}, overrides: {queue: 5}}
alerter:
  rules: [/etc/tocsin/*.yaml]
  notifier: {address: "notifier:9092", token: hidden3, insecure: true}
  grpc_address: 127.0.0.1:1
  http_address: 127.0.0.1:2
  token: hidden4
  snapshot_interval: 1m
log: {level: debug}
`

func write(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "tocsin.yaml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestLoadReadsEverySection(t *testing.T) {
	t.Setenv("TOCSIN_REDIS_DB", "4")
	rules := write(t, "groups: [{name: g, rules: [{alert: A, on: endpoint, expr: jobs.in_queue > 1}]}]\n")
	o, err := load(proc.Flags{Config: write(t, strings.ReplaceAll(whole, "/etc/tocsin/*.yaml", rules))})
	if err != nil {
		t.Fatal(err)
	}
	if o.NATS.URL != "nats://nats:4222" || o.NATS.User != "tocsin" || o.NATS.Password.Reveal() != "hidden1" {
		t.Errorf("nats: %+v", o.NATS)
	}
	if o.Redis.Address != "redis:6379" || o.Redis.User != "alerter" || o.Redis.Password.Reveal() != "hidden2" || o.Redis.DB != 4 {
		t.Errorf("redis: %+v, want the environment to win", o.Redis)
	}
	if len(o.Targets) != 1 || o.Targets[0].Kind != "endpoint" || o.Targets[0].Labels["env"] != "prod" || o.Targets[0].Overrides["queue"] != 5 {
		t.Errorf("targets: %+v", o.Targets)
	}
	if o.Notifier.Address != "notifier:9092" || o.Notifier.Token.Reveal() != "hidden3" || !o.Notifier.Insecure {
		t.Errorf("notifier: %+v", o.Notifier)
	}
	if o.GRPCAddress != "127.0.0.1:1" || o.HTTPAddress != "127.0.0.1:2" || o.Token.Reveal() != "hidden4" || o.SnapshotInterval.String() != "1m0s" {
		t.Errorf("alerter: %s %s %v %v", o.GRPCAddress, o.HTTPAddress, o.Token, o.SnapshotInterval)
	}
}

func TestLoadTellsAllMistakesAtOnce(t *testing.T) {
	rules := write(t, "groups: [{name: g, rules: [{alert: A, on: endpoint, expr: jobs.in_que > 1, fro: 5m}]}]\n")
	path := write(t, `
redis: {address: "", user: alerter, db: -1}
targets:
  - match: '('
  - {match: a, kind: job}
alerter:
  rules: [`+rules+`, /nowhere/*.yaml]
  token_file: /nowhere/token
  rule: [x]
  grpc_address: anywhere
  notifier: {address: nowhere}
  snapshot_interval: 1ms
  mode: silent
`)
	_, err := load(proc.Flags{Config: path})
	if !proc.IsUsage(err) {
		t.Fatalf("got %v, want a mistake in the configuration", err)
	}
	for _, want := range []string{
		path + ":9:3: alerter.rule: unknown key; did you mean rules?", path + ":2:18: redis.address: ", path + ":2:28: redis.user: ", path + ":2:41: redis.db: ",
		path + ":10:17: alerter.grpc_address", path + ":11:23: alerter.notifier.address", path + ":12:22: alerter.snapshot_interval",
		path + `:13:9: alerter.mode: "silent" is no mode; expected normal or observe`,
		path + ":4:12: targets[0].match: error parsing regexp", path + ":5:22: targets[1].kind: ",
		path + ":8:15: alerter.token_file: ", `alerter.rules[1]: "/nowhere/*.yaml" matches no file`,
		rules + ":1:59: `jobs.in_que` is no field", rules + ":1:76: `fro` is no key",
	} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("the error does not name %s:\n%v", want, err)
		}
	}
}

func TestInsecureAllowsOpenPorts(t *testing.T) {
	path := write(t, "alerter: {grpc_address: \"0.0.0.0:9091\"}\n")
	if _, err := load(proc.Flags{Config: path, Insecure: true}); err != nil {
		t.Errorf("with --insecure: %v", err)
	}
}

func TestRunRefusesWhatItDoesNotKnow(t *testing.T) {
	for name, args := range map[string][]string{
		"an unknown flag":              {"--nonsense"},
		"an argument":                  {"start"},
		"a file that does not exist":   {"--config", "/nowhere/tocsin.yaml"},
		"rule files that do not exist": {"--config", write(t, "alerter: {rules: [/nowhere/*.yaml]}\n")},
	} {
		t.Run(name, func(t *testing.T) {
			if err := run(t.Context(), args); !proc.IsUsage(err) {
				t.Errorf("got %v, want wrong usage", err)
			}
		})
	}
}
