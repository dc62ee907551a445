package poll_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
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
	special            map[string]error    // guarded by mu: what a call of this name returns
	hidden             string              // guarded by mu: an endpoint that the list lacks although its health answers
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
	if err == nil {
		err = a.special[name]
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
	items := slices.DeleteFunc(slices.Clone(a.endpoints), func(e runpod.Endpoint) bool { return e.ID == a.hidden })
	return runpod.List[runpod.Endpoint]{Items: items, Unreadable: a.unread}, err
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
	if err := a.call(ctx, "health "+e.ID, false); err != nil {
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
	full   bool             // guarded by mu: there is no room for facts about the inventory
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
			if w.full && e.GetId() != "" {
				return false
			}
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

func TestAStormOfRefusalsIsNotAnsweredByOneOfCalls(t *testing.T) {
	for name, test := range map[string]struct {
		storm  *runpod.Error
		longer int // polls of 20 endpoints in the 10 minutes after one was answered
	}{
		"too many calls, which RunPod wishes to pause": {&runpod.Error{Kind: runpod.RateLimited, Status: 429, RetryAfter: 14 * time.Minute}, 60},
		"too many calls": {&runpod.Error{Kind: runpod.RateLimited, Status: 429}, 120},
		"an outage that RunPod knows the length of": {&runpod.Error{Kind: runpod.Server, Status: 503, RetryAfter: 14 * time.Minute}, 60},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := watch(t, 20)
				w.in(time.Minute)
				w.set(func(a *api) { a.down = test.storm })
				w.in(30 * time.Minute)
				w.set(func(a *api) { // one of them is heard again
					a.down, a.special = nil, map[string]error{}
					for i := range 19 {
						a.special[fmt.Sprintf("health ep%d", i)] = test.storm
					}
				})
				for w.calls("health ep19") < 90 && count(w.in(15 * time.Second))["health_sampled"] == 0 {
				}
				before := w.calls("health")
				w.in(10 * time.Minute)
				if n := w.calls("health") - before - 40; n > test.longer {
					t.Errorf("the other 19 were polled %d times in ten minutes, want at most %d", n, test.longer)
				}
			})
		})
	}
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
