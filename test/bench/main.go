// Command bench measures Tocsin as a whole: real processes of its services on a
// real NATS and a real Redis, from facts that are published to webhooks that
// arrive.
//
// It prints a table with the goal beside each figure and, where there is one,
// what the parts below give by themselves in the same run; and it writes the
// figures as JSON, with which a later run can be compared. What it says of speed
// holds for the machine it ran on and for nothing else that ran there. It fails
// when an alert is lost or invented, and never for being slow.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/tocsin-dev/tocsin/internal/proc"
	"github.com/tocsin-dev/tocsin/test/bench/internal/report"
	"github.com/tocsin-dev/tocsin/test/bench/internal/rig"
)

func main() {
	if len(os.Args) == 3 && os.Args[1] == rig.ServeArgument {
		os.Exit(rig.Main(os.Args[2]))
	}
	os.Exit(proc.Main("bench", func(ctx context.Context, args []string) error { return run(ctx, args, os.Stdout, os.Stderr) }))
}

// errLost is what the program ends with when an alert was lost or invented.
var errLost = errors.New("alerts were lost or invented: see WRONG in the table")

// flags are what a person can ask for.
type flags struct {
	sizes         sizes
	only          string
	sync          string
	json, compare string
	profiles      string
	data          string
}

func parse(args []string, stderr io.Writer) (f flags, err error) {
	f.sizes = usual
	set := flag.NewFlagSet("bench", flag.ContinueOnError)
	set.SetOutput(stderr)
	set.StringVar(&f.only, "only", "", "run only these, separated by commas: "+strings.Join(names(), ", "))
	set.StringVar(&f.sync, "sync", "default,always", "how NATS writes to the disk: default, always, or both")
	set.StringVar(&f.json, "json", ".tmp/bench.json", "where to write the figures as JSON; empty writes none")
	set.StringVar(&f.compare, "compare", "", "JSON of an earlier run to show beside this one")
	set.StringVar(&f.profiles, "profile", "", "directory for profiles (pprof) of NATS and of each service")
	set.StringVar(&f.data, "data", ".tmp/bench-data", "where NATS and Redis keep their data meanwhile: on the disk that is meant")
	f.sizes.register(set)
	if err := set.Parse(args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			return f, err
		}
		return f, proc.Usage(err)
	}
	return f, proc.Usage(errors.Join(f.mistakes(set.Args())...))
}

func (f *flags) mistakes(rest []string) []error {
	var errs []error
	if len(rest) > 0 {
		errs = append(errs, fmt.Errorf("arguments that are no flags: %s", strings.Join(rest, " ")))
	}
	if _, err := f.chosen(); err != nil {
		errs = append(errs, err)
	}
	if _, err := f.syncs(); err != nil {
		errs = append(errs, err)
	}
	return append(errs, f.sizes.validate())
}

// chosen returns the benchmarks to run, in their order.
func (f *flags) chosen() ([]benchmark, error) {
	if f.only == "" {
		return benchmarks, nil
	}
	var chosen []benchmark
	var errs []error
	asked := strings.Split(f.only, ",")
	for _, name := range asked {
		if !slices.Contains(names(), name) {
			errs = append(errs, fmt.Errorf("-only: there is no benchmark %q; there are %s", name, strings.Join(names(), ", ")))
		}
	}
	for _, b := range benchmarks {
		if slices.Contains(asked, b.name) {
			chosen = append(chosen, b)
		}
	}
	return chosen, errors.Join(errs...)
}

// syncs returns for each way of NATS to write whether it is "always".
func (f *flags) syncs() ([]bool, error) {
	var all []bool
	for s := range strings.SplitSeq(f.sync, ",") {
		switch s {
		case "default":
			all = append(all, false)
		case "always":
			all = append(all, true)
		default:
			return nil, fmt.Errorf("-sync: %q is neither default nor always", s)
		}
	}
	return all, nil
}

func run(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	f, err := parse(args, stderr)
	if err != nil {
		return err
	}
	var before *report.Report
	if f.compare != "" {
		// First of all: a wrong name should not cost the minutes of a run.
		if before, err = report.Read(f.compare); err != nil {
			return proc.Usage(err)
		}
	}
	for _, dir := range []string{f.data, f.profiles, filepath.Dir(f.json)} {
		if err := os.MkdirAll(dir, 0o750); dir != "" && err != nil {
			return fmt.Errorf("make a directory: %w", err)
		}
	}
	chosen, err := f.chosen()
	if err != nil {
		return err
	}
	if f.profiles, err = absolute(f.profiles); err != nil {
		return err
	}
	s, err := newSuite(ctx, &f, newProgress(stderr))
	if err != nil {
		return err
	}
	fmt.Fprintf(stderr, "%d benchmarks; to run one: make bench ONLY=%s (%s)\n", len(chosen), chosen[0].name, strings.Join(names(), ", "))
	failed := s.runAll(ctx, chosen)
	if len(s.report.Figures) == 0 {
		return failed
	}
	return errors.Join(failed, s.tell(stdout, before, f.json))
}

// absolute returns the whole path of a directory; none stays none.
func absolute(dir string) (string, error) {
	if dir == "" {
		return "", nil
	}
	whole, err := filepath.Abs(dir)
	if err != nil {
		return "", fmt.Errorf("find %s: %w", dir, err)
	}
	return whole, nil
}

// tell prints and writes what was measured.
func (s *suite) tell(stdout io.Writer, before *report.Report, file string) error {
	s.report.Took = time.Since(s.report.At).Seconds()
	fmt.Fprintln(stdout)
	if err := s.report.Table(stdout); err != nil {
		return err
	}
	if before != nil {
		fmt.Fprintln(stdout)
		if err := s.report.Compare(stdout, before); err != nil {
			return err
		}
	}
	if file != "" {
		if err := s.write(file); err != nil {
			return err
		}
		fmt.Fprintf(stdout, "figures: %s (make bench COMPARE=%s shows the next run beside them)\n", file, file)
	}
	if s.report.Lost() > 0 {
		return errLost
	}
	return nil
}

func (s *suite) write(file string) error {
	out, err := os.Create(file)
	if err != nil {
		return fmt.Errorf("write the figures: %w", err)
	}
	if err := s.report.Write(out); err != nil {
		out.Close()
		return err
	}
	if err := out.Close(); err != nil {
		return fmt.Errorf("write the figures: %w", err)
	}
	return nil
}
