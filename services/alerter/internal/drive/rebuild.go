package drive

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/tocsin-dev/tocsin/internal/bus"
	"github.com/tocsin-dev/tocsin/internal/event"
	alertv1 "github.com/tocsin-dev/tocsin/proto/gen/tocsin/alert/v1"
	notifyv1 "github.com/tocsin-dev/tocsin/proto/gen/tocsin/notify/v1"
	"github.com/tocsin-dev/tocsin/services/alerter/internal/engine"
	"github.com/tocsin-dev/tocsin/services/alerter/internal/eventlog"
	"github.com/tocsin-dev/tocsin/services/alerter/internal/outbox"
	"github.com/tocsin-dev/tocsin/services/alerter/internal/ruleset"
	"github.com/tocsin-dev/tocsin/services/alerter/internal/snapshot"
	"github.com/tocsin-dev/tocsin/services/alerter/internal/state"
)

// callTimeout bounds one call of the notifier.
const callTimeout = 10 * time.Second

// errReplayed ends the reading of a replay.
var errReplayed = errors.New("replayed")

// rebuild makes a state from what is left of the log, when nothing stored fits
// it. Nobody is told of what happens in the replay; afterwards the outcome is
// compared with what the notifier knows, and only the difference is sent. It
// waits for the notifier, since without it nothing can be compared. The
// snapshots that did not fit go first, so that nobody takes one for newer than
// what is saved then.
func (d *Driver) rebuild(ctx context.Context, partition int, saved *state.Saved, unfit []snapshot.Ref) (*loaded, error) {
	began := time.Now()
	part, err := d.replay(ctx, partition)
	if err != nil {
		return nil, fmt.Errorf("replay what is left of the log: %w", err)
	}
	told, watermark, err := d.told(ctx, partition)
	if err != nil {
		return nil, fmt.Errorf("ask what the notifier was told: %w", err)
	}
	if err := d.doubt(ctx, partition, part.LogID(), watermark); err != nil {
		return nil, err
	}
	difference := part.Reconcile(told, part.Stamp())
	if part.LogID() != d.EventLog.ID() {
		return nil, errLogChanged // what did not fit the log before may fit this one
	}
	if err := d.Snapshots.Remove(ctx, partition, unfit); err != nil {
		return nil, err
	}
	l, err := d.install(ctx, partition, saved, part, outbox.NewQueue(part.LogID(), difference, watermark), fromRebuild)
	if err != nil {
		return nil, err
	}
	snap, err := snapshotOf(l.part, l.queue)
	if err != nil {
		return nil, err
	}
	if err := d.Snapshots.Save(ctx, partition, snap); err != nil {
		return nil, fmt.Errorf("save the rebuilt state: %w", err)
	}
	d.metrics.snapshots.Inc()
	d.Log.LogAttrs(ctx, slog.LevelWarn, "state rebuilt from what is left of the event log",
		slog.Int("partition", partition), slog.Uint64("applied_seq", part.AppliedSeq()),
		slog.Int("told", len(told)), slog.Int("differences", len(difference)), slog.Duration("took", time.Since(began)))
	return l, nil
}

// replay folds all that the log still has of a partition, with nothing sent. It
// begins with the rules that were last in force, since their activation may be
// gone: judged by no rules, every alert would be over. It ends with a tick of its own: the differences found afterwards are
// caused by that tick, which nobody was told anything of before.
func (d *Driver) replay(ctx context.Context, partition int) (*engine.Partition, error) {
	program, err := d.Rules.Seed(ctx)
	if errors.Is(err, ruleset.ErrUnreadable) {
		return nil, fmt.Errorf("%w: %w", errNewer, err)
	}
	if err != nil {
		return nil, err
	}
	end, err := d.Publish(ctx, bus.Message{Subject: event.PartitionSubject(partition, event.KindTick), Data: d.tick})
	if err != nil {
		return nil, fmt.Errorf("publish a tick: %w", err)
	}
	part := engine.NewPartition(partition, d.EventLog.ID(), d.Speed)
	part.Begin(program)
	err = d.ReadPartition(ctx, partition, func(m bus.Delivery) error {
		if _, err := d.step(ctx, part, eventlog.Message(m)); err != nil {
			return err
		}
		if m.Seq >= end.Seq {
			return errReplayed
		}
		return nil
	})
	if !errors.Is(err, errReplayed) {
		return nil, err
	}
	return part, nil
}

// told asks the notifier what fires by its records, and for the newest cause,
// until it answers.
func (d *Driver) told(ctx context.Context, partition int) ([]*alertv1.Alert, *alertv1.Cause, error) {
	wait := firstWait
	for n := 1; ; n++ {
		alerts, watermark, err := d.askTold(ctx, uint32(partition))
		if err == nil || ctx.Err() != nil {
			return alerts, watermark, err
		}
		if worthALine(n) {
			d.Log.LogAttrs(ctx, slog.LevelWarn, "rebuild waits for the notifier",
				slog.Int("partition", partition), slog.Int("attempt", n), slog.Any("err", err))
		}
		if err := pause(ctx, wait); err != nil {
			return nil, nil, err
		}
		wait = min(2*wait, longestWait)
	}
}

func (d *Driver) askTold(ctx context.Context, partition uint32) ([]*alertv1.Alert, *alertv1.Cause, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	active, err := d.Notifier.ListActive(ctx, &notifyv1.ListActiveRequest{Partition: partition})
	if err != nil {
		return nil, nil, err
	}
	mark, err := d.Notifier.Watermark(ctx, &notifyv1.WatermarkRequest{Partition: partition})
	if err != nil {
		return nil, nil, err
	}
	return active.GetAlerts(), mark.GetWatermark(), nil
}
