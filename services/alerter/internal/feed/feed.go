// Package feed reads the event log once for all partitions of a replica and
// hands each its own messages, in order and each once.
//
// A partition joins at the sequence that it needs next. The reader that all
// share goes back for one that is a little behind, and the partitions that had
// those messages do not get them again. One that is far behind has a reader of
// its own, which sees that partition alone, until it has come as far as the
// shared one. Messages that were removed from the log before they were read are
// announced with the next one. A partition that cannot go on says so and is
// passed over, so that it holds up no other.
//
// Each read is told which messages the log is known to have held. A log that
// was cut and grew again is thereby noticed, whoever joins meanwhile.
package feed

import (
	"context"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/tocsin-dev/tocsin/internal/bus"
	"github.com/tocsin-dev/tocsin/internal/event"
)

const (
	// queueSize is how many messages wait for a partition. 64 queues of 512
	// messages of 250 bytes are 8 MB, and 512 messages are 5 ms of the fastest
	// reading, longer than a commit takes.
	queueSize = 512
	// joinSettle is how long a reader waits for more partitions to join before
	// it starts again, each of which would make it go back, as long as more come.
	// joinPatience bounds that where others are being read for, who stand still
	// meanwhile. At a start nobody is: with 25 ms in all NATS spent 18 us a message on
	// sending again what it had sent, and with these the log was read once (6 us).
	joinSettle    = 25 * time.Millisecond
	joinPatience  = 100 * time.Millisecond
	startSettle   = 50 * time.Millisecond
	startPatience = 400 * time.Millisecond
	// retryWait is the pause after a read that ended by itself.
	retryWait = time.Second
	// farBehind is how many messages the shared reader goes back for a partition.
	// 225,000 a second were measured, so the others wait a tenth of a second at
	// most; and 20,000 are four seconds of 5,000 a second, about what a partition
	// is behind whose owner died.
	farBehind = 20_000
)

// All stands for all partitions.
const All = -1

// Reading says what to read.
type Reading struct {
	// Log names the log that is meant.
	Log string
	// Partition is the one to read, or All.
	Partition int
	// From is the first sequence to read, or the first one kept after it.
	From uint64
	// Known are messages that the log is known to have held.
	Known []bus.Mark
	// Idle is called from time to time when there is nothing to read.
	Idle func()
}

// Source is the event log. Another log takes its place when it was replaced, or
// lost messages that were read.
type Source interface {
	// ID names the present log.
	ID() string
	// Read reads until ctx ends or handle returns an error. When it finds that
	// the log is not the one that is meant, it ends and sees to it that all that
	// is known of that log is dropped.
	Read(ctx context.Context, r Reading, handle func(bus.Delivery) error) error
	// Newest returns the sequence of a partition's newest message that is kept, 0
	// when there is none. It knows all that was read before it was asked.
	Newest(ctx context.Context, partition int) (uint64, error)
	// Kept tells which messages are kept, no earlier than when it is called.
	Kept(ctx context.Context) (Kept, error)
}

// Kept tells which messages a log keeps.
type Kept struct {
	// First is the sequence of the oldest.
	First uint64
	// Removed are the sequences after First that were removed, sorted.
	Removed []uint64
}

// whole tells whether the log keeps all messages from first to last.
func (k Kept) whole(first, last uint64) bool {
	if first > last {
		return true
	}
	i, _ := slices.BinarySearch(k.Removed, first)
	return first >= k.First && (i == len(k.Removed) || k.Removed[i] > last)
}

// Feed is the reader of one replica.
type Feed struct {
	source  Source
	log     *slog.Logger
	metrics *metrics
	waiting atomic.Uint64 // messages known to follow what was read
	goBack  uint64        // farBehind, or less in tests
	arrived chan struct{} // has a token when the shared reader is to start again
	called  chan struct{} // has a token when somebody in far waits

	mu       sync.Mutex
	members  [event.Partitions]*Subscription // guarded by mu
	reads    string                          // guarded by mu; the log that the shared reader reads
	position uint64                          // guarded by mu; the last sequence read
	at       time.Time                       // guarded by mu; its timestamp; zero before the first of a read
	furthest bus.Mark                        // guarded by mu; the last message of that log that was ever read
	stop     context.CancelFunc              // guarded by mu; ends the shared read that runs
	far      []*Subscription                 // guarded by mu; wait for a reader of their own
}

// New returns a Feed of source.
func New(source Source, log *slog.Logger, r prometheus.Registerer) *Feed {
	f := &Feed{
		source: source, log: log, goBack: farBehind,
		arrived: make(chan struct{}, 1), called: make(chan struct{}, 1), stop: func() {},
	}
	f.metrics = newMetrics(r, f)
	return f
}

// signal puts a token into a channel that has room for one.
func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// restart makes the shared reader start again where the partitions need it to.
// The caller holds mu.
func (f *Feed) restart() {
	f.stop()
	signal(f.arrived)
}

// Reached tells which log was read, and the last message of it that was.
func (f *Feed) Reached() (logID string, last bus.Mark) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.reads, f.furthest
}

// Waiting tells how many messages are known to wait for the shared reader.
func (f *Feed) Waiting() uint64 { return f.waiting.Load() }

// Run reads until ctx ends, and returns ctx's error.
func (f *Feed) Run(ctx context.Context) error {
	var own sync.WaitGroup
	defer own.Wait()
	for range ownReaders {
		own.Go(func() { f.attend(ctx) })
	}
	for {
		read, r, err := f.next(ctx)
		if err != nil {
			return err
		}
		err = f.source.Read(read, r, func(d bus.Delivery) error { return f.route(read, d) })
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if read.Err() == nil {
			_, last := f.Reached()
			f.log.LogAttrs(ctx, slog.LevelWarn, "reading the event log ended; will read on",
				slog.Uint64("seq", last.Seq), slog.Any("err", err))
			f.mu.Lock()
			f.restart()
			f.mu.Unlock()
			wait(ctx, retryWait)
		}
	}
}

// next waits until there is something to read for somebody, and says what. The
// returned context ends when it must be decided anew.
func (f *Feed) next(ctx context.Context) (context.Context, Reading, error) {
	for {
		select {
		case <-ctx.Done():
			return nil, Reading{}, ctx.Err()
		case <-f.arrived:
		}
		f.settleJoins(ctx)
		read, stop := context.WithCancel(ctx)
		if r, ok := f.plan(stop); ok {
			return read, r, nil
		}
		stop()
	}
}

// settleJoins waits until no more partitions join, within bounds.
func (f *Feed) settleJoins(ctx context.Context) {
	f.mu.Lock()
	each, most := startSettle, startPatience
	if f.serves() {
		each, most = joinSettle, joinPatience
	}
	f.mu.Unlock()
	for waited := time.Duration(0); waited < most; {
		wait(ctx, each)
		waited += each
		select {
		case <-f.arrived:
		default:
			return
		}
	}
}

// plan decides who is served by the shared reader and where it starts, which is
// at or before the next message that any of them needs. ok is false when there
// is nobody. stop ends the read.
func (f *Feed) plan(stop context.CancelFunc) (r Reading, ok bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.stop() // frees the context of the read before
	f.stop = stop
	select {
	case <-f.arrived: // of those that joined since
	default:
	}
	if id := f.source.ID(); id != f.reads {
		f.reads, f.position, f.furthest = id, 0, bus.Mark{}
	}
	present, joining := f.present()
	if len(present) == 0 {
		return Reading{}, false
	}
	known := []bus.Mark{f.furthest}
	near, far := f.divide(joining)
	for _, s := range near {
		s.place = served
		known = append(known, s.last)
	}
	f.position, f.at = f.start(present), time.Time{}
	for _, s := range far {
		f.leaveBehind(s)
	}
	for _, s := range present {
		if s.place == alone {
			// What the shared reader does not see is left to its own.
			s.need = max(s.need, f.position)
		}
	}
	f.metrics.reads.Inc()
	return Reading{
		Log: f.reads, Partition: All, From: f.position + 1, Known: known, Idle: func() { f.waiting.Store(0) },
	}, true
}

// present returns the members whose state is of the log that is read, and those
// among them that wait for a reader. The caller holds mu.
func (f *Feed) present() (present, joining []*Subscription) {
	for _, s := range f.members {
		if s == nil || s.log != f.reads {
			continue // one of another log is about to load anew
		}
		present = append(present, s)
		switch s.place {
		case served:
			s.done = max(s.done, f.position)
		case waits:
			joining = append(joining, s)
		}
	}
	return present, joining
}

// start returns the last sequence that nobody needs whom the shared reader
// serves. The caller holds mu.
func (f *Feed) start(present []*Subscription) uint64 {
	lowest, found := f.position, false
	for _, s := range present {
		if s.place == served && (!found || s.done < lowest) {
			lowest, found = s.done, true
		}
	}
	return lowest
}

// divide says for whom of those that join the shared reader goes back. When it
// serves others already, they wait meanwhile. When it serves nobody it goes
// where most are: a read of everything is twice as fast as one for each
// partition, so it is the better way for half of them or more. The caller holds
// mu.
func (f *Feed) divide(joining []*Subscription) (near, far []*Subscription) {
	if len(joining) == 0 {
		return nil, nil
	}
	slices.SortFunc(joining, bySequence)
	where := f.position
	if !f.serves() {
		where = joining[len(joining)/2].done
	}
	n := 0
	for n < len(joining) && joining[n].done+f.goBack < where {
		n++
	}
	return joining[n:], joining[:n]
}

// serves tells whether the shared reader serves anybody. The caller holds mu.
func (f *Feed) serves() bool {
	return slices.ContainsFunc(f.members[:], func(s *Subscription) bool {
		return s != nil && s.log == f.reads && s.place == served
	})
}

// route hands a message to its partition.
func (f *Feed) route(ctx context.Context, d bus.Delivery) error {
	f.waiting.Store(d.Pending)
	s, item, full := f.take(d)
	if s == nil {
		return nil
	}
	select {
	case s.queue <- item:
		return nil
	default:
	}
	select {
	case s.queue <- item:
		return nil
	case <-s.left:
		return nil
	case <-full:
		f.untake(s, item)
		return nil
	case <-ctx.Done():
		f.untake(s, item)
		f.mu.Lock()
		f.position = d.Seq - 1
		f.mu.Unlock()
		return ctx.Err()
	}
}

// take notes that a message was read, and whom it is for, if anybody.
func (f *Feed) take(d bus.Delivery) (s *Subscription, item Item, paused <-chan struct{}) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if d.Seq > f.position+1 {
		f.hole(f.position+1, d.Seq-1)
	}
	f.position, f.at = d.Seq, d.Time
	if d.Seq > f.furthest.Seq {
		f.furthest = bus.Mark{Seq: d.Seq, Time: d.Time}
	}
	address, ok := event.ParseSubject(d.Subject)
	if !ok {
		f.metrics.foreign.Inc()
		return nil, Item{}, nil
	}
	s = f.members[address.Partition]
	if s == nil || s.log != f.reads || d.Seq <= s.done {
		return nil, Item{}, nil
	}
	switch s.place {
	case alone:
		s.need = max(s.need, d.Seq)
		return nil, Item{}, nil
	case served:
		item = Item{Delivery: d, Missed: s.gone > 0, before: s.last}
		s.done, s.last, s.gone = d.Seq, bus.Mark{Seq: d.Seq, Time: d.Time}, 0
		return s, item, s.paused
	default:
		return nil, Item{}, nil
	}
}

// untake notes that a message that was taken could not be handed over.
func (f *Feed) untake(s *Subscription, item Item) {
	f.mu.Lock()
	defer f.mu.Unlock()
	s.done, s.last = item.Seq-1, item.before
	if item.Missed {
		s.gone = s.done
	}
	if s.pausing {
		s.place = passed
	} else {
		// Resumed in between: it must be read again.
		f.seat(s)
	}
}

// hole notes that the messages from first to last are gone. The caller holds mu.
func (f *Feed) hole(first, last uint64) {
	f.metrics.holes.Inc()
	f.metrics.missing.Add(float64(last - first + 1))
	f.log.Warn("messages are gone from the event log", slog.Uint64("first_seq", first), slog.Uint64("last_seq", last))
	for _, s := range f.members {
		if s != nil && s.done < last {
			s.gone = last
		}
	}
}

func wait(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-timer.C:
	}
}
