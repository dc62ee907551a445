package engine

import (
	"strings"
	"testing"
	"time"

	"github.com/tocsin-dev/tocsin/services/alerter/rulefile"
)

func TestARuleSetComesIntoForceAtAPlaceOfTheLog(t *testing.T) {
	const before = `
groups:
  - name: g
    rules:
      - {alert: Same, on: endpoint, expr: jobs.in_queue > 1, for: 1m}
      - {alert: Faster, on: endpoint, expr: jobs.in_queue > 1, for: 10m}
      - {alert: Relabelled, on: endpoint, expr: jobs.in_queue > 1, labels: {severity: info}}
      - {alert: Removed, on: endpoint, expr: jobs.in_queue > 1}
      - {alert: Other, on: endpoint, expr: jobs.in_queue > 1}
`
	const after = `
groups:
  - name: g
    rules:
      - {alert: Relabelled, on: endpoint, expr: jobs.in_queue > 1, labels: {severity: page}}
      - {alert: Faster, on: endpoint, expr: jobs.in_queue > 1, for: 90s}
      - {alert: Same, on: endpoint, expr: jobs.in_queue > 1, for: 1m}
      - {alert: Other, on: endpoint, expr: jobs.in_queue > 100}
      - {alert: New, on: endpoint, expr: "min(jobs.in_queue, '15s') > 1"}
`
	a, b := compile(t, before), compile(t, after)
	s := newStory(t, a, b)
	s.want(s.queue(15*time.Second, "x", 9), "firing Relabelled", "firing Removed", "firing Other")
	s.queue(15*time.Second, "x", 9)
	s.queue(15*time.Second, "x", 9)
	r := s.send(0, activated(b.Hash()))
	s.want(r, "resolved Relabelled: rule changed", "resolved Removed: rule removed", "firing Relabelled", "resolved Other", "firing New")
	if s.p.RuleSetHash() != b.Hash() {
		t.Error("the rule set is not in force")
	}
	if again := s.send(0, activated(b.Hash())); len(again.Changes) > 0 {
		t.Errorf("the same rule set again makes %v", again.Changes)
	}
	// Same, then Faster: what was pending goes on from when it began.
	s.want(s.queue(15*time.Second, "x", 9))
	s.want(s.queue(15*time.Second, "x", 9), "firing Same")
	s.want(s.queue(15*time.Second, "x", 9))
	s.want(s.queue(15*time.Second, "x", 9), "firing Faster")
}

func TestWhatIsLeftOfALogIsJudgedByTheRulesItBeganWith(t *testing.T) {
	program := compile(t, "groups: [{name: g, rules: [{alert: A, on: endpoint, expr: jobs.in_queue > 5}]}]")
	p := NewPartition(0, "log", 1)
	p.Begin(program)
	e := sampledQueue(endpoint("x"), epoch.UnixMilli(), 9)
	r, err := p.Step(Message{Seq: 7, Time: epoch, Event: e}, known())
	if err != nil || len(r.Transitions) != 1 || p.RuleSetHash() != program.Hash() {
		t.Errorf("transitions %v, %v, by rule set %q; want one by %s", r.Transitions, err, p.RuleSetHash(), program.Hash())
	}
}

func TestARuleSetJudgesSilenceThatWasThereBefore(t *testing.T) {
	a := compile(t, queueRule)
	b := compile(t, "groups: [{name: g, rules: [{alert: NoData, on: endpoint, expr: \"absent('5m')\"}]}]")
	s := newStory(t, a, b)
	s.queue(0, "x", 0)
	for range 20 {
		s.send(time.Minute, tick())
	}
	s.want(s.send(0, activated(b.Hash())), "firing NoData")
}

func TestANameThatChangesChangesLabels(t *testing.T) {
	s := newStory(t, compile(t, queueRule, rulefile.TargetPattern{Match: `^(?P<team>\w+)-`}, rulefile.TargetPattern{Match: "^b-", Overrides: map[string]float64{"queue": 100}}))
	named := func(name string, n int64) StepResult {
		e := endpoint("x")
		e.Name = name
		return s.send(15*time.Second, sampledQueue(e, s.at.UnixMilli()+15_000, n))
	}
	for range 4 {
		named("a-x", 9)
	}
	if got := s.p.targets["a-endpoint-x"].labels["team"]; got != "a" {
		t.Errorf("team %q", got)
	}
	r := named("b-x", 9)
	s.want(r, "resolved Queue")
	if got := r.Transitions[0].GetAlert().GetLabels()["team"]; got != "a" {
		t.Errorf("the alert resolved with team %q; its identity must not change", got)
	}
	if got := s.p.targets["a-endpoint-x"].labels["team"]; got != "b" {
		t.Errorf("team %q after the new name", got)
	}
}

func TestCompileTellsEveryMistakeWithItsPlace(t *testing.T) {
	set, err := rulefile.Parse(map[string][]byte{"b.yaml": []byte(`groups:
  - name: g
    rules:
      - alert: A
        on: endpoint
        expr: >-
          jobs.in_queue > 1 &&
          jobs.in_que > 2
      - alert: B
        on: pod
        expr: gpu.count < gpu.expected
        until: gpu.cuont == 3
        annotations:
          summary: '{{ .Value "jobs.in_queue" }}'
      - alert: C
        on: pod
        expr: gpu.count < gpu.expected
        annotations:
          summary: '{{ .Value "jobs.in_queue" }}'
          fine: '{{ .Value "gpu.util_percent" }} {{ .Value "gpu.count" }}'
`)}, nil)
	if err != nil {
		t.Fatal(err)
	}
	_, err = Compile(set)
	if err == nil {
		t.Fatal("no mistake was found")
	}
	want := []string{
		"b.yaml:8:11: `jobs.in_que` is no field of an endpoint; did you mean `jobs.in_queue`?",
		"b.yaml:12:16: `gpu.cuont` is no field of a pod; did you mean `gpu.count`?",
		`b.yaml:19:20: the template ` + "`summary`" + ` of C is wrong`,
	}
	lines := strings.Split(err.Error(), "\n")
	if len(lines) != len(want) {
		t.Fatalf("%d mistakes, want %d:\n%v", len(lines), len(want), err)
	}
	for i := range want {
		if !strings.HasPrefix(lines[i], want[i]) {
			t.Errorf("mistake %d is\n%s\nwant\n%s", i, lines[i], want[i])
		}
	}
}

func TestAbsenceIsNoMatterOfJobs(t *testing.T) {
	set, err := rulefile.Parse(map[string][]byte{"a": []byte("groups: [{name: g, rules: [{alert: A, on: job, expr: \"absent('5m')\"}]}]")}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Compile(set); err == nil || !strings.Contains(err.Error(), "absent is for rules on endpoints") {
		t.Errorf("error %v", err)
	}
}
