package courier

import (
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/tocsin-dev/tocsin/internal/proc"
	deliveryv1 "github.com/tocsin-dev/tocsin/proto/gen/tocsin/delivery/v1"
	"github.com/tocsin-dev/tocsin/services/notifier/internal/delivery"
	"github.com/tocsin-dev/tocsin/services/notifier/internal/route"
)

// Metrics count deliveries. Receivers and integrations come from the
// configuration, which bounds the number of series.
type Metrics struct {
	messages    *prometheus.CounterVec
	attempts    *prometheus.CounterVec
	seconds     *prometheus.HistogramVec
	told        *prometheus.HistogramVec
	pending     *prometheus.GaugeVec
	applied     prometheus.Gauge
	cutAlerts   prometheus.Counter
	undecodable prometheus.Counter
	replaced    *prometheus.CounterVec

	journalBytes prometheus.Gauge
	trimmed      prometheus.Counter
	trimBlocked  prometheus.Counter

	saved       prometheus.Gauge
	savedBytes  prometheus.Gauge
	saveSeconds prometheus.Histogram
	saveFailed  prometheus.Counter
}

// NewMetrics registers the metrics of deliveries on reg.
func NewMetrics(reg prometheus.Registerer) *Metrics {
	way := []string{"receiver", "integration"}
	return &Metrics{
		messages: proc.Register(reg, prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "tocsin_notifier_messages_total",
			Help: "Messages by what became of them: told, dead (given up) or superseded by a newer state before they were told; cut counts those that were too large and tell less of their alert.",
		}, append(way, "result"))),
		attempts: proc.Register(reg, prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "tocsin_notifier_attempts_total",
			Help: "Attempts to deliver a message, by the class of the answer: 2xx to 5xx, none, or canceled by us.",
		}, append(way, "answer"))),
		seconds: proc.Register(reg, prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name:    "tocsin_notifier_attempt_seconds",
			Help:    "Duration of attempts to deliver a message.",
			Buckets: []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30},
		}, way)),
		told: proc.Register(reg, prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name:    "tocsin_notifier_told_seconds",
			Help:    "Time from when the newest change in a message was stored until its receiver had it, the waits of its group included.",
			Buckets: []float64{.002, .005, .01, .025, .05, .1, .5, 1, 5, 15, 30, 60, 300, 1800, 7200, 43200},
		}, way)),
		pending: proc.Register(reg, prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "tocsin_notifier_pending_messages",
			Help: "Messages that their receiver does not have yet.",
		}, way)),
		applied: proc.Register(reg, prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "tocsin_notifier_applied_sequence",
			Help: "Sequence of the last message of ALERTS that was taken in.",
		})),
		cutAlerts: proc.Register(reg, prometheus.NewCounter(prometheus.CounterOpts{
			Name: "tocsin_notifier_cut_alerts_total",
			Help: "Alerts whose labels or annotations were too long and were cut.",
		})),
		undecodable: proc.Register(reg, prometheus.NewCounter(prometheus.CounterOpts{
			Name: "tocsin_notifier_undecodable_messages_total",
			Help: "Messages of ALERTS that could not be read and were skipped.",
		})),
		journalBytes: proc.Register(reg, prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "tocsin_notifier_journal_bytes",
			Help: "Size of the journal of deliveries when it was last looked at, at least once a minute.",
		})),
		trimmed: proc.Register(reg, prometheus.NewCounter(prometheus.CounterOpts{
			Name: "tocsin_notifier_journal_trimmed_messages_total",
			Help: "Messages of the journal of deliveries that were removed before their 30 days, because it had 80 % of its limit.",
		})),
		trimBlocked: proc.Register(reg, prometheus.NewCounter(prometheus.CounterOpts{
			Name: "tocsin_notifier_journal_trim_blocked_total",
			Help: "Times that the journal of deliveries was beyond its limit and nothing could be removed, since no two snapshots hold what its oldest messages say.",
		})),
		replaced: proc.Register(reg, prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "tocsin_notifier_streams_replaced_total",
			Help: "Times that a stream was found to have lost what was in it: it was made anew or cut. An alert may then be told twice.",
		}, []string{"stream"})),
		saved: proc.Register(reg, prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "tocsin_notifier_snapshot_timestamp_seconds",
			Help: "When the last snapshot was saved, in Unix seconds.",
		})),
		savedBytes: proc.Register(reg, prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "tocsin_notifier_snapshot_bytes",
			Help: "Size of the last snapshot, compressed.",
		})),
		saveSeconds: proc.Register(reg, prometheus.NewHistogram(prometheus.HistogramOpts{
			Name:    "tocsin_notifier_snapshot_seconds",
			Help:    "Duration of saving a snapshot.",
			Buckets: []float64{.005, .01, .05, .1, .5, 1, 5, 10, 60},
		})),
		saveFailed: proc.Register(reg, prometheus.NewCounter(prometheus.CounterOpts{
			Name: "tocsin_notifier_snapshot_failures_total",
			Help: "Snapshots that could not be saved.",
		})),
	}
}

func (m *Metrics) message(lane route.Lane, result string) {
	m.messages.WithLabelValues(lane.Receiver, lane.Integration, result).Inc()
}

func (m *Metrics) attempt(r result, v delivery.Verdict, now time.Time) {
	lane := r.attempt.Lane
	answer := "none"
	switch {
	case r.outcome.Canceled:
		answer = "canceled"
	case r.outcome.Status > 0:
		answer = strconv.Itoa(r.outcome.Status/100) + "xx"
	case r.outcome.Told:
		answer = "2xx" // printed
	}
	m.attempts.WithLabelValues(lane.Receiver, lane.Integration, answer).Inc()
	m.seconds.WithLabelValues(lane.Receiver, lane.Integration).Observe(r.took.Seconds())
	switch v.Result {
	case deliveryv1.Outcome_OUTCOME_TOLD:
		m.message(lane, "told")
		if !r.attempt.StoredAt.IsZero() {
			m.told.WithLabelValues(lane.Receiver, lane.Integration).Observe(max(0, now.Sub(r.attempt.StoredAt).Seconds()))
		}
	case deliveryv1.Outcome_OUTCOME_DEAD:
		m.message(lane, "dead")
	}
}

func (m *Metrics) pendingMessages(pending map[[2]string]int) {
	for way, n := range pending {
		m.pending.WithLabelValues(way[0], way[1]).Set(float64(n))
	}
}

func (m *Metrics) snapshot(size int, took time.Duration, err error) {
	if err != nil {
		m.saveFailed.Inc()
		return
	}
	m.saved.SetToCurrentTime()
	m.savedBytes.Set(float64(size))
	m.saveSeconds.Observe(took.Seconds())
}
