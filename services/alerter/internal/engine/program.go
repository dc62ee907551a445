package engine

import (
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"time"

	eventv1 "github.com/tocsin-dev/tocsin/proto/gen/tocsin/event/v1"
	"github.com/tocsin-dev/tocsin/services/alerter/internal/expr"
	"github.com/tocsin-dev/tocsin/services/alerter/internal/rule"
	"github.com/tocsin-dev/tocsin/services/alerter/internal/window"
	"github.com/tocsin-dev/tocsin/services/alerter/rulefile"
)

// evidenceWindow is how much of a field's course is kept, at least, to show it
// with an alert: 40 points at the usual poll interval of 15 s.
const evidenceWindow = 10 * time.Minute

// failuresWindow is how much of the course of failures by category is kept, at
// least, to count the groups that an alert shows.
const failuresWindow = time.Hour

// Program is a compiled rule set. It is immutable and shared by partitions.
type Program struct {
	set      *rulefile.Set
	patterns []pattern
	// on holds the rules by what they are evaluated on.
	on map[rulefile.On]*ruleGroup
	// recorded lists by kind of target what is kept of its course, sorted by
	// key; failures is the same for each error category of an endpoint.
	recorded map[eventv1.TargetKind][]recorded
	failures []recorded
	// conditions counts by kind of target those of conditions, for all categories.
	conditions map[eventv1.TargetKind]int
	byKey      map[string]*compiled
}

// ruleGroup is the rules evaluated on one kind of thing and the slots they share.
type ruleGroup struct {
	on    rulefile.On
	rules []*compiled
	slots []expr.Slot
	// series holds for each slot where its course is recorded.
	series []place
}

// place says where the course that a slot asks for is recorded: at a position
// of the target's series or of the category's. A slot without has index -1.
type place struct {
	failures bool
	index    int
}

// compiled is one rule, ready to be evaluated.
type compiled struct {
	rule   *rulefile.Rule
	key    string
	group  *ruleGroup
	order  int
	cond   *expr.Expr
	until  *expr.Expr
	timing rule.Timing
	// times is the zero value where the condition must hold now.
	times rule.Times
	// flapping is the zero value where any number of changes is news.
	flapping rule.Flapping
	// observed says that nobody is told of its alerts.
	observed bool
	// absences are the slots by which the passing of time alone decides.
	absences []int
	// readsGone says that it judges pods that are gone.
	readsGone bool
	// readsSamples says that it judges what polls bring, and nothing without.
	readsSamples bool
	// measures are the values whose worst is kept.
	measures []expr.Measure
	// window is how much of its fields' course the evidence shows.
	window      int64
	annotations []annotation
}

// annotation is a named template.
type annotation struct {
	name string
	tmpl *rulefile.Template
}

// recorded is one course that is kept: of a number, or of a condition as 0 and 1.
type recorded struct {
	key    string
	field  expr.FieldID
	cond   *expr.Expr
	group  *ruleGroup
	source facts
	length int64
	detail detail
}

// pattern is a target pattern, ready to be matched.
type pattern struct {
	rulefile.TargetPattern
	re *regexp.Regexp
}

// Compile checks and compiles the rules of a set. Its error joins every
// mistake as a *rulefile.MistakeError.
func Compile(set *rulefile.Set) (*Program, error) {
	p := &Program{
		set: set, on: map[rulefile.On]*ruleGroup{}, byKey: map[string]*compiled{},
		recorded: map[eventv1.TargetKind][]recorded{},
	}
	compilers := map[rulefile.On]*expr.Compiler{}
	for _, on := range rulefile.Ons() {
		c, err := expr.NewCompiler(on)
		if err != nil {
			return nil, err
		}
		compilers[on], p.on[on] = c, &ruleGroup{on: on}
	}
	var mistakes []*rulefile.MistakeError
	for i, r := range set.Rules() {
		c := &compiled{rule: &r, key: r.Key(), group: p.on[r.On], order: i, observed: set.Observed(&r)}
		mistakes = append(mistakes, c.compile(compilers[r.On])...)
		c.group.rules = append(c.group.rules, c)
		p.byKey[c.key] = c
	}
	for i, t := range set.Targets {
		re, err := regexp.Compile(t.Match)
		if err != nil {
			mistakes = append(mistakes, &rulefile.MistakeError{Position: rulefile.Position{File: "targets", Line: i + 1, Column: 1}, Text: err.Error()})
		}
		p.patterns = append(p.patterns, pattern{t, re})
	}
	if err := rulefile.JoinMistakes(mistakes); err != nil {
		return nil, err
	}
	for on, g := range p.on {
		g.slots = compilers[on].Slots()
	}
	p.plan()
	return p, nil
}

// Hash names the rule set.
func (p *Program) Hash() string { return p.set.Hash }

// Set returns the rule set that was compiled.
func (p *Program) Set() *rulefile.Set { return p.set }

// compile fills in c from its rule and returns what is wrong with it.
func (c *compiled) compile(comp *expr.Compiler) []*rulefile.MistakeError {
	var mistakes []*rulefile.MistakeError
	note := func(found []expr.Mistake, at func(int) rulefile.Position) {
		for _, m := range found {
			mistakes = append(mistakes, &rulefile.MistakeError{Position: at(m.Offset), Text: m.Text})
		}
	}
	var found []expr.Mistake
	c.cond, found = comp.Compile(c.rule.Expr)
	note(found, c.rule.ExprPosition)
	if c.rule.Until != "" {
		c.until, found = comp.Compile(c.rule.Until)
		note(found, c.rule.UntilPosition)
	}
	c.timing = rule.Timing{
		For: c.rule.For.Milliseconds(), Keep: c.rule.KeepFiringFor.Milliseconds(), HasUntil: c.until != nil,
	}
	c.times = rule.Times{Least: c.rule.Times.Least, Of: c.rule.Times.Of, Size: c.rule.Times.Bucket.Milliseconds()}
	c.flapping = flappingOf(c.rule.Flapping)
	if len(mistakes) > 0 {
		return mistakes
	}
	c.digest(comp.Slots())
	return c.templates(comp.Slots())
}

// digest notes what the rule's slots mean for its evaluation.
func (c *compiled) digest(slots []expr.Slot) {
	c.window, c.measures = evidenceWindow.Milliseconds(), worth(c.cond, slots)
	parts := c.cond.Parts()
	if c.until != nil {
		parts = append(slices.Clone(parts), c.until.Parts()...)
	}
	for _, id := range parts {
		s := slots[id]
		switch {
		case s.Fn == expr.FnAbsent:
			c.absences = append(c.absences, id)
			continue
		case s.Fn == expr.FnField && s.Field == expr.PodGone:
			c.readsGone = true
		}
		c.readsSamples = c.readsSamples || readsSamples(s, slots)
		if !usual(s.Fn) {
			c.window = max(c.window, s.Window)
		}
	}
}

// readsSamples says that the value of a slot comes from samples, and that there is
// none without.
func readsSamples(s expr.Slot, slots []expr.Slot) bool {
	switch s.Fn {
	case expr.FnLabel, expr.FnThreshold, expr.FnOverridden, expr.FnAbsent, expr.FnAge, expr.FnCount,
		expr.FnBaseline, expr.FnBaselineSpread:
		return false
	case expr.FnCountTrue:
		return slices.ContainsFunc(s.Cond.Parts(), func(id int) bool { return readsSamples(slots[id], slots) })
	case expr.FnBurnRate:
		return slices.ContainsFunc(slices.Concat(s.Burn.Bad, s.Burn.All), func(id int) bool { return readsSamples(slots[id], slots) })
	default:
		return sourceOf(s.Field) == factsOfSample
	}
}

// templates reads the annotations and tries them with the parts of the rule.
func (c *compiled) templates(slots []expr.Slot) []*rulefile.MistakeError {
	parts := map[string]any{}
	for _, id := range c.cond.Parts() {
		parts[slots[id].Text] = 0.0
	}
	var mistakes []*rulefile.MistakeError
	for _, name := range sortedKeys(c.rule.Annotations) {
		t, err := rulefile.ParseTemplate(name, c.rule.Annotations[name])
		if err == nil {
			_, err = t.Render(rulefile.TemplateData{Labels: map[string]string{}, First: 0.0, Parts: parts, Field: c.hasField})
		}
		if err != nil {
			text := fmt.Sprintf("the template `%s` of %s is wrong: %v", name, c.rule.Alert, err)
			mistakes = append(mistakes, &rulefile.MistakeError{Position: c.rule.AnnotationPosition(name), Text: text})
		}
		c.annotations = append(c.annotations, annotation{name, t})
	}
	return mistakes
}

// hasField gives every field that the rule's kind of target has a value.
func (c *compiled) hasField(name string) (any, bool) {
	id, ok := expr.FieldByName(name)
	return 0.0, ok && slices.Contains(expr.FieldOf(id).On, c.group.on)
}

// plan decides what is recorded of each kind of target, and for how long.
func (p *Program) plan() {
	targets := map[rulefile.On]eventv1.TargetKind{
		rulefile.OnEndpoint: eventv1.TargetKind_TARGET_KIND_ENDPOINT,
		rulefile.OnJob:      eventv1.TargetKind_TARGET_KIND_ENDPOINT,
		rulefile.OnPod:      eventv1.TargetKind_TARGET_KIND_POD,
		rulefile.OnAccount:  eventv1.TargetKind_TARGET_KIND_ACCOUNT,
	}
	// Failures by category are always recorded: alerts show them.
	p.failures = []recorded{{
		key: expr.FieldOf(expr.JobFailed).Name, field: expr.JobFailed, source: sourceOf(expr.JobFailed),
		length: failuresWindow.Milliseconds(),
	}}
	for _, on := range rulefile.Ons() {
		for _, s := range p.on[on].slots {
			r, ok := p.record(on, s)
			if !ok {
				continue
			}
			for _, r := range append(r.needs(), r) {
				if r.source&factsOfCategory != 0 {
					p.failures = addRecorded(p.failures, r)
				} else {
					p.recorded[targets[on]] = addRecorded(p.recorded[targets[on]], r)
				}
			}
		}
	}
	for _, on := range rulefile.Ons() {
		g := p.on[on]
		g.series = make([]place, len(g.slots))
		for i, s := range g.slots {
			g.series[i] = p.placeOf(on, s, p.recorded[targets[on]])
		}
	}
	p.conditions = map[eventv1.TargetKind]int{eventv1.TargetKind_TARGET_KIND_ENDPOINT: categories * conditionsIn(p.failures)}
	for kind, list := range p.recorded {
		p.conditions[kind] += conditionsIn(list)
	}
}

// conditionsIn counts the courses of conditions.
func conditionsIn(list []recorded) int {
	n := 0
	for _, r := range list {
		if r.cond != nil {
			n++
		}
	}
	return n
}

// record returns the course that a slot asks for, if any.
func (p *Program) record(on rulefile.On, s expr.Slot) (recorded, bool) {
	length := max(s.Window, evidenceWindow.Milliseconds())
	switch s.Fn {
	case expr.FnAbsent, expr.FnPresent, expr.FnLabel, expr.FnThreshold, expr.FnOverridden, expr.FnBurnRate:
		return recorded{}, false
	case expr.FnCountTrue:
		r := recorded{key: s.Cond.Text(), cond: s.Cond, group: p.on[on], length: length}
		for _, id := range s.Cond.Parts() {
			r.source |= sourceOf(p.on[on].slots[id].Field)
		}
		return r, true
	}
	f := expr.FieldOf(s.Field)
	if f.Kind != expr.Gauge && f.Kind != expr.Counter {
		return recorded{}, false
	}
	r := recorded{key: f.Name, field: s.Field, source: sourceOf(s.Field), length: length, detail: detailFor(s)}
	switch r.detail {
	case coarse:
		r.key = "coarse(" + f.Name + ")"
	case hourly:
		r.key, r.length = "hourly("+f.Name+")", s.Window+window.Hour
	}
	return r, true
}

func addRecorded(list []recorded, r recorded) []recorded {
	i, found := slices.BinarySearchFunc(list, r.key, compareKey)
	if !found {
		return slices.Insert(list, i, r)
	}
	list[i].length = max(list[i].length, r.length)
	return list
}

func compareKey(r recorded, key string) int { return strings.Compare(r.key, key) }

// placeOf finds where the course of a slot is recorded.
func (p *Program) placeOf(on rulefile.On, s expr.Slot, target []recorded) place {
	r, ok := p.record(on, s)
	if !ok {
		return place{index: -1}
	}
	list, failures := target, r.source&factsOfCategory != 0
	if failures {
		list = p.failures
	}
	i, found := slices.BinarySearchFunc(list, r.key, compareKey)
	if !found {
		return place{index: -1}
	}
	return place{failures: failures, index: i}
}

// describe returns the labels and overrides of a target by the patterns that
// match its name: all of them, a later one wins.
func (p *Program) describe(kind eventv1.TargetKind, name string) (labels map[string]string, overrides map[string]float64) {
	labels, overrides = map[string]string{}, map[string]float64{}
	short := map[eventv1.TargetKind]string{
		eventv1.TargetKind_TARGET_KIND_ENDPOINT: "endpoint",
		eventv1.TargetKind_TARGET_KIND_POD:      "pod",
	}[kind]
	if short == "" || name == "" {
		return labels, overrides
	}
	for _, t := range p.patterns {
		if t.Kind != "" && t.Kind != short {
			continue
		}
		m := t.re.FindStringSubmatch(name)
		if m == nil {
			continue
		}
		for i, group := range t.re.SubexpNames() {
			if group != "" && m[i] != "" {
				labels[group] = m[i]
			}
		}
		maps.Copy(labels, t.Labels)
		maps.Copy(overrides, t.Overrides)
	}
	return labels, overrides
}

func sortedKeys[V any](m map[string]V) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}
