// Package rulefile reads rule files: YAML in Prometheus's shape, strictly. It
// promises to report every mistake of all files at once, each with its file,
// line and column, and to give equal rules an equal hash whatever their
// comments and layout. It knows the shape of a rule, not the language of its
// expressions; those are checked where they are compiled.
package rulefile

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

// On says what a rule is evaluated on.
type On string

// The kinds of things that rules are evaluated on.
const (
	// OnEndpoint evaluates a rule once for each serverless endpoint.
	OnEndpoint On = "endpoint"
	// OnPod evaluates a rule once for each pod.
	OnPod On = "pod"
	// OnJob evaluates a rule once for each endpoint and error category.
	OnJob On = "job"
	// OnAccount evaluates a rule once for each RunPod account.
	OnAccount On = "account"
)

// Ons lists what a rule can be evaluated on.
func Ons() []On { return []On{OnEndpoint, OnPod, OnJob, OnAccount} }

// Set is the rules and target patterns that come into force together.
type Set struct {
	// Hash names the content: equal for sets that behave alike. 64 hexadecimal
	// digits.
	Hash string
	// Groups in the order of their files' names, then as written.
	Groups []Group
	// Targets are the patterns that give targets labels and overrides.
	Targets []TargetPattern
	// Files are the files as they were read, by name.
	Files map[string][]byte
	// Mode is that of all rules if it is ModeObserve; else each has its own.
	Mode Mode
	// Observe are the names of rules that are only observed whatever they say, sorted.
	Observe []string
}

// WithObserved returns the set with the rules of some names only observed, and the
// hash of that.
func (s *Set) WithObserved(names []string) *Set {
	other := *s
	other.Observe = slices.Sorted(slices.Values(names))
	other.Hash = hash(&other)
	return &other
}

// WithMode returns the set with a mode for all of its rules, and the hash of that.
func (s *Set) WithMode(mode Mode) *Set {
	other := *s
	other.Mode = mode
	other.Hash = hash(&other)
	return &other
}

// Observed says that nobody is told of a rule's alerts.
func (s *Set) Observed(r *Rule) bool {
	return s.Mode == ModeObserve || r.Mode == ModeObserve || slices.Contains(s.Observe, r.Alert)
}

// Rules lists the rules of all groups in order.
func (s *Set) Rules() []Rule {
	var all []Rule
	for _, g := range s.Groups {
		all = append(all, g.Rules...)
	}
	return all
}

// Group is a named list of rules.
type Group struct {
	// Name is unique in the set.
	Name string
	// File is the file that holds it.
	File string
	// Rules as written.
	Rules []Rule
}

// Rule is one alerting rule as written.
type Rule struct {
	// Group is the name of its group.
	Group string
	// Alert is its name, and the label alertname of its alerts.
	Alert string
	// On says what it is evaluated on.
	On On
	// Expr is the condition.
	Expr string
	// Until is its own clear condition. Empty means that the alert ends with Expr.
	Until string
	// For is how long the condition must hold before the alert fires.
	For time.Duration
	// KeepFiringFor is how long the alert fires on after its end.
	KeepFiringFor time.Duration
	// Times says in how many of the last buckets of time the condition must have
	// held, in place of holding now. The zero value asks for now.
	Times Times
	// NoData says what becomes of the alert while the source answers and leaves out
	// what the condition needs. Empty means that it stays as it is.
	NoData NoData
	// Flapping says how often an alert may change before it is no news any more.
	Flapping Flapping
	// Mode says whether people are told of the rule's alerts.
	Mode Mode
	// Labels are added to the alert's labels.
	Labels map[string]string
	// Annotations are templates of texts for people, `runbook` among them.
	Annotations map[string]string
	// Source is where the rule begins.
	Source Position

	exprAt, untilAt scalarText
	annotationsAt   map[string]Position
	wrong           bool // it has mistakes
}

// Key identifies the rule in its set: group, name, and what tells it from
// rules of the same name, e.g. endpoints/Queue{on="endpoint",severity="warning"}.
func (r *Rule) Key() string {
	return r.Group + "/" + r.Alert + labelKey(r.On, r.Labels)
}

// ExprPosition returns where the byte at offset of Expr stands in its file.
func (r *Rule) ExprPosition(offset int) Position { return r.exprAt.position(offset) }

// UntilPosition returns where the byte at offset of Until stands in its file.
func (r *Rule) UntilPosition(offset int) Position { return r.untilAt.position(offset) }

// AnnotationPosition returns where the annotation's text stands in its file.
func (r *Rule) AnnotationPosition(name string) Position { return r.annotationsAt[name] }

// TargetPattern gives labels and overrides to the targets whose name matches.
// All patterns that match apply, in order: a later one wins.
type TargetPattern struct {
	// Match is a regular expression on the whole or a part of the target's name
	// (not anchored). Its named groups become labels.
	Match string `json:"match" yaml:"match"`
	// Kind restricts it to endpoints ("endpoint") or pods ("pod"). Empty means both.
	Kind string `json:"kind,omitempty" yaml:"kind"`
	// Labels are given to each match.
	Labels map[string]string `json:"labels,omitempty" yaml:"labels"`
	// Overrides are numbers that rules read with threshold(name, default).
	Overrides map[string]float64 `json:"overrides,omitempty" yaml:"overrides"`
}

// Position is a place in a rule file.
type Position struct {
	// File is the file's name as given to Parse.
	File string
	// Line counts from 1.
	Line int
	// Column counts bytes from 1.
	Column int
}

// String writes file:line:column.
func (p Position) String() string { return fmt.Sprintf("%s:%d:%d", p.File, p.Line, p.Column) }

// MistakeError is one thing that is wrong with a rule file, and where.
type MistakeError struct {
	// Position is where it stands.
	Position Position
	// Text says what is wrong and what was expected.
	Text string
}

// Error writes the place and the text.
func (m *MistakeError) Error() string { return m.Position.String() + ": " + m.Text }

// JoinMistakes returns the mistakes as one error, sorted by their places, or
// nil if there are none.
func JoinMistakes(mistakes []*MistakeError) error {
	SortMistakes(mistakes)
	errs := make([]error, len(mistakes))
	for i, m := range mistakes {
		errs[i] = m
	}
	return errors.Join(errs...)
}

// SortMistakes sorts mistakes by their places.
func SortMistakes(mistakes []*MistakeError) {
	slices.SortStableFunc(mistakes, func(a, b *MistakeError) int {
		if c := strings.Compare(a.Position.File, b.Position.File); c != 0 {
			return c
		}
		if a.Position.Line != b.Position.Line {
			return a.Position.Line - b.Position.Line
		}
		return a.Position.Column - b.Position.Column
	})
}

// Parse reads files (content by name) and checks them together with the target
// patterns. The error joins every mistake as a *MistakeError; those of target
// patterns stand in the file "targets" at the pattern's number. With an error,
// the set holds what can be compiled of the rules and nothing else: compiling it
// tells more mistakes, and that is all it is good for.
func Parse(files map[string][]byte, targets []TargetPattern) (*Set, error) {
	p := &parser{}
	if len(targets) == 0 {
		targets = nil // no patterns are no patterns, however they are written
	}
	set := &Set{Targets: targets, Files: files}
	for _, name := range sortedKeys(files) {
		set.Groups = append(set.Groups, p.file(name, files[name])...)
	}
	p.checkSet(set)
	p.checkTargets(targets)
	if err := JoinMistakes(p.mistakes); err != nil {
		return &Set{Groups: sound(set.Groups)}, err
	}
	set.Hash = hash(set)
	return set, nil
}

// sound returns the groups with what can be compiled of their rules: of those that
// have mistakes the expressions, as far as it is known what they are evaluated on.
func sound(groups []Group) []Group {
	var left []Group
	for _, g := range groups {
		var rules []Rule
		for _, r := range g.Rules {
			if r.wrong {
				r = Rule{Group: r.Group, Alert: r.Alert, On: r.On, Expr: r.Expr, Until: r.Until, Source: r.Source, exprAt: r.exprAt, untilAt: r.untilAt}
			}
			if r.On != "" && r.Expr != "" {
				rules = append(rules, r)
			}
		}
		g.Rules = rules
		left = append(left, g)
	}
	return left
}

func labelKey(on On, labels map[string]string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "{on=%q", string(on))
	for _, name := range sortedKeys(labels) {
		fmt.Fprintf(&b, ",%s=%q", name, labels[name])
	}
	b.WriteByte('}')
	return b.String()
}

func sortedKeys[V any](m map[string]V) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}
