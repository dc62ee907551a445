package main

import (
	"context"
	"fmt"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/tocsin-dev/tocsin/internal/bus"
	"github.com/tocsin-dev/tocsin/test/bench/internal/facts"
	"github.com/tocsin-dev/tocsin/test/bench/internal/report"
)

const (
	// loadRate is how many facts a second go on while something dies: those of
	// 7,500 endpoints polled every 15 s.
	loadRate = 500
	// loadFrom numbers the queues of that load, and loadQueues is how many there
	// are: every partition has some.
	loadFrom, loadQueues = 800_000, 2000
	// loadFirst is how long the load goes on before.
	loadFirst = 2 * time.Second
)

// replay measures how an alerter comes back when Redis has forgotten everything:
// snapshots are loaded, and the log after them is applied and committed again.
// First the alerter lives on while facts come in; then it was killed too, and
// starts from nothing but NATS.
func replay(ctx context.Context, s *suite) (err error) {
	w, err := s.world(ctx, false, false, s.current)
	if err != nil {
		return err
	}
	defer func() { err = w.end(err) }()
	fleet := facts.Fleet{Targets: s.sizes.targets}
	a, err := w.known(ctx, fleet)
	if err != nil {
		return err
	}
	// The snapshots that a stop leaves are the only ones.
	if err := a.stop(); err != nil {
		return err
	}
	if a, err = w.alerter(ctx, "alerter", nil); err != nil {
		return err
	}
	log, err := w.fill(ctx, fleet, s.sizes.replayed)
	if err != nil {
		return err
	}
	if err := a.await(ctx, log.last); err != nil {
		return err
	}
	setting := fmt.Sprintf("%d facts of %d targets after the snapshot", log.events, fleet.Targets)
	if err := s.replayLive(ctx, w, a, log, setting); err != nil {
		return fmt.Errorf("emptied Redis under load: %w", err)
	}
	if err := a.kill(); err != nil {
		return err
	}
	if err := w.Redis.FlushAll(ctx); err != nil {
		return err
	}
	last, err := w.last(ctx)
	if err != nil {
		return err
	}
	s.progress.step("an alerter starts without Redis's memory")
	began := time.Now()
	if a, err = w.alerter(ctx, "alerter", nil); err != nil {
		return err
	}
	stop, err := w.Profile(ctx, profileFor, a.Service)
	if err != nil {
		return err
	}
	events := int(last - log.first + 1) // those of the load too
	work, err := w.follow(ctx, a, last, events)
	if err != nil {
		return err
	}
	took := time.Since(began)
	if err := stop(); err != nil {
		return err
	}
	m, err := a.Metrics(ctx)
	if err != nil {
		return err
	}
	note := fmt.Sprintf("the log was read %.0f times for all partitions and %.0f times for one",
		m.Sum("tocsin_alerter_feed_reads_total"), m.Sum("tocsin_alerter_feed_own_readers_total"))
	s.add(setting, report.Figure{Name: "events, alerter started anew", Value: work.perSecond, Unit: report.PerSecond, Goal: new(40_000.0), Note: note})
	s.add(setting, report.Figure{Name: "from its start to all committed", Value: took.Seconds(), Unit: report.Seconds})
	s.addCPU(setting, work.cpu, "event")
	return nil
}

func (s *suite) replayLive(ctx context.Context, w *world, a *alerter, log stretch, setting string) error {
	var took time.Duration
	var reads, alone float64
	err := w.underLoad(ctx, func(ctx context.Context) error {
		last, err := w.last(ctx)
		if err != nil {
			return err
		}
		before, err := a.Metrics(ctx)
		if err != nil {
			return err
		}
		s.progress.step("Redis is emptied under a load of %d facts/s", loadRate)
		began := time.Now()
		if err := w.Redis.FlushAll(ctx); err != nil {
			return err
		}
		if err := a.await(ctx, last); err != nil {
			return err
		}
		took = time.Since(began)
		after, err := a.Metrics(ctx)
		if err != nil {
			return err
		}
		grown := func(name string) float64 { return after.Sum(name) - before.Sum(name) }
		reads, alone = grown("tocsin_alerter_feed_reads_total"), grown("tocsin_alerter_feed_own_readers_total")
		return nil
	})
	if err != nil {
		return err
	}
	s.add(setting, report.Figure{
		Name: "events, alerter alive", Value: float64(log.events) / took.Seconds(), Unit: report.PerSecond, Goal: new(40_000.0),
		Note: fmt.Sprintf("from FLUSHALL to all committed, under %d facts/s; the log was read %.0f times for all partitions and %.0f times for one", loadRate, reads, alone),
	})
	s.add(setting, report.Figure{Name: "from FLUSHALL to all committed", Value: took.Seconds(), Unit: report.Seconds})
	return nil
}

// underLoad calls f after facts have been coming in for a while, and lets them go
// on until it returns.
func (w *world) underLoad(ctx context.Context, f func(context.Context) error) error {
	publisher := w.conn.NewPublisher(bus.PublisherOptions{})
	defer publisher.Close()
	loading, stop := context.WithCancel(ctx)
	defer stop()
	g, working := errgroup.WithContext(ctx)
	g.Go(func() error {
		tick := time.NewTicker(time.Second / loadRate)
		defer tick.Stop()
		for k := 0; ; k++ {
			m, err := facts.Queue(loadFrom+k%loadQueues).Sample(k/loadQueues, false)
			if err != nil {
				return err
			}
			if err := publisher.Publish(loading, m); err != nil && loading.Err() == nil {
				return err
			}
			select {
			case <-loading.Done():
				return nil
			case <-tick.C:
			}
		}
	})
	g.Go(func() error {
		defer stop()
		timer := time.NewTimer(min(loadFirst, w.suite.sizes.measured()))
		defer timer.Stop()
		select {
		case <-timer.C:
			return f(working)
		case <-working.Done():
			return working.Err()
		}
	})
	return g.Wait()
}
