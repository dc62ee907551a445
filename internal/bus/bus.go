// Package bus is the only door to NATS JetStream. It gives the services
// streams whose settings are checked, publishes that are retried under one id,
// reads that survive every restart of the server, buckets, objects and leases.
//
// What it promises, and what it does not:
//
//   - A [Conn] reconnects for ever. Nothing is buffered while the server is
//     away: an operation fails or waits, and never happens "later".
//   - [Conn.Publish] and [Publisher] store a message at least once. With an ID it
//     is stored once within the stream's duplicate window; without one, an answer
//     that got lost means that the message may be stored twice.
//   - [Conn.PublishExpecting] never retries: a compare-and-set whose answer got
//     lost is [ErrUnknownOutcome], and only a read can tell what became of it.
//   - [Conn.Read] delivers each stored message once, in the order of the stream,
//     until its handler or its context ends it. Messages that were removed
//     from the stream are not announced: callers see a hole in the sequences.
//   - [Conn.Last], [Conn.At] and [Bucket.Get] are answered by the stream's leader,
//     hence they see every write that was acknowledged before them.
//   - A [Lease] is a hint about who works on what. It is not a lock: guard
//     what it covers with a compare-and-set.
//
// No service imports nats.go itself.
package bus

import "time"

// Names of what Tocsin keeps in JetStream.
const (
	// EventsStream holds every fact that the collector publishes.
	EventsStream = "EVENTS"
	// AlertsStream holds the batches of transitions that the notifier accepted.
	AlertsStream = "ALERTS"
	// DeliveriesStream holds the notifier's journal of deliveries.
	DeliveriesStream = "DELIVERIES"

	// LeasesBucket holds the leases of partitions and of the notifier.
	LeasesBucket = "tocsin-leases"
	// RulesBucket holds rule sets by their hash.
	RulesBucket = "tocsin-rules"
	// MetaBucket holds the generation of the log.
	MetaBucket = "tocsin-meta"

	// SnapshotsBucket is the object store of the alerter's snapshots.
	SnapshotsBucket = "tocsin-snapshots"
	// DeliverySnapshotsBucket is the object store of the notifier's snapshots.
	DeliverySnapshotsBucket = "tocsin-delivery-snapshots"
)

const (
	// eventsMaxAge is the history that backtests and rebuilds may use.
	eventsMaxAge = 7 * 24 * time.Hour
	// eventsMaxBytes is the most that EVENTS takes unless the operator says
	// otherwise: 7 days of 100 targets polled every 15 s are about 2 GiB.
	eventsMaxBytes = 10 << 30
	// eventsDuplicateWindow exceeds the 30 minutes that RunPod keeps a job, so
	// that no source can repeat a job fact after its id was forgotten. NATS
	// holds about 160 bytes per id.
	eventsDuplicateWindow = 40 * time.Minute
	// alertsMaxAge must exceed eventsMaxAge: a replay of EVENTS asks ALERTS how
	// far it was told.
	alertsMaxAge = 90 * 24 * time.Hour
	// deliveriesMaxAge is how long one can ask what became of a delivery.
	deliveriesMaxAge = 30 * 24 * time.Hour
)

// Events returns the settings of EVENTS. Producers publish
// tocsin.event.<kind>.<target>; the stream stores
// tocsin.event.<partition>.<kind>.<target>. It refuses new messages rather than
// drop old ones when maxBytes are used. maxBytes of 0 or less leaves the size
// to the server: 10 GiB, or less where its disk has less room, and whatever an
// existing stream has.
func Events(maxBytes int64) StreamConfig {
	cfg := StreamConfig{
		Name:     EventsStream,
		Subjects: []string{"tocsin.event.*.*", "tocsin.event.*.*.*"},
		Transform: &Transform{
			Source:      "tocsin.event.*.*",
			Destination: "tocsin.event.{{partition(64,2)}}.{{wildcard(1)}}.{{wildcard(2)}}",
		},
		MaxAge:          eventsMaxAge,
		MaxBytes:        maxBytes,
		DiscardNew:      true,
		DuplicateWindow: eventsDuplicateWindow,
		AtomicPublish:   true,
	}
	if maxBytes <= 0 {
		cfg.MaxBytes, cfg.FitBytes = eventsMaxBytes, true
	}
	return cfg
}

// Alerts returns the settings of ALERTS: one subject tocsin.alert.<partition>
// per partition, kept for 90 days without a limit of size.
func Alerts() StreamConfig {
	return StreamConfig{
		Name:     AlertsStream,
		Subjects: []string{"tocsin.alert.*"},
		MaxAge:   alertsMaxAge,
	}
}

// Deliveries returns the settings of DELIVERIES: one subject
// tocsin.delivery.<shard> per shard, kept for 30 days without a limit of size.
func Deliveries() StreamConfig {
	return StreamConfig{
		Name:          DeliveriesStream,
		Subjects:      []string{"tocsin.delivery.*"},
		MaxAge:        deliveriesMaxAge,
		AtomicPublish: true,
	}
}
