package engine

import (
	"fmt"

	"github.com/tocsin-dev/tocsin/services/alerter/internal/expr"
	"github.com/tocsin-dev/tocsin/services/alerter/internal/rule"
	"github.com/tocsin-dev/tocsin/services/alerter/internal/window"
	"github.com/tocsin-dev/tocsin/services/alerter/rulefile"
)

// cache gives the values of slots for one subject at one instant, each found
// once however many rules ask for it.
type cache struct {
	subject
	partition *Partition
	group     *ruleGroup
	values    []expr.Value
	found     []bool
}

// begin turns the cache to a subject. What it holds of another is forgotten.
func (c *cache) begin(p *Partition, g *ruleGroup, about subject) {
	c.partition, c.group, c.subject = p, g, about
	if len(c.values) < len(g.slots) {
		c.values, c.found = make([]expr.Value, len(g.slots)), make([]bool, len(g.slots))
	}
	clear(c.found)
}

// Slot returns the value of a slot.
func (c *cache) Slot(id int) expr.Value { return *c.Find(id) }

// Find returns the value of a slot where it stands.
func (c *cache) Find(id int) *expr.Value {
	if !c.found[id] {
		c.values[id], c.found[id] = c.value(id), true
	}
	return &c.values[id]
}

func (c *cache) value(id int) expr.Value {
	s := &c.group.slots[id]
	switch s.Fn {
	case expr.FnField:
		return c.field(s.Field)
	case expr.FnPresent:
		return expr.Bool(c.field(s.Field).Known())
	case expr.FnLabel:
		return expr.Str(c.t.labels[s.Name])
	case expr.FnThreshold:
		if v, ok := c.t.overrides[s.Name]; ok {
			return expr.Num(v)
		}
		return expr.Num(s.Default)
	case expr.FnOverridden:
		_, ok := c.t.overrides[s.Name]
		return expr.Bool(ok)
	case expr.FnAbsent:
		return c.absent(s.Window)
	case expr.FnBurnRate:
		return c.burnRate(s)
	default:
		return c.windowed(id, s)
	}
}

// absent says whether the target was silent for long enough. Where a collector
// has only just begun, or a gap has just ended, silence means nothing yet: there
// is no value.
func (c *cache) absent(window int64) expr.Value {
	needed := absence(c.t, window)
	silent := c.now - c.t.seen()
	switch {
	case silent < needed:
		return expr.Bool(false)
	case c.now-c.partition.listening < needed && c.partition.listening != never:
		return expr.Value{}
	default:
		return expr.Bool(true)
	}
}

func (c *cache) windowed(id int, s *expr.Slot) expr.Value {
	at := c.group.series[id]
	list := c.t.series
	if at.failures {
		if c.cat == nil {
			return expr.Value{}
		}
		list = c.cat.series
	}
	if at.index < 0 || at.index >= len(list) {
		return expr.Value{}
	}
	return c.over(&list[at.index], s)
}

// over returns what a function over a course gives.
func (c *cache) over(series *window.Series, s *expr.Slot) expr.Value {
	clock := &c.partition.clock
	switch s.Fn {
	case expr.FnIncrease:
		return rise(series.Increase(c.bus, s.Window))
	case expr.FnRate:
		return rise(series.Rate(c.bus, s.Window))
	case expr.FnMin:
		return expr.NumIf(series.Min(c.bus, s.Window, clock.gaps))
	case expr.FnMax:
		return expr.NumIf(series.Max(c.bus, s.Window, clock.gaps))
	case expr.FnAvg:
		return expr.NumIf(series.Avg(c.bus, s.Window, clock.gaps))
	case expr.FnLast:
		// What was seen last does not age in a gap.
		return expr.NumIf(series.Last(c.bus, c.bus-clock.reach(c.bus, s.Window)))
	case expr.FnDelta:
		return expr.NumIf(series.Delta(c.bus, s.Window))
	case expr.FnCountTrue:
		return expr.NumIf(series.CountTrue(c.bus, s.Window, s.Bucket, clock.gaps))
	case expr.FnChanges:
		return rise(series.Changes(c.bus, s.Window, clock.gaps))
	case expr.FnAge:
		return c.age(series)
	case expr.FnBaseline:
		usual, _, ok := series.Usual(c.partition.calendar(c.bus), int(s.Window/window.Day))
		return expr.NumIf(usual, ok)
	case expr.FnBaselineSpread:
		_, spread, ok := series.Usual(c.partition.calendar(c.bus), int(s.Window/window.Day))
		return expr.NumIf(spread, ok)
	default:
		return expr.NumIf(c.statistic(series, s))
	}
}

// statistic returns what a function gives that weighs values by time.
func (c *cache) statistic(series *window.Series, s *expr.Slot) (float64, bool) {
	gaps := c.partition.clock.gaps
	switch s.Fn {
	case expr.FnDeriv:
		return series.Deriv(c.bus, s.Window, gaps)
	case expr.FnPredict:
		return series.Predict(c.bus, s.Window, s.Ahead, gaps)
	case expr.FnSum:
		return series.Sum(c.bus, s.Window, gaps)
	case expr.FnCount:
		return series.Count(c.bus, s.Window, gaps)
	case expr.FnFirst:
		return series.First(c.bus, s.Window, gaps)
	case expr.FnStddev:
		return series.Stddev(c.bus, s.Window, gaps)
	case expr.FnZScore:
		return series.ZScore(c.bus, s.Window, gaps)
	case expr.FnQuantile:
		return series.Quantile(s.Part, c.bus, s.Window, gaps)
	default:
		return 0, false
	}
}

// age returns for how many seconds there has been no value, by engine time: a gap
// is no more than maxStep.
func (c *cache) age(series *window.Series) expr.Value {
	ceased, ok := series.Ceased(c.bus)
	if !ok {
		return expr.Value{}
	}
	return expr.Num(float64(c.now-c.partition.clock.engineAt(ceased)) / 1000)
}

// rise returns what is known of a rise as a value.
func rise(r window.Rise, ok bool) expr.Value {
	if !ok {
		return expr.Value{}
	}
	return expr.Value{Kind: expr.Gauge, Number: r.Least, Slack: r.Slack}
}

// judge evaluates all rules on a target after a fact about it.
func (p *Partition) judge(t *target) {
	if p.program == nil {
		return
	}
	now := p.nowMs()
	p.judgeGroup(t, p.program.group(t.target.GetKind()), nil, now)
	if !t.live() {
		return
	}
	// Rules may add and end alerts, never failures.
	for _, f := range t.failures {
		p.judgeGroup(t, p.program.on["job"], f, now)
	}
}

func (p *Partition) judgeGroup(t *target, g *ruleGroup, cat *failures, now int64) {
	if len(g.rules) == 0 {
		return
	}
	p.cache.begin(p, g, p.about(t, cat, now))
	for _, c := range g.rules {
		if t.live() || c.readsGone {
			p.advanceRule(t, c, cat, now)
		}
	}
}

// evaluate evaluates one rule on a target at an instant that has come.
func (p *Partition) evaluate(t *target, c *compiled, cat *failures, at int64) {
	p.cache.begin(p, c.group, p.about(t, cat, at))
	p.advanceRule(t, c, cat, at)
}

// advanceRule takes a rule's alert on a subject one step on. A rule that fails is
// noted, and its alert is as it was.
func (p *Partition) advanceRule(t *target, c *compiled, cat *failures, at int64) {
	category := ""
	if cat != nil {
		category = cat.category
	}
	a, _ := t.alert(c, category)
	cond, until, err := p.truths(c, a)
	if err != nil {
		p.problem(RuleFailed, c.key, t.token, "%v", err)
		return
	}
	if a == nil && p.idle(t, c, cond) {
		return
	}
	v := p.weigh(t, c, a, cond, until)
	v.cond = p.often(t, c, category, a, v.cond, at)
	switch {
	case a != nil:
		p.move(a, v, at)
	case v.cond == rule.Yes:
		p.begin(t, c, cat, v, at)
	}
	p.settle(t, c, category, at)
	p.rest(t, c, category, at)
}

// idle says that a rule without an alert has nothing to do with what is known of its
// condition, as nearly always: there is nothing to begin, and nothing that it counts.
func (p *Partition) idle(t *target, c *compiled, cond rule.Truth) bool {
	if len(t.tallies) > 0 || len(t.restless) > 0 {
		return false
	}
	return cond == rule.No || cond == rule.Unknown && c.rule.NoData != rulefile.NoDataFire
}

// truths evaluates a rule's conditions; the clear condition only where an
// alert could end by it.
func (p *Partition) truths(c *compiled, a *alert) (cond, until rule.Truth, err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("the rule panics: %v", r)
		}
	}()
	if cond, err = p.truth(c.cond); err != nil || c.until == nil || a == nil || a.state.Phase != rule.Firing {
		return cond, rule.Unknown, err
	}
	until, err = p.truth(c.until)
	return cond, until, err
}

func (p *Partition) truth(e *expr.Expr) (rule.Truth, error) {
	switch result, err := e.EvalIn(&p.workspace, &p.cache); result {
	case expr.True:
		return rule.Yes, nil
	case expr.False:
		return rule.No, nil
	case expr.NoValue:
		return rule.Unknown, nil
	default:
		return rule.Unknown, err
	}
}
