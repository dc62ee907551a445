package expr

import (
	"errors"
	"slices"
	"sync"

	"cel.dev/cel-go/cel"
	"cel.dev/cel-go/common/types"
)

// Result is what an evaluation gives.
type Result int

// The results of an evaluation.
const (
	// False means that the condition does not hold.
	False Result = iota
	// True means that the condition holds.
	True
	// NoValue means that the facts to decide the condition are missing.
	NoValue
	// Failed means that the expression could not be evaluated.
	Failed
)

// Source gives the values of slots, by their position in the compiler's list.
// The values must not change while an expression is evaluated.
type Source interface {
	Slot(id int) Value
}

// Finder is a Source that can show its values without copying them, which is a
// third of what a comparison costs. They must not be written to.
type Finder interface {
	Source
	Find(id int) *Value
}

// Expr is a compiled condition. It is immutable and safe for concurrent use.
type Expr struct {
	text string
	prg  cel.Program
	// native is the condition where it can be decided without CEL, else nil.
	native *node
	slots  map[string]int
	parts  []int
	// cost is CEL's static estimate of its greatest cost.
	cost uint64
	// doubts are what is allowed and probably not meant.
	doubts []Mistake
	// measures are the values that it compares.
	measures []Measure
}

// Cost returns the most that one evaluation may cost, in CEL's units: a
// comparison is about 3. Compile refuses more than [MaxCost].
func (e *Expr) Cost() uint64 { return e.cost }

// Doubts returns what the expression may say and its author hardly meant.
func (e *Expr) Doubts() []Mistake { return e.doubts }

// Text returns the condition as it was written.
func (e *Expr) Text() string { return e.text }

// Parts returns the slots that the condition names, in the order of the text.
func (e *Expr) Parts() []int { return e.parts }

// missing stands for a value that is not there. CEL's && and || swallow it
// where the other side decides. All evaluations share it: CEL writes the place
// of an error into errors that have none, so this one has one from the start.
var missing = types.NewErrWithNodeID(1, "no value")

// maxSlack is how many values with slack a condition is tried with: 6 are 64
// trials, 20 us. The largest condition of the default rules names 4.
const maxSlack = 6

// Eval decides the condition with the values of src. Where values have slack,
// it holds or does not only if it does for their least and their greatest, each
// with each. The error is nil unless the result is Failed.
func (e *Expr) Eval(src Source) (Result, error) {
	var w Workspace
	w.free = activations.Get().(*activation)
	result, err := e.EvalIn(&w, src)
	activations.Put(w.free)
	return result, err
}

// Workspace is memory that evaluations use one after the other. The zero value is
// ready; it is not safe for concurrent use.
type Workspace struct{ free *activation }

// EvalIn is Eval for those who evaluate much.
func (e *Expr) EvalIn(w *Workspace, src Source) (Result, error) {
	a := w.free
	w.free = nil // until it is done: when a rule panics it may still be in use
	if a == nil {
		a = new(activation)
	}
	a.e, a.src, a.missed, a.slack = e, src, false, false
	a.finder, _ = src.(Finder)
	result, err := a.try()
	if a.slack && (result == True || result == False) {
		result, err = a.tryAll(result)
	}
	a.e, a.src, a.finder, a.loose, a.greatest = nil, nil, nil, nil, 0
	w.free = a
	return result, err
}

// activations are used again.
var activations = sync.Pool{New: func() any { return new(activation) }}

// activation answers CEL's questions for names and remembers whether it was
// asked for something that has no value, or whose value has slack.
type activation struct {
	e   *Expr
	src Source
	// finder is src where it is one, and copied a value of one that is not.
	finder        Finder
	copied        Value
	missed, slack bool
	// odd says that a slot's value was of another kind than declared.
	odd bool
	// loose are the slots with slack, and bit i of greatest says that the i-th
	// has its greatest value.
	loose    []int
	greatest int
}

// try decides the condition with one choice of values.
func (a *activation) try() (Result, error) {
	if a.e.native == nil {
		return a.tryCEL()
	}
	slack := a.slack
	a.odd = false
	result := a.decide(a.e.native)
	switch {
	case a.odd:
		a.missed, a.slack = false, slack
		return a.tryCEL()
	case result == yes:
		return True, nil
	case result == no:
		return False, nil
	default:
		return NoValue, nil
	}
}

// tryCEL is try by CEL itself.
func (a *activation) tryCEL() (Result, error) {
	out, _, err := a.e.prg.Eval(a)
	switch {
	case err != nil && a.missed:
		return NoValue, nil
	case err != nil:
		return Failed, err
	case out == types.True:
		return True, nil
	case out == types.False:
		return False, nil
	default:
		return Failed, errors.New("the expression gave no truth value")
	}
}

// tryAll decides the condition, which gave a result for the least values, with
// all other choices.
func (a *activation) tryAll(least Result) (Result, error) {
	for _, id := range a.e.parts {
		if a.src.Slot(id).Slack > 0 && !slices.Contains(a.loose, id) {
			a.loose = append(a.loose, id)
		}
	}
	if len(a.loose) > maxSlack {
		return NoValue, nil
	}
	for a.greatest = 1; a.greatest < 1<<len(a.loose); a.greatest++ {
		a.missed = false
		switch other, err := a.try(); other {
		case least:
		case Failed:
			return Failed, err
		default:
			return NoValue, nil
		}
	}
	return least, nil
}

// ResolveName returns the value of a slot's variable.
func (a *activation) ResolveName(name string) (any, bool) {
	id, ok := a.e.slots[name]
	if !ok {
		return nil, false
	}
	return a.slot(id), true
}

// Parent returns nil: there is nothing beyond the slots.
func (a *activation) Parent() cel.Activation { return nil }
