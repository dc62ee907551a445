package engine

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	eventv1 "github.com/tocsin-dev/tocsin/proto/gen/tocsin/event/v1"
)

// waits are rules that wait, each on another kind of fact.
const waits = `
groups:
  - name: g
    rules:
      - {alert: Queue, on: endpoint, expr: jobs.in_queue > 0, for: 5m, keep_firing_for: 5m}
      - {alert: Disabled, on: endpoint, expr: workers.max == 0, for: 5m, keep_firing_for: 5m}
      - {alert: Late, on: endpoint, expr: jobs.in_queue > 0, for: 30m}
      - {alert: NoData, on: endpoint, expr: "absent('2m')", for: 5m}
`

// vigil is an endpoint that is polled every 15 s, or not.
type vigil struct {
	*story
	queued int64
	silent bool
	began  time.Time
	all    []string
}

func newVigil(t *testing.T) *vigil {
	v := &vigil{story: newStory(t, compile(t, waits)), began: epoch}
	v.send(0, started())
	v.settings(3)
	return v
}

func (v *vigil) note(r StepResult) {
	for i, line := range told(r) {
		v.all = append(v.all, strings.Join([]string{line, "after", r.Transitions[i].GetAt().AsTime().Sub(v.began).String()}, " "))
	}
}

func (v *vigil) settings(workersMax int64) {
	v.t.Helper()
	v.note(v.send(0, &eventv1.Event{Target: endpoint("x"), Fact: &eventv1.Event_TargetChanged{TargetChanged: &eventv1.TargetChanged{
		Spec: &eventv1.TargetSpec{Kind: &eventv1.TargetSpec_Endpoint{Endpoint: &eventv1.EndpointSpec{WorkersMax: &workersMax}}},
	}}}))
}

// watch lets time pass, with a tick every 5 s and the polls.
func (v *vigil) watch(d time.Duration) {
	v.t.Helper()
	for at := 5 * time.Second; at <= d; at += 5 * time.Second {
		if v.silent || at%(15*time.Second) != 0 {
			v.note(v.send(5*time.Second, tick()))
		} else {
			v.note(v.queue(5*time.Second, "x", v.queued))
		}
	}
}

// expect compares what was told since the last call, each with the time since.
func (v *vigil) expect(want ...string) {
	v.t.Helper()
	if diff := cmp.Diff(want, v.all); diff != "" {
		v.t.Errorf("(-want +got):\n%s", diff)
	}
	v.all, v.began = nil, v.at
}

func TestAGapIsNoWait(t *testing.T) {
	for name, first := range map[string]*eventv1.Event{"a tick": tick(), "a collector": started()} {
		t.Run(name, func(t *testing.T) {
			v := newVigil(t)
			v.watch(time.Minute)
			v.settings(0)
			v.queued = 1
			v.watch(4 * time.Minute)
			v.expect()
			v.note(v.send(8*time.Hour, first))
			v.watch(time.Minute - 15*time.Second)
			v.expect()
			// 60 s of 5 minutes were left, and 75 s after the first poll.
			v.watch(time.Minute)
			v.expect("firing Disabled after 15s", "firing Queue after 45s")

			v.settings(3)
			v.queued = 0
			v.watch(4 * time.Minute)
			v.note(v.send(8*time.Hour, first))
			v.expect()
			v.watch(2 * time.Minute)
			v.expect("resolved Disabled after 1m0s", "resolved Queue after 1m30s")
		})
	}
}

func TestSilenceIsNoWait(t *testing.T) {
	v := newVigil(t)
	v.watch(time.Minute)
	v.queued = 1
	v.watch(4 * time.Minute)
	v.silent = true
	v.watch(20 * time.Minute)
	v.silent = false
	v.expect("firing NoData after 12m0s")
	// From its first poll on it had waited for 3:45, and for 45 s and a moment the
	// last one held; the rest comes after the first one that came again.
	v.watch(time.Minute)
	v.expect("resolved NoData after 15s", "firing Queue after 44.999s")
	v.watch(25 * time.Minute)
	v.expect("firing Late after 24m44.999s")

	v.queued = 0
	v.watch(2 * time.Minute)
	v.silent = true
	v.watch(4 * time.Minute)
	v.silent = false
	v.watch(2 * time.Minute)
	v.expect("resolved Late after 15s")
	v.watch(2 * time.Minute)
	v.expect("resolved Queue after 44.999s")
}

func TestSilenceThatMeansNothingYetIsNoWait(t *testing.T) {
	v := newVigil(t)
	v.watch(time.Minute)
	v.silent = true
	v.watch(4 * time.Minute)
	v.expect()
	// Absent for 2 minutes of the 5 when a collector starts; for the next 2
	// nothing is known, and 3 more are the rest.
	v.note(v.send(0, started()))
	v.watch(6 * time.Minute)
	v.expect("firing NoData after 5m0s")
}

func TestAGapIsNoSilence(t *testing.T) {
	v := newVigil(t)
	v.watch(time.Minute)
	v.silent = true
	v.watch(time.Minute)
	v.expect()
	v.note(v.send(time.Hour, tick()))
	v.expect()
	v.watch(8 * time.Minute)
	v.expect("firing NoData after 7m0s")
	// And it stays what it is through the next one.
	v.note(v.send(8*time.Hour, tick()))
	v.watch(8 * time.Minute)
	v.expect()
	v.silent = false
	v.watch(time.Minute)
	v.expect("resolved NoData after 15s")
}

// TestAValueOfLongAgoIsNone: engine time has seen 90 s since, and the sample holds
// for 3 minutes of any other.
func TestAValueOfLongAgoIsNone(t *testing.T) {
	s := newStory(t, compile(t, "groups: [{name: g, rules: [{alert: Idle, on: endpoint, expr: \"!present(jobs.in_queue)\"}]}]"))
	s.want(s.send(0, sampled(endpoint("x"), 1, time.Minute, &eventv1.JobCounts{InQueue: new(int64)}, nil)))
	s.send(100*time.Second, tick())
	e := &eventv1.Event{Target: endpoint("x"), Fact: &eventv1.Event_TargetChanged{TargetChanged: &eventv1.TargetChanged{}}}
	s.want(s.send(0, e))
	s.send(8*time.Hour, tick())
	s.want(s.send(0, e), "firing Idle")
}
