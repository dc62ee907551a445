package expr

import (
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
