package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/tocsin-dev/tocsin/internal/proc"
)

func file(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "tocsin.yaml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestOptions(t *testing.T) {
	token, routes := file(t, "open-sesame\n"), file(t, "route: {receiver: a}\nreceivers: [{name: a}]\n")
	path := file(t, "notifier:\n  config_file: "+routes+"\n  token_file: "+token+"\n  grpc_address: 0.0.0.0:9092\nnats:\n  url: nats://a:4222\n")
	o, err := options(proc.Flags{Config: path}, []string{"TOCSIN_NATS_URL=nats://b:4222", "TOCSIN_NOTIFIER_HTTP_ADDRESS=127.0.0.1:1", "TOCSIN_NOTIFIER_MAX_JOURNAL_BYTES=123456789"})
	if err != nil {
		t.Fatal(err)
	}
	if o.ConfigFile != routes || o.Token != "open-sesame" || o.GRPCAddress != "0.0.0.0:9092" ||
		o.HTTPAddress != "127.0.0.1:1" || o.NATS.URL != "nats://b:4222" || o.MaxJournalBytes != 123456789 {
		t.Errorf("options %+v", o)
	}
}

func TestMistakesAreReportedAtOnce(t *testing.T) {
	routes := file(t, "route: {receiver: a}\nreceivers:\n- name: b\n  tocsin_configs:\n  - {url: nowhere}\n")
	path := file(t, "notifier:\n  grpc_address: 0.0.0.0:9092\n  external_url: nowhere\n  tokens: x\n  token: a\n  token_file: b\n  http_address: nonsense\n"+
		"  inhibition_hold: 2h\n  max_journal_bytes: 0\n"+
		"  config_file: "+routes+"\n")
	_, err := options(proc.Flags{Config: path}, []string{"TOCSIN_LOG_LEVEL=loud"})
	if !proc.IsUsage(err) {
		t.Fatalf("error %v, want one of usage", err)
	}
	for _, want := range []string{
		path + ":4:3: ", "unknown", "notifier.external_url: not an http or https URL",
		path + ":5:10: notifier.token: set here and by notifier.token_file", "notifier.http_address: \"nonsense\" is not an address",
		"notifier.inhibition_hold: 2h0m0s is not between", "notifier.max_journal_bytes: 0 is below the minimum of 67108864 (64 MiB)",
		routes + `:1:19: route: there is no receiver "a"`, routes + `:5:11: receiver "b": tocsin_configs[0]: url: not an http or https URL`,
		`TOCSIN_LOG_LEVEL: log.level: "loud" is none of`,
	} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("missing %q in\n%v", want, err)
		}
	}
	missing := file(t, "notifier:\n  config_file: /nowhere/routes.yml\n")
	if _, err := options(proc.Flags{Config: missing}, nil); err == nil || !strings.Contains(err.Error(), missing+":2:16: notifier.config_file: read routes: ") {
		t.Errorf("a file of routes that is missing: %v", err)
	}
	unreadable := file(t, "route: {receiver: a}\nreceivers:\n- name: a\n  webhook_configs:\n"+
		"  - {url: 'http://a', http_config: {tls_config: {ca_file: /nowhere/ca}}}\n  - {url: 'http://b', http_config: {tls_config: {ca_file: /nowhere/cb}}}\n")
	_, err = options(proc.Flags{Config: file(t, "notifier:\n  config_file: "+unreadable+"\n")}, nil)
	for _, want := range []string{unreadable + `:5:5: receiver "a": http_config: `, "/nowhere/ca", unreadable + `:6:5: receiver "a": http_config: `, "/nowhere/cb"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("missing %q in\n%v", want, err)
		}
	}
	open := file(t, "notifier:\n  grpc_address: 0.0.0.0:9092\n")
	_, err = options(proc.Flags{Config: open}, nil)
	if err == nil || !strings.Contains(err.Error(), "notifier.grpc_address: other machines could reach 0.0.0.0:9092 without a token") {
		t.Errorf("an open port without a token: %v", err)
	}
	if _, err := options(proc.Flags{Config: open, Insecure: true}, nil); err != nil {
		t.Errorf("with --insecure: %v", err)
	}
}

func TestWrongArgumentsAreUsageErrors(t *testing.T) {
	for _, args := range [][]string{{"--nope"}, {"extra"}, {"--config", filepath.Join(t.TempDir(), "missing.yaml")}} {
		if err := run(t.Context(), args); !proc.IsUsage(err) {
			t.Errorf("%q: %v, want an error of usage", args, err)
		}
	}
}
