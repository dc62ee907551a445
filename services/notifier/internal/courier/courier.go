// Package courier runs the delivery core: it feeds it with alerts, the journal
// and the results of attempts, and does what the core says.
//
// One goroutine owns the core; readers, writers and attempts talk to it over
// channels. Nothing is sent before the journal and the alerts are caught up with
// what was stored when the courier began. When its context ends, attempts in
// flight get a moment, what became of them is journaled, and a snapshot is
// taken.
package courier

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"time"

	"github.com/tocsin-dev/tocsin/internal/bus"
	deliveryv1 "github.com/tocsin-dev/tocsin/proto/gen/tocsin/delivery/v1"
	"github.com/tocsin-dev/tocsin/services/notifier/internal/delivery"
	"github.com/tocsin-dev/tocsin/services/notifier/internal/journal"
	"github.com/tocsin-dev/tocsin/services/notifier/internal/route"
	"github.com/tocsin-dev/tocsin/services/notifier/internal/settings"
)

const (
	// snapshotEvery is how often a changed state is saved: a restart replays at
	// most a minute of the journal.
	snapshotEvery = time.Minute
	// longestWait bounds the sleep of the owner when nothing is due.
	longestWait = 10 * time.Second
	// leaseWait is how long the owner sleeps while its lease is not valid: it may
	// still be renewed, and its end comes over a channel.
	leaseWait = 100 * time.Millisecond
	// maxWaiting stops the intake of alerts while so many records are not
	// journaled: 20,000 of about 1 KiB are 20 MiB.
	maxWaiting = 20_000
	// alertsAhead is how many messages of ALERTS are read ahead, and how many are
	// decoded ahead: 64 of up to 512 KiB are 32 MiB.
	alertsAhead = 64
	// stopGrace is how long attempts in flight may take when the process stops,
	// and stopLimit how long all of stopping may; Ctrl-C must end within 3 s.
	stopGrace = time.Second
	stopLimit = 2 * time.Second
)

// Options are what a courier needs.
type Options struct {
	// Conn is the connection to JetStream.
	Conn *bus.Conn
	// Owner names this process in the journal.
	Owner string
	// Valid reports whether this process still leads, by its own clock. Nothing is
	// decided or sent while it does not: the news that another one leads may wait
	// behind a process that was stopped and woke up. Nil means always.
	Valid func() bool
	// MaxJournalBytes is about what the journal may hold. 0 means
	// DefaultJournalBytes.
	MaxJournalBytes int64
	// Settings are routes and receivers.
	Settings *settings.Settings
	// Hold is how long an alert that was inhibited waits before it is told.
	Hold time.Duration
	// Render writes bodies.
	Render func(delivery.Notice) delivery.Body
	// Sender makes attempts.
	Sender *Sender
	// Metrics count.
	Metrics *Metrics
	// Log receives one line for each attempt.
	Log *slog.Logger
}

// Courier delivers while it leads. Make it with New and call Run once.
type Courier struct {
	o       Options
	clock   clock
	ready   func()
	core    *delivery.Core
	journal *journal.Journal
	saved   *journal.Snapshots
	writer  *journal.Writer

	alerts   chan delivery.AlertMessage
	replaced chan error // why ALERTS is not the stream that was read
	idle     chan struct{}
	stored   chan journal.Stored
	results  chan result
	queries  chan query
	waiting  []query
	running  int
	gone     chan struct{} // closed when nobody takes results any more

	alertsState     bus.StreamState
	deliveriesState bus.StreamState
	changed         bool       // since the last snapshot
	unstored        int        // records that the core has and the journal may not
	saveDue         bool       // a snapshot is due once everything is stored
	saving          bool       // a snapshot is being stored
	sinceSave       int64      // bytes journaled since the last snapshot
	saveDone        chan error // its end

	grown chan struct{} // has a token when the journal's size is to be looked at

	attempts       context.Context // of all attempts
	cancelAttempts context.CancelCauseFunc
}

// New returns a courier that has not begun.
func New(o Options) *Courier {
	if o.Valid == nil {
		o.Valid = func() bool { return true }
	}
	o.MaxJournalBytes = cmp.Or(o.MaxJournalBytes, DefaultJournalBytes)
	clock := newClock()
	return &Courier{
		o:       o,
		clock:   clock,
		ready:   func() {},
		journal: journal.New(o.Conn, o.Owner, o.Log),
		core: delivery.New(delivery.Options{
			Table:      route.NewTable(o.Settings.Route, o.Settings.Receivers()),
			Inhibitor:  route.NewInhibitor(o.Settings.InhibitRules),
			Render:     o.Render,
			ConfigHash: o.Settings.Hash,
			Hold:       o.Hold,
			Start:      clock.now(),
		}),
		alerts:   make(chan delivery.AlertMessage, alertsAhead),
		replaced: make(chan error),
		idle:     make(chan struct{}, 1),
		stored:   make(chan journal.Stored),
		results:  make(chan result),
		queries:  make(chan query),
		gone:     make(chan struct{}),
		saveDone: make(chan error, 1),
		grown:    make(chan struct{}, 1),
	}
}

// OnReady sets what is called once, when the courier is caught up. Call it
// before Run.
func (c *Courier) OnReady(f func()) { c.ready = f }

// errDone ends the helpers of Run when the owner is done.
var errDone = errors.New("done")

// Run delivers until ctx ends, and returns nil then. When lost ends first, it
// stops at once: another notifier may lead already. It returns
// [journal.ErrFenced] when another one does.
func (c *Courier) Run(ctx, lost context.Context) error {
	loading, done := either(ctx, lost)
	save, err := c.load(loading)
	done()
	if err != nil {
		return unlessStopped(ctx, err)
	}
	err = accompany(lost, func(helping context.Context) error { return c.lead(ctx, helping, save) },
		c.readAlerts, c.writeJournal, c.trimJournal)
	if errors.Is(err, errDone) {
		return nil
	}
	return unlessStopped(ctx, err)
}

// unlessStopped returns err, or nil when that only says that ctx ended.
func unlessStopped(ctx context.Context, err error) error {
	if ctx.Err() != nil && (errors.Is(err, context.Canceled) || errors.Is(err, context.Cause(ctx))) {
		return nil
	}
	return err
}

// either returns a context that ends with the first of the two, with its cause.
// Call done when it is not needed any more.
func either(a, b context.Context) (ctx context.Context, done func()) {
	ctx, cancel := context.WithCancelCause(a)
	stop := context.AfterFunc(b, func() { cancel(context.Cause(b)) })
	return ctx, func() { stop(); cancel(nil) }
}

// lead owns the core from the catch-up to the end. save says to take a snapshot
// before anybody is told anything.
func (c *Courier) lead(ctx, helping context.Context, save bool) error {
	defer close(c.gone)
	c.attempts, c.cancelAttempts = context.WithCancelCause(helping)
	defer c.cancelAttempts(errDone)
	if err := c.catchUp(ctx, helping); err != nil {
		return err
	}
	c.depart(ctx, c.core.GoLive(c.clock.now()))
	c.write(c.core.Drain()) // a snapshot must not know more than the journal
	c.saveDue = c.core.Reconfigured()
	c.changed = c.changed || c.saveDue
	if save {
		// From here on everything is to be told, and nothing is what it was in an older
		// snapshot, so a restart must know where "here" is.
		if err := c.saveFirst(ctx, helping); err != nil {
			return err
		}
	}
	c.ready()
	if replaced, err := c.loop(ctx, helping); err != nil {
		return err
	} else if replaced != nil {
		return c.leave(helping, replaced)
	}
	return c.stop(helping)
}

// loop is the owner's life. It returns why a stream is not the one that was
// worked on, if that ends it.
func (c *Courier) loop(ctx, helping context.Context) (replaced, err error) {
	snapshots := time.NewTicker(snapshotEvery)
	defer snapshots.Stop()
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		// A snapshot must not know more than the journal, so nothing is decided
		// from when it is due until all is stored: one write to the journal.
		results := c.results
		c.saveDue = c.saveDue || !c.saving && c.sinceSave >= c.o.MaxJournalBytes/saveParts
		if c.saveDue && c.unstored == 0 {
			c.saveLater(helping)
		}
		if c.saveDue {
			results = nil
		} else {
			c.act()
		}
		timer.Reset(c.wait())
		select {
		case <-ctx.Done():
			return nil, nil
		case <-helping.Done():
			return nil, context.Cause(helping)
		case m := <-c.input():
			c.take(m)
		case <-c.idle:
		case why := <-c.replaced:
			return why, nil
		case r := <-results:
			c.finish(r)
		case s := <-c.stored:
			c.journaled(s)
		case q := <-c.queries:
			c.waiting = append(c.waiting, q)
		case err := <-c.saveDone:
			c.saveEnded(helping, err)
		case <-snapshots.C:
			c.saveDue = true
		case <-timer.C:
		}
		c.answer()
	}
}

// input returns the channel of alerts, or nil while the journal is behind.
func (c *Courier) input() <-chan delivery.AlertMessage {
	if c.writer.Waiting() > maxWaiting {
		return nil
	}
	return c.alerts
}

// take applies a message and all that wait behind it, so that a decision knows
// what is known.
func (c *Courier) take(m delivery.AlertMessage) {
	now := c.clock.now()
	c.apply(now, m)
	for range alertsAhead {
		select {
		case m := <-c.alerts:
			c.apply(now, m)
		default:
			return
		}
	}
}

func (c *Courier) apply(now time.Time, m delivery.AlertMessage) {
	c.core.ApplyAlerts(now, m)
	c.o.Metrics.applied.Set(float64(m.Seq))
	c.changed = true
}

// act lets the core decide, and does what it says, while this process leads.
func (c *Courier) act() {
	if !c.o.Valid() {
		return
	}
	out := c.core.Step(c.clock.now())
	c.write(out.Records)
	for _, lane := range out.Superseded {
		c.o.Metrics.message(lane, "superseded")
	}
	for _, lane := range out.Dead {
		c.o.Metrics.message(lane, "dead")
	}
	for _, lane := range out.Cut {
		c.o.Metrics.message(lane, "cut")
		c.o.Log.Error("a message was too large and tells less of its alert",
			"receiver", lane.Receiver, "integration", lane.Integration, "group_key", lane.GroupKey)
	}
	c.o.Metrics.cutAlerts.Add(float64(out.CutAlerts))
	for _, a := range out.Attempts {
		c.running++
		go func() {
			select {
			case c.results <- c.o.Sender.attempt(c.attempts, c.o.Valid, a):
			case <-c.gone:
			}
		}()
	}
	c.o.Metrics.pendingMessages(c.core.Pending())
}

// write leaves records to the writer.
func (c *Courier) write(records []delivery.ShardRecord) {
	for _, r := range records {
		c.writer.Append(r)
		c.unstored++
		c.changed = true
	}
}

// journaled notes that records are stored.
func (c *Courier) journaled(s journal.Stored) {
	c.core.Journaled(s.Shard, s.Seq, s.Records)
	c.unstored -= len(s.Records)
	c.sinceSave += int64(s.Size) + messageOverhead
}

func (c *Courier) wait() time.Duration {
	at, ok := c.core.Deadline()
	if !ok {
		return longestWait
	}
	switch {
	case c.saveDue:
		return longestWait // for what is not stored yet
	case !c.o.Valid():
		return leaseWait
	}
	return min(max(0, at.Sub(c.clock.now())), longestWait)
}

// finish hands a result to the core, and writes the line of the attempt.
func (c *Courier) finish(r result) {
	c.running--
	now := c.clock.now()
	v := c.core.Finished(r.attempt, r.outcome, now)
	c.o.Metrics.attempt(r, v, time.Now())
	level, word := slog.LevelWarn, "failed"
	switch v.Result {
	case deliveryv1.Outcome_OUTCOME_TOLD:
		level, word = slog.LevelInfo, "told"
	case deliveryv1.Outcome_OUTCOME_DEAD:
		level, word = slog.LevelError, "dead"
	case deliveryv1.Outcome_OUTCOME_UNSPECIFIED:
		level, word = slog.LevelInfo, "given up by us"
	}
	attrs := []slog.Attr{
		slog.String("delivery_id", r.attempt.ID), slog.String("receiver", r.attempt.Lane.Receiver),
		slog.String("integration", r.attempt.Lane.Integration), slog.String("group_key", r.attempt.Lane.GroupKey),
		slog.Any("alert_ids", r.attempt.Alerts[:min(len(r.attempt.Alerts), maxLogged)]), slog.Int("alerts", len(r.attempt.Alerts)),
		slog.Int("attempt", r.attempt.Number), slog.Int("bytes", len(r.attempt.Body.Bytes)),
		slog.String("result", word), slog.Int("status", r.outcome.Status), slog.Duration("took", r.took),
	}
	if !v.RetryAt.IsZero() {
		attrs = append(attrs, slog.Duration("retry_in", v.RetryAt.Sub(now)))
	}
	if r.outcome.Error != "" {
		attrs = append(attrs, slog.String("err", r.outcome.Error))
	}
	if r.outcome.Gone {
		attrs = append(attrs, slog.String("note", "the receiver answered 410: it is left alone until the next start"))
	}
	c.o.Log.LogAttrs(context.Background(), level, "delivery attempted", attrs...)
}

// maxLogged bounds the alert ids in the line of an attempt.
const maxLogged = 10
