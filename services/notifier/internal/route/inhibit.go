package route

import (
	"strings"

	amcommon "github.com/prometheus/alertmanager/config/common"
	"github.com/prometheus/alertmanager/pkg/labels"
	"github.com/prometheus/common/model"
)

// Inhibitor knows which firing alerts keep others quiet. A rule's source
// inhibits its targets while it fires and all labels named in `equal` have the
// same value on both (a label that both lack is the same). An alert that
// matches both sides of a rule is not inhibited by another that does, hence
// never by itself. It is not safe for concurrent use.
type Inhibitor struct {
	rules  []*inhibitRule
	firing map[string]model.LabelSet
}

type inhibitRule struct {
	name           string
	source, target labels.Matchers
	equal          []model.LabelName
	sides          map[string]*sides // by the values of the equal labels
}

// sides are the firing alerts of a rule that agree on its equal labels.
type sides struct {
	sources map[string]bool // whether the alert matches the target side too
	targets map[string]bool // whether the alert matches the source side too
	oneWay  int             // how many sources match the source side only
}

// reach is what a target can tell of its sources: whether there is any, and any
// that matches the source side only.
func (s *sides) reach() [2]bool { return [2]bool{len(s.sources) > 0, s.oneWay > 0} }

// NewInhibitor returns an inhibitor with the given rules, while nothing fires.
func NewInhibitor(rules []amcommon.InhibitRule) *Inhibitor {
	in := &Inhibitor{firing: map[string]model.LabelSet{}}
	for _, r := range rules {
		rule := &inhibitRule{
			name:   r.Name,
			source: matchers(r.SourceMatch, r.SourceMatchRE, r.SourceMatchers),
			target: matchers(r.TargetMatch, r.TargetMatchRE, r.TargetMatchers),
			sides:  map[string]*sides{},
		}
		for _, name := range r.Equal {
			rule.equal = append(rule.equal, model.LabelName(name))
		}
		in.rules = append(in.rules, rule)
	}
	return in
}

// Fire notes that the alert id fires, and returns the other alerts whose
// inhibition may have changed by it.
func (in *Inhibitor) Fire(id string, alertLabels map[string]string) []string {
	if _, known := in.firing[id]; known {
		return nil
	}
	set := labelSet(alertLabels)
	in.firing[id] = set
	var touched []string
	for _, r := range in.rules {
		isSource, isTarget := r.source.Matches(set), r.target.Matches(set)
		if !isSource && !isTarget {
			continue
		}
		key := r.key(set)
		s := r.sides[key]
		if s == nil {
			s = &sides{sources: map[string]bool{}, targets: map[string]bool{}}
			r.sides[key] = s
		}
		before := s.reach()
		if isSource {
			s.sources[id] = isTarget
			if !isTarget {
				s.oneWay++
			}
		}
		touched = s.touched(before, touched)
		if isTarget {
			s.targets[id] = isSource
		}
	}
	return touched
}

// Resolve notes that the alert id is over, and returns the alerts whose
// inhibition may have changed by it.
func (in *Inhibitor) Resolve(id string) []string {
	set, known := in.firing[id]
	if !known {
		return nil
	}
	delete(in.firing, id)
	var touched []string
	for _, r := range in.rules {
		key := r.key(set)
		s := r.sides[key]
		if s == nil {
			continue
		}
		before := s.reach()
		if isTarget, isSource := s.sources[id]; isSource {
			delete(s.sources, id)
			if !isTarget {
				s.oneWay--
			}
		}
		delete(s.targets, id)
		touched = s.touched(before, touched)
		if len(s.sources) == 0 && len(s.targets) == 0 {
			delete(r.sides, key)
		}
	}
	return touched
}

// Inhibited reports whether a firing alert keeps the firing alert id quiet.
func (in *Inhibitor) Inhibited(id string) bool {
	set, known := in.firing[id]
	if !known {
		return false
	}
	for _, r := range in.rules {
		s := r.sides[r.key(set)]
		if s == nil {
			continue
		}
		isSource, isTarget := s.targets[id]
		if isTarget && (s.oneWay > 0 || (!isSource && len(s.sources) > 0)) {
			return true
		}
	}
	return false
}

// touched appends the targets to list when what they see of the sources differs
// from before.
func (s *sides) touched(before [2]bool, list []string) []string {
	if s.reach() == before {
		return list
	}
	for id := range s.targets {
		list = append(list, id)
	}
	return list
}

// key joins the values of the equal labels. A byte that UTF-8 never contains
// separates them.
func (r *inhibitRule) key(set model.LabelSet) string {
	var b strings.Builder
	for _, name := range r.equal {
		b.WriteString(string(set[name]))
		b.WriteByte(0xff)
	}
	return b.String()
}

// matchers joins the three ways in which a file may write matchers. The file was
// checked when it was read, so that none of them can fail here.
func matchers(equal map[string]string, regexps amcommon.MatchRegexps, list amcommon.Matchers) labels.Matchers {
	all := append(labels.Matchers(nil), list...)
	add := func(kind labels.MatchType, name, value string) {
		if m, err := labels.NewMatcher(kind, name, value); err == nil {
			all = append(all, m)
		}
	}
	for name, value := range equal {
		add(labels.MatchEqual, name, value)
	}
	for name, value := range regexps {
		add(labels.MatchRegexp, name, value.String())
	}
	return all
}
