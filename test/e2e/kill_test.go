package e2e

import (
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/tocsin-dev/tocsin/services/collector/runpod/sim"
	"github.com/tocsin-dev/tocsin/test/internal/ledger"
	"github.com/tocsin-dev/tocsin/test/internal/process"
)

// The rules of the kill test are quick, so that a minute holds many incidents.
const quickRules = `
groups:
  - name: quick
    rules:
      - alert: Disabled
        on: endpoint
        expr: workers.max == 0 && jobs.in_queue > 0
        for: 1s
        labels: {severity: critical}
        annotations: {summary: '{{ .Name }} is disabled'}
`

const quickConfig = `
runpod: {rest_url: "%[1]s/v2", serverless_url: "%[1]s/runtime/v2"}
collector: {health_interval: 250ms, pods_interval: 1s, inventory_interval: 500ms, ingest_address: "127.0.0.1:0", http_address: "127.0.0.1:0", grpc_address: "127.0.0.1:0"}
alerter: {rules: ["%[2]s"], grpc_address: "127.0.0.1:0", http_address: "127.0.0.1:0"}
notifier: {config_file: "%[3]s", grpc_address: "127.0.0.1:0", http_address: "127.0.0.1:0"}
`

const quickRoutes = `
route: {receiver: ledger, group_by: ['...'], group_wait: 0s, group_interval: 100ms, repeat_interval: 24h}
receivers:
  - name: ledger
    tocsin_configs: [{url: "%s", format: standard, secret: whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw}]
`

// clock is that of the simulated account. While it stands, nothing happens to the
// account but by [sim.Sim.Advance]: what a test waits for is not over before it is
// seen, however slow the machine.
type clock struct {
	mu    sync.Mutex
	stood time.Time // guarded by mu; zero while it runs
}

func (c *clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.stood.IsZero() {
		return time.Now()
	}
	return c.stood
}

func (c *clock) Stop() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.stood = time.Now()
}

// world is what a test starts tocsin against.
type world struct {
	account *sim.Sim
	clock   *clock // of the account; it runs
	url     string
	config  string
	data    string
	ledger  *ledger.Ledger
	env     []string
}

func newWorld(t *testing.T, scenario sim.Scenario) *world {
	t.Helper()
	clock := new(clock)
	account, err := sim.New(sim.Options{Scenario: scenario, Unlimited: true, Now: clock.Now})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(account.Close)
	server := httptest.NewServer(account.Handler())
	t.Cleanup(server.Close)
	w := &world{account: account, clock: clock, url: server.URL, ledger: ledger.New(t), data: t.TempDir(), env: []string{"RUNPOD_API_KEY=" + sim.DefaultKey}}
	dir := t.TempDir()
	write := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	rules := write("rules.yaml", quickRules)
	routes := write("routes.yml", fmt.Sprintf(quickRoutes, w.ledger.URL()))
	w.config = write("tocsin.yaml", fmt.Sprintf(quickConfig, server.URL, rules, routes))
	return w
}

func (w *world) up(t *testing.T) *process.Process {
	t.Helper()
	return process.Start(t, w.env, "up", "--config", w.config, "--data", w.data)
}

// TestKilledAtAnyMomentNothingIsLostOrInvented kills the whole of Tocsin again
// and again while endpoints break and recover, and compares what the receiver
// was told with what happened.
func TestKilledAtAnyMomentNothingIsLostOrInvented(t *testing.T) {
	const (
		broken  = 10 * time.Second
		repeat  = 20 * time.Second
		calm    = 18 * time.Second // into a repetition: nothing is broken
		rounds  = 12
		targets = 3
	)
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))

	scenario := sim.Scenario{Repeat: repeat}
	for i := range targets {
		id := fmt.Sprintf("endpoint%d", i)
		scenario.Endpoints = append(scenario.Endpoints, sim.EndpointSpec{
			ID: id, Name: id, Pools: []string{"ADA_24"}, MinWorkers: 1, MaxWorkers: 3, Service: time.Second, JobsPerMinute: 60,
		})
		scenario.Events = append(scenario.Events, sim.Event{
			At: time.Duration(3+2*i) * time.Second, Target: id, Effect: sim.MaxWorkersZero(broken),
		})
	}
	w := newWorld(t, scenario)

	for range rounds {
		p := w.up(t)
		p.WaitFor(0, "query API")
		// Between two kills: from the first instants of a start to several incidents.
		<-time.After(time.Duration(random.IntN(5000)) * time.Millisecond)
		w.ledger.SetMood(ledger.Mood{Status: []int{0, 0, http.StatusInternalServerError}[random.IntN(3)]})
		p.Kill()
	}

	// Let it run undisturbed for two more incidents, and then until each that it
	// told of has ended too.
	w.ledger.SetMood(ledger.Mood{})
	last := w.up(t)
	last.WaitFor(0, "query API")
	before := len(ledger.Told(w.ledger.All()))
	waitFor(t, w.ledger, "two more incidents", func(entries []ledger.Entry) bool {
		return len(ledger.Told(entries)) >= before+2
	})
	w.clock.Stop()
	w.account.Advance((calm - w.account.Elapsed()%repeat + repeat) % repeat)
	waitFor(t, w.ledger, "every alert resolved", func(entries []ledger.Entry) bool {
		for _, states := range ledger.Told(entries) {
			if states[len(states)-1].Status != "resolved" {
				return false
			}
		}
		return true
	})
	if code := last.Stop(); code != 0 {
		t.Errorf("it ended with code %d, want 0", code)
	}

	entries := w.ledger.All()
	check(t, entries)
	began := 0
	for _, o := range w.account.Occurrences(0, w.account.Elapsed()) {
		if o.Event.Effect.String() == "max workers zero" {
			began++
		}
	}
	if alerts := ledger.Told(entries); len(alerts) > began {
		t.Errorf("%d alerts were told of %d incidents: some are invented:%s", len(alerts), began, ledger.Summary(entries))
	} else {
		t.Logf("%d incidents happened, %d were told in %d deliveries", began, len(alerts), len(entries))
	}
}

// TestARestartSaysNothing stops Tocsin while an alert fires and starts it again:
// the receiver hears nothing of it until the alert resolves.
func TestARestartSaysNothing(t *testing.T) {
	w := newWorld(t, sim.Scenario{
		Endpoints: []sim.EndpointSpec{{ID: "one", Name: "one", Pools: []string{"ADA_24"}, MinWorkers: 1, MaxWorkers: 3, Service: time.Second, JobsPerMinute: 60}},
		Events:    []sim.Event{{At: 10 * time.Second, Target: "one", Effect: sim.MaxWorkersZero(time.Minute)}},
	})
	w.clock.Stop()
	w.account.Advance(30 * time.Second)
	first := w.up(t)
	waitFor(t, w.ledger, "the alert fires", func(e []ledger.Entry) bool { return len(e) == 1 })
	if code := first.Stop(); code != 0 {
		t.Errorf("it ended with code %d, want 0", code)
	}
	second := w.up(t)
	second.WaitFor(0, "query API")
	second.Kill()
	third := w.up(t)
	third.WaitFor(0, "query API")
	w.account.Advance(time.Minute)
	waitFor(t, w.ledger, "the alert resolves", func(e []ledger.Entry) bool {
		return len(e) > 0 && e[len(e)-1].Alerts[0].Status == "resolved"
	})
	if code := third.Stop(); code != 0 {
		t.Errorf("it ended with code %d, want 0", code)
	}
	entries := w.ledger.All()
	check(t, entries)
	if len(entries) != 2 {
		t.Errorf("%d deliveries over two restarts, want one firing and one resolved:%s", len(entries), ledger.Summary(entries))
	}
}
