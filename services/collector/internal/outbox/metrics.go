package outbox

import (
	"github.com/prometheus/client_golang/prometheus"
)

type metrics struct {
	waiting   *prometheus.GaugeVec
	dropped   *prometheus.CounterVec
	failures  prometheus.Counter
	coalesced prometheus.Counter
}

func newMetrics(r prometheus.Registerer) *metrics {
	m := &metrics{
		waiting: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "tocsin_collector_outbox_events",
			Help: "Events that wait to be stored in the event log.",
		}, []string{"class"}),
		dropped: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "tocsin_collector_events_dropped_total",
			Help: "Events that had no room in the outbox or that the event log can never store.",
		}, []string{"kind"}),
		failures: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "tocsin_collector_publish_failures_total",
			Help: "Attempts to store an event that failed; each is repeated.",
		}),
		coalesced: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "tocsin_collector_samples_coalesced_total",
			Help: "Samples that a newer one replaced before they were stored.",
		}),
	}
	r.MustRegister(m.waiting, m.dropped, m.failures, m.coalesced)
	return m
}
