package proc

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"syscall"
	"testing"
)

func TestExit(t *testing.T) {
	canceled, cancel := context.WithCancel(t.Context())
	cancel()
	for name, test := range map[string]struct {
		ctx  context.Context
		err  error
		code int
		text string
	}{
		"no error is a stop as asked":                    {t.Context(), nil, 0, ""},
		"help was asked for":                             {t.Context(), flag.ErrHelp, 0, ""},
		"the end of the context is a stop as asked":      {canceled, fmt.Errorf("consume: %w", context.Canceled), 0, ""},
		"a context that ended elsewhere is a failure":    {t.Context(), fmt.Errorf("consume: %w", context.Canceled), 1, "tocsin: consume: context canceled\n"},
		"another error while stopping is a failure":      {canceled, errors.New("disk full"), 1, "tocsin: disk full\n"},
		"an error is a failure":                          {t.Context(), errors.New("connect: refused"), 1, "tocsin: connect: refused\n"},
		"a mistake in the configuration is one of usage": {t.Context(), Usage(errors.New("a.b: wrong")), 2, "tocsin: a.b: wrong\n"},
		"a wrapped mistake is one too":                   {t.Context(), fmt.Errorf("start: %w", Usage(errors.New("x"))), 2, "tocsin: start: x\n"},
		"a mistake while stopping is still one":          {canceled, Usage(context.Canceled), 2, "tocsin: context canceled\n"},
		"every mistake has its line":                     {t.Context(), Usage(errors.Join(errors.New("a"), errors.New("b"))), 2, "tocsin: a\ntocsin: b\n"},
		"no mistakes are none":                           {t.Context(), Usage(errors.Join()), 0, ""},
	} {
		var stderr bytes.Buffer
		code := exit(test.ctx, "tocsin", &stderr, test.err)
		if code != test.code || stderr.String() != test.text {
			t.Errorf("%s: code %d, %q", name, code, stderr.String())
		}
	}
}

// TestMainStopsOnASignal starts itself as a process, since Main owns signals and
// standard error.
func TestMainStopsOnASignal(t *testing.T) {
	if os.Getenv("TOCSIN_TEST_MAIN") != "" {
		os.Exit(Main("child", func(ctx context.Context, args []string) error {
			fmt.Fprintln(os.Stdout, "running", len(args))
			<-ctx.Done()
			return ctx.Err()
		}))
	}
	child := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestMainStopsOnASignal$")
	child.Env = append(os.Environ(), "TOCSIN_TEST_MAIN=1")
	var stderr bytes.Buffer
	child.Stderr = &stderr
	stdout, err := child.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	line := make([]byte, len("running 1"))
	if _, err := stdout.Read(line); err != nil || string(line) != "running 1" {
		t.Fatalf("child said %q, %v; %s", line, err, stderr.String())
	}
	if err := child.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := child.Wait(); err != nil || stderr.Len() > 0 {
		t.Errorf("after SIGTERM: %v, %q", err, stderr.String())
	}
}
