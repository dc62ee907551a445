package engine

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	eventv1 "github.com/tocsin-dev/tocsin/proto/gen/tocsin/event/v1"
	"github.com/tocsin-dev/tocsin/services/alerter/rulefile"
)

// epoch is when the tests' logs begin.
var epoch = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// compile compiles rules and ends the test if they are wrong.
func compile(t testing.TB, rules string, targets ...rulefile.TargetPattern) *Program {
	t.Helper()
	set, err := rulefile.Parse(map[string][]byte{"rules.yaml": []byte(rules)}, targets)
	if err != nil {
		t.Fatal(err)
	}
	p, err := Compile(set)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// known finds programs by their hash.
func known(programs ...*Program) Programs {
	return func(hash string) *Program {
		for _, p := range programs {
			if p.Hash() == hash {
				return p
			}
		}
		return nil
	}
}

// world makes up a log: endpoints, pods and an account to which everything
// happens that can, at random but the same for the same seed.
type world struct {
	r     *rand.Rand
	rules []string
	at    time.Time
	seq   uint64
	slot  int64
	done  map[string]int64
}

func newWorld(seed uint64, programs ...*Program) *world {
	w := &world{r: rand.New(rand.NewPCG(seed, 99)), at: epoch, done: map[string]int64{}}
	for _, p := range programs {
		w.rules = append(w.rules, p.Hash())
	}
	return w
}

func (w *world) chance(percent int) bool { return w.r.IntN(100) < percent }

// next makes the next message.
func (w *world) next() Message {
	w.seq++
	switch {
	case w.chance(1):
		w.at = w.at.Add(time.Duration(w.r.Int64N(int64(8 * time.Hour))))
	case w.chance(1):
		w.at = w.at.Add(-time.Duration(w.r.Int64N(int64(time.Hour))))
	default:
		w.at = w.at.Add(time.Duration(w.r.Int64N(int64(6 * time.Second))))
	}
	w.slot = w.at.UnixMilli()
	m := Message{Seq: w.seq, Time: w.at}
	if w.seq == 1 {
		m.Event = activated(w.rules[0])
	} else if !w.chance(1) {
		m.Event = w.event()
	}
	if w.chance(10) {
		w.seq += w.r.Uint64N(5) // other partitions' messages
	}
	return m
}

func activated(hash string) *eventv1.Event {
	return &eventv1.Event{Fact: &eventv1.Event_RuleSetActivated{RuleSetActivated: &eventv1.RuleSetActivated{Hash: hash}}}
}

func tick() *eventv1.Event { return &eventv1.Event{Fact: &eventv1.Event_Tick{Tick: &eventv1.Tick{}}} }

func started() *eventv1.Event {
	return &eventv1.Event{Fact: &eventv1.Event_CollectorStarted{CollectorStarted: &eventv1.CollectorStarted{}}}
}

// event makes a fact up.
func (w *world) event() *eventv1.Event {
	switch n := w.r.IntN(100); {
	case n < 40:
		return w.held(w.health())
	case n < 55:
		return w.held(w.pod())
	case n < 62:
		return w.polled()
	case n < 82:
		return w.held(w.job())
	case n < 88:
		return tick()
	case n < 90:
		return &eventv1.Event{Target: w.target(), Fact: &eventv1.Event_PollFailed{PollFailed: &eventv1.PollFailed{
			Kind: eventv1.PollKind_POLL_KIND_HEALTH, Reason: eventv1.PollFailureReason_POLL_FAILURE_REASON_TIMEOUT, PollSlotMs: w.slot,
		}}}
	case n < 94:
		return &eventv1.Event{Target: w.target(), Fact: &eventv1.Event_TargetChanged{TargetChanged: &eventv1.TargetChanged{Spec: w.spec()}}}
	case n < 96:
		return &eventv1.Event{Target: w.target(), Fact: &eventv1.Event_TargetRemoved{TargetRemoved: &eventv1.TargetRemoved{}}}
	case n < 97:
		return started()
	case n < 98:
		return activated(w.rules[w.r.IntN(len(w.rules))])
	default:
		return &eventv1.Event{Target: account(), Fact: &eventv1.Event_InventoryShrunk{
			InventoryShrunk: &eventv1.InventoryShrunk{Known: 10, Vanished: w.r.Int64N(10), Over: w.chance(50)},
		}}
	}
}

func (w *world) held(e *eventv1.Event) *eventv1.Event {
	if w.chance(10) {
		e.Held = durationpb.New(time.Duration(w.r.Int64N(int64(2 * time.Minute))))
	}
	return e
}

func endpoint(id string) *eventv1.Target {
	return &eventv1.Target{Account: "a", Kind: eventv1.TargetKind_TARGET_KIND_ENDPOINT, Id: id, Name: id}
}

func pod(id string) *eventv1.Target {
	return &eventv1.Target{Account: "a", Kind: eventv1.TargetKind_TARGET_KIND_POD, Id: id, Name: id}
}

func account() *eventv1.Target {
	return &eventv1.Target{Account: "a", Kind: eventv1.TargetKind_TARGET_KIND_ACCOUNT, Id: "a"}
}

func (w *world) target() *eventv1.Target {
	if w.chance(40) {
		return pod(fmt.Sprintf("pod-%d", w.r.IntN(3)))
	}
	e := endpoint(fmt.Sprintf("end-%d", w.r.IntN(4)))
	if w.chance(20) {
		e.Name = "vision-" + e.GetName()
	}
	return e
}

func (w *world) spec() *eventv1.TargetSpec {
	return &eventv1.TargetSpec{Kind: &eventv1.TargetSpec_Endpoint{Endpoint: &eventv1.EndpointSpec{
		Type: eventv1.EndpointType_ENDPOINT_TYPE_QUEUE, WorkersMax: new(w.r.Int64N(4)), ExecutionTimeout: durationpb.New(time.Minute),
	}}}
}

func (w *world) health() *eventv1.Event {
	e := endpoint(fmt.Sprintf("end-%d", w.r.IntN(4)))
	w.done[e.GetId()] += w.r.Int64N(3)
	if w.chance(2) {
		w.done[e.GetId()] = 0
	}
	j := &eventv1.JobCounts{Completed: new(w.done[e.GetId()]), Failed: new(w.done[e.GetId()] / 3), InQueue: new(w.r.Int64N(4))}
	if w.chance(5) {
		j.Completed = nil
	}
	slot := w.slot
	if w.chance(5) {
		slot -= 60_000
	}
	return sampled(e, slot, 15*time.Second, j, &eventv1.WorkerCounts{Running: new(w.r.Int64N(3)), Unhealthy: new(w.r.Int64N(2)), Idle: new(w.r.Int64N(2))})
}

func sampled(e *eventv1.Target, slot int64, interval time.Duration, j *eventv1.JobCounts, w *eventv1.WorkerCounts) *eventv1.Event {
	return &eventv1.Event{Target: e, Fact: &eventv1.Event_HealthSampled{HealthSampled: &eventv1.HealthSampled{
		PollSlotMs: slot, Interval: durationpb.New(interval), Jobs: j, Workers: w,
	}}}
}

func (w *world) pod() *eventv1.Event {
	g := &eventv1.GpuSampled{PollSlotMs: w.slot, Interval: durationpb.New(30 * time.Second), Status: "RUNNING"}
	if w.chance(80) {
		g.UptimeSeconds, g.CpuPercent = new(w.r.Int64N(100)), new(float64(w.r.IntN(100)))
		g.Gpus = []*eventv1.Gpu{{UtilPercent: new(float64(w.r.IntN(100)))}}
	}
	return &eventv1.Event{Target: pod(fmt.Sprintf("pod-%d", w.r.IntN(3))), Fact: &eventv1.Event_GpuSampled{GpuSampled: g}}
}

func (w *world) polled() *eventv1.Event {
	return &eventv1.Event{Target: account(), Fact: &eventv1.Event_AccountPolled{AccountPolled: &eventv1.AccountPolled{
		Interval: durationpb.New(15 * time.Second), PollSlotMs: w.slot, Ok: w.r.Int64N(3), Failed: w.r.Int64N(3), Targets: 7, TargetsFailing: w.r.Int64N(7),
		FailedByReason: map[string]int64{"unauthorized": w.r.Int64N(2), "timeout": w.r.Int64N(2)},
	}}}
}

func (w *world) job() *eventv1.Event {
	e := endpoint(fmt.Sprintf("end-%d", w.r.IntN(4)))
	id := fmt.Sprintf("job-%d", w.r.IntN(200))
	if w.chance(20) {
		return &eventv1.Event{Target: e, Fact: &eventv1.Event_JobRegistered{JobRegistered: &eventv1.JobRegistered{JobId: id}}}
	}
	j := &eventv1.JobTransitioned{JobId: id, Attempt: w.r.Int32N(3), State: eventv1.JobState(1 + w.r.IntN(7)), DelayMs: new(w.r.Int64N(90_000))}
	if w.chance(50) {
		j.Error = &eventv1.JobError{
			Category: eventv1.JobErrorCategory(w.r.IntN(7)), Message: "it broke", Fingerprint: fmt.Sprintf("f%d", w.r.IntN(5)),
		}
	}
	return &eventv1.Event{Target: e, Fact: &eventv1.Event_JobTransitioned{JobTransitioned: j}}
}

// everything is a rule set that uses every function and kind of target.
const everything = `
groups:
  - name: endpoints
    rules:
      - {alert: Queue, on: endpoint, expr: jobs.in_queue > 1, for: 30s, labels: {severity: warning}}
      - {alert: Crash, on: endpoint, expr: "max(workers.unhealthy, '1m') > 0 && min(jobs.in_queue, '30s') >= 0", for: 1m,
         until: "increase(jobs.completed, '5m') > 2", keep_firing_for: 1m,
         annotations: {summary: '{{ .Name }} {{ .Value "jobs.in_queue" }} {{ $labels.team }}'}}
      - {alert: Watched, on: endpoint, expr: jobs.in_queue > 1, mode: observe, for: 10s}
      - {alert: Restive, on: endpoint, expr: jobs.in_queue > 1, flapping: {window: 3m, transitions: 4}}
      - {alert: Fitful, on: endpoint, expr: jobs.in_queue > 1, for: 5s, keep_firing_for: 5s, flapping: {window: 2m, transitions: 3}}
      - {alert: Longer, on: endpoint, expr: jobs.in_queue > 2}
      - {alert: NoData, on: endpoint, expr: "absent('2m') && endpoint.type == 'queue'", for: 1m}
      - {alert: Buckets, on: endpoint, expr: "count_true(workers.unhealthy > 0 && jobs.in_queue > 0, '5m', '30s') > 3"}
      - {alert: Often, on: endpoint, expr: jobs.in_queue > 1, times: 3 of 5 x 30s, for: 20s, keep_firing_for: 30s}
      - {alert: Seldom, on: endpoint, expr: workers.max == 0, times: 2 of 20 x 1m, until: workers.max > 1}
      - {alert: Slow, on: endpoint, expr: "rate(jobs.completed, '5m') < threshold('rate', 0.1) && avg(jobs.in_queue, '2m') > 1"}
      - {alert: Reduced, on: endpoint, expr: "delta(workers.max, '5m') < 0", keep_firing_for: 10m}
      - {alert: Stuck, on: endpoint, expr: "tracked.oldest_queued_s > 60 || tracked.overrun > 0 || increase(tracked.lost, '10m') > 0"}
      - {alert: Delay, on: endpoint, expr: "tracked.delay_p95_s > 60 && tracked.open > 2"}
      - {alert: Trend, on: endpoint, expr: "deriv(jobs.in_queue, '1m') > 0.01 && predict(jobs.in_queue, '1m', '5m') > 3"}
      - {alert: Long, on: endpoint, expr: "sum(jobs.in_queue, '1m') > 60 && first(jobs.in_queue, '1m') > 1 && count(jobs.in_queue, '1m') > 30"}
      - {alert: Burns, on: endpoint, expr: "burn_rate(jobs.failed, jobs.completed + jobs.failed, threshold('slo', 0.8), '5m') > 1.1"}
      - {alert: Restless, on: endpoint, expr: "changes(workers.max, '10m') > 2 || changes(jobs.completed, '1m') > 2"}
      - {alert: Unusual, on: endpoint, expr: "baseline(jobs.in_queue, '2d') >= 0 || baseline_spread(jobs.completed, '7d') >= 0 || jobs.in_queue > 1"}
      - {alert: Lasting, on: endpoint, expr: "increase(jobs.completed, '6h') > 5 && rate(jobs.failed, '1d') >= 0"}
      - {alert: Aged, on: endpoint, expr: "age(jobs.completed) > 1", for: 5s}
  - name: jobs
    rules:
      - {alert: Mostly, on: job, expr: "increase(job.failed, '1m') > 0", times: 2 of 10 x 1m}
      - {alert: JobFailed, on: job, expr: "increase(job.failed, '10m') >= 3 || job.fingerprint_new && job.category == 'oom'", keep_firing_for: 5m}
      - {alert: Mixed, on: job, expr: "count_true(job.failed > 2 && jobs.in_queue > 0, '2m', '30s') > 1"}
  - name: pods
    rules:
      - {alert: PodDown, on: pod, expr: "pod.gone || pod.status != 'RUNNING'", for: 1m}
      - {alert: Restarts, on: pod, expr: "increase(pod.restarts, '10m') >= 2", keep_firing_for: 2m}
      - {alert: Odd, on: pod, expr: "zscore(cpu.util_percent, '2m') > 1 && quantile(0.9, cpu.util_percent, '2m') - stddev(cpu.util_percent, '2m') > 10"}
      - {alert: Mute, on: pod, expr: gpu.util_percent > 97, no_data: fire, for: 10s}
      - {alert: Busy, on: pod, expr: cpu.util_percent > 80, no_data: resolve, until: cpu.util_percent < 20, keep_firing_for: 20s}
      - {alert: Idle, on: pod, expr: "max(gpu.util_percent, '2m') < 50 && last(cpu.util_percent, '1m') < 50"}
  - name: accounts
    rules:
      - {alert: Key, on: account, expr: polls.unauthorized > 0 && polls.ok == 0, for: 30s}
      - {alert: Blind, on: account, expr: "absent('2m')"}
      - {alert: Shrunk, on: account, expr: inventory.shrunk, for: 1m}
`

// lessThanEverything differs from everything: a rule is gone, one has another
// label, one another `for`, one another condition.
const lessThanEverything = `
groups:
  - name: endpoints
    rules:
      - {alert: Queue, on: endpoint, expr: jobs.in_queue > 1, for: 45s, labels: {severity: warning}}
      - {alert: Watched, on: endpoint, expr: jobs.in_queue > 1, for: 10s}
      - {alert: Restive, on: endpoint, expr: jobs.in_queue > 1}
      - {alert: Fitful, on: endpoint, expr: jobs.in_queue > 1, for: 5s, mode: observe, flapping: {window: 1m, transitions: 3}}
      - {alert: Longer, on: endpoint, expr: jobs.in_queue > 2, mode: observe}
      - {alert: NoData, on: endpoint, expr: "absent('3m')", for: 1m}
      - {alert: Often, on: endpoint, expr: jobs.in_queue > 1, times: 3 of 5 x 30s, for: 50s}
      - {alert: Seldom, on: endpoint, expr: workers.max == 0, times: 2 of 10 x 1m}
      - {alert: Buckets, on: endpoint, expr: "count_true(workers.unhealthy > 0, '5m', '30s') > 3", labels: {severity: info}}
      - {alert: Slow, on: endpoint, expr: "rate(jobs.completed, '10m') < 0.1 && max(jobs.in_queue, '3m') > 1"}
  - name: jobs
    rules:
      - {alert: JobFailed, on: job, expr: "increase(job.failed, '5m') >= 3", keep_firing_for: 5m}
  - name: pods
    rules:
      - {alert: PodDown, on: pod, expr: "pod.gone || pod.status != 'RUNNING'", for: 1m}
      - {alert: Mute, on: pod, expr: gpu.util_percent > 97, no_data: resolve, for: 10s}
  - name: accounts
    rules:
      - {alert: Blind, on: account, expr: "absent('2m')"}
`
