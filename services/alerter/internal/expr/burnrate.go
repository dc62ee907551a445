package expr

import (
	"fmt"
	"strings"
	"time"

	"cel.dev/cel-go/cel"
	"cel.dev/cel-go/common"
	"cel.dev/cel-go/common/ast"
	"cel.dev/cel-go/common/operators"
	"cel.dev/cel-go/parser"
)

// maxAddends bounds the counters of one side of burn_rate.
const maxAddends = 8

// Burn is what FnBurnRate is made of, all by their positions in the compiler's list.
type Burn struct {
	// Bad and All are the increases of the counters that are added up.
	Bad, All []int
	// Objective is the threshold that holds the part which must be good; -1 where
	// the slot's Default does.
	Objective int
}

func (b *builder) burnRate(eh parser.ExprHelper, _ ast.Expr, args []ast.Expr) (ast.Expr, *common.Error) {
	if len(args) != 4 {
		return nil, b.wrong(eh, args, "burn_rate takes what is bad, all there is, the objective and a window, for example burn_rate(jobs.failed, jobs.completed + jobs.failed, 0.99, '1h')")
	}
	window, err := b.duration(eh, args[3], time.Second)
	if err != nil {
		return nil, err
	}
	text, _ := textOf(args[3])
	burn := &Burn{}
	var names [2]string
	for i, side := range []*[]int{&burn.Bad, &burn.All} {
		fields, err := b.addends(eh, args[i])
		if err != nil {
			return nil, err
		}
		for _, f := range fields {
			increase := Slot{Fn: FnIncrease, Field: f.ID, Window: window, Text: fmt.Sprintf("increase(%s, '%s')", f.Name, text)}
			*side = append(*side, b.c.slot(increase))
			names[i] += " + " + f.Name
		}
		names[i] = strings.TrimPrefix(names[i], " + ")
	}
	s := Slot{Fn: FnBurnRate, Window: window, Burn: burn}
	objective, err := b.objective(eh, args[2], &s)
	if err != nil {
		return nil, err
	}
	s.Text = fmt.Sprintf("burn_rate(%s, %s, %s, '%s')", names[0], names[1], objective, text)
	return b.capture(eh, args[0], s, cel.DoubleType), nil
}

// addends reads a counter or a sum of counters.
func (b *builder) addends(eh parser.ExprHelper, e ast.Expr) ([]Field, *common.Error) {
	if e.Kind() == ast.CallKind && e.AsCall().FunctionName() == operators.Add {
		var all []Field
		for _, arg := range e.AsCall().Args() {
			more, err := b.addends(eh, arg)
			if err != nil {
				return nil, err
			}
			all = append(all, more...)
		}
		if len(all) > maxAddends {
			return nil, eh.NewError(e.ID(), fmt.Sprintf("burn_rate adds up at most %d counters", maxAddends))
		}
		return all, nil
	}
	field, err := b.numberField(eh, e, "burn_rate", gauges|counters)
	if err == nil && field.Kind == Gauge {
		err = eh.NewError(e.ID(), fmt.Sprintf("`%s` is no counter; burn_rate takes counters, or sums of them", field.Name))
	}
	return []Field{field}, err
}

// objective reads the part that must be good, and returns it as a rule writes it.
func (b *builder) objective(eh parser.ExprHelper, e ast.Expr, s *Slot) (string, *common.Error) {
	s.Burn.Objective = -1
	value, ok := numberOf(e)
	text := Num(value).String()
	if name, isName := chain(e); isName && !ok {
		if id, known := b.e.slots[name]; known && b.c.slots[id].Fn == FnThreshold {
			s.Burn.Objective, value, text, ok = id, b.c.slots[id].Default, b.c.slots[id].Text, true
		}
	}
	switch {
	case !ok:
		return "", eh.NewError(e.ID(), "the objective of burn_rate is a number such as 0.99, or threshold('slo', 0.99)")
	case value > 1 && value < 100:
		return "", eh.NewError(e.ID(), fmt.Sprintf("the objective of burn_rate is a part of 1, not of 100: did you mean %.10g?", value/100))
	case value <= 0 || value >= 1:
		return "", eh.NewError(e.ID(), fmt.Sprintf("the objective of burn_rate is between 0 and 1, for example 0.99, not %s", Num(value)))
	}
	s.Default = value
	return text, nil
}
