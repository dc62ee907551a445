package engine

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/testing/protocmp"
	"google.golang.org/protobuf/types/known/durationpb"

	eventv1 "github.com/tocsin-dev/tocsin/proto/gen/tocsin/event/v1"
	queryv1 "github.com/tocsin-dev/tocsin/proto/gen/tocsin/query/v1"
	"github.com/tocsin-dev/tocsin/services/alerter/rulefile"
)

// valuesOf writes a status's values in short.
func valuesOf(s *queryv1.TargetStatus) string {
	var all []string
	for _, v := range s.GetValues() {
		text := v.GetName() + "=" + v.GetValue()
		if v.Number == nil {
			text += "!"
		}
		all = append(all, text)
	}
	return strings.Join(all, " ")
}

func TestStatusesShowTheLatestValues(t *testing.T) {
	number := func(n int64) *int64 { return &n }
	percent := func(f float64) *float64 { return &f }
	for _, c := range []struct {
		name   string
		events []*eventv1.Event
		want   string
	}{
		{
			"an endpoint",
			[]*eventv1.Event{
				{Target: endpoint("x"), Fact: &eventv1.Event_TargetDiscovered{TargetDiscovered: &eventv1.TargetDiscovered{Spec: &eventv1.TargetSpec{
					Kind: &eventv1.TargetSpec_Endpoint{Endpoint: &eventv1.EndpointSpec{
						Type: eventv1.EndpointType_ENDPOINT_TYPE_QUEUE, WorkersMax: number(3), WorkersMin: number(0),
						IdleTimeout: durationpb.New(5 * time.Second), ExecutionTimeout: durationpb.New(time.Minute),
					}},
				}}}},
				sampled(endpoint("x"), 1, time.Second, &eventv1.JobCounts{Completed: number(7), InQueue: number(0)}, &eventv1.WorkerCounts{Throttled: number(2)}),
			},
			"jobs.completed=7 jobs.in_queue=0 workers.throttled=2 workers.max=3 workers.min=0 endpoint.type=queue! " +
				"endpoint.execution_timeout_s=60 endpoint.idle_timeout_s=5 poll.failing=false!",
		},
		{
			"a load balancer, which is not polled",
			[]*eventv1.Event{
				{Target: endpoint("x"), Fact: &eventv1.Event_TargetDiscovered{TargetDiscovered: &eventv1.TargetDiscovered{Spec: &eventv1.TargetSpec{
					Kind: &eventv1.TargetSpec_Endpoint{Endpoint: &eventv1.EndpointSpec{Type: eventv1.EndpointType_ENDPOINT_TYPE_LOAD_BALANCER}},
				}}}},
			},
			"endpoint.type=load_balancer! poll.failing=false!",
		},
		{
			"a pod that runs",
			[]*eventv1.Event{
				{Target: pod("x"), Fact: &eventv1.Event_GpuSampled{GpuSampled: &eventv1.GpuSampled{
					PollSlotMs: 1, Status: "RUNNING", CostPerHour: percent(0.44), UptimeSeconds: number(90), CpuPercent: percent(5), MemoryPercent: percent(6),
					Gpus: []*eventv1.Gpu{{UtilPercent: percent(10), MemoryPercent: percent(30)}, {UtilPercent: percent(40)}, {}},
				}}},
			},
			"poll.failing=false! pod.status=RUNNING! pod.cost_per_hour=0.44 pod.uptime_s=90 pod.restarts=0 pod.gone=false! cpu.util_percent=5 memory.util_percent=6 " +
				"gpu.util_percent=25 gpu.util_max=40 gpu.memory_percent=30 gpu.count=3",
		},
		{
			"a pod that runs and reports no GPU",
			[]*eventv1.Event{
				{Target: pod("x"), Fact: &eventv1.Event_GpuSampled{GpuSampled: &eventv1.GpuSampled{PollSlotMs: 1, Status: "RUNNING", UptimeSeconds: number(90)}}},
			},
			"poll.failing=false! pod.status=RUNNING! pod.uptime_s=90 pod.restarts=0 pod.gone=false! gpu.count=0",
		},
		{
			"a pod that does not run",
			[]*eventv1.Event{
				{Target: pod("x"), Fact: &eventv1.Event_GpuSampled{GpuSampled: &eventv1.GpuSampled{PollSlotMs: 1, Status: "EXITED"}}},
			},
			"poll.failing=false! pod.status=EXITED! pod.gone=false!",
		},
		{
			"an account",
			[]*eventv1.Event{
				{Target: account(), Fact: &eventv1.Event_AccountPolled{AccountPolled: &eventv1.AccountPolled{
					PollSlotMs: 1, Ok: 5, Failed: 2, FailedByReason: map[string]int64{"unauthorized": 2}, Targets: 7, TargetsFailing: 1, ClockSkew: durationpb.New(1500 * time.Millisecond),
				}}},
				{Target: account(), Fact: &eventv1.Event_InventoryShrunk{InventoryShrunk: &eventv1.InventoryShrunk{Known: 10, Vanished: 4}}},
			},
			"polls.ok=5 polls.failed=2 polls.unauthorized=2 polls.forbidden=0 polls.not_found=0 polls.rate_limited=0 polls.server_error=0 polls.timeout=0 " +
				"polls.network=0 polls.malformed=0 targets.known=7 targets.failing=1 inventory.known=10 inventory.vanished=4 inventory.shrunk=true! clock.skew_s=1.5",
		},
		{
			"what failed last",
			[]*eventv1.Event{
				sampled(endpoint("x"), 10, time.Second, nil, nil),
				{Target: endpoint("x"), Fact: &eventv1.Event_PollFailed{PollFailed: &eventv1.PollFailed{Kind: eventv1.PollKind_POLL_KIND_JOB, PollSlotMs: 11}}},
				{Target: endpoint("x"), Fact: &eventv1.Event_PollFailed{PollFailed: &eventv1.PollFailed{Kind: eventv1.PollKind_POLL_KIND_HEALTH, PollSlotMs: 9}}},
			},
			"poll.failing=false!",
		},
		{
			"that the last poll failed",
			[]*eventv1.Event{
				sampled(endpoint("x"), 10, time.Second, nil, nil),
				{Target: endpoint("x"), Fact: &eventv1.Event_PollFailed{PollFailed: &eventv1.PollFailed{Kind: eventv1.PollKind_POLL_KIND_HEALTH, PollSlotMs: 11}}},
			},
			"poll.failing=true!",
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := newStory(t, compile(t, queueRule, rulefile.TargetPattern{Match: "x", Labels: map[string]string{"team": "vision"}}))
			for _, e := range c.events {
				s.send(time.Second, e)
			}
			for token, status := range s.p.Targets() {
				if got := valuesOf(status); got != c.want {
					t.Errorf("values\n%s\nwant\n%s", got, c.want)
				}
				stored, err := DecodeTarget(s.p.Delta().Targets[token])
				if err != nil {
					t.Fatal(err)
				}
				if diff := cmp.Diff(status, stored, protocmp.Transform()); diff != "" {
					t.Errorf("what is stored shows something else: %s", diff)
				}
			}
		})
	}
}

func TestStoredAlertsAreThoseOfTheState(t *testing.T) {
	s := newStory(t, compile(t, "groups: [{name: g, rules: [{alert: Queue, on: endpoint, expr: jobs.in_queue > 1}]}]"))
	s.queue(time.Second, "x", 9)
	d := s.p.Delta()
	n := 0
	for a := range s.p.Alerts() {
		n++
		stored, err := DecodeAlert(d.Active[a.GetId()])
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(a, stored, protocmp.Transform()); diff != "" {
			t.Error(diff)
		}
		for _, status := range s.p.Targets() {
			if diff := cmp.Diff([]string{a.GetId()}, status.GetAlertIds()); diff != "" {
				t.Error(diff)
			}
		}
	}
	if n != 1 {
		t.Errorf("%d alerts, want one", n)
	}
	for _, bad := range []func([]byte) error{
		func(b []byte) error { _, err := DecodeAlert(b); return err },
		func(b []byte) error { _, err := DecodeTarget(b); return err },
	} {
		if bad([]byte("\xff")) == nil {
			t.Error("bytes that are something else were read")
		}
	}
	if !IsTarget("a-endpoint-x") || IsTarget("a-endpoint-x/jobs") || IsTarget("a-endpoint-x/gone") {
		t.Error("IsTarget mistakes a key")
	}
}

func TestBoundsAreToldWhenTheyAreMet(t *testing.T) {
	program := compile(t, `
groups:
  - name: g
    rules:
      - {alert: Queue, on: endpoint, expr: "min(jobs.in_queue, '6h') > 1 || jobs.in_queue > 5",
         annotations: {summary: '{{ if eq .Name "bad" }}{{ slice .Name 9 }}{{ end }}fine'}}
`)
	t.Run("alerts of a rule", func(t *testing.T) {
		s := newStory(t, program)
		s.p.perRule[program.set.Groups[0].Rules[0].Key()] = maxAlerts
		if r := s.queue(time.Second, "x", 9); len(r.Problems) != 1 || r.Problems[0].Kind != TooManyAlerts || len(r.Changes) > 0 {
			t.Errorf("problems %v, changes %v", r.Problems, r.Changes)
		}
	})
	t.Run("points of a window", func(t *testing.T) {
		s := newStory(t, program)
		kinds := map[ProblemKind]int{}
		for i := range int64(1100) {
			for _, p := range s.queue(time.Second, "x", i%2).Problems {
				kinds[p.Kind]++
			}
		}
		if kinds[TooManyPoints] != 1100-1024 {
			t.Errorf("problems %v", kinds)
		}
	})
	t.Run("a text that cannot be rendered", func(t *testing.T) {
		s := newStory(t, program)
		r := s.queue(time.Second, "bad", 9)
		s.want(r, "firing Queue")
		if len(r.Problems) != 1 || r.Problems[0].Kind != TemplateFailed || !strings.Contains(r.Transitions[0].GetAlert().GetAnnotations()["summary"], "failed") {
			t.Errorf("problems %v, annotations %v", r.Problems, r.Transitions[0].GetAlert().GetAnnotations())
		}
	})
	t.Run("jobs of an endpoint", func(t *testing.T) {
		s := newStory(t, program)
		for i := range maxJobs {
			s.job(0, "x", &eventv1.JobTransitioned{JobId: fmt.Sprint(i), State: inQueue})
		}
		if r := s.job(0, "x", &eventv1.JobTransitioned{JobId: "more", State: inQueue}); len(r.Problems) != 1 || r.Problems[0].Kind != TooManyJobs {
			t.Errorf("problems %v", r.Problems)
		}
	})
}
