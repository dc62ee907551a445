package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"time"

	"github.com/tocsin-dev/tocsin/services/collector/runpod/sim"
	"github.com/tocsin-dev/tocsin/test/bench/internal/report"
	"github.com/tocsin-dev/tocsin/test/bench/internal/rig"
)

// readLimit bounds the reading of a request of the collector.
const readLimit = 30 * time.Second

// polling measures what a collector costs that polls a simulated RunPod, which
// runs in the benchmark's own process and is not counted: from when every
// endpoint was polled once, for two intervals.
func polling(ctx context.Context, s *suite) (err error) {
	w, err := s.world(ctx, false, false, s.current)
	if err != nil {
		return err
	}
	defer func() { err = w.end(err) }()
	n, interval := s.sizes.endpoints, s.sizes.poll
	url, stop, err := simulate(n)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, stop()) }()
	c, err := w.Start(ctx, rig.Spec{Service: "collector", RunPod: url, Key: sim.DefaultKey, HealthInterval: interval})
	if err != nil {
		return err
	}
	polls := func() (float64, error) {
		m, err := c.Metrics(ctx)
		return m.Sum("tocsin_collector_polls_total"), err
	}
	s.progress.step("%d endpoints are polled every %v", n, interval)
	if err := every(ctx, "every endpoint was polled", func() (bool, error) {
		done, err := polls()
		s.progress.done(done, float64(n))
		return done >= float64(n), err
	}); err != nil {
		return err
	}
	finish, err := w.Profile(ctx, profileFor, c)
	if err != nil {
		return err
	}
	before, polled, began := c.Usage(), 0.0, time.Now()
	first, err := polls()
	if err != nil {
		return err
	}
	timer := time.NewTimer(2 * interval)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
		return ctx.Err()
	}
	if polled, err = polls(); err != nil {
		return err
	}
	after, took := c.Usage(), time.Since(began)
	if err := finish(); err != nil {
		return err
	}
	setting := fmt.Sprintf("%d endpoints every %v", n, interval)
	due := float64(n) / interval.Seconds()
	s.add(setting, report.Figure{
		Name: "polls", Value: (polled - first) / took.Seconds(), Unit: report.PerSecond, Goal: new(0.95 * due),
		Note: fmt.Sprintf("%.0f a second are due", due),
	})
	if after.Peak > 0 { // else the system does not tell
		s.add(setting, report.Figure{Name: "processors", Value: (after.CPU - before.CPU).Seconds() / took.Seconds(), Unit: report.Cores, Goal: new(0.5)})
		s.add(setting, report.Figure{Name: "peak memory of the collector", Value: float64(after.Peak) / (1 << 20), Unit: report.MiB, Goal: new(200.0)})
	}
	return nil
}

// simulate runs a simulated RunPod with so many endpoints.
func simulate(n int) (url string, stop func() error, err error) {
	var scenario sim.Scenario
	for i := range n {
		id := fmt.Sprintf("endpoint%06d", i)
		scenario.Endpoints = append(scenario.Endpoints, sim.EndpointSpec{
			ID: id, Name: "prod-" + id, Pools: []string{"ADA_24"}, MinWorkers: 1, MaxWorkers: 3, JobsPerMinute: 2,
		})
	}
	account, err := sim.New(sim.Options{Scenario: scenario, Unlimited: true})
	if err != nil {
		return "", nil, fmt.Errorf("simulate RunPod: %w", err)
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		account.Close()
		return "", nil, fmt.Errorf("listen for the collector: %w", err)
	}
	server := &http.Server{Handler: account.Handler(), ReadHeaderTimeout: readLimit, ReadTimeout: readLimit}
	go func() { _ = server.Serve(ln) }() // it ends with Close
	return "http://" + ln.Addr().String(), func() error {
		account.Close()
		return server.Close()
	}, nil
}
