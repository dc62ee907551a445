// Package reload reads rule files anew while the alerter runs: when they change,
// when the process is told to (SIGHUP), and when somebody asks by gRPC. Files are
// checked first and refused whole if they are wrong.
package reload

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"maps"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/tocsin-dev/tocsin/internal/fault"
	"github.com/tocsin-dev/tocsin/internal/proc"
	"github.com/tocsin-dev/tocsin/services/alerter/internal/engine"
)

// watchEvery is how often the files are read to see whether they changed. They are
// read rather than watched: editors, git and Kubernetes put new files in place in
// too many ways to follow. A hundred files of 1 KiB cost a millisecond.
const watchEvery = 5 * time.Second

// Options say what is reloaded.
type Options struct {
	// Read returns the content of the rule files by name.
	Read func() (map[string][]byte, error)
	// Compile checks and compiles them. Its error names every mistake.
	Compile func(map[string][]byte) (*engine.Program, error)
	// Bring brings rules into force, unless they are.
	Bring func(*engine.Program)
	// Hangup asks for a reload each time that it has a value; nil never does.
	Hangup <-chan struct{}
	// Log gets one line for each reload.
	Log *slog.Logger
	// Registerer takes the metrics.
	Registerer prometheus.Registerer
}

// Reloader reloads rule files. It is safe for concurrent use.
type Reloader struct {
	o       Options
	results *prometheus.CounterVec
	good    prometheus.Gauge
	at      prometheus.Gauge

	mu      sync.Mutex
	program *engine.Program   // guarded by mu; what was brought into force last
	files   map[string][]byte // guarded by mu; what was tried last; nil after files that could not be read
}

// New returns a reloader of files that were read and brought into force before.
func New(o Options, files map[string][]byte, program *engine.Program) *Reloader {
	r := &Reloader{
		o: o, files: files, program: program,
		results: proc.Register(o.Registerer, prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "tocsin_alerter_rule_reloads_total",
			Help: "Attempts to read the rule files anew, by result: changed, unchanged, refused.",
		}, []string{"result"})),
		good: proc.Register(o.Registerer, prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "tocsin_alerter_rule_reload_successful",
			Help: "1 if the rule files, as they were read last, are in force; 0 if they were refused.",
		})),
		at: proc.Register(o.Registerer, prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "tocsin_alerter_rule_reload_success_timestamp_seconds",
			Help: "When rule files were last read and found good.",
		})),
	}
	r.good.Set(1)
	r.at.SetToCurrentTime()
	return r
}

// Result is what a reload brought.
type Result struct {
	// Program is in force now, or will be within moments.
	Program *engine.Program
	// Changed is false when the files say what this replica read before.
	Changed bool
}

// Reload reads the files and brings them into force. Its error is of kind
// [fault.Invalid] when they are wrong or cannot be read; nothing changes then.
func (r *Reloader) Reload(ctx context.Context, cause string) (Result, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	files, err := r.o.Read()
	if err != nil {
		r.files = nil
		return Result{}, r.refused(ctx, cause, err)
	}
	result, err := r.try(ctx, cause, files)
	if err == nil && !result.Changed {
		// Another replica may have brought other files into force: who asks wants these.
		r.o.Bring(result.Program)
	}
	return result, err
}

// try brings files into force if they are good.
func (r *Reloader) try(ctx context.Context, cause string, files map[string][]byte) (Result, error) {
	r.files = files
	program, err := r.o.Compile(files)
	if err != nil {
		return Result{}, r.refused(ctx, cause, err)
	}
	r.good.Set(1)
	r.at.SetToCurrentTime()
	if program.Hash() == r.program.Hash() {
		r.results.WithLabelValues("unchanged").Inc()
		r.o.Log.LogAttrs(ctx, slog.LevelInfo, "rule files did not change", slog.String("cause", cause))
		return Result{Program: r.program}, nil
	}
	r.results.WithLabelValues("changed").Inc()
	r.o.Log.LogAttrs(ctx, slog.LevelInfo, "rule files reloaded", slog.String("cause", cause),
		slog.String("rule_set", program.Hash()), slog.Int("rules", len(program.Set().Rules())))
	r.program = program
	r.o.Bring(program)
	return Result{Program: program, Changed: true}, nil
}

// refused tells that files are not taken, and returns why.
func (r *Reloader) refused(ctx context.Context, cause string, err error) error {
	r.good.Set(0)
	r.results.WithLabelValues("refused").Inc()
	r.o.Log.LogAttrs(ctx, slog.LevelError, "rule files refused; the rules in force stay", slog.String("cause", cause), slog.Any("err", err))
	return fault.Wrap(fault.Invalid, fmt.Errorf("rule files refused; the rules in force stay: %w", err))
}

// Run watches the files and the hangup channel until ctx ends, and returns its
// error. Files that change are taken when they are the same in two looks, so that
// none is taken half written, and tried once.
func (r *Reloader) Run(ctx context.Context) error {
	tick := time.NewTicker(watchEvery)
	defer tick.Stop()
	var before look
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-r.o.Hangup:
			_, _ = r.Reload(ctx, "SIGHUP") // told by its log and metrics
		case <-tick.C:
			before = r.look(ctx, before)
		}
	}
}

// look is what was seen of the files.
type look struct {
	files map[string][]byte
	err   error
}

// look reads the files and tries them if they changed and are as they were at the
// look before. It returns what they are now.
func (r *Reloader) look(ctx context.Context, before look) look {
	r.mu.Lock()
	defer r.mu.Unlock()
	var now look
	now.files, now.err = r.o.Read()
	switch {
	case now.err != nil && before.err != nil && r.files != nil:
		r.files = nil
		_ = r.refused(ctx, causeChange, now.err) // told by its log and metrics
	case now.err == nil && before.err == nil && same(now.files, before.files) && !same(now.files, r.files):
		_, _ = r.try(ctx, causeChange, now.files) // the same
	}
	return now
}

// causeChange is the cause of a reload that nobody asked for.
const causeChange = "changed files"

// same says that two looks saw the same files; nil is nothing that was seen.
func same(a, b map[string][]byte) bool {
	return a != nil && b != nil && maps.EqualFunc(a, b, bytes.Equal)
}
