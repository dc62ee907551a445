package courier

import (
	"context"
	"errors"
	"time"

	"github.com/tocsin-dev/tocsin/internal/bus"
	deliveryv1 "github.com/tocsin-dev/tocsin/proto/gen/tocsin/delivery/v1"
	"github.com/tocsin-dev/tocsin/services/notifier/internal/journal"
)

// others says which streams are not the ones that a snapshot was taken of: they
// were made anew, or cut and may have grown again.
type others struct{ alerts, deliveries bool }

// compare compares a snapshot with the streams as they are, and makes it forget
// the places in a journal that lost them.
func (c *Courier) compare(ctx context.Context, s *deliveryv1.Snapshot) (other others, err error) {
	if other.deliveries, err = c.journal.Fit(ctx, s, c.deliveriesState); err != nil {
		return other, err
	}
	if other.deliveries {
		c.o.Metrics.replaced.WithLabelValues(bus.DeliveriesStream).Inc()
		c.o.Log.ErrorContext(ctx, "the journal of deliveries lost what was in it; what was told since the last snapshot may be told again",
			"snapshot_at", s.GetAt().AsTime(), "created", c.deliveriesState.Created)
	}
	if other.alerts, err = c.otherAlerts(ctx, s); err != nil {
		return other, err
	}
	if other.alerts {
		c.o.Metrics.replaced.WithLabelValues(bus.AlertsStream).Inc()
		c.o.Log.ErrorContext(ctx, "the stream of alerts lost what was in it; it is read from its beginning, and what is not known is told",
			"snapshot_at", s.GetAt().AsTime(), "known_seq", s.GetAlertsSequence(), "last_seq", c.alertsState.LastSeq,
			"created", c.alertsState.Created)
	}
	return other, nil
}

// otherAlerts reports whether ALERTS is not the stream that a snapshot knows.
func (c *Courier) otherAlerts(ctx context.Context, s *deliveryv1.Snapshot) (bool, error) {
	switch {
	case !s.GetAlertsCreated().AsTime().Equal(c.alertsState.Created), s.GetAlertsSequence() > c.alertsState.LastSeq:
		return true, nil
	case s.GetAlertsStoredAt() == nil:
		return false, nil
	}
	err := c.o.Conn.Recognize(ctx, bus.AlertsStream, bus.Mark{Seq: s.GetAlertsSequence(), Time: s.GetAlertsStoredAt().AsTime()})
	if errors.Is(err, bus.ErrStreamReplaced) {
		return true, nil
	}
	return false, err
}

// lastKnown returns when the last message of ALERTS that is in a snapshot was
// stored, or a later instant.
func lastKnown(s *deliveryv1.Snapshot) time.Time {
	if s.GetAlertsStoredAt() != nil {
		return s.GetAlertsStoredAt().AsTime()
	}
	return s.GetAt().AsTime()
}

// knownAlerts returns what ALERTS is recognized by when it is read.
func (c *Courier) knownAlerts() []bus.Mark {
	if c.core.AlertsStored().IsZero() {
		return nil
	}
	return []bus.Mark{{Seq: c.core.AlertsSequence(), Time: c.core.AlertsStored()}}
}

// tellReplaced tells the owner that a stream is not the one that was worked on, and
// waits for the end: what the owner knows may be nowhere else now, so it must be
// saved before helpers end.
func (c *Courier) tellReplaced(ctx context.Context, why error) error {
	select {
	case c.replaced <- why:
	case <-ctx.Done():
	}
	<-ctx.Done()
	return context.Cause(ctx)
}

// writeJournal runs the writer.
func (c *Courier) writeJournal(ctx context.Context) error {
	err := c.writer.Run(ctx)
	if errors.Is(err, journal.ErrCut) {
		return c.tellReplaced(ctx, err)
	}
	return err
}

// leave ends the work on streams that were replaced, and returns why. All that
// was read of them is applied and all that is known is saved first. That may be
// more than a journal that was cut can hold: nothing is written to it any more,
// so that no record can come twice.
func (c *Courier) leave(helping context.Context, why error) error {
	for len(c.alerts) > 0 {
		c.apply(c.clock.now(), <-c.alerts)
	}
	limit, cancel := context.WithTimeout(helping, stopLimit)
	defer cancel()
	c.await(limit, !errors.Is(why, journal.ErrCut))
	saving, cancel := context.WithTimeout(helping, saveLimit)
	defer cancel()
	if err := c.save(saving); err != nil {
		c.o.Log.WarnContext(helping, "what was known was not saved; what was told since the last snapshot may be told again", "err", err)
	}
	return why
}

// saveLimit bounds the saving of a snapshot that is in a hurry: one of 100,000
// alerts takes a second.
const saveLimit = 10 * time.Second
