package job

import (
	"github.com/prometheus/client_golang/prometheus"
)

// Metrics count the jobs that are followed.
type Metrics struct {
	tracked *prometheus.GaugeVec
	refused prometheus.Counter
	dropped *prometheus.CounterVec
}

// NewMetrics returns metrics that are registered with r.
func NewMetrics(r prometheus.Registerer) *Metrics {
	m := &Metrics{
		tracked: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "tocsin_collector_tracked_jobs",
			Help: "Jobs that are polled (open) and jobs that ended in the last 40 minutes (ended).",
		}, []string{"state"}),
		refused: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "tocsin_collector_jobs_refused_total",
			Help: "Job ids whose registration was refused because too many jobs are followed.",
		}),
		dropped: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "tocsin_collector_jobs_dropped_total",
			Help: "Open jobs that are not followed any more although they did not end.",
		}, []string{"cause"}),
	}
	r.MustRegister(m.tracked, m.refused, m.dropped)
	return m
}
