package e2e

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/tocsin-dev/tocsin/internal/servertest"
	"github.com/tocsin-dev/tocsin/services/collector/runpod/sim"
	"github.com/tocsin-dev/tocsin/test/internal/ledger"
	"github.com/tocsin-dev/tocsin/test/internal/process"
)

const apartConfig = `
runpod: {rest_url: "%[1]s/v2", serverless_url: "%[1]s/runtime/v2"}
nats: {url: "%[4]s"}
redis: {address: "%[5]s"}
collector: {health_interval: 250ms, pods_interval: 1s, inventory_interval: 500ms, ingest_address: "127.0.0.1:0", http_address: "127.0.0.1:0", grpc_address: "127.0.0.1:0"}
alerter: {rules: ["%[2]s"], grpc_address: "127.0.0.1:0", http_address: "127.0.0.1:0", notifier: {address: "%[6]s"}}
notifier: {config_file: "%[3]s", grpc_address: "%[6]s", http_address: "127.0.0.1:0"}
`

// TestTheServicesRunApart runs the three services as processes of their own on
// one configuration file, a NATS and a Redis, kills each while an alert fires,
// empties Redis, and reads both ends of the alert.
func TestTheServicesRunApart(t *testing.T) {
	nats, redis := servertest.NATS(t), servertest.Redis(t)
	w := newWorld(t, sim.Scenario{
		Endpoints: []sim.EndpointSpec{{ID: "one", Name: "one", Pools: []string{"ADA_24"}, MinWorkers: 1, MaxWorkers: 3, Service: time.Second, JobsPerMinute: 60}},
		Events:    []sim.Event{{At: 10 * time.Second, Target: "one", Effect: sim.MaxWorkersZero(time.Minute)}},
	})
	w.clock.Stop()
	w.account.Advance(30 * time.Second)
	dir := filepath.Dir(w.config)
	config := filepath.Join(dir, "apart.yaml")
	text := fmt.Sprintf(apartConfig, w.url, filepath.Join(dir, "rules.yaml"), filepath.Join(dir, "routes.yml"), nats.URL(), redis.Addr(), freeAddress(t))
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	services := []string{"notifier", "alerter", "collector"}
	programs, running := map[string]string{}, map[string]*process.Process{}
	for _, name := range services {
		programs[name] = process.Build(t, "services/"+name+"/cmd/"+name)
	}
	up := func(name string) {
		running[name] = process.StartProgram(t, programs[name], w.env, "--config", config)
	}
	for _, name := range services {
		up(name)
	}
	waitFor(t, w.ledger, "the alert fires", func(e []ledger.Entry) bool { return len(e) > 0 })
	for _, name := range services {
		running[name].Kill()
		up(name)
		running[name].WaitFor(0, name+" ready")
	}
	redis.FlushAll(t)
	w.account.Advance(time.Minute)
	waitFor(t, w.ledger, "the alert resolves", func(e []ledger.Entry) bool {
		return e[len(e)-1].Alerts[0].Status == "resolved"
	})
	for _, name := range []string{"collector", "alerter", "notifier"} {
		if code := running[name].Stop(); code != 0 {
			t.Errorf("the %s ended with code %d, want 0", name, code)
		}
	}
	entries := w.ledger.All()
	check(t, entries)
	if len(ledger.Told(entries)) != 1 {
		t.Errorf("one incident made other alerts:%s", ledger.Summary(entries))
	}
}

// freeAddress returns an address of loopback that nothing listens on now.
func freeAddress(t *testing.T) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	return ln.Addr().String()
}
