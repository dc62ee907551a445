package collector

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/tocsin-dev/tocsin/services/collector/runpod"
)

var (
	quotaLeft = prometheus.NewDesc("tocsin_collector_quota_left_calls",
		"Calls of RunPod's REST API that the account has left in the window, whoever uses them.", []string{"window"}, nil)
	quotaLimit = prometheus.NewDesc("tocsin_collector_quota_limit_calls",
		"Calls of RunPod's REST API that the window allows.", []string{"window"}, nil)
)

// quota shows how much of RunPod's quota is left, as the last answers said and
// the calls since have used it up. What RunPod did not say is no series, nor is
// what it said of a window that is over.
type quota struct{ windows func() []runpod.Window }

// Describe tells the series that Collect gives; only Prometheus calls it.
func (q quota) Describe(descs chan<- *prometheus.Desc) {
	descs <- quotaLeft
	descs <- quotaLimit
}

// Collect gives the figures; only Prometheus calls it.
func (q quota) Collect(out chan<- prometheus.Metric) {
	now := time.Now()
	for _, w := range q.windows() {
		if w.Remaining >= 0 && now.Before(w.ResetAt) {
			out <- prometheus.MustNewConstMetric(quotaLeft, prometheus.GaugeValue, float64(w.Remaining), w.Name)
		}
		if w.Quota > 0 {
			out <- prometheus.MustNewConstMetric(quotaLimit, prometheus.GaugeValue, float64(w.Quota), w.Name)
		}
	}
}
