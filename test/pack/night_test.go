package pack

import (
	"testing"

	"github.com/tocsin-dev/tocsin/services/alerter/ruletest"
	"github.com/tocsin-dev/tocsin/services/collector/runpod"
	"github.com/tocsin-dev/tocsin/services/collector/runpod/sim"
)

// rawThresholds are what people write at first: the same figures as in the
// default rules, with nothing around them.
const rawThresholds = `
groups:
  - name: raw
    rules:
      - {alert: QueueOver50, on: endpoint, expr: jobs.in_queue > 50}
      - {alert: QueueOver100, on: endpoint, expr: jobs.in_queue > 100}
      - alert: FailuresOver5Percent
        on: endpoint
        expr: increase(jobs.failed, '5m') > 0.05 * (increase(jobs.failed, '5m') + increase(jobs.completed, '5m'))
      - alert: FailuresOver10Percent
        on: endpoint
        expr: increase(jobs.failed, '5m') > 0.10 * (increase(jobs.failed, '5m') + increase(jobs.completed, '5m'))
      - {alert: NoIdleWorkers, on: endpoint, expr: workers.idle == 0}
      - {alert: UnhealthyWorkers, on: endpoint, expr: workers.unhealthy > 0}
      - {alert: LowGPU, on: pod, expr: gpu.util_percent < 10}
`

func TestNobodyIsWokenInAQuietNight(t *testing.T) {
	t.Parallel()
	rules, raw := ruletest.New(t, pack(t)), ruletest.New(t, ruletest.Parse(t, rawThresholds))
	w := newWatch(t, sim.QuietNight(), rules, raw)
	w.pass(wholeNight)

	pages, digest := 0, 0
	for _, l := range w.lines(rules) {
		if l.what != "firing" {
			continue
		}
		switch l.level {
		case "info":
			digest++
			t.Log(l)
		default:
			pages++
			t.Errorf("a notice: %s", l)
		}
	}
	causes := map[string]int{}
	for _, p := range w.order {
		if p.endpoint.Type != runpod.LoadBalancer {
			causes[cause(rules.Diagnose(p.target))]++
		}
	}
	t.Logf("diagnoses at the end of the night: %v", causes)
	for _, grave := range []string{"crash_loop", "no_capacity", "no_progress", "unreachable", "unknown"} {
		if causes[grave] > 0 {
			t.Errorf("%d targets of a quiet night are diagnosed as %s", causes[grave], grave)
		}
	}
	thresholds := map[string]int{}
	total := 0
	for _, l := range w.lines(raw) {
		if l.what == "firing" {
			thresholds[l.rule]++
			total++
		}
	}
	t.Logf("%s: pages %d, digest %d, raw thresholds %d: %v", wholeNight, pages, digest, total, thresholds)
	if total < 100 || thresholds["QueueOver100"] == 0 || thresholds["NoIdleWorkers"] == 0 {
		t.Errorf("raw thresholds would have sent %d notices: the night does not look like trouble", total)
	}
	if len(w.known) != 64 || w.failed > 0 {
		t.Errorf("%d targets were watched, want 64; %d polls failed, want none", len(w.known), w.failed)
	}
}
