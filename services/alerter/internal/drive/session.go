package drive

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/tocsin-dev/tocsin/internal/bus"
	alertv1 "github.com/tocsin-dev/tocsin/proto/gen/tocsin/alert/v1"
	statev1 "github.com/tocsin-dev/tocsin/proto/gen/tocsin/state/v1"
	"github.com/tocsin-dev/tocsin/services/alerter/internal/engine"
	"github.com/tocsin-dev/tocsin/services/alerter/internal/eventlog"
	"github.com/tocsin-dev/tocsin/services/alerter/internal/feed"
	"github.com/tocsin-dev/tocsin/services/alerter/internal/outbox"
	"github.com/tocsin-dev/tocsin/services/alerter/internal/snapshot"
	"github.com/tocsin-dev/tocsin/services/alerter/internal/state"
)

const (
	// commitAfter and commitMessages bound what a crash makes the next owner
	// apply again while the log is being caught up with: three seconds of work. A
	// target is encoded once for all that happened to it meanwhile, and with one
	// second that was a quarter of the work.
	commitAfter = 3 * time.Second
	// lookEvery is how often a partition with something to commit looks whether
	// the log is caught up with by now: 64 of them make 1,280 looks a second.
	lookEvery      = 50 * time.Millisecond
	commitMessages = 20_000
	// burst bounds the messages that are applied before anything else is looked
	// at: at 10 us each, a few milliseconds.
	burst = 256
	// snapshotMessages is how many messages one snapshot may be behind: at the
	// required 50,000 events/s a partition replays them in a second.
	snapshotMessages = 50_000
	// resumeAt is how many transitions may wait when a partition that stood still
	// goes on: 5,000 further ones are ten batches of the notifier apart.
	resumeAt = outbox.Capacity / 2
	// savesAtOnce bounds the snapshots in flight. Each holds a state twice, at
	// most 2 x 16 MB.
	savesAtOnce = 4
	// saveTimeout bounds the saving of a snapshot, which is not urgent.
	saveTimeout = time.Minute
	// stopGrace is how long a clean stop may take, and commitGrace how long the
	// commit in it may: a process must end within 3 s of Ctrl-C, and closing what
	// is around it takes some of that. 64 snapshots of 3 MiB take 0.6 s.
	stopGrace   = 1500 * time.Millisecond
	commitGrace = 500 * time.Millisecond
	// tickIdle is how long a partition may go without a message, in the time of
	// its rules: no message moves that by more than 90 s. tickLeast is the
	// shortest real time between two ticks of a partition.
	tickIdle  = 60 * time.Second
	tickLeast = 250 * time.Millisecond
	// tickTimeout bounds the publishing of a tick. A later one does as well.
	tickTimeout = 5 * time.Second
	// settleTime is how long after its start a session takes the log for caught
	// up with at the earliest.
	settleTime = time.Second
)

// session is one stay of a partition in memory. Its run method alone uses it,
// but where noted.
type session struct {
	d     *Driver
	index int
	logID string
	part  *engine.Partition
	owner *state.Owner
	queue *outbox.Queue // also used by the sender
	sub   *feed.Subscription
	work  sync.WaitGroup // the sender, ticks and snapshots

	dirty       int                   // messages applied since the last commit
	dirtySince  time.Time             // when the first of them was
	looked      time.Time             // when it was last seen that more waits
	transitions []*alertv1.Transition // to be committed
	changes     []*alertv1.Alert      // to be told after the commit
	broken      bool                  // a commit did not go through
	alarmed     bool                  // it looked for its state because another's was lost

	paused      bool
	began       time.Time
	stepped     bool      // a message was applied since the load
	lastMessage time.Time // when the last message was applied
	lastTick    time.Time // when the last tick was asked for
	ticking     atomic.Bool
	tickSeq     atomic.Uint64 // of the last tick that was published

	unsaved  int       // messages applied since the last snapshot
	saveAt   time.Time // when the next snapshot is due
	saveBusy atomic.Bool
	unkept   atomic.Bool // the last snapshot was not saved

	committed atomic.Pointer[progress] // read by queries
}

// progress is how far the committed state reaches. The stamp is zero before
// the first message.
type progress struct {
	seq   uint64
	stamp time.Time
}

func progressOf(part *engine.Partition) *progress {
	if part.AppliedSeq() == 0 {
		return &progress{}
	}
	return &progress{part.AppliedSeq(), part.Stamp()}
}

func newSession(d *Driver, partition int, logID string, l *loaded) *session {
	now := time.Now()
	s := &session{
		d: d, index: partition, logID: logID, part: l.part, owner: l.owner, queue: l.queue,
		began: now, lastMessage: now,
		// Spread over the interval, so that 64 partitions are not saved at once.
		saveAt: now.Add(d.SnapshotEvery * time.Duration(partition%64+1) / 64),
	}
	if l.source == fromRedis {
		s.unsaved = 1 // nobody knows how old the last snapshot is
	}
	s.committed.Store(progressOf(l.part))
	s.sub = d.Feed.Join(partition, logID, bus.Mark{Seq: l.part.AppliedSeq(), Time: l.part.Stamp()})
	d.metrics.outbox(partition, l.queue.Len())
	return s
}

func (s *session) close() {
	s.sub.Leave()
	s.d.metrics.outbox(s.index, 0)
}

// run applies messages until something ends the session. When ctx ends it, the
// state is committed and saved.
func (s *session) run(ctx context.Context, changed <-chan struct{}) error {
	defer s.work.Wait()
	s.d.Audience.Loaded(s.index, alertsOf(s.part), s.covered)
	defer s.d.Audience.Gone(s.index)
	inside, leave := context.WithCancel(ctx)
	defer leave()
	s.work.Go(func() {
		// Its only error is its context's.
		_ = s.d.Sender.Run(inside, s.index, s.owner.Token(), s.queue)
	})
	timer := time.NewTimer(0)
	defer timer.Stop()
	loss := s.d.loss()
	for {
		in := s.sub.C()
		if s.stalled() {
			in = nil
		}
		timer.Reset(time.Until(s.nextDue()))
		var err error
		select {
		case <-ctx.Done():
			leave()
			return s.finish(ctx)
		case <-changed:
			return errLogChanged
		case <-loss:
			loss = s.d.loss()
			err = s.look(inside)
		case item := <-in:
			err = s.apply(inside, item)
		case <-s.queue.Drained():
		case <-timer.C:
		}
		if err == nil {
			err = s.due(inside)
		}
		if err != nil {
			return err
		}
		s.d.metrics.outbox(s.index, s.queue.Len())
	}
}

// stalled keeps the feed from waiting for a partition whose outbox is full. Each
// time that it goes on, the reader goes back for it and the others wait, so it
// stands still until half of the outbox is sent.
func (s *session) stalled() bool {
	full := s.queue.Full() || s.paused && s.queue.Len() > resumeAt
	switch {
	case full && !s.paused:
		s.d.metrics.stalls.Inc()
		s.d.Log.Warn("outbox is full; the partition stands still", slog.Int("partition", s.index))
		s.sub.Pause()
	case !full && s.paused:
		s.sub.Resume()
	}
	s.paused = full
	return full
}

// apply applies a message and those that wait behind it, and commits when it
// is time to.
func (s *session) apply(ctx context.Context, item feed.Item) error {
	began := time.Now()
	for n := 1; ; n++ {
		if err := s.applyOne(ctx, item); err != nil {
			return err
		}
		if n == burst || len(s.transitions) > 0 {
			break
		}
		select {
		case item = <-s.sub.C():
			continue
		default:
		}
		break
	}
	now := time.Now()
	s.lastMessage = now
	s.d.metrics.foldSeconds.Add(now.Sub(began).Seconds())
	if len(s.transitions) > 0 || s.dirty >= commitMessages || s.quiet() {
		return s.commit(ctx)
	}
	return nil
}

func (s *session) applyOne(ctx context.Context, item feed.Item) error {
	if item.Missed {
		if err := s.checkHole(ctx, item.Seq); err != nil {
			return err
		}
	}
	result, err := s.d.step(ctx, s.part, eventlog.Message(item.Delivery))
	if err != nil {
		return fmt.Errorf("apply message %d: %w", item.Seq, err)
	}
	if s.dirty == 0 {
		s.dirtySince = time.Now()
	}
	s.stepped = true
	s.dirty++
	s.unsaved++
	s.d.metrics.applied.Inc()
	s.transitions = append(s.transitions, s.queue.Above(result.Transitions)...)
	s.changes = append(s.changes, result.Changes...)
	for _, t := range result.Transitions {
		s.d.metrics.transitions.WithLabelValues(kindName(t.GetKind())).Inc()
	}
	for _, p := range result.Problems {
		s.d.metrics.problems.WithLabelValues(string(p.Kind), strings.ToValidUTF8(p.Rule, " ")).Inc()
		s.d.Log.LogAttrs(ctx, slog.LevelDebug, "a part of a message was skipped", slog.Int("partition", s.index),
			slog.Uint64("seq", item.Seq), slog.String("kind", string(p.Kind)), slog.String("rule", p.Rule),
			slog.String("target", p.Target), slog.String("detail", p.Detail))
	}
	return nil
}

// checkHole decides what to do about messages that were gone before they were
// read. Where the log now begins after the state, another state must be found.
// A hole in the middle, which only an operator can make, is passed over: no
// other state could do better.
func (s *session) checkHole(ctx context.Context, before uint64) error {
	first, err := s.d.EventLog.First(ctx)
	if err != nil {
		return err
	}
	if s.part.AppliedSeq()+1 < first {
		return errGap
	}
	s.d.metrics.passed.Inc()
	s.d.Log.LogAttrs(ctx, slog.LevelError, "messages in the middle of the event log are gone; going on without them",
		slog.Int("partition", s.index), slog.Uint64("after_seq", s.part.AppliedSeq()), slog.Uint64("before_seq", before))
	return nil
}

// quiet is true when nothing is known to wait for the partition.
func (s *session) quiet() bool { return len(s.sub.C()) == 0 && s.sub.Waiting() == 0 }

// commit stores what was applied since the last commit, then lets it be sent
// and told.
func (s *session) commit(ctx context.Context) error {
	trim, acknowledged := s.queue.Stored()
	if cause := s.queue.Foreign(); cause != nil {
		if err := s.d.doubt(ctx, s.index, s.logID, cause); err != nil {
			return err
		}
	}
	delta := s.part.Delta()
	// A stop must not leave a commit's outcome in doubt if Redis answers.
	grace, cancel := withGrace(ctx, commitGrace)
	defer cancel()
	s.d.setStoring(s.index, true)
	defer s.d.setStoring(s.index, false)
	err := s.owner.Commit(grace, state.Change{
		Position:     positionOf(s.part),
		Acknowledged: acknowledged,
		Fold:         delta.Head,
		Targets:      delta.Targets,
		Active:       delta.Active,
		Trim:         trim,
		Push:         s.transitions,
	})
	if err != nil {
		s.broken = true
		return err
	}
	s.queue.Trimmed(trim)
	s.queue.Push(s.transitions)
	s.committed.Store(progressOf(s.part))
	if len(s.changes) > 0 {
		s.d.Audience.Changed(s.index, s.changes)
	}
	s.dirty, s.transitions, s.changes = 0, nil, nil
	return nil
}

// covered tells up to where the log is dealt with.
func (s *session) covered() (seq uint64, at time.Time) {
	p := s.committed.Load()
	return s.sub.Covered(p.seq, p.stamp)
}

// finish commits and saves the state at the end of the session.
func (s *session) finish(ctx context.Context) error {
	err := ctx.Err()
	if s.broken {
		return err
	}
	grace, cancel := withGrace(ctx, stopGrace)
	defer cancel()
	if trim, _ := s.queue.Stored(); s.dirty > 0 || trim > 0 {
		if failed := s.commit(grace); failed != nil {
			s.d.Log.LogAttrs(ctx, slog.LevelWarn, "last commit did not go through; the next owner will apply it again",
				slog.Int("partition", s.index), slog.Any("err", failed))
			return err
		}
	}
	if s.unsaved > 0 || s.unkept.Load() {
		if snap, failed := snapshotOf(s.part, s.queue); failed == nil {
			s.save(grace, snap, false)
		}
	}
	return err
}

// snapshotOf encodes a committed state.
func snapshotOf(part *engine.Partition, queue *outbox.Queue) (*statev1.StoredSnapshot, error) {
	fold, err := part.Snapshot()
	if err != nil {
		return nil, fmt.Errorf("encode the state: %w", err)
	}
	_, acknowledged := queue.Stored()
	return &statev1.StoredSnapshot{
		Format:       snapshot.Format,
		Position:     positionOf(part),
		Acknowledged: proto.CloneOf(acknowledged),
		Outbox:       queue.Waiting(),
		Fold:         fold,
	}, nil
}

// save stores a snapshot, and removes old ones if it is not in a hurry. It is
// called from other goroutines than run's too.
func (s *session) save(ctx context.Context, snap *statev1.StoredSnapshot, prune bool) {
	s.unkept.Store(true)
	select {
	case s.d.saving <- struct{}{}:
	case <-ctx.Done():
		return
	}
	defer func() { <-s.d.saving }()
	err := s.d.Snapshots.Save(ctx, s.index, snap)
	if err == nil && prune {
		err = s.d.Snapshots.Prune(ctx, s.index, snapshot.RefOf(snap))
	}
	if err != nil {
		s.d.metrics.snapshotFailures.Inc()
		s.d.Log.LogAttrs(ctx, slog.LevelWarn, "snapshot not saved, or old ones not removed; those before stay",
			slog.Int("partition", s.index), slog.Any("err", err))
		return
	}
	s.unkept.Store(false)
	s.d.metrics.snapshots.Inc()
}

// withGrace returns a context that ends d after ctx does.
func withGrace(ctx context.Context, d time.Duration) (context.Context, context.CancelFunc) {
	longer, cancel := context.WithCancel(context.WithoutCancel(ctx))
	stop := context.AfterFunc(ctx, func() {
		timer := time.NewTimer(d)
		defer timer.Stop()
		select {
		case <-timer.C:
			cancel()
		case <-longer.Done():
		}
	})
	return longer, func() { stop(); cancel() }
}
