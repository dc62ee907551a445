package expr

import (
	"errors"
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

// Expr is a compiled condition. It is immutable and safe for concurrent use.
type Expr struct {
	text  string
	prg   cel.Program
	slots map[string]int
	parts []int
}

// Text returns the condition as it was written.
func (e *Expr) Text() string { return e.text }

// Parts returns the slots that the condition names, in the order of the text.
func (e *Expr) Parts() []int { return e.parts }

// missing stands for a value that is not there. CEL's && and || swallow it
// where the other side decides. All evaluations share it: CEL writes the place
// of an error into errors that have none, so this one has one from the start.
var missing = types.NewErrWithNodeID(1, "no value")

// Eval decides the condition with the values of src. The error is nil unless
// the result is Failed.
func (e *Expr) Eval(src Source) (Result, error) {
	a := activations.Get().(*activation)
	a.e, a.src, a.missed = e, src, false
	out, _, err := e.prg.Eval(a)
	missed := a.missed
	a.e, a.src = nil, nil // not put back when a rule panics: it may still be in use
	activations.Put(a)
	switch {
	case err != nil && missed:
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

// activations are used again: each fact takes one for every rule.
var activations = sync.Pool{New: func() any { return new(activation) }}

// activation answers CEL's questions for names and remembers whether it was
// asked for something that has no value.
type activation struct {
	e      *Expr
	src    Source
	missed bool
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
