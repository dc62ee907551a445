package expr

import (
	"fmt"
	"math"
	"time"

	"cel.dev/cel-go/common/ast"
	"cel.dev/cel-go/common/operators"
)

// What makes a number of a unit doubtful.
const (
	// manySeconds is where a whole number of thousands is rather milliseconds:
	// waits and timeouts of RunPod's jobs end within a day, mostly within an hour,
	// and 10,000 s are nearly three.
	manySeconds = 10_000
	// manyDollars is more an hour than any pod costs; in cents it is common.
	manyDollars = 100
	// manyPerSecond is a rate that was probably meant per minute.
	manyPerSecond = 10
)

const (
	seconds = "seconds"
	percent = "percent"
	dollars = "US dollars per hour"
)

// quantity is one side of a comparison, as far as its unit is known.
type quantity struct {
	slot Slot
	unit string // empty when it is not known
}

// doubt notes comparisons that compile and are hardly meant: of a share with a
// percentage, of seconds with milliseconds, of dollars with cents, and those that
// never hold.
func (b *builder) doubt(a *ast.AST) {
	ast.PreOrderVisit(a.Expr(), ast.NewExprVisitor(func(e ast.Expr) {
		if e.Kind() != ast.CallKind || len(e.AsCall().Args()) != 2 {
			return
		}
		compare, turned := e.AsCall().FunctionName(), ""
		switch compare {
		case operators.Greater:
			turned = operators.Less
		case operators.GreaterEquals:
			turned = operators.LessEquals
		case operators.Less:
			turned = operators.Greater
		case operators.LessEquals:
			turned = operators.GreaterEquals
		case operators.Equals, operators.NotEquals:
			turned = compare
		default:
			return
		}
		left, right := e.AsCall().Args()[0], e.AsCall().Args()[1]
		at := b.wordStart(b.offset(a.SourceInfo().GetStartLocation(left.ID())))
		b.doubtSides(at, left, compare, right)
		b.doubtSides(at, right, turned, left)
		b.doubtUnits(at, left, right)
	}))
}

// doubtSides looks at a quantity on the left and a number on the right.
func (b *builder) doubtSides(at int, left ast.Expr, compare string, right ast.Expr) {
	q, known := b.quantity(left)
	number, isNumber := b.constant(right)
	if !known || !isNumber {
		return
	}
	if text := q.doubt(compare, number); text != "" {
		b.e.doubts = append(b.e.doubts, Mistake{Offset: at, Text: fmt.Sprintf("`%s` %s", q.slot.Text, text)})
	}
}

// doubtUnits looks at two quantities. Counts of different things are compared for
// good reasons; times, shares and money are not.
func (b *builder) doubtUnits(at int, left, right ast.Expr) {
	l, okLeft := b.quantity(left)
	r, okRight := b.quantity(right)
	if !okLeft || !okRight || l.unit == r.unit || l.unit == "" || r.unit == "" {
		return
	}
	for _, unit := range []string{l.unit, r.unit} {
		if unit == seconds || unit == percent || unit == dollars {
			text := fmt.Sprintf("`%s` has %s and `%s` has %s; they are compared all the same", l.slot.Text, l.unit, r.slot.Text, r.unit)
			b.e.doubts = append(b.e.doubts, Mistake{Offset: at, Text: text})
			return
		}
	}
}

// quantity reads an expression that is one field or one function of a field.
func (b *builder) quantity(e ast.Expr) (quantity, bool) {
	name, ok := chain(e)
	if !ok {
		return quantity{}, false
	}
	id, ok := b.e.slots[name]
	if !ok {
		return quantity{}, false
	}
	q := quantity{slot: b.c.slots[id]}
	switch q.slot.Fn {
	case FnField, FnIncrease, FnMin, FnMax, FnAvg, FnFirst, FnLast, FnDelta, FnStddev, FnQuantile, FnPredict, FnBaseline, FnBaselineSpread:
		if kind := table[q.slot.Field].Kind; kind != Gauge && kind != Counter {
			return q, false
		}
		q.unit = table[q.slot.Field].Unit
	case FnRate, FnCountTrue:
	case FnCount, FnAge:
		q.unit = seconds
	default:
		return q, false
	}
	return q, true
}

// constant reads a number: written as one, or the default of a threshold.
func (b *builder) constant(e ast.Expr) (float64, bool) {
	if n, ok := numberOf(e); ok {
		return n, true
	}
	name, ok := chain(e)
	if !ok {
		return 0, false
	}
	id, ok := b.e.slots[name]
	if !ok || b.c.slots[id].Fn != FnThreshold {
		return 0, false
	}
	return b.c.slots[id].Default, true
}

// doubt says what is odd about comparing q with a number, or nothing.
func (q quantity) doubt(compare string, number float64) string {
	above := compare == operators.Greater || compare == operators.GreaterEquals
	switch {
	case q.slot.Fn == FnCountTrue:
		most := float64(q.slot.Window / q.slot.Bucket)
		if number > most || number == most && compare == operators.Greater {
			return fmt.Sprintf("counts up to %s buckets and is compared with %s", Num(most), Num(number))
		}
	case q.slot.Fn == FnRate && above && number >= manyPerSecond:
		return fmt.Sprintf("is per second: %s are %s a minute; did you mean increase(..., '1m') or %s?", Num(number), Num(number*60), Num(number/60))
	case q.slot.Fn == FnRate:
	case q.slot.Fn == FnDelta, q.slot.Fn == FnPredict:
		return "" // differences may be of any size, and a line falls below zero
	case q.slot.Fn == FnCount && number > float64(q.slot.Window)/1000:
		return fmt.Sprintf("counts seconds, up to %s of them, and is compared with %s", Num(float64(q.slot.Window)/1000), Num(number))
	case q.slot.Fn == FnCount, q.slot.Fn == FnAge:
	case number < 0 && q.slot.Field != ClockSkew:
		return "is never negative"
	case q.unit == percent && number > 0 && number < 1:
		return fmt.Sprintf("is in percent: %s is less than one of a hundred; did you mean %s?", Num(number), Num(number*100))
	case q.unit == percent && (number > 100 || number == 100 && compare == operators.Greater):
		return fmt.Sprintf("is in percent: it is never above 100, and is compared with %s", Num(number))
	case q.unit == seconds && q.slot.Field != PodUptime && number >= manySeconds && math.Mod(number, 1000) == 0:
		return fmt.Sprintf("is in seconds: %s are %s; did you mean %s?", Num(number), short(time.Duration(number)*time.Second), Num(number/1000))
	case q.unit == dollars && number >= manyDollars:
		return fmt.Sprintf("is in US dollars per hour: did you mean %s instead of %s?", Num(number/100), Num(number))
	case !fraction(q.slot.Fn) && countsWhole(q.unit) && number > 0 && number < 1:
		return fmt.Sprintf("counts %s and is compared with %s; a share is one count divided by another", q.unit, Num(number))
	}
	return ""
}

// fraction says that a function of whole numbers gives others.
func fraction(fn Fn) bool {
	return fn == FnAvg || fn == FnStddev || fn == FnBaseline || fn == FnBaselineSpread
}

// countsWhole says that values of a unit are whole numbers.
func countsWhole(unit string) bool {
	return unit != "" && unit != seconds && unit != percent && unit != dollars
}
