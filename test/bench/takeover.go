package main

import (
	"context"
	"fmt"
	"time"

	"github.com/tocsin-dev/tocsin/test/bench/internal/facts"
	"github.com/tocsin-dev/tocsin/test/bench/internal/report"
)

// takeover measures how long the partitions of an alerter stand still that is
// killed under load, while another one shares the work: from the kill until
// everything that was in the log then is committed, and the other owns all.
func takeover(ctx context.Context, s *suite) (err error) {
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
	log, err := w.fill(ctx, fleet, 1)
	if err != nil {
		return err
	}
	if err := a.await(ctx, log.last); err != nil {
		return err
	}
	b, err := w.alerter(ctx, "alerter-2", nil)
	if err != nil {
		return err
	}
	s.progress.step("two alerters share the partitions")
	owned := func(x *alerter) (float64, error) {
		m, err := x.Metrics(ctx)
		return m.Sum("tocsin_alerter_partitions_owned"), err
	}
	if err := every(ctx, "both alerters own half of the partitions", func() (bool, error) {
		of, err := owned(b)
		return of == partitions/2, err
	}); err != nil {
		return err
	}
	var took time.Duration
	err = w.underLoad(ctx, func(ctx context.Context) error {
		s.progress.step("one is killed under a load of %d facts/s", loadRate)
		began := time.Now()
		if err := a.kill(); err != nil {
			return err
		}
		last, err := w.last(ctx)
		if err != nil {
			return err
		}
		if err := b.await(ctx, last); err != nil {
			return err
		}
		if err := every(ctx, "the other alerter owns everything", func() (bool, error) {
			of, err := owned(b)
			return of == partitions, err
		}); err != nil {
			return err
		}
		took = time.Since(began)
		return nil
	})
	if err != nil {
		return err
	}
	s.add(fmt.Sprintf("%d targets, %d facts/s", fleet.Targets, loadRate), report.Figure{
		Name: "from the kill to all committed", Value: took.Seconds(), Unit: report.Seconds, Goal: new(5.0),
		Note: "the lease alone lasts 3 s",
	})
	return nil
}
