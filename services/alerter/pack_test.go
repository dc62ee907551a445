package alerter_test

import (
	"fmt"
	"testing"

	queryv1 "github.com/tocsin-dev/tocsin/proto/gen/tocsin/query/v1"
	"github.com/tocsin-dev/tocsin/rules"
	"github.com/tocsin-dev/tocsin/services/alerter"
)

// TestRulesOfALaterPackAreOnlyObserved runs the default pack by a configuration that
// knows the first version of it, and by one that says nothing.
func TestRulesOfALaterPackAreOnlyObserved(t *testing.T) {
	for _, version := range []string{"1.0", ""} {
		t.Run("version "+version, func(t *testing.T) {
			later, err := rules.After(version)
			if err != nil {
				t.Fatal(err)
			}
			c := alerter.DefaultConfig()
			c.PackVersion = version
			if err := c.Validate(); err != nil {
				t.Fatal(err)
			}
			w := newWorld(t)
			r := w.start(func(o *alerter.Options) {
				notifier := o.Notifier
				if err := c.Apply(o); err != nil {
					t.Fatal(err)
				}
				o.Notifier, o.RuleFiles = notifier, nil
				o.GRPCAddress, o.HTTPAddress = "127.0.0.1:0", "127.0.0.1:0"
			}).await(64).inForce()
			out, err := r.query().ListRules(t.Context(), &queryv1.ListRulesRequest{})
			if err != nil {
				t.Fatal(err)
			}
			var observed []string
			for _, rule := range out.GetRules() {
				if rule.GetObserved() {
					observed = append(observed, rule.GetName())
				}
			}
			if len(out.GetRules()) < 30 || fmt.Sprint(observed) != fmt.Sprint(inOrder(later, out.GetRules())) {
				t.Errorf("of %d rules %v are observed, want %v", len(out.GetRules()), observed, later)
			}
		})
	}
	c := alerter.DefaultConfig()
	if c.PackVersion = "0.1"; c.Validate() == nil {
		t.Error("a version that there never was is taken")
	}
}

// inOrder lists names in the order in which rules are listed.
func inOrder(names []string, all []*queryv1.Rule) []string {
	var list []string
	for _, rule := range all {
		for _, name := range names {
			if rule.GetName() == name {
				list = append(list, name)
			}
		}
	}
	return list
}
