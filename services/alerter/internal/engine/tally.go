package engine

import (
	"cmp"
	"slices"
	"strings"

	alertv1 "github.com/tocsin-dev/tocsin/proto/gen/tocsin/alert/v1"
	statev1 "github.com/tocsin-dev/tocsin/proto/gen/tocsin/state/v1"
	"github.com/tocsin-dev/tocsin/services/alerter/internal/expr"
	"github.com/tocsin-dev/tocsin/services/alerter/internal/rule"
)

// tally is in which of the last buckets of time the condition of a rule with
// `times` held. It is kept as long as it says more than that it does not hold:
// about 100 bytes for a rule and a target, and a timer for each bucket.
type tally struct {
	rule     *compiled
	key      string // of the rule, by which it is found after a load
	category string
	state    rule.Tally
	timer    *timer
}

func newTally(t *target, c *compiled, key, category string, state rule.Tally) *tally {
	y := &tally{rule: c, key: key, category: category, state: state, timer: newTimer(t, c, category)}
	y.timer.tally = true
	return y
}

// tally finds the tally of a rule, and the position at which it stands or would
// stand.
func (t *target) tally(c *compiled, category string) (*tally, int) {
	for i, y := range t.tallies {
		switch {
		case y.rule == c && y.category == category:
			return y, i
		case y.rule.order > c.order, y.rule == c && y.category > category:
			return nil, i
		}
	}
	return nil, len(t.tallies)
}

// often says whether a condition, of which cond is known now, holds in the sense
// of its rule: now, or in as many of the last buckets of time as the rule asks
// for. Without an alert there is a tally only once the condition held.
func (p *Partition) often(t *target, c *compiled, category string, a *alert, cond rule.Truth, at int64) rule.Truth {
	if c.times.Of == 0 {
		return cond
	}
	y, i := t.tally(c, category)
	if y == nil {
		if a == nil && cond != rule.Yes {
			return cond
		}
		y = newTally(t, c, c.key, category, rule.NewTally(at))
		t.tallies = slices.Insert(t.tallies, i, y)
	}
	if cond == rule.Unknown {
		p.note(t, y, p.missing(t, c, at), cond)
	}
	p.note(t, y, at, cond)
	return y.state.Verdict(c.times)
}

// counted says what often would, and notes nothing.
func (p *Partition) counted(t *target, c *compiled, category string, cond rule.Truth, at int64) rule.Truth {
	if c.times.Of == 0 {
		return cond
	}
	state := rule.NewTally(at)
	if y, _ := t.tally(c, category); y != nil {
		state = y.state
	}
	if cond == rule.Unknown {
		state = state.Note(p.missing(t, c, at), cond, c.times)
	}
	return state.Note(at, cond, c.times).Verdict(c.times)
}

// note takes in what is known of a condition from an instant on. What says
// nothing new is not written down.
func (p *Partition) note(t *target, y *tally, at int64, truth rule.Truth) {
	next := y.state.Note(at, truth, y.rule.times)
	same := next
	same.At = y.state.At
	if same == y.state && y.rule.times.Next(at) == y.rule.times.Next(y.state.At) {
		return
	}
	y.state = next
	p.touch(t)
}

// lose notes that nothing is known any more of a target's conditions: of all, or
// of those that are judged by samples.
func (p *Partition) lose(t *target, all bool) {
	for _, y := range t.tallies {
		if all || y.rule.readsSamples {
			p.note(t, y, p.missing(t, y.rule, p.nowMs()), rule.Unknown)
		}
	}
}

// settle sees to a rule's tally after a step: it waits for its next bucket, or is
// forgotten when it says nothing.
func (p *Partition) settle(t *target, c *compiled, category string, at int64) {
	y, i := t.tally(c, category)
	if y == nil {
		return
	}
	if a, _ := t.alert(c, category); a == nil && y.state.Idle() {
		p.dropTally(t, i)
		return
	}
	p.schedule(y.timer, at)
}

func (p *Partition) dropTally(t *target, i int) {
	t.tallies[i].timer.done = true
	p.schedule(t.tallies[i].timer, p.nowMs())
	t.tallies = slices.Delete(t.tallies, i, i+1)
	p.touch(t)
}

func (p *Partition) dropTallies(t *target) {
	for len(t.tallies) > 0 {
		p.dropTally(t, len(t.tallies)-1)
	}
}

// dropChanged forgets the tallies of conditions that are others in the next rule
// set: what was counted is no count of those.
func (p *Partition) dropChanged(t *target, old, next *Program) {
	for i, y := range slices.Backward(t.tallies) {
		before, after := old.byKey[y.key], next.byKey[y.key]
		if before == nil || after == nil || before.rule.Expr != after.rule.Expr || before.times != after.times || before.rule.NoData != after.rule.NoData {
			p.dropTally(t, i)
		}
	}
}

// rebindTallies gives each tally of a target its rule in the present set.
func (p *Partition) rebindTallies(t *target) {
	for i, y := range slices.Backward(t.tallies) {
		if y.rule = p.program.byKey[y.key]; y.rule == nil || y.rule.times.Of == 0 {
			p.dropTally(t, i)
			continue
		}
		y.timer.rule = y.rule
	}
	slices.SortStableFunc(t.tallies, func(a, b *tally) int {
		return cmp.Or(cmp.Compare(a.rule.order, b.rule.order), strings.Compare(a.category, b.category))
	})
	for _, y := range t.tallies {
		p.schedule(y.timer, p.nowMs())
	}
}

// tallyValue says in how many buckets an alert's condition held.
func (a *alert) tallyValue() *alertv1.Value {
	y, _ := a.target.tally(a.rule, a.category)
	if y == nil {
		return nil
	}
	held := float64(y.state.Count())
	return &alertv1.Value{Name: "times: " + a.rule.rule.Times.String(), Value: expr.Num(held).String(), Number: &held}
}

func (y *tally) encode() *statev1.Tally {
	return &statev1.Tally{
		RuleKey: y.key, Category: y.category, AtMs: y.state.At, Truth: statev1.Truth(y.state.Truth),
		Held: y.state.Held, Unknown: y.state.Unknown,
	}
}

func decodeTally(t *target, s *statev1.Tally) *tally {
	return newTally(t, nil, s.GetRuleKey(), s.GetCategory(), rule.Tally{
		At: s.GetAtMs(), Truth: rule.Truth(s.GetTruth()), Held: s.GetHeld(), Unknown: s.GetUnknown(),
	})
}
