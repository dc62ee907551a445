package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/tocsin-dev/tocsin/internal/bus"
	"github.com/tocsin-dev/tocsin/internal/event"
	"github.com/tocsin-dev/tocsin/internal/proc"
	"github.com/tocsin-dev/tocsin/internal/rpc"
	"github.com/tocsin-dev/tocsin/internal/servertest"
	alertv1 "github.com/tocsin-dev/tocsin/proto/gen/tocsin/alert/v1"
	eventv1 "github.com/tocsin-dev/tocsin/proto/gen/tocsin/event/v1"
	rulev1 "github.com/tocsin-dev/tocsin/proto/gen/tocsin/rule/v1"
)

// backtests answers with what was prepared.
type backtests struct {
	rulev1.UnimplementedRuleServiceServer
	parts []*rulev1.BacktestResponse
	err   error
	asked *rulev1.BacktestRequest
}

func (b *backtests) Backtest(req *rulev1.BacktestRequest, stream grpc.ServerStreamingServer[rulev1.BacktestResponse]) error {
	b.asked = req
	for _, part := range b.parts {
		if err := stream.Send(part); err != nil {
			return err
		}
	}
	return b.err
}

// serveBacktests serves on loopback and returns the address.
func serveBacktests(t *testing.T, b *backtests) string {
	t.Helper()
	s := rpc.NewServer(rpc.ServerOptions{})
	rulev1.RegisterRuleServiceServer(s, b)
	return serveOn(t, s)
}

// minute is an instant of the prepared answer.
func minute(n int) *timestamppb.Timestamp {
	return timestamppb.New(time.Date(2026, 11, 18, 8, n, 0, 0, time.UTC))
}

// prepared is the answer of an alerter to a comparison of two sets of rules.
func prepared() []*rulev1.BacktestResponse {
	fired := func(rule, id string, from, to int, worst float64, change func(*rulev1.BacktestFiring)) *rulev1.BacktestResponse {
		f := &rulev1.BacktestFiring{
			Alert: &alertv1.Alert{
				Id: fmt.Sprint(rule, id, from), Group: "my-endpoints", Rule: rule, Target: &eventv1.Target{Id: id}, Labels: map[string]string{"alertname": rule},
				FiredAt: minute(from),
			},
			Worst:   &alertv1.Value{Name: "min(jobs.in_queue, '5m')", Number: &worst},
			Outcome: rulev1.BacktestOutcome_BACKTEST_OUTCOME_SAME,
		}
		if to > 0 {
			f.Alert.ResolvedAt = minute(to)
		}
		if change != nil {
			change(f)
		}
		return &rulev1.BacktestResponse{Part: &rulev1.BacktestResponse_Firing{Firing: f}}
	}
	return []*rulev1.BacktestResponse{
		{Part: &rulev1.BacktestResponse_Progress{Progress: &rulev1.BacktestProgress{Read: 10, Total: 20, At: minute(1)}}},
		fired("QueueLong", "img7x2k9q4m", 2, 14, 235, func(f *rulev1.BacktestFiring) { f.BeganBefore = true }),
		fired("QueueLong", "llm3n5t6r8g", 20, 25, 140, func(f *rulev1.BacktestFiring) { f.Outcome = rulev1.BacktestOutcome_BACKTEST_OUTCOME_SHORTER }),
		fired("QueueLong", "llm3n5t6r8g", 31, 0, 120, func(f *rulev1.BacktestFiring) { f.Outcome = rulev1.BacktestOutcome_BACKTEST_OUTCOME_ONLY }),
		fired("QueueLong", "llm3n5t6r8g", 17, 25, 140, func(f *rulev1.BacktestFiring) {
			f.Old, f.Outcome = true, rulev1.BacktestOutcome_BACKTEST_OUTCOME_LONGER
		}),
		fired("QueueLong", "img\x1b[2J", 40, 41, 103, func(f *rulev1.BacktestFiring) {
			f.Old, f.Outcome = true, rulev1.BacktestOutcome_BACKTEST_OUTCOME_ONLY
		}),
		{Part: &rulev1.BacktestResponse_Summary{Summary: &rulev1.BacktestSummary{
			From: minute(4), To: minute(50), Oldest: minute(0), Events: 12345, Targets: 2, Gone: 3, FiringsLeftOut: 1,
			Problems: []*rulev1.BacktestProblem{{Kind: "undecodable_event", Detail: "message 7 has no fact that can be read", Count: 2}},
			Rules: []*rulev1.BacktestRule{
				{Group: "my-endpoints", Rule: "QueueLong", Firings: 3, StillFiring: 1, Firing: durationpb.New(34 * time.Minute), Shortest: durationpb.New(5 * time.Minute), Flaps: 1},
				{Group: "my-endpoints", Rule: "QueueLost", Firing: durationpb.New(0)},
				{Group: "my-endpoints", Rule: "QueueLong", Firings: 2, Firing: durationpb.New(9 * time.Minute), Shortest: durationpb.New(time.Minute), Old: true},
			},
			Comparisons: []*rulev1.BacktestComparison{{Rule: "QueueLong", OnlyNew: 1, OnlyOld: 1, Shorter: 1, Same: 1}},
		}}},
	}
}

func TestABacktestIsPrinted(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	rule := "groups: [{name: my-endpoints, rules: [{alert: QueueLong, on: endpoint, expr: jobs.in_queue > %d}]}]"
	fresh, old := write("new.yaml", fmt.Sprintf(rule, 100)), write("old.yaml", fmt.Sprintf(rule, 10))
	b := &backtests{parts: prepared()}
	address := serveBacktests(t, b)
	out, err := tocsin(t, "rules", "backtest", "--address", address, "--since", "7d", "--against", old, fresh)
	if err != nil {
		t.Fatal(err)
	}
	if len(b.asked.GetFiles()) != 1 || len(b.asked.GetAgainst()) != 1 || b.asked.GetSince().AsDuration() != 7*24*time.Hour {
		t.Errorf("asked for %v", b.asked)
	}
	for _, want := range []string{
		"12,345 events and 2 targets were played",
		"The oldest event is 50m older than the newest",
		"skipped 2 times undecodable event: message 7",
		"3 messages removed from the middle of the log",
		"  12m     235    QueueLong  img7x2k9q4m  began before\n",
		"  5m      140    QueueLong  llm3n5t6r8g  shorter\n",
		"still firing         19m     120    QueueLong  llm3n5t6r8g  only new\n",
		"  1m      103    QueueLong  img [2J      only old\n",
		"1 more firing not listed",
		"my-endpoints/QueueLong        3        34m    5m        1\n",
		"my-endpoints/QueueLong (old)  2        9m     1m        0\n",
		"never fired: my-endpoints/QueueLost",
		"QueueLong   1         1         0       1        0      1\n",
		"print     print   4         0        4             0\n", // one was told before the time,
		"12,345 events in ",
	} {
		if !strings.Contains(out, want) {
			t.Errorf("no %q in\n%s", want, out)
		}
	}
	if out, err = tocsin(t, "rules", "backtest", "--address", address, "--json", "--quiet", "--against", old, fresh); err != nil {
		t.Fatal(err)
	}
	var j recordJSON
	if err := json.Unmarshal([]byte(out), &j); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if len(j.Firings) != 5 || *j.Firings[0].Worst != 235 || j.Firings[2].End != nil || j.Firings[4].Outcome != "only" || !j.Firings[4].Old ||
		len(j.Rules) != 3 || j.Comparisons[0].Shorter != 1 || j.Receivers[1].Messages != 4 || j.LeftOut != 1 {
		t.Errorf("as JSON: %s", out)
	}
	if _, err = tocsin(t, "rules", "backtest", "--address", address); err != nil || b.asked.GetFiles() != nil {
		t.Errorf("without files the alerter's own are meant: %v, asked for %v", err, b.asked)
	}
}

// TestMessagesThatAreTooManyAreCounted plays routes that repeat each millisecond what
// fires, of which more is told than a forecast counts.
func TestMessagesThatAreTooManyAreCounted(t *testing.T) {
	dir := t.TempDir()
	rule, routes := filepath.Join(dir, "rules.yaml"), filepath.Join(dir, "alertmanager.yml")
	for path, text := range map[string]string{
		rule: "groups: [{name: my-endpoints, rules: [{alert: QueueLong, on: endpoint, expr: jobs.in_queue > 10}]}]",
		routes: `
route:
  receiver: few
  group_by: [alertname]
  routes:
  - {receiver: many, matchers: ['alertname="QueueLong"'], group_wait: 0s, group_interval: 1ms, repeat_interval: 1ms}
receivers:
- {name: few, webhook_configs: [{url: 'http://127.0.0.1:1/few'}]}
- {name: many, webhook_configs: [{url: 'http://127.0.0.1:1/many'}]}
`,
	} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	// By the new rules it fires for 12 minutes, the first two of which are before the
	// time; by the old ones for a second.
	parts := prepared()
	short := parts[5].GetFiring().GetAlert()
	short.ResolvedAt = timestamppb.New(short.GetFiredAt().AsTime().Add(time.Second))
	args := []string{"rules", "backtest", "--quiet", "--address", serveBacktests(t, &backtests{parts: slices.Delete(parts, 4, 5)}), "--routes", routes, "--against", rule}
	out, err := tocsin(t, append(args, rule)...)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(out, "of the messages: more than 200,000 messages") || strings.Contains(out, "of the old messages") || !strings.Contains(out, "many      alertmanager  80001     80001    1002          1000") {
		t.Errorf("that only the new ones are cut is not shown:\n%s", out)
	}
	for _, r := range []*record{{cut: true}, {cutOld: true}} {
		var text bytes.Buffer
		if err := r.json(&text); err != nil {
			t.Fatal(err)
		}
		var j recordJSON
		if err := json.Unmarshal(text.Bytes(), &j); err != nil || j.Cut != r.cut || j.CutOld != r.cutOld {
			t.Errorf("%v, as JSON of what is cut: %s", err, text.String())
		}
	}
}

func TestMistakesOfBacktests(t *testing.T) {
	dir := t.TempDir()
	wrong := filepath.Join(dir, "wrong.yaml")
	if err := os.WriteFile(wrong, []byte("groups: [{name: g, rules: [{alert: A, on: endpoint, expr: jobs.in_que > jobs.faild}]}]"), 0o600); err != nil {
		t.Fatal(err)
	}
	busy := serveBacktests(t, &backtests{err: status.Error(codes.ResourceExhausted, "another backtest runs in this alerter")})
	short := serveBacktests(t, &backtests{})
	for name, c := range map[string]struct {
		args  []string
		usage bool
		want  []string
	}{
		"everything at once": {[]string{"--since", "soon", "--routes", filepath.Join(dir, "absent.yml"), "--against", "none.yaml", "nothing.yaml"}, true, []string{"--since: \"soon\" is no duration", "absent.yml", "--against: \"none.yaml\" matches no file", "nothing.yaml"}},
		"wrong rules":        {[]string{"--against", wrong, wrong}, true, []string{"wrong.yaml:1:", "did you mean `jobs.in_queue`?", "did you mean `jobs.failed`?"}},
		"no alerter":         {[]string{"--address", "127.0.0.1:1"}, false, []string{"no alerter answers at 127.0.0.1:1"}},
		"a busy alerter":     {[]string{"--address", busy}, false, []string{"another backtest runs"}},
		"a short answer":     {[]string{"--address", short}, false, []string{"ended before its summary"}},
		"no NATS":            {[]string{"--nats", "nats://me:secret@127.0.0.1:1"}, false, []string{"NATS does not let us in at nats://127.0.0.1:1", "is it running there"}},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := tocsin(t, append([]string{"rules", "backtest"}, c.args...)...)
			if err == nil || proc.IsUsage(err) != c.usage {
				t.Fatalf("error %v, want usage: %v", err, c.usage)
			}
			for _, want := range c.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("no %q in %v", want, err)
				}
			}
			if strings.Contains(err.Error(), "secret") {
				t.Errorf("it shows a password: %v", err)
			}
		})
	}
}

func TestABacktestReadsNATSDirectly(t *testing.T) {
	nats := servertest.NATS(t)
	conn := nats.Conn(t)
	if _, err := tocsin(t, "rules", "backtest", "--nats", nats.URL()); err == nil || !strings.Contains(err.Error(), "nothing was recorded") {
		t.Errorf("without a log: %v", err)
	}
	if _, err := conn.EnsureStream(t.Context(), bus.Events(0)); err != nil {
		t.Fatal(err)
	}
	rulesPath := filepath.Join(t.TempDir(), "rules.yaml")
	if err := os.WriteFile(rulesPath, []byte("groups: [{name: g, rules: [{alert: Up, on: endpoint, expr: jobs.in_queue > 10}]}]"), 0o600); err != nil {
		t.Fatal(err)
	}
	for i := range 10 {
		e := &eventv1.Event{
			Target: &eventv1.Target{Account: "a", Kind: eventv1.TargetKind_TARGET_KIND_ENDPOINT, Id: "abc"}, Source: eventv1.Source_SOURCE_POLL,
			Fact: &eventv1.Event_HealthSampled{HealthSampled: &eventv1.HealthSampled{PollSlotMs: int64(1 + i), Jobs: &eventv1.JobCounts{InQueue: new(int64(i % 2 * 20))}}},
		}
		data, err := event.Marshal(e)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := conn.Publish(t.Context(), bus.Message{Subject: event.Subject(event.KindHealthSampled, e.GetTarget()), Data: data}); err != nil {
			t.Fatal(err)
		}
	}
	out, err := tocsin(t, "rules", "backtest", "--nats", nats.URL(), rulesPath)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"10 events and 1 target", "still firing", "g/Up  5        ", "print     print   ", "10 events in "} {
		if !strings.Contains(out, want) {
			t.Errorf("no %q in\n%s", want, out)
		}
	}
}

func TestTheHelpOfBacktestsShowsExamples(t *testing.T) {
	out, err := tocsin(t, "rules", "backtest", "--help")
	if err != nil || !strings.Contains(out, "tocsin rules backtest --since 24h --against old.yaml new.yaml") {
		t.Errorf("%v\n%s", err, out)
	}
}

func TestDurationsAndNumbersForPeople(t *testing.T) {
	for d, want := range map[time.Duration]string{
		240 * time.Millisecond: "240ms", time.Second: "1s", 13*time.Minute + 20*time.Second: "13m20s", 51*time.Hour + time.Minute: "2d3h1m", 0: "0s",
	} {
		if got := rounded(d); got != want {
			t.Errorf("%v is written %s, want %s", d, got, want)
		}
	}
	for n, want := range map[uint64]string{0: "0", 999: "999", 1000: "1,000", 1234567: "1,234,567"} {
		if got := thousands(n); got != want {
			t.Errorf("%d is written %s, want %s", n, got, want)
		}
	}
	if got := bar(&rulev1.BacktestProgress{Read: 50, Total: 100, At: minute(0)}, 2*time.Second); !strings.HasPrefix(got, "[===============               ]  50 %  25 events/s  ") {
		t.Errorf("the bar is %q", got)
	}
}
