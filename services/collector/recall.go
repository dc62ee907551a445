package collector

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strconv"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/tocsin-dev/tocsin/internal/bus"
	"github.com/tocsin-dev/tocsin/internal/event"
	eventv1 "github.com/tocsin-dev/tocsin/proto/gen/tocsin/event/v1"
	"github.com/tocsin-dev/tocsin/services/collector/internal/inventory"
	"github.com/tocsin-dev/tocsin/services/collector/internal/job"
)

const (
	// logMemory is how far back the log is: its greatest age.
	logMemory = 7 * 24 * time.Hour
	// skewMargin is how much the clocks of collector and log may differ.
	skewMargin = 5 * time.Minute
	// patience is how many seconds in a row a read of the log may bring nothing
	// although its end is still to come: a slow disk takes some to find a fact. No more
	// comes where the log's clock was set back, since then it begins past that end.
	patience = 30
	// keepEvery is how often the oldest open job is written down.
	keepEvery = 30 * time.Second
)

// past is what the log knows of an account.
type past struct {
	inventory *inventory.Inventory
	lastSlot  time.Time // of the last heartbeat
}

// recall reads what the log knows of the account: into inv its targets, and into
// tracker the jobs that were followed and what was told of them.
func recall(ctx context.Context, conn *bus.Conn, meta *bus.Bucket, inv *inventory.Inventory, account string, tracker *job.Tracker) (past, error) {
	p := past{inventory: inv}
	var alive time.Time // by the log's clock
	token := event.Token(inventory.AccountTarget(account))
	if err := recallTargets(ctx, conn, p.inventory); err != nil {
		return p, err
	}
	for _, kind := range []string{event.KindInventoryShrunk, event.KindAccountPolled} {
		last, ok, err := conn.Last(ctx, bus.EventsStream, event.StoredSubject(kind, token))
		if err != nil {
			return p, err
		}
		e, err := event.Unmarshal(last.Data)
		if !ok || err != nil {
			continue // none yet, or one that this release cannot read
		}
		p.inventory.Replay(e, last.Time)
		if slot := e.GetAccountPolled().GetPollSlotMs(); slot > 0 {
			p.lastSlot, alive = time.UnixMilli(slot), last.Time
		}
	}
	from, err := jobsSince(ctx, meta, account, alive, time.Now())
	if err != nil {
		return p, err
	}
	// In the order of the log, as it was lived: the registrations of a week alone
	// may be more than are followed at once.
	err = readKinds(ctx, conn, []string{event.KindJobRegistered, event.KindJobTransitioned}, from, func(d bus.Delivery, e *eventv1.Event) {
		if e.GetTarget().GetAccount() == account {
			tracker.Replay(e.GetTarget().GetId(), e, d.Time)
			tracker.Forget(d.Time)
		}
	})
	tracker.Forget(time.Now())
	return p, err
}

// history is the part of the bus that the log is read back from.
type history interface {
	Last(ctx context.Context, stream, subject string) (bus.Delivery, bool, error)
	At(ctx context.Context, stream string, seq uint64) (bus.Delivery, bool, error)
	Read(ctx context.Context, o bus.ReadOptions, handle func(bus.Delivery) error) error
}

// recallTargets replays the newest inventory fact of each target, in the order
// of the log.
func recallTargets(ctx context.Context, conn history, inv *inventory.Inventory) error {
	type stored struct {
		seq  uint64
		time time.Time
		fact *eventv1.Event
	}
	newest := map[string]stored{}
	for _, kind := range []string{event.KindTargetDiscovered, event.KindTargetChanged, event.KindTargetRemoved} {
		err := readKind(ctx, conn, kind, time.Time{}, func(d bus.Delivery, e *eventv1.Event) {
			token := event.Token(e.GetTarget())
			if d.Seq > newest[token].seq {
				newest[token] = stored{seq: d.Seq, time: d.Time, fact: e}
			}
		})
		if err != nil {
			return err
		}
	}
	order := make([]stored, 0, len(newest))
	for _, s := range newest {
		order = append(order, s)
	}
	slices.SortFunc(order, func(a, b stored) int { return int(a.seq) - int(b.seq) })
	for _, s := range order {
		inv.Replay(s.fact, s.time)
	}
	return nil
}

// readAhead bounds the facts of a kind that wait for those of the others.
const readAhead = 256

// readKinds is readKind for several kinds, in the order of the log.
func readKinds(ctx context.Context, conn history, kinds []string, from time.Time, handle func(bus.Delivery, *eventv1.Event)) error {
	type fact struct {
		delivery bus.Delivery
		event    *eventv1.Event
	}
	g, ctx := errgroup.WithContext(ctx)
	coming := make([]chan fact, len(kinds))
	for i, kind := range kinds {
		coming[i] = make(chan fact, readAhead)
		g.Go(func() error {
			defer close(coming[i])
			return readKind(ctx, conn, kind, from, func(d bus.Delivery, e *eventv1.Event) {
				select {
				case coming[i] <- fact{d, e}:
				case <-ctx.Done():
				}
			})
		})
	}
	next := make([]fact, len(kinds))
	open := make([]bool, len(kinds))
	for i := range kinds {
		next[i], open[i] = <-coming[i]
	}
	for {
		first := -1
		for i := range kinds {
			if open[i] && (first < 0 || next[i].delivery.Seq < next[first].delivery.Seq) {
				first = i
			}
		}
		if first < 0 {
			return g.Wait()
		}
		handle(next[first].delivery, next[first].event)
		next[first], open[first] = <-coming[first]
	}
}

// errEnd ends a read that met the end of what it was to read.
var errEnd = errors.New("end of the log")

// readKind reads the facts of a kind that were stored from the instant from on
// until now. Facts that this release cannot read are left out.
func readKind(ctx context.Context, conn history, kind string, from time.Time, handle func(bus.Delivery, *eventv1.Event)) error {
	filter := event.KindFilter(kind)
	last, ok, err := conn.Last(ctx, bus.EventsStream, filter)
	if err != nil {
		return err
	}
	if !ok || last.Time.Before(from) {
		return nil
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	idle := 0
	err = conn.Read(ctx, bus.ReadOptions{
		Stream: bus.EventsStream, Filter: filter, FromTime: from,
		// A job that is not read back is not followed, so the next fact is waited for.
		// When the end itself has left the log, whose oldest facts leave first, none comes.
		Idle: func() {
			idle++
			if _, kept, err := conn.At(ctx, bus.EventsStream, last.Seq); err == nil && !kept || idle >= patience {
				cancel(errEnd)
			}
		},
	}, func(d bus.Delivery) error {
		idle = 0
		if e, err := event.Unmarshal(d.Data); err == nil {
			handle(d, e)
		}
		if d.Seq >= last.Seq {
			return errEnd
		}
		return nil
	})
	if errors.Is(err, errEnd) {
		return nil
	}
	return fmt.Errorf("read facts of kind %s: %w", kind, err)
}

func jobsKey(account string) string { return "collector." + account + ".jobs_since" }

// jobsSince returns from when on the log tells all of the open jobs: from 40
// minutes before the last sign of life of a collector, alive, however long ago
// that is, or from the start of the oldest job that was open when it was last
// written down. Where none is known to have lived, it is all of the log.
func jobsSince(ctx context.Context, meta *bus.Bucket, account string, alive, now time.Time) (time.Time, error) {
	if alive.After(now) {
		alive = now
	}
	from := alive.Add(-job.Memory)
	value, _, ok, err := meta.Get(ctx, jobsKey(account))
	if err != nil {
		return from, fmt.Errorf("read the oldest open job: %w", err)
	}
	if ms, err := strconv.ParseInt(string(value), 10, 64); ok && err == nil && ms > 0 {
		if oldest := time.UnixMilli(ms).Add(-skewMargin); oldest.Before(from) {
			from = oldest
		}
	}
	if earliest := now.Add(-logMemory); from.Before(earliest) {
		from = earliest
	}
	return from, nil
}

// keepOldest writes down when the oldest open job began, until ctx ends, so that
// the next start reads the log from there. One that is not written costs the
// next start jobs that are open for more than 40 minutes, and nothing else.
func keepOldest(ctx context.Context, meta *bus.Bucket, account string, oldest func() (time.Time, bool), log *slog.Logger) error {
	var kept int64
	ticker := time.NewTicker(keepEvery)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
		var ms int64
		if at, ok := oldest(); ok {
			ms = at.UnixMilli()
		}
		if ms == kept {
			continue
		}
		attempt, cancel := context.WithTimeout(ctx, storeTime)
		_, err := meta.Put(attempt, jobsKey(account), strconv.AppendInt(nil, ms, 10))
		cancel()
		if err != nil {
			log.Warn("start of the oldest open job not written down", "err", err)
			continue
		}
		kept = ms
	}
}
