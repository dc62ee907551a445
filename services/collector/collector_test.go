package collector_test

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/tocsin-dev/tocsin/internal/bus"
	"github.com/tocsin-dev/tocsin/internal/event"
	"github.com/tocsin-dev/tocsin/internal/secret"
	"github.com/tocsin-dev/tocsin/internal/servertest"
	eventv1 "github.com/tocsin-dev/tocsin/proto/gen/tocsin/event/v1"
	"github.com/tocsin-dev/tocsin/services/collector"
)

// limit bounds every wait of these tests. It is no expectation of speed: it only
// ends a test that hangs.
const limit = 2 * time.Minute

// running is a collector under test.
type running struct {
	collector.Addresses
	stop func() error // stops it and returns Run's error
}

// options returns those of a quick collector of the fake.
func options(f *fakeRunPod, n *servertest.NATSServer) collector.Options {
	o := collector.DefaultOptions()
	o.RunPod.APIKey = goodKey
	o.RunPod.RESTURL, o.RunPod.ServerlessURL = f.URL+"/rest", f.URL+"/run"
	o.NATS.URL = n.URL()
	o.Getenv = func(string) string { return "" }
	o.Registerer = prometheus.NewRegistry()
	c := &o.Collector
	c.IngestAddress, c.HTTPAddress, c.GRPCAddress = "127.0.0.1:0", "127.0.0.1:0", "127.0.0.1:0"
	c.HealthInterval, c.PodsInterval, c.InventoryInterval = 100*time.Millisecond, 100*time.Millisecond, 100*time.Millisecond
	c.JobFastInterval, c.JobInterval = 100*time.Millisecond, 100*time.Millisecond
	c.MaxBackoff = 200 * time.Millisecond
	return o
}

// start runs a collector until the test ends, and waits until it is ready.
func start(t *testing.T, o collector.Options) running {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	ready := make(chan collector.Addresses, 1)
	o.Ready = func(a collector.Addresses) { ready <- a }
	ended := make(chan error, 1)
	go func() { ended <- collector.Run(ctx, o) }()
	stop := sync.OnceValue(func() error {
		cancel()
		select {
		case err := <-ended:
			return err
		case <-time.After(limit):
			return fmt.Errorf("the collector did not stop in %v", limit)
		}
	})
	t.Cleanup(func() { _ = stop() })
	select {
	case a := <-ready:
		return running{Addresses: a, stop: stop}
	case err := <-ended:
		t.Fatalf("the collector ended before it was ready: %v", err)
	case <-time.After(limit):
		t.Fatalf("the collector was not ready in %v", limit)
	}
	panic("unreachable")
}

// eventLog follows the event log from its beginning.
type eventLog struct {
	mu     sync.Mutex
	raw    []string         // guarded by mu
	events []*eventv1.Event // guarded by mu
	grown  chan struct{}    // guarded by mu; closed at the next event
}

func follow(t *testing.T, conn *bus.Conn) *eventLog {
	t.Helper()
	if _, err := conn.EnsureStream(t.Context(), bus.Events(0)); err != nil {
		t.Fatal(err)
	}
	l := &eventLog{grown: make(chan struct{})}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = conn.Read(ctx, bus.ReadOptions{Stream: bus.EventsStream}, func(d bus.Delivery) error {
			e, err := event.Unmarshal(d.Data)
			if err != nil {
				t.Errorf("event %d cannot be read: %v", d.Seq, err)
			}
			l.add(string(d.Data), e)
			return nil
		})
	}()
	t.Cleanup(func() { cancel(); <-done })
	return l
}

func (l *eventLog) add(raw string, e *eventv1.Event) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.raw, l.events = append(l.raw, raw), append(l.events, e)
	close(l.grown)
	l.grown = make(chan struct{})
}

// all returns the events so far that match.
func (l *eventLog) all(match func(*eventv1.Event) bool) []*eventv1.Event {
	l.mu.Lock()
	defer l.mu.Unlock()
	var found []*eventv1.Event
	for _, e := range l.events {
		if match(e) {
			found = append(found, e)
		}
	}
	return found
}

// len returns how many events there are.
func (l *eventLog) len() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.events)
}

// wait returns the first event from the from-th on that matches.
func (l *eventLog) wait(t *testing.T, what string, from int, match func(*eventv1.Event) bool) *eventv1.Event {
	t.Helper()
	deadline := time.After(limit)
	for {
		l.mu.Lock()
		i := slices.IndexFunc(l.events[from:], match)
		grown := l.grown
		if i >= 0 {
			defer l.mu.Unlock()
			return l.events[from+i]
		}
		from = len(l.events)
		l.mu.Unlock()
		select {
		case <-grown:
		case <-deadline:
			t.Fatalf("no event in %v: %s", limit, what)
		}
	}
}

func transitions(job string) func(*eventv1.Event) bool {
	return func(e *eventv1.Event) bool { return e.GetJobTransitioned().GetJobId() == job }
}

func enters(job string, state eventv1.JobState) func(*eventv1.Event) bool {
	return func(e *eventv1.Event) bool {
		return transitions(job)(e) && e.GetJobTransitioned().GetState() == state
	}
}

func health(e *eventv1.Event) bool { return e.GetHealthSampled() != nil }

func beat(e *eventv1.Event) bool { return e.GetAccountPolled() != nil }

func failed(reason eventv1.PollFailureReason) func(*eventv1.Event) bool {
	return func(e *eventv1.Event) bool { return e.GetPollFailed().GetReason() == reason }
}

func TestAnAccountIsDiscoveredAndSampled(t *testing.T) {
	f, n := newFakeRunPod(t), servertest.NATS(t)
	f.set(func(f *fakeRunPod) {
		f.endpoints["lb1"] = endpointJSON("lb1", "lb-prod", "LOAD_BALANCER", 2)
		f.pods["pod1"] = podJSON("pod1", "train", `{"uptime":3600,"gpus":[{"util":0,"memoryUtil":7}],"cpu":{"util":12}}`)
		f.pods["pod2"] = podJSON("pod2", "fresh", "null")
	})
	log := follow(t, n.Conn(t))
	start(t, options(f, n))

	sample := log.wait(t, "health of ep1", 0, health)
	if got := sample.GetHealthSampled(); sample.GetTarget().GetName() != "img-prod" || got.GetJobs().GetInQueue() != 2 ||
		got.GetWorkers().GetReady() != 1 || got.GetPollSlotMs() == 0 || got.GetInterval().AsDuration() != 100*time.Millisecond {
		t.Errorf("sample of ep1 is %v", sample)
	}
	for id, check := range map[string]func(*eventv1.GpuSampled) bool{
		"pod1": func(g *eventv1.GpuSampled) bool {
			return len(g.GetGpus()) == 1 && g.GetGpus()[0].UtilPercent != nil && g.GetUptimeSeconds() == 3600 &&
				g.GetCostPerHour() == 2.49 && g.MemoryPercent == nil
		},
		"pod2": func(g *eventv1.GpuSampled) bool {
			return len(g.GetGpus()) == 0 && g.UptimeSeconds == nil && g.CpuPercent == nil && g.GetStatus() == "RUNNING"
		},
	} {
		e := log.wait(t, "sample of "+id, 0, func(e *eventv1.Event) bool {
			return e.GetGpuSampled() != nil && e.GetTarget().GetId() == id
		})
		if !check(e.GetGpuSampled()) {
			t.Errorf("sample of %s is %v", id, e)
		}
	}
	beaten := log.wait(t, "a heartbeat after a poll", 0, func(e *eventv1.Event) bool { return e.GetAccountPolled().GetOk() > 0 })
	if got := beaten.GetAccountPolled(); got.GetTargets() != 3 || got.GetFailed() != 0 || got.GetTargetsFailing() != 0 {
		t.Errorf("heartbeat is %v, want three targets, none failing", got)
	}
	discovered := log.all(func(e *eventv1.Event) bool { return e.GetTargetDiscovered() != nil })
	if len(discovered) != 4 {
		t.Errorf("%d discoveries, want 4", len(discovered))
	}
	starts := log.all(func(e *eventv1.Event) bool { return e.GetCollectorStarted() != nil })
	if len(starts) != event.Partitions {
		t.Errorf("%d partitions heard of the start, want %d", len(starts), event.Partitions)
	}
	if n := f.calls("/run/lb1/health"); n != 0 {
		t.Errorf("the load balancer was asked for its health %d times", n)
	}
}

func TestARestartDiscoversNothingAgain(t *testing.T) {
	f, n := newFakeRunPod(t), servertest.NATS(t)
	log := follow(t, n.Conn(t))
	c := start(t, options(f, n))
	log.wait(t, "health", 0, health)
	if err := c.stop(); err != nil {
		t.Fatalf("stopped with %v", err)
	}
	// The first collector is gone, so that only the log can tell the second one.
	before := log.len()
	f.set(func(f *fakeRunPod) { f.endpoints["ep1"] = endpointJSON("ep1", "img-prod", "QUEUE", 9) })
	start(t, options(f, n))
	log.wait(t, "the change of the settings", before, func(e *eventv1.Event) bool {
		return e.GetTargetChanged().GetSpec().GetEndpoint().GetWorkersMax() == 9
	})
	log.wait(t, "health after the restart", before, health)
	if found := log.all(func(e *eventv1.Event) bool { return e.GetTargetDiscovered() != nil }); len(found) != 1 {
		t.Errorf("%d discoveries, want 1", len(found))
	}
}

func TestRunPodDownAtTheStartIsToldAndOutlived(t *testing.T) {
	f, n := newFakeRunPod(t), servertest.NATS(t)
	log := follow(t, n.Conn(t))
	c := start(t, options(f, n))
	log.wait(t, "health", 0, health)
	if err := c.stop(); err != nil {
		t.Fatal(err)
	}
	f.set(func(f *fakeRunPod) {
		f.instead["/"] = func(w http.ResponseWriter, _ *http.Request) { problem(w, http.StatusBadGateway, "down") }
	})
	before := log.len()
	start(t, options(f, n))
	log.wait(t, "a failure of ep1, known from the log", before, func(e *eventv1.Event) bool {
		return failed(eventv1.PollFailureReason_POLL_FAILURE_REASON_SERVER_ERROR)(e) && e.GetTarget().GetId() == "ep1"
	})
	log.wait(t, "a heartbeat without a success", before, func(e *eventv1.Event) bool {
		p := e.GetAccountPolled()
		return p.GetTargets() == 1 && p.GetTargetsFailing() == 1 && p.GetOk() == 0 && p.GetFailedByReason()["server_error"] > 0
	})
	before = log.len()
	f.set(func(f *fakeRunPod) { delete(f.instead, "/") })
	log.wait(t, "health after the outage", before, health)
	log.wait(t, "a heartbeat without failing targets", before, func(e *eventv1.Event) bool {
		return beat(e) && e.GetAccountPolled().GetTargetsFailing() == 0
	})
}

func TestGarbageIsAFailureWithItsReason(t *testing.T) {
	for name, test := range map[string]struct {
		answer http.HandlerFunc
		want   eventv1.PollFailureReason
	}{
		"a page of HTML": {
			func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("<html>hello</html>")) },
			eventv1.PollFailureReason_POLL_FAILURE_REASON_MALFORMED,
		},
		"an answer without its fields": {
			func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte(`{"status":"ok"}`)) },
			eventv1.PollFailureReason_POLL_FAILURE_REASON_MALFORMED,
		},
		"twenty megabytes": {
			func(w http.ResponseWriter, _ *http.Request) {
				chunk := []byte(strings.Repeat(" ", 1<<20))
				for range 20 {
					if _, err := w.Write(chunk); err != nil {
						return
					}
				}
			},
			eventv1.PollFailureReason_POLL_FAILURE_REASON_TOO_LARGE,
		},
		"an answer that never ends": {
			func(w http.ResponseWriter, r *http.Request) {
				_, _ = w.Write([]byte(`{"jobs":`))
				_ = http.NewResponseController(w).Flush()
				<-r.Context().Done()
			},
			eventv1.PollFailureReason_POLL_FAILURE_REASON_TIMEOUT,
		},
		"a connection that breaks": {
			func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) },
			eventv1.PollFailureReason_POLL_FAILURE_REASON_NETWORK,
		},
		"a key without the scope": {
			func(w http.ResponseWriter, _ *http.Request) { problem(w, http.StatusForbidden, "scope") },
			eventv1.PollFailureReason_POLL_FAILURE_REASON_FORBIDDEN,
		},
		"too many requests": {
			func(w http.ResponseWriter, _ *http.Request) { problem(w, http.StatusTooManyRequests, "slow") },
			eventv1.PollFailureReason_POLL_FAILURE_REASON_RATE_LIMITED,
		},
		"a redirect elsewhere": {
			func(w http.ResponseWriter, r *http.Request) {
				http.Redirect(w, r, "http://127.0.0.1:1/", http.StatusFound)
			},
			eventv1.PollFailureReason_POLL_FAILURE_REASON_UNEXPECTED_STATUS,
		},
	} {
		t.Run(name, func(t *testing.T) {
			f, n := newFakeRunPod(t), servertest.NATS(t)
			f.set(func(f *fakeRunPod) { f.instead["/run/ep1/health"] = test.answer })
			log := follow(t, n.Conn(t))
			o := options(f, n)
			if test.want == eventv1.PollFailureReason_POLL_FAILURE_REASON_TIMEOUT {
				o.Collector.Timeout = time.Second
			}
			start(t, o)
			e := log.wait(t, "the failure", 0, func(e *eventv1.Event) bool {
				return e.GetPollFailed().GetKind() == eventv1.PollKind_POLL_KIND_HEALTH
			})
			got := e.GetPollFailed()
			if got.GetReason() != test.want || got.GetDetail() == "" {
				t.Errorf("failure is %v, want %v", got, test.want)
			}
			f.set(func(f *fakeRunPod) { delete(f.instead, "/run/ep1/health") })
			log.wait(t, "health after the garbage", 0, health)
		})
	}
}

func TestAKeyThatIsRefusedIsNamedAtTheFirstStart(t *testing.T) {
	forbid := func(w http.ResponseWriter, _ *http.Request) { problem(w, http.StatusForbidden, "scope missing") }
	for name, test := range map[string]struct {
		key    string
		forbid bool
		want   string
	}{
		"a wrong key":                 {key: "rpa_wrong", want: "(401): it is wrong or was revoked"},
		"a key that may read nothing": {key: goodKey, forbid: true, want: "(403): give it read access"},
		"no key at all":               {want: "RUNPOD_API_KEY"},
	} {
		t.Run(name, func(t *testing.T) {
			f, n := newFakeRunPod(t), servertest.NATS(t)
			if test.forbid {
				f.set(func(f *fakeRunPod) { f.instead["/rest/"] = forbid })
			}
			o := options(f, n)
			o.RunPod.APIKey = secret.String(test.key)
			ctx, cancel := context.WithTimeout(t.Context(), limit)
			defer cancel()
			err := collector.Run(ctx, o)
			if err == nil || !strings.Contains(err.Error(), test.want) || strings.Contains(err.Error(), "\n") {
				t.Errorf("error is %v, want one line with %q", err, test.want)
			}
			if err != nil && test.key != "" && strings.Contains(err.Error(), test.key) {
				t.Errorf("the error shows the key: %v", err)
			}
		})
	}
}

func TestAKeyThatIsRevokedLaterEndsNothing(t *testing.T) {
	f, n := newFakeRunPod(t), servertest.NATS(t)
	log := follow(t, n.Conn(t))
	c := start(t, options(f, n))
	log.wait(t, "health", 0, health)
	if err := c.stop(); err != nil {
		t.Fatal(err)
	}
	before := log.len()
	o := options(f, n)
	o.RunPod.APIKey = "rpa_REVOKEDREVOKEDREVOKED"
	start(t, o)
	log.wait(t, "a heartbeat of refused polls", before, func(e *eventv1.Event) bool {
		p := e.GetAccountPolled()
		return p.GetOk() == 0 && p.GetFailedByReason()["unauthorized"] == p.GetFailed() && p.GetFailed() > 0
	})
	for _, raw := range log.raw {
		if strings.Contains(raw, "REVOKEDREVOKED") {
			t.Errorf("the key is in an event: %q", raw)
		}
	}
}
