package engine

import (
	"fmt"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	alertv1 "github.com/tocsin-dev/tocsin/proto/gen/tocsin/alert/v1"
	eventv1 "github.com/tocsin-dev/tocsin/proto/gen/tocsin/event/v1"
)

// fleet is a log of endpoints that are polled every 15 s, with ticks between,
// by a clock that can be bent.
type fleet struct {
	t         *testing.T
	p         *Partition
	programs  Programs
	seq       uint64
	at        time.Time // the bus's clock
	slot      time.Time // the collector's clock
	endpoints int
	silent    map[int]bool
	fired     map[string]time.Time
	resolved  map[string]time.Time
}

const silence = `
groups:
  - name: silence
    rules:
      - {alert: NoData, on: endpoint, expr: "absent('5m')", for: 5m}
      - {alert: Blind, on: account, expr: "absent('2m')"}
`

func newFleet(t *testing.T, endpoints int) *fleet {
	t.Helper()
	program := compile(t, silence)
	f := &fleet{
		t: t, p: NewPartition(0, "log", 1), programs: known(program), at: epoch, slot: epoch, endpoints: endpoints,
		silent: map[int]bool{}, fired: map[string]time.Time{}, resolved: map[string]time.Time{},
	}
	f.send(activated(program.Hash()))
	f.send(started())
	return f
}

func (f *fleet) send(e *eventv1.Event) StepResult {
	f.t.Helper()
	f.seq++
	r, err := f.p.Step(Message{Seq: f.seq, Time: f.at, Event: e}, f.programs)
	if err != nil || len(r.Problems) > 0 {
		f.t.Fatalf("step: %v, %v", err, r.Problems)
	}
	for _, tr := range r.Transitions {
		key := tr.GetAlert().GetRule() + " " + tr.GetAlert().GetTarget().GetId()
		if tr.GetKind() == alertv1.TransitionKind_TRANSITION_KIND_FIRING {
			f.fired[key] = tr.GetAt().AsTime()
		} else {
			f.resolved[key] = tr.GetAt().AsTime()
		}
	}
	return r
}

// poll sends a round of samples, held for a while by the collector.
func (f *fleet) poll(held time.Duration) {
	f.t.Helper()
	for i := range f.endpoints {
		if !f.silent[i] {
			e := sampled(endpoint(fmt.Sprint(i)), f.slot.UnixMilli(), 15*time.Second, &eventv1.JobCounts{InQueue: new(int64(0))}, nil)
			e.Held = durationpb.New(held)
			f.send(e)
		}
	}
	f.send(&eventv1.Event{Target: account(), Fact: &eventv1.Event_AccountPolled{AccountPolled: &eventv1.AccountPolled{
		Interval: durationpb.New(15 * time.Second), PollSlotMs: f.slot.UnixMilli(),
	}}})
}

// watch lets a time pass in which everything is polled.
func (f *fleet) watch(d time.Duration) {
	f.t.Helper()
	for range d / (15 * time.Second) {
		for range 3 {
			f.at, f.slot = f.at.Add(5*time.Second), f.slot.Add(5*time.Second)
			f.send(tick())
		}
		f.poll(0)
	}
}

// pass lets a time pass in which only ticks come, at most a minute apart.
func (f *fleet) pass(d time.Duration) {
	f.t.Helper()
	for range d / time.Minute {
		f.at, f.slot = f.at.Add(time.Minute), f.slot.Add(time.Minute)
		f.send(tick())
	}
}

func TestTimeInWhichNobodyCouldPublishInventsNoSilence(t *testing.T) {
	for _, c := range []struct {
		name    string
		disturb func(*fleet)
	}{
		{"everything was off for 8 hours", func(f *fleet) {
			f.at, f.slot = f.at.Add(8*time.Hour), f.slot.Add(8*time.Hour)
			f.send(tick())
			f.send(started())
		}},
		{"the bus was away for 20 minutes", func(f *fleet) {
			f.at, f.slot = f.at.Add(20*time.Minute), f.slot.Add(20*time.Minute)
			f.send(tick())
		}},
		{"the bus was away and the collector held its samples", func(f *fleet) {
			f.at = f.at.Add(20 * time.Minute)
			for i := range 80 {
				f.slot = f.slot.Add(15 * time.Second)
				f.poll(20*time.Minute - time.Duration(i)*15*time.Second)
			}
		}},
		{"the bus's clock leaps by an hour", func(f *fleet) { f.at = f.at.Add(time.Hour) }},
		{"the bus's clock steps back by an hour", func(f *fleet) { f.at = f.at.Add(-time.Hour) }},
		{"the collector's clock steps back by an hour", func(f *fleet) { f.slot = f.slot.Add(-time.Hour) }},
		{"the collector's clock leaps by a day and back", func(f *fleet) {
			f.slot = f.slot.Add(24 * time.Hour)
			f.watch(time.Minute)
			f.slot = f.slot.Add(-24 * time.Hour)
		}},
		{"the collector was started anew after a minute", func(f *fleet) {
			f.pass(time.Minute)
			f.send(started())
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := newFleet(t, 20)
			f.watch(10 * time.Minute)
			c.disturb(f)
			f.watch(10 * time.Minute)
			if len(f.fired) > 0 {
				t.Fatalf("invented: %v", f.fired)
			}
			// And a silence that is one is told, in time.
			f.silent[3] = true
			since := f.at
			f.watch(11 * time.Minute)
			if len(f.fired) != 1 || f.fired["NoData 3"].Sub(since) != 10*time.Minute {
				t.Errorf("fired %v; want NoData of 3, ten minutes after %v", f.fired, since)
			}
			f.silent[3] = false
			f.watch(time.Minute)
			if _, ok := f.resolved["NoData 3"]; !ok {
				t.Error("it did not resolve when the endpoint was heard of again")
			}
		})
	}
}

func TestACollectorThatIsAwayIsTold(t *testing.T) {
	f := newFleet(t, 3)
	f.watch(10 * time.Minute)
	since := f.at
	f.pass(9 * time.Minute)
	if len(f.fired) != 1 || f.fired["Blind a"].Sub(since) != 2*time.Minute {
		t.Errorf("fired %v; want only Blind, two minutes after %v", f.fired, since)
	}
	// A collector that begins again does not mean that all is well: the alert
	// stays until something is heard, and nothing else is blamed meanwhile.
	f.send(started())
	f.pass(4 * time.Minute)
	if len(f.resolved) > 0 || len(f.fired) != 1 {
		t.Errorf("resolved %v, fired %v; want nothing yet", f.resolved, f.fired)
	}
	f.poll(0)
	if _, ok := f.resolved["Blind a"]; !ok {
		t.Error("Blind did not resolve with the account's heartbeat")
	}
}

// TestACollectorThatDiesBeforeItPollsHidesNoSilence starts a collector every
// minute, which has not polled anything by then.
func TestACollectorThatDiesBeforeItPollsHidesNoSilence(t *testing.T) {
	f := newFleet(t, 3)
	f.watch(10 * time.Minute)
	since := f.at
	for range 15 {
		f.pass(time.Minute)
		f.send(started())
	}
	for what, after := range map[string]time.Duration{"Blind a": 3 * time.Minute, "NoData 0": 11 * time.Minute} {
		if got, ok := f.fired[what]; !ok || got.Sub(since) != after {
			t.Errorf("%s fired at %v, want %v after %v: a minute and its wait", what, got, after, since)
		}
	}
	f.poll(0)
	f.send(started())
	f.silent[0] = true
	since = f.at
	f.watch(9 * time.Minute)
	f.send(started())
	f.watch(10 * time.Minute)
	if got := f.fired["NoData 0"].Sub(since); got != 15*time.Minute {
		t.Errorf("NoData fired %v after an endpoint fell silent, want 15 min: 4 waited, a start of a collector that polls others, 5 in which silence means nothing, and 1", got)
	}
}

func TestAnEndpointThatWasNeverHeardOfIsTold(t *testing.T) {
	f := newFleet(t, 0)
	f.send(&eventv1.Event{Target: endpoint("new"), Fact: &eventv1.Event_TargetDiscovered{TargetDiscovered: &eventv1.TargetDiscovered{}}})
	f.pass(9 * time.Minute)
	if len(f.fired) > 0 {
		t.Errorf("fired too early: %v", f.fired)
	}
	f.pass(time.Minute)
	if len(f.fired) != 1 {
		t.Errorf("fired %v, want NoData", f.fired)
	}
}

func TestTimersFireAtTheirOwnInstants(t *testing.T) {
	program := compile(t, `
groups:
  - name: g
    rules:
      - {alert: A, on: endpoint, expr: jobs.in_queue > 0, for: 20s}
      - {alert: B, on: endpoint, expr: jobs.in_queue > 0, for: 10s}
`)
	p := NewPartition(0, "log", 1)
	step := func(seq uint64, after time.Duration, e *eventv1.Event) []*alertv1.Transition {
		t.Helper()
		r, err := p.Step(Message{Seq: seq, Time: epoch.Add(after), Event: e}, known(program))
		if err != nil {
			t.Fatal(err)
		}
		return r.Transitions
	}
	queue := func(n int64, slot int64) *eventv1.Event {
		return sampled(endpoint("x"), slot, 15*time.Second, &eventv1.JobCounts{InQueue: &n}, nil)
	}
	step(1, 0, activated(program.Hash()))
	step(2, time.Second, queue(5, 1))
	if d, ok := p.Deadline(); !ok || d != 10*time.Second {
		t.Errorf("deadline %v, %v; want 10 s", d, ok)
	}
	// The message that lets 29 s pass says that the queue is empty: what was due
	// before it happens first, at its own instant and in its order.
	got := step(3, 30*time.Second, queue(0, 2))
	if len(got) != 4 {
		t.Fatalf("%d transitions, want four", len(got))
	}
	for i, want := range []struct {
		rule string
		kind alertv1.TransitionKind
		at   time.Duration
	}{
		{"B", alertv1.TransitionKind_TRANSITION_KIND_FIRING, 11 * time.Second},
		{"A", alertv1.TransitionKind_TRANSITION_KIND_FIRING, 21 * time.Second},
		{"A", alertv1.TransitionKind_TRANSITION_KIND_RESOLVED, 30 * time.Second},
		{"B", alertv1.TransitionKind_TRANSITION_KIND_RESOLVED, 30 * time.Second},
	} {
		tr := got[i]
		if tr.GetAlert().GetRule() != want.rule || tr.GetKind() != want.kind || !tr.GetAt().AsTime().Equal(epoch.Add(want.at)) {
			t.Errorf("transition %d is %s %s at %v, want %+v", i, tr.GetAlert().GetRule(), tr.GetKind(), tr.GetAt().AsTime(), want)
		}
		if c := tr.GetCause(); c.GetLogId() != "log" || c.GetSequence() != 3 || c.GetIndex() != uint32(i) {
			t.Errorf("transition %d has the cause %v", i, c)
		}
	}
	if _, ok := p.Deadline(); ok {
		t.Error("a timer is left")
	}
}

func TestADemoRunsFasterAndShowsTheTimeOfTheWorld(t *testing.T) {
	program := compile(t, `
groups:
  - name: g
    rules:
      - {alert: A, on: endpoint, expr: "min(jobs.in_queue, '5m') > 0", for: 1m}
`)
	p := NewPartition(0, "log", 10)
	var fired []*alertv1.Transition
	for i := range int64(60) {
		e := sampled(endpoint("x"), i*1000, time.Second, &eventv1.JobCounts{InQueue: new(int64(5))}, nil)
		if i == 0 {
			e = activated(program.Hash())
		}
		r, err := p.Step(Message{Seq: uint64(i) + 1, Time: epoch.Add(time.Duration(i) * time.Second), Event: e}, known(program))
		if err != nil {
			t.Fatal(err)
		}
		fired = append(fired, r.Transitions...)
	}
	// Nine tenths of 5 min are 27 s at ten times the speed, and `for` is 6 s.
	if len(fired) != 1 || fired[0].GetAt().AsTime().Sub(epoch) != 34*time.Second {
		t.Fatalf("fired %v, want once after 34 s", fired)
	}
	if s := fired[0].GetAlert().GetEvidence().GetSeries()[0].GetPoints()[0].GetSecondsAgo(); s != 33 {
		t.Errorf("the course begins %v s ago, want 33 s of the world", s)
	}
}

func TestALateSampleIsHistory(t *testing.T) {
	program := compile(t, `
groups:
  - name: g
    rules:
      - {alert: Queue, on: endpoint, expr: jobs.in_queue > 0}
      - {alert: Failed, on: endpoint, expr: "increase(jobs.failed, '10m') > 5"}
`)
	p := NewPartition(0, "log", 1)
	send := func(seq uint64, after time.Duration, e *eventv1.Event) StepResult {
		t.Helper()
		r, err := p.Step(Message{Seq: seq, Time: epoch.Add(after), Event: e}, known(program))
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	health := func(slot time.Duration, queue, failed int64, held time.Duration) *eventv1.Event {
		e := sampled(endpoint("x"), slot.Milliseconds(), 15*time.Second, &eventv1.JobCounts{InQueue: &queue, Failed: &failed}, nil)
		e.Held = durationpb.New(held)
		return e
	}
	send(1, 0, activated(program.Hash()))
	send(2, 15*time.Second, health(15*time.Second, 0, 100, 0))
	if r := send(3, 75*time.Second, health(30*time.Second, 9, 110, 45*time.Second)); len(r.Changes) > 0 {
		t.Errorf("a late sample made %v", r.Changes)
	}
	if r := send(4, 76*time.Second, health(20*time.Second, 9, 0, 56*time.Second)); len(r.Changes) > 0 {
		t.Errorf("an older late sample made %v", r.Changes)
	}
	r := send(5, 90*time.Second, health(90*time.Second, 0, 110, 0))
	if len(r.Transitions) != 1 || r.Transitions[0].GetAlert().GetRule() != "Failed" {
		t.Errorf("then %v; want Failed, whose counter the late sample raised by 10 once", r.Transitions)
	}
	for _, target := range []string{"x"} {
		for _, s := range p.Targets() {
			if s.GetTarget().GetId() == target && s.GetLastSampleAt().AsTime() != epoch.Add(90*time.Second) {
				t.Errorf("last sample at %v", s.GetLastSampleAt().AsTime())
			}
		}
	}
}
