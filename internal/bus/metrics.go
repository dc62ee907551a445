package bus

import (
	"errors"

	"github.com/prometheus/client_golang/prometheus"
)

// metrics are the figures of one connection.
type metrics struct {
	connected  prometheus.Gauge
	reconnects prometheus.Counter
	published  *prometheus.CounterVec // by result: stored, duplicate, refused, unknown
	retries    *prometheus.CounterVec // by reason: disconnected, timeout, full, unavailable
	inFlight   prometheus.Gauge
	stalls     prometheus.Counter
	restarts   *prometheus.CounterVec // by stream
	leases     prometheus.Gauge
	leasesLost prometheus.Counter
}

func newMetrics(reg prometheus.Registerer, client string) (*metrics, error) {
	if reg == nil {
		reg = prometheus.NewRegistry()
	}
	labels := prometheus.Labels{"client": client}
	m := &metrics{
		connected: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "tocsin_bus_connected", ConstLabels: labels,
			Help: "Whether the connection to NATS is up (1) or not (0).",
		}),
		reconnects: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "tocsin_bus_reconnects_total", ConstLabels: labels,
			Help: "How often the connection to NATS came back.",
		}),
		published: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "tocsin_bus_published_total", ConstLabels: labels,
			Help: "Messages whose publishing was settled, by result: stored, duplicate, refused or unknown.",
		}, []string{"result"}),
		retries: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "tocsin_bus_publish_retries_total", ConstLabels: labels,
			Help: "Publishes tried again, by reason: disconnected, timeout, full or unavailable.",
		}, []string{"reason"}),
		inFlight: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "tocsin_bus_publisher_in_flight", ConstLabels: labels,
			Help: "Messages that publishers accepted and that are not settled.",
		}),
		stalls: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "tocsin_bus_publisher_stalls_total", ConstLabels: labels,
			Help: "How often a publisher was full and its caller had to wait.",
		}),
		restarts: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "tocsin_bus_read_restarts_total", ConstLabels: labels,
			Help: "How often a read of a stream had to be set up again.",
		}, []string{"stream"}),
		leases: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "tocsin_bus_leases_held", ConstLabels: labels,
			Help: "Leases held at present.",
		}),
		leasesLost: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "tocsin_bus_leases_lost_total", ConstLabels: labels,
			Help: "Leases that ended without being released.",
		}),
	}
	return m, errors.Join(
		register(reg, &m.connected), register(reg, &m.reconnects), register(reg, &m.published),
		register(reg, &m.retries), register(reg, &m.inFlight), register(reg, &m.stalls),
		register(reg, &m.restarts), register(reg, &m.leases), register(reg, &m.leasesLost),
	)
}

// register registers *c, or replaces it by its equal that another connection of
// the same name registered before.
func register[C prometheus.Collector](reg prometheus.Registerer, c *C) error {
	err := reg.Register(*c)
	if already, ok := errors.AsType[prometheus.AlreadyRegisteredError](err); ok {
		if same, ok := already.ExistingCollector.(C); ok {
			*c = same
			return nil
		}
	}
	return err
}
