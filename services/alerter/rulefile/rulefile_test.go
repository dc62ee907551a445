package rulefile

import (
	"fmt"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

const good = `
groups:
  - name: endpoints
    rules:
      - alert: Queue   # a comment
        on: endpoint
        expr: jobs.in_queue > 5
        for: 1h30m
        keep_firing_for: 2d
        until: jobs.in_queue == 0
        labels: {severity: warning, tier: 1}
        annotations:
          summary: '{{ .Name }} of {{ $labels.team }} has {{ .Value "jobs.in_queue" | humanize }}'
        runbook: Look at the workers.
      - {alert: Queue, on: endpoint, expr: jobs.in_queue > 50, labels: {severity: critical}}
`

func parse(t *testing.T, text string, targets ...TargetPattern) *Set {
	t.Helper()
	s, err := Parse(map[string][]byte{"a.yaml": []byte(text)}, targets)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestParseReadsAllOfARule(t *testing.T) {
	s := parse(t, good)
	want := Rule{
		Group: "endpoints", Alert: "Queue", On: OnEndpoint, Expr: "jobs.in_queue > 5", Until: "jobs.in_queue == 0",
		For: 90 * time.Minute, KeepFiringFor: 48 * time.Hour,
		Labels: map[string]string{"severity": "warning", "tier": "1"},
		Annotations: map[string]string{
			"summary": `{{ .Name }} of {{ $labels.team }} has {{ .Value "jobs.in_queue" | humanize }}`,
			"runbook": "Look at the workers.",
		},
		Source: Position{"a.yaml", 5, 9},
	}
	rules := s.Rules()
	if diff := cmp.Diff(want, rules[0], cmpopts.IgnoreUnexported(Rule{})); diff != "" {
		t.Error(diff)
	}
	if len(rules) != 2 || rules[0].Key() == rules[1].Key() {
		t.Errorf("keys %q and %q; want two that differ by their labels", rules[0].Key(), rules[1].Key())
	}
}

func TestTimesAreReadAsTheyAreWritten(t *testing.T) {
	r := parse(t, rules("{alert: A, on: pod, expr: a, times: ' 8  of 10 x  60s '}")).Rules()[0]
	if want := (Times{Least: 8, Of: 10, Bucket: time.Minute}); r.Times != want || r.Times.String() != "8 of 10 x 1m" {
		t.Errorf("got %+v (%s), want %+v", r.Times, r.Times, want)
	}
}

func TestEveryMistakeIsToldWithItsPlace(t *testing.T) {
	for _, c := range []struct {
		name, text string
		want       []string
	}{
		{"not YAML", "groups:\n  - name: [x\n", []string{"a.yaml:2:1: not YAML: did not find expected"}},
		{"nothing", "", []string{"a.yaml:1:1: the file is empty"}},
		{"a second document", "groups: []\n---\ngroups: []\n", []string{"a second document"}},
		{"a list", "- 1\n", []string{"a.yaml:1:1: a rule file is a list; expected the keys groups"}},
		{"groups missing", "group: []\n", []string{"a.yaml:1:1: `group` is no key of a rule file; did you mean `groups`?", "`groups` is missing"}},
		{"groups no list", "groups: {}\n", []string{"a.yaml:1:9: `groups` is a map; expected a list"}},
		{"a group without name or rules", "groups:\n  - {}\n", []string{"a.yaml:2:5: `name` is missing in a group", "`rules` is missing in the group"}},
		{"a key of Prometheus that has no meaning here", "groups:\n  - name: g\n    interval: 1m\n    rules: []\n", []string{"a.yaml:3:5: `interval` is no key of a group; rules are evaluated on each fact"}},
		{"a recording rule", rules("{record: a, expr: b}"), []string{"`record` is no key of a rule; only alerting rules exist", "`alert` is missing", "`on` is missing"}},
		{"a key misspelt", rules("{alert: A, on: pod, expr: a, anotations: {}}"), []string{"a.yaml:4:38: `anotations` is no key of a rule; did you mean `annotations`?"}},
		{"a key twice", rules("{alert: A, alert: B, on: pod, expr: a}"), []string{"`alert` stands twice in a rule"}},
		{"all that a rule needs", rules("{for: 5m}"), []string{"`alert` is missing in a rule", "`on` is missing in a rule", "`expr` is missing in a rule"}},
		{"on nothing", rules("{alert: A, on: endpiont, expr: a}"), []string{"a.yaml:4:24: `on: endpiont` is nothing that rules are evaluated on; expected endpoint, pod, job or account; did you mean `endpoint`?"}},
		{"an expression that is a list", rules("{alert: A, on: pod, expr: [a]}"), []string{"a.yaml:4:35: `expr` is a list; expected a single value"}},
		{"an empty expression", rules("{alert: A, on: pod, expr: ''}"), []string{"`expr` is empty"}},
		{"an empty until", rules("{alert: A, on: pod, expr: a, until: ''}"), []string{"`until` is empty"}},
		{"durations", rules("{alert: A, on: pod, expr: a, for: 5, keep_firing_for: 1.5h}"), []string{"`for`: \"5\" is no duration; write for example 5m, 1h30m or 2d", "`keep_firing_for`: \"1.5h\" is no duration"}},
		{"times", rules("{alert: A, on: pod, expr: a, times: 8/10}"), []string{"a.yaml:4:45: `times`: \"8/10\" is not understood; write for example 8 of 10 x 1m"}},
		{"times without end", rules("{alert: A, on: pod, expr: a, times: [8, 10]}"), []string{"`times` is a list; expected a single value"}},
		{"more times than there are", rules("{alert: A, on: pod, expr: a, times: 11 of 10 x 1m}"), []string{"`times`: 11 of 10 cannot be; expected at least 1, and no more than there are"}},
		{"no times", rules("{alert: A, on: pod, expr: a, times: 0 of 10 x 1m}"), []string{"`times`: 0 of 10 cannot be"}},
		{"too many times", rules("{alert: A, on: pod, expr: a, times: 8 of 65 x 1m}"), []string{"`times`: 65 buckets are too many; at most 64 are kept"}},
		{"times that are too short", rules("{alert: A, on: pod, expr: a, times: 8 of 10 x 9s}"), []string{"`times`: buckets of 9s are too short; expected at least 10s"}},
		{"times that are too long", rules("{alert: A, on: pod, expr: a, times: 2 of 3 x 9h}"), []string{"`times`: 3 buckets of 9h are too long; at most 1d are kept"}},
		{"times of no duration", rules("{alert: A, on: pod, expr: a, times: 8 of 10 x 1}"), []string{"`times`: \"1\" is no duration"}},
		{"no data", rules("{alert: A, on: pod, expr: a, no_data: resolved}"), []string{"a.yaml:4:47: `no_data: resolved` means nothing; expected keep, fire or resolve; did you mean `resolve`?"}},
		{"no data in a list", rules("{alert: A, on: pod, expr: a, no_data: [fire]}"), []string{"`no_data` is a list; expected a single value"}},
		{"a mode", rules("{alert: A, on: pod, expr: a, mode: observed}"), []string{"`mode: observed` means nothing; expected normal or observe; did you mean `observe`?"}},
		{"flapping", rules("{alert: A, on: pod, expr: a, flapping: 6}"), []string{"a.yaml:4:48: flapping is a single value; expected the keys window or transitions"}},
		{"half of flapping", rules("{alert: A, on: pod, expr: a, flapping: {window: 1h, transition: 6}}"), []string{"`transition` is no key of flapping; did you mean `transitions`?", "`transitions` is missing in flapping"}},
		{"bounds of flapping", rules("{alert: A, on: pod, expr: a, flapping: {window: 10s, transitions: 2}}"), []string{"`window`: 10s is not between 1m and 1d", "`transitions`: 2 is no whole number between 3 and 50"}},
		{"no numbers of flapping", rules("{alert: A, on: pod, expr: a, flapping: {window: 10, transitions: many}}"), []string{"`window`: \"10\" is no duration", "`transitions`: many is no whole number between 3 and 50"}},
		{"labels of Tocsin", rules("{alert: A, on: pod, expr: a, labels: {alertname: x, pod_id: y}}"), []string{"the label `alertname` is set by Tocsin itself", "the label `pod_id` is set by Tocsin"}},
		{"label names", rules("{alert: A, on: pod, expr: a, labels: {1a: x, __b: y, c-d: z}}"), []string{"`1a` is no label name", "`__b` is no label name", "`c-d` is no label name"}},
		{"a template as label", rules("{alert: A, on: pod, expr: a, labels: {a: '{{ $value }}'}}"), []string{"the label `a` is a template"}},
		{"labels that are a list", rules("{alert: A, on: pod, expr: a, labels: [x]}"), []string{"`labels` is a list; expected names and values"}},
		{"a template that does not parse", rules("{alert: A, on: pod, expr: a, annotations: {summary: '{{ .Name '}}"), []string{"a.yaml:4:61: the template `summary` is wrong: unclosed action"}},
		{"a template that asks for what there is not", rules("{alert: A, on: pod, expr: a, annotations: {summary: '{{ .Nam }}'}}"), []string{"can't evaluate field Nam"}},
		{"a function that there is not", rules("{alert: A, on: pod, expr: a, annotations: {summary: '{{ humanise 3 }}'}}"), []string{`function "humanise" not defined`}},
		{"equal labels", rules("{alert: A, on: pod, expr: a}", "{alert: A, on: pod, expr: b}"), []string{"a.yaml:5:9: the alert `A` on pod has the same labels as the rule at a.yaml:4:9"}},
		{"equal groups", rules("{alert: A, on: pod, expr: a}") + "  - name: g\n    rules:\n      - {alert: B, on: pod, expr: b}\n", []string{"the group `g` stands twice, first at a.yaml:4:9"}},
		{"mistakes of several rules at once", rules("{alert: A, on: pods, expr: a}", "{alert: B, on: pod, expr: b, for: x}"), []string{"a.yaml:4:24: `on: pods`", "a.yaml:5:43: `for`"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := Parse(map[string][]byte{"a.yaml": []byte(c.text)}, nil)
			if err == nil {
				t.Fatal("no mistake was found")
			}
			lines := strings.Split(err.Error(), "\n")
			if len(lines) != len(c.want) {
				t.Errorf("%d mistakes, want %d:\n%v", len(lines), len(c.want), err)
			}
			for _, want := range c.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("no mistake says %q:\n%v", want, err)
				}
			}
		})
	}
}

// rules makes a file of rules written in one line each, the first on line 4.
func rules(lines ...string) string {
	text := "groups:\n  - name: g\n    rules:\n"
	for _, l := range lines {
		text += "      - " + l + "\n"
	}
	return text
}

func TestMistakesInTargetPatterns(t *testing.T) {
	patterns := TargetPatterns{
		{Match: "("},
		{Match: "", Kind: "account"},
		{Match: `^(?P<alertname>\w+)`, Labels: map[string]string{"a-b": "c"}},
		{Match: "x", Overrides: map[string]float64{"queue": math.Inf(1)}},
	}
	_, err := Parse(map[string][]byte{"a.yaml": []byte(good)}, patterns)
	valid := patterns.Validate()
	for parsed, validated := range map[string]string{
		"targets:1:1: `match`: error parsing":                      "[0].match: error parsing",
		"targets:2:1: `match`: it is missing":                      "[1].match: it is missing",
		"targets:2:1: `kind`: \"account\" is no kind":              "[1].kind: \"account\" is no kind",
		"targets:3:1: `match`: `alertname` cannot be a label":      "[2].match: `alertname` cannot be a label",
		"targets:3:1: `labels`: `a-b` cannot be a label":           "[2].labels: `a-b` cannot be a label",
		"targets:4:1: `overrides`: `queue` is not a finite number": "[3].overrides: `queue` is not a finite number",
	} {
		if err == nil || !strings.Contains(err.Error(), parsed) {
			t.Errorf("no mistake says %q:\n%v", parsed, err)
		}
		if valid == nil || !strings.Contains(valid.Error(), validated) {
			t.Errorf("no mistake of the section says %q:\n%v", validated, valid)
		}
	}
	if err := (TargetPatterns{{Match: "^a-", Kind: "pod"}}).Validate(); err != nil {
		t.Errorf("a good pattern: %v", err)
	}
}

func TestPositionsInsideAnExpression(t *testing.T) {
	for _, c := range []struct {
		name, text string
		word       string
		line, col  int
	}{
		{"plain", "        expr: jobs.in_queue > bad", "bad", 6, 31},
		{"in single quotes", "        expr: 'label(''x'') == bad'", "bad", 6, 32},
		{"in double quotes", `        expr: "jobs.in_queue > bad"`, "bad", 6, 32},
		{"literal block", "        expr: |\n          jobs.in_queue > 1 &&\n            bad > 2", "bad", 8, 13},
		{"folded block", "        expr: >-\n          jobs.in_queue > 1 &&\n          more > 2 &&\n          bad > 2", "bad", 9, 11},
		{"plain over two lines", "        expr: jobs.in_queue > 1 &&\n          bad > 2", "bad", 7, 11},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := parse(t, "groups:\n  - name: g\n    rules:\n      - alert: A\n        on: endpoint\n"+c.text+"\n")
			r := s.Rules()[0]
			got := r.ExprPosition(strings.Index(r.Expr, c.word))
			if diff := cmp.Diff(Position{"a.yaml", c.line, c.col}, got); diff != "" {
				t.Errorf("%q: %s", r.Expr, diff)
			}
		})
	}
}

func TestTheHashIsOfTheMeaning(t *testing.T) {
	base := parse(t, good).Hash
	for _, c := range []struct {
		name, text string
		same       bool
	}{
		{"comments and blank lines", strings.ReplaceAll(good, "# a comment", "# another\n"), true},
		{"another way to write the same", strings.ReplaceAll(good, "1h30m", "90m"), true},
		{"another condition", strings.ReplaceAll(good, "> 50", "> 60"), false},
		{"another annotation", strings.ReplaceAll(good, "Look at", "See"), false},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := parse(t, c.text).Hash == base; got != c.same {
				t.Errorf("equal hashes: %v, want %v", got, c.same)
			}
		})
	}
	if parse(t, good, TargetPattern{Match: ".*"}).Hash == base {
		t.Error("target patterns are not in the hash")
	}
}

// TestTheHashOfARuleStaysWhenTheLanguageGrows: a running system would bring the
// same rules into force again, and end and begin alerts for it.
func TestTheHashOfARuleStaysWhenTheLanguageGrows(t *testing.T) {
	const before = "18a3f5b3db296669e0099d514cc67bcf69647a62248513bebaecec2c3e7fa7e3"
	if got := parse(t, good, TargetPattern{Match: "^a-", Overrides: map[string]float64{"d": 1.5}}).Hash; got != before {
		t.Errorf("the hash is %s, want %s", got, before)
	}
	const rule = "{alert: A, on: pod, expr: a%s}"
	plain := parse(t, rules(fmt.Sprintf(rule, ""))).Hash
	for _, key := range []string{", times: 2 of 3 x 1m", ", no_data: fire", ", no_data: resolve", ", mode: observe", ", flapping: {window: 1h, transitions: 6}"} {
		if parse(t, rules(fmt.Sprintf(rule, key))).Hash == plain {
			t.Errorf("a rule with %q has the hash of one without", key)
		}
	}
}

func TestWhatIsTheDefaultNeedNotBeSaid(t *testing.T) {
	const rule = "{alert: A, on: pod, expr: a%s}"
	plain := parse(t, rules(fmt.Sprintf(rule, "")))
	for _, key := range []string{", no_data: keep", ", mode: normal"} {
		if parse(t, rules(fmt.Sprintf(rule, key))).Hash != plain.Hash {
			t.Errorf("a rule with %q has another hash than one without", key)
		}
	}
}

func TestDecodeGivesWhatWasEncoded(t *testing.T) {
	s := parse(t, good, TargetPattern{Match: "a", Labels: map[string]string{"b": "c"}, Overrides: map[string]float64{"d": 1.5}})
	again, err := Decode(s.Encode())
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(s, again, cmpopts.IgnoreUnexported(Rule{})); diff != "" {
		t.Error(diff)
	}
	silent := s.WithMode(ModeObserve)
	if again, err = Decode(silent.Encode()); err != nil || again.Mode != ModeObserve || again.Hash != silent.Hash || again.Hash == s.Hash {
		t.Errorf("observed: %v, mode %q, hash %s; want %s and not %s", err, again.Mode, again.Hash, silent.Hash, s.Hash)
	}
	some := s.WithObserved([]string{"B", s.Rules()[0].Alert})
	if again, err = Decode(some.Encode()); err != nil || again.Hash != some.Hash || again.Hash == s.Hash || !again.Observed(&again.Rules()[0]) {
		t.Errorf("partly observed: %v, %v, hash %s; want %s and not %s", err, again.Observe, again.Hash, some.Hash, s.Hash)
	}
	if both, err := Decode(some.WithMode(ModeObserve).Encode()); err != nil || both.Mode != ModeObserve || len(both.Observe) != 2 {
		t.Errorf("both: %v, %+v", err, both)
	}
	if s.WithMode(ModeNormal).Hash != s.Hash {
		t.Error("the normal mode has a hash of its own")
	}
	for _, bad := range []string{"", "{}", `{"format":1,"files":{"a":"groups: []"},"mode":"x"}`, `{"format":1,"files":{"a":"x"}}`} {
		if _, err := Decode([]byte(bad)); err == nil {
			t.Errorf("Decode(%q) gave no error", bad)
		}
	}
	if parse(t, good, []TargetPattern{}...).Hash != parse(t, good).Hash {
		t.Error("no patterns and an empty list of patterns differ")
	}
}

func TestTemplatesFillTheirHoles(t *testing.T) {
	data := TemplateData{
		Labels: map[string]string{"team": "vision"}, Name: "img", First: 41.0, Message: "no module",
		Parts: map[string]any{"rate(jobs.completed, '10m')": 0.25, "jobs.in_queue": 41000.0, "jobs.failed": NoValue},
		Field: func(name string) (any, bool) { return 7.0, name == "workers.max" },
	}
	for _, c := range []struct{ text, want string }{
		{"{{ .Name }} {{ $labels.team }}{{ $labels.nothing }} {{ $value }} {{ .Value }}", "img vision 41 41"},
		{`{{ .Value "jobs.in_queue" | humanize }}`, "41k"},
		{`{{ .Values "jobs.in_queue" }}`, "41000"},
		{`{{ .Value "workers.max" }}`, "7"},
		{`{{ .Value "jobs.failed" | humanize }}`, "no value"},
		{`{{ humanizePercentage 0.051 }} {{ humanizeDuration 3905 }} {{ humanizeDuration 90061 }} {{ humanizeDuration 41.0 }}`, "5.1% 1h 5m 1d 1h 41s"},
		{`{{ printf "%.2f" $value }} {{ toUpper .Message }}`, "41.00 NO MODULE"},
		{`{{ humanize 0.0001 }} {{ humanize 2.5e9 }} {{ humanize -1500.0 }}`, "0.0001 2.5G -1.5k"},
	} {
		tmpl, err := ParseTemplate("t", c.text)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := tmpl.Render(data); got != c.want || err != nil {
			t.Errorf("%s gives %q (%v), want %q", c.text, got, err, c.want)
		}
	}
	for _, bad := range []string{`{{ .Value "jobs.gone" }}`, `{{ .Value "a" "b" }}`, `{{ range $i := .Labels }}{{ printf "%9000d" 1 }}{{ end }}`} {
		tmpl, err := ParseTemplate("t", bad)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := tmpl.Render(data); err == nil {
			t.Errorf("%s gives %q and no error", bad, got)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add(good)
	f.Add(rules("{alert: A, on: pod, expr: a, for: x, labels: {a: '{{'}}"))
	f.Add("groups: &a\n  - name: g\n    rules: *a\n")
	f.Add("groups:\n- name: g\n  rules:\n  - alert: A\n    on: endpoint\n    expr: |+\n\n      'a'\n\n")
	f.Fuzz(func(t *testing.T, text string) {
		s, err := Parse(map[string][]byte{"a.yaml": []byte(text)}, nil)
		if err != nil {
			for line := range strings.Lines(err.Error()) {
				if line == "" {
					t.Errorf("a mistake without words: %q", err)
				}
			}
			return
		}
		for _, r := range s.Rules() {
			for i := range r.Expr {
				if p := r.ExprPosition(i); p.Line < 1 || p.Column < 1 || p.Line > strings.Count(text, "\n")+1 {
					t.Errorf("byte %d of %q stands at %s", i, r.Expr, p)
				}
			}
		}
		again, err := Decode(s.Encode())
		if err != nil || again.Hash != s.Hash {
			t.Errorf("decoded: %v, hash %v; want %v", err, again, s.Hash)
		}
	})
}
