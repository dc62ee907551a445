package main

import (
	"context"
	"fmt"
	"time"

	"github.com/tocsin-dev/tocsin/test/bench/internal/facts"
	"github.com/tocsin-dev/tocsin/test/bench/internal/report"
)

// memory measures what a target costs in the alerter and in Redis when the
// default rules have seen so many polls of it: what is reachable on the heap
// after a collection, and what Redis has allocated, less what both had before
// the first target. Beside it stands what each process holds.
func memory(ctx context.Context, s *suite) (err error) {
	w, err := s.world(ctx, false, false, s.current)
	if err != nil {
		return err
	}
	defer func() { err = w.end(err) }()
	fleet := facts.Fleet{Targets: s.sizes.memory}
	a, err := w.alerter(ctx, "alerter", nil)
	if err != nil {
		return err
	}
	if err := w.settle(ctx, a); err != nil {
		return err
	}
	heap, err := a.Memory(ctx)
	if err != nil {
		return err
	}
	used, err := w.Redis.UsedMemory(ctx)
	if err != nil {
		return err
	}
	if err := fleet.Discover(ctx, w.conn); err != nil {
		return err
	}
	log, err := w.fill(ctx, fleet, s.sizes.history)
	if err != nil {
		return err
	}
	s.progress.step("the alerter applies them")
	if err := a.await(ctx, log.last); err != nil {
		return err
	}
	// What is in use is read before the collection that Memory makes.
	heapAfter, err := a.Memory(ctx)
	if err != nil {
		return err
	}
	usedAfter, err := w.Redis.UsedMemory(ctx)
	if err != nil {
		return err
	}
	rest, err := w.atRest(ctx, a)
	if err != nil {
		return err
	}
	setting := fmt.Sprintf("%d targets, %d polls of each", fleet.Targets, s.sizes.history)
	per := func(name string, before, after float64) {
		s.add(setting, report.Figure{
			Name: name, Value: (after - before) / float64(fleet.Targets) / 1024, Unit: report.KiB, Goal: new(10.0),
		})
	}
	per("alerter, per target", float64(heap.Live), float64(heapAfter.Live))
	per("Redis, per target", used, usedAfter)
	s.add(setting, report.Figure{Name: "alerter, heap in use", Value: float64(heapAfter.InUse) / (1 << 20), Unit: report.MiB})
	s.addHeld(setting, w)
	for _, name := range processes {
		s.add(setting, report.Figure{Name: "processors of " + name + " at rest", Value: rest[name], Unit: report.Cores})
	}
	return nil
}

// restFor is how long nothing is published when the cost of that is measured:
// leases are renewed, and time goes on.
const restFor = 5 * time.Second

// atRest returns how many processors each process uses while nothing happens.
func (w *world) atRest(ctx context.Context, a *alerter) (map[string]float64, error) {
	w.suite.progress.step("at rest")
	d := min(restFor, w.suite.sizes.measured())
	stop, err := w.Profile(ctx, d, a.Service, w.notifier)
	if err != nil {
		return nil, err
	}
	before, began := w.Usage(), time.Now()
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	took := time.Since(began).Seconds()
	rest := map[string]float64{}
	for name, after := range w.Usage() {
		rest[name] = (after.CPU - before[name].CPU).Seconds() / took
	}
	return rest, stop()
}

// processes are those that a target or an alert costs something.
var processes = []string{"alerter", "notifier", "nats", "redis"}

// addHeld adds what each process held at most.
func (s *suite) addHeld(setting string, w *world) {
	usage := w.Usage()
	for _, name := range processes {
		if peak := usage[name].Peak; peak > 0 { // else the system does not tell
			s.add(setting, report.Figure{Name: "peak memory of " + name, Value: float64(peak) / (1 << 20), Unit: report.MiB})
		}
	}
}
