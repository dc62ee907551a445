package rpc

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/tocsin-dev/tocsin/internal/proc"
)

// metrics are what a server counts. Methods are those of registered services
// only, so that a caller cannot make up labels.
type metrics struct {
	requests *prometheus.CounterVec
	took     *prometheus.HistogramVec
	streams  *prometheus.GaugeVec
	panics   *prometheus.CounterVec
}

// newMetrics registers the metrics on reg, or takes those that another server of
// the process registered there.
func newMetrics(reg prometheus.Registerer) *metrics {
	return &metrics{
		requests: proc.Register(reg, prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "tocsin_grpc_requests_total",
			Help: "Calls that ended, by method and gRPC code.",
		}, []string{"method", "code"})),
		took: proc.Register(reg, prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "tocsin_grpc_request_duration_seconds",
			Help: "Time that unary calls took in the server, by method. Streams are not in it: they last as long as their reader wants.",
			// From a look-up in memory (100 us) over a durable write (1 to 10 ms) to a stuck store (5 s).
			Buckets: []float64{.0001, .00025, .0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5},
		}, []string{"method"})),
		streams: proc.Register(reg, prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "tocsin_grpc_streams",
			Help: "Streams that are open, by method.",
		}, []string{"method"})),
		panics: proc.Register(reg, prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "tocsin_grpc_panics_total",
			Help: "Calls that ended in a panic, by method. Each is a bug.",
		}, []string{"method"})),
	}
}
