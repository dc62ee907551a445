package drive

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	alertv1 "github.com/tocsin-dev/tocsin/proto/gen/tocsin/alert/v1"
	notifyv1 "github.com/tocsin-dev/tocsin/proto/gen/tocsin/notify/v1"
	statev1 "github.com/tocsin-dev/tocsin/proto/gen/tocsin/state/v1"
	"github.com/tocsin-dev/tocsin/services/alerter/internal/engine"
	"github.com/tocsin-dev/tocsin/services/alerter/internal/eventlog"
	"github.com/tocsin-dev/tocsin/services/alerter/internal/outbox"
	"github.com/tocsin-dev/tocsin/services/alerter/internal/ruleset"
	"github.com/tocsin-dev/tocsin/services/alerter/internal/snapshot"
	"github.com/tocsin-dev/tocsin/services/alerter/internal/state"
)

// The sources of a state.
const (
	fromRedis    = "redis"
	fromSnapshot = "snapshot"
	fromNothing  = "fresh"
	fromRebuild  = "rebuild"
)

// watermarkWait is how long a load waits for the notifier's watermark. Knowing
// it spares sending what is stored already; not knowing it costs only that.
const watermarkWait = 2 * time.Second

// loaded is a partition that this replica owns, up to a place in the log.
type loaded struct {
	part   *engine.Partition
	owner  *state.Owner
	queue  *outbox.Queue
	source string
}

// load takes the first state that fits the log: Redis, the newest snapshot, an
// older one; else it builds one from what is left of the log.
func (d *Driver) load(ctx context.Context, partition int) (*loaded, error) {
	saved, err := d.readState(ctx, partition)
	if err != nil {
		return nil, err
	}
	if saved.Newer {
		return nil, fmt.Errorf("head in Redis: %w", errNewer)
	}
	if l, err := d.fromRedis(ctx, partition, saved); l != nil || err != nil {
		return l, err
	}
	refs, err := d.Snapshots.List(ctx, partition)
	if err != nil {
		return nil, err
	}
	if l, err := d.fromSnapshots(ctx, partition, saved, refs); l != nil || err != nil {
		return l, err
	}
	if saved.Head == nil && len(refs) == 0 && d.EventLog.Original() {
		if l, err := d.fromStart(ctx, partition, saved); l != nil || err != nil {
			return l, err
		}
	}
	return d.rebuild(ctx, partition, saved, refs)
}

// readState reads Redis, and waits for it as long as it is away.
func (d *Driver) readState(ctx context.Context, partition int) (*state.Saved, error) {
	wait := firstWait
	for n := 1; ; n++ {
		saved, err := d.State.Read(ctx, partition)
		if err == nil || ctx.Err() != nil {
			return saved, err
		}
		if worthALine(n) {
			d.Log.LogAttrs(ctx, slog.LevelWarn, "state not read; will try again",
				slog.Int("partition", partition), slog.Int("attempt", n), slog.Any("err", err))
		}
		if err := pause(ctx, wait); err != nil {
			return nil, err
		}
		wait = min(2*wait, longestWait)
	}
}

// fits tells whether the log and the rules go on where position ends.
func (d *Driver) fits(ctx context.Context, position *statev1.Position) (bool, error) {
	verdict, err := d.EventLog.Check(ctx, position)
	if err != nil {
		return false, err
	}
	switch verdict {
	case eventlog.Fits:
	case eventlog.Cut:
		if err := d.EventLog.Raise(ctx, position.GetLogId(), ""); err != nil {
			return false, err
		}
		return false, errLogChanged
	default:
		return false, nil
	}
	hash := position.GetRuleSetHash()
	if hash == "" {
		return true, nil
	}
	_, err = d.Rules.Fetch(ctx, hash)
	switch {
	case errors.Is(err, ruleset.ErrMissing):
		return false, nil
	case errors.Is(err, ruleset.ErrUnreadable):
		return false, fmt.Errorf("%w: %w", errNewer, err)
	}
	return err == nil, err
}

// fromRedis returns nil when what Redis holds is not usable.
func (d *Driver) fromRedis(ctx context.Context, partition int, saved *state.Saved) (*loaded, error) {
	if saved.Stored == nil {
		return nil, nil //nolint:nilnil // nothing there is no error
	}
	if ok, err := d.fits(ctx, saved.Stored.GetPosition()); !ok {
		return nil, err
	}
	part, err := engine.Load(saved.Stored.GetFold(), saved.Targets, saved.Active, d.Speed)
	if foldIsNewer(err) {
		return nil, fmt.Errorf("fold in Redis: %w: %w", errNewer, err)
	}
	if err != nil {
		d.unreadable(ctx, partition, fromRedis, err)
		return nil, nil //nolint:nilnil // a snapshot may do
	}
	owner, err := d.State.Take(ctx, partition, saved)
	if err != nil {
		return nil, err
	}
	return &loaded{
		part: part, owner: owner, source: fromRedis,
		queue: outbox.NewQueue(part.LogID(), saved.Outbox, saved.Stored.GetAcknowledged()),
	}, nil
}

// fromSnapshots returns nil when no snapshot is usable.
func (d *Driver) fromSnapshots(ctx context.Context, partition int, saved *state.Saved, refs []snapshot.Ref) (*loaded, error) {
	for i, ref := range refs {
		snap, err := d.Snapshots.Load(ctx, partition, ref)
		switch {
		case errors.Is(err, snapshot.ErrNewer):
			return nil, fmt.Errorf("%w: %w", errNewer, err)
		case errors.Is(err, snapshot.ErrUnreadable):
			d.unreadable(ctx, partition, fromSnapshot, err)
			continue
		case err != nil:
			return nil, err
		}
		ok, err := d.fits(ctx, snap.GetPosition())
		if err != nil {
			return nil, err
		}
		if !ok {
			continue
		}
		part, err := engine.Restore(snap.GetFold(), d.Speed)
		if foldIsNewer(err) {
			return nil, fmt.Errorf("fold in a snapshot: %w: %w", errNewer, err)
		}
		if err != nil {
			d.unreadable(ctx, partition, fromSnapshot, err)
			continue
		}
		if i == 0 && len(refs) > snapshot.Kept {
			// A stop takes no time to prune: each leaves one more.
			if err := d.Snapshots.Remove(ctx, partition, refs[snapshot.Kept:]); err != nil {
				return nil, err
			}
		}
		mark := d.watermark(ctx, partition)
		if err := d.doubt(ctx, partition, part.LogID(), mark); err != nil {
			return nil, err
		}
		queue := outbox.NewQueue(part.LogID(), snap.GetOutbox(), snap.GetAcknowledged())
		_ = queue.Acknowledge(mark) // one of a younger log was doubted, and acknowledges nothing
		return d.install(ctx, partition, saved, part, queue, fromSnapshot)
	}
	return nil, nil //nolint:nilnil // there is none that fits
}

// fromStart returns an empty state if nothing of the log is missing: as there
// was none before it, and nothing that was stored had to be refused, a replay
// from the start gives what was there, ids and all.
func (d *Driver) fromStart(ctx context.Context, partition int, saved *state.Saved) (*loaded, error) {
	logID := d.EventLog.ID()
	if whole, err := d.fits(ctx, &statev1.Position{LogId: logID}); !whole {
		return nil, err
	}
	mark := d.watermark(ctx, partition)
	if err := d.doubt(ctx, partition, logID, mark); err != nil {
		return nil, err
	}
	part := engine.NewPartition(partition, logID, d.Speed)
	return d.install(ctx, partition, saved, part, outbox.NewQueue(logID, nil, mark), fromNothing)
}

// foldIsNewer tells whether only a later version can read a fold: it must not be
// taken for damaged and written over.
func foldIsNewer(err error) bool {
	var format engine.FormatError
	return errors.As(err, &format) && format.Newer()
}

func (d *Driver) unreadable(ctx context.Context, partition int, source string, err error) {
	d.metrics.unreadable.WithLabelValues(source).Inc()
	d.Log.LogAttrs(ctx, slog.LevelError, "stored state is not readable; trying the next",
		slog.Int("partition", partition), slog.String("source", source), slog.Any("err", err))
}

// install writes a state into Redis as this replica's own.
func (d *Driver) install(ctx context.Context, partition int, saved *state.Saved,
	part *engine.Partition, queue *outbox.Queue, source string,
) (*loaded, error) {
	delta := part.Delta()
	trim, acknowledged := queue.Stored()
	queue.Trimmed(trim) // what is acknowledged is not stored to begin with
	owner, err := d.State.Install(ctx, partition, saved, state.Content{
		Position:     positionOf(part),
		Acknowledged: acknowledged,
		Fold:         delta.Head,
		Targets:      delta.Targets,
		Active:       delta.Active,
		Outbox:       queue.Waiting(),
	})
	if err != nil {
		return nil, err
	}
	return &loaded{part: part, owner: owner, queue: queue, source: source}, nil
}

// watermark returns the newest cause that the notifier has of a partition, so
// that it need not be sent again. It is nil when the notifier does not answer.
func (d *Driver) watermark(ctx context.Context, partition int) *alertv1.Cause {
	ctx, cancel := context.WithTimeout(ctx, watermarkWait)
	defer cancel()
	answer, err := d.Notifier.Watermark(ctx, &notifyv1.WatermarkRequest{Partition: uint32(partition)})
	if err != nil {
		return nil
	}
	return answer.GetWatermark()
}

func positionOf(part *engine.Partition) *statev1.Position {
	p := &statev1.Position{
		LogId:           part.LogID(),
		AppliedSequence: part.AppliedSeq(),
		RuleSetHash:     part.RuleSetHash(),
	}
	if p.GetAppliedSequence() > 0 {
		p.AppliedTime = timestamppb.New(part.Stamp())
	}
	return p
}

// step applies a message, and fetches the rule set that it needs. A rule set
// that nobody has is passed over, its activation having no effect.
func (d *Driver) step(ctx context.Context, part *engine.Partition, m engine.Message) (engine.StepResult, error) {
	for wait := firstWait; ; wait = min(2*wait, longestWait) {
		result, err := part.Step(m, d.Rules.Program)
		var unknown engine.UnknownRulesError
		if !errors.As(err, &unknown) {
			return result, err
		}
		_, err = d.Rules.Fetch(ctx, unknown.Hash)
		switch {
		case err == nil:
			continue
		case errors.Is(err, ruleset.ErrMissing) && m.Event.GetRuleSetActivated().GetHash() == unknown.Hash:
			d.metrics.problems.WithLabelValues("missing_rule_set", "").Inc()
			d.Log.LogAttrs(ctx, slog.LevelError, "activated rule set is not kept; the one before stays in force",
				slog.Int("partition", part.Index()), slog.Uint64("seq", m.Seq), slog.String("rule_set", unknown.Hash))
			m.Event = nil
			continue
		case errors.Is(err, ruleset.ErrMissing), errors.Is(err, ruleset.ErrUnreadable):
			return engine.StepResult{}, fmt.Errorf("%w: %w", errNewer, err)
		}
		if err := pause(ctx, wait); err != nil {
			return engine.StepResult{}, err
		}
	}
}

// alertsOf lists the pending and firing alerts of a partition.
func alertsOf(part *engine.Partition) []*alertv1.Alert {
	var alerts []*alertv1.Alert
	for a := range part.Alerts() {
		alerts = append(alerts, a)
	}
	return alerts
}
