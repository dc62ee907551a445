package pack

import (
	"slices"
	"strings"
	"testing"
)

// story is something that happens, told in a sentence.
type story struct {
	name string
	tell func(*world)
}

// proof is what shows that a rule of the pack means what it says.
type proof struct {
	rule                   string
	fires, holds, resolves story
	// quiet are the nights that look like it and are not.
	quiet []story
}

func TestEachRuleFiresHoldsResolvesAndKeepsQuiet(t *testing.T) {
	t.Parallel()
	for _, p := range proofs() {
		t.Run(p.rule, func(t *testing.T) {
			t.Parallel()
			for _, s := range append([]story{p.fires, p.holds, p.resolves}, p.quiet...) {
				t.Run(s.name, func(t *testing.T) { s.tell(newWorld(t, p.rule)) })
			}
		})
	}
}

func proofs() []proof {
	return slices.Concat(accountProofs, causeProofs, symptomProofs, failureProofs, followedProofs, podProofs, objectiveProofs)
}

func TestEveryRuleOfThePackIsProved(t *testing.T) {
	t.Parallel()
	proved := map[string]bool{}
	for _, p := range proofs() {
		if proved[p.rule] {
			t.Errorf("%s is proved twice", p.rule)
		}
		proved[p.rule] = true
		if p.fires.tell == nil || p.holds.tell == nil || p.resolves.tell == nil || len(p.quiet) == 0 {
			t.Errorf("%s lacks one of its four proofs", p.rule)
		}
	}
	for _, r := range pack(t).Rules() {
		if !proved[r.Alert] {
			t.Errorf("%s is not proved", r.Alert)
		}
		delete(proved, r.Alert)
	}
	for name := range proved {
		t.Errorf("%s is no rule of the pack", name)
	}
}

func TestEveryRuleSaysWhatToDoAndHowGraveItIs(t *testing.T) {
	t.Parallel()
	for _, r := range pack(t).Rules() {
		if !slices.Contains([]string{"critical", "warning", "info"}, r.Labels["severity"]) {
			t.Errorf("%s has the severity %q", r.Alert, r.Labels["severity"])
		}
		if len(r.Labels) != 1 {
			t.Errorf("%s has the labels %v; what is not the severity belongs to the target", r.Alert, r.Labels)
		}
		for _, name := range []string{"summary", "runbook"} {
			text := r.Annotations[name]
			if text == "" || strings.Contains(text, "\n") {
				t.Errorf("%s: the %s is empty or longer than a line: %q", r.Alert, name, text)
			}
		}
		if !strings.Contains(r.Annotations["summary"], "{{ .Name }}") {
			t.Errorf("%s: the summary does not name the target: %q", r.Alert, r.Annotations["summary"])
		}
	}
}
