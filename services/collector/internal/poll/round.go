package poll

import (
	"sync"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	eventv1 "github.com/tocsin-dev/tocsin/proto/gen/tocsin/event/v1"
	"github.com/tocsin-dev/tocsin/services/collector/internal/inventory"
)

// Round counts the polls of an account between two heartbeats. Its zero value is
// ready; it is safe for concurrent use.
type Round struct {
	mu     sync.Mutex
	ok     int64            // guarded by mu
	failed map[string]int64 // guarded by mu, by the short name of the reason
}

// OK counts a poll that RunPod answered.
func (r *Round) OK() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.ok++
}

// Failed counts a poll that failed.
func (r *Round) Failed(f Failure) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.failed == nil {
		r.failed = map[string]int64{}
	}
	r.failed[f.Name]++
}

// Census is how many targets an account has, and of how many the last poll
// failed.
type Census struct {
	Targets, Failing int64
}

// End returns the round as the account's heartbeat of the slot and begins the
// next one.
func (r *Round) End(account string, slot time.Time, interval time.Duration, c Census) *eventv1.Event {
	r.mu.Lock()
	defer r.mu.Unlock()
	fact := &eventv1.AccountPolled{
		Interval:       durationpb.New(interval),
		Ok:             r.ok,
		FailedByReason: r.failed,
		Targets:        c.Targets,
		TargetsFailing: c.Failing,
		PollSlotMs:     slot.UnixMilli(),
	}
	for _, n := range r.failed {
		fact.Failed += n
	}
	r.ok, r.failed = 0, nil
	return &eventv1.Event{
		Target: inventory.AccountTarget(account),
		Source: eventv1.Source_SOURCE_POLL,
		Fact:   &eventv1.Event_AccountPolled{AccountPolled: fact},
	}
}
