// Package rulecheck looks at rules before anybody runs them: it tells what is
// wrong with files of rules, what is allowed and hardly meant, and what rules can
// name. It compiles rules as the alerter does, and opens nothing.
package rulecheck

import (
	"errors"
	"slices"
	"strings"

	"github.com/tocsin-dev/tocsin/services/alerter/internal/engine"
	"github.com/tocsin-dev/tocsin/services/alerter/internal/expr"
	"github.com/tocsin-dev/tocsin/services/alerter/rulefile"
)

// Report is what a look at files of rules brought.
type Report struct {
	// Mistakes must be mended before the alerter takes the files. Sorted by place.
	Mistakes []*rulefile.MistakeError
	// Warnings are allowed and hardly meant. They are only known once there are no
	// mistakes. Sorted by place.
	Warnings []*rulefile.MistakeError
	// Rules is how many rules there are; 0 with mistakes.
	Rules int
	// Costliest is the name of the rule whose condition may cost most.
	Costliest string
	// Cost is what that condition may cost, of MaxCost, in the units of CEL's
	// estimate: a comparison is about 3.
	Cost, MaxCost uint64
}

// Check looks at files, content by name, together with the patterns of the
// configuration's section targets, if it is known.
func Check(files map[string][]byte, targets []rulefile.TargetPattern) (Report, error) {
	program, err := engine.CompileFiles(files, targets)
	if err != nil {
		joined, ok := err.(interface{ Unwrap() []error })
		if !ok {
			return Report{}, err
		}
		var r Report
		for _, one := range joined.Unwrap() {
			m, ok := errors.AsType[*rulefile.MistakeError](one)
			if !ok {
				return Report{}, err
			}
			r.Mistakes = append(r.Mistakes, m)
		}
		return r, nil
	}
	r := Report{Warnings: program.Doubts(), Rules: len(program.Set().Rules()), MaxCost: expr.MaxCost}
	if costliest, cost := program.MaxCost(); costliest != nil {
		r.Costliest, r.Cost = costliest.Alert, cost
	}
	return r, nil
}

// Entry is something that the expressions of rules can name.
type Entry struct {
	// Name of a field, or how a function is called.
	Name string
	// On lists what rules that name it can be on.
	On []rulefile.On
	// Kind is gauge, counter, text or truth; empty for functions.
	Kind string
	// Unit of its values; empty for texts and truth values.
	Unit string
	// Meaning in a sentence or two.
	Meaning string
}

// Fields lists the fields of rules on one kind of thing, or all if on is empty.
func Fields(on rulefile.On) []Entry {
	var all []Entry
	for id := range expr.FieldCount {
		f := expr.FieldOf(id)
		if on == "" || slices.Contains(f.On, on) {
			all = append(all, Entry{Name: f.Name, On: slices.Clone(f.On), Kind: kinds[f.Kind], Unit: f.Unit, Meaning: f.Meaning})
		}
	}
	return all
}

// Functions lists what rules on one kind of thing can call, or all if on is empty.
func Functions(on rulefile.On) []Entry {
	var all []Entry
	for _, f := range expr.Functions() {
		of := rulefile.Ons()
		if f.Name == "absent" {
			of = slices.DeleteFunc(of, func(o rulefile.On) bool { return o == rulefile.OnJob })
		}
		if on == "" || slices.Contains(of, on) {
			all = append(all, Entry{Name: f.Usage, On: of, Unit: f.Unit, Meaning: f.Meaning})
		}
	}
	return all
}

var kinds = map[expr.Kind]string{expr.Gauge: "gauge", expr.Counter: "counter", expr.Text: "text", expr.Truth: "truth"}

// OnNames writes kinds of things as a list: "endpoint, job".
func OnNames(on []rulefile.On) string {
	names := make([]string, len(on))
	for i, o := range on {
		names[i] = string(o)
	}
	return strings.Join(names, ", ")
}
