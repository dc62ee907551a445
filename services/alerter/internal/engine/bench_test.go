package engine

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"syscall"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/tocsin-dev/tocsin/internal/event"
	eventv1 "github.com/tocsin-dev/tocsin/proto/gen/tocsin/event/v1"
	"github.com/tocsin-dev/tocsin/rules"
	"github.com/tocsin-dev/tocsin/services/alerter/rulefile"
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

// benchEndpoints is how many endpoints a benchmark's log is about, each polled
// once in benchInterval.
const (
	benchEndpoints = 1000
	benchInterval  = 15 * time.Second
)

// benchLog steps a partition through messages that are evenly spread over time.
type benchLog struct {
	b       *testing.B
	p       *Partition
	program *Program
	seq     uint64
	at      time.Time
}

func newBenchLog(b *testing.B, program *Program) *benchLog {
	l := &benchLog{b: b, p: NewPartition(0, "log", 1), program: program, seq: 1, at: epoch}
	l.step(activated(program.Hash()))
	return l
}

func (l *benchLog) step(e *eventv1.Event) {
	l.seq++
	l.at = l.at.Add(benchInterval / benchEndpoints)
	if _, err := l.p.Step(Message{Seq: l.seq, Time: l.at, Event: e}, known(l.program)); err != nil {
		l.b.Fatal(err)
	}
}

func BenchmarkStepOfASampleThroughTwentyFiveRules(b *testing.B) {
	messages := make([]*eventv1.Event, benchEndpoints)
	for i := range messages {
		n := int64(i)
		messages[i] = sampled(endpoint(fmt.Sprint(i)), 0, benchInterval,
			&eventv1.JobCounts{Completed: &n, Failed: new(int64(3)), InQueue: new(int64(2)), InProgress: new(int64(1))},
			&eventv1.WorkerCounts{Running: new(int64(2)), Idle: new(int64(1)), Unhealthy: new(int64), Initializing: new(int64)})
	}
	l := newBenchLog(b, compile(b, twentyFive()))
	i, work := 0, newWork(b)
	for b.Loop() {
		e := messages[i%benchEndpoints]
		h := e.GetHealthSampled()
		h.PollSlotMs = l.at.UnixMilli()
		*h.Jobs.Completed += int64(i & 1)
		l.step(e)
		i++
	}
	work.report()
}

// busy is an endpoint that works: jobs come and go, workers with them, and what
// its polls bring changes nearly each time.
type busy struct {
	r                 *rand.Rand
	completed, failed int64
	queue, running    int64
}

func (e *busy) walk(n *int64, limit int64) { *n = min(max(*n+e.r.Int64N(3)-1, 0), limit) }

// sample is what the next poll brings.
func (e *busy) sample(name string, at time.Time) *eventv1.Event {
	e.completed += e.r.Int64N(10)
	if e.r.IntN(20) == 0 {
		e.failed++
	}
	e.walk(&e.queue, 40)
	e.walk(&e.running, 4)
	s := sampled(endpoint(name), at.UnixMilli(), benchInterval,
		&eventv1.JobCounts{Completed: &e.completed, Failed: &e.failed, Retried: new(int64), InQueue: &e.queue, InProgress: &e.running},
		&eventv1.WorkerCounts{
			Running: &e.running, Idle: new(5 - e.running), Ready: new(5 - e.running), Unhealthy: new(int64), Initializing: new(int64), Throttled: new(int64),
		})
	s.OccurredAt = timestamppb.New(at)
	s.Source = eventv1.Source_SOURCE_POLL
	return s
}

// BenchmarkEncodedSamplesThroughTheDefaultPack does what the alerter and a
// backtest do with each message, beside reading it: it decodes and steps. The
// endpoints work and nothing is wrong with them.
func BenchmarkEncodedSamplesThroughTheDefaultPack(b *testing.B) {
	set, err := rulefile.Parse(rules.Default(), []rulefile.TargetPattern{{Match: "^(?P<team>[a-z]+)-", Kind: "endpoint"}})
	if err != nil {
		b.Fatal(err)
	}
	program, err := Compile(set)
	if err != nil {
		b.Fatal(err)
	}
	benchEncoded(b, program)
}

// BenchmarkEncodedSamplesThroughTwentyFiveRules is the same with 25 rules.
func BenchmarkEncodedSamplesThroughTwentyFiveRules(b *testing.B) {
	benchEncoded(b, compile(b, twentyFive()))
}

// BenchmarkDecodeOfASample is the part of that which is spent before the fold.
func BenchmarkDecodeOfASample(b *testing.B) {
	data := encoded(b, (&busy{r: rand.New(rand.NewPCG(1, 1))}).sample("text-1", epoch))
	work := newWork(b)
	for b.Loop() {
		if _, err := event.Unmarshal(data); err != nil {
			b.Fatal(err)
		}
	}
	work.report()
}

// benchEncoded steps through samples as they travel. All that happens is made
// before the clock runs: an hour of it fills the windows.
func benchEncoded(b *testing.B, program *Program) {
	l := newBenchLog(b, program)
	endpoints := make([]busy, benchEndpoints)
	names := make([]string, benchEndpoints)
	for i := range endpoints {
		endpoints[i].r = rand.New(rand.NewPCG(uint64(i), 1))
		names[i] = fmt.Sprintf("text-%d", i)
		l.step(&eventv1.Event{Target: endpoint(names[i]), Fact: &eventv1.Event_TargetDiscovered{TargetDiscovered: &eventv1.TargetDiscovered{Spec: queueSpec(5)}}})
	}
	// The log is made in blocks of polls of all endpoints while the clock stands.
	const block = 20 * benchEndpoints
	made := l.at
	log := make([][]byte, 0, block)
	refill := func() {
		log = log[:0]
		for i := range block {
			made = made.Add(benchInterval / benchEndpoints)
			log = append(log, encoded(b, endpoints[i%benchEndpoints].sample(names[i%benchEndpoints], made)))
		}
	}
	next := func(i int) {
		e, err := event.Unmarshal(log[i])
		if err != nil {
			b.Fatal(err)
		}
		l.step(e)
	}
	for range 12 {
		refill()
		for i := range log {
			next(i)
		}
	}
	refill()
	i, work := 0, newWork(b)
	for b.Loop() {
		if i == block {
			work.pause()
			refill()
			i = 0
			work.resume()
		}
		next(i)
		i++
	}
	work.report()
}

// work is the time of processors that a benchmark takes, that of the garbage
// collector included. Unlike the time that passes, it is about the same on a
// machine that has other things to do.
type work struct {
	b     *testing.B
	since time.Duration
	done  time.Duration
}

func newWork(b *testing.B) *work { return &work{b: b, since: processorTime(b)} }

func (w *work) pause() {
	w.b.StopTimer()
	w.done += processorTime(w.b) - w.since
}

func (w *work) resume() {
	w.since = processorTime(w.b)
	w.b.StartTimer()
}

func (w *work) report() {
	w.done += processorTime(w.b) - w.since
	w.b.ReportMetric(float64(w.done.Nanoseconds())/float64(w.b.N), "core-ns/op")
}

func processorTime(b *testing.B) time.Duration {
	var use syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &use); err != nil {
		b.Fatal(err)
	}
	return time.Duration(use.Utime.Nano() + use.Stime.Nano())
}

func encoded(b *testing.B, e *eventv1.Event) []byte {
	data, err := event.Marshal(e)
	if err != nil {
		b.Fatal(err)
	}
	return data
}

// queueSpec is the settings of a queue endpoint.
func queueSpec(workersMax int64) *eventv1.TargetSpec {
	return &eventv1.TargetSpec{Kind: &eventv1.TargetSpec_Endpoint{Endpoint: &eventv1.EndpointSpec{
		Type: eventv1.EndpointType_ENDPOINT_TYPE_QUEUE, WorkersMax: &workersMax, WorkersMin: new(int64), ExecutionTimeout: durationpb.New(10 * time.Minute),
	}}}
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
