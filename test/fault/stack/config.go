package stack

import (
	"fmt"
	"path/filepath"
	"time"

	"github.com/tocsin-dev/tocsin/test/fault/plan"
)

// The intervals are short, so that half a minute holds many incidents.

func (s *Stack) natsConfig() string {
	sync := "2m"
	if s.opts.SyncAlways {
		sync = "always"
	}
	return fmt.Sprintf("listen: %q\njetstream: {store_dir: %q, sync_interval: %q}\n",
		s.ports.of(s.t, plan.NATS), filepath.Join(s.opts.Dir, "nats"), sync)
}

func (s *Stack) collectorConfig() string {
	runpod := s.links[plan.To(plan.Collector, plan.RunPod)].Addr()
	return fmt.Sprintf(`
runpod: {rest_url: "http://%s/rest", serverless_url: "http://%s/run"}
nats: {url: "nats://%s"}
collector:
  {health_interval: 200ms, pods_interval: 5s, inventory_interval: 2s, job_fast_interval: 300ms, job_interval: 300ms,
   max_backoff: 500ms, timeout: 2s, max_stream_bytes: 268435456,
   ingest_address: %q, http_address: %q, grpc_address: "127.0.0.1:0"}
`, runpod, runpod, s.links[plan.To(plan.Collector, plan.NATS)].Addr(), s.ports.of(s.t, plan.Collector), s.ports.of(s.t, plan.Collector+" http"))
}

func (s *Stack) alerterConfig(name, rules string) string {
	return fmt.Sprintf(`
nats: {url: "nats://%s"}
redis: {address: %q}
alerter:
  {rules: [%q], snapshot_interval: 2s, max_stream_bytes: 268435456, notifier: {address: %q}, grpc_address: %q, http_address: %q}
`, s.links[plan.To(name, plan.NATS)].Addr(), s.links[plan.To(name, plan.Redis)].Addr(), rules,
		s.links[plan.To(name, plan.Notifiers)].Addr(), s.ports.of(s.t, name), s.ports.of(s.t, name+" http"))
}

func (s *Stack) notifierConfig(name, routes string) string {
	return fmt.Sprintf(`
nats: {url: "nats://%s"}
notifier: {config_file: %q, external_url: "http://notifier.test", inhibition_hold: 0s, grpc_address: %q, http_address: %q}
`, s.links[plan.To(name, plan.NATS)].Addr(), routes, s.ports.of(s.t, name), s.ports.of(s.t, name+" http"))
}

// ReceiverTimeout is how long a receiver has to answer.
const ReceiverTimeout = 2 * time.Second

// routes tells every receiver of every alert: two in our own format, an alert a
// message, and one in Alertmanager's, many in one.
func (s *Stack) routes() string {
	const secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
	url := func(receiver string) string { return "http://" + s.links[plan.To(plan.Notifiers, receiver)].Addr() }
	return fmt.Sprintf(`
route:
  {receiver: steady, group_by: ['...'], group_wait: 0s, group_interval: 100ms, repeat_interval: 24h, routes: [
    {receiver: steady, continue: true}, {receiver: moody, continue: true},
    {receiver: grouped, group_by: [alertname], group_wait: 200ms, group_interval: 1s}]}
receivers:
  - name: steady
    tocsin_configs: [{url: %q, format: standard, secret: %s, timeout: %v}]
  - name: moody
    tocsin_configs: [{url: %q, format: standard, secret: %s, timeout: %v}]
  - {name: grouped, webhook_configs: [{url: %q, timeout: %v}]}
`, url(plan.Steady), secret, ReceiverTimeout, url(plan.Moody), secret, ReceiverTimeout, url(plan.Grouped), ReceiverTimeout)
}

// Dial returns the address of a service's API that no proxy stands before.
func (s *Stack) Dial(name string) string { return s.ports.of(s.t, name) }

// NATSURL returns the address of NATS that no proxy stands before.
func (s *Stack) NATSURL() string { return "nats://" + s.ports.of(s.t, plan.NATS) }
