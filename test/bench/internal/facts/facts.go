// Package facts makes the facts that the benchmarks publish: a fleet of
// endpoints and pods that work, with queues that come and go and jobs that end.
// All is well but for one in a hundred of the endpoints whose jobs are followed:
// its jobs fail, and a default rule says so.
//
// The same fleet gives the same facts, whatever the machine.
package facts

import (
	"context"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sync/errgroup"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/tocsin-dev/tocsin/internal/bus"
	"github.com/tocsin-dev/tocsin/internal/event"
	eventv1 "github.com/tocsin-dev/tocsin/proto/gen/tocsin/event/v1"
)

const (
	// account is the name of the fleet's account.
	account = "bench"
	// interval is how far apart the polls of a target are by their slots, as
	// shipped.
	interval = 15 * time.Second
	// of is the cycle by which kinds of targets alternate: of eight, two are
	// pods, two are endpoints without work and four work; one of those has a
	// job followed in each round.
	of = 8
	// failsOneOf so many endpoints with followed jobs fails them: a rare alert is a
	// part of the work.
	failsOneOf = 100
)

// begin is the slot of the first round. It lies in the past, so that no later
// sample is behind it.
var begin = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

// Fleet is a number of targets.
type Fleet struct {
	// Targets is how many there are.
	Targets int
}

// Events returns how many facts a round of polls of all targets makes.
func (f Fleet) Events() int {
	n := 0
	for i := range f.Targets {
		n += f.eventsOf(i)
	}
	return n
}

func (f Fleet) eventsOf(i int) int {
	if i%of == 4 {
		return 3
	}
	return 1
}

func (f Fleet) target(i int) *eventv1.Target {
	if i%of < 2 {
		return target(eventv1.TargetKind_TARGET_KIND_POD, fmt.Sprintf("pod%06d", i))
	}
	return target(eventv1.TargetKind_TARGET_KIND_ENDPOINT, fmt.Sprintf("endpoint%06d", i))
}

func target(kind eventv1.TargetKind, id string) *eventv1.Target {
	return &eventv1.Target{Account: account, Kind: kind, Id: id, Name: "prod-" + id}
}

// Discovery returns the fact that target i was seen for the first time.
func (f Fleet) Discovery(i int) (bus.Message, error) {
	t := f.target(i)
	if t.GetKind() == eventv1.TargetKind_TARGET_KIND_POD {
		return discovery(t, &eventv1.TargetSpec{Kind: &eventv1.TargetSpec_Pod{Pod: &eventv1.PodSpec{
			GpuType: "NVIDIA L4", GpuCount: 2, Cloud: "SECURE", DataCenter: "EU-RO-1", Image: "registry.example.com/team/train:v12",
		}}})
	}
	return discovery(t, queue())
}

func queue() *eventv1.TargetSpec {
	return &eventv1.TargetSpec{Kind: &eventv1.TargetSpec_Endpoint{Endpoint: &eventv1.EndpointSpec{
		Type: eventv1.EndpointType_ENDPOINT_TYPE_QUEUE, WorkersMin: new(int64), WorkersMax: new(int64(5)),
		IdleTimeout: durationpb.New(5 * time.Second), ExecutionTimeout: durationpb.New(10 * time.Minute),
		Scaler: "QUEUE_DELAY", GpuPools: []string{"ADA_24", "AMPERE_24"}, GpuCount: 1,
		Image: "registry.example.com/team/serve:v3", DataCenters: []string{"EU-RO-1"}, Flashboot: "FLASHBOOT",
	}}}
}

func discovery(t *eventv1.Target, spec *eventv1.TargetSpec) (bus.Message, error) {
	return message(&eventv1.Event{
		Id: event.DiscoveryID(t, spec, ""), OccurredAt: timestamppb.New(begin), Target: t, Source: eventv1.Source_SOURCE_POLL,
		Fact: &eventv1.Event_TargetDiscovered{TargetDiscovered: &eventv1.TargetDiscovered{Spec: spec}},
	})
}

// Round appends the facts that round n (from 0) makes of target i.
func (f Fleet) Round(to []bus.Message, i, n int) ([]bus.Message, error) {
	at := begin.Add(time.Duration(n+1) * interval)
	t := f.target(i)
	e := &eventv1.Event{OccurredAt: timestamppb.New(at), Target: t, Source: eventv1.Source_SOURCE_POLL}
	if t.GetKind() == eventv1.TargetKind_TARGET_KIND_POD {
		e.Fact = &eventv1.Event_GpuSampled{GpuSampled: gpuSample(i, n, at)}
	} else {
		e.Fact = &eventv1.Event_HealthSampled{HealthSampled: healthSample(i, n, at)}
	}
	m, err := message(e)
	if err != nil {
		return nil, err
	}
	to = append(to, m)
	if f.eventsOf(i) == 1 {
		return to, nil
	}
	for _, job := range jobOf(i, n) {
		m, err := message(&eventv1.Event{
			Id:         event.JobFactID(event.Token(t), job.GetJobId(), job.GetAttempt(), job.GetState()),
			OccurredAt: timestamppb.New(at), Target: t, Source: eventv1.Source_SOURCE_WEBHOOK,
			Fact: &eventv1.Event_JobTransitioned{JobTransitioned: job},
		})
		if err != nil {
			return nil, err
		}
		to = append(to, m)
	}
	return to, nil
}

// vary returns a number from 0 to below that wanders with i and n.
func vary(i, n, below int) int64 {
	h := uint32(i)*2654435761 ^ uint32(n)*2246822519
	h ^= h >> 15
	h *= 3266489917
	h ^= h >> 13
	return int64(h % uint32(below))
}

func healthSample(i, n int, at time.Time) *eventv1.HealthSampled {
	s := &eventv1.HealthSampled{PollSlotMs: at.UnixMilli(), Interval: durationpb.New(interval)}
	if i%of < 4 { // without work
		s.Jobs = &eventv1.JobCounts{
			Completed: new(int64(i)), Failed: new(int64), Retried: new(int64), InProgress: new(int64), InQueue: new(int64),
		}
		s.Workers = &eventv1.WorkerCounts{
			Idle: new(int64(1)), Ready: new(int64(1)), Running: new(int64), Initializing: new(int64), Throttled: new(int64), Unhealthy: new(int64),
		}
		return s
	}
	running := 1 + vary(i, n, 4)
	s.Jobs = &eventv1.JobCounts{
		Completed: new(int64(n)*12 + vary(i, n, 6)), Failed: new(int64(n / 50)), Retried: new(int64),
		InProgress: &running, InQueue: new(vary(i, n+7, 9)),
	}
	s.Workers = &eventv1.WorkerCounts{
		Idle: new(5 - running), Ready: new(5 - running), Running: &running, Initializing: new(int64), Throttled: new(int64), Unhealthy: new(int64),
	}
	return s
}

func gpuSample(i, n int, at time.Time) *eventv1.GpuSampled {
	percent := func(salt int) *float64 { return new(40 + float64(vary(i, n+salt, 55))) }
	return &eventv1.GpuSampled{
		PollSlotMs: at.UnixMilli(), Interval: durationpb.New(interval), Status: "RUNNING", CostPerHour: new(0.43),
		UptimeSeconds: new(int64(3600 + n*15)), CpuPercent: percent(1), MemoryPercent: percent(2),
		Gpus: []*eventv1.Gpu{
			{Index: 0, UtilPercent: percent(3), MemoryPercent: percent(4)},
			{Index: 1, UtilPercent: percent(5), MemoryPercent: percent(6)},
		},
	}
}

// jobOf returns the life of a job that was begun and ended between two polls.
func jobOf(i, n int) [2]*eventv1.JobTransitioned {
	id := fmt.Sprintf("%08x-%04x-e1", uint32(i), uint16(n))
	began := &eventv1.JobTransitioned{JobId: id, Attempt: 1, State: eventv1.JobState_JOB_STATE_IN_PROGRESS, DelayMs: new(120 + vary(i, n, 900))}
	ended := &eventv1.JobTransitioned{
		JobId: id, Attempt: 1, State: eventv1.JobState_JOB_STATE_COMPLETED, DelayMs: began.DelayMs,
		ExecutionMs: new(800 + vary(i, n+1, 4000)), WorkerId: fmt.Sprintf("worker%d", vary(i, n, 5)),
	}
	if i/of%failsOneOf == 0 {
		ended.State = eventv1.JobState_JOB_STATE_FAILED
		ended.Error = &eventv1.JobError{
			Category: eventv1.JobErrorCategory_JOB_ERROR_CATEGORY_HANDLER, Type: "ValueError",
			Message: "prompt is longer than the context", Frame: "handler.py:88 run", Fingerprint: "5b1f0d7c",
		}
	}
	return [2]*eventv1.JobTransitioned{began, ended}
}

func message(e *eventv1.Event) (bus.Message, error) {
	data, err := event.Marshal(e)
	if err != nil {
		return bus.Message{}, err
	}
	return bus.Message{Subject: event.Subject(event.Kind(e), e.GetTarget()), ID: e.GetId(), Data: data}, nil
}

// publishers is how many batches are on their way at once. Each has its own
// targets, whose facts stay in order.
const publishers = 4

// Discover publishes that all targets were seen for the first time.
func (f Fleet) Discover(ctx context.Context, conn *bus.Conn) error {
	return f.publish(ctx, conn, func(to []bus.Message, i int) ([]bus.Message, error) {
		m, err := f.Discovery(i)
		return append(to, m), err
	}, func(int) {})
}

// Publish publishes so many rounds, each whole before the next, and tells after
// each batch how many facts it had.
func (f Fleet) Publish(ctx context.Context, conn *bus.Conn, rounds int, stored func(n int)) error {
	for n := range rounds {
		err := f.publish(ctx, conn, func(to []bus.Message, i int) ([]bus.Message, error) { return f.Round(to, i, n) }, stored)
		if err != nil {
			return err
		}
	}
	return nil
}

// publish publishes what each target says, in atomic batches: JetStream takes
// those as fast as it can write, whether or not it must sync.
func (f Fleet) publish(ctx context.Context, conn *bus.Conn, say func([]bus.Message, int) ([]bus.Message, error), stored func(int)) error {
	g, ctx := errgroup.WithContext(ctx)
	for p := range publishers {
		g.Go(func() error {
			var batch []bus.Message
			send := func() error {
				if err := store(ctx, conn, batch); err != nil {
					return fmt.Errorf("publish facts: %w", err)
				}
				stored(len(batch))
				batch = batch[:0]
				return nil
			}
			for i := p; i < f.Targets; i += publishers {
				var err error
				if batch, err = say(batch, i); err != nil {
					return fmt.Errorf("make facts: %w", err)
				}
				if len(batch) > bus.MaxAtomic-of {
					if err := send(); err != nil {
						return err
					}
				}
			}
			return send()
		})
	}
	return g.Wait()
}

// store stores a batch. A batch of one or two messages costs as much as one of
// a thousand, hence the other way for those.
func store(ctx context.Context, conn *bus.Conn, batch []bus.Message) error {
	if len(batch) > 2 {
		return conn.PublishAtomic(ctx, batch)
	}
	for _, m := range batch {
		if _, err := conn.Publish(ctx, m); err != nil {
			return err
		}
	}
	return nil
}

// Queue is an endpoint whose queue a benchmark fills and empties.
type Queue int

// Flipping is the rule by which such a queue fires at once, and resolves at once.
const Flipping = `
groups:
  - name: bench
    rules:
      - alert: BenchQueue
        on: endpoint
        expr: jobs.in_queue > 1000
        labels: {severity: warning, bench: flip}
        annotations:
          summary: '{{ .Name }} has {{ .Value "jobs.in_queue" }} queued jobs'
          description: This alert is made by the benchmarks.
`

func (q Queue) target() *eventv1.Target {
	return target(eventv1.TargetKind_TARGET_KIND_ENDPOINT, fmt.Sprintf("queue%06d", int(q)))
}

// Discovery returns the fact that the endpoint was seen for the first time.
func (q Queue) Discovery() (bus.Message, error) { return discovery(q.target(), queue()) }

// Sample returns sample n of the endpoint, with a long queue or a short one.
func (q Queue) Sample(n int, long bool) (bus.Message, error) {
	at := begin.Add(time.Duration(n+1) * interval)
	s := healthSample(4, n, at)
	if long {
		s.Jobs.InQueue = new(int64(2000 + n))
	}
	return message(&eventv1.Event{
		OccurredAt: timestamppb.New(at), Target: q.target(), Source: eventv1.Source_SOURCE_POLL,
		Fact: &eventv1.Event_HealthSampled{HealthSampled: s},
	})
}

// errTooFew says that a fleet has no target of some kind.
var errTooFew = errors.New("a fleet has at least 8 targets, so that there are some of each kind")

// Validate tells whether the fleet has targets of all kinds.
func (f Fleet) Validate() error {
	if f.Targets < of {
		return fmt.Errorf("%d targets: %w", f.Targets, errTooFew)
	}
	return nil
}
