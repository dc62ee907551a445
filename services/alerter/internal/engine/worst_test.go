package engine

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	alertv1 "github.com/tocsin-dev/tocsin/proto/gen/tocsin/alert/v1"
	eventv1 "github.com/tocsin-dev/tocsin/proto/gen/tocsin/event/v1"
)

const worstRule = `
groups:
  - name: g
    rules:
      - alert: Queue
        on: endpoint
        expr: jobs.in_queue > 5 && workers.running < 4 && workers.max > 0
        for: 30s
        until: jobs.in_queue == 0
        keep_firing_for: 30s
`

// worstOf writes the worst of an alert, with the seconds since the epoch.
func worstOf(a *alertv1.Alert) string {
	var all []string
	for _, x := range a.GetEvidence().GetWorst() {
		side := "highest"
		if x.GetLowest() {
			side = "lowest"
		}
		all = append(all, fmt.Sprintf("%s %s %v at %v", side, x.GetName(), x.GetNumber(), x.GetAt().AsTime().Sub(epoch).Seconds()))
	}
	return strings.Join(all, ", ")
}

// only returns the one alert there is.
func (s *story) only() *alertv1.Alert {
	s.t.Helper()
	for a := range s.p.Alerts() {
		return a
	}
	s.t.Fatal("there is no alert")
	return nil
}

// busy is a sample with a queue and running workers, 15 s after the one before.
func (s *story) busy(queue int64, running *int64) StepResult {
	s.t.Helper()
	const step = 15 * time.Second
	return s.send(step, sampled(endpoint("x"), s.at.Add(step).UnixMilli(), step, &eventv1.JobCounts{InQueue: &queue}, &eventv1.WorkerCounts{Running: running}))
}

// allows sets the most workers of the endpoint.
func (s *story) allows(workers int64) {
	s.t.Helper()
	spec := &eventv1.TargetSpec{Kind: &eventv1.TargetSpec_Endpoint{Endpoint: &eventv1.EndpointSpec{WorkersMax: &workers}}}
	s.send(0, &eventv1.Event{Target: endpoint("x"), Fact: &eventv1.Event_TargetChanged{TargetChanged: &eventv1.TargetChanged{Spec: spec}}})
}

func TestTheWorstOfAnIncidentIsKept(t *testing.T) {
	for _, restart := range []bool{false, true} {
		t.Run(fmt.Sprintf("restart %v", restart), func(t *testing.T) {
			program := compile(t, worstRule)
			s := newStory(t, program)
			again := func() {
				if !restart {
					return
				}
				data, err := s.p.Snapshot()
				if err != nil {
					t.Fatal(err)
				}
				if s.p, err = Restore(data, 1); err != nil {
					t.Fatal(err)
				}
			}
			s.allows(9)
			s.busy(900, new(int64(8))) // before the incident: nothing of it counts
			s.want(s.busy(7, new(int64(3))))
			if got, want := worstOf(s.only()), "highest jobs.in_queue 7 at 30, lowest workers.running 3 at 30"; got != want {
				t.Errorf("pending: worst %q, want %q", got, want)
			}
			again()
			s.want(s.busy(212, new(int64(2)))) // the worst of the queue while nobody is told yet
			r := s.busy(40, new(int64(3)))     // the wait is over before this sample counts
			s.want(r, "firing Queue")
			firing := r.Transitions[0].GetAlert()
			if got, want := worstOf(firing), "highest jobs.in_queue 212 at 45, lowest workers.running 2 at 45"; got != want {
				t.Errorf("firing: worst %q, want %q", got, want)
			}
			if e := firing.GetEvidence(); e.GetDuration() != nil || len(e.GetValuesAtFiring()) > 0 {
				t.Errorf("an alert that fires has lasted %v and had the values %v", e.GetDuration(), e.GetValuesAtFiring())
			}
			again()
			s.busy(40, nil)                   // no value is not zero
			s.want(s.busy(30, new(int64(0)))) // and one that is zero is the least
			again()
			s.want(s.busy(0, new(int64(5))))
			s.want(s.busy(0, new(int64(1)))) // kept firing
			again()
			r = s.busy(0, new(int64(7))) // likewise
			s.want(r, "resolved Queue")
			over := r.Transitions[0].GetAlert()
			if got, want := worstOf(over), "highest jobs.in_queue 212 at 45, lowest workers.running 0 at 90"; got != want {
				t.Errorf("resolved: worst %q, want %q", got, want)
			}
			if got := over.GetEvidence().GetDuration().AsDuration(); got != 75*time.Second {
				t.Errorf("it fired for %v, want 75s", got)
			}
			values := func(list []*alertv1.Value) string {
				var all []string
				for _, v := range list {
					all = append(all, v.GetName()+" "+v.GetValue())
				}
				return strings.Join(all, ", ")
			}
			if diff := cmp.Diff("jobs.in_queue 212, workers.running 2, workers.max 9", values(over.GetEvidence().GetValuesAtFiring())); diff != "" {
				t.Errorf("values at firing (-want +got):\n%s", diff)
			}
			if diff := cmp.Diff("jobs.in_queue 0, workers.running 1, workers.max 9", values(over.GetEvidence().GetValues())); diff != "" {
				t.Errorf("values at the end (-want +got):\n%s", diff)
			}
		})
	}
}

func TestANewConditionForgetsTheWorstOfWhatItDoesNotCompare(t *testing.T) {
	a := compile(t, worstRule)
	b := compile(t, strings.ReplaceAll(worstRule, "workers.running < 4", "workers.running <= workers.max"))
	c := compile(t, strings.ReplaceAll(worstRule, "workers.running < 4", "jobs.in_progress < 4"))
	s := newStory(t, a, b, c)
	s.allows(9)
	s.busy(9, new(int64(3)))
	s.busy(7, new(int64(2)))
	s.send(0, activated(b.Hash()))
	if got, want := worstOf(s.only()), "highest jobs.in_queue 9 at 15, lowest workers.running 2 at 30"; got != want {
		t.Errorf("worst %q, want %q", got, want)
	}
	s.send(0, activated(c.Hash()))
	if got, want := worstOf(s.only()), "highest jobs.in_queue 9 at 15"; got != want {
		t.Errorf("worst %q, want %q", got, want)
	}
}

func TestTheNextIncidentHasAWorstOfItsOwn(t *testing.T) {
	s := newStory(t, compile(t, "groups: [{name: g, rules: [{alert: Queue, on: endpoint, expr: jobs.in_queue > 5}]}]"))
	s.want(s.queue(0, "x", 90), "firing Queue")
	s.want(s.queue(15*time.Second, "x", 0), "resolved Queue")
	s.want(s.queue(15*time.Second, "x", 9), "firing Queue")
	if got, want := worstOf(s.only()), "highest jobs.in_queue 9 at 30"; got != want {
		t.Errorf("worst %q, want %q", got, want)
	}
}

func TestWhatIsComparedWithALimitIsTheWorstFirst(t *testing.T) {
	s := newStory(t, compile(t, "groups: [{name: g, rules: [{alert: Queue, on: endpoint, expr: \"jobs.in_progress > 0 && jobs.completed > 0 && jobs.in_queue > 5\"}]}]"))
	s.send(0, sampled(endpoint("x"), s.at.UnixMilli(), 15*time.Second, &eventv1.JobCounts{InQueue: new(int64(9)), InProgress: new(int64(2)), Completed: new(int64(1))}, nil))
	if got, want := worstOf(s.only()), "highest jobs.in_queue 9 at 0, highest jobs.in_progress 2 at 0, highest jobs.completed 1 at 0"; got != want {
		t.Errorf("worst %q, want %q", got, want)
	}
}

func TestEvidenceIsBounded(t *testing.T) {
	wide := "min(jobs.in_queue, '2h') >= 0"
	for _, f := range []string{"jobs.in_progress", "workers.idle", "workers.ready", "workers.running", "workers.initializing", "workers.throttled", "workers.unhealthy"} {
		wide += fmt.Sprintf(" && min(%s, '2h') >= 0", f)
	}
	s := newStory(t, compile(t, `groups: [{name: g, rules: [{alert: Narrow, on: endpoint, expr: "min(jobs.in_queue, '2h') >= 0"}, {alert: Wide, on: endpoint, expr: "`+wide+`"}]}]`))
	fired := map[string]*alertv1.Alert{}
	for i := range int64(8 * 60 * 3) {
		const step = 15 * time.Second
		n := new(i % 7)
		r := s.send(step, sampled(endpoint("x"), s.at.Add(step).UnixMilli(), step, &eventv1.JobCounts{InQueue: n, InProgress: n},
			&eventv1.WorkerCounts{Idle: n, Ready: n, Running: n, Initializing: n, Throttled: n, Unhealthy: n}))
		for _, tr := range r.Transitions {
			fired[tr.GetAlert().GetRule()] = tr.GetAlert()
		}
	}
	for rule, most := range map[string]int{"Narrow": maxPoints, "Wide": allPoints / 8} {
		all := fired[rule].GetEvidence().GetSeries()
		if len(all) == 0 {
			t.Fatalf("%s shows no series", rule)
		}
		for _, series := range all {
			if n := len(series.GetPoints()); n > most || n < most*8/10 {
				t.Errorf("%s shows %d points of %s, want about %d and no more", rule, n, series.GetField(), most)
			}
		}
		if n := len(fired[rule].GetEvidence().GetWorst()); n > maxWorst {
			t.Errorf("%s keeps the worst of %d values, want at most %d", rule, n, maxWorst)
		}
	}
}
