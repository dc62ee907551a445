package alerter_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/tocsin-dev/tocsin/internal/rpc"
	queryv1 "github.com/tocsin-dev/tocsin/proto/gen/tocsin/query/v1"
	rulev1 "github.com/tocsin-dev/tocsin/proto/gen/tocsin/rule/v1"
	"github.com/tocsin-dev/tocsin/services/alerter"
)

// TestRulesAreReloaded changes a rule file under two alerters that run: by a
// change of the file, by gRPC and by a signal. What a change does not touch keeps
// its alert; what is gone is resolved; wrong files change nothing.
func TestRulesAreReloaded(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	path := filepath.Join(t.TempDir(), "rules.yaml")
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(testRules)
	hangups := make(chan struct{}, 1)
	fromFile := func(o *alerter.Options) { o.RuleFiles, o.Rules, o.Reload = nil, []string{path}, hangups }
	first := w.start(fromFile)
	second := w.start(func(o *alerter.Options) { o.RuleFiles = map[string][]byte{"test.yaml": []byte(testRules)} })
	first.inForce()
	w.queue("a", 20)
	fires := func(want ...string) func() error {
		return func() error {
			answer, err := second.query().ListAlerts(t.Context(), &queryv1.ListAlertsRequest{})
			if err != nil {
				return err
			}
			var got []string
			for _, a := range answer.GetAlerts() {
				got = append(got, a.GetRule()+" "+strings.ToLower(strings.TrimPrefix(a.GetState().String(), "ALERT_STATE_"))+" "+a.GetId())
			}
			if len(got) != len(want) {
				return fmt.Errorf("alerts %v, want %v", got, want)
			}
			for _, prefix := range want {
				found := false
				for _, g := range got {
					found = found || strings.HasPrefix(g, prefix)
				}
				if !found {
					return fmt.Errorf("alerts %v, want %v", got, want)
				}
			}
			return nil
		}
	}
	eventually(t, "the first rules", fires("QueueHigh firing", "QueueLong pending"))
	kept, err := second.query().ListAlerts(t.Context(), &queryv1.ListAlertsRequest{Matchers: []string{"alertname=QueueHigh"}})
	if err != nil {
		t.Fatal(err)
	}

	// A changed file: QueueLong gives way to another rule, QueueHigh stays.
	changed := strings.NewReplacer("QueueLong", "QueueAtAll", "for: 1h", "for: 0s").Replace(testRules)
	write(changed)
	eventually(t, "the changed file", fires("QueueHigh firing "+kept.GetAlerts()[0].GetId(), "QueueAtAll firing"))

	conn, err := rpc.Dial(first.address.GRPC, rpc.DialOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	rules := rulev1.NewRuleServiceClient(conn)

	write("groups: [{name: g, rules: [{alert: A, on: endpoint, expr: jobs.in_que > 1}]}]")
	if _, err := rules.Reload(t.Context(), &rulev1.ReloadRequest{}); status.Code(err) != codes.InvalidArgument || !strings.Contains(err.Error(), "did you mean `jobs.in_queue`?") {
		t.Errorf("wrong files: %v", err)
	}
	if n := first.metric("tocsin_alerter_rule_reload_successful"); n != 0 {
		t.Errorf("after wrong files the last reload counts as successful: %v", n)
	}
	if err := fires("QueueHigh firing", "QueueAtAll firing")(); err != nil {
		t.Errorf("after wrong files: %v", err)
	}

	write(testRules)
	answer, err := rules.Reload(t.Context(), &rulev1.ReloadRequest{})
	if err != nil || !answer.GetChanged() || answer.GetRules() != 2 {
		t.Fatalf("by gRPC: %v, %v", answer, err)
	}
	eventually(t, "the reload by gRPC", fires("QueueHigh firing "+kept.GetAlerts()[0].GetId(), "QueueLong pending"))

	write(changed)
	hangups <- struct{}{}
	eventually(t, "the reload by a signal", fires("QueueHigh firing "+kept.GetAlerts()[0].GetId(), "QueueAtAll firing"))
	if n := first.metric("tocsin_alerter_rule_reload_successful"); n != 1 {
		t.Errorf("after good files the last reload does not count as successful: %v", n)
	}
}
