package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/tocsin-dev/tocsin/internal/bus"
	"github.com/tocsin-dev/tocsin/test/bench/internal/durable"
	"github.com/tocsin-dev/tocsin/test/bench/internal/facts"
	"github.com/tocsin-dev/tocsin/test/bench/internal/report"
)

// throughput measures how fast an alerter goes through a log: it is read, folded
// by the default rules, committed to Redis, and what fires is told. The same
// messages are read before by an ordered consumer without a filter and by a
// durable pull consumer, with nothing done to them.
//
// The facts are published as fast as NATS takes them, so that they are seconds
// apart by its timestamps, where in life it would be minutes: windows hold what
// was polled since the start, as those of a fleet do that is watched since as
// many polls.
func throughput(ctx context.Context, s *suite) error {
	for _, always := range s.syncs {
		if err := s.throughputOn(ctx, always); err != nil {
			return fmt.Errorf("%s: %w", syncName(always), err)
		}
	}
	return nil
}

func (s *suite) throughputOn(ctx context.Context, always bool) (err error) {
	w, err := s.world(ctx, always, false, s.current)
	if err != nil {
		return err
	}
	defer func() { err = w.end(err) }()
	fleet := facts.Fleet{Targets: s.sizes.targets}
	a, err := w.known(ctx, fleet)
	if err != nil {
		return err
	}
	if err := a.stop(); err != nil {
		return err
	}
	log, err := w.fill(ctx, fleet, s.sizes.rounds)
	if err != nil {
		return err
	}
	s.progress.step("%s: reading %d messages with an ordered consumer", syncName(always), log.events)
	ordered, err := w.readOrdered(ctx, log)
	if err != nil {
		return err
	}
	s.progress.step("%s: reading %d messages with a durable pull consumer", syncName(always), log.last)
	took, err := durable.Read(ctx, w.NATS.URL(), bus.EventsStream, int(log.last))
	if err != nil {
		return err
	}
	pulled := float64(log.last) / took.Seconds()

	s.progress.step("%s: the alerter applies %d messages", syncName(always), log.events)
	if a, err = w.alerter(ctx, "alerter", nil); err != nil {
		return err
	}
	stop, err := w.Profile(ctx, profileFor, a.Service)
	if err != nil {
		return err
	}
	work, err := w.follow(ctx, a, log.last, log.events)
	if err != nil {
		return err
	}
	if err := stop(); err != nil {
		return err
	}
	m, err := a.Metrics(ctx)
	if err != nil {
		return err
	}
	setting := fmt.Sprintf("%d facts of %d targets, %s", log.events, fleet.Targets, syncName(always))
	s.add(setting, report.Figure{
		Name: "events", Value: work.perSecond, Unit: report.PerSecond, Goal: new(25_000.0), Raw: &pulled, RawName: "durable pull consumer",
		Note: fmt.Sprintf("%.0f commits, %.0f transitions", m.Sum("tocsin_alerter_commits_total"), m.Sum("tocsin_alerter_transitions_total")),
	})
	s.add(setting, report.Figure{Name: "of a durable pull consumer", Value: work.perSecond / pulled, Unit: report.Ratio, Goal: new(0.5)})
	s.add(setting, report.Figure{Name: "of an ordered consumer", Value: work.perSecond / ordered, Unit: report.Ratio})
	s.add(setting, report.Figure{Name: "durable pull consumer alone", Value: pulled, Unit: report.PerSecond})
	s.add(setting, report.Figure{Name: "ordered consumer alone", Value: ordered, Unit: report.PerSecond})
	s.addCPU(setting, work.cpu, "event")
	return nil
}

// profileFor is how long NATS is watched while an alerter goes through a log.
const profileFor = 5 * time.Second

func (s *suite) addCPU(setting string, cpu map[string]time.Duration, unit string) {
	for _, name := range []string{"nats", "redis", "alerter"} {
		s.add(setting, report.Figure{
			Name: "cpu of " + name + " per " + unit, Value: float64(cpu[name]) / float64(time.Microsecond), Unit: report.Microseconds,
		})
	}
}

// known starts an alerter that has its rules in force, and makes a fleet known
// to it.
func (w *world) known(ctx context.Context, fleet facts.Fleet) (*alerter, error) {
	a, err := w.alerter(ctx, "alerter", nil)
	if err != nil {
		return nil, err
	}
	if err := w.settle(ctx, a); err != nil {
		return nil, err
	}
	w.suite.progress.step("%d targets are made known", fleet.Targets)
	if err := fleet.Discover(ctx, w.conn); err != nil {
		return nil, err
	}
	return a, w.settle(ctx, a)
}

// stretch is a part of the event log.
type stretch struct {
	// first and last are the sequences of its ends.
	first, last uint64
	// events is how many messages it holds.
	events int
}

// fill publishes rounds of polls, and returns where they are.
func (w *world) fill(ctx context.Context, fleet facts.Fleet, rounds int) (stretch, error) {
	before, err := w.last(ctx)
	if err != nil {
		return stretch{}, err
	}
	all := rounds * fleet.Events()
	w.suite.progress.step("publishing %d facts", all)
	stored := make(chan int, 64)
	done := make(chan struct{})
	go func() {
		defer close(done)
		sum := 0
		for n := range stored {
			sum += n
			w.suite.progress.done(float64(sum), float64(all))
		}
	}()
	err = fleet.Publish(ctx, w.conn, rounds, func(n int) { stored <- n })
	close(stored)
	<-done
	if err != nil {
		return stretch{}, err
	}
	last, err := w.last(ctx)
	return stretch{first: before + 1, last: last, events: int(last - before)}, err
}

// readOrdered reads a stretch as the alerter does, and returns the messages per
// second.
func (w *world) readOrdered(ctx context.Context, log stretch) (float64, error) {
	conn, err := bus.Connect(ctx, bus.Options{URL: w.NATS.URL(), Name: "bench-ordered"})
	if err != nil {
		return 0, err
	}
	defer conn.Close()
	enough := errors.New("enough")
	began := time.Now()
	err = conn.Read(ctx, bus.ReadOptions{Stream: bus.EventsStream, From: log.first}, func(d bus.Delivery) error {
		if d.Seq >= log.last {
			return enough
		}
		return nil
	})
	took := time.Since(began)
	if !errors.Is(err, enough) {
		return 0, fmt.Errorf("read with an ordered consumer: %w", err)
	}
	return float64(log.events) / took.Seconds(), nil
}
