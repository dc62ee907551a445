package engine

import (
	"testing"
	"time"

	eventv1 "github.com/tocsin-dev/tocsin/proto/gen/tocsin/event/v1"
)

func TestWhatIsDroppedIsNotInTheNextDeltaAndWhatFollowsIs(t *testing.T) {
	program := compile(t, "groups: [{name: g, rules: [{alert: A, on: endpoint, expr: jobs.in_queue > 1}]}]")
	w := newWorld(1, program)
	p := NewPartition(0, "log", 1)
	step := func(n int) {
		for range n {
			if _, err := p.Step(w.next(), known(program)); err != nil {
				t.Fatal(err)
			}
		}
	}
	step(300)
	if p.TargetCount() == 0 || len(p.dirty.targets) == 0 || len(p.dirty.alerts) == 0 {
		t.Fatal("nothing happened")
	}
	p.DropDelta()
	if d := p.Delta(); len(d.Targets) != 0 || len(d.Active) != 0 {
		t.Errorf("after it was dropped: %v", d)
	}
	step(300)
	if d := p.Delta(); len(d.Targets) == 0 || len(d.Active) == 0 {
		t.Error("what happened later is not told")
	}
}

func TestConditionsAreCountedByKindAndForEachCategory(t *testing.T) {
	program := compile(t, `
groups:
- name: g
  rules:
  - {alert: One, on: endpoint, expr: "count_true(jobs.in_queue > 1, '5m', '30s') > 3 && max(jobs.in_queue, '5m') > 1"}
  - {alert: Two, on: endpoint, expr: "count_true(jobs.in_queue > 2, '5m', '30s') > 3"}
  - {alert: Same, on: endpoint, expr: "count_true(jobs.in_queue > 2, '5m', '30s') > 4"}
  - {alert: Failed, on: job, expr: "count_true(job.failed > 2, '2m', '30s') > 1"}
  - {alert: Pods, on: pod, expr: "count_true(gpu.util_max > 2, '5m', '30s') > 3"}
`)
	const perEndpoint, perPod = 2 + 6, 1
	w := newWorld(1, program)
	p := NewPartition(0, "log", 1)
	counted := 0
	for i := range 6000 {
		if _, err := p.Step(w.next(), known(program)); err != nil {
			t.Fatal(err)
		}
		want, there := 0, 0
		for _, target := range p.targets {
			switch target.target.GetKind() {
			case eventv1.TargetKind_TARGET_KIND_ENDPOINT:
				want += perEndpoint
			case eventv1.TargetKind_TARGET_KIND_POD:
				want += perPod
			}
			if target.live() {
				there += conditionsIn(program.recorded[target.target.GetKind()]) + len(target.failures)*conditionsIn(program.failures)
			}
		}
		got := p.ConditionCount()
		if got != want || there > got {
			t.Fatalf("message %d: %d are counted, want %d; %d are there", i, got, want, there)
		}
		counted = max(counted, got)
	}
	if counted == 0 {
		t.Error("nothing was counted")
	}
}

func TestConditionsOfTargetsThatAreForgottenDoNotCount(t *testing.T) {
	program := compile(t, `groups: [{name: g, rules: [{alert: A, on: endpoint, expr: "count_true(jobs.in_queue > 1, '5m', '30s') > 3"}]}]`)
	s := newStory(t, program)
	s.queue(time.Second, "x", 0)
	s.queue(time.Second, "y", 0)
	d := s.p.Delta()
	p, err := Load(d.Head, d.Targets, d.Active, 1)
	if err != nil {
		t.Fatal(err)
	}
	s.send(time.Second, &eventv1.Event{Target: endpoint("x"), Fact: &eventv1.Event_TargetRemoved{TargetRemoved: &eventv1.TargetRemoved{}}})
	if n := s.p.ConditionCount(); n != 2 {
		t.Errorf("%d count, want 2: what was removed is known for a day", n)
	}
	for range keepGone/time.Minute + 1 { // longer silence would be a gap, in which time stands
		s.send(time.Minute, tick())
	}
	if n := s.p.ConditionCount(); n != 1 {
		t.Errorf("%d count after it was forgotten, want 1", n)
	}
	if p.attach(program); p.ConditionCount() != 2 {
		t.Errorf("%d count after a load, want 2", p.ConditionCount())
	}
}
