package collector

import (
	"context"
	"sync/atomic"
	"time"

	"github.com/tocsin-dev/tocsin/internal/bus"
	"github.com/tocsin-dev/tocsin/internal/event"
	eventv1 "github.com/tocsin-dev/tocsin/proto/gen/tocsin/event/v1"
	"github.com/tocsin-dev/tocsin/services/collector/internal/inventory"
)

// skewEvery is how often the clocks are compared. They drift by milliseconds a
// day; what matters is one that was set wrong.
const skewEvery = time.Minute

// skew compares the machine's clock with the one that stamps the event log, by
// the newest heartbeat: it says when it was published, the log when it arrived.
// The way between counts as skew, which is some milliseconds.
type skew struct {
	conn    *bus.Conn
	subject string
	since   time.Time
	value   atomic.Pointer[time.Duration]
}

func newSkew(conn *bus.Conn, account string) *skew {
	token := event.Token(inventory.AccountTarget(account))
	return &skew{conn: conn, subject: event.StoredSubject(event.KindAccountPolled, token), since: time.Now()}
}

// known returns the last comparison, and false before the first one.
func (s *skew) known() (time.Duration, bool) {
	if v := s.value.Load(); v != nil {
		return *v, true
	}
	return 0, false
}

// run compares until ctx ends.
func (s *skew) run(ctx context.Context) {
	ticker := time.NewTicker(skewEvery)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		attempt, cancel := context.WithTimeout(ctx, storeTime)
		last, ok, err := s.conn.Last(attempt, bus.EventsStream, s.subject)
		cancel()
		if err != nil || !ok {
			continue // the next round compares again
		}
		e, err := event.Unmarshal(last.Data)
		if err != nil || e.GetOccurredAt().AsTime().Before(s.since) {
			continue // another process's, whose clock is not ours
		}
		v := skewOf(e, last.Time)
		s.value.Store(&v)
	}
}

// skewOf returns by how much the clock that e was made by is ahead of the one by
// which it was stored.
func skewOf(e *eventv1.Event, stored time.Time) time.Duration {
	return e.GetOccurredAt().AsTime().Add(e.GetHeld().AsDuration()).Sub(stored)
}
