package ruletest

import (
	"testing"
	"time"

	eventv1 "github.com/tocsin-dev/tocsin/proto/gen/tocsin/event/v1"
	"github.com/tocsin-dev/tocsin/services/alerter/rulefile"
)

const crashLoop = `
groups:
  - name: endpoints
    rules:
      - alert: CrashLoop
        on: endpoint
        expr: >-
          max(workers.unhealthy, '5m') > 0 && min(jobs.in_queue, '3m') > 0
          && max(workers.running, '3m') == 0 && increase(jobs.completed, '5m') == 0
        for: 1m
        until: increase(jobs.completed, '5m') > 0 || max(jobs.in_queue, '10m') == 0
        labels: {severity: critical}
        annotations:
          summary: '{{ .Name }} ({{ $labels.team }}): crash loop, {{ .Values "min(jobs.in_queue, ''3m'')" }} queued'
`

func TestACrashLoopFiresHoldsAndResolves(t *testing.T) {
	h := New(t, Parse(t, crashLoop, rulefile.TargetPattern{Match: `^(?P<team>\w+)-`}))
	h.Discover(Endpoint("img-prod"), QueueSpec(3))
	h.Health("img-prod", Sample{InQueue: 12, Unhealthy: 2})
	h.Advance(4 * time.Minute)
	h.WantFiring()
	h.Advance(2 * time.Minute)
	h.WantFiring("CrashLoop")
	a := h.Firing()[0]
	if got, want := a.GetAnnotations()["summary"], "img-prod (img): crash loop, 12 queued"; got != want {
		t.Errorf("summary %q, want %q", got, want)
	}
	if a.GetLabels()["team"] != "img" || a.GetLabels()["severity"] != "critical" || a.GetLabels()["endpoint_id"] != "img-prod" {
		t.Errorf("labels %v", a.GetLabels())
	}
	// Without unhealthy workers the condition ends, the alert does not.
	h.Health("img-prod", Sample{InQueue: 12})
	h.Advance(20 * time.Minute)
	h.WantFiring("CrashLoop")
	h.Health("img-prod", Sample{InQueue: 11, Completed: 1, Running: 1})
	h.Advance(time.Minute)
	h.WantFiring()
	if got := len(h.Transitions()); got != 2 {
		t.Errorf("%d transitions, want firing and resolved", got)
	}
}

func TestAQuietEndpointStaysQuiet(t *testing.T) {
	h := New(t, Parse(t, crashLoop))
	h.Discover(Endpoint("img-prod"), QueueSpec(3))
	s := h.Work("img-prod", Sample{Idle: 1}, 12*time.Hour, func(s *Sample) { s.Completed++ })
	h.PollsFail(Endpoint("img-prod"), eventv1.PollFailureReason_POLL_FAILURE_REASON_TIMEOUT)
	h.Advance(time.Hour)
	h.Health("img-prod", s)
	h.Advance(time.Hour)
	if len(h.Transitions()) > 0 {
		t.Errorf("transitions %v, want none", h.Transitions())
	}
}
