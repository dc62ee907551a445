package pack

import (
	"fmt"
	"hash/fnv"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/tocsin-dev/tocsin/internal/secret"
	alertv1 "github.com/tocsin-dev/tocsin/proto/gen/tocsin/alert/v1"
	eventv1 "github.com/tocsin-dev/tocsin/proto/gen/tocsin/event/v1"
	"github.com/tocsin-dev/tocsin/services/alerter/ruletest"
	"github.com/tocsin-dev/tocsin/services/collector/runpod"
	"github.com/tocsin-dev/tocsin/services/collector/runpod/sim"
)

const (
	// inventoryInterval and maxBackoff are the collector's defaults.
	inventoryInterval = time.Minute
	maxBackoff        = 5 * time.Minute
	// second is how finely the watch lets time pass: targets are polled at
	// different seconds of their interval.
	second = time.Second
)

// watch polls a simulated account as the collector does by default, and hands
// what it reads to harnesses whose clocks run with it.
type watch struct {
	t         *testing.T
	sim       *sim.Sim
	api       *runpod.Client
	harnesses []*ruletest.Harness

	known map[string]*polled
	order []*polled
	// round is the account's polls since its last heartbeat.
	round  eventv1.AccountPolled
	elapse time.Duration
	// podsFail says that the last list of pods failed.
	podsFail bool
	// failed counts polls that failed.
	failed int
}

// polled is a target and how its polls go.
type polled struct {
	target   *eventv1.Target
	endpoint runpod.Endpoint
	spec     *eventv1.TargetSpec
	phase    time.Duration
	failures int
	next     time.Duration
}

// newWatch begins to watch an account.
func newWatch(t *testing.T, scenario sim.Scenario, harnesses ...*ruletest.Harness) *watch {
	t.Helper()
	frozen := time.Date(2026, 11, 23, 21, 0, 0, 0, time.UTC)
	account, err := sim.New(sim.Options{Scenario: scenario, Unlimited: true, Start: frozen, Now: func() time.Time { return frozen }})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(account.Close)
	handler := account.Handler()
	api, err := runpod.New(runpod.Options{
		APIKey: secret.String(sim.DefaultKey), RESTURL: "http://runpod.test/v2", ServerlessURL: "http://runpod.test/runtime/v2",
		Transport: roundTrip(func(r *http.Request) (*http.Response, error) {
			w := httptest.NewRecorder()
			handler.ServeHTTP(w, r)
			return w.Result(), nil
		}),
	})
	if err != nil {
		t.Fatal(err)
	}
	return &watch{t: t, sim: account, api: api, harnesses: harnesses, known: map[string]*polled{}}
}

type roundTrip func(*http.Request) (*http.Response, error)

// RoundTrip answers in this goroutine: there is no network.
func (f roundTrip) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// pass lets time pass, and everything that is due be polled.
func (w *watch) pass(d time.Duration) {
	w.t.Helper()
	for end := w.elapse + d; w.elapse < end; w.elapse += second {
		if w.elapse%inventoryInterval == 0 {
			w.listEndpoints()
		}
		if w.elapse%ruletest.PodInterval == 0 {
			w.listPods()
		}
		for _, p := range w.order {
			if p.endpoint.Type == runpod.Queue && (w.elapse == p.next || p.next == 0 && w.elapse%ruletest.HealthInterval == p.phase) {
				w.pollHealth(p)
			}
		}
		if w.elapse%ruletest.AccountInterval == 0 {
			w.sumUp()
		}
		w.sim.Advance(second)
		for _, h := range w.harnesses {
			h.Advance(second)
		}
	}
}

// sleep stops everything for d: RunPod goes on, nothing is published, and then a
// collector starts and finds what it finds.
func (w *watch) sleep(d time.Duration) {
	w.t.Helper()
	w.sim.Advance(d)
	w.elapse += d
	for _, h := range w.harnesses {
		h.Sleep(d)
		h.Send(collectorStarted())
	}
}

// send tells all harnesses of a fact.
func (w *watch) send(target *eventv1.Target, fill func(*eventv1.Event)) {
	w.t.Helper()
	e := &eventv1.Event{Target: target, Source: eventv1.Source_SOURCE_POLL}
	fill(e)
	for i, h := range w.harnesses {
		if i > 0 {
			e = proto.CloneOf(e)
		}
		h.Send(e)
	}
}

// slot is the instant of a poll, which no earlier poll of the target had.
func (w *watch) slot() int64 { return w.harnesses[0].Now().UnixMilli() }

// settle counts a poll and says whether it worked.
func (w *watch) settle(target *eventv1.Target, kind eventv1.PollKind, err error) bool {
	if err == nil {
		w.round.Ok++
		return true
	}
	reason, name := reasonOf(err)
	w.round.Failed++
	w.failed++
	if w.round.FailedByReason == nil {
		w.round.FailedByReason = map[string]int64{}
	}
	w.round.FailedByReason[name]++
	w.send(target, func(e *eventv1.Event) {
		e.Fact = &eventv1.Event_PollFailed{PollFailed: &eventv1.PollFailed{Kind: kind, Reason: reason, PollSlotMs: w.slot()}}
	})
	return false
}

// reasonOf reads why a call failed.
func reasonOf(err error) (eventv1.PollFailureReason, string) {
	switch runpod.KindOf(err) {
	case runpod.Unauthorized:
		return eventv1.PollFailureReason_POLL_FAILURE_REASON_UNAUTHORIZED, "unauthorized"
	case runpod.Forbidden:
		return eventv1.PollFailureReason_POLL_FAILURE_REASON_FORBIDDEN, "forbidden"
	case runpod.Server:
		return eventv1.PollFailureReason_POLL_FAILURE_REASON_SERVER_ERROR, "server_error"
	default:
		return eventv1.PollFailureReason_POLL_FAILURE_REASON_UNEXPECTED_STATUS, "unexpected_status"
	}
}

func (w *watch) listEndpoints() {
	w.t.Helper()
	list, err := w.api.Endpoints(w.t.Context())
	if !w.settle(ruletest.TheAccount(), eventv1.PollKind_POLL_KIND_ENDPOINTS, err) {
		return
	}
	for _, e := range list.Items {
		spec := &eventv1.EndpointSpec{
			Type: eventv1.EndpointType_ENDPOINT_TYPE_QUEUE, WorkersMin: e.MinWorkers, WorkersMax: e.MaxWorkers,
		}
		if e.Type == runpod.LoadBalancer {
			spec.Type = eventv1.EndpointType_ENDPOINT_TYPE_LOAD_BALANCER
		}
		if e.ExecutionTimeout != nil {
			spec.ExecutionTimeout = durationpb.New(*e.ExecutionTimeout)
		}
		target := ruletest.Endpoint(e.ID)
		target.Name = e.Name
		w.see(target, e, &eventv1.TargetSpec{Kind: &eventv1.TargetSpec_Endpoint{Endpoint: spec}})
	}
}

// see tells of a target that is new or has new settings.
func (w *watch) see(target *eventv1.Target, e runpod.Endpoint, spec *eventv1.TargetSpec) {
	w.t.Helper()
	p := w.known[target.GetId()]
	if p == nil {
		h := fnv.New32a()
		_, _ = h.Write([]byte(target.GetId())) // never fails
		p = &polled{target: target, phase: time.Duration(h.Sum32()%uint32(ruletest.HealthInterval/second)) * second}
		w.known[target.GetId()] = p
		w.order = append(w.order, p)
		w.send(target, func(ev *eventv1.Event) {
			ev.Fact = &eventv1.Event_TargetDiscovered{TargetDiscovered: &eventv1.TargetDiscovered{Spec: spec}}
		})
	} else if !proto.Equal(p.spec, spec) {
		w.send(target, func(ev *eventv1.Event) {
			ev.Fact = &eventv1.Event_TargetChanged{TargetChanged: &eventv1.TargetChanged{Spec: spec}}
		})
	}
	p.endpoint, p.spec = e, spec
}

func (w *watch) listPods() {
	w.t.Helper()
	list, err := w.api.Pods(w.t.Context())
	w.podsFail = !w.settle(ruletest.TheAccount(), eventv1.PollKind_POLL_KIND_PODS, err)
	if w.podsFail {
		return
	}
	for _, pod := range list.Items {
		target := ruletest.Pod(pod.ID)
		target.Name = pod.Name
		spec := &eventv1.PodSpec{}
		if pod.GPU != nil && pod.GPU.Count != nil {
			spec.GpuType, spec.GpuCount = pod.GPU.ID, *pod.GPU.Count
		}
		w.see(target, runpod.Endpoint{}, &eventv1.TargetSpec{Kind: &eventv1.TargetSpec_Pod{Pod: spec}})
		w.send(target, func(e *eventv1.Event) { e.Fact = &eventv1.Event_GpuSampled{GpuSampled: w.podSample(pod)} })
	}
}

func (w *watch) podSample(pod runpod.Pod) *eventv1.GpuSampled {
	s := &eventv1.GpuSampled{
		PollSlotMs: w.slot(), Interval: durationpb.New(ruletest.PodInterval), Status: string(pod.Status), CostPerHour: pod.CostPerHour,
	}
	if r := pod.Runtime; r != nil {
		if r.Uptime != nil {
			uptime := int64(*r.Uptime / time.Second)
			s.UptimeSeconds = &uptime
		}
		s.CpuPercent, s.MemoryPercent = r.CPUPercent, r.MemoryPercent
		for i, g := range r.GPUs {
			s.Gpus = append(s.Gpus, &eventv1.Gpu{Index: int32(i), UtilPercent: g.UtilPercent, MemoryPercent: g.MemoryPercent})
		}
	}
	return s
}

func (w *watch) pollHealth(p *polled) {
	w.t.Helper()
	h, err := w.api.Health(w.t.Context(), p.endpoint)
	if !w.settle(p.target, eventv1.PollKind_POLL_KIND_HEALTH, err) {
		p.failures++
		p.next = w.elapse + w.pause(p.failures, runpod.KindOf(err))
		return
	}
	if p.failures > 0 {
		// RunPod is back: nobody waits out a pause.
		for _, other := range w.order {
			other.next = 0
		}
	}
	p.failures, p.next = 0, 0
	w.send(p.target, func(e *eventv1.Event) {
		e.Fact = &eventv1.Event_HealthSampled{HealthSampled: &eventv1.HealthSampled{
			PollSlotMs: w.slot(), Interval: durationpb.New(ruletest.HealthInterval),
			Jobs: &eventv1.JobCounts{
				Completed: h.Jobs.Completed, Failed: h.Jobs.Failed, Retried: h.Jobs.Retried,
				InProgress: h.Jobs.InProgress, InQueue: h.Jobs.InQueue,
			},
			Workers: &eventv1.WorkerCounts{
				Idle: h.Workers.Idle, Ready: h.Workers.Ready, Running: h.Workers.Running,
				Initializing: h.Workers.Initializing, Throttled: h.Workers.Throttled, Unhealthy: h.Workers.Unhealthy,
			},
		}}
	})
}

// pause is how long a target that fails is left alone: ever longer, unless the
// key is refused.
func (w *watch) pause(failures int, kind runpod.Kind) time.Duration {
	if kind == runpod.Unauthorized || kind == runpod.Forbidden {
		return ruletest.HealthInterval
	}
	return min(ruletest.HealthInterval<<min(failures-1, 10), maxBackoff)
}

// sumUp sends the account's heartbeat.
func (w *watch) sumUp() {
	w.t.Helper()
	w.round.Interval, w.round.PollSlotMs = durationpb.New(ruletest.AccountInterval), w.slot()
	for _, p := range w.order {
		pod := p.target.GetKind() == eventv1.TargetKind_TARGET_KIND_POD
		if pod || p.endpoint.Type == runpod.Queue {
			w.round.Targets++
		}
		if pod && w.podsFail || p.failures > 0 {
			w.round.TargetsFailing++
		}
	}
	round := proto.CloneOf(&w.round)
	w.send(ruletest.TheAccount(), func(e *eventv1.Event) { e.Fact = &eventv1.Event_AccountPolled{AccountPolled: round} })
	w.round.Reset()
}

// line is one thing that people are told, in one line.
type line struct {
	at                    time.Duration
	what, rule, on, level string
	text                  string
	// diagnosis is the cause that the alert names.
	diagnosis string
}

// String writes the line as the logs of these tests show it.
func (l line) String() string {
	return fmt.Sprintf("%9s %-8s %-8s %-18s %s", l.at.Round(time.Second), l.what, l.level, l.rule, l.text)
}

// lines lists what a harness told, by time since the watch began.
func (w *watch) lines(h *ruletest.Harness) []line {
	began := h.Now().Add(-w.elapse)
	var all []line
	for _, tr := range h.Transitions() {
		a := tr.GetAlert()
		what := map[string]string{
			"TRANSITION_KIND_FIRING": "firing", "TRANSITION_KIND_RESOLVED": "resolved", "TRANSITION_KIND_RENEWED": "renewed",
		}[tr.GetKind().String()]
		all = append(all, line{
			at: tr.GetAt().AsTime().Sub(began), what: what, rule: a.GetRule(), on: a.GetTarget().GetId(),
			level: a.GetLabels()["severity"], text: summary(a), diagnosis: cause(a.GetEvidence().GetDiagnosis()),
		})
	}
	return all
}

// cause writes the cause of a diagnosis in short.
func cause(d *alertv1.Diagnosis) string {
	return strings.ToLower(strings.TrimPrefix(d.GetCause().String(), "DIAGNOSIS_CAUSE_"))
}

// diagnosed fails the test unless each alert of a rule that fires names a cause.
func diagnosed(t *testing.T, lines []line, rule, on, want string) {
	t.Helper()
	seen := false
	for _, l := range lines {
		if l.rule != rule || l.on != on || l.what != "firing" {
			continue
		}
		if seen = true; l.diagnosis != want {
			t.Errorf("%s on %s is diagnosed as %s, want %s", rule, on, l.diagnosis, want)
		}
	}
	if !seen {
		t.Errorf("%s is not told of %s", rule, on)
	}
}
