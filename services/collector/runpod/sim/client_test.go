package sim_test

import (
	"net/http/httptest"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/tocsin-dev/tocsin/services/collector/runpod"
	"github.com/tocsin-dev/tocsin/services/collector/runpod/sim"
)

type key string

func (k key) Reveal() string { return string(k) }

// client returns the real client against a simulated account.
func client(t testing.TB, srv *httptest.Server, secret string) *runpod.Client {
	t.Helper()
	c, err := runpod.New(runpod.Options{
		APIKey: key(secret), RESTURL: srv.URL + "/v2", ServerlessURL: srv.URL + "/runtime/v2", Timeout: 20 * time.Second,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.CloseIdle)
	return c
}

func TestTheClientReadsTheAccount(t *testing.T) {
	t.Parallel()
	s, srv := account(t, everything(), nil)
	c := client(t, srv, sim.DefaultKey)
	endpoints, err := c.Endpoints(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if len(endpoints.Items) != 6 {
		t.Errorf("%d endpoints, want 6", len(endpoints.Items))
	}
	for _, e := range endpoints.Items {
		one, err := c.Endpoint(t.Context(), e.ID)
		if diff := cmp.Diff(e, one); err != nil || diff != "" {
			t.Errorf("%s alone: %v (-list +alone):\n%s", e.ID, err, diff)
		}
		want, queue := s.Counts(e.ID)
		if queue != (e.Type == runpod.Queue) {
			t.Errorf("%s: type %s", e.ID, e.Type)
		}
		h, err := c.Health(t.Context(), e)
		if !queue {
			if runpod.KindOf(err) != runpod.NotFound {
				t.Errorf("health of a load balancer: %v", err)
			}
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		if _, listed := c.HealthURL(e); !listed {
			t.Errorf("%s: its health URL %s is not used", e.ID, e.HealthURL)
		}
		got := sim.Counts{
			InQueue: int(*h.Jobs.InQueue), InProgress: int(*h.Jobs.InProgress), Completed: int(*h.Jobs.Completed), Failed: int(*h.Jobs.Failed),
			Retried: int(*h.Jobs.Retried), Arrived: want.Arrived, Idle: int(*h.Workers.Idle), Running: int(*h.Workers.Running),
			Initializing: int(*h.Workers.Initializing), Throttled: int(*h.Workers.Throttled), Unhealthy: int(*h.Workers.Unhealthy),
			MaxWorkers: int(*e.MaxWorkers),
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s (-true +seen):\n%s", e.ID, diff)
		}
		if *h.Workers.Ready != *h.Workers.Idle {
			t.Errorf("%s: idle and ready differ", e.ID)
		}
	}
}

func TestPodsShowWhatTheScriptDoesToThem(t *testing.T) {
	t.Parallel()
	s, srv := account(t, sim.Scenario{
		Pods: []sim.PodSpec{{ID: "p", Name: "p", GPU: "NVIDIA H100 PCIe", GPUs: 2, CostPerHour: 2.49, Util: 90, Age: time.Hour}},
		Events: []sim.Event{
			{At: 10 * time.Minute, Target: "p", Effect: sim.IdleGPU(10 * time.Minute)},
			{At: 30 * time.Minute, Target: "p", Effect: sim.PodExit(10 * time.Minute)},
			{At: 50 * time.Minute, Target: "p", Effect: sim.GPUMissing(10 * time.Minute)},
		},
		Repeat: 2 * time.Hour,
	}, nil)
	c := client(t, srv, sim.DefaultKey)
	at := func(minute int) runpod.Pod {
		t.Helper()
		s.Advance(time.Duration(minute)*time.Minute - s.Elapsed())
		p, err := c.Pod(t.Context(), "p")
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	if p := at(5); p.Status != runpod.PodRunning || *p.CostPerHour != 2.49 || *p.Runtime.Uptime != 65*time.Minute ||
		len(p.Runtime.GPUs) != 2 || *p.Runtime.GPUs[0].UtilPercent < 75 {
		t.Errorf("at work: %+v %+v", p, p.Runtime)
	}
	if p := at(15); *p.Runtime.GPUs[1].UtilPercent > 1 || *p.Runtime.CPUPercent > 5 || *p.CostPerHour != 2.49 {
		t.Errorf("idle: %+v", p.Runtime)
	}
	if p := at(25); *p.Runtime.GPUs[0].UtilPercent < 75 {
		t.Errorf("at work again: %+v", p.Runtime)
	}
	if p := at(35); p.Status != runpod.PodExited || p.Runtime != nil || *p.CostPerHour != 0 {
		t.Errorf("stopped: %+v", p)
	}
	if p := at(45); p.Status != runpod.PodRunning || *p.Runtime.Uptime != 5*time.Minute {
		t.Errorf("started anew: %+v %+v", p, p.Runtime)
	}
	if p := at(55); p.Runtime.GPUs != nil || p.Runtime.CPUPercent == nil {
		t.Errorf("without GPUs: %+v", p.Runtime)
	}
	if p := at(120 + 45); *p.Runtime.Uptime != 5*time.Minute {
		t.Errorf("in the second round: %+v", p.Runtime)
	}
}

func TestTheAccountFailsAsTheScriptSays(t *testing.T) {
	t.Parallel()
	const m = time.Minute
	scenario := everything()
	scenario.Events = append(
		scenario.Events,
		sim.Event{At: 10 * m, Effect: sim.APIOutage(503, m)},
		sim.Event{At: 20 * m, Effect: sim.RevokeKey(m)},
		sim.Event{At: 30 * m, Effect: sim.DropScope(sim.ScopeServerless, m)},
		sim.Event{At: 40 * m, Target: "queue", Effect: sim.RemoveEndpoint(m)},
	)
	s, srv := account(t, scenario, nil)
	c := client(t, srv, sim.DefaultKey)
	for _, step := range []struct {
		name                string
		minute              time.Duration
		pods, list, runtime runpod.Kind
	}{
		{"well", 5, "", "", ""},
		{"down", 10, runpod.Server, runpod.Server, runpod.Server},
		{"up again", 11, "", "", ""},
		{"with a revoked key", 20, runpod.Unauthorized, runpod.Unauthorized, runpod.Unauthorized},
		{"without a scope", 30, "", runpod.Forbidden, runpod.Forbidden},
		{"without an endpoint", 40, "", "", runpod.NotFound},
		{"with the endpoint back", 41, "", "", ""},
	} {
		s.Advance(step.minute*m - s.Elapsed())
		_, pods := c.Pods(t.Context())
		_, list := c.Endpoints(t.Context())
		_, runtime := c.Health(t.Context(), runpod.Endpoint{ID: "queue"})
		got := []runpod.Kind{runpod.KindOf(pods), runpod.KindOf(list), runpod.KindOf(runtime)}
		if diff := cmp.Diff([]runpod.Kind{step.pods, step.list, step.runtime}, got); diff != "" {
			t.Errorf("%s: kinds of pods, list and runtime (-want +got):\n%s", step.name, diff)
		}
	}
}

func TestASilentOutageIsATimeout(t *testing.T) {
	t.Parallel()
	_, srv := account(t, sim.Scenario{Events: []sim.Event{{Effect: sim.APIOutage(0, 0)}}}, nil)
	c, err := runpod.New(runpod.Options{
		APIKey: key(sim.DefaultKey), RESTURL: srv.URL + "/v2", ServerlessURL: srv.URL + "/runtime/v2", Timeout: 50 * time.Millisecond,
	})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Pods(t.Context()); runpod.KindOf(err) != runpod.Timeout {
		t.Errorf("error %v, want a timeout", err)
	}
}

func TestAnInventoryLossHidesAFractionFromTheListsAlone(t *testing.T) {
	t.Parallel()
	scenario := sim.Fleet(200)
	scenario.Events = []sim.Event{{At: 10 * time.Minute, Effect: sim.InventoryLoss(0.5, time.Minute)}}
	s, srv := account(t, scenario, nil)
	c := client(t, srv, sim.DefaultKey)
	count := func() int {
		t.Helper()
		list, err := c.Endpoints(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return len(list.Items)
	}
	if n := count(); n != 200 {
		t.Errorf("%d endpoints before, want 200", n)
	}
	s.Advance(9 * time.Minute)
	n := count()
	if n < 70 || n > 130 || n != count() {
		t.Errorf("%d endpoints are left and then %d, want about half and always the same", n, count())
	}
	for _, e := range scenario.Endpoints[:20] {
		if _, err := c.Endpoint(t.Context(), e.ID); err != nil {
			t.Errorf("a hidden endpoint does not answer: %v", err)
		}
	}
	s.Advance(time.Minute)
	if n := count(); n != 200 {
		t.Errorf("%d endpoints afterwards, want 200", n)
	}
}

func TestTheQuotaIsCountedAndEnforced(t *testing.T) {
	t.Parallel()
	now := time.Unix(1_800_000_000, 0)
	_, srv := account(t, everything(), func(o *sim.Options) {
		o.Now = func() time.Time { return now }
		o.Quota = []sim.Quota{{Name: "minute", Calls: 3, Window: time.Minute}}
	})
	for left := 2; left >= 0; left-- {
		status, h, _ := get(t, srv, "/v2/pods", sim.DefaultKey)
		want := map[int]string{2: `"minute";r=2;t=60`, 1: `"minute";r=1;t=60`, 0: `"minute";r=0;t=60`}[left]
		if status != 200 || h.Get("RateLimit") != want || h.Get("RateLimit-Policy") != `"minute";q=3;w=60` {
			t.Errorf("status %d, header %v, want %s", status, h, want)
		}
	}
	now = now.Add(48 * time.Second)
	if status, h, _ := get(t, srv, "/v2/serverless", "rpa_nopods"); status != 429 || h.Get("Retry-After") != "12" {
		t.Errorf("status %d, Retry-After %q; want 429 and 12: all keys share the quota", status, h.Get("Retry-After"))
	}
	if status, h, _ := get(t, srv, "/runtime/v2/queue/health", sim.DefaultKey); status != 200 || h.Get("RateLimit") != "" {
		t.Errorf("the runtime API: status %d, header %v; want no quota there", status, h)
	}
	now = now.Add(12 * time.Second)
	if status, _, _ := get(t, srv, "/v2/pods", sim.DefaultKey); status != 200 {
		t.Errorf("status %d in the next window, want 200", status)
	}
}

func TestSpeedMultipliesTimeAndQuota(t *testing.T) {
	t.Parallel()
	now := time.Unix(1_800_000_000, 0)
	s, srv := account(t, everything(), func(o *sim.Options) {
		o.Now, o.Speed = func() time.Time { return now }, 60
	})
	now = now.Add(10 * time.Second)
	if got := s.Elapsed(); got != 11*time.Minute {
		t.Errorf("%v elapsed, want 10 s at 60 and the minute that was added", got)
	}
	if _, h, _ := get(t, srv, "/v2/pods", sim.DefaultKey); h.Get("RateLimit-Policy") != `"minute";q=10800;w=60, "hour";q=432000;w=3600, "day";q=3000000;w=86400` {
		t.Errorf("policy %q", h.Get("RateLimit-Policy"))
	}
	_, srv = account(t, everything(), func(o *sim.Options) { o.Unlimited = true })
	if _, h, _ := get(t, srv, "/v2/pods", sim.DefaultKey); h.Get("RateLimit") != "" {
		t.Errorf("an unlimited account has %v", h)
	}
}

func TestCallsAreCounted(t *testing.T) {
	t.Parallel()
	s, srv := account(t, everything(), nil)
	get(t, srv, "/v2/pods", sim.DefaultKey)
	get(t, srv, "/v2/pods", sim.DefaultKey)
	get(t, srv, "/v2/pods", "")
	get(t, srv, "/v2/serverless/other", sim.DefaultKey)
	want := map[string]int{"GET /v2/pods 200": 2, "GET /v2/pods 401": 1, "GET /v2/serverless/{id} 404": 1}
	if diff := cmp.Diff(want, s.Calls()); diff != "" {
		t.Errorf("calls (-want +got):\n%s", diff)
	}
}
