package expr

import (
	"fmt"
	"slices"
	"time"

	"cel.dev/cel-go/cel"
	"cel.dev/cel-go/common"
	"cel.dev/cel-go/common/ast"
	"cel.dev/cel-go/parser"

	"github.com/tocsin-dev/tocsin/services/alerter/rulefile"
)

// maxAhead bounds predict: a line through at most MaxWindow says nothing of a time
// seven times as far.
const maxAhead = 7 * day

const (
	day = 24 * time.Hour
	// minDays and maxDays bound baseline: of one day nothing is usual, and 7 days of
	// hours are 168 steps, 2 KiB of a target's state.
	minDays, maxDays = 2 * day, 7 * day
)

// numbers says which fields a function takes.
type numbers int

const (
	gauges   numbers = 1 << iota // values that rise and fall
	counters                     // values that only rise
)

// windowFn is a function that takes a field and a window.
type windowFn struct {
	name string
	fn   Fn
	of   numbers
}

var windowFns = []windowFn{
	{"increase", FnIncrease, counters},
	{"rate", FnRate, counters},
	{"delta", FnDelta, gauges | counters},
	{"deriv", FnDeriv, gauges},
	{"min", FnMin, gauges},
	{"max", FnMax, gauges},
	{"avg", FnAvg, gauges},
	{"sum", FnSum, gauges},
	{"stddev", FnStddev, gauges},
	{"zscore", FnZScore, gauges},
	{"first", FnFirst, gauges},
	{"last", FnLast, gauges},
	{"count", FnCount, gauges | counters},
	{"changes", FnChanges, gauges | counters},
}

// numberField reads the name of a field that a function takes.
func (b *builder) numberField(eh parser.ExprHelper, e ast.Expr, name string, of numbers) (Field, *common.Error) {
	field, err := b.field(eh, e, name)
	switch {
	case err != nil:
	case field.Kind != Gauge && field.Kind != Counter:
		err = eh.NewError(e.ID(), fmt.Sprintf("`%s` is no number; %s needs one", field.Name, name))
	case field.Kind == Gauge && of&gauges == 0:
		err = eh.NewError(e.ID(), fmt.Sprintf("`%s` is no counter; use delta for values that also fall", field.Name))
	case field.Kind == Counter && of&counters == 0:
		err = eh.NewError(e.ID(), fmt.Sprintf("`%s` is a counter, which only rises; use increase or rate", field.Name))
	}
	return field, err
}

func (b *builder) quantile(eh parser.ExprHelper, _ ast.Expr, args []ast.Expr) (ast.Expr, *common.Error) {
	if len(args) != 3 {
		return nil, b.wrong(eh, args, "quantile takes a part, a field and a window, for example quantile(0.95, %s, '15m')", b.example())
	}
	part, ok := numberOf(args[0])
	switch {
	case !ok:
		return nil, eh.NewError(args[0].ID(), "quantile takes the part as a number, for example 0.95")
	case !(part >= 0 && part <= 1):
		return nil, eh.NewError(args[0].ID(), fmt.Sprintf("the part of quantile is from 0 to 1, not %s", Num(part)))
	}
	field, err := b.numberField(eh, args[1], "quantile", gauges)
	if err != nil {
		return nil, err
	}
	window, err := b.duration(eh, args[2], time.Second)
	if err != nil {
		return nil, err
	}
	text, _ := textOf(args[2])
	s := Slot{Fn: FnQuantile, Field: field.ID, Window: window, Part: part, Text: fmt.Sprintf("quantile(%s, %s, '%s')", Num(part), field.Name, text)}
	return b.capture(eh, args[1], s, cel.DoubleType), nil
}

func (b *builder) predict(eh parser.ExprHelper, _ ast.Expr, args []ast.Expr) (ast.Expr, *common.Error) {
	if len(args) != 3 {
		return nil, b.wrong(eh, args, "predict takes a field, a window and how far to look ahead, for example predict(%s, '30m', '10m')", b.example())
	}
	field, err := b.numberField(eh, args[0], "predict", gauges)
	if err != nil {
		return nil, err
	}
	window, err := b.duration(eh, args[1], time.Second)
	if err != nil {
		return nil, err
	}
	ahead, err := b.durationUpTo(eh, args[2], time.Second, maxAhead, "at most %s can be looked ahead")
	if err != nil {
		return nil, err
	}
	w, _ := textOf(args[1])
	a, _ := textOf(args[2])
	s := Slot{Fn: FnPredict, Field: field.ID, Window: window, Ahead: ahead, Text: fmt.Sprintf("predict(%s, '%s', '%s')", field.Name, w, a)}
	return b.capture(eh, args[0], s, cel.DoubleType), nil
}

// usual returns the macro of a function over the same hour of earlier days.
func (b *builder) usual(name string, fn Fn) cel.MacroFactory {
	return func(eh parser.ExprHelper, _ ast.Expr, args []ast.Expr) (ast.Expr, *common.Error) {
		if len(args) != 2 {
			return nil, b.wrong(eh, args, "%s takes a field and a number of days, for example %s(%s, '7d')", name, name, b.example())
		}
		field, err := b.numberField(eh, args[0], name, gauges|counters)
		if err != nil {
			return nil, err
		}
		if slices.Equal(field.On, []rulefile.On{rulefile.OnJob}) {
			return nil, eh.NewError(args[0].ID(), fmt.Sprintf("no hours of `%s` are kept; %s is for the fields of endpoints, pods and accounts", field.Name, name))
		}
		days, err := b.durationUpTo(eh, args[1], minDays, maxDays, "at most %s are kept")
		if err != nil {
			return nil, err
		}
		text, _ := textOf(args[1])
		if days%day.Milliseconds() != 0 {
			return nil, eh.NewError(args[1].ID(), fmt.Sprintf("'%s' is no whole number of days; expected 2d to 7d", text))
		}
		s := Slot{Fn: fn, Field: field.ID, Window: days, Text: fmt.Sprintf("%s(%s, '%s')", name, field.Name, text)}
		return b.capture(eh, args[0], s, cel.DoubleType), nil
	}
}

func (b *builder) age(eh parser.ExprHelper, _ ast.Expr, args []ast.Expr) (ast.Expr, *common.Error) {
	if len(args) != 1 {
		return nil, b.wrong(eh, args, "age takes a field, for example age(%s)", b.example())
	}
	field, err := b.numberField(eh, args[0], "age", gauges|counters)
	if err != nil {
		return nil, err
	}
	return b.capture(eh, args[0], Slot{Fn: FnAge, Field: field.ID, Text: fmt.Sprintf("age(%s)", field.Name)}, cel.DoubleType), nil
}
