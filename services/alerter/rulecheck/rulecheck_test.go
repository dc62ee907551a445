package rulecheck_test

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/tocsin-dev/tocsin/rules"
	"github.com/tocsin-dev/tocsin/services/alerter/rulecheck"
	"github.com/tocsin-dev/tocsin/services/alerter/rulefile"
)

func check(t *testing.T, text string, targets ...rulefile.TargetPattern) (mistakes, warnings []string) {
	t.Helper()
	report, err := rulecheck.Check(map[string][]byte{"r.yaml": []byte(text)}, targets)
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range report.Mistakes {
		mistakes = append(mistakes, m.Error())
	}
	for _, w := range report.Warnings {
		warnings = append(warnings, w.Error())
	}
	return mistakes, warnings
}

func TestMistakesHaveTheirPlaces(t *testing.T) {
	mistakes, warnings := check(t, `groups:
  - name: g
    rules:
      - alert: A
        on: endpoint
        expr: jobs.in_que > 10 && gpu.util_percent < 5
        fro: 5m
`)
	want := []string{
		"r.yaml:6:15: `jobs.in_que` is no field of an endpoint; did you mean `jobs.in_queue`?",
		"r.yaml:6:35: `gpu.util_percent` is no field of an endpoint; it is one of a pod",
		"r.yaml:7:9: `fro` is no key of a rule; did you mean `for`?",
	}
	if diff := cmp.Diff(want, mistakes); diff != "" {
		t.Error(diff)
	}
	if warnings != nil {
		t.Errorf("warnings beside mistakes: %v", warnings)
	}
}

func TestWhatIsHardlyMeantIsWarnedOf(t *testing.T) {
	mistakes, warnings := check(t, `groups:
  - name: g
    rules:
      - alert: A
        on: pod
        expr: label('evn') == 'prod' && avg(gpu.util_percent, '5m') < 0.05
        labels: {severity: warning, team: ml}
        annotations: {summary: '{{ .Name }} of {{ $labels.tem }} in {{ index .Labels "region" }} idles'}
      - alert: A
        on: pod
        expr: gpu.util_percent < threshold('idle', 5)
        labels: {severity: warning, tier: b}
        annotations: {summary: '{{ if $labels.env }}in {{ $labels.env }}{{ else }}{{ $labels.pod_id }}{{ end }}'}
      - {alert: B, on: pod, expr: pod.gone}
`, rulefile.TargetPattern{Match: "^(?P<env>[a-z]+)-", Overrides: map[string]float64{"idel": 7}})
	if mistakes != nil {
		t.Fatal(mistakes)
	}
	want := []string{
		"r.yaml:4:9: `A` asks for a label `evn` that no pattern in targets gives; did you mean `env`?",
		"r.yaml:6:41: `avg(gpu.util_percent, '5m')` is in percent: 0.05 is less than one of a hundred; did you mean 5?",
		"r.yaml:8:32: the template `summary` writes the label `region`, which alerts of `A` do not have",
		"r.yaml:8:32: the template `summary` writes the label `tem`, which alerts of `A` do not have; did you mean `team`?",
		"r.yaml:9:9: `A` stands twice with the same severity, first at r.yaml:4:9: people will not know which of the two they are told of",
		"r.yaml:14:9: `B` has no summary: messages will show its name only",
		"r.yaml:14:9: `B` has no label `severity`, by which alerts are routed and inhibited",
		"targets:1:1: the override `idel` of `^(?P<env>[a-z]+)-` is read by no rule; did you mean `idle`?",
	}
	if diff := cmp.Diff(want, warnings); diff != "" {
		t.Error(diff)
	}
}

// Without the configuration nobody knows which labels targets have.
func TestLabelsOfTargetsAreNotDoubtedWithoutPatterns(t *testing.T) {
	_, warnings := check(t, `groups:
  - name: g
    rules:
      - alert: A
        on: pod
        expr: label('env') == 'prod' && gpu.util_percent < 5
        labels: {severity: warning}
        annotations: {summary: '{{ $labels.env }} idles on {{ $labels.pod_di }}'}
`)
	want := []string{"r.yaml:8:32: the template `summary` writes the label `pod_di`, which alerts of `A` do not have; did you mean `pod_id`?"}
	if diff := cmp.Diff(want, warnings); diff != "" {
		t.Error(diff)
	}
}

func TestTheDefaultPackHasNeitherMistakesNorWarnings(t *testing.T) {
	report, err := rulecheck.Check(rules.Default(), nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range append(report.Mistakes, report.Warnings...) {
		t.Error(m)
	}
	if report.Rules < 20 || report.Costliest == "" || report.Cost == 0 || report.Cost > report.MaxCost {
		t.Errorf("%d rules, %s costs %d of %d", report.Rules, report.Costliest, report.Cost, report.MaxCost)
	}
}

func TestFieldsAndFunctionsOfAKind(t *testing.T) {
	names := func(entries []rulecheck.Entry) string {
		var all []string
		for _, e := range entries {
			all = append(all, e.Name)
		}
		return strings.Join(all, " ")
	}
	if all := names(rulecheck.Fields(rulefile.OnPod)); !strings.Contains(all, "gpu.util_percent") || strings.Contains(all, "jobs.in_queue") {
		t.Errorf("fields of a pod: %s", all)
	}
	if all := names(rulecheck.Functions(rulefile.OnJob)); strings.Contains(all, "absent") || !strings.Contains(all, "increase(") {
		t.Errorf("functions of a job: %s", all)
	}
	if all := names(rulecheck.Fields("")); !strings.Contains(all, "gpu.util_percent") || !strings.Contains(all, "jobs.in_queue") {
		t.Errorf("all fields: %s", all)
	}
}
