package engine

import (
	"fmt"
	"hash/fnv"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/testing/protocmp"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	alertv1 "github.com/tocsin-dev/tocsin/proto/gen/tocsin/alert/v1"
	eventv1 "github.com/tocsin-dev/tocsin/proto/gen/tocsin/event/v1"
	"github.com/tocsin-dev/tocsin/services/alerter/rulefile"
)

// story sends events to a partition, each some time after the one before.
type story struct {
	t        *testing.T
	p        *Partition
	programs Programs
	seq      uint64
	at       time.Time
}

func newStory(t *testing.T, programs ...*Program) *story {
	t.Helper()
	s := &story{t: t, p: NewPartition(3, "log", 1), programs: known(programs...), at: epoch}
	s.send(0, activated(programs[0].Hash()))
	return s
}

func (s *story) send(after time.Duration, e *eventv1.Event) StepResult {
	s.t.Helper()
	s.seq++
	s.at = s.at.Add(after)
	r, err := s.p.Step(Message{Seq: s.seq, Time: s.at, Event: e}, s.programs)
	if err != nil {
		s.t.Fatal(err)
	}
	return r
}

// queue is a sample of an endpoint with a queue, taken now.
func (s *story) queue(after time.Duration, id string, n int64) StepResult {
	s.t.Helper()
	slot := s.at.Add(after).UnixMilli()
	return s.send(after, sampled(endpoint(id), slot, 15*time.Second, &eventv1.JobCounts{InQueue: &n}, nil))
}

func (s *story) job(after time.Duration, id string, j *eventv1.JobTransitioned) StepResult {
	s.t.Helper()
	return s.send(after, &eventv1.Event{Target: endpoint(id), Fact: &eventv1.Event_JobTransitioned{JobTransitioned: j}})
}

// told writes what people may be told of, in short.
func told(r StepResult) []string {
	var all []string
	for _, t := range r.Transitions {
		text := strings.ToLower(strings.TrimPrefix(t.GetKind().String(), "TRANSITION_KIND_")) + " " + t.GetAlert().GetRule()
		if reason := t.GetAlert().GetResolveReason(); reason != "" {
			text += ": " + reason
		}
		all = append(all, text)
	}
	return all
}

func (s *story) want(r StepResult, want ...string) {
	s.t.Helper()
	if got := told(r); !slices.Equal(got, want) {
		s.t.Errorf("message %d tells %v, want %v (problems %v)", s.seq, got, want, r.Problems)
	}
}

const queueRule = `
groups:
  - name: g
    rules:
      - alert: Queue
        on: endpoint
        expr: jobs.in_queue > threshold('queue', 5) && min(jobs.in_queue, '30s') >= 0
        for: 15s
        labels: {severity: warning, team: nobody}
        annotations:
          summary: '{{ .Name }}: {{ .Value "jobs.in_queue" }} over {{ $value }} ({{ $labels.team }})'
`

func TestAnAlertSaysAllAboutItself(t *testing.T) {
	s := newStory(t, compile(t, queueRule, rulefile.TargetPattern{
		Match: `^(?P<team>\w+)-`, Labels: map[string]string{"env": "prod"}, Overrides: map[string]float64{"queue": 7},
	}))
	s.queue(0, "vision-a", 1)
	s.queue(15*time.Second, "vision-a", 4)
	s.queue(15*time.Second, "vision-a", 9)
	pending := s.p.byID
	if len(pending) != 1 {
		t.Fatalf("%d alerts, want one that is pending", len(pending))
	}
	s.queue(10*time.Second, "vision-a", 12)
	r := s.send(5*time.Second, tick())
	s.want(r, "firing Queue")
	got := r.Transitions[0]
	labels := map[string]string{
		"alertname": "Queue", "account": "a", "endpoint_id": "vision-a", "severity": "warning",
		// The target's own labels win over the rule's.
		"team": "vision", "env": "prod",
	}
	number := func(f float64) *float64 { return &f }
	want := &alertv1.Alert{
		// The id is of the moment at which it became pending; see TestNames.
		Id: got.GetAlert().GetId(), Fingerprint: fingerprintOf(labels), Group: "g", Rule: "Queue", Target: endpoint("vision-a"),
		Labels: labels, Annotations: map[string]string{"summary": "vision-a: 12 over 12 (vision)", "target_name": "vision-a"},
		State: alertv1.AlertState_ALERT_STATE_FIRING,
		Evidence: &alertv1.Evidence{
			Expression: "jobs.in_queue > threshold('queue', 5) && min(jobs.in_queue, '30s') >= 0",
			Values: []*alertv1.Value{
				{Name: "jobs.in_queue", Value: "12", Number: number(12)},
				{Name: "threshold('queue', 5)", Value: "7", Number: number(7)},
				{Name: "min(jobs.in_queue, '30s')", Value: "4", Number: number(4)},
			},
			Series: []*alertv1.Series{{Field: "jobs.in_queue", Points: []*alertv1.Point{
				{SecondsAgo: 45, Value: number(1)}, {SecondsAgo: 30, Value: number(4)}, {SecondsAgo: 15, Value: number(9)}, {SecondsAgo: 5, Value: number(12)},
			}}},
			Worst: []*alertv1.Extreme{
				{Name: "jobs.in_queue", Number: 12, At: timestamppb.New(s.at.Add(-5 * time.Second))},
				{Name: "min(jobs.in_queue, '30s')", Number: 4, At: timestamppb.New(s.at)},
			},
		},
	}
	if d := got.GetAlert().GetEvidence().GetDiagnosis(); d.GetCause() != alertv1.DiagnosisCause_DIAGNOSIS_CAUSE_UNKNOWN {
		t.Errorf("diagnosis %v; nothing is known of the workers", d)
	}
	if diff := cmp.Diff(want, got.GetAlert(), protocmp.Transform(), protocmp.IgnoreFields(&alertv1.Alert{}, "active_at", "fired_at"),
		protocmp.IgnoreFields(&alertv1.Evidence{}, "diagnosis")); diff != "" {
		t.Error(diff)
	}
	if a, f := got.GetAlert().GetActiveAt().AsTime(), got.GetAlert().GetFiredAt().AsTime(); f.Sub(a) != 15*time.Second || !f.Equal(s.at) {
		t.Errorf("active at %v, fired at %v; want 15 s between, fired now", a, f)
	}
	r = s.queue(15*time.Second, "vision-a", 0)
	s.want(r, "resolved Queue")
	if a := r.Transitions[0].GetAlert(); !a.GetResolvedAt().AsTime().Equal(s.at) || a.GetId() != got.GetAlert().GetId() ||
		a.GetAnnotations()["summary"] != "vision-a: 12 over 12 (vision)" || a.GetEvidence().GetValues()[0].GetValue() != "0" {
		t.Errorf("resolved: %v", a)
	}
}

func TestNamesAreTheSameInEachReplay(t *testing.T) {
	ids := func(logID string) []string {
		s := newStory(t, compile(t, queueRule))
		s.p.logID = logID
		var all []string
		for _, n := range []int64{9, 9, 9, 0, 9, 9, 9} {
			r := s.queue(15*time.Second, "x", n)
			for _, tr := range r.Transitions {
				all = append(all, tr.GetId(), tr.GetAlert().GetId())
			}
		}
		return all
	}
	first, again, other := ids("log"), ids("log"), ids("other")
	if diff := cmp.Diff(first, again); diff != "" {
		t.Error(diff)
	}
	if len(first) != 6 || first[1] != first[3] || first[1] == first[5] {
		t.Errorf("ids %v; want firing and resolved of one alert, then firing of another", first)
	}
	seen := map[string]bool{}
	for _, id := range []string{first[0], first[2], first[4], other[0], other[2], other[4]} {
		if seen[id] {
			t.Errorf("the transition id %s is used twice", id)
		}
		seen[id] = true
	}
}

func TestFingerprintsAreThoseOfPrometheus(t *testing.T) {
	h := fnv.New64a()
	for _, text := range []string{"alertname", "A", "severity", "page"} { // sorted by name
		h.Write([]byte(text))
		h.Write([]byte{0xff})
	}
	want := fmt.Sprintf("%016x", h.Sum64())
	if got := fingerprintOf(map[string]string{"severity": "page", "alertname": "A"}); got != want {
		t.Errorf("fingerprint %s, want %s", got, want)
	}
}

func TestAPendingAlertThatVanishesIsAChangeAndNoTransition(t *testing.T) {
	s := newStory(t, compile(t, queueRule))
	for range 3 {
		s.queue(15*time.Second, "x", 1)
	}
	began := s.queue(15*time.Second, "x", 9)
	over := s.queue(10*time.Second, "x", 1)
	s.want(began)
	s.want(over)
	if len(began.Changes) != 1 || began.Changes[0].GetState() != alertv1.AlertState_ALERT_STATE_PENDING {
		t.Errorf("began: %v", began.Changes)
	}
	if len(over.Changes) != 1 || over.Changes[0].GetState() != alertv1.AlertState_ALERT_STATE_RESOLVED || over.Changes[0].GetFiredAt() != nil {
		t.Errorf("over: %v", over.Changes)
	}
}

func TestAFiringAlertIsRenewedDaily(t *testing.T) {
	s := newStory(t, compile(t, "groups: [{name: g, rules: [{alert: Disabled, on: endpoint, expr: workers.max == 0}]}]"))
	spec := &eventv1.TargetSpec{Kind: &eventv1.TargetSpec_Endpoint{Endpoint: &eventv1.EndpointSpec{WorkersMax: new(int64)}}}
	s.want(s.send(0, &eventv1.Event{Target: endpoint("x"), Fact: &eventv1.Event_TargetDiscovered{TargetDiscovered: &eventv1.TargetDiscovered{Spec: spec}}}), "firing Disabled")
	renewed := 0
	for range 2 * 24 * 60 {
		r := s.send(time.Minute, tick())
		if len(r.Transitions) > 0 {
			s.want(r, "renewed Disabled")
			renewed++
		}
	}
	if renewed != 2 {
		t.Errorf("renewed %d times in two days", renewed)
	}
}

func TestTwoRulesOfOneLabelSetAreToldApart(t *testing.T) {
	s := newStory(t, compile(t, `
groups:
  - name: g
    rules:
      - {alert: Queue, on: endpoint, expr: jobs.in_queue > 1, labels: {env: a}}
      - {alert: Queue, on: endpoint, expr: jobs.in_queue > 2, labels: {env: b}}
`, rulefile.TargetPattern{Match: "x", Labels: map[string]string{"env": "prod"}}))
	r := s.queue(0, "x", 9)
	s.want(r, "firing Queue")
	if len(r.Problems) != 1 || r.Problems[0].Kind != DuplicateAlert || !strings.Contains(r.Problems[0].Rule, `env="b"`) {
		t.Errorf("problems %v, want a duplicate of the later rule", r.Problems)
	}
}

func TestARuleThatFailsIsSkippedAndItsStateStays(t *testing.T) {
	s := newStory(t, compile(t, `
groups:
  - name: g
    rules:
      - {alert: Broken, on: endpoint, expr: "[true][int(jobs.in_queue)]"}
      - {alert: Queue, on: endpoint, expr: jobs.in_queue >= 0}
`))
	s.want(s.queue(0, "x", 0), "firing Broken", "firing Queue")
	r := s.queue(15*time.Second, "x", 3)
	s.want(r)
	if len(r.Problems) != 1 || r.Problems[0].Kind != RuleFailed || r.Problems[0].Target != "a-endpoint-x" {
		t.Errorf("problems %v, want one failure", r.Problems)
	}
	if len(s.p.byID) != 2 {
		t.Errorf("%d alerts, want both as they were", len(s.p.byID))
	}
}

func TestWhatCannotBeUsedIsCountedAndSkipped(t *testing.T) {
	for _, c := range []struct {
		name  string
		event *eventv1.Event
	}{
		{"no event", nil},
		{"no fact", &eventv1.Event{Target: endpoint("x")}},
		{"no target", sampled(nil, 1, time.Second, nil, nil)},
		{"a sample of the wrong kind of target", sampled(pod("x"), 1, time.Second, nil, nil)},
		{"a target of no kind", &eventv1.Event{Target: &eventv1.Target{Id: "x"}, Fact: &eventv1.Event_PollFailed{PollFailed: &eventv1.PollFailed{}}}},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := newStory(t, compile(t, queueRule))
			r := s.send(time.Second, c.event)
			if len(r.Problems) != 1 || r.Problems[0].Kind != UndecodableEvent || len(s.p.targets) != 0 {
				t.Errorf("problems %v, %d targets", r.Problems, len(s.p.targets))
			}
			if s.p.AppliedSeq() != s.seq || s.p.Now() != time.Second {
				t.Error("the message was not counted as applied, or moved no time")
			}
		})
	}
}

func TestSamplesWithoutTheirPartsAreNoValues(t *testing.T) {
	s := newStory(t, compile(t, "groups: [{name: g, rules: [{alert: A, on: endpoint, expr: '!(jobs.in_queue > 1)'}]}]"))
	s.want(s.send(time.Second, sampled(endpoint("x"), 1, 0, nil, nil)))
	s.want(s.send(time.Second, sampled(endpoint("x"), 2, 0, &eventv1.JobCounts{}, &eventv1.WorkerCounts{})))
	s.want(s.send(time.Second, sampled(endpoint("x"), 3, 0, &eventv1.JobCounts{InQueue: new(int64)}, nil)), "firing A")
}

func TestTargetsAreBounded(t *testing.T) {
	s := newStory(t, compile(t, queueRule))
	for i := range maxTargets {
		s.queue(0, fmt.Sprint("x", i), 0)
	}
	r := s.queue(0, "one too many", 0)
	if len(r.Problems) != 1 || r.Problems[0].Kind != TooManyTargets || len(s.p.targets) != maxTargets {
		t.Errorf("problems %v, %d targets", r.Problems, len(s.p.targets))
	}
}

func TestARemovedTargetsAlertsAreOver(t *testing.T) {
	s := newStory(t, compile(t, `
groups:
  - name: g
    rules:
      - {alert: PodDown, on: pod, expr: "label('expect') == 'running' && (pod.gone || pod.status == 'EXITED')", for: 2m}
      - {alert: Exited, on: pod, expr: pod.status == 'EXITED'}
`, rulefile.TargetPattern{Match: "^keep", Labels: map[string]string{"expect": "running"}}))
	down := func(id string) *eventv1.Event {
		return &eventv1.Event{Target: pod(id), Fact: &eventv1.Event_GpuSampled{GpuSampled: &eventv1.GpuSampled{
			PollSlotMs: s.at.UnixMilli() + 1, Interval: durationpb.New(30 * time.Second), Status: "EXITED",
		}}}
	}
	removed := func(id string) *eventv1.Event {
		return &eventv1.Event{Target: pod(id), Fact: &eventv1.Event_TargetRemoved{TargetRemoved: &eventv1.TargetRemoved{}}}
	}
	s.want(s.send(time.Second, down("keep")), "firing Exited")
	s.want(s.send(time.Second, down("other")), "firing Exited")
	s.want(s.send(time.Second, removed("keep")), "resolved Exited: target removed")
	s.want(s.send(time.Second, removed("other")), "resolved Exited: target removed")
	s.want(s.send(time.Second, removed("other")))
	s.want(s.send(time.Minute, down("other"))) // a straggler brings nothing back
	s.want(s.send(90*time.Second, tick()), "firing PodDown")
	statuses := 0
	for range s.p.Targets() {
		statuses++
	}
	if statuses != 0 {
		t.Errorf("%d targets are listed, want none of those that are gone", statuses)
	}
	var last StepResult
	for range 24 * 60 {
		if r := s.send(time.Minute, tick()); len(r.Transitions) > 0 {
			last = r
		}
	}
	s.want(last, "resolved PodDown: target removed")
	if len(s.p.targets) != 0 {
		t.Errorf("%d targets are remembered after a day", len(s.p.targets))
	}
}

func TestATargetThatComesBackBeginsAnew(t *testing.T) {
	s := newStory(t, compile(t, queueRule))
	for range 4 {
		s.queue(15*time.Second, "x", 9)
	}
	s.want(s.send(time.Second, &eventv1.Event{Target: endpoint("x"), Fact: &eventv1.Event_TargetRemoved{}}), "resolved Queue: target removed")
	s.want(s.queue(time.Second, "x", 9))
	s.send(time.Second, &eventv1.Event{Target: endpoint("x"), Fact: &eventv1.Event_TargetDiscovered{}})
	s.queue(time.Second, "x", 9)
	s.queue(15*time.Second, "x", 9)
	s.queue(15*time.Second, "x", 9)
	s.want(s.queue(15*time.Second, "x", 9), "firing Queue")
}

// TestTwoIncidentsOfAMillisecondAreTwo plays what waited in an outage and comes at
// once: an alert fires, ends and fires again within a millisecond of the log.
func TestTwoIncidentsOfAMillisecondAreTwo(t *testing.T) {
	s := newStory(t, compile(t, "groups: [{name: g, rules: [{alert: Queue, on: endpoint, expr: jobs.in_queue > 5}]}]"))
	s.at = s.at.Add(816 * time.Microsecond)
	var fired, resolved []time.Time
	for i, n := range []int64{9, 0, 9, 0} {
		slot := epoch.UnixMilli() + int64(i)*15_000
		r := s.send(100*time.Microsecond, sampled(endpoint("x"), slot, 15*time.Second, &eventv1.JobCounts{InQueue: &n}, nil))
		if len(r.Transitions) != 1 {
			t.Fatalf("%d transitions", len(r.Transitions))
		}
		switch a := r.Transitions[0].GetAlert(); {
		case n > 0:
			fired = append(fired, a.GetFiredAt().AsTime())
		default:
			resolved = append(resolved, a.GetResolvedAt().AsTime())
			if a.GetEvidence().GetDuration().AsDuration() < 0 {
				t.Errorf("it lasted %v", a.GetEvidence().GetDuration().AsDuration())
			}
		}
	}
	if fired[0].Equal(fired[1]) || fired[1].Before(fired[0]) {
		t.Errorf("the incidents fired at %v", fired)
	}
	for i := range fired {
		if resolved[i].Before(fired[i]) {
			t.Errorf("incident %d fired at %v and was over at %v", i, fired[i], resolved[i])
		}
	}
}
