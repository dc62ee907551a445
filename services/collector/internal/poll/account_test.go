package poll_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/tocsin-dev/tocsin/internal/event"
	eventv1 "github.com/tocsin-dev/tocsin/proto/gen/tocsin/event/v1"
	"github.com/tocsin-dev/tocsin/services/collector/internal/inventory"
	"github.com/tocsin-dev/tocsin/services/collector/internal/poll"
	"github.com/tocsin-dev/tocsin/services/collector/runpod"
)

// api is a RunPod in memory.
type api struct {
	mu                 sync.Mutex
	endpoints          []runpod.Endpoint   // guarded by mu
	pods               []runpod.Pod        // guarded by mu
	unread, unreadPods []runpod.Unreadable // guarded by mu: entries of the two lists
	down               error               // guarded by mu: what every call returns
	listDown           error               // guarded by mu: what the lists return
	took               time.Duration       // guarded by mu: how long a call takes
	asked              map[string]int      // guarded by mu
}

func (a *api) set(change func(*api)) {
	a.mu.Lock()
	defer a.mu.Unlock()
	change(a)
}

// call counts a call and returns what it fails with.
func (a *api) call(ctx context.Context, name string, isList bool) error {
	a.mu.Lock()
	a.asked[name]++
	err, took := a.down, a.took
	if err == nil && isList {
		err = a.listDown
	}
	a.mu.Unlock()
	select {
	case <-time.After(took):
		return err
	case <-ctx.Done():
		return &runpod.Error{Kind: runpod.Canceled, Err: ctx.Err()}
	}
}

func (a *api) calls(name string) int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.asked[name]
}

func (a *api) Endpoints(ctx context.Context) (runpod.List[runpod.Endpoint], error) {
	err := a.call(ctx, "endpoints", true)
	a.mu.Lock()
	defer a.mu.Unlock()
	return runpod.List[runpod.Endpoint]{Items: a.endpoints, Unreadable: a.unread}, err
}

func (a *api) Pods(ctx context.Context) (runpod.List[runpod.Pod], error) {
	err := a.call(ctx, "pods", true)
	a.mu.Lock()
	defer a.mu.Unlock()
	return runpod.List[runpod.Pod]{Items: a.pods, Unreadable: a.unreadPods}, err
}

func (a *api) Endpoint(ctx context.Context, id string) (runpod.Endpoint, error) {
	if err := a.call(ctx, "endpoint "+id, false); err != nil {
		return runpod.Endpoint{}, err
	}
	return runpod.Endpoint{}, &runpod.Error{Op: "read endpoint", Kind: runpod.NotFound, Status: 404}
}

func (a *api) Pod(ctx context.Context, id string) (runpod.Pod, error) {
	return runpod.Pod{ID: id}, a.call(ctx, "pod "+id, false)
}

func (a *api) Health(ctx context.Context, e runpod.Endpoint) (runpod.Health, error) {
	if err := a.call(ctx, "health", false); err != nil {
		return runpod.Health{}, err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, known := range a.endpoints {
		if known.ID == e.ID {
			return runpod.Health{}, nil
		}
	}
	return runpod.Health{}, &runpod.Error{Op: "read health", Kind: runpod.NotFound, Status: 404}
}

// most is the number of targets beyond which none is watched.
const most = 60

// world is an account in a bubble.
type world struct {
	*api
	account  *poll.Account
	registry *prometheus.Registry

	mu     sync.Mutex
	events []*eventv1.Event // guarded by mu
}

// watch runs an account of n endpoints and one pod until the test ends.
func watch(t *testing.T, n int) *world {
	t.Helper()
	w := &world{registry: prometheus.NewRegistry(), api: &api{asked: map[string]int{}, pods: []runpod.Pod{{ID: "pod", Status: runpod.PodRunning}}}}
	for i := range n {
		w.endpoints = append(w.endpoints, runpod.Endpoint{ID: fmt.Sprintf("ep%d", i), Type: runpod.Queue})
	}
	w.account = poll.NewAccount(poll.Options{
		Account: "default", API: w.api, Clock: poll.NewClock(time.Now(), time.Time{}),
		Publish: func(e *eventv1.Event, _ time.Time) bool {
			w.mu.Lock()
			defer w.mu.Unlock()
			w.events = append(w.events, e)
			return true
		},
		Changed: func(inventory.Target) {}, Removed: func(inventory.Key) {},
		Health: 15 * time.Second, Pods: 30 * time.Second, Inventory: time.Minute, MaxBackoff: 5 * time.Minute,
		Workers: 8, Jitter: func() float64 { return 0.5 },
		Skew:    func() (time.Duration, bool) { return -3 * time.Second, true },
		Metrics: poll.NewMetrics(w.registry), Log: slog.New(slog.DiscardHandler),
	}, inventory.New("default", most))
	w.account.First(t.Context())
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() { w.account.Run(ctx); close(ended) }()
	t.Cleanup(func() { cancel(); <-ended })
	return w
}

// in returns the events of the next d.
func (w *world) in(d time.Duration) []*eventv1.Event {
	w.mu.Lock()
	from := len(w.events)
	w.mu.Unlock()
	time.Sleep(d)
	synctest.Wait()
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.events[from:len(w.events):len(w.events)]
}

// counted returns the sum of a counter's series.
func (w *world) counted(t *testing.T, name string) float64 {
	t.Helper()
	families, err := w.registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	sum := 0.0
	for _, f := range families {
		for _, m := range f.GetMetric() {
			if f.GetName() == name {
				sum += m.GetCounter().GetValue()
			}
		}
	}
	return sum
}

// count returns how many events there are of each kind.
func count(events []*eventv1.Event) map[string]int {
	n := map[string]int{}
	for _, e := range events {
		n[event.Kind(e)]++
	}
	return n
}

// last returns the last heartbeat.
func last(t *testing.T, events []*eventv1.Event) *eventv1.AccountPolled {
	t.Helper()
	for _, e := range slices.Backward(events) {
		if p := e.GetAccountPolled(); p != nil {
			return p
		}
	}
	t.Fatal("no heartbeat")
	return nil
}

var (
	errDown         = &runpod.Error{Op: "call", Kind: runpod.Server, Status: 502}
	errUnauthorized = &runpod.Error{Op: "call", Kind: runpod.Unauthorized, Status: 401}
)

func TestAQuietMinute(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := watch(t, 4)
		w.in(time.Minute)
		events := w.in(10 * time.Minute)
		want := map[string]int{"health_sampled": 4 * 40, "gpu_sampled": 20, "account_polled": 40}
		if diff := cmp.Diff(want, count(events)); diff != "" {
			t.Errorf("events of ten minutes (-want +got):\n%s", diff)
		}
		slots := map[string]int64{}
		for _, e := range events {
			if h := e.GetHealthSampled(); h != nil {
				if previous, ok := slots[e.GetTarget().GetId()]; ok && h.GetPollSlotMs()-previous != 15_000 {
					t.Errorf("slots are %d ms apart", h.GetPollSlotMs()-previous)
				}
				slots[e.GetTarget().GetId()] = h.GetPollSlotMs()
			}
		}
		if got := last(t, events); got.GetTargets() != 5 || got.GetOk() < 4 || got.GetFailed() != 0 ||
			got.GetClockSkew().AsDuration() != -3*time.Second {
			t.Errorf("heartbeat is %v", got)
		}
		if n := w.calls("endpoints"); n != 12 { // one at the start and one a minute
			t.Errorf("endpoints were listed %d times", n)
		}
	})
}

func TestAnOutageIsPolledRarelyAndItsEndIsSeenByAllAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := watch(t, 20)
		w.in(time.Minute)
		w.set(func(a *api) { a.down = errDown })
		w.in(2 * time.Minute)
		first := last(t, w.in(15*time.Second))
		if first.GetTargetsFailing() != 21 || first.GetOk() != 0 {
			t.Errorf("heartbeat after two minutes is %v, want all failing", first)
		}
		w.in(30 * time.Minute)
		before := w.calls("health")
		events := w.in(time.Hour)
		// Between 3.75 (5 minutes less the jitter) and 5 minutes: 12 to 16 polls each.
		if polls := w.calls("health") - before; polls < 20*12 || polls > 20*17 {
			t.Errorf("%d polls of 20 endpoints in an hour of outage", polls)
		}
		got := count(events)
		if got["account_polled"] != 240 || got["health_sampled"]+got["gpu_sampled"] != 0 || got["poll_failed"] < 240 {
			t.Errorf("events of an hour of outage: %v", got)
		}
		w.set(func(a *api) { a.down = nil })
		recovery := w.in(5*time.Minute + 15*time.Second) // at most one pause until the first success
		if got := last(t, recovery); got.GetTargetsFailing() != 0 || got.GetFailed() != 0 {
			t.Errorf("heartbeat after the outage is %v", got)
		}
		seen, began := map[string]bool{}, int64(0)
		for _, e := range recovery {
			if h := e.GetHealthSampled(); h != nil && !seen[e.GetTarget().GetId()] {
				seen[e.GetTarget().GetId()] = true
				if began == 0 {
					began = h.GetPollSlotMs()
				}
				if late := time.Duration(h.GetPollSlotMs()-began) * time.Millisecond; late > 15*time.Second {
					t.Errorf("%s came back %v after the first", e.GetTarget().GetId(), late)
				}
			}
		}
		if len(seen) != 20 {
			t.Errorf("%d of 20 endpoints came back", len(seen))
		}
	})
}

func TestARefusedKeyIsAskedAtTheUsualPace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := watch(t, 2)
		w.in(time.Minute)
		w.set(func(a *api) { a.down = errUnauthorized })
		w.in(time.Minute)
		events := w.in(5 * time.Minute)
		for _, e := range events {
			p := e.GetAccountPolled()
			if p != nil && (p.GetFailedByReason()["unauthorized"] < 2 || p.GetOk() != 0) {
				t.Errorf("heartbeat is %v, want refusals in each", p)
			}
			if f := e.GetPollFailed(); f != nil && (f.GetStatusCode() != 401 || f.GetReason() != eventv1.PollFailureReason_POLL_FAILURE_REASON_UNAUTHORIZED) {
				t.Errorf("failure is %v", f)
			}
		}
		if got := count(events)["poll_failed"]; got != 2*20+10+5 {
			t.Errorf("%d failures in five minutes, want one for each poll", got)
		}
	})
}

func TestWhatCountsAsFailing(t *testing.T) {
	gone := &runpod.Error{Kind: runpod.NotFound, Status: 404}
	for name, test := range map[string]struct {
		break_  func(*api)
		failing int64
	}{
		"nothing is broken":                       {func(*api) {}, 0},
		"every call fails":                        {func(a *api) { a.down = errDown }, 4},
		"the lists fail: pods have no other poll": {func(a *api) { a.listDown = errDown }, 1},
		"RunPod does not know the endpoints":      {func(a *api) { a.down = gone }, 1}, // the pods' list is not found either
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := watch(t, 3)
				w.in(time.Minute)
				w.set(test.break_)
				w.in(45 * time.Second)
				if got := last(t, w.in(time.Minute)); got.GetTargets() != 4 || got.GetTargetsFailing() != test.failing {
					t.Errorf("%d of %d targets failing, want %d of 4", got.GetTargetsFailing(), got.GetTargets(), test.failing)
				}
			})
		})
	}
}

func TestTheHeartBeatsWhileEveryCallHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := watch(t, 50)
		w.in(time.Minute)
		w.set(func(a *api) { a.took = 24 * time.Hour })
		if got := count(w.in(10 * time.Minute))["account_polled"]; got != 40 {
			t.Errorf("%d heartbeats in ten minutes, want 40", got)
		}
	})
}

func TestAnEndpointThatIsGoneIsPolledNoMore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := watch(t, 10)
		w.in(time.Minute)
		w.set(func(a *api) { a.endpoints = a.endpoints[1:] })
		events := w.in(5 * time.Minute)
		if got := count(events)["target_removed"]; got != 1 || w.calls("endpoint ep0") != 1 {
			t.Fatalf("%d removals after %d questions", got, w.calls("endpoint ep0"))
		}
		for _, e := range w.in(5 * time.Minute) {
			if e.GetTarget().GetId() == "ep0" {
				t.Errorf("after its removal: %v", e)
			}
		}
		if got := last(t, w.in(time.Minute)); got.GetTargets() != 10 {
			t.Errorf("%d targets, want 10", got.GetTargets())
		}
	})
}

func TestALossThatIsDoubtedKeepsAllTargets(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := watch(t, 10)
		w.in(time.Minute)
		w.set(func(a *api) { a.endpoints = nil })
		got := count(w.in(time.Hour))
		if got["inventory_shrunk"] != 1 || got["target_removed"] != 0 {
			t.Errorf("events of the loss: %v", got)
		}
		if n := len(w.account.Targets()); n != 11 {
			t.Errorf("%d targets are left of 11", n)
		}
	})
}

func TestTargetsBeyondTheBoundAreToldAndNotWatched(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := watch(t, most+5)
		events := w.in(2 * time.Minute)
		detail := "list endpoints: too large (200): 6 of 65 are not watched: 60 targets are, which is collector.max_targets; raise it and start the collector anew"
		if w.account.Targets()[most-1].Kind != eventv1.TargetKind_TARGET_KIND_POD { // the pod was listed first
			detail = strings.Replace(detail, "6 of 65", "5 of 65", 1)
		}
		sampled, told := map[string]bool{}, 0
		for _, e := range events {
			if e.GetHealthSampled() != nil || e.GetGpuSampled() != nil {
				sampled[e.GetTarget().GetId()] = true
			}
			if f := e.GetPollFailed(); f.GetKind() == eventv1.PollKind_POLL_KIND_ENDPOINTS {
				told++
				if f.GetReason() != eventv1.PollFailureReason_POLL_FAILURE_REASON_TOO_LARGE || f.GetDetail() != detail {
					t.Errorf("told %v, want %s", f, detail)
				}
			}
		}
		if len(sampled) != most || told != 2 || last(t, events).GetTargets() != most {
			t.Errorf("%d targets were sampled, told %d times, heartbeat %v; want %d and 2", len(sampled), told, last(t, events), most)
		}
		if n := w.counted(t, "tocsin_collector_targets_refused_total"); n < 18 { // six at each of three lists of endpoints, or five of these and the pod at each of five of pods
			t.Errorf("%v refusals were counted, want those of each list", n)
		}
	})
}

func TestAnEntryThatCannotBeReadIsToldAndItsTargetKept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := watch(t, 10)
		w.set(func(a *api) { a.pods = append(a.pods, runpod.Pod{ID: "odd", Status: runpod.PodRunning}) })
		w.in(time.Minute)
		w.set(func(a *api) {
			a.endpoints = slices.Clone(a.endpoints[:9])
			a.unread = []runpod.Unreadable{{ID: "ep9", Detail: "endpoints[9]: name is a JSON number"}, {ID: "never seen", Detail: "x"}}
			a.pods, a.unreadPods = a.pods[:1], []runpod.Unreadable{{ID: "odd", Detail: "pods[1]: status is missing"}}
		})
		events := w.in(10 * time.Minute)
		told := map[eventv1.PollKind]int{}
		for _, e := range events {
			if f := e.GetPollFailed(); f != nil && e.GetTarget().GetKind() == eventv1.TargetKind_TARGET_KIND_ACCOUNT {
				told[f.GetKind()]++
				want := map[eventv1.PollKind]string{
					eventv1.PollKind_POLL_KIND_ENDPOINTS: "list endpoints: malformed (200): 2 of 11 cannot be read and stay as they were known: endpoints[9]: name is a JSON number",
					eventv1.PollKind_POLL_KIND_PODS:      "list pods: malformed (200): 1 of 2 cannot be read and stay as they were known: pods[1]: status is missing",
				}[f.GetKind()]
				if f.GetReason() != eventv1.PollFailureReason_POLL_FAILURE_REASON_MALFORMED || f.GetDetail() != want {
					t.Errorf("told %v, want %s", f, want)
				}
			}
		}
		if told[eventv1.PollKind_POLL_KIND_ENDPOINTS] != 10 || told[eventv1.PollKind_POLL_KIND_PODS] != 20 {
			t.Errorf("told %v, want each list once", told)
		}
		got := count(events)
		if got["target_removed"]+got["inventory_shrunk"]+got["target_discovered"] != 0 || got["gpu_sampled"] != 20 {
			t.Errorf("events of ten minutes: %v, want the other pod's samples and no removal", got)
		}
		if p := last(t, events); p.GetTargets() != 12 || p.GetTargetsFailing() != 1 || p.GetFailed() != 0 {
			t.Errorf("heartbeat is %v, want 12 targets, the pod failing", p)
		}
	})
}

func TestFailureOf(t *testing.T) {
	for kind, want := range map[runpod.Kind]string{
		runpod.Unauthorized: "unauthorized", runpod.Forbidden: "forbidden", runpod.NotFound: "not_found",
		runpod.RateLimited: "rate_limited", runpod.Server: "server_error", runpod.Timeout: "timeout",
		runpod.Network: "network", runpod.Malformed: "malformed", runpod.TooLarge: "too_large",
		runpod.Unexpected: "unexpected_status", "a kind of a newer client": "unexpected_status",
	} {
		f, failed := poll.FailureOf(fmt.Errorf("poll: %w", &runpod.Error{Op: "read", Kind: kind, Status: 418, RetryAfter: time.Minute}))
		if !failed || f.Name != want || f.Status != 418 || f.RetryAfter != time.Minute || f.Reason == 0 {
			t.Errorf("%s is %+v, %v; want %s", kind, f, failed, want)
		}
	}
	for name, err := range map[string]error{"no error": nil, "the end of the process": &runpod.Error{Kind: runpod.Canceled}} {
		if f, failed := poll.FailureOf(err); failed {
			t.Errorf("%s is a failure: %+v", name, f)
		}
	}
	if f, failed := poll.FailureOf(errors.New("odd")); !failed || f.Name != "network" {
		t.Errorf("an error of another kind is %+v, %v", f, failed)
	}
}
