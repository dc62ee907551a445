package engine

import (
	"fmt"
	"strings"
	"testing"
	"time"

	eventv1 "github.com/tocsin-dev/tocsin/proto/gen/tocsin/event/v1"
)

// twentyFive is a set of 25 rules on endpoints in the manner of the default
// pack: windows, levels, guards, none of which holds.
func twentyFive() string {
	conditions := []string{
		"workers.max == 0 && jobs.in_queue > 0",
		"max(workers.unhealthy, '5m') > 0 && min(jobs.in_queue, '3m') > 0 && max(workers.running, '3m') == 0 && increase(jobs.completed, '5m') == 0",
		"min(jobs.in_queue, '5m') > 0 && max(workers.running, '5m') == 0 && max(workers.initializing, '5m') == 0",
		"jobs.in_queue > max(100, 20 * workers.max) && jobs.in_queue > 1800 * rate(jobs.completed, '10m')",
		"increase(jobs.failed, '15m') >= 10 && increase(jobs.failed, '15m') > 0.05 * (increase(jobs.failed, '15m') + increase(jobs.completed, '15m'))",
	}
	var b strings.Builder
	b.WriteString("groups:\n  - name: g\n    rules:\n")
	for i := range 25 {
		fmt.Fprintf(&b, "      - {alert: R%d, on: endpoint, for: 1m, expr: \"%s && jobs.in_queue > %d\"}\n", i, conditions[i%len(conditions)], i)
	}
	return b.String()
}

func BenchmarkStepOfASampleThroughTwentyFiveRules(b *testing.B) {
	program := compile(b, twentyFive())
	p := NewPartition(0, "log", 1)
	const endpoints = 1000
	messages := make([]*eventv1.Event, endpoints)
	for i := range messages {
		n := int64(i)
		messages[i] = sampled(endpoint(fmt.Sprint(i)), 0, 15*time.Second,
			&eventv1.JobCounts{Completed: &n, Failed: new(int64(3)), InQueue: new(int64(2)), InProgress: new(int64(1))},
			&eventv1.WorkerCounts{Running: new(int64(2)), Idle: new(int64(1)), Unhealthy: new(int64), Initializing: new(int64)})
	}
	seq, at := uint64(1), epoch
	step := func(e *eventv1.Event) {
		seq++
		at = at.Add(15 * time.Second / endpoints)
		if _, err := p.Step(Message{Seq: seq, Time: at, Event: e}, known(program)); err != nil {
			b.Fatal(err)
		}
	}
	step(activated(program.Hash()))
	i := 0
	for b.Loop() {
		e := messages[i%endpoints]
		h := e.GetHealthSampled()
		h.PollSlotMs = at.UnixMilli()
		*h.Jobs.Completed += int64(i & 1)
		step(e)
		i++
	}
}

// BenchmarkDelta encodes a thousand endpoints that were sampled 40 times since they
// became known, as a commit does while the log is caught up with.
func BenchmarkDelta(b *testing.B) {
	program := compile(b, twentyFive())
	p := NewPartition(0, "log", 1)
	const endpoints = 1000
	seq, at := uint64(0), epoch
	step := func(e *eventv1.Event) {
		seq++
		if _, err := p.Step(Message{Seq: seq, Time: at, Event: e}, known(program)); err != nil {
			b.Fatal(err)
		}
	}
	step(activated(program.Hash()))
	for round := range int64(40) {
		at = at.Add(15 * time.Second)
		for i := range endpoints {
			e := sampled(endpoint(fmt.Sprint(i)), 0, 15*time.Second,
				&eventv1.JobCounts{Completed: &round, Failed: new(round / 4), InQueue: new(round % 5), InProgress: new(int64(1))},
				&eventv1.WorkerCounts{Running: new(round % 3), Idle: new(int64(1)), Unhealthy: new(int64), Initializing: new(int64)})
			e.GetHealthSampled().PollSlotMs = at.UnixMilli()
			step(e)
		}
	}
	all := p.Delta().Targets
	for b.Loop() {
		for key := range all {
			p.dirty.targets[key] = struct{}{}
		}
		p.Delta()
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*len(all)), "ns/target")
}
