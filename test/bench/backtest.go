package main

import (
	"context"
	"fmt"
	"runtime"
	"syscall"
	"time"

	"github.com/tocsin-dev/tocsin/internal/bus"
	rulev1 "github.com/tocsin-dev/tocsin/proto/gen/tocsin/rule/v1"
	"github.com/tocsin-dev/tocsin/rules"
	"github.com/tocsin-dev/tocsin/services/alerter/backtest"
	"github.com/tocsin-dev/tocsin/test/bench/internal/facts"
	"github.com/tocsin-dev/tocsin/test/bench/internal/report"
)

// replayed measures how fast a recorded log is played through the default rules
// without Redis, as `tocsin rules backtest --nats` does, beside an ordered consumer
// that does nothing with the same messages.
func replayed(ctx context.Context, s *suite) (err error) {
	w, err := s.world(ctx, false, false, s.current)
	if err != nil {
		return err
	}
	defer func() { err = w.end(err) }()
	fleet := facts.Fleet{Targets: s.sizes.targets}
	if err := fleet.Discover(ctx, w.conn); err != nil {
		return err
	}
	log, err := w.fill(ctx, fleet, s.sizes.rounds)
	if err != nil {
		return err
	}
	s.progress.step("reading %d messages with an ordered consumer", log.events)
	ordered, err := w.readOrdered(ctx, log)
	if err != nil {
		return err
	}
	compiled, err := backtest.Compile(rules.Default(), nil)
	if err != nil {
		return fmt.Errorf("compile the default rules: %w", err)
	}
	for _, workers := range []int{runtime.GOMAXPROCS(0), 1} {
		s.progress.step("playing %d messages with %d workers", log.last, workers)
		if err := s.backtest(ctx, w, backtest.Options{Rules: compiled, Workers: workers}, ordered); err != nil {
			return err
		}
	}
	return nil
}

// backtest plays the log once.
func (s *suite) backtest(ctx context.Context, w *world, o backtest.Options, ordered float64) error {
	conn, err := bus.Connect(ctx, bus.Options{URL: w.NATS.URL(), Name: "bench-backtest"})
	if err != nil {
		return err
	}
	defer conn.Close()
	o.Log = conn
	var summary *rulev1.BacktestSummary
	began, before, nats := time.Now(), ownCPU(), w.Usage()["nats"].CPU
	err = backtest.Run(ctx, o, func(part *rulev1.BacktestResponse) error {
		if p := part.GetProgress(); p != nil {
			s.progress.done(float64(p.GetRead()), float64(p.GetTotal()))
		}
		if part.GetSummary() != nil {
			summary = part.GetSummary()
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("play the log: %w", err)
	}
	took, cpu, natsCPU := time.Since(began), ownCPU()-before, w.Usage()["nats"].CPU-nats
	events := float64(summary.GetEvents())
	setting := fmt.Sprintf("%d facts of %d targets, %d workers", summary.GetEvents(), summary.GetTargets(), o.Workers)
	perSecond := events / took.Seconds()
	s.add(setting, report.Figure{
		Name: "backtest events", Value: perSecond, Unit: report.PerSecond, Raw: &ordered, RawName: "ordered consumer",
		Note: fmt.Sprintf("%d rules", len(summary.GetRules())),
	})
	s.add(setting, report.Figure{
		Name: "backtest events of a core", Value: events / cpu.Seconds(), Unit: report.PerSecond, Goal: new(200_000.0),
		Note: "by the processor time of the process that plays, which reads too",
	})
	s.add(setting, report.Figure{Name: "of an ordered consumer", Value: perSecond / ordered, Unit: report.Ratio})
	perEvent := func(d time.Duration) float64 { return float64(d) / float64(time.Microsecond) / events }
	s.add(setting, report.Figure{Name: "cpu of the backtest per event", Value: perEvent(cpu), Unit: report.Microseconds})
	s.add(setting, report.Figure{Name: "cpu of nats per event", Value: perEvent(natsCPU), Unit: report.Microseconds})
	return nil
}

// ownCPU returns the processor time that this process has used.
func ownCPU() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
