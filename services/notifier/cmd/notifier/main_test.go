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
	token := file(t, "open-sesame\n")
	path := file(t, "notifier:\n  config_file: routes.yml\n  token_file: "+token+"\n  grpc_address: 0.0.0.0:9092\nnats:\n  url: nats://a:4222\n")
	o, err := options(path, false, []string{"TOCSIN_NATS_URL=nats://b:4222", "TOCSIN_NOTIFIER_HTTP_ADDRESS=127.0.0.1:1"})
	if err != nil {
		t.Fatal(err)
	}
	if o.ConfigFile != "routes.yml" || o.Token != "open-sesame" || o.GRPCAddress != "0.0.0.0:9092" ||
		o.HTTPAddress != "127.0.0.1:1" || o.NATS.URL != "nats://b:4222" {
		t.Errorf("options %+v", o)
	}
}

func TestMistakesAreReportedAtOnce(t *testing.T) {
	path := file(t, "notifier:\n  grpc_address: 0.0.0.0:9092\n  external_url: nowhere\n  tokens: x\n  token: a\n  token_file: b\n  http_address: nonsense\n")
	_, err := options(path, false, nil)
	if !proc.IsUsage(err) {
		t.Fatalf("error %v, want one of usage", err)
	}
	for _, want := range []string{
		path + ":4:3: ", "unknown", "notifier.external_url: not an http or https URL",
		"notifier.token: it and token_file are both set", "notifier.http_address: \"nonsense\" is not an address",
	} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("missing %q in\n%v", want, err)
		}
	}
	open := file(t, "notifier:\n  grpc_address: 0.0.0.0:9092\n")
	_, err = options(open, false, nil)
	if err == nil || !strings.Contains(err.Error(), "notifier.grpc_address: other machines could reach 0.0.0.0:9092 without a token") {
		t.Errorf("an open port without a token: %v", err)
	}
	if _, err := options(open, true, nil); err != nil {
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
