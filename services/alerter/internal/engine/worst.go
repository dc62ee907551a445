package engine

import (
	"slices"

	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	alertv1 "github.com/tocsin-dev/tocsin/proto/gen/tocsin/alert/v1"
	"github.com/tocsin-dev/tocsin/services/alerter/internal/expr"
)

// maxWorst bounds the values of which an alert keeps the worst: the longest rule
// of the default pack compares that many which are no settings.
const maxWorst = 4

// worth returns the values of a condition of which the worst is worth keeping. A
// setting is what people chose, and no measure of how bad something is. What is
// compared with a limit comes before what is compared with zero, which often only
// asks whether there is anything to judge.
func worth(cond *expr.Expr, slots []expr.Slot) []expr.Measure {
	var all []expr.Measure
	for _, m := range cond.Measures() {
		measured := slices.ContainsFunc(m.Slots, func(id int) bool {
			return slots[id].Fn != expr.FnField || sourceOf(slots[id].Field) != factsOfSpec
		})
		if measured {
			all = append(all, m)
		}
	}
	slices.SortStableFunc(all, func(a, b expr.Measure) int {
		switch {
		case a.Guard == b.Guard:
			return 0
		case b.Guard:
			return -1
		default:
			return 1
		}
	})
	return all[:min(len(all), maxWorst)]
}

// worsen takes the values at hand into the worst of an alert. The cache must hold
// the values that it is judged by. A value that is not known changes nothing.
func (p *Partition) worsen(a *alert, at int64) {
	changed := false
	for _, m := range a.rule.measures {
		v, ok := m.Value(&p.cache)
		if !ok {
			continue
		}
		x := a.extreme(m)
		if x != nil && (m.Lowest && v >= x.GetNumber() || !m.Lowest && v <= x.GetNumber()) {
			continue
		}
		if x == nil {
			x = &alertv1.Extreme{Name: m.Text, Lowest: m.Lowest}
			a.worst = append(a.worst, x)
		}
		x.Number, x.At, changed = v, timestamppb.New(p.shown(at)), true
	}
	if changed {
		a.order()
		p.showWorst(a)
	}
}

// extreme finds the worst of a value, or nil before it was known.
func (a *alert) extreme(m expr.Measure) *alertv1.Extreme {
	for _, x := range a.worst {
		if x.GetName() == m.Text && x.GetLowest() == m.Lowest {
			return x
		}
	}
	return nil
}

// order puts the worst into the order of what is measured.
func (a *alert) order() {
	slices.SortFunc(a.worst, func(x, y *alertv1.Extreme) int { return a.rule.measure(x) - a.rule.measure(y) })
}

// measure finds the position of the value that x is the worst of, -1 if the rule
// compares no such value.
func (c *compiled) measure(x *alertv1.Extreme) int {
	return slices.IndexFunc(c.measures, func(m expr.Measure) bool { return x.GetName() == m.Text && x.GetLowest() == m.Lowest })
}

// remeasure forgets the worst of what an alert's rule does not compare any more.
func (p *Partition) remeasure(a *alert) {
	kept := slices.DeleteFunc(slices.Clone(a.worst), func(x *alertv1.Extreme) bool { return a.rule.measure(x) < 0 })
	if len(kept) == len(a.worst) {
		return
	}
	a.worst = kept
	p.showWorst(a)
}

// showWorst writes the worst into the evidence, for those who ask. That alone is
// no news.
func (p *Partition) showWorst(a *alert) {
	if a.told.Evidence != nil {
		a.told.Evidence.Worst = a.worst
		p.touchAlert(a)
	}
}

// closing returns the evidence of an alert whose end has come.
func (p *Partition) closing(a *alert, at int64) *alertv1.Evidence {
	e := p.evidence(a, at)
	e.ValuesAtFiring, e.Diagnosis = a.told.GetEvidence().GetValues(), a.told.GetEvidence().GetDiagnosis()
	return e
}

// lasted notes in the evidence of an alert that is over for how long it fired.
func lasted(told *alertv1.Alert) {
	if told.GetEvidence() != nil && told.GetFiredAt() != nil {
		told.Evidence.Duration = durationpb.New(told.GetResolvedAt().AsTime().Sub(told.GetFiredAt().AsTime()))
	}
}
