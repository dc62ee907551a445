package rules

import (
	"slices"
	"strings"
	"testing"
)

func TestVersionsNameRulesOfThePack(t *testing.T) {
	if last := versions[len(versions)-1].number; last != Version {
		t.Errorf("the last version is %s, the pack's is %s", last, Version)
	}
	var text strings.Builder
	for _, file := range Default() {
		text.Write(file)
	}
	seen := map[string]bool{}
	for _, v := range versions {
		for _, name := range v.rules {
			if seen[name] || !strings.Contains(text.String(), "- alert: "+name+"\n") {
				t.Errorf("version %s brings %s, which is no rule of the pack or came before", v.number, name)
			}
			seen[name] = true
		}
	}
}

func TestRulesThatCameAfterAVersion(t *testing.T) {
	if later, err := After("1.0"); err != nil || !slices.Contains(later, "SLOBurnFast") || !slices.IsSorted(later) {
		t.Errorf("after 1.0: %v, %v", later, err)
	}
	for _, present := range []string{"", Version} {
		if later, err := After(present); err != nil || len(later) > 0 {
			t.Errorf("after %q: %v, %v", present, later, err)
		}
	}
	if _, err := After("0.9"); err == nil || !strings.Contains(err.Error(), "expected one of 1.0, 1.1") {
		t.Errorf("after 0.9: %v", err)
	}
}
