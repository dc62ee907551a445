package alerter_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	queryv1 "github.com/tocsin-dev/tocsin/proto/gen/tocsin/query/v1"
	"github.com/tocsin-dev/tocsin/services/alerter"
)

// TestNobodyIsToldWhileAllIsObserved: what would have been sent is shown, and what
// still fires is told once the setting is gone.
func TestNobodyIsToldWhileAllIsObserved(t *testing.T) {
	w := newWorld(t)
	path, hangups := filepath.Join(t.TempDir(), "rules.yaml"), make(chan struct{}, 1)
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(testRules)
	r := w.start(func(o *alerter.Options) {
		o.RuleFiles, o.Rules, o.Reload, o.Observe = nil, []string{path}, hangups, true
	}).await(64).inForce()
	q := r.query()
	w.queue("busy", 20)
	w.queue("brief", 20)
	firing := func(observed bool, want int) error {
		out, err := q.ListAlerts(t.Context(), &queryv1.ListAlertsRequest{Matchers: []string{`alertname="QueueHigh"`}})
		if err != nil {
			return err
		}
		for _, a := range out.GetAlerts() {
			if a.GetObserved() != observed {
				return fmt.Errorf("%v, want observed %v", a, observed)
			}
		}
		if n := len(out.GetAlerts()); n != want {
			return fmt.Errorf("%d alerts, want %d", n, want)
		}
		return nil
	}
	eventually(t, "what fires is shown", func() error { return firing(true, 2) })
	w.queue("brief", 0)
	eventually(t, "what is over is not", func() error { return firing(true, 1) })
	// Rules that are read anew are observed too.
	write(strings.Replace(testRules, "jobs.in_queue > 10", "jobs.in_queue > 9", 1))
	hangups <- struct{}{}
	eventually(t, "the reload", func() error {
		rules, err := q.ListRules(t.Context(), &queryv1.ListRulesRequest{})
		if err != nil {
			return err
		}
		for _, rule := range rules.GetRules() {
			if !rule.GetObserved() || rule.GetNoData() != "keep" || rule.GetTimes() != "" {
				t.Errorf("the rule is shown as %v", rule)
			}
		}
		if rules.GetRules()[0].GetExpr() != "jobs.in_queue > 9" {
			return fmt.Errorf("in force is %v", rules.GetRules()[0])
		}
		return nil
	})
	w.queue("between", 10)
	eventually(t, "what fires by the rules that were read anew", func() error { return firing(true, 2) })
	if told := w.notifier.kinds("busy") + w.notifier.kinds("brief") + w.notifier.kinds("between"); told != "" {
		t.Errorf("the notifier was told %v", told)
	}
	r.stop()

	q = w.start().await(64).inForce().query()
	w.notifier.await("busy", "f")
	if err := firing(false, 1); err != nil {
		t.Error(err)
	}
	w.queue("busy", 0)
	w.notifier.await("busy", "fr")
	if told := w.notifier.kinds("brief"); told != "" {
		t.Errorf("the notifier was told %v of what was over", told)
	}
}
