package engine

import (
	"fmt"
	"slices"

	"github.com/tocsin-dev/tocsin/services/alerter/internal/expr"
	"github.com/tocsin-dev/tocsin/services/alerter/internal/nearest"
	"github.com/tocsin-dev/tocsin/services/alerter/rulefile"
)

// Doubts returns what the rules may say and their author hardly meant, sorted by
// place. Names that only target patterns can give are doubted when there are
// patterns: without the configuration nobody knows them.
func (p *Program) Doubts() []*rulefile.MistakeError {
	d := doubts{given: p.given()}
	firsts := map[string]rulefile.Position{}
	for _, c := range p.inOrder() {
		d.expressions(c)
		d.asked(c, len(p.patterns) > 0)
		d.texts(c, len(p.patterns) > 0)
		d.name(c, firsts)
	}
	d.overrides(p)
	rulefile.SortMistakes(d.found)
	return d.found
}

// MaxCost returns the rule of whose conditions one may cost most, and that cost; nil
// without rules.
func (p *Program) MaxCost() (r *rulefile.Rule, cost uint64) {
	for _, c := range p.inOrder() {
		of := c.cond.Cost()
		if c.until != nil {
			of = max(of, c.until.Cost())
		}
		if r == nil || of > cost {
			r, cost = c.rule, of
		}
	}
	return r, cost
}

// inOrder lists the rules as they are written.
func (p *Program) inOrder() []*compiled {
	all := make([]*compiled, 0, len(p.byKey))
	for _, c := range p.byKey {
		all = append(all, c)
	}
	slices.SortFunc(all, func(a, b *compiled) int { return a.order - b.order })
	return all
}

// given returns the labels that patterns give to targets.
func (p *Program) given() map[string]bool {
	given := map[string]bool{}
	for _, t := range p.patterns {
		for name := range t.Labels {
			given[name] = true
		}
		for _, name := range t.re.SubexpNames() {
			if name != "" {
				given[name] = true
			}
		}
	}
	return given
}

// doubts gathers what is doubtful.
type doubts struct {
	given map[string]bool
	found []*rulefile.MistakeError
}

func (d *doubts) add(at rulefile.Position, format string, args ...any) {
	d.found = append(d.found, &rulefile.MistakeError{Position: at, Text: fmt.Sprintf(format, args...)})
}

func (d *doubts) expressions(c *compiled) {
	for _, m := range c.cond.Doubts() {
		d.add(c.rule.ExprPosition(m.Offset), "%s", m.Text)
	}
	if c.until != nil {
		for _, m := range c.until.Doubts() {
			d.add(c.rule.UntilPosition(m.Offset), "%s", m.Text)
		}
	}
}

// asked doubts label('x') for an x that no pattern gives.
func (d *doubts) asked(c *compiled, patterns bool) {
	if !patterns {
		return
	}
	parts := c.cond.Parts()
	if c.until != nil {
		parts = append(slices.Clone(parts), c.until.Parts()...)
	}
	for _, id := range parts {
		if s := c.group.slots[id]; s.Fn == expr.FnLabel && !d.given[s.Name] {
			d.add(c.rule.Source, "`%s` asks for a label `%s` that no pattern in targets gives%s", c.rule.Alert, s.Name, nearest.Hint(s.Name, sortedKeys(d.given)))
		}
	}
}

// texts doubts annotations that write a label that the alert does not have.
func (d *doubts) texts(c *compiled, patterns bool) {
	has := slices.Concat(rulefile.Reserved(), sortedKeys(c.rule.Labels), sortedKeys(d.given))
	for _, a := range c.annotations {
		for _, name := range a.tmpl.LabelNames() {
			near := nearest.Hint(name, has)
			if !slices.Contains(has, name) && (patterns || near != "") {
				d.add(c.rule.AnnotationPosition(a.name), "the template `%s` writes the label `%s`, which alerts of `%s` do not have%s", a.name, name, c.rule.Alert, near)
			}
		}
	}
	if c.rule.Annotations["summary"] == "" {
		d.add(c.rule.Source, "`%s` has no summary: messages will show its name only", c.rule.Alert)
	}
	if c.rule.Labels["severity"] == "" {
		d.add(c.rule.Source, "`%s` has no label `severity`, by which alerts are routed and inhibited", c.rule.Alert)
	}
}

// name doubts a name that stands twice with one severity.
func (d *doubts) name(c *compiled, firsts map[string]rulefile.Position) {
	key := c.rule.Alert + "\x00" + c.rule.Labels["severity"]
	if first, twice := firsts[key]; twice {
		d.add(c.rule.Source, "`%s` stands twice with the same severity, first at %s: people will not know which of the two they are told of", c.rule.Alert, first)
		return
	}
	firsts[key] = c.rule.Source
}

// objectiveName is the override that the default pack and docs/rules.md take for the
// part of all jobs that must succeed.
const objectiveName = "slo"

// overrides doubts overrides that no rule reads.
func (d *doubts) overrides(p *Program) {
	read := map[string]bool{}
	for _, g := range p.on {
		for _, s := range g.slots {
			if s.Fn == expr.FnThreshold || s.Fn == expr.FnOverridden {
				read[s.Name] = true
			}
		}
	}
	for i, t := range p.patterns {
		at := rulefile.Position{File: "targets", Line: i + 1, Column: 1}
		if slo, declared := t.Overrides[objectiveName]; declared && !(slo > 0 && slo < 1) {
			d.add(at, "the override `%s` of `%s` is %v; an objective is a part of 1, for example 0.99", objectiveName, t.Match, slo)
		}
		for _, name := range sortedKeys(t.Overrides) {
			if !read[name] {
				d.add(at, "the override `%s` of `%s` is read by no rule%s", name, t.Match, nearest.Hint(name, sortedKeys(read)))
			}
		}
	}
}
