package engine

import (
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	eventv1 "github.com/tocsin-dev/tocsin/proto/gen/tocsin/event/v1"
	"github.com/tocsin-dev/tocsin/services/alerter/rulefile"
)

// burns is a rule for two windows, as is usual for objectives: what is told must be
// bad for long enough, and still be.
const burns = `
groups:
  - name: g
    rules:
      - alert: Burns
        on: endpoint
        expr: >-
          burn_rate(jobs.failed, jobs.completed + jobs.failed, threshold('slo', 0.99), '1h') > 10 &&
          burn_rate(jobs.failed, jobs.completed + jobs.failed, threshold('slo', 0.99), '5m') > 10
`

// budget is an endpoint that finishes jobs, some of which fail.
type budget struct {
	*story
	completed, failed int64
}

// work finishes 4 jobs a minute for a time, of which some of a hundred fail, and
// returns what is told of it and when.
func (b *budget) work(d time.Duration, failing int64) (lines []string) {
	b.t.Helper()
	for end, n := b.at.Add(d), int64(0); b.at.Before(end); n++ {
		if n*failing/100 > (n-1)*failing/100 {
			b.failed++
		} else {
			b.completed++
		}
		e := sampled(endpoint("x"), b.at.UnixMilli()+15_000, 15*time.Second, &eventv1.JobCounts{Completed: &b.completed, Failed: &b.failed}, nil)
		for _, line := range told(b.send(15*time.Second, e)) {
			lines = append(lines, fmt.Sprint(line, " ", b.at.Sub(epoch)))
		}
	}
	return lines
}

func TestABudgetThatBurnsIsTold(t *testing.T) {
	b := &budget{story: newStory(t, compile(t, burns))}
	if lines := b.work(2*time.Hour, 5); len(lines) > 0 {
		t.Errorf("five times the budget: %v", lines)
	}
	// Half of the jobs fail: an hour is bad enough when 24 of its 240 have failed,
	// which 12 did before in even distances.
	lines := b.work(time.Hour, 50)
	if len(lines) != 1 || lines[0][:12] != "firing Burns" {
		t.Fatalf("fifty times the budget: %v", lines)
	}
	if after, err := time.ParseDuration(lines[0][13:]); err != nil || after < 2*time.Hour+5*time.Minute || after > 2*time.Hour+8*time.Minute {
		t.Errorf("%v, want about 6 minutes after 2 h", lines)
	}
	began := b.at.Sub(epoch)
	lines = b.work(time.Hour, 0)
	if len(lines) != 1 || lines[0][:14] != "resolved Burns" {
		t.Fatalf("none fails: %v", lines)
	}
	if after, err := time.ParseDuration(lines[0][15:]); err != nil || after < began+3*time.Minute || after > began+5*time.Minute {
		t.Errorf("%v, want less than 5 minutes after %v", lines, began)
	}
}

func TestAnObjectiveCanBeOverridden(t *testing.T) {
	for override, want := range map[float64][]string{
		0.5:  nil, // a burn rate of 2
		99:   nil, // no objective: no value
		0.85: nil, // of 7
		0.95: {"firing Burns"},
	} {
		b := &budget{story: newStory(t, compile(t, burns, rulefile.TargetPattern{Match: "x", Overrides: map[string]float64{"slo": override}}))}
		lines := b.work(15*time.Second, 0)
		lines = append(lines, b.work(time.Hour, 100)...)
		if len(lines) != len(want) {
			t.Errorf("with an objective of %v %v is told, want %v", override, lines, want)
		}
	}
}

// TestWhatNobodySawBurnsNothing: of a night in which half of the jobs failed nobody
// knows what part belongs to the last hour.
func TestWhatNobodySawBurnsNothing(t *testing.T) {
	b := &budget{story: newStory(t, compile(t, burns))}
	if lines := b.work(2*time.Hour, 1); len(lines) > 0 {
		t.Fatalf("before the night: %v", lines)
	}
	b.send(8*time.Hour, tick())
	b.completed, b.failed = b.completed+1000, b.failed+1000
	if lines := b.work(50*time.Minute, 0); len(lines) > 0 {
		t.Errorf("after the night: %v", lines)
	}
}

// TestNothingThatHappensBurnsNothing: 0 of 0 is no missing value.
func TestNothingThatHappensBurnsNothing(t *testing.T) {
	s := newStory(t, compile(t, "groups: [{name: g, rules: [{alert: A, on: endpoint, expr: \"burn_rate(jobs.failed, jobs.completed + jobs.failed, 0.9, '5m') == 0\"}]}]"))
	e := func() *eventv1.Event {
		return sampled(endpoint("x"), s.at.UnixMilli()+15_000, 15*time.Second, &eventv1.JobCounts{Completed: new(int64(7)), Failed: new(int64(3))}, nil)
	}
	r := s.send(15*time.Second, e())
	s.want(r, "firing A")
	a := r.Transitions[0].GetAlert()
	if v := a.GetEvidence().GetValues(); len(v) != 1 || v[0].GetName() != "burn_rate(jobs.failed, jobs.completed + jobs.failed, 0.9, '5m')" {
		t.Errorf("the evidence holds %v", v)
	}
	var fields []string
	for _, series := range a.GetEvidence().GetSeries() {
		fields = append(fields, series.GetField())
	}
	if diff := cmp.Diff([]string{"jobs.failed", "jobs.completed"}, fields); diff != "" {
		t.Error(diff)
	}
}
