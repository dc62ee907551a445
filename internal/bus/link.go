package bus

import (
	"context"
	"sync"
	"time"
)

// link knows whether the connection is up, and since when. An epoch is the time
// between two losses of the connection.
type link struct {
	mu       sync.Mutex
	up       chan struct{}           // guarded by mu; closed while connected
	epoch    context.Context         // guarded by mu; ends when the connection is lost
	end      context.CancelCauseFunc // guarded by mu
	restored time.Time               // guarded by mu; zero until the connection was lost and came back
}

func newLink() *link {
	l := &link{up: make(chan struct{})}
	l.epoch, l.end = context.WithCancelCause(context.Background())
	return l
}

// rise marks the connection as up. first tells the first time, which is not a
// return.
func (l *link) rise(now time.Time, first bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	select {
	case <-l.up:
		return
	default:
	}
	if !first {
		l.restored = now
	}
	l.epoch, l.end = context.WithCancelCause(context.Background())
	close(l.up)
}

// fall marks the connection as lost and ends the epoch because of err.
func (l *link) fall(err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.end(err)
	select {
	case <-l.up:
		l.up = make(chan struct{})
	default:
	}
}

// wait returns when the connection is up or ctx ends.
func (l *link) wait(ctx context.Context) error {
	l.mu.Lock()
	up := l.up
	l.mu.Unlock()
	select {
	case <-up:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// bound returns a child of ctx that also ends when the connection is lost or
// limit has passed, whichever is first.
func (l *link) bound(ctx context.Context, limit time.Duration) (context.Context, context.CancelFunc) {
	epoch := l.present()
	ctx, cancelCause := context.WithCancelCause(ctx)
	ctx, cancelLimit := context.WithTimeout(ctx, limit)
	stop := context.AfterFunc(epoch, func() { cancelCause(context.Cause(epoch)) })
	return ctx, func() {
		stop()
		cancelLimit()
		cancelCause(nil)
	}
}

// present returns the present epoch.
func (l *link) present() context.Context {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.epoch
}

// restoredSince reports whether the connection came back less than d before now.
func (l *link) restoredSince(now time.Time, d time.Duration) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return !l.restored.IsZero() && now.Sub(l.restored) < d
}
