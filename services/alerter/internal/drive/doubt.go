package drive

import (
	"context"
	"errors"
	"log/slog"

	alertv1 "github.com/tocsin-dev/tocsin/proto/gen/tocsin/alert/v1"
	statev1 "github.com/tocsin-dev/tocsin/proto/gen/tocsin/state/v1"
	"github.com/tocsin-dev/tocsin/services/alerter/internal/eventlog"
)

// doubt raises the log, and returns errLogChanged, when the newest cause that the
// notifier has of a partition shows that the log is not what it is taken for.
//
// One that no log can follow changes nothing: it is none of an alerter's, and
// loading anew would end in the same place. The outbox keeps what the notifier
// would drop until somebody removes that message.
func (d *Driver) doubt(ctx context.Context, partition int, logID string, stored *alertv1.Cause) error {
	wrong, err := d.wrong(ctx, logID, stored)
	if err != nil || !wrong {
		return err
	}
	err = d.EventLog.Raise(ctx, logID, stored.GetLogId())
	if errors.Is(err, eventlog.ErrNoYounger) {
		d.metrics.unfollowed.Inc()
		if n := d.unfollowed.Add(1); worthALine(int(n)) {
			d.Log.LogAttrs(ctx, slog.LevelError,
				"the notifier has stored an alert that no alerter sent, of an event log that none can follow, and drops all alerts of its partition; "+
					"they are kept until the last message on its subject is removed from the stream ALERTS",
				slog.Int("partition", partition), slog.String("their_log_id", stored.GetLogId()), slog.String("log_id", logID), slog.Any("err", err))
		}
		return nil
	}
	if err != nil {
		return err
	}
	return errLogChanged // all partitions are loaded anew
}

// wrong tells whether a cause that the notifier has shows that the log is another
// one. Causes of a log that does not sort after what is stored would be dropped;
// where anything was told of another log, this one is not the first, whatever the
// lost key of the logs said; and a message of this log that is not there as it was
// told, or at all, shows that it was cut, though every state that is left may be
// from before the cut.
func (d *Driver) wrong(ctx context.Context, logID string, stored *alertv1.Cause) (bool, error) {
	told := stored.GetLogId()
	if told != logID {
		return told > logID || told != "" && d.EventLog.Original(), nil
	}
	if stored.GetStoredAt() == nil {
		reaches, err := d.EventLog.Reaches(ctx, stored.GetSequence())
		return !reaches, err
	}
	verdict, err := d.EventLog.Check(ctx, &statev1.Position{
		LogId: told, AppliedSequence: stored.GetSequence(), AppliedTime: stored.GetStoredAt(),
	})
	return verdict == eventlog.Cut, err
}
