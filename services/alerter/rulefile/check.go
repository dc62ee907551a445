package rulefile

import (
	"errors"
	"fmt"
	"math"
	"regexp"
	"slices"
	"strings"

	"github.com/prometheus/common/model"
	"go.yaml.in/yaml/v3"
)

// maxRules bounds a rule set: each target of a kind is judged by all rules of
// that kind, so a thousand rules cost about 0.2 ms per fact.
const maxRules = 1000

// reserved are the labels that the engine gives to alerts itself.
var reserved = []string{"account", "alertname", "category", "endpoint_id", "pod_id"}

// Reserved lists the labels that the engine gives to alerts itself.
func Reserved() []string { return slices.Clone(reserved) }

// checkLabel notes what is wrong with a label of a rule.
func (p *parser) checkLabel(key, value *yaml.Node, name, text string) {
	switch {
	case slices.Contains(reserved, name):
		p.wrong(key, "the label `%s` is set by Tocsin itself", name)
	case !validLabelName(name):
		p.wrong(key, "`%s` is no label name; expected letters, digits and underscores, not beginning with a digit or with __", name)
	case strings.Contains(text, "{{"):
		p.wrong(value, "the label `%s` is a template; labels are an alert's identity and fixed: put templates into annotations", name)
	case text == "":
		p.wrong(value, "the label `%s` is empty", name)
	}
}

// checkAnnotation notes what is wrong with an annotation.
func (p *parser) checkAnnotation(key, value *yaml.Node, name, text string) {
	if !model.LegacyValidation.IsValidLabelName(name) {
		p.wrong(key, "`%s` is no annotation name; expected letters, digits and underscores, not beginning with a digit", name)
	}
	t, err := ParseTemplate(name, text)
	if err == nil {
		_, err = t.Render(sampleData())
	}
	if err != nil {
		p.wrong(value, "the template `%s` is wrong: %v", name, err)
	}
}

func validLabelName(name string) bool {
	return model.LegacyValidation.IsValidLabelName(name) && !strings.HasPrefix(name, "__")
}

// checkSet notes names and label sets that stand twice.
func (p *parser) checkSet(s *Set) {
	groups := map[string]Position{}
	labelSets := map[string]Position{}
	count := 0
	for _, g := range s.Groups {
		for i := range g.Rules {
			r := &g.Rules[i]
			if count++; count == maxRules+1 {
				p.mistake(r.Source, "more than %d rules", maxRules)
			}
			if i == 0 && g.Name != "" {
				if first, twice := groups[g.Name]; twice {
					p.mistake(r.Source, "the group `%s` stands twice, first at %s", g.Name, first)
				} else {
					groups[g.Name] = r.Source
				}
			}
			p.checkIdentity(r, labelSets)
		}
	}
}

// checkIdentity notes a rule whose alerts could not be told from an earlier
// rule's: same name, evaluated on the same things, same labels.
func (p *parser) checkIdentity(r *Rule, labelSets map[string]Position) {
	if r.Alert == "" || r.On == "" {
		return
	}
	key := r.Alert + labelKey(r.On, r.Labels)
	if first, twice := labelSets[key]; twice {
		p.mistake(r.Source, "the alert `%s` on %s has the same labels as the rule at %s, so their alerts could not be told apart", r.Alert, r.On, first)
		return
	}
	labelSets[key] = r.Source
}

// checkTargets notes what is wrong with target patterns.
func (p *parser) checkTargets(targets []TargetPattern) {
	for i, t := range targets {
		at := Position{File: "targets", Line: i + 1, Column: 1}
		t.check(func(key, format string, args ...any) {
			p.mistake(at, "`%s`: %s", key, fmt.Sprintf(format, args...))
		})
	}
}

// TargetPatterns is the section "targets" of the configuration.
type TargetPatterns []TargetPattern

// Validate returns every mistake at once, each by its key.
func (ts TargetPatterns) Validate() error {
	var errs []error
	for i, t := range ts {
		t.check(func(key, format string, args ...any) {
			errs = append(errs, fmt.Errorf("[%d].%s: %s", i, key, fmt.Sprintf(format, args...)))
		})
	}
	return errors.Join(errs...)
}

// check hands every mistake of the pattern to wrong, with the key that holds it.
func (t TargetPattern) check(wrong func(key, format string, args ...any)) {
	re, err := regexp.Compile(t.Match)
	if err != nil {
		wrong("match", "%v", err)
	}
	if t.Match == "" {
		wrong("match", "it is missing; use `.*` for every target")
	}
	switch t.Kind {
	case "", string(OnEndpoint), string(OnPod):
	default:
		wrong("kind", "%q is no kind of target that has a name; expected endpoint or pod", t.Kind)
	}
	bad := func(name string) bool { return slices.Contains(reserved, name) || !validLabelName(name) }
	if re != nil {
		for _, name := range re.SubexpNames() {
			if name != "" && bad(name) {
				wrong("match", "`%s` cannot be a label of a target", name)
			}
		}
	}
	for _, name := range sortedKeys(t.Labels) {
		if bad(name) {
			wrong("labels", "`%s` cannot be a label of a target", name)
		}
	}
	for _, name := range sortedKeys(t.Overrides) {
		if v := t.Overrides[name]; math.IsNaN(v) || math.IsInf(v, 0) {
			wrong("overrides", "`%s` is not a finite number", name)
		}
	}
}

func (p *parser) mistake(at Position, format string, args ...any) {
	p.mistakes = append(p.mistakes, &MistakeError{at, fmt.Sprintf(format, args...)})
}
