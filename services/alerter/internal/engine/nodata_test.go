package engine

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/testing/protocmp"

	alertv1 "github.com/tocsin-dev/tocsin/proto/gen/tocsin/alert/v1"
	eventv1 "github.com/tocsin-dev/tocsin/proto/gen/tocsin/event/v1"
	"github.com/tocsin-dev/tocsin/services/alerter/internal/rule"
)

// lacking is a world in which a source says something, nothing, or cannot be reached.
type lacking struct{ *story }

func (l lacking) says(n int64) StepResult { return l.queue(15*time.Second, "x", n) }

func (l lacking) leavesOut() StepResult {
	return l.send(15*time.Second, sampled(endpoint("x"), l.at.UnixMilli()+15_000, 15*time.Second, nil, nil))
}

func (l lacking) fails() StepResult {
	return l.send(15*time.Second, &eventv1.Event{Target: endpoint("x"), Fact: &eventv1.Event_PollFailed{PollFailed: &eventv1.PollFailed{
		Kind: eventv1.PollKind_POLL_KIND_HEALTH, Reason: eventv1.PollFailureReason_POLL_FAILURE_REASON_TIMEOUT, PollSlotMs: l.at.UnixMilli() + 15_000,
	}}})
}

func (l lacking) isSilent() StepResult { return l.send(15*time.Second, tick()) }

// many does something several times and returns what is told of it.
func many(n int, do func() StepResult) (lines []string) {
	for range n {
		lines = append(lines, told(do())...)
	}
	return lines
}

func TestThreeKindsOfNoValueAreKeptApart(t *testing.T) {
	// What is told when the source says something else for 5 minutes: while nothing
	// fires, and while something does.
	kinds := map[string]func(lacking) func() StepResult{
		"zero":       func(l lacking) func() StepResult { return func() StepResult { return l.says(0) } },
		"left out":   func(l lacking) func() StepResult { return l.leavesOut },
		"poll fails": func(l lacking) func() StepResult { return l.fails },
		"silent":     func(l lacking) func() StepResult { return l.isSilent },
	}
	for rest, wants := range map[string]map[string][2]string{
		"":                                    {"zero": {"", "resolved A"}},
		", no_data: keep":                     {"zero": {"", "resolved A"}},
		", no_data: fire":                     {"zero": {"", "resolved A"}, "left out": {"firing A", ""}},
		", no_data: resolve":                  {"zero": {"", "resolved A"}, "left out": {"", "resolved A: no data: the source answers without jobs.in_queue"}},
		", for: 2m, no_data: fire":            {"zero": {"", "resolved A"}, "left out": {"firing A", ""}},
		", times: 2 of 3 x 1m, no_data: fire": {"zero": {"", "resolved A"}, "left out": {"firing A", ""}},
		", keep_firing_for: 2m, no_data: resolve":    {"zero": {"", "resolved A"}, "left out": {"", "resolved A: no data: the source answers without jobs.in_queue"}},
		", until: jobs.in_queue == 1, no_data: fire": {"left out": {"firing A", ""}},
		", until: jobs.in_queue == 1, no_data: resolve": {
			"left out": {"", "resolved A: no data: the source answers without jobs.in_queue"},
		},
	} {
		program := compile(t, "groups: [{name: g, rules: [{alert: A, on: endpoint, expr: jobs.in_queue > 5"+rest+"}]}]")
		for kind, do := range kinds {
			for i, before := range []int64{1, 9} {
				l := lacking{newStory(t, program)}
				lines := many(20, func() StepResult { return l.says(before) })
				if want := [][]string{nil, {"firing A"}}[i]; !cmp.Equal(lines, want) {
					t.Fatalf("%s: the queue of %d tells %v", rest, before, lines)
				}
				got := strings.Join(many(20, do(l)), ", ")
				if want := wants[kind][i]; got != want {
					t.Errorf("%q, %s after a queue of %d: %q is told, want %q", rest, kind, before, got, want)
				}
			}
		}
	}
}

// TestAnExplanationTellsWhatTheRuleMakesOfIt: not what the values alone say.
func TestAnExplanationTellsWhatTheRuleMakesOfIt(t *testing.T) {
	type want struct {
		cond, judged rule.Truth
		decided      bool
		reason       alertv1.NoDataReason
	}
	zero := func(l lacking) StepResult { return l.says(0) }
	for _, c := range []struct {
		rest  string
		after func(lacking) StepResult
		want  want
	}{
		{"", lacking.leavesOut, want{rule.Unknown, rule.Unknown, false, leftOut}},
		{", no_data: fire", lacking.leavesOut, want{rule.Unknown, rule.Yes, true, leftOut}},
		{", no_data: fire", lacking.isSilent, want{rule.Unknown, rule.Unknown, false, unreachable}},
		{", no_data: resolve, keep_firing_for: 1h", lacking.leavesOut, want{rule.Unknown, rule.No, true, leftOut}},
		{", until: jobs.in_queue == 1", zero, want{rule.No, rule.No, false, 0}},
		{", until: workers.idle == 1, no_data: fire", zero, want{rule.No, rule.No, true, leftOut}},
		{", until: workers.idle == 1", zero, want{rule.No, rule.No, false, leftOut}},
		{", times: 2 of 20 x 1m", zero, want{rule.No, rule.Yes, false, 0}},
		{", times: 2 of 20 x 1m", lacking.isSilent, want{rule.Unknown, rule.Yes, false, unreachable}},
	} {
		l := lacking{newStory(t, compile(t, "groups: [{name: g, rules: [{alert: A, on: endpoint, expr: jobs.in_queue > 5"+c.rest+"}]}]"))}
		many(20, func() StepResult { return l.says(9) })
		many(8, func() StepResult { return c.after(l) })
		before, err := l.p.Snapshot()
		if err != nil {
			t.Fatal(err)
		}
		x, ok := (&Inspection{l.p}).Alert(l.only().GetId())
		if !ok {
			t.Fatalf("%q: it is not there", c.rest)
		}
		if got := (want{x.Cond, x.Judged, x.Decided, x.Now.GetNoData().GetReason()}); got != c.want {
			t.Errorf("%q: it is explained as %v, want %v", c.rest, got, c.want)
		}
		after, err := l.p.Snapshot()
		if err != nil || !bytes.Equal(before, after) {
			t.Errorf("%q: to explain it changes the state: %v", c.rest, err)
		}
	}
}

func TestAWindowThatHasOnlyBegunIsNoAnswer(t *testing.T) {
	l := lacking{newStory(t, compile(t, "groups: [{name: g, rules: [{alert: A, on: endpoint, expr: \"min(jobs.in_queue, '10m') > 5\", no_data: fire}]}]"))}
	if lines := many(30, func() StepResult { return l.says(9) }); len(lines) > 0 {
		t.Errorf("before it is known: %v", lines)
	}
	if lines := many(10, func() StepResult { return l.says(9) }); !cmp.Equal(lines, []string{"firing A"}) {
		t.Errorf("once it is: %v", lines)
	}
}

func TestWhatComesBackIsJudgedAsEver(t *testing.T) {
	l := lacking{newStory(t, compile(t, "groups: [{name: g, rules: [{alert: A, on: endpoint, expr: jobs.in_queue > 5, no_data: fire}]}]"))}
	l.want(l.says(1))
	l.want(l.leavesOut(), "firing A")
	many(20, l.fails)
	l.want(l.leavesOut())
	l.want(l.says(9))
	l.want(l.says(1), "resolved A")
}

func TestAnAlertSaysWhyItsConditionHasNoValue(t *testing.T) {
	l := lacking{newStory(t, compile(t, "groups: [{name: g, rules: [{alert: A, on: endpoint, expr: \"min(jobs.in_queue, '1m') > 5 && workers.max != 7\", no_data: fire}]}]"))}
	l.settings(0, "x", 3)
	expect := func(want *alertv1.NoData) {
		t.Helper()
		for a := range l.p.Alerts() {
			if diff := cmp.Diff(want, a.GetEvidence().GetNoData(), protocmp.Transform()); diff != "" {
				t.Error(diff)
			}
		}
	}
	many(10, func() StepResult { return l.says(9) })
	if len(l.p.byID) != 1 {
		t.Fatalf("%d alerts, want one", len(l.p.byID))
	}
	expect(nil)
	part := []string{"min(jobs.in_queue, '1m')"}
	many(4, l.fails)
	expect(&alertv1.NoData{Reason: unreachable, Parts: part})
	l.says(9)
	expect(&alertv1.NoData{Reason: undecided, Parts: part})
	l.leavesOut()
	expect(&alertv1.NoData{Reason: leftOut, Parts: part})
	l.p = viaSnapshot(t, l.p, 1)
	l.leavesOut()
	expect(&alertv1.NoData{Reason: leftOut, Parts: part})
	many(6, func() StepResult { return l.says(9) })
	expect(nil)
	if len(l.p.byID) != 1 {
		t.Errorf("%d alerts are left, want one", len(l.p.byID))
	}

	fresh := lacking{newStory(t, compile(t, "groups: [{name: g, rules: [{alert: A, on: endpoint, expr: jobs.in_queue > 5, no_data: fire, annotations: {summary: '{{ $value }} wait'}}]}]"))}
	r := fresh.leavesOut()
	if len(r.Transitions) != 1 {
		t.Fatalf("%d transitions, want one", len(r.Transitions))
	}
	a := r.Transitions[0].GetAlert()
	want := map[string]string{"summary": "no value wait", "target_name": "x", "no_data": "no data: the source answers without jobs.in_queue"}
	if diff := cmp.Diff(want, a.GetAnnotations()); diff != "" {
		t.Error(diff)
	}
	if a.GetEvidence().GetNoData().GetReason() != leftOut {
		t.Errorf("the evidence says %v", a.GetEvidence().GetNoData())
	}
}
