package query

import (
	"context"
	"sync"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	queryv1 "github.com/tocsin-dev/tocsin/proto/gen/tocsin/query/v1"
	statev1 "github.com/tocsin-dev/tocsin/proto/gen/tocsin/state/v1"
)

const (
	// endFor is how long the end of the log is remembered, so that questions
	// cost NATS no more than two requests a second.
	endFor = time.Second
	// endTimeout bounds the search for it; without it an answer tells no lag.
	endTimeout = time.Second
	// quietFor is how old the last message of a partition may be before it says
	// anything about lag: a partition gets a tick when it had no message for 60 s.
	quietFor = 65 * time.Second
)

// EndFunc finds the last message of the event log.
type EndFunc func(ctx context.Context) (seq uint64, at time.Time, err error)

// end remembers the end of the log for a moment.
type end struct {
	find EndFunc

	mu    sync.Mutex
	asked time.Time // guarded by mu
	seq   uint64    // guarded by mu
	at    time.Time // guarded by mu
	err   error     // guarded by mu
}

func (e *end) get(ctx context.Context) (seq uint64, at time.Time, err error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.asked.IsZero() || time.Since(e.asked) > endFor {
		ctx, cancel := context.WithTimeout(ctx, endTimeout)
		defer cancel()
		e.seq, e.at, e.err = e.find(ctx)
		e.asked = time.Now()
	}
	return e.seq, e.at, e.err
}

// freshness says how far the heads of some partitions reach. Partitions that
// run here know up to where the log has nothing for them; of others only their
// last message is known. The lag is absent when it cannot be told.
func (s *Server) freshness(ctx context.Context, heads []*statev1.StoredHead, partitions []int) *queryv1.Freshness {
	last, lastAt, err := s.end.get(ctx)
	f := &queryv1.Freshness{}
	var lag time.Duration
	known := err == nil
	for i, p := range partitions {
		position := heads[p].GetPosition()
		seq, at := position.GetAppliedSequence(), position.GetAppliedTime().AsTime()
		behind := time.Duration(0)
		if own, ownAt, ok := s.View.Covered(p); ok {
			seq = max(seq, own)
			if own < last {
				behind = lastAt.Sub(ownAt)
				known = known && !ownAt.IsZero()
			}
		} else if seq < last && lastAt.Sub(at) > quietFor {
			behind = lastAt.Sub(at)
			known = known && seq > 0
		}
		if i == 0 || seq < f.GetAppliedSequence() {
			f.AppliedSequence = seq
		}
		lag = max(lag, behind)
	}
	if known {
		f.Lag = durationpb.New(lag)
	}
	return f
}
