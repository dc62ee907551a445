package expr

import (
	"slices"

	"cel.dev/cel-go/cel"
	"cel.dev/cel-go/common/ast"
	"cel.dev/cel-go/common/operators"
	"cel.dev/cel-go/common/types"
)

// Most conditions are comparisons of numbers, joined by && and ||. CEL spends
// 85 to 270 ns on each, most of it on boxing numbers; here they take a tenth. What
// is decided here is decided as CEL does; everything else is left to CEL, and so is
// any value that is not of the kind that its slot is declared with.

// op is what a node of a native condition does.
type op uint8

const (
	opConstant op = iota
	opSlot
	opAnd
	opOr
	opNot
	opIf
	opEqual
	opNotEqual
	opLess
	opLessEqual
	opGreater
	opGreaterEqual
	opAdd
	opSubtract
	opMultiply
	opDivide
	opNegate
	opLeast
	opGreatest
	opIn
)

// node is a part of a native condition. Its kind is Truth, Gauge or Text.
type node struct {
	op   op
	kind Kind
	// of is the kind of the operands of a comparison.
	of     Kind
	slot   int
	number float64
	text   string
	truth  truth
	args   []*node
	// texts are what opIn looks among.
	texts []string
}

// truth is what a node of kind Truth gives.
type truth uint8

const (
	no truth = iota
	yes
	// none is CEL's error of a missing value, which && and || swallow where another
	// operand decides.
	none
)

func truthOf(b bool) truth {
	if b {
		return yes
	}
	return no
}

// native translates a checked expression, or returns nil where CEL must evaluate it.
func (b *builder) native(checked *cel.Ast) *node {
	n := translator{b.e.slots, checked.NativeRep()}.node(checked.NativeRep().Expr())
	if n == nil || n.kind != Truth {
		return nil
	}
	loose := 0
	for _, id := range b.e.slots {
		if b.c.slots[id].Fn.Loose() {
			loose++
		}
	}
	if loose <= maxSlack {
		b.cheapFirst(n)
	}
	return n
}

// cheapFirst sorts the operands of && and || so that a field that decides spares a
// look through a window. What is decided does not depend on their order, missing
// values being neither: one operand that decides is enough, and else one that is
// missing. Nor do values with slack: the condition has a value if it is the same for
// all of them, and where those that were asked for have none it is. Only where there
// is too much slack to try, it would.
func (b *builder) cheapFirst(n *node) int {
	cost := 1
	if n.op == opSlot {
		cost = b.c.slots[n.slot].Fn.cost()
	}
	costs := make(map[*node]int, len(n.args))
	for _, arg := range n.args {
		costs[arg] = b.cheapFirst(arg)
		cost += costs[arg]
	}
	if n.op == opAnd || n.op == opOr {
		slices.SortStableFunc(n.args, func(x, y *node) int { return costs[x] - costs[y] })
	}
	return cost
}

// cost is about how long a slot's value takes to be found, a field's being 2.
func (f Fn) cost() int {
	switch f {
	case FnField, FnPresent, FnLabel, FnThreshold, FnOverridden, FnAbsent:
		return 2
	case FnIncrease, FnRate, FnDelta, FnLast, FnAge:
		return 6
	case FnMin, FnMax, FnAvg, FnSum:
		return 20
	default:
		return 60
	}
}

// translator turns a checked expression into nodes.
type translator struct {
	slots map[string]int
	ast   *ast.AST
}

// kind returns the kind of an expression's values, 0 for those that only CEL knows.
func (t translator) kind(e ast.Expr) Kind {
	switch ty := t.ast.GetType(e.ID()); {
	case ty == nil:
		return 0
	case ty.IsExactType(types.DoubleType):
		return Gauge
	case ty.IsExactType(types.StringType):
		return Text
	case ty.IsExactType(types.BoolType):
		return Truth
	default:
		return 0
	}
}

func (t translator) node(e ast.Expr) *node {
	kind := t.kind(e)
	if kind == 0 {
		return nil
	}
	switch e.Kind() {
	case ast.LiteralKind:
		return literal(e, kind)
	case ast.IdentKind, ast.SelectKind:
		name, _ := chain(e)
		slot, ok := t.slots[name]
		if !ok {
			return nil
		}
		return &node{op: opSlot, kind: kind, slot: slot}
	case ast.CallKind:
		return t.call(e.AsCall(), kind)
	default:
		return nil
	}
}

func literal(e ast.Expr, kind Kind) *node {
	n := &node{op: opConstant, kind: kind}
	switch v := e.AsLiteral().(type) {
	case types.Double:
		n.number = float64(v)
	case types.String:
		n.text = string(v)
	case types.Bool:
		n.truth = truthOf(bool(v))
	default:
		return nil
	}
	return n
}

// operation is a function of CEL over operands of one kind.
type operation struct {
	op       op
	operands Kind
	count    int
}

// operations are the functions that are the same for all their overloads here.
var operations = map[string]operation{
	operators.LogicalNot:    {opNot, Truth, 1},
	operators.Less:          {opLess, Gauge, 2},
	operators.LessEquals:    {opLessEqual, Gauge, 2},
	operators.Greater:       {opGreater, Gauge, 2},
	operators.GreaterEquals: {opGreaterEqual, Gauge, 2},
	operators.Add:           {opAdd, Gauge, 2},
	operators.Subtract:      {opSubtract, Gauge, 2},
	operators.Multiply:      {opMultiply, Gauge, 2},
	operators.Divide:        {opDivide, Gauge, 2},
	operators.Negate:        {opNegate, Gauge, 1},
	"min":                   {opLeast, Gauge, 2},
	"max":                   {opGreatest, Gauge, 2},
}

func (t translator) call(c ast.CallExpr, kind Kind) *node {
	if c.IsMemberFunction() {
		return nil
	}
	if c.FunctionName() == operators.In {
		return t.in(c)
	}
	args := make([]*node, len(c.Args()))
	for i, arg := range c.Args() {
		if args[i] = t.node(arg); args[i] == nil {
			return nil
		}
	}
	n := &node{kind: kind, args: args}
	switch c.FunctionName() {
	case operators.LogicalAnd, operators.LogicalOr:
		return t.junction(c, n)
	case operators.Conditional:
		if n.op = opIf; args[0].kind != Truth || args[1].kind != kind || args[2].kind != kind {
			return nil
		}
		return n
	case operators.Equals, operators.NotEquals:
		if n.op, n.of = opEqual, args[0].kind; c.FunctionName() == operators.NotEquals {
			n.op = opNotEqual
		}
		if args[1].kind != n.of {
			return nil
		}
		return n
	}
	o, ok := operations[c.FunctionName()]
	if !ok || len(args) != o.count {
		return nil
	}
	for _, arg := range args {
		if arg.kind != o.operands {
			return nil
		}
	}
	n.op, n.of = o.op, o.operands
	return n
}

// junction puts the operands of nested && or || side by side, which changes neither
// their order nor what is decided.
func (t translator) junction(c ast.CallExpr, n *node) *node {
	if n.op = opAnd; c.FunctionName() == operators.LogicalOr {
		n.op = opOr
	}
	var flat []*node
	for _, arg := range n.args {
		if arg.kind != Truth {
			return nil
		}
		if arg.op == n.op {
			flat = append(flat, arg.args...)
		} else {
			flat = append(flat, arg)
		}
	}
	n.args = flat
	return n
}

// in translates TEXT in ['a', 'b'].
func (t translator) in(c ast.CallExpr) *node {
	if len(c.Args()) != 2 || c.Args()[1].Kind() != ast.ListKind {
		return nil
	}
	arg := t.node(c.Args()[0])
	if arg == nil || arg.kind != Text {
		return nil
	}
	n := &node{op: opIn, kind: Truth, args: []*node{arg}}
	for _, e := range c.Args()[1].AsList().Elements() {
		text, ok := textOf(e)
		if !ok {
			return nil
		}
		n.texts = append(n.texts, text)
	}
	return n
}
