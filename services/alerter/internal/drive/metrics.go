package drive

import (
	"strconv"

	"github.com/prometheus/client_golang/prometheus"

	alertv1 "github.com/tocsin-dev/tocsin/proto/gen/tocsin/alert/v1"
)

type metrics struct {
	applied          prometheus.Counter
	foldSeconds      prometheus.Counter
	ticks            prometheus.Counter
	stalls           prometheus.Counter
	passed           prometheus.Counter
	unfollowed       prometheus.Counter
	snapshots        prometheus.Counter
	snapshotFailures prometheus.Counter
	transitions      *prometheus.CounterVec
	problems         *prometheus.CounterVec
	loads            *prometheus.CounterVec
	reloads          *prometheus.CounterVec
	unreadable       *prometheus.CounterVec
	depth            *prometheus.GaugeVec
}

func newMetrics(r prometheus.Registerer) *metrics {
	counter := func(name, help string) prometheus.Counter {
		return prometheus.NewCounter(prometheus.CounterOpts{Name: "tocsin_alerter_" + name, Help: help})
	}
	vector := func(name, help string, labels ...string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Name: "tocsin_alerter_" + name, Help: help}, labels)
	}
	m := &metrics{
		applied:          counter("events_applied_total", "Messages of the event log that were applied, ticks included, replays too."),
		foldSeconds:      counter("fold_seconds_total", "Time spent applying messages, over all partitions."),
		ticks:            counter("ticks_published_total", "Ticks published to keep time going in quiet partitions."),
		stalls:           counter("outbox_full_total", "Times that a full outbox stopped its partition."),
		passed:           counter("holes_passed_total", "Holes in the middle of the event log that a partition went past."),
		unfollowed:       counter("unfollowed_watermarks_total", "Looks at a cause stored by the notifier that no event log can follow. Its partition's alerts are kept until it is removed from ALERTS."),
		snapshots:        counter("snapshots_saved_total", "Snapshots saved."),
		snapshotFailures: counter("snapshot_failures_total", "Snapshots that were not saved. The one before stays."),
		transitions:      vector("transitions_total", "Transitions by kind, replays included.", "kind"),
		problems:         vector("rule_problems_total", "What went wrong in the fold and was skipped, by kind and rule.", "kind", "rule"),
		loads:            vector("loads_total", "Loads of partitions by source: redis, snapshot, fresh, rebuild.", "source"),
		reloads:          vector("reloads_total", "Partitions that were dropped from memory and loaded anew, by reason.", "reason"),
		unreadable:       vector("unreadable_states_total", "Stored states that could not be read, by source.", "source"),
		depth: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "tocsin_alerter_outbox_depth",
			Help: "Transitions that the notifier has not acknowledged, by partition.",
		}, []string{"partition"}),
	}
	for _, source := range []string{fromRedis, fromSnapshot, fromNothing, fromRebuild} {
		m.loads.WithLabelValues(source)
	}
	for _, kind := range []alertv1.TransitionKind{
		alertv1.TransitionKind_TRANSITION_KIND_FIRING,
		alertv1.TransitionKind_TRANSITION_KIND_RESOLVED,
		alertv1.TransitionKind_TRANSITION_KIND_RENEWED,
	} {
		m.transitions.WithLabelValues(kindName(kind))
	}
	if r != nil {
		r.MustRegister(m.applied, m.foldSeconds, m.ticks, m.stalls, m.passed, m.unfollowed, m.snapshots, m.snapshotFailures,
			m.transitions, m.problems, m.loads, m.reloads, m.unreadable, m.depth)
	}
	return m
}

// outbox sets the depth of a partition's outbox.
func (m *metrics) outbox(partition, depth int) {
	m.depth.WithLabelValues(strconv.Itoa(partition)).Set(float64(depth))
}

func kindName(k alertv1.TransitionKind) string {
	switch k {
	case alertv1.TransitionKind_TRANSITION_KIND_FIRING:
		return "firing"
	case alertv1.TransitionKind_TRANSITION_KIND_RESOLVED:
		return "resolved"
	case alertv1.TransitionKind_TRANSITION_KIND_RENEWED:
		return "renewed"
	default:
		return "unknown"
	}
}
