package expr

import (
	"math"
	"slices"

	"cel.dev/cel-go/common/ast"
	"cel.dev/cel-go/common/operators"
)

// Measure is one value that a condition compares, and which way is the bad one. It
// is found from the slots alone, without evaluating the condition.
type Measure struct {
	// Text is the value as a rule writes it.
	Text string
	// Lowest says that the condition asks for less than something, so that the least
	// value is the worst.
	Lowest bool
	// Guard says that it is compared with zero: the condition asks whether there is
	// any at all.
	Guard bool
	// Slots are what the value is made of, thresholds left out.
	Slots []int

	value term
}

// Value returns the value, or false where a part of it is missing or it is no
// finite number. Of a slot with slack the least value counts.
func (m Measure) Value(src Source) (float64, bool) {
	v, ok := m.value.value(src)
	return v, ok && !math.IsNaN(v) && !math.IsInf(v, 0)
}

// Measures returns the values that the condition compares with more or less, in
// the order of the text. What it asks to be equal has no bad direction.
func (e *Expr) Measures() []Measure { return e.measures }

// term is a number made of slots: an operator and its operands, a slot, or a
// constant.
type term struct {
	op     string
	args   []term
	slot   int
	number float64
}

const (
	termSlot   = "slot"
	termNumber = "number"
	termMin    = "min"
	termMax    = "max"
)

func (t term) value(src Source) (float64, bool) {
	switch t.op {
	case termSlot:
		v := src.Slot(t.slot)
		return v.Number, v.Kind == Gauge || v.Kind == Counter
	case termNumber:
		return t.number, true
	}
	var args [2]float64
	for i, a := range t.args {
		v, ok := a.value(src)
		if !ok {
			return 0, false
		}
		args[i] = v
	}
	a, b := args[0], args[1]
	switch t.op {
	case operators.Add:
		return a + b, true
	case operators.Subtract:
		return a - b, true
	case operators.Multiply:
		return float64(a * b), true // rounded by itself on every processor
	case operators.Divide:
		return a / b, true
	case operators.Negate:
		return -a, true
	case termMin:
		return min(a, b), true
	default:
		return max(a, b), true
	}
}

// measure notes what a condition compares. Of a comparison of two measured values
// the left one counts: that is what the rule is about, and the right one its limit.
func (b *builder) measure(e ast.Expr, negated bool) {
	if e.Kind() != ast.CallKind {
		return
	}
	call := e.AsCall()
	name, args := call.FunctionName(), call.Args()
	switch name {
	case operators.LogicalAnd, operators.LogicalOr:
		for _, a := range args {
			b.measure(a, negated)
		}
		return
	case operators.LogicalNot:
		b.measure(args[0], !negated)
		return
	case operators.Greater, operators.GreaterEquals, operators.Less, operators.LessEquals:
	default:
		return
	}
	lowest := (name == operators.Less || name == operators.LessEquals) != negated
	for i, side := range args {
		value, ok := b.term(side)
		m := Measure{Lowest: lowest != (i == 1), value: value, Slots: b.measured(value, nil)}
		if !ok || len(m.Slots) == 0 {
			continue
		}
		m.Text = b.write(value, 0)
		limit, constant := numberOf(args[1-i])
		m.Guard = constant && limit == 0
		at := slices.IndexFunc(b.e.measures, func(o Measure) bool { return o.Text == m.Text && o.Lowest == m.Lowest })
		if at < 0 {
			b.e.measures = append(b.e.measures, m)
		} else {
			b.e.measures[at].Guard = b.e.measures[at].Guard && m.Guard
		}
		return
	}
}

// term reads a number that is made of slots and constants, or returns false.
func (b *builder) term(e ast.Expr) (term, bool) {
	if n, ok := numberOf(e); ok {
		return term{op: termNumber, number: n}, true
	}
	if name, ok := chain(e); ok {
		id, ok := b.e.slots[name]
		return term{op: termSlot, slot: id}, ok && b.c.slots[id].isNumber()
	}
	if e.Kind() != ast.CallKind {
		return term{}, false
	}
	call := e.AsCall()
	t := term{op: call.FunctionName()}
	if precedence[t.op] == 0 || len(call.Args()) > 2 {
		return term{}, false
	}
	for _, a := range call.Args() {
		arg, ok := b.term(a)
		if !ok {
			return term{}, false
		}
		t.args = append(t.args, arg)
	}
	return t, true
}

// isNumber says that the values of a slot are numbers.
func (s *Slot) isNumber() bool {
	switch s.Fn {
	case FnField:
		return table[s.Field].Kind == Gauge || table[s.Field].Kind == Counter
	case FnAbsent, FnPresent, FnLabel, FnOverridden:
		return false
	default:
		return true
	}
}

// measured adds the slots of a term that are no thresholds.
func (b *builder) measured(t term, slots []int) []int {
	if t.op == termSlot && b.c.slots[t.slot].Fn != FnThreshold && !slices.Contains(slots, t.slot) {
		slots = append(slots, t.slot)
	}
	for _, a := range t.args {
		slots = b.measured(a, slots)
	}
	return slots
}

// precedence is how strongly the operators of terms bind.
var precedence = map[string]int{
	operators.Add: 1, operators.Subtract: 1, operators.Multiply: 2, operators.Divide: 2,
	operators.Negate: 3, termMin: 4, termMax: 4,
}

// write writes a term as a rule does, in brackets where what is around it binds
// more strongly.
func (b *builder) write(t term, around int) string {
	var text string
	binds := precedence[t.op]
	switch t.op {
	case termSlot:
		return b.c.slots[t.slot].Text
	case termNumber:
		return Num(t.number).String()
	case termMin, termMax:
		return t.op + "(" + b.write(t.args[0], 0) + ", " + b.write(t.args[1], 0) + ")"
	case operators.Negate:
		text = "-" + b.write(t.args[0], binds)
	default:
		// What stands on the right of - and / binds as if it were closer.
		text = b.write(t.args[0], binds) + " " + plainOperator(t.op) + " " + b.write(t.args[1], binds+1)
	}
	if binds < around {
		return "(" + text + ")"
	}
	return text
}
