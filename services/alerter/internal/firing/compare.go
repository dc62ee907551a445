package firing

import (
	"cmp"
	"maps"
	"slices"
	"strings"
	"time"

	rulev1 "github.com/tocsin-dev/tocsin/proto/gen/tocsin/rule/v1"
)

// subject is what two firings must have in common to be compared: the rule's name,
// the target and, of failed jobs, the category. A changed group or severity is the
// same rule to the person who changed it.
type subject struct {
	rule, account, id, category string
	kind                        int32
}

func subjectOf(f *rulev1.BacktestFiring) subject {
	a := f.GetAlert()
	return subject{a.GetRule(), a.GetTarget().GetAccount(), a.GetTarget().GetId(), a.GetLabels()["category"], int32(a.GetTarget().GetKind())}
}

// Compare says of each firing how it compares with those by the other rules that
// overlap it, and returns the rules whose firings differ, by name. What has no end
// ends at the instant end.
func Compare(fresh, old []*rulev1.BacktestFiring, end time.Time) []*rulev1.BacktestComparison {
	news, olds := bySubject(fresh), bySubject(old)
	rules := map[string]*rulev1.BacktestComparison{}
	rule := func(f *rulev1.BacktestFiring) *rulev1.BacktestComparison {
		name := f.GetAlert().GetRule()
		if rules[name] == nil {
			rules[name] = &rulev1.BacktestComparison{Rule: name}
		}
		return rules[name]
	}
	for s, mine := range news {
		pair(mine, olds[s], end)
	}
	for _, f := range old {
		f.Old = true
		if f.GetOutcome() == rulev1.BacktestOutcome_BACKTEST_OUTCOME_UNSPECIFIED {
			f.Outcome = rulev1.BacktestOutcome_BACKTEST_OUTCOME_ONLY
			rule(f).OnlyOld++
		}
	}
	for _, f := range fresh {
		r := rule(f)
		switch f.GetOutcome() {
		case rulev1.BacktestOutcome_BACKTEST_OUTCOME_SAME:
			r.Same++
		case rulev1.BacktestOutcome_BACKTEST_OUTCOME_LONGER:
			r.Longer++
		case rulev1.BacktestOutcome_BACKTEST_OUTCOME_SHORTER:
			r.Shorter++
		case rulev1.BacktestOutcome_BACKTEST_OUTCOME_MOVED:
			r.Moved++
		default:
			f.Outcome = rulev1.BacktestOutcome_BACKTEST_OUTCOME_ONLY
			r.OnlyNew++
		}
	}
	differ := slices.DeleteFunc(slices.Collect(maps.Values(rules)), func(r *rulev1.BacktestComparison) bool {
		return r.GetOnlyNew()+r.GetOnlyOld()+r.GetLonger()+r.GetShorter()+r.GetMoved() == 0
	})
	slices.SortFunc(differ, func(a, b *rulev1.BacktestComparison) int { return strings.Compare(a.GetRule(), b.GetRule()) })
	return differ
}

// bySubject sorts firings by their subjects, and within one by their starts.
func bySubject(firings []*rulev1.BacktestFiring) map[subject][]*rulev1.BacktestFiring {
	all := map[subject][]*rulev1.BacktestFiring{}
	for _, f := range firings {
		s := subjectOf(f)
		all[s] = append(all[s], f)
	}
	for _, list := range all {
		slices.SortFunc(list, byStart)
	}
	return all
}

// pair compares the firings of one subject, each with the first that overlaps it.
func pair(fresh, old []*rulev1.BacktestFiring, end time.Time) {
	for len(fresh) > 0 && len(old) > 0 {
		a, b := fresh[0], old[0]
		switch {
		case !endOf(a, end).After(startOf(b)) && !startOf(a).Equal(startOf(b)):
			fresh = fresh[1:]
		case !endOf(b, end).After(startOf(a)) && !startOf(a).Equal(startOf(b)):
			old = old[1:]
		default:
			a.Outcome, b.Outcome = outcome(a, b, end), outcome(b, a, end)
			fresh, old = fresh[1:], old[1:]
		}
	}
}

// outcome says how a firing compares with another.
func outcome(a, b *rulev1.BacktestFiring, end time.Time) rulev1.BacktestOutcome {
	switch cmp.Compare(endOf(a, end).Sub(startOf(a)), endOf(b, end).Sub(startOf(b))) {
	case 1:
		return rulev1.BacktestOutcome_BACKTEST_OUTCOME_LONGER
	case -1:
		return rulev1.BacktestOutcome_BACKTEST_OUTCOME_SHORTER
	}
	if !startOf(a).Equal(startOf(b)) {
		return rulev1.BacktestOutcome_BACKTEST_OUTCOME_MOVED
	}
	return rulev1.BacktestOutcome_BACKTEST_OUTCOME_SAME
}

func startOf(f *rulev1.BacktestFiring) time.Time { return f.GetAlert().GetFiredAt().AsTime() }

func endOf(f *rulev1.BacktestFiring, end time.Time) time.Time {
	if at := f.GetAlert().GetResolvedAt(); at != nil {
		return at.AsTime()
	}
	return end
}
