package expr

import "slices"

// decide gives a node of kind Truth its value.
func (a *activation) decide(n *node) truth {
	switch n.op {
	case opConstant:
		return n.truth
	case opSlot:
		v := a.value(n)
		if v.Kind == 0 {
			return none
		}
		return truthOf(v.Truth)
	case opAnd:
		return a.junction(n.args, no)
	case opOr:
		return a.junction(n.args, yes)
	case opNot:
		switch a.decide(n.args[0]) {
		case yes:
			return no
		case no:
			return yes
		default:
			return none
		}
	case opIf:
		if branch := a.branch(n); branch != nil {
			return a.decide(branch)
		}
		return none
	case opIn:
		return a.among(n)
	default:
		return a.compare(n)
	}
}

// junction decides && where no decides, and || where yes does.
func (a *activation) junction(args []*node, decides truth) truth {
	result := yes + no - decides
	for _, arg := range args {
		switch t := a.decide(arg); t {
		case decides:
			return decides
		case none:
			result = none
		}
	}
	return result
}

// branch returns the branch of ?: that its condition picks, or nil for neither.
func (a *activation) branch(n *node) *node {
	switch a.decide(n.args[0]) {
	case yes:
		return n.args[1]
	case no:
		return n.args[2]
	default:
		return nil
	}
}

// compare decides a comparison. Nothing compares to what is not a number.
func (a *activation) compare(n *node) truth {
	switch n.of {
	case Text:
		x, known := a.words(n.args[0])
		if !known {
			return none
		}
		y, known := a.words(n.args[1])
		if !known {
			return none
		}
		return truthOf((x == y) == (n.op == opEqual))
	case Truth:
		x := a.decide(n.args[0])
		if x == none {
			return none
		}
		y := a.decide(n.args[1])
		if y == none {
			return none
		}
		return truthOf((x == y) == (n.op == opEqual))
	}
	x, known := a.amount(n.args[0])
	if !known {
		return none
	}
	y, known := a.amount(n.args[1])
	if !known {
		return none
	}
	switch n.op {
	case opEqual:
		return truthOf(x == y)
	case opNotEqual:
		return truthOf(x != y)
	case opLess:
		return truthOf(x < y)
	case opLessEqual:
		return truthOf(x <= y)
	case opGreater:
		return truthOf(x > y)
	default:
		return truthOf(x >= y)
	}
}

// among decides whether a text is one of some.
func (a *activation) among(n *node) truth {
	x, known := a.words(n.args[0])
	if !known {
		return none
	}
	return truthOf(slices.Contains(n.texts, x))
}

// amount gives a node of kind Gauge its value, and false where there is none.
func (a *activation) amount(n *node) (float64, bool) {
	switch n.op {
	case opConstant:
		return n.number, true
	case opSlot:
		v := a.value(n)
		return v.Number, v.Kind != 0
	case opIf:
		if branch := a.branch(n); branch != nil {
			return a.amount(branch)
		}
		return 0, false
	}
	x, known := a.amount(n.args[0])
	if !known || n.op == opNegate {
		return -x, known
	}
	y, known := a.amount(n.args[1])
	if !known {
		return 0, false
	}
	return calculate(n.op, x, y), true
}

// calculate rounds each result by itself, as CEL does, on any processor.
func calculate(o op, x, y float64) float64 {
	switch {
	case o == opAdd:
		return float64(x + y)
	case o == opSubtract:
		return float64(x - y)
	case o == opMultiply:
		return float64(x * y)
	case o == opDivide:
		return float64(x / y)
	case o == opLeast && x < y, o == opGreatest && x > y:
		return x
	default:
		return y
	}
}

// words gives a node of kind Text its value, and false where there is none.
func (a *activation) words(n *node) (string, bool) {
	switch n.op {
	case opConstant:
		return n.text, true
	case opSlot:
		v := a.value(n)
		return v.Text, v.Kind != 0
	default: // opIf: no other operation gives texts
		if branch := a.branch(n); branch != nil {
			return a.words(branch)
		}
		return "", false
	}
}

// value returns a slot's value until the next is asked for, and remembers what read
// does. One of another kind than declared is left to CEL.
func (a *activation) value(n *node) *Value {
	v := a.read(n.slot)
	if v.Kind == n.kind || v.Kind == 0 || v.Kind == Counter && n.kind == Gauge {
		return v
	}
	a.odd = true
	return &nothing
}

// nothing is no value.
var nothing Value
