package main

import (
	"bytes"
	"context"
	"errors"
	"os"
	"strings"
	"sync"
	"testing"

	"github.com/tocsin-dev/tocsin/internal/proc"
	"github.com/tocsin-dev/tocsin/test/bench/internal/report"
	"github.com/tocsin-dev/tocsin/test/bench/internal/rig"
)

func TestMain(m *testing.M) {
	if len(os.Args) == 3 && os.Args[1] == rig.ServeArgument {
		os.Exit(rig.Main(os.Args[2]))
	}
	code := m.Run()
	if dir, err := built(); err == nil {
		_ = os.RemoveAll(dir) // the system clears what is left
	}
	os.Exit(code)
}

// BenchmarkTiny runs each benchmark so small that its figures mean nothing: it
// shows that everything works, that nothing is lost, and that what is written is
// read. make bench measures.
func BenchmarkTiny(b *testing.B) {
	for _, each := range benchmarks {
		b.Run(each.name, func(b *testing.B) {
			for b.Loop() {
				runTiny(b, each)
			}
		})
	}
}

// built is a directory in which one nats-server is built for all benchmarks.
var built = sync.OnceValues(func() (string, error) { return os.MkdirTemp("", "tocsin-bench") })

func runTiny(b *testing.B, each benchmark) {
	b.Helper()
	dir, err := built()
	if err != nil {
		b.Fatal(err)
	}
	var log bytes.Buffer
	f := flags{sizes: tiny, sync: "always", data: dir}
	s, err := newSuite(b.Context(), &f, newProgress(&log))
	if err != nil {
		b.Fatal(err)
	}
	if err := s.runAll(b.Context(), []benchmark{each}); err != nil {
		b.Fatalf("%v\n%s", err, log.String())
	}
	var table bytes.Buffer
	file := dir + "/bench.json"
	if err := s.tell(&table, nil, file); err != nil {
		b.Fatalf("%v\n%s%s", err, log.String(), table.String())
	}
	if len(s.report.Figures) == 0 {
		b.Errorf("it measured nothing:\n%s", log.String())
	}
}

func TestMistakesAreToldAtOnce(t *testing.T) {
	err := run(t.Context(), []string{"-only", "latency,speed", "-sync", "sometimes", "-rates", "fast", "-targets", "1", "-rounds", "0", "more"}, nil, nil)
	if !proc.IsUsage(err) {
		t.Fatalf("it ended with %v, want a mistake in its arguments", err)
	}
	for _, mistake := range []string{
		`no benchmark "speed"`, `"sometimes" is neither`, `-rates: "fast"`, "-targets: 1 targets", "-rounds: 0", "no flags: more",
	} {
		if !strings.Contains(err.Error(), mistake) {
			t.Errorf("%q is not told: %v", mistake, err)
		}
	}
}

func TestAWrongFileToCompareWithCostsNoRun(t *testing.T) {
	err := run(t.Context(), []string{"-compare", t.TempDir() + "/absent.json"}, nil, nil)
	if !proc.IsUsage(err) || !errors.Is(err, os.ErrNotExist) {
		t.Errorf("it ended with %v, want a file that does not exist", err)
	}
}

func TestBenchmarksRunInTheirOrderWhateverIsAsked(t *testing.T) {
	f := flags{only: "replay,latency"}
	chosen, err := f.chosen()
	if err != nil || len(chosen) != 2 || chosen[0].name != "latency" || chosen[1].name != "replay" {
		t.Errorf("chosen are %v, %v; want latency and replay", chosen, err)
	}
}

func TestOneThatFailsDoesNotKeepTheOthersFromRunning(t *testing.T) {
	broken := errors.New("broken")
	var ran []string
	s := &suite{report: &report.Report{}, progress: newProgress(&bytes.Buffer{})}
	err := s.runAll(t.Context(), []benchmark{
		{"a", "", func(context.Context, *suite) error { ran = append(ran, "a"); return broken }},
		{"b", "", func(context.Context, *suite) error { ran = append(ran, "b"); return nil }},
	})
	if !errors.Is(err, broken) || len(ran) != 2 {
		t.Errorf("%v ran, and the outcome is %v; want both, and that one is broken", ran, err)
	}
}
