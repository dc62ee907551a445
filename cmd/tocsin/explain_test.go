package main

import (
	"bytes"
	"context"
	"encoding/json"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/timestamppb"

	alertv1 "github.com/tocsin-dev/tocsin/proto/gen/tocsin/alert/v1"
	eventv1 "github.com/tocsin-dev/tocsin/proto/gen/tocsin/event/v1"
	queryv1 "github.com/tocsin-dev/tocsin/proto/gen/tocsin/query/v1"
)

func (a *fakeAlerter) ExplainAlert(_ context.Context, req *queryv1.ExplainAlertRequest) (*queryv1.ExplainAlertResponse, error) {
	if req.GetId() != a.explained.GetAlert().GetId() {
		return nil, status.Error(codes.NotFound, "no pending or firing alert has the id")
	}
	return a.explained, nil
}

func (a *fakeAlerter) Diagnose(_ context.Context, req *queryv1.DiagnoseRequest) (*queryv1.DiagnoseResponse, error) {
	if req.GetTarget() != a.diagnosed.GetTarget().GetTarget().GetName() || req.GetKind() == eventv1.TargetKind_TARGET_KIND_POD {
		return nil, status.Error(codes.NotFound, "no endpoint, pod or account with that name is known")
	}
	return a.diagnosed, nil
}

func numbered(name string, n float64) *alertv1.Value {
	return &alertv1.Value{Name: name, Value: "?", Number: &n}
}

var sick = &alertv1.Diagnosis{
	Cause: alertv1.DiagnosisCause_DIAGNOSIS_CAUSE_CRASH_LOOP, Certainty: alertv1.Certainty_CERTAINTY_SURE, Sentence: "A crash loop.",
	Facts:        []*alertv1.DiagnosisFact{{Name: "workers.unhealthy", Value: "3", AgeSeconds: new(130.0)}, {Name: "workers.max", Value: "5"}},
	Advice:       []string{"Read the log.", strings.Repeat("word ", 40)},
	Alternatives: []alertv1.DiagnosisCause{alertv1.DiagnosisCause_DIAGNOSIS_CAUSE_NO_CAPACITY},
}

func explained() *queryv1.ExplainAlertResponse {
	points := []*alertv1.Point{{SecondsAgo: 600, Value: new(0.0)}, {SecondsAgo: 300}, {SecondsAgo: 60, Value: new(41.0)}}
	return &queryv1.ExplainAlertResponse{
		Alert: &alertv1.Alert{
			Id: "3f9a", Fingerprint: "9a24", State: alertv1.AlertState_ALERT_STATE_FIRING, FiredAt: timestamppb.Now(),
			Annotations: map[string]string{"runbook": "look\x1b[2J there"},
			Evidence:    &alertv1.Evidence{Values: []*alertv1.Value{numbered("max(workers.unhealthy, '5m')", 2)}},
		},
		Rule:  &queryv1.Rule{Expr: "max(workers.unhealthy, '5m') > 0 &&\n min(jobs.in_queue, '3m') > 0 || (label('a && b') == 'x && y')"},
		Story: []string{"CrashLoop has been firing."},
		Now: &alertv1.Evidence{
			Values:      []*alertv1.Value{numbered("max(workers.unhealthy, '5m')", 3), {Name: "min(jobs.in_queue, '3m')", Value: "no value"}},
			Series:      []*alertv1.Series{{Field: "jobs.in_queue", Points: points}},
			ErrorGroups: []*alertv1.ErrorGroup{{Category: "oom", Count: 4, JobIds: []string{"j1", "j2"}, Message: "CUDA out of memory"}},
		},
		UntilValues: []*alertv1.Value{numbered("increase(jobs.completed, '6m')", 0)},
		Diagnosis:   sick,
	}
}

// has fails the test unless a line of out begins with the first word of want and has
// the others after it, in this order.
func has(t *testing.T, out string, want ...string) {
	t.Helper()
	for line := range strings.Lines(out) {
		rest, ok := strings.CutPrefix(strings.TrimSpace(line), want[0])
		for _, w := range want[1:] {
			var before bool
			if _, rest, before = strings.Cut(rest, w); !before {
				ok = false
			}
		}
		if ok {
			return
		}
	}
	t.Errorf("no line has %q:\n%s", want, out)
}

func TestExplain(t *testing.T) {
	address := serveAlerter(t, &fakeAlerter{explained: explained()})
	var out bytes.Buffer
	if err := run(t.Context(), []string{"explain", "--address", address, "3f9a"}, &out, &out); err != nil {
		t.Fatal(err)
	}
	for _, want := range [][]string{
		{"CrashLoop has been firing."},
		{"max(workers.unhealthy, '5m') > 0"},
		{"&& min(jobs.in_queue, '3m') > 0"},
		{"|| (label('a && b') == 'x && y')"},
		{"PART", "NOW", "WHEN IT FIRED", "MEANING"},
		{"max(workers.unhealthy, '5m')", "3", "2", "Workers that crashed"},
		{"min(jobs.in_queue, '3m')", "no value", "-", "Jobs waiting now."},
		{"increase(jobs.completed, '6m')", "0", "-", "Jobs completed"},
		{"jobs.in_queue (10m)", "▁", "·", "█", "0", "41", "41"},
		{"oom: 4, for example j1, j2"},
		{"CUDA out of memory"},
		{"DIAGNOSIS", "crash loop (sure)"},
		{"workers.unhealthy", "3", "2m10s ago"},
		{"or else: no capacity"},
		{"- Read the log."},
		{"look [2J there"},
		{"id 3f9a, fingerprint 9a24"},
	} {
		has(t, out.String(), want...)
	}
	for line := range strings.Lines(out.String()) {
		if n := len([]rune(line)); strings.Contains(line, "word") && n > textWidth+1 {
			t.Errorf("a line of advice has %d characters", n)
		}
	}
	if strings.Contains(out.String(), "\x1b") {
		t.Errorf("a text moves the cursor: %q", out.String())
	}

	out.Reset()
	if err := run(t.Context(), []string{"explain", "--address", address, "--json", "3f9a"}, &out, &out); err != nil {
		t.Fatal(err)
	}
	var answer struct {
		Diagnosis struct{ Cause string }
		Story     []string
	}
	if err := json.Unmarshal(out.Bytes(), &answer); err != nil || answer.Diagnosis.Cause != "DIAGNOSIS_CAUSE_CRASH_LOOP" || len(answer.Story) != 1 {
		t.Errorf("JSON %+v, %v:\n%s", answer, err, out.String())
	}
	err := run(t.Context(), []string{"explain", "--address", address, "other"}, &out, &out)
	if err == nil || !strings.Contains(err.Error(), "no pending or firing alert") {
		t.Errorf("an alert that is not there: %v", err)
	}
}

func TestAResolvedAlertIsExplainedByItsEnd(t *testing.T) {
	x := explained()
	x.Alert.State, x.Alert.ResolvedAt = alertv1.AlertState_ALERT_STATE_RESOLVED, timestamppb.New(time.Now())
	x.Alert.Evidence.Values, x.Alert.Evidence.ValuesAtFiring = x.GetNow().GetValues(), x.GetAlert().GetEvidence().GetValues()
	x.Alert.Evidence.Diagnosis, x.Alert.Evidence.Series = sick, x.GetNow().GetSeries()
	x.Now, x.UntilValues, x.Diagnosis, x.Rule, x.Remembered = nil, nil, nil, nil, true
	x.Alert.Evidence.Expression = "a > 1"
	address := serveAlerter(t, &fakeAlerter{explained: x})
	var out bytes.Buffer
	if err := run(t.Context(), []string{"explain", "--address", address, "3f9a"}, &out, &out); err != nil {
		t.Fatal(err)
	}
	for _, want := range [][]string{
		{"a > 1"}, {"PART", "AT THE END", "WHEN IT FIRED"}, {"max(workers.unhealthy, '5m')", "3", "2"}, {"DIAGNOSIS", "crash loop"}, {"jobs.in_queue (10m)", "41"},
	} {
		has(t, out.String(), want...)
	}
}

// TestAnAlertWithoutValuesOfItsEndShowsNone: one that ended because its target or its
// rule went was not judged again, and keeps the values that it fired or began by.
func TestAnAlertWithoutValuesOfItsEndShowsNone(t *testing.T) {
	for fired, heading := range map[bool]string{true: "WHEN IT FIRED", false: "WHEN IT BEGAN"} {
		x := explained()
		x.Alert.State, x.Alert.ResolvedAt, x.Alert.ResolveReason = alertv1.AlertState_ALERT_STATE_RESOLVED, timestamppb.Now(), "target removed"
		x.Now, x.UntilValues, x.Diagnosis, x.Remembered = nil, nil, nil, true
		if !fired {
			x.Alert.FiredAt = nil
		}
		address := serveAlerter(t, &fakeAlerter{explained: x})
		var out bytes.Buffer
		if err := run(t.Context(), []string{"explain", "--address", address, "3f9a"}, &out, &out); err != nil {
			t.Fatal(err)
		}
		has(t, out.String(), "PART", heading, "MEANING")
		has(t, out.String(), "max(workers.unhealthy, '5m')", "2", "Workers that crashed")
		if strings.Contains(out.String(), "AT THE END") || strings.Contains(out.String(), "NOW") {
			t.Errorf("it shows values of an end that nobody judged:\n%s", out.String())
		}
	}
}

func TestDiagnose(t *testing.T) {
	address := serveAlerter(t, &fakeAlerter{diagnosed: &queryv1.DiagnoseResponse{
		Target:    &queryv1.TargetStatus{Target: &eventv1.Target{Id: "ab12", Name: "img-prod", Kind: eventv1.TargetKind_TARGET_KIND_ENDPOINT}},
		Diagnosis: sick, Series: explained().GetNow().GetSeries(), ErrorGroups: explained().GetNow().GetErrorGroups(),
		Alerts: []*alertv1.Alert{{
			Id: "3f9a1c2044", Rule: "CrashLoop", State: alertv1.AlertState_ALERT_STATE_FIRING,
			Evidence: &alertv1.Evidence{Worst: []*alertv1.Extreme{{Name: "jobs.in_queue", Number: 212}}},
		}},
	}})
	var out bytes.Buffer
	if err := run(t.Context(), []string{"diagnose", "--address", address, "img-prod"}, &out, &out); err != nil {
		t.Fatal(err)
	}
	for _, want := range [][]string{
		{"endpoint ab12 (img-prod)"},
		{"A crash loop."},
		{"DIAGNOSIS", "crash loop (sure)"},
		{"- Read the log."},
		{"jobs.in_queue (10m)", "41"},
		{"oom: 4"},
		{"CrashLoop", "firing", "jobs.in_queue 212", "3f9a1c20"},
	} {
		has(t, out.String(), want...)
	}
	out.Reset()
	err := run(t.Context(), []string{"diagnose", "--address", address, "--kind", "pod", "img-prod"}, &out, &out)
	if err == nil || !strings.Contains(err.Error(), "no endpoint, pod or account") {
		t.Errorf("no such pod: %v", err)
	}
	out.Reset()
	if err := run(t.Context(), []string{"diagnose", "--help"}, &out, &out); err != nil || !strings.Contains(out.String(), "tocsin diagnose img-prod") {
		t.Errorf("the help has no examples: %v\n%s", err, out.String())
	}
}

func TestClauses(t *testing.T) {
	for text, want := range map[string][]string{
		"a > 1":                             {"a > 1"},
		"a > 1 && b":                        {"a > 1", "&& b"},
		"  a\n  > 1 &&   (b || c) || !d ":   {"a > 1", "&& (b || c)", "|| !d"},
		`x == "it's && so" && y == '\' ||'`: {`x == "it's && so"`, `&& y == '\' ||'`},
		"a in ['x && y'] && b":              {"a in ['x && y']", "&& b"},
	} {
		if got := clauses(text); !slices.Equal(got, want) {
			t.Errorf("%q has the clauses %q, want %q", text, got, want)
		}
	}
}
