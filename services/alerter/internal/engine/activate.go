package engine

import (
	"slices"
	"strings"

	"github.com/tocsin-dev/tocsin/services/alerter/internal/expr"
	"github.com/tocsin-dev/tocsin/services/alerter/internal/window"
)

// sortedTargets lists the targets by token.
func (p *Partition) sortedTargets() []*target {
	all := make([]*target, 0, len(p.targets))
	for _, token := range sortedKeys(p.targets) {
		all = append(all, p.targets[token])
	}
	return all
}

// Begin brings a rule set into force before the first message, for what is left
// of a log may lack its activation. It must not be called later.
func (p *Partition) Begin(program *Program) {
	p.attach(program)
	p.hash = program.Hash()
}

// activate brings a rule set into force. Rules that are in both sets keep their
// alerts and windows; alerts of the others are over; every target is judged.
func (p *Partition) activate(next *Program) {
	now, old := p.nowMs(), p.program
	p.program, p.hash = next, next.Hash()
	targets := p.sortedTargets()
	for _, t := range targets {
		p.dropChanged(t, old, next)
		p.rebind(t, now)
		p.describe(t)
		p.carryOver(t, old, now)
		p.watch(t)
		p.touch(t)
	}
	for _, t := range targets {
		p.judge(t)
	}
	for _, t := range targets {
		for _, a := range slices.Clone(t.alerts) {
			p.remode(a, now)
			if a.hold != nil && !a.rule.flapping.Set() {
				p.evaluate(t, a.rule, t.category(a.category), now)
			}
		}
	}
}

// rebind gives each alert of a target its rule in the new set, or ends it.
func (p *Partition) rebind(t *target, now int64) {
	for _, a := range slices.Clone(t.alerts) {
		c := p.program.byKey[a.key]
		if c == nil {
			p.end(a, now, p.program.whyGone(a))
			continue
		}
		a.rule, a.timer.rule = c, c
		p.remeasure(a)
		if !a.fires() && a.told.GetObserved() != c.observed {
			a.told.Observed = c.observed
			p.touchAlert(a)
		}
	}
	slices.SortStableFunc(t.alerts, func(a, b *alert) int {
		if a.rule != b.rule {
			return a.rule.order - b.rule.order
		}
		return strings.Compare(a.category, b.category)
	})
	for _, a := range t.alerts {
		p.schedule(a.timer, now)
	}
	p.rebindTallies(t)
	p.rebindRestless(t)
}

// whyGone says why a rule set has no rule for an alert: its rule has other
// labels now, so that it would be another alert, or is no more.
func (p *Program) whyGone(a *alert) string {
	for _, g := range p.on {
		for _, c := range g.rules {
			if c.rule.Group == a.told.GetGroup() && c.rule.Alert == a.told.GetRule() {
				return reasonRuleChanged
			}
		}
	}
	return reasonRuleRemoved
}

// carryOver moves the courses that the new set also records, and begins the
// others with what is known now.
func (p *Partition) carryOver(t *target, old *Program, now int64) {
	if !t.live() {
		return
	}
	kind := t.target.GetKind()
	var before, beforeFailures []recorded
	if old != nil {
		before, beforeFailures = old.recorded[kind], old.failures
	}
	var fresh []bool
	t.series, fresh = carry(t.series, before, p.program.recorded[kind])
	for i, r := range p.program.recorded[kind] {
		if fresh[i] && r.detail != hourly && (r.source&factsOfSample == 0 || p.clock.busAt(now) <= t.holds()) {
			p.put(t, &t.series[i], r, p.about(t, nil, now))
		}
	}
	for _, f := range t.failures {
		f.series, fresh = carry(f.series, beforeFailures, p.program.failures)
		for i, r := range p.program.failures {
			switch {
			case !fresh[i]:
			case r.cond == nil && r.field == expr.JobFailed:
				f.series[i].Set(p.clock.busAt(now), float64(f.total), window.Forever)
			default:
				p.put(t, &f.series[i], r, p.about(t, f, now))
			}
		}
	}
}

// carry puts series into the places of a new list of recorded courses, and says
// which of those are new.
func carry(series []window.Series, before, after []recorded) ([]window.Series, []bool) {
	moved, fresh := make([]window.Series, len(after)), make([]bool, len(after))
	for i, r := range after {
		j, found := slices.BinarySearchFunc(before, r.key, compareKey)
		if fresh[i] = !found || j >= len(series); !fresh[i] {
			moved[i] = series[j]
		} else if j := standIn(r, before); j >= 0 && j < len(series) && !series[j].Empty() {
			moved[i], fresh[i] = series[j].Clone(), false
		}
	}
	return moved, fresh
}
