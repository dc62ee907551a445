package engine

import (
	"fmt"
	"testing"
	"time"

	eventv1 "github.com/tocsin-dev/tocsin/proto/gen/tocsin/event/v1"
)

// TestRulesReadStatisticsOfWindows tries each function with an endpoint whose queue
// grows by one with each of 41 polls, and whose 20th poll changed its settings.
func TestRulesReadStatisticsOfWindows(t *testing.T) {
	for _, c := range []struct {
		cond  string
		holds bool
	}{
		{"deriv(jobs.in_queue, '10m') > 0.066", true},
		{"deriv(jobs.in_queue, '10m') > 0.067", false},
		{"predict(jobs.in_queue, '10m', '10m') > 79", true},
		{"predict(jobs.in_queue, '10m', '10m') > 80", false},
		{"sum(jobs.in_queue, '10m') == 11700.0", true},
		{"count(jobs.in_queue, '10m') == 600", true},
		{"count(jobs.failed, '10m') == 600", true},
		{"first(jobs.in_queue, '5m') == 20", true},
		{"stddev(jobs.in_queue, '10m') > 11.5 && stddev(jobs.in_queue, '10m') < 11.6", true},
		{"zscore(jobs.in_queue, '10m') > 1.7", true},
		{"zscore(jobs.in_queue, '10m') > 1.8", false},
		{"quantile(0.5, jobs.in_queue, '10m') == 19", true},
		{"changes(jobs.in_queue, '5m') == 20", true},
		{"changes(workers.max, '10m') == 1", true},
		{"changes(jobs.failed, '10m') == 0", true},
		{"age(jobs.in_queue) == 0", true},
	} {
		t.Run(c.cond, func(t *testing.T) {
			s := newStory(t, compile(t, fmt.Sprintf("groups: [{name: g, rules: [{alert: A, on: endpoint, expr: %q}]}]", c.cond+" && jobs.in_queue == 40")))
			for i := range int64(41) {
				s.settings(0, "x", min(1+i/20, 2))
				r := s.send(15*time.Second, sampled(endpoint("x"), s.at.UnixMilli()+15_000, 15*time.Second, &eventv1.JobCounts{InQueue: &i, Failed: new(int64(3))}, nil))
				if c.holds && i == 40 {
					s.want(r, "firing A")
				} else {
					s.want(r)
				}
			}
		})
	}
}

// settings tells the most workers that an endpoint may have.
func (s *story) settings(after time.Duration, id string, workersMax int64) StepResult {
	s.t.Helper()
	return s.send(after, &eventv1.Event{Target: endpoint(id), Fact: &eventv1.Event_TargetChanged{TargetChanged: &eventv1.TargetChanged{
		Spec: &eventv1.TargetSpec{Kind: &eventv1.TargetSpec_Endpoint{Endpoint: &eventv1.EndpointSpec{WorkersMax: &workersMax}}},
	}}})
}

func TestAFieldThatIsLeftOutAges(t *testing.T) {
	s := newStory(t, compile(t, "groups: [{name: g, rules: [{alert: Aged, on: endpoint, expr: age(jobs.in_queue) > 60}]}]"))
	without := func(after time.Duration) StepResult {
		return s.send(after, sampled(endpoint("x"), s.at.Add(after).UnixMilli(), 15*time.Second, nil, nil))
	}
	s.want(without(0)) // it never had one
	s.want(s.queue(15*time.Second, "x", 1))
	for range 5 {
		s.want(without(15 * time.Second))
	}
	s.want(without(15*time.Second), "firing Aged")
	s.want(s.queue(15*time.Second, "x", 1), "resolved Aged")
}

// TestAGapAgesNothing: engine time has seen 90 s of it.
func TestAGapAgesNothing(t *testing.T) {
	s := newStory(t, compile(t, "groups: [{name: g, rules: [{alert: Aged, on: endpoint, expr: age(jobs.in_queue) > 150}]}]"))
	without := func(after time.Duration) StepResult {
		return s.send(after, sampled(endpoint("x"), s.at.Add(after).UnixMilli(), 15*time.Second, nil, nil))
	}
	s.want(s.queue(15*time.Second, "x", 1))
	s.want(without(15 * time.Second))
	s.want(without(8 * time.Hour))
	s.want(without(time.Minute))
	s.want(without(15*time.Second), "firing Aged")
}
