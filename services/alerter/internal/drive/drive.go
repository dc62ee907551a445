// Package drive runs the fold of a partition: it loads the state, applies what
// the log brings, commits the outcome and keeps time going, for as long as this
// replica owns the partition.
//
// Whatever goes wrong in between, the partition is dropped from memory and
// loaded anew from what is certainly stored; what was applied but not committed
// is applied again, with the same outcome.
package drive

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"

	"github.com/tocsin-dev/tocsin/internal/bus"
	"github.com/tocsin-dev/tocsin/internal/event"
	alertv1 "github.com/tocsin-dev/tocsin/proto/gen/tocsin/alert/v1"
	eventv1 "github.com/tocsin-dev/tocsin/proto/gen/tocsin/event/v1"
	notifyv1 "github.com/tocsin-dev/tocsin/proto/gen/tocsin/notify/v1"
	"github.com/tocsin-dev/tocsin/services/alerter/internal/eventlog"
	"github.com/tocsin-dev/tocsin/services/alerter/internal/feed"
	"github.com/tocsin-dev/tocsin/services/alerter/internal/outbox"
	"github.com/tocsin-dev/tocsin/services/alerter/internal/own"
	"github.com/tocsin-dev/tocsin/services/alerter/internal/ruleset"
	"github.com/tocsin-dev/tocsin/services/alerter/internal/snapshot"
	"github.com/tocsin-dev/tocsin/services/alerter/internal/state"
)

const (
	// firstWait and longestWait bound the pause before a partition is loaded
	// again after its work failed: at once for the first time, since a lost
	// state is common after a restart of Redis, and no busier than once a second
	// when something stays broken.
	firstWait   = 10 * time.Millisecond
	longestWait = time.Second
	// stuckFor is how long a partition may take to be loaded, or one of its commits
	// to go through, before that is worth somebody's attention: the largest snapshot
	// and the longest replay of a partition take a few seconds.
	stuckFor = 45 * time.Second
	// calm is how long a session must last for its end to count as a first failure.
	calm = 10 * time.Second
)

var (
	errNewer      = errors.New("a newer release wrote what is stored")
	errLogChanged = errors.New("another event log took the place of this one")
	errGap        = errors.New("messages that the partition needs are gone from the event log")
)

// Notifier is the part of the notifier that a Driver needs.
type Notifier interface {
	outbox.Client
	// ListActive lists the alerts of a partition that the notifier knows to fire.
	ListActive(ctx context.Context, in *notifyv1.ListActiveRequest, opts ...grpc.CallOption) (*notifyv1.ListActiveResponse, error)
}

// Audience is told what becomes of alerts, once it is committed.
type Audience interface {
	// Loaded tells all pending and firing alerts of a partition that begins to
	// run here, and how to learn up to where the log is dealt with.
	Loaded(partition int, alerts []*alertv1.Alert, covered func() (seq uint64, at time.Time))
	// Changed tells alerts that changed.
	Changed(partition int, alerts []*alertv1.Alert)
	// Gone tells that a partition does not run here any more.
	Gone(partition int)
}

// Options are what a Driver works with.
type Options struct {
	// State is Redis.
	State *state.Store
	// Snapshots are the roots of the states.
	Snapshots *snapshot.Store
	// EventLog tells logs apart.
	EventLog *eventlog.Log
	// Feed brings the messages.
	Feed *feed.Feed
	// Rules holds the rule sets.
	Rules *ruleset.Library
	// Sender sends the outboxes.
	Sender *outbox.Sender
	// Notifier answers what it was told.
	Notifier Notifier
	// Publish stores a message in the event log.
	Publish func(ctx context.Context, m bus.Message) (bus.Ack, error)
	// ReadPartition reads the messages of one partition from the oldest on,
	// until ctx ends or handle returns an error, which it returns.
	ReadPartition func(ctx context.Context, partition int, handle func(bus.Delivery) error) error
	// Audience is told of alerts.
	Audience Audience
	// Speed is how many times faster than the log's timestamps rules run.
	Speed float64
	// SnapshotEvery is the time between two snapshots of a partition.
	SnapshotEvery time.Duration
	// Log gets a line for each load and each failure.
	Log *slog.Logger
	// Registerer gets the package's metrics.
	Registerer prometheus.Registerer
}

// Driver runs partitions. It is safe for concurrent use.
type Driver struct {
	Options
	metrics *metrics
	saving  chan struct{} // has a token for each snapshot being saved
	tick    []byte        // an encoded Tick
	// unfollowed counts the looks at causes that no log can follow.
	unfollowed atomic.Uint64

	mu      sync.Mutex
	loading map[int]time.Time // guarded by mu; since when partitions are not loaded
	storing map[int]time.Time // guarded by mu; since when they wait for a commit
	losses  chan struct{}     // guarded by mu; closed, and replaced, when a partition's state was lost
}

// Stuck returns an error that names the partitions that this replica owns and
// could not load, or store what became of them, for 45 s.
func (d *Driver) Stuck() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	var errs []error
	if long := overdue(d.loading); len(long) > 0 {
		errs = append(errs, fmt.Errorf("partitions %v cannot be loaded", long))
	}
	if long := overdue(d.storing); len(long) > 0 {
		errs = append(errs, fmt.Errorf("partitions %v cannot be stored: Redis takes no writes", long))
	}
	return errors.Join(errs...)
}

// overdue returns the partitions that wait for longer than stuckFor, sorted.
func overdue(since map[int]time.Time) []int {
	var long []int
	for p, at := range since {
		if time.Since(at) > stuckFor {
			long = append(long, p)
		}
	}
	slices.Sort(long)
	return long
}

// setLoading notes whether a partition is owned and not loaded.
func (d *Driver) setLoading(partition int, loading bool) { d.note(d.loading, partition, loading) }

// setStoring notes whether a partition waits for a commit.
func (d *Driver) setStoring(partition int, storing bool) { d.note(d.storing, partition, storing) }

func (d *Driver) note(since map[int]time.Time, partition int, waits bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if _, known := since[partition]; !waits {
		delete(since, partition)
	} else if !known {
		since[partition] = time.Now()
	}
}

// New returns a Driver.
func New(o Options) (*Driver, error) {
	tick, err := event.Marshal(&eventv1.Event{
		Source: eventv1.Source_SOURCE_TOCSIN, Fact: &eventv1.Event_Tick{Tick: &eventv1.Tick{}},
	})
	if err != nil {
		return nil, fmt.Errorf("encode a tick: %w", err)
	}
	return &Driver{
		Options: o, metrics: newMetrics(o.Registerer), tick: tick,
		saving: make(chan struct{}, savesAtOnce), loading: map[int]time.Time{}, storing: map[int]time.Time{},
		losses: make(chan struct{}),
	}, nil
}

// loss returns a channel that is closed when some partition finds its state lost.
func (d *Driver) loss() <-chan struct{} {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.losses
}

// lost has all partitions look for their states: Redis rarely forgets one alone.
// Those that noticed one after the other would each be read anew by itself, and
// a quiet one would not notice for a minute.
func (d *Driver) lost() {
	d.mu.Lock()
	defer d.mu.Unlock()
	close(d.losses)
	d.losses = make(chan struct{})
}

// Run runs a partition until ctx ends. It returns own.ErrGiveBack when only a
// newer release can run it, else ctx's error.
func (d *Driver) Run(ctx context.Context, partition int) error {
	defer d.setLoading(partition, false)
	for wait := firstWait; ; {
		d.setLoading(partition, true)
		began := time.Now()
		err := d.session(ctx, partition)
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case errors.Is(err, errNewer):
			return fmt.Errorf("%w: %w", own.ErrGiveBack, err)
		}
		d.metrics.reloads.WithLabelValues(reason(err)).Inc()
		d.Log.LogAttrs(ctx, slog.LevelWarn, "partition dropped from memory; loading it anew",
			slog.Int("partition", partition), slog.Any("err", err))
		if time.Since(began) > calm {
			wait = firstWait
		}
		if err := pause(ctx, wait); err != nil {
			return err
		}
		wait = min(2*wait, longestWait)
	}
}

// session loads a partition and runs it until something ends it.
func (d *Driver) session(ctx context.Context, partition int) error {
	if err := d.EventLog.Refresh(ctx); err != nil {
		return err
	}
	logID, changed := d.EventLog.Changed()
	began := time.Now()
	l, err := d.load(ctx, partition)
	if err != nil {
		return fmt.Errorf("load: %w", err)
	}
	d.setLoading(partition, false)
	d.metrics.loads.WithLabelValues(l.source).Inc()
	d.Log.LogAttrs(ctx, slog.LevelInfo, "partition loaded", slog.Int("partition", partition),
		slog.String("source", l.source), slog.Uint64("applied_seq", l.part.AppliedSeq()),
		slog.Int("outbox", l.queue.Len()), slog.Duration("took", time.Since(began)))

	s := newSession(d, partition, logID, l)
	defer s.close()
	err = s.run(ctx, changed)
	if errors.Is(err, state.ErrLost) && !s.alarmed {
		d.lost()
	}
	return err
}

func reason(err error) string {
	switch {
	case errors.Is(err, state.ErrNotOwner):
		return "not_owner"
	case errors.Is(err, state.ErrLost):
		return "state_lost"
	case errors.Is(err, errLogChanged):
		return "log_changed"
	case errors.Is(err, errGap):
		return "gap"
	default:
		return "error"
	}
}

// worthALine tells which of many attempts in a row to log: 1, 2, 4, 8, ..., so
// that an hour of them is a dozen lines.
func worthALine(attempt int) bool { return attempt&(attempt-1) == 0 }

func pause(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C:
		return nil
	}
}
