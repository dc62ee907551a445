// Package sim is a RunPod account to run against: REST v2 with inventory,
// workers and pods, the serverless runtime API with queues, jobs and health,
// completion webhooks, quotas, and a script of things that go wrong.
//
// The state of the account is a function of the seed, the scenario, the elapsed
// simulated time and the jobs that callers submit, and of nothing else: two
// simulators with equal options answer alike, however often they are asked.
// Each endpoint is brought up to date when it is asked for, so 10,000 endpoints
// cost no goroutine and no timer. Simulated time runs at a multiple of the
// clock that Options.Now reads, plus what [Sim.Advance] adds.
//
// It is for tests, benchmarks and the demo: only they may import it.
package sim

import (
	"errors"
	"fmt"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// DefaultKey is the API key that a [Sim] accepts when Options.Keys is empty. It
// looks like RunPod's, so that redaction is tried on it.
const DefaultKey = "rpa_SIMULATED0000000000000000"

// epoch is where simulated time begins unless Options.Start says otherwise. It
// is fixed so that answers are reproducible.
var epoch = time.Date(2026, 11, 23, 9, 0, 0, 0, time.UTC)

// Options configure a [Sim]. The zero value is an account without endpoints
// and pods.
type Options struct {
	// Scenario is the account and what happens to it.
	Scenario Scenario
	// Seed makes two accounts of one scenario differ.
	Seed uint64
	// Start is the simulated instant at which the scenario begins: 9 o'clock on
	// 23 November 2026 when zero.
	Start time.Time
	// Now reads the clock, [time.Now] when nil.
	Now func() time.Time
	// Speed is the number of simulated seconds in one of Now's, 1 when zero.
	Speed float64
	// Keys are the accepted API keys; when empty, [DefaultKey] with every scope.
	Keys []Key
	// Quota are the windows of the REST API; when nil, those that RunPod was
	// seen to have: 180 calls a minute, 7,200 an hour and 50,000 a day. A window
	// lasts as long as it says on Now's clock, and its calls are multiplied by
	// Speed, so that a client at Speed has the quota of one at 1.
	Quota []Quota
	// Unlimited takes the quota and its headers away.
	Unlimited bool
}

// Key is an API key of the account.
type Key struct {
	// Value is what the caller sends as bearer token.
	Value string
	// Without lists the scopes that the key lacks.
	Without []Scope
}

// Scope is a part of the API that a key may lack.
type Scope string

// The scopes of a key.
const (
	// ScopeServerless covers endpoints and their runtime API.
	ScopeServerless Scope = "serverless"
	// ScopePods covers pods.
	ScopePods Scope = "pods"
)

// Quota is one rate-limit window of the REST API.
type Quota struct {
	// Name is what the headers call it, such as "minute".
	Name string
	// Calls is how many it allows.
	Calls int
	// Window is how long it lasts, whole seconds.
	Window time.Duration
}

// Sim is a simulated account. It is safe for concurrent use.
type Sim struct {
	opts     Options
	begin    time.Time    // of Now's clock
	advanced atomic.Int64 // simulated nanoseconds added by Advance

	account   schedule
	endpoints map[string]*endpoint
	pods      map[string]*pod
	order     struct{ endpoints, pods []string } // as in the scenario

	access access
	calls  callLog
	hooks  hooks

	stopOnce sync.Once
	stopped  chan struct{} // closed by Close
}

// New returns the account that opts describe. Its error names every mistake in
// the scenario at once.
func New(opts Options) (*Sim, error) {
	if opts.Now == nil {
		opts.Now = time.Now
	}
	if opts.Speed == 0 {
		opts.Speed = 1
	}
	if opts.Start.IsZero() {
		opts.Start = epoch
	}
	if len(opts.Keys) == 0 {
		opts.Keys = []Key{{Value: DefaultKey}}
	}
	if opts.Quota == nil {
		opts.Quota = []Quota{{"minute", 180, time.Minute}, {"hour", 7200, time.Hour}, {"day", 50_000, 24 * time.Hour}}
	}
	if err := opts.validate(); err != nil {
		return nil, fmt.Errorf("simulated account: %w", err)
	}
	s := &Sim{
		opts: opts, begin: opts.Now(), stopped: make(chan struct{}),
		endpoints: make(map[string]*endpoint, len(opts.Scenario.Endpoints)),
		pods:      make(map[string]*pod, len(opts.Scenario.Pods)),
		account:   opts.Scenario.scheduleOf(""),
		access:    newAccess(opts),
	}
	s.hooks.wake = make(chan struct{}, 1)
	scripts := opts.Scenario.schedules()
	for _, spec := range opts.Scenario.Endpoints {
		s.endpoints[spec.ID] = newEndpoint(spec, opts.Seed, scripts[spec.ID], s.hooks.add)
		s.order.endpoints = append(s.order.endpoints, spec.ID)
	}
	for _, spec := range opts.Scenario.Pods {
		s.pods[spec.ID] = &pod{spec: spec, seed: mix(opts.Seed, spec.ID), script: scripts[spec.ID]}
		s.order.pods = append(s.order.pods, spec.ID)
	}
	return s, nil
}

func (o Options) validate() error {
	var errs []error
	if o.Speed < 0 {
		errs = append(errs, fmt.Errorf("speed: %v is negative", o.Speed))
	}
	for _, q := range o.Quota {
		if q.Name == "" || q.Calls < 1 || q.Window < time.Second {
			errs = append(errs, fmt.Errorf("quota: %+v is not a window", q))
		}
	}
	return errors.Join(append(errs, o.Scenario.validate())...)
}

// Close ends the answers that an outage holds open.
func (s *Sim) Close() { s.stopOnce.Do(func() { close(s.stopped) }) }

// Elapsed returns the simulated time since the scenario began.
func (s *Sim) Elapsed() time.Duration {
	real := s.opts.Now().Sub(s.begin)
	return time.Duration(float64(real)*s.opts.Speed) + time.Duration(s.advanced.Load())
}

// Now returns the simulated instant.
func (s *Sim) Now() time.Time { return s.opts.Start.Add(s.Elapsed()) }

// Advance moves simulated time forward by d.
func (s *Sim) Advance(d time.Duration) {
	s.advanced.Add(int64(max(d, 0)))
	s.hooks.poke()
}

// Counts are the true figures of a queue endpoint at one instant.
type Counts struct {
	// InQueue and InProgress are the jobs that have not ended.
	InQueue, InProgress int
	// Completed, Failed and Retried count since the endpoint was made.
	Completed, Failed, Retried int
	// Arrived counts the jobs that entered the queue since the scenario began,
	// and Cancelled those that were taken out of it.
	Arrived, Cancelled int
	// Idle to Unhealthy count workers, each in one state.
	Idle, Running, Initializing, Throttled, Unhealthy int
	// MaxWorkers is the bound in force.
	MaxWorkers int
}

// Counts returns the true figures of an endpoint now, false when there is none
// of that id or it has no queue.
func (s *Sim) Counts(endpointID string) (Counts, bool) {
	e := s.endpoints[endpointID]
	if e == nil || e.spec.LoadBalancer {
		return Counts{}, false
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.advance(s.Elapsed())
	return e.counts(), true
}

// Submit queues a job at once and returns its id.
func (s *Sim) Submit(endpointID string, opts JobOptions) (string, error) {
	e := s.endpoints[endpointID]
	if e == nil || e.spec.LoadBalancer {
		return "", fmt.Errorf("submit job: endpoint %q has no queue", endpointID)
	}
	if err := checkHook(opts.Webhook); err != nil {
		return "", fmt.Errorf("submit job: %w", err)
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.advance(s.Elapsed())
	j := e.enqueue(opts)
	e.settle()
	s.hooks.watch(e)
	return j.id, nil
}

// Occurrence is a stretch of time in which an event of the scenario holds.
type Occurrence struct {
	// Event is as in the scenario.
	Event Event
	// Start and End are simulated time since the scenario began. End is the
	// largest duration for what never ends.
	Start, End time.Duration
}

// Occurrences returns what the script does between from and to, simulated time
// since the scenario began, ordered by start.
func (s *Sim) Occurrences(from, to time.Duration) []Occurrence {
	var list []Occurrence
	for _, e := range s.opts.Scenario.Events {
		for at := from; at < to; {
			start, end, active := e.around(at, s.opts.Scenario.Repeat)
			if active {
				list = append(list, Occurrence{Event: e, Start: start, End: end})
			}
			next := e.boundary(at, s.opts.Scenario.Repeat)
			if next <= at {
				break
			}
			at = next
		}
	}
	slices.SortStableFunc(list, func(a, b Occurrence) int { return int(a.Start - b.Start) })
	return list
}

// Calls returns how many calls each route has answered, by method, pattern and
// status, such as "GET /v2/pods 200".
func (s *Sim) Calls() map[string]int { return s.calls.counts() }

// Handler serves REST v2 below /v2 and the runtime API below /runtime/v2, so
// that a client's base URLs are those two paths of one server.
func (s *Sim) Handler() http.Handler { return s.routes() }
