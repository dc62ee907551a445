package main

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/tocsin-dev/tocsin/internal/proc"
)

func TestUsage(t *testing.T) {
	t.Setenv("RUNPOD_API_KEY", "")
	file := filepath.Join(t.TempDir(), "tocsin.yaml")
	if err := os.WriteFile(file, []byte("runpod: {api_key: 'a b', rest_url: ftp://x}\ncollector:\n  nonsense: 1\n  webhook_secret_file: /nowhere/s\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, test := range map[string]struct {
		args []string
		want []string // a line each
	}{
		"no key": {nil, []string{"RUNPOD_API_KEY"}},
		"every mistake": {[]string{"--config", file}, []string{
			"tocsin.yaml:1:19: runpod.api_key: holds characters", "tocsin.yaml:1:36: runpod.rest_url: must begin with",
			"tocsin.yaml:3:3: collector.nonsense: unknown key", "tocsin.yaml:4:24: collector.webhook_secret_file: ",
		}},
		"a file that is not":   {[]string{"--config", file + "x"}, []string{"no such file"}},
		"an unknown flag":      {[]string{"--nonsense"}, []string{"nonsense"}},
		"an argument too many": {[]string{"run"}, []string{`"run"`}},
	} {
		err := run(t.Context(), test.args)
		if !proc.IsUsage(err) {
			t.Errorf("%s: error is %v, want one of usage", name, err)
			continue
		}
		lines := strings.Split(err.Error(), "\n")
		for i, want := range test.want {
			if len(lines) != len(test.want) || !strings.Contains(lines[i], want) {
				t.Errorf("%s: the error is\n%v\nwant %d lines, %q in line %d", name, err, len(test.want), want, i+1)
			}
		}
	}
}

func TestVersionAndHelpAreNoErrors(t *testing.T) {
	if err := run(context.Background(), []string{"--version"}); err != nil {
		t.Error(err)
	}
	if err := run(context.Background(), []string{"--help"}); err != nil {
		t.Error(err)
	}
}
