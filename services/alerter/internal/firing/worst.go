package firing

import (
	"strings"

	"google.golang.org/protobuf/proto"

	alertv1 "github.com/tocsin-dev/tocsin/proto/gen/tocsin/alert/v1"
)

// worse returns the worse of what was seen before and what an alert's evidence says
// now of the value that its condition compares: the first part of the expression
// that has a number and is compared as it is. Evidence comes with changes of an
// alert, so what is worst is known of those instants only.
//
// This is the one place that knows where the worst value comes from.
func worse(before *alertv1.Value, e *alertv1.Evidence) *alertv1.Value {
	for _, v := range e.GetValues() {
		if v.Number == nil || before != nil && before.GetName() != v.GetName() {
			continue
		}
		lowest, compared := direction(e.GetExpression(), v.GetName())
		switch {
		case !compared:
		case before == nil, lowest && v.GetNumber() < before.GetNumber(), !lowest && v.GetNumber() > before.GetNumber():
			return proto.CloneOf(v)
		default:
			return before
		}
	}
	return before
}

// direction says whether a part of an expression is compared as it is, and whether
// the condition asks for less than something of it.
func direction(expression, part string) (lowest, compared bool) {
	for from := 0; ; {
		i := strings.Index(expression[from:], part)
		if i < 0 || part == "" {
			return false, false
		}
		before := strings.TrimRight(expression[:from+i], " (\n\t")
		from += i + len(part)
		after := strings.TrimLeft(expression[from:], " )\n\t")
		switch {
		case before != "" && strings.ContainsAny(before[len(before)-1:], arithmetic), after != "" && strings.ContainsAny(after[:1], arithmetic):
		case strings.HasPrefix(after, "<"), strings.HasSuffix(strings.TrimSuffix(before, "="), ">"):
			return true, true
		case strings.HasPrefix(after, ">"), strings.HasSuffix(strings.TrimSuffix(before, "="), "<"):
			return false, true
		}
	}
}

// arithmetic are the operators that make another value of a part.
const arithmetic = "+-*/%"
