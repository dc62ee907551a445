package main

import (
	"bytes"
	"context"
	"net"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/tocsin-dev/tocsin/internal/proc"
	"github.com/tocsin-dev/tocsin/internal/rpc"
	alertv1 "github.com/tocsin-dev/tocsin/proto/gen/tocsin/alert/v1"
	eventv1 "github.com/tocsin-dev/tocsin/proto/gen/tocsin/event/v1"
	queryv1 "github.com/tocsin-dev/tocsin/proto/gen/tocsin/query/v1"
	"github.com/tocsin-dev/tocsin/rules"
	"github.com/tocsin-dev/tocsin/services/alerter/rulefile"
	"github.com/tocsin-dev/tocsin/services/collector"
	"github.com/tocsin-dev/tocsin/services/notifier"
)

func TestTheExampleConfigurationIsValidAndSaysNothingNew(t *testing.T) {
	t.Setenv(collector.APIKeyVariable, "key")
	c, err := load(filepath.Join("..", "..", "tocsin.example.yaml"), false, logDefaults(false))
	if err != nil {
		t.Fatal(err)
	}
	plain, err := load("", false, logDefaults(false))
	if err != nil {
		t.Fatal(err)
	}
	if c.collector != plain.collector || c.runpod != plain.runpod || c.log != plain.log || c.notifier != plain.notifier {
		t.Error("the example changes a default where it says it shows them")
	}
	if c.alerter.PackVersion != rules.Version {
		t.Errorf("the example knows version %q of the pack, which is %s: whoever copies it would not be told of all rules", c.alerter.PackVersion, rules.Version)
	}
	if len(c.targets) != 3 {
		t.Fatalf("%d target patterns, want the 3 of the example", len(c.targets))
	}
	if _, err := rulefile.Parse(nil, c.targets); err != nil {
		t.Errorf("its target patterns: %v", err)
	}
	if _, err := c.options(); err != nil {
		t.Errorf("its options: %v", err)
	}
}

func TestTheDemosRoutesAreTheDefaultOnesWithAnotherReceiver(t *testing.T) {
	routes, err := demoRoutes("http://127.0.0.1:1/hook", "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
	if err != nil {
		t.Fatal(err)
	}
	text, defaults := string(routes), string(notifier.DefaultRoutes())
	for _, want := range []string{"http://127.0.0.1:1/hook", "format: standard", "receiver: terminal"} {
		if !strings.Contains(text, want) {
			t.Errorf("they lack %q:\n%s", want, text)
		}
	}
	if got, want := strings.Count(text, "source_matchers"), strings.Count(defaults, "source_matchers:"); got != want || want == 0 {
		t.Errorf("%d inhibit rules, the default routes have %d", got, want)
	}
}

func TestTheDemosRulesAreTheDefaultOnesWithAShorterIdleWindow(t *testing.T) {
	pack := demoRules()
	set, err := rulefile.Parse(pack, nil)
	if err != nil {
		t.Fatal(err)
	}
	idle := 0
	for _, group := range set.Groups {
		for _, rule := range group.Rules {
			if rule.Alert == "LowGPUUtilization" {
				idle++
				if strings.Contains(rule.Expr, "'2h'") || !strings.Contains(rule.Expr, demoIdleWindow) {
					t.Errorf("the rule on idle GPUs looks back as far as by default: %s", rule.Expr)
				}
			} else if strings.Contains(rule.Expr, demoIdleWindow) {
				t.Errorf("%s has the demo's window too: %s", rule.Alert, rule.Expr)
			}
		}
	}
	if idle != 1 {
		t.Errorf("%d rules on idle GPUs, want 1", idle)
	}
}

// fakeAlerter answers ListAlerts in pages of one, and tells of one alert and one
// target.
type fakeAlerter struct {
	queryv1.UnimplementedQueryServiceServer
	alerts    []*alertv1.Alert
	explained *queryv1.ExplainAlertResponse
	diagnosed *queryv1.DiagnoseResponse
}

func (a *fakeAlerter) ListAlerts(_ context.Context, req *queryv1.ListAlertsRequest) (*queryv1.ListAlertsResponse, error) {
	if len(req.GetMatchers()) > 0 && req.GetMatchers()[0] == "bad{" {
		return nil, status.Error(codes.InvalidArgument, `matcher "bad{": no operator`)
	}
	at := len(req.GetPageToken())
	if at >= len(a.alerts) {
		return &queryv1.ListAlertsResponse{}, nil
	}
	answer := &queryv1.ListAlertsResponse{Alerts: a.alerts[at : at+1]}
	if at+1 < len(a.alerts) {
		answer.NextPageToken = strings.Repeat("x", at+1)
	}
	return answer, nil
}

// serveAlerter serves a on loopback and returns its address.
func serveAlerter(t *testing.T, a *fakeAlerter) string {
	t.Helper()
	s := rpc.NewServer(rpc.ServerOptions{})
	queryv1.RegisterQueryServiceServer(s, a)
	return serveOn(t, s)
}

// serveOn runs a server on loopback until the test ends and returns its address.
func serveOn(t *testing.T, s *rpc.Server) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	served := make(chan error, 1)
	go func() { served <- s.Serve(ctx, ln) }()
	t.Cleanup(func() {
		cancel()
		if err := <-served; err != nil {
			t.Errorf("serve: %v", err)
		}
	})
	return ln.Addr().String()
}

func TestAlerts(t *testing.T) {
	alert := func(rule, severity, summary string, state alertv1.AlertState, since time.Time) *alertv1.Alert {
		return &alertv1.Alert{
			Id: rule, Rule: rule, State: state, ActiveAt: timestamppb.New(since),
			Target: &eventv1.Target{Id: "abc"}, Labels: map[string]string{"severity": severity},
			Annotations: map[string]string{"summary": summary},
			Evidence:    &alertv1.Evidence{Worst: []*alertv1.Extreme{{Name: "jobs.in_queue", Number: 212}, {Name: "x"}}},
		}
	}
	observed := func(a *alertv1.Alert) *alertv1.Alert {
		a.Observed = true
		return a
	}
	at := time.Date(2026, 11, 23, 8, 0, 0, 0, time.UTC)
	address := serveAlerter(t, &fakeAlerter{alerts: []*alertv1.Alert{
		alert("Waiting", "info", "", alertv1.AlertState_ALERT_STATE_PENDING, at),
		alert("Later", "warning", "second", alertv1.AlertState_ALERT_STATE_FIRING, at.Add(time.Minute)),
		observed(alert("Watched", "info", "nobody knows", alertv1.AlertState_ALERT_STATE_FIRING, at.Add(2*time.Minute))),
		alert("Sooner", "critical", "first\x1b[2J\nline", alertv1.AlertState_ALERT_STATE_FIRING, at),
	}})

	var out bytes.Buffer
	if err := run(t.Context(), []string{"alerts", "--address", address}, &out, &out); err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSpace(out.String()), "\n")
	for i, want := range []string{"STATE", "Sooner", "Later", "Watched", "Waiting"} {
		if len(lines) != 5 || !strings.Contains(lines[i], want) {
			t.Fatalf("want a heading, then Sooner, Later, Watched and Waiting, each a line:\n%s", out.String())
		}
	}
	if !strings.HasPrefix(lines[3], "would have sent") || strings.Count(out.String(), "would have sent") != 1 {
		t.Errorf("that nobody was told of Watched is not said:\n%s", out.String())
	}
	if strings.Contains(out.String(), "\x1b") {
		t.Errorf("a summary moves the cursor: %q", out.String())
	}
	has(t, out.String(), "firing", "Sooner", "jobs.in_queue 212", "Sooner", "first")

	err := run(t.Context(), []string{"alerts", "--address", address, "bad{"}, &out, &out)
	if err == nil || !strings.Contains(err.Error(), "bad{") {
		t.Errorf("a bad matcher: %v, want an error that names it", err)
	}
	err = run(t.Context(), []string{"alerts", "--address", "10.0.0.1:9091", "--token", "hunter2"}, &out, &out)
	if !proc.IsUsage(err) || !strings.Contains(err.Error(), "insecure") || strings.Contains(err.Error(), "hunter2") {
		t.Errorf("a token in the clear: %v, want an error that says how to allow it", err)
	}
	err = run(t.Context(), []string{"alerts", "--address", "127.0.0.1:1"}, &out, &out)
	if err == nil || !strings.Contains(err.Error(), "no alerter answers at 127.0.0.1:1") {
		t.Errorf("nobody there: %v, want an error that says so", err)
	}
}

func TestNoAlertsIsSaidInWords(t *testing.T) {
	address := serveAlerter(t, &fakeAlerter{})
	var out bytes.Buffer
	if err := run(t.Context(), []string{"alerts", "--address", address}, &out, &out); err != nil {
		t.Fatal(err)
	}
	if out.String() != "no alerts\n" {
		t.Errorf("printed %q", out.String())
	}
}

func TestTheCommandLine(t *testing.T) {
	for name, test := range map[string]struct {
		args  []string
		want  string
		usage bool
	}{
		"nothing shows the help":        {nil, "Commands:", false},
		"help is shown":                 {[]string{"demo", "--help"}, "--data", false},
		"a token may go in the clear":   {[]string{"alerts", "--help"}, "--insecure", false},
		"the version names the go":      {[]string{"--version"}, "go1.", false},
		"an unknown command is refused": {[]string{"watch"}, "", true},
		"an unknown flag is refused":    {[]string{"up", "--fast"}, "", true},
	} {
		t.Run(name, func(t *testing.T) {
			var out bytes.Buffer
			err := run(t.Context(), test.args, &out, &out)
			if proc.IsUsage(err) != test.usage || err != nil && !test.usage {
				t.Fatalf("error %v, want usage: %t", err, test.usage)
			}
			if !strings.Contains(out.String(), test.want) {
				t.Errorf("it does not show %q:\n%s", test.want, out.String())
			}
		})
	}
}

func TestWhereTheDataGoes(t *testing.T) {
	t.Setenv("XDG_STATE_HOME", "/state")
	if dir, err := stateDir("up"); err != nil || dir != "/state/tocsin/up" {
		t.Errorf("%q, %v", dir, err)
	}
	t.Setenv("XDG_STATE_HOME", "")
	t.Setenv("HOME", "/home/me")
	if dir, err := stateDir("up"); err != nil || dir != "/home/me/.local/state/tocsin/up" {
		t.Errorf("%q, %v", dir, err)
	}
	t.Setenv("HOME", "")
	if _, err := stateDir("up"); !proc.IsUsage(err) {
		t.Errorf("without a home: %v, want a mistake that names --data", err)
	}
}
