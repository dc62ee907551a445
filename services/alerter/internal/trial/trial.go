// Package trial serves backtests by gRPC beside the live fold, which comes first: one
// at a time, folded by one goroutine, over a connection to NATS of its own, so that
// no message for the live fold waits behind recorded ones.
package trial

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"

	"github.com/tocsin-dev/tocsin/internal/bus"
	"github.com/tocsin-dev/tocsin/internal/fault"
	"github.com/tocsin-dev/tocsin/internal/proc"
	rulev1 "github.com/tocsin-dev/tocsin/proto/gen/tocsin/rule/v1"
	"github.com/tocsin-dev/tocsin/services/alerter/backtest"
	"github.com/tocsin-dev/tocsin/services/alerter/internal/engine"
	"github.com/tocsin-dev/tocsin/services/alerter/rulefile"
)

const (
	// maxRules bounds the text of the rules of a request: a thousand rules of 1 KiB.
	maxRules = 1 << 20
	// maxTargets bounds what is held in memory beside the live state: 50,000 targets
	// at 2 KiB are 100 MiB, twice that where rules are compared.
	maxTargets = 50_000
	// maxConditions bounds what the rules of a request make of that: a course of a
	// condition has 1,024 steps of 24 bytes at most, so that these are 2.4 GB where each
	// changes with every poll for hours, and some 100 bytes each, 10 MB, where hardly any
	// does. It is room for the default rules, which ask for one of each target, with
	// 50,000 targets, compared with themselves; or for 1,000 conditions of 100 targets.
	maxConditions = 100_000
	// longest bounds a backtest, whose caller may have stopped reading: a log of 10 GiB
	// is played in a quarter of it.
	longest = 30 * time.Minute
)

// Options say what backtests work with.
type Options struct {
	// Connect opens a connection to NATS.
	Connect func(context.Context) (*bus.Conn, error)
	// LogID names the present log.
	LogID func() string
	// Configured are the rules that this replica is configured with.
	Configured func() *engine.Program
	// Targets are the patterns that it is configured with.
	Targets []rulefile.TargetPattern
	// Speed is how many times faster than the log's timestamps rules run.
	Speed float64
	// Log gets one line for each backtest.
	Log *slog.Logger
	// Registerer takes the metrics.
	Registerer prometheus.Registerer
}

// Handler serves backtests. It is safe for concurrent use.
type Handler struct {
	o       Options
	busy    chan struct{} // has a token while one runs
	results *prometheus.CounterVec
}

// New returns a handler.
func New(o Options) *Handler {
	return &Handler{o: o, busy: make(chan struct{}, 1), results: proc.Register(o.Registerer, prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "tocsin_alerter_backtests_total",
		Help: "Backtests that were asked for, by result: done, refused, failed.",
	}, []string{"result"}))}
}

// errLong ends a backtest that takes too long.
var errLong = fault.Newf(fault.Timeout, "the backtest did not end within %v, or its caller does not read", longest)

// Backtest runs one backtest.
func (h *Handler) Backtest(req *rulev1.BacktestRequest, stream grpc.ServerStreamingServer[rulev1.BacktestResponse]) error {
	select {
	case h.busy <- struct{}{}:
		defer func() { <-h.busy }()
	default:
		h.results.WithLabelValues("refused").Inc()
		return fault.New(fault.Exhausted, "another backtest runs in this alerter, which runs one at a time: wait for its end, or run yours elsewhere with `tocsin rules backtest --nats`")
	}
	o, err := h.options(req)
	if err != nil {
		h.results.WithLabelValues("refused").Inc()
		return err
	}
	ctx, cancel := context.WithTimeoutCause(stream.Context(), longest, errLong)
	defer cancel()
	began := time.Now()
	var summary *rulev1.BacktestSummary
	err = h.run(ctx, o, func(part *rulev1.BacktestResponse) error {
		if part.GetSummary() != nil {
			summary = part.GetSummary()
		}
		return send(ctx, stream, part)
	})
	if err != nil {
		h.results.WithLabelValues("failed").Inc()
		return err
	}
	h.results.WithLabelValues("done").Inc()
	h.o.Log.LogAttrs(ctx, slog.LevelInfo, "backtest done", slog.Uint64("events", summary.GetEvents()),
		slog.Int("rules", len(summary.GetRules())), slog.Duration("took", time.Since(began)))
	return nil
}

func (h *Handler) run(ctx context.Context, o backtest.Options, tell func(*rulev1.BacktestResponse) error) error {
	conn, err := h.o.Connect(ctx)
	if err != nil {
		return fault.Wrap(fault.Unavailable, fmt.Errorf("connect to NATS: %w", err))
	}
	defer conn.Close()
	o.Log = conn
	return backtest.Run(ctx, o, tell)
}

// send sends a part. A caller who does not read cannot hold it for longer than ctx:
// what is being sent then ends with the call.
func send(ctx context.Context, stream grpc.ServerStreamingServer[rulev1.BacktestResponse], part *rulev1.BacktestResponse) error {
	sent := make(chan error, 1)
	go func() { sent <- stream.Send(part) }()
	select {
	case err := <-sent:
		return err
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// options turns a request into what is run.
func (h *Handler) options(req *rulev1.BacktestRequest) (backtest.Options, error) {
	o := backtest.Options{
		LogID: h.o.LogID(), Speed: h.o.Speed, Since: req.GetSince().AsDuration(),
		Workers: 1, Gentle: true, MaxTargets: maxTargets, MaxConditions: maxConditions,
	}
	size := 0
	for _, list := range [][]*rulev1.RuleFile{req.GetFiles(), req.GetAgainst()} {
		for _, f := range list {
			size += len(f.GetText())
		}
	}
	switch {
	case size > maxRules:
		return o, fault.Newf(fault.TooLarge, "the rules have %d bytes; a request may bring %d", size, maxRules)
	case req.GetSince() != nil && (req.GetSince().CheckValid() != nil || o.Since < 0):
		return o, fault.New(fault.Invalid, "since: it is negative or no duration")
	}
	targets := h.o.Targets
	if len(req.GetTargets()) > 0 {
		targets = patterns(req.GetTargets())
	}
	rules, err := h.rules(req.GetFiles(), targets, len(req.GetTargets()) > 0)
	errs := []error{err}
	o.Rules = rules
	if len(req.GetAgainst()) > 0 {
		against, err := backtest.Compile(files(req.GetAgainst()), targets)
		errs = append(errs, err)
		o.Against = &against
	}
	return o, fault.Wrap(fault.Invalid, errors.Join(errs...))
}

// rules compiles what a request brings, or takes what is configured.
func (h *Handler) rules(list []*rulev1.RuleFile, targets []rulefile.TargetPattern, own bool) (backtest.Rules, error) {
	configured := h.o.Configured()
	switch {
	case len(list) > 0:
		return backtest.Compile(files(list), targets)
	case own:
		return backtest.Compile(configured.Set().Files, targets)
	default:
		return backtest.Compiled(configured), nil
	}
}

func files(list []*rulev1.RuleFile) map[string][]byte {
	byName := make(map[string][]byte, len(list))
	for _, f := range list {
		byName[f.GetName()] = f.GetText()
	}
	return byName
}

func patterns(list []*rulev1.TargetPattern) []rulefile.TargetPattern {
	all := make([]rulefile.TargetPattern, 0, len(list))
	for _, t := range list {
		all = append(all, rulefile.TargetPattern{Match: t.GetMatch(), Kind: t.GetKind(), Labels: t.GetLabels(), Overrides: t.GetOverrides()})
	}
	return all
}
