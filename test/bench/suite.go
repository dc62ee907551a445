package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/tocsin-dev/tocsin/test/bench/internal/report"
	"github.com/tocsin-dev/tocsin/test/bench/internal/rig"
)

// benchmark is one of the things that are measured.
type benchmark struct {
	name, about string
	run         func(context.Context, *suite) error
}

// benchmarks are all there are, in the order in which they run.
var benchmarks = []benchmark{
	{"latency", "from a fact that is published to the webhook that arrives", latency},
	{"throughput", "events through the default rules, with commits to Redis", throughput},
	{"webhooks", "distinct alerts from gRPC to webhooks", webhooks},
	{"replay", "Redis emptied: snapshots, then the log after them", replay},
	{"backtest", "a recorded log through the default rules, without Redis", replayed},
	{"takeover", "an alerter killed under load: another takes its partitions over", takeover},
	{"memory", "what a target costs in the alerter and in Redis", memory},
	{"polling", "what a collector costs that polls many endpoints", polling},
}

func names() []string {
	var all []string
	for _, b := range benchmarks {
		all = append(all, b.name)
	}
	return all
}

// suite is a run of some benchmarks.
type suite struct {
	sizes    sizes
	syncs    []bool
	data     string
	profiles string
	nats     string // the nats-server to run
	report   *report.Report
	progress *progress

	current string // the name of the benchmark that runs
}

func newSuite(ctx context.Context, f *flags, p *progress) (*suite, error) {
	syncs, err := f.syncs()
	if err != nil {
		return nil, err
	}
	data, err := filepath.Abs(f.data)
	if err != nil {
		return nil, fmt.Errorf("find the directory for data: %w", err)
	}
	if err := os.MkdirAll(data, 0o750); err != nil {
		return nil, fmt.Errorf("make the directory for data: %w", err)
	}
	s := &suite{
		sizes: f.sizes, syncs: syncs, data: data, profiles: f.profiles, progress: p,
		report: &report.Report{Format: report.Format, At: time.Now(), Machine: machine(), Settings: f.sizes.settings()},
	}
	if s.report.Machine.Redis, err = rig.RedisVersion(ctx); err != nil {
		return nil, err
	}
	p.begin("", "building nats-server")
	s.nats = filepath.Join(data, "nats-server")
	if s.report.Machine.NATS, err = rig.BuildNATS(ctx, s.nats); err != nil {
		return nil, err
	}
	return s, nil
}

// runAll runs benchmarks one after the other. One that fails does not keep the
// others from running, but for the end of ctx.
func (s *suite) runAll(ctx context.Context, chosen []benchmark) error {
	var errs []error
	for _, b := range chosen {
		s.current = b.name
		s.progress.begin(b.name, b.about)
		before, known := rig.Look()
		if err := b.run(ctx, s); err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", b.name, err))
		}
		l := report.Load{Benchmark: b.name}
		if after, ok := rig.Look(); ok && known {
			l.Average, l.Others = &before.Load, new(rig.Others(before, after))
		}
		s.report.Loads = append(s.report.Loads, l)
		if ctx.Err() != nil {
			break
		}
	}
	s.progress.end()
	return errors.Join(errs...)
}

// add adds a figure of the benchmark that runs.
func (s *suite) add(setting string, f report.Figure) {
	f.Benchmark, f.Setting = s.current, setting
	s.report.Add(f)
}

func syncName(always bool) string {
	if always {
		return "sync always"
	}
	return "sync default"
}

// progress tells what is going on: on a terminal in one line, elsewhere in one
// line for each step.
type progress struct {
	w        io.Writer
	terminal bool
	began    time.Time
	what     string
	told     time.Time
}

// tellEvery keeps a terminal readable.
const tellEvery = 200 * time.Millisecond

func newProgress(w io.Writer) *progress {
	p := &progress{w: w, began: time.Now()}
	if f, ok := w.(*os.File); ok {
		info, err := f.Stat()
		p.terminal = err == nil && info.Mode()&os.ModeCharDevice != 0
	}
	return p
}

// begin tells a benchmark's name and what it is about.
func (p *progress) begin(name, about string) {
	p.clear()
	if name != "" {
		about = name + ": " + about
	}
	fmt.Fprintf(p.w, "[%4.0f s] %s\n", time.Since(p.began).Seconds(), about)
}

// step tells what happens now.
func (p *progress) step(format string, args ...any) {
	p.what = fmt.Sprintf(format, args...)
	if p.terminal {
		p.line(p.what)
		return
	}
	fmt.Fprintf(p.w, "[%4.0f s]   %s\n", time.Since(p.began).Seconds(), p.what)
}

// done tells how far the step is; it is shown on terminals only.
func (p *progress) done(part, whole float64) {
	if !p.terminal || time.Since(p.told) < tellEvery {
		return
	}
	p.told = time.Now()
	p.line(fmt.Sprintf("%s: %.0f of %.0f", p.what, part, whole))
}

func (p *progress) line(text string) {
	// The code erases the rest of the line.
	fmt.Fprintf(p.w, "\r[%4.0f s]   %s\x1b[K", time.Since(p.began).Seconds(), text)
}

func (p *progress) clear() {
	if p.terminal {
		fmt.Fprint(p.w, "\r\x1b[K")
	}
}

func (p *progress) end() { p.clear() }
