package expr

import (
	"fmt"
	"testing"

	"cel.dev/cel-go/common/types"

	"github.com/tocsin-dev/tocsin/services/alerter/rulefile"
)

// texts gives the values of slots by their text.
type texts struct {
	c      *Compiler
	values map[string]Value
}

func (s texts) Slot(id int) Value { return s.values[s.c.Slots()[id].Text] }

func TestEvalTellsFalseFromNoValue(t *testing.T) {
	values := map[string]Value{
		"jobs.in_queue":            Num(7),
		"workers.running":          Num(0),
		"endpoint.type":            Str("queue"),
		"poll.failing":             Bool(false),
		"min(jobs.in_queue, '5m')": Num(3),
		"label('env')":             Str("prod"),
		"threshold('queue', 5)":    Num(6),
	}
	for _, c := range []struct {
		name, text string
		want       Result
	}{
		{"a condition that holds", "jobs.in_queue > 5", True},
		{"a condition that does not", "jobs.in_queue > 8", False},
		{"whole numbers and fractions mix", "jobs.in_queue / 2 == 3.5 && 7 == jobs.in_queue", True},
		{"a missing field", "jobs.in_progress > 0", NoValue},
		{"its negation", "!(jobs.in_progress > 0)", NoValue},
		{"a missing field that a false side decides", "jobs.in_progress > 0 && jobs.in_queue > 8", False},
		{"a missing field that a true side decides", "jobs.in_progress > 0 || jobs.in_queue > 5", True},
		{"a missing field that nothing decides", "jobs.in_progress > 0 && jobs.in_queue > 5", NoValue},
		{"a missing field in the branch not taken", "jobs.in_queue > 5 ? poll.failing == false : jobs.in_progress > 0", True},
		{"a missing window", "max(jobs.in_queue, '5m') > 0", NoValue},
		{"a window", "min(jobs.in_queue, '5m') == 3", True},
		{"max of two numbers", "max(jobs.in_queue, 10) == 10 && min(jobs.in_queue, 10) == 7", True},
		{"texts", "endpoint.type == 'queue' && label('env') in ['prod', 'stage']", True},
		{"a threshold with an override", "jobs.in_queue > threshold('queue', 5)", True},
		{"within a list", "[6, 8].exists(n, n > jobs.in_queue && n > threshold('queue', 5))", True},
		{"within a list, not", "[6, 8].all(n, n > jobs.in_queue)", False},
		{"within a list, a missing field", "[6, 8].exists(n, n > jobs.in_progress)", NoValue},
		{"a division by zero is no number, hence false", "workers.running / workers.running > 0.1", False},
	} {
		t.Run(c.name, func(t *testing.T) {
			comp := compiler(t, rulefile.OnEndpoint)
			e, mistakes := comp.Compile(c.text)
			if len(mistakes) > 0 {
				t.Fatal(mistakes)
			}
			got, err := e.Eval(texts{comp, values})
			if got != c.want || err != nil {
				t.Errorf("%s gives %v (%v), want %v", c.text, got, err, c.want)
			}
		})
	}
}

func TestAConditionIsDecidedIfItIsForAllThatMayBe(t *testing.T) {
	loose := func(least, slack float64) Value { return Value{Kind: Gauge, Number: least, Slack: slack} }
	values := map[string]Value{
		"increase(jobs.failed, '1h')":     loose(3, 10),
		"increase(jobs.completed, '1h')":  loose(0, 57),
		"increase(jobs.retried, '1h')":    Num(2),
		"increase(jobs.failed, '15m')":    loose(20, 4),
		"increase(jobs.completed, '15m')": loose(0, 30),
		"jobs.in_queue":                   Num(100),
		"rate(jobs.completed, '10m')":     loose(0.01, 0.02),
	}
	for _, c := range []struct {
		name, text string
		want       Result
	}{
		{"the least is enough", "increase(jobs.failed, '1h') >= 3", True},
		{"only the greatest is", "increase(jobs.failed, '1h') >= 4", NoValue},
		{"not even the greatest is", "increase(jobs.failed, '1h') >= 14", False},
		{"none may be some", "increase(jobs.completed, '1h') == 0", NoValue},
		{"some is not none", "increase(jobs.failed, '1h') == 0", False},
		{"each with each", "increase(jobs.failed, '15m') > 0.5 * (increase(jobs.failed, '15m') + increase(jobs.completed, '15m'))", NoValue},
		{"and all agree", "increase(jobs.failed, '15m') > 0.3 * (increase(jobs.failed, '15m') + increase(jobs.completed, '15m'))", True},
		{"another part decides", "increase(jobs.completed, '1h') == 0 && increase(jobs.retried, '1h') > 5", False},
		{"or does not", "increase(jobs.completed, '1h') == 0 && increase(jobs.retried, '1h') == 2", NoValue},
		{"a rate", "jobs.in_queue > 3000 * rate(jobs.completed, '10m')", True},
		{"a rate that may be enough", "jobs.in_queue > 9000 * rate(jobs.completed, '10m')", NoValue},
		{"what is missing stays missing", "increase(jobs.failed, '1h') >= 3 && workers.running > 0", NoValue},
	} {
		t.Run(c.name, func(t *testing.T) {
			comp := compiler(t, rulefile.OnEndpoint)
			e, mistakes := comp.Compile(c.text)
			if len(mistakes) > 0 {
				t.Fatal(mistakes)
			}
			got, err := e.Eval(texts{comp, values})
			if got != c.want || err != nil {
				t.Errorf("%s gives %v (%v), want %v", c.text, got, err, c.want)
			}
		})
	}
}

func TestTooMuchSlackIsNoValue(t *testing.T) {
	comp := compiler(t, rulefile.OnEndpoint)
	values, sum := map[string]Value{}, "0"
	for i := range maxSlack + 1 {
		text := fmt.Sprintf("increase(jobs.failed, '%dm')", i+1)
		values[text] = Value{Kind: Gauge, Number: 1, Slack: 1}
		sum += " + " + text
		e, mistakes := comp.Compile(sum + " > 0")
		if len(mistakes) > 0 {
			t.Fatal(mistakes)
		}
		want := True
		if i == maxSlack {
			want = NoValue
		}
		if got, err := e.Eval(texts{comp, values}); got != want || err != nil {
			t.Errorf("%d values with slack give %v (%v), want %v", i+1, got, err, want)
		}
	}
}

func TestEvalReportsAFailureThatIsNoMissingValue(t *testing.T) {
	comp := compiler(t, rulefile.OnEndpoint)
	e, mistakes := comp.Compile("[1.0][int(jobs.in_queue)] > 0")
	if len(mistakes) > 0 {
		t.Fatal(mistakes)
	}
	got, err := e.Eval(texts{comp, map[string]Value{"jobs.in_queue": Num(5)}})
	if got != Failed || err == nil {
		t.Errorf("got %v, %v; want a failure", got, err)
	}
}

func TestThresholdWithComputedDefault(t *testing.T) {
	comp := compiler(t, rulefile.OnEndpoint)
	e, mistakes := comp.Compile("jobs.in_queue > threshold('queue', 20 * workers.max)")
	if len(mistakes) > 0 {
		t.Fatal(mistakes)
	}
	for _, c := range []struct {
		name     string
		override Value
		want     Result
	}{
		{"the default", Value{}, False},
		{"the override", Num(5), True},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := e.Eval(overridden{comp, c.override})
			if got != c.want || err != nil {
				t.Errorf("got %v, %v; want %v", got, err, c.want)
			}
		})
	}
}

type overridden struct {
	c        *Compiler
	override Value
}

func (o overridden) Slot(id int) Value {
	switch s := o.c.Slots()[id]; s.Fn {
	case FnOverridden:
		return Bool(o.override.Known())
	case FnThreshold:
		return o.override
	default:
		return Num(10)
	}
}

// missingAtStart is the place that the shared error names before any evaluation.
var missingAtStart = missing.(*types.Err).NodeID()

func TestMissingValuesAreSharedWithoutAWrite(t *testing.T) {
	// Partitions evaluate at the same time, and CEL writes a place into the
	// errors that pass its operators if they have none.
	if missingAtStart == 0 {
		t.Error("the error that all evaluations share has no place: CEL would write one into it")
	}
}
