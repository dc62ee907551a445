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
	if err := os.WriteFile(file, []byte("collector:\n  nonsense: 1\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, test := range map[string]struct {
		args []string
		want string
	}{
		"no key":               {nil, "RUNPOD_API_KEY"},
		"an unknown key":       {[]string{"--config", file}, "tocsin.yaml:2:3"},
		"a file that is not":   {[]string{"--config", file + "x"}, "no such file"},
		"an unknown flag":      {[]string{"--nonsense"}, "nonsense"},
		"an argument too many": {[]string{"run"}, `"run"`},
	} {
		err := run(t.Context(), test.args)
		if !proc.IsUsage(err) || !strings.Contains(err.Error(), test.want) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: error is %v, want one line of usage with %q", name, err, test.want)
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
