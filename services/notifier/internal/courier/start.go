package courier

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/tocsin-dev/tocsin/internal/bus"
	alertv1 "github.com/tocsin-dev/tocsin/proto/gen/tocsin/alert/v1"
	deliveryv1 "github.com/tocsin-dev/tocsin/proto/gen/tocsin/delivery/v1"
	"github.com/tocsin-dev/tocsin/services/notifier/internal/delivery"
	"github.com/tocsin-dev/tocsin/services/notifier/internal/journal"
	"github.com/tocsin-dev/tocsin/services/notifier/internal/route"
)

// accompany runs lead beside helpers, which end when it does, and returns the
// error of whichever failed first; errDone when lead ended well.
func accompany(ctx context.Context, lead func(helping context.Context) error, helpers ...func(context.Context) error) error {
	g, helping := errgroup.WithContext(ctx)
	helping, dismiss := context.WithCancelCause(helping)
	for _, help := range helpers {
		g.Go(func() error { return help(helping) })
	}
	g.Go(func() error {
		err := lead(helping)
		dismiss(cmp.Or(err, errDone)) // the helpers end with the cause, and may be first to say so
		return err
	})
	return g.Wait()
}

// allAlerts are the subjects of ALERTS.
const allAlerts = "tocsin.alert.>"

// load brings the core to the newest snapshot and the end of the journal, and
// fences former owners. save tells that a snapshot must be taken before anybody
// is told anything: there was none, or not of these streams.
func (c *Courier) load(ctx context.Context) (save bool, err error) {
	begin := time.Now()
	if c.alertsState, err = c.o.Conn.EnsureStream(ctx, bus.Alerts()); err != nil {
		return false, err
	}
	if c.deliveriesState, err = c.o.Conn.EnsureStream(ctx, bus.Deliveries()); err != nil {
		return false, err
	}
	c.saved, err = journal.OpenSnapshots(ctx, c.o.Conn, bus.DeliverySnapshotsBucket, c.o.Log)
	if err != nil {
		return false, err
	}
	snapshot, err := c.saved.Load(ctx)
	if err != nil {
		return false, err
	}
	var other others
	if snapshot != nil {
		if other, err = c.compare(ctx, snapshot); err != nil {
			return false, err
		}
		if err := c.core.Restore(snapshot); err != nil {
			return false, fmt.Errorf("restore deliveries: %w", err)
		}
		if !other.deliveries {
			c.saved.Loaded(snapshot)
		}
	}
	last, err := c.journal.Open(ctx, c.core, snapshot.GetDeliveriesSequence(), c.alertsState.LastSeq)
	if err != nil {
		return false, err
	}
	if other.alerts {
		c.core.Rebase(lastKnown(snapshot))
	}
	c.writer = c.journal.Writer(last, c.stored)
	c.o.Log.InfoContext(ctx, "deliveries loaded", "snapshot", snapshot != nil, "alerts_seq", c.core.AlertsSequence(),
		"alerts_head", c.alertsState.LastSeq, "took", time.Since(begin))
	return snapshot == nil || other.alerts || other.deliveries, nil
}

// readAlerts decodes ALERTS, from what the core knows on, until ctx ends.
func (c *Courier) readAlerts(ctx context.Context) error {
	err := c.o.Conn.Read(ctx, bus.ReadOptions{
		Stream: bus.AlertsStream, From: c.core.AlertsSequence() + 1, Known: c.knownAlerts(), Prefetch: alertsAhead,
		Idle: func() {
			select {
			case c.idle <- struct{}{}:
			default:
			}
		},
	}, func(d bus.Delivery) error {
		select {
		case c.alerts <- c.decode(ctx, d):
			return nil
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	})
	if errors.Is(err, bus.ErrStreamReplaced) || errors.Is(err, bus.ErrStreamNotFound) {
		return c.tellReplaced(ctx, fmt.Errorf("read alerts: %w", err))
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return fmt.Errorf("read alerts: %w", err)
}

// decode returns a message of ALERTS. One that cannot be read is counted and
// passed on empty.
func (c *Courier) decode(ctx context.Context, d bus.Delivery) delivery.AlertMessage {
	m := delivery.AlertMessage{Seq: d.Seq, Stored: d.Time}
	partition, err := strconv.Atoi(d.Subject[strings.LastIndexByte(d.Subject, '.')+1:])
	var b alertv1.TransitionBatch
	if err := errors.Join(err, proto.Unmarshal(d.Data, &b)); err != nil {
		c.o.Metrics.undecodable.Inc()
		c.o.Log.ErrorContext(ctx, "an alert message cannot be read and is skipped", "subject", d.Subject, "seq", d.Seq, "err", err)
		return m
	}
	m.Partition, m.Transitions = partition, b.GetTransitions()
	for _, t := range m.Transitions {
		if e := t.GetAlert().GetEvidence(); e != nil {
			e.Series = nil // no message tells them, and they are most of what waits here
		}
	}
	return m
}

// catchUp applies the alerts that were stored when the courier began, as far as
// they are still kept.
func (c *Courier) catchUp(ctx, helping context.Context) error {
	last, kept, err := c.o.Conn.Last(helping, bus.AlertsStream, allAlerts)
	if err != nil {
		return fmt.Errorf("catch up with alerts: %w", err)
	}
	for kept && c.core.AlertsSequence() < last.Seq {
		select {
		case m := <-c.alerts:
			c.apply(c.clock.now(), m)
		case <-c.idle:
			// Nothing comes: either the server is slow, or what was last has been
			// removed from the stream, and less is to be waited for.
			if last, kept, err = c.o.Conn.Last(helping, bus.AlertsStream, allAlerts); err != nil {
				return fmt.Errorf("catch up with alerts: %w", err)
			}
		case s := <-c.stored:
			c.journaled(s)
		case err := <-c.replaced:
			return err
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-helping.Done():
			return context.Cause(helping)
		}
	}
	return nil
}

// depart says what becomes of receivers that are not configured any more.
func (c *Courier) depart(ctx context.Context, left []delivery.Departure) {
	groups := map[delivery.Departure]int{}
	for _, d := range left {
		if d.To == (route.Way{}) {
			c.o.Metrics.message(d.Lane, "dead")
		}
		d.Lane.GroupKey = ""
		groups[d]++
	}
	order := func(a, b delivery.Departure) int {
		return cmp.Or(cmp.Compare(a.Lane.Receiver, b.Lane.Receiver), cmp.Compare(a.Lane.Integration, b.Lane.Integration))
	}
	for _, d := range slices.SortedFunc(maps.Keys(groups), order) {
		log := c.o.Log.With("receiver", d.Lane.Receiver, "integration", d.Lane.Integration, "groups", groups[d])
		if d.To == (route.Way{}) {
			log.WarnContext(ctx, "a receiver is not configured any more and is not told the end of its alerts")
			continue
		}
		log.InfoContext(ctx, "a receiver was renamed or has another address, where its alerts are told on",
			"to_receiver", d.To.Receiver, "to_integration", d.To.Integration)
	}
}

// snapshot returns the state for the object store.
func (c *Courier) snapshot() *deliveryv1.Snapshot {
	s := c.core.Snapshot(c.clock.now())
	s.AlertsCreated = timestamppb.New(c.alertsState.Created)
	s.DeliveriesCreated = timestamppb.New(c.deliveriesState.Created)
	if c.unstored == 0 {
		s.DeliveriesSequence = slices.Max(s.GetShardSequences())
	}
	return s
}

// save takes a snapshot now.
func (c *Courier) save(ctx context.Context) error {
	begin := time.Now()
	c.changed, c.sinceSave = false, 0
	size, err := c.store(ctx, c.snapshot())
	c.o.Metrics.snapshot(size, time.Since(begin), err)
	return err
}

// store saves a snapshot, and with it what the journal is recognized by.
func (c *Courier) store(ctx context.Context, s *deliveryv1.Snapshot) (size int, err error) {
	if s.DeliveriesStoredAt, err = c.journal.StoredAt(ctx, s); err != nil {
		return 0, err
	}
	size, err = c.saved.Save(ctx, s)
	signal(c.grown) // and more may go by now
	return size, err
}

// saveFirst takes a snapshot once everything is journaled, before anybody is told
// anything.
func (c *Courier) saveFirst(ctx, helping context.Context) error {
	saving, done := either(ctx, helping)
	defer done()
	saving, cancel := context.WithTimeout(saving, saveTimeout)
	defer cancel()
	if err := c.settle(saving); err != nil {
		return err
	}
	c.saveDue = false
	return c.save(saving)
}

// settle waits until all records that the core made are stored.
func (c *Courier) settle(ctx context.Context) error {
	c.write(c.core.Drain())
	for c.unstored > 0 {
		select {
		case s := <-c.stored:
			c.journaled(s)
		case why := <-c.replaced:
			return why
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	return nil
}

// saveLater takes a snapshot if something changed, and stores it beside the
// owner's work. All records must be stored.
func (c *Courier) saveLater(ctx context.Context) {
	c.saveDue = false
	if !c.changed || c.saving {
		return
	}
	s, begin := c.snapshot(), time.Now()
	c.changed, c.saving, c.sinceSave = false, true, 0
	go func() {
		ctx, cancel := context.WithTimeout(ctx, saveTimeout)
		defer cancel()
		size, err := c.store(ctx, s)
		c.o.Metrics.snapshot(size, time.Since(begin), err)
		c.saveDone <- err
	}()
}

// saveTimeout bounds the saving of a snapshot beside other work. It takes a second
// or two; a store that has no room for it never takes it, which must be said.
const saveTimeout = 2 * time.Minute

// saveEnded notes that a snapshot was stored, or not: the next one will be.
func (c *Courier) saveEnded(ctx context.Context, err error) {
	c.saving = false
	if err != nil {
		c.changed = true
		c.o.Log.WarnContext(ctx, "the snapshot was not saved; the next restart replays more", "err", err)
	}
}

// errStopping ends attempts that outlive the grace of a stop.
var errStopping = errors.New("the notifier stops")

// stop waits a moment for attempts in flight, journals what became of them, and
// takes a snapshot.
func (c *Courier) stop(helping context.Context) error {
	limit, cancel := context.WithTimeout(helping, stopLimit)
	defer cancel()
	if !c.await(limit, true) {
		c.o.Log.WarnContext(helping, "stopping took too long; the next start repeats what was not journaled")
		return nil
	}
	if err := c.save(limit); err != nil {
		c.o.Log.WarnContext(helping, "the last snapshot was not saved; the next start replays more", "err", err)
	}
	return nil
}

// await waits until no attempt is in flight, which it ends after a moment, and
// everything is stored, if journaled asks for that. It reports whether that is so.
func (c *Courier) await(limit context.Context, journaled bool) bool {
	grace := time.AfterFunc(stopGrace, func() { c.cancelAttempts(errStopping) })
	defer grace.Stop()
	for c.running > 0 || c.saving || journaled && c.unstored > 0 {
		select {
		case r := <-c.results:
			c.finish(r)
			c.write(c.core.Drain())
		case s := <-c.stored:
			c.journaled(s)
		case err := <-c.saveDone:
			c.saveEnded(limit, err)
		case <-limit.Done():
			return false
		}
	}
	return true
}
