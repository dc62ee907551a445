package poll

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Metrics count the polls of a collector.
type Metrics struct {
	polls      *prometheus.CounterVec
	duration   *prometheus.HistogramVec
	unreadable *prometheus.CounterVec
	refused    *prometheus.CounterVec
}

// NewMetrics returns metrics that are registered with r.
func NewMetrics(r prometheus.Registerer) *Metrics {
	m := &Metrics{
		polls: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "tocsin_collector_polls_total",
			Help: "Polls of RunPod by what was polled and by result: ok, or why it failed.",
		}, []string{"kind", "result"}),
		duration: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name:    "tocsin_collector_poll_duration_seconds",
			Help:    "Time from a poll's start to its whole answer.",
			Buckets: prometheus.ExponentialBuckets(0.005, 2, 12), // 5 ms to 10 s, the deadline
		}, []string{"kind"}),
		unreadable: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "tocsin_collector_entries_unreadable_total",
			Help: "Entries of RunPod's lists that could not be read; what they stand for stays as it was known.",
		}, []string{"kind"}),
		refused: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "tocsin_collector_targets_refused_total",
			Help: "Targets that a list had and that are not watched, because collector.max_targets are; counted at each list.",
		}, []string{"kind"}),
	}
	r.MustRegister(m.polls, m.duration, m.unreadable, m.refused)
	return m
}

// RegisterLag registers with r how late the polls of a sort are.
func RegisterLag(r prometheus.Registerer, polls string, late func() time.Duration) {
	r.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name:        "tocsin_collector_poll_lag_seconds",
		Help:        "By how much the poll that is due longest is late: where it grows, collector.max_concurrent calls are too few.",
		ConstLabels: prometheus.Labels{"polls": polls},
	}, func() float64 { return late().Seconds() }))
}

// Observe counts a poll of a kind that began at began and failed with f; failed
// is false for one that was answered.
func (m *Metrics) Observe(kind string, began time.Time, f Failure, failed bool) {
	result := "ok"
	if failed {
		result = f.Name
	}
	m.polls.WithLabelValues(kind, result).Inc()
	m.duration.WithLabelValues(kind).Observe(time.Since(began).Seconds())
}
