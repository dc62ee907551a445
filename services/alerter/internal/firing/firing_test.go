package firing

import (
	"fmt"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	alertv1 "github.com/tocsin-dev/tocsin/proto/gen/tocsin/alert/v1"
	eventv1 "github.com/tocsin-dev/tocsin/proto/gen/tocsin/event/v1"
	rulev1 "github.com/tocsin-dev/tocsin/proto/gen/tocsin/rule/v1"
)

func TestWhatIsCompared(t *testing.T) {
	for _, c := range []struct {
		expression, part string
		lowest, compared bool
	}{
		{"jobs.in_queue > 10", "jobs.in_queue", false, true},
		{"jobs.in_queue >= 10", "jobs.in_queue", false, true},
		{"10 < jobs.in_queue", "jobs.in_queue", false, true},
		{"10<=jobs.in_queue", "jobs.in_queue", false, true},
		{"workers.idle < 1", "workers.idle", true, true},
		{"1 >= workers.idle", "workers.idle", true, true},
		{"min(jobs.in_queue, '5m') > threshold('a', 5)", "min(jobs.in_queue, '5m')", false, true},
		{"min(jobs.in_queue, '5m') > threshold('a', 5)", "threshold('a', 5)", true, true},
		{"(jobs.failed) > 3", "jobs.failed", false, true},
		{"jobs.failed / jobs.completed > 0.5", "jobs.failed", false, false},
		{"jobs.failed / jobs.completed > 0.5", "jobs.completed", false, false},
		{"3 > jobs.failed * 2.0", "jobs.failed", false, false},
		{"jobs.failed + 1 > 2 && jobs.failed < 9", "jobs.failed", true, true},
		{"jobs.failed == 3", "jobs.failed", false, false},
		{"jobs.failed == 3", "", false, false},
	} {
		if lowest, compared := direction(c.expression, c.part); lowest != c.lowest || compared != c.compared {
			t.Errorf("%s in %s: lowest %v, compared %v", c.part, c.expression, lowest, compared)
		}
	}
}

func TestTheWorstIsKept(t *testing.T) {
	of := func(expression string, numbers ...float64) string {
		var w *alertv1.Value
		for i := range numbers {
			w = worse(w, &alertv1.Evidence{Expression: expression, Values: []*alertv1.Value{{Name: "text"}, {Name: "a", Number: &numbers[i]}}})
		}
		return fmt.Sprint(w.GetNumber())
	}
	if got := of("a > 1", 3, 7, 5); got != "7" {
		t.Errorf("the worst of 3, 7, 5 where more is worse is %s", got)
	}
	if got := of("a < 9", 3, 2, 5); got != "2" {
		t.Errorf("the worst of 3, 2, 5 where less is worse is %s", got)
	}
	if w := worse(nil, &alertv1.Evidence{Expression: "text == 'a'", Values: []*alertv1.Value{{Name: "text"}}}); w != nil {
		t.Errorf("a text has a worst value: %v", w)
	}
}

// one is a firing of a rule on a target between two minutes; 0 is no end.
func one(rule, id string, from, to int) *rulev1.BacktestFiring {
	at := func(minute int) *timestamppb.Timestamp {
		return timestamppb.New(time.Unix(0, 0).Add(time.Duration(minute) * time.Minute))
	}
	a := &alertv1.Alert{Rule: rule, Target: &eventv1.Target{Id: id}, FiredAt: at(from)}
	if to > 0 {
		a.ResolvedAt = at(to)
	}
	return &rulev1.BacktestFiring{Alert: a}
}

func TestCompare(t *testing.T) {
	fresh := []*rulev1.BacktestFiring{
		one("A", "x", 1, 5), one("A", "x", 10, 15), one("A", "x", 20, 25), one("A", "x", 30, 35), one("A", "x", 40, 45), one("A", "x", 50, 0),
		one("Same", "x", 1, 5), one("Same", "x", 9, 9), one("Instant", "x", 9, 9), one("New", "x", 1, 2),
	}
	old := []*rulev1.BacktestFiring{
		one("A", "x", 1, 5), one("A", "x", 10, 12), one("A", "x", 20, 29), one("A", "x", 31, 36), one("A", "x", 46, 47), one("A", "x", 50, 55), one("A", "y", 1, 5),
		one("Same", "x", 1, 5), one("Same", "x", 9, 9), one("Instant", "x", 10, 10),
	}
	got := Compare(fresh, old, time.Unix(0, 0).Add(time.Hour))
	want := []string{
		"A: only new 1, only old 2, longer 2, shorter 1, moved 1, same 1",
		"Instant: only new 1, only old 1, longer 0, shorter 0, moved 0, same 0",
		"New: only new 1, only old 0, longer 0, shorter 0, moved 0, same 0",
	}
	if len(got) != len(want) {
		t.Fatalf("%v, want %d rules", got, len(want))
	}
	for i, c := range got {
		text := fmt.Sprintf("%s: only new %d, only old %d, longer %d, shorter %d, moved %d, same %d",
			c.GetRule(), c.GetOnlyNew(), c.GetOnlyOld(), c.GetLonger(), c.GetShorter(), c.GetMoved(), c.GetSame())
		if text != want[i] {
			t.Errorf("%s, want %s", text, want[i])
		}
	}
	if old[1].GetOutcome() != rulev1.BacktestOutcome_BACKTEST_OUTCOME_SHORTER || !old[1].GetOld() {
		t.Errorf("the old one that is shorter is %v", old[1])
	}
}
