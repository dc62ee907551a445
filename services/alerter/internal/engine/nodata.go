package engine

import (
	"slices"
	"strings"

	alertv1 "github.com/tocsin-dev/tocsin/proto/gen/tocsin/alert/v1"
	"github.com/tocsin-dev/tocsin/services/alerter/internal/expr"
	"github.com/tocsin-dev/tocsin/services/alerter/internal/rule"
	"github.com/tocsin-dev/tocsin/services/alerter/rulefile"
)

// A condition can have no value for three reasons, which are kept apart. The
// source answers and leaves out a field: that is news, and a rule may say what it
// means. Nothing is heard of the target: its polls fail, or it is silent, which
// here cannot be told from a collector that is away, since a collector tells the
// end of each poll. Or what is known does not decide it, as in a window that has
// only begun. In the latter two nobody knows anything, and alerts stay as they are;
// a rule that means them asks for absent() or poll.failing.
const (
	leftOut     = alertv1.NoDataReason_NO_DATA_REASON_LEFT_OUT
	unreachable = alertv1.NoDataReason_NO_DATA_REASON_UNREACHABLE
	undecided   = alertv1.NoDataReason_NO_DATA_REASON_UNDECIDED
)

// verdict is what is known of a rule's conditions, and why one has no value.
type verdict struct {
	cond, until rule.Truth
	// lack is nil where all have one.
	lack *alertv1.NoData
	// decided says that the rule decides what the lack means.
	decided bool
}

// weigh says what the truths of a rule's conditions mean where one of them is
// missing. The cache must hold the values they were judged by.
func (p *Partition) weigh(t *target, c *compiled, a *alert, cond, until rule.Truth) verdict {
	v := verdict{cond: cond, until: until}
	switch {
	case cond == rule.Unknown && (a != nil || c.rule.NoData == rulefile.NoDataFire):
		v.lack = p.lack(t, c, c.cond)
	case cond == rule.No && until == rule.Unknown && c.until != nil && a != nil && a.state.Phase == rule.Firing:
		v.lack = p.lack(t, c, c.until)
	}
	if v.decided = v.lack.GetReason() == leftOut && c.rule.NoData != rulefile.NoDataKeep; !v.decided {
		return v
	}
	if c.rule.NoData == rulefile.NoDataResolve {
		v.cond, v.until = rule.No, rule.Yes
		return v
	}
	if v.until = rule.No; cond == rule.Unknown {
		v.cond = rule.Yes
	}
	return v
}

// lack says why a condition has no value.
func (p *Partition) lack(t *target, c *compiled, e *expr.Expr) *alertv1.NoData {
	lack := &alertv1.NoData{Reason: undecided}
	weight := func(reason alertv1.NoDataReason) int {
		return slices.Index([]alertv1.NoDataReason{undecided, leftOut, unreachable}, reason)
	}
	for _, id := range e.Parts() {
		if p.cache.Slot(id).Known() {
			continue
		}
		lack.Parts = append(lack.Parts, c.group.slots[id].Text)
		for _, f := range c.group.fieldsOf(id) {
			if reason := p.lackOf(t, f); weight(reason) > weight(lack.GetReason()) {
				lack.Reason = reason
			}
		}
	}
	return lack
}

// lackOf says why a part of an expression that asks for a field has no value.
func (p *Partition) lackOf(t *target, f expr.FieldID) alertv1.NoDataReason {
	var told bool
	switch sourceOf(f) {
	case factsOfSample:
		told = t.sampled != never && t.failure == nil && p.cache.bus <= t.holds()
	case factsOfSpec:
		told = t.spec != nil
	default:
		return undecided
	}
	switch {
	case !told:
		return unreachable
	case !p.cache.field(f).Known():
		return leftOut
	default:
		return undecided
	}
}

// fieldsOf lists the fields that a slot asks for.
func (g *ruleGroup) fieldsOf(id int) []expr.FieldID {
	switch s := g.slots[id]; s.Fn {
	case expr.FnAbsent, expr.FnLabel, expr.FnThreshold, expr.FnOverridden:
		return nil
	case expr.FnCountTrue:
		var all []expr.FieldID
		for _, inner := range s.Cond.Parts() {
			all = append(all, g.slots[inner].Field)
		}
		return all
	case expr.FnBurnRate:
		var all []expr.FieldID
		for _, inner := range slices.Concat(s.Burn.Bad, s.Burn.All) {
			all = append(all, g.slots[inner].Field)
		}
		return all
	default:
		return []expr.FieldID{s.Field}
	}
}

// lacks notes with an alert why its condition has no value, for those who ask.
// That alone is no news.
func (p *Partition) lacks(a *alert, lack *alertv1.NoData) {
	if a.lack.GetReason() == lack.GetReason() && slices.Equal(a.lack.GetParts(), lack.GetParts()) {
		return
	}
	if a.lack = lack; a.told.Evidence != nil {
		a.told.Evidence.NoData = lack
		p.touchAlert(a)
	}
}

// withoutData says for people that a source leaves something out.
func withoutData(lack *alertv1.NoData) string {
	return "no data: the source answers without " + strings.Join(lack.GetParts(), ", ")
}
