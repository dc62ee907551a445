package rulesuite

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"

	alertv1 "github.com/tocsin-dev/tocsin/proto/gen/tocsin/alert/v1"
)

// compare looks at an expectation now.
func (r *run) compare(e *expectation) {
	f := Failure{Line: e.line, At: time.Duration(e.At)}
	var want, got strings.Builder
	for _, list := range []struct {
		state string
		want  []wanted
		got   []*alertv1.Alert
	}{{"firing", e.Firing, r.Firing()}, {"pending", e.Pending, r.Pending()}} {
		if list.want == nil {
			continue
		}
		m := match(list.want, list.got, e.Alert)
		f.Differences = append(f.Differences, m.differences(list.state)...)
		write(&want, list.state, m.wantedTexts())
		write(&got, list.state, m.foundTexts())
	}
	if len(f.Differences) > 0 {
		f.Want, f.Got = want.String(), got.String()
		r.result.Failures = append(r.result.Failures, f)
	}
}

// matches pairs what is wanted with what was found.
type matches struct {
	pairs []pair
	extra []*alertv1.Alert
}

// pair is a wanted alert and the one that is nearest to it, if there is one.
type pair struct {
	want wanted
	got  *alertv1.Alert
}

// match pairs alerts: those that are as wanted first, then those of the same name.
func match(want []wanted, got []*alertv1.Alert, only string) matches {
	var m matches
	left := slices.Clone(got)
	if only != "" {
		left = slices.DeleteFunc(left, func(a *alertv1.Alert) bool { return a.GetRule() != only })
	}
	for _, w := range want {
		if w.Alert == "" {
			w.Alert = only
		}
		m.pairs = append(m.pairs, pair{want: w})
	}
	for _, near := range []func(wanted, *alertv1.Alert) bool{
		func(w wanted, a *alertv1.Alert) bool { return len(w.differences(a)) == 0 },
		func(w wanted, a *alertv1.Alert) bool {
			return w.Alert == a.GetRule() && (w.Target == "" || w.Target == a.GetTarget().GetId())
		},
		func(w wanted, a *alertv1.Alert) bool { return w.Alert == a.GetRule() },
	} {
		for i := range m.pairs {
			if m.pairs[i].got != nil {
				continue
			}
			if k := slices.IndexFunc(left, func(a *alertv1.Alert) bool { return near(m.pairs[i].want, a) }); k >= 0 {
				m.pairs[i].got = left[k]
				left = slices.Delete(left, k, k+1)
			}
		}
	}
	m.extra = left
	return m
}

// differences says in lines what is not as wanted.
func (m matches) differences(state string) []string {
	var lines []string
	for _, p := range m.pairs {
		name := p.want.Alert
		if p.want.Target != "" {
			name += " on " + p.want.Target
		}
		if p.got == nil {
			lines = append(lines, fmt.Sprintf("%s is not %s", name, state))
			continue
		}
		for _, d := range p.want.differences(p.got) {
			lines = append(lines, name+": "+d)
		}
	}
	for _, a := range m.extra {
		lines = append(lines, fmt.Sprintf("%s on %s is %s, which was not expected", a.GetRule(), a.GetTarget().GetId(), state))
	}
	return lines
}

// differences says in which of the parts that it names an alert is not as wanted.
func (w wanted) differences(a *alertv1.Alert) []string {
	var lines []string
	if w.Alert != a.GetRule() {
		lines = append(lines, fmt.Sprintf("want the alert %s, got %s", w.Alert, a.GetRule()))
	}
	if w.Target != "" && w.Target != a.GetTarget().GetId() {
		lines = append(lines, fmt.Sprintf("want the target %s, got %s", w.Target, a.GetTarget().GetId()))
	}
	for _, part := range []struct {
		name      string
		want, got map[string]string
	}{{"label", w.Labels, a.GetLabels()}, {"annotation", w.Annotations, a.GetAnnotations()}, {"evidence", w.Evidence, evidence(a)}} {
		for _, key := range slices.Sorted(maps.Keys(part.want)) {
			if got, ok := part.got[key]; !ok {
				lines = append(lines, fmt.Sprintf("%s %s: want %q, there is none", part.name, key, part.want[key]))
			} else if got != part.want[key] {
				lines = append(lines, fmt.Sprintf("%s %s: want %q, got %q", part.name, key, part.want[key], got))
			}
		}
	}
	return lines
}

// evidence returns the values of the parts of the expression.
func evidence(a *alertv1.Alert) map[string]string {
	all := map[string]string{}
	for _, v := range a.GetEvidence().GetValues() {
		all[v.GetName()] = v.GetValue()
	}
	return all
}

// shown is an alert as failures write it.
type shown struct {
	Alert       string            `yaml:"alert"`
	Target      string            `yaml:"target,omitempty"`
	Labels      map[string]string `yaml:"labels,omitempty"`
	Annotations map[string]string `yaml:"annotations,omitempty"`
	Evidence    map[string]string `yaml:"evidence,omitempty"`
}

func (m matches) wantedTexts() []shown {
	all := make([]shown, len(m.pairs))
	for i, p := range m.pairs {
		all[i] = shown(p.want)
	}
	return all
}

// foundTexts are the alerts that were found, with the parts that are compared.
func (m matches) foundTexts() []shown {
	var all []shown
	for _, p := range m.pairs {
		if p.got == nil {
			continue
		}
		s := shown{
			Alert: p.got.GetRule(), Labels: only(p.got.GetLabels(), p.want.Labels),
			Annotations: only(p.got.GetAnnotations(), p.want.Annotations), Evidence: only(evidence(p.got), p.want.Evidence),
		}
		if p.want.Target != "" {
			s.Target = p.got.GetTarget().GetId()
		}
		all = append(all, s)
	}
	for _, a := range m.extra {
		all = append(all, shown{Alert: a.GetRule(), Target: a.GetTarget().GetId(), Labels: a.GetLabels()})
	}
	return all
}

// only returns the entries of all whose keys are named.
func only(all, named map[string]string) map[string]string {
	some := map[string]string{}
	for key := range named {
		if v, ok := all[key]; ok {
			some[key] = v
		}
	}
	return some
}

// write writes a list of alerts as YAML.
func write(b *strings.Builder, state string, alerts []shown) {
	if alerts == nil {
		alerts = []shown{}
	}
	text, err := yaml.Marshal(map[string][]shown{state: alerts})
	if err != nil {
		panic(fmt.Sprintf("rulesuite: write alerts: %v", err)) // texts only
	}
	b.Write(text)
}
