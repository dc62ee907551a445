package bus

import (
	"bytes"
	"context"
	"errors"
	"sync"
	"time"
)

// Lease is a hint that its holder, and nobody else, works on something. Between
// two holders there is at least TTL - StopAfter, as long as the machines' clocks
// run equally fast and none of them is suspended. Guard what it covers with a
// compare-and-set all the same.
type Lease struct {
	// Name of the lease.
	Name string

	leases  *Leases
	rev     uint64        // used by run only
	release chan struct{} // closed by Release
	done    chan struct{} // closed when the lease is not valid any more
	stopped chan struct{} // closed when run ended

	mu       sync.Mutex
	sent     time.Time // guarded by mu; before the last successful renewal was sent
	released bool      // guarded by mu
}

// Valid reports whether the lease holds at this moment, by the monotonic clock.
func (l *Lease) Valid() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return !l.released && time.Since(l.sent) < l.leases.opts.StopAfter
}

// Done is closed when the lease ends: lost, lapsed or released.
func (l *Lease) Done() <-chan struct{} { return l.done }

// Release ends the lease and frees it for others at once. It returns when that
// was tried; an unreachable server frees it by itself after TTL.
func (l *Lease) Release() {
	l.mu.Lock()
	if !l.released {
		l.released = true
		close(l.release)
	}
	l.mu.Unlock()
	<-l.stopped
}

// until returns the end of the lease's validity.
func (l *Lease) until() time.Time {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.sent.Add(l.leases.opts.StopAfter)
}

// run renews the lease until it is released, lost or the Conn closes.
func (l *Lease) run() {
	defer close(l.stopped)
	tick := time.NewTicker(l.leases.opts.Renew)
	defer tick.Stop()
	lapse := time.NewTimer(time.Until(l.until()))
	defer lapse.Stop()
	for {
		select {
		case <-l.release:
			l.end(false)
			l.free()
			return
		case <-l.leases.conn.life.Done():
			l.end(false)
			return
		case <-lapse.C:
			l.lose("not renewed in time")
			return
		case <-tick.C:
			if !l.renew() {
				l.lose("taken by another, or expired")
				return
			}
			lapse.Reset(time.Until(l.until()))
		}
	}
}

// end makes the lease invalid before anyone hears of it.
func (l *Lease) end(lost bool) {
	l.mu.Lock()
	l.sent = time.Time{}
	l.mu.Unlock()
	l.leases.drop(l, lost)
	close(l.done)
}

func (l *Lease) lose(why string) {
	l.end(true)
	l.leases.conn.log.Warn("lease lost", "lease", l.Name, "reason", why)
}

// free deletes the key if it still is ours.
func (l *Lease) free() {
	ctx, cancel := context.WithTimeout(l.leases.conn.life, releaseLimit)
	defer cancel()
	if err := l.leases.bucket.deleteAt(ctx, l.Name, l.rev); err != nil {
		l.leases.conn.log.Info("lease not freed; it will lapse", "lease", l.Name, "err", err)
	}
}

// renew sends renewals until one succeeds or the lease's validity ends, and
// reports whether the lease is still ours as far as is known.
func (l *Lease) renew() bool {
	ctx, cancel := context.WithDeadline(l.leases.conn.life, l.until())
	defer cancel()
	retry := newBackoff()
	for ctx.Err() == nil && !l.wantsRelease() {
		sent := time.Now()
		rev, err := l.leases.bucket.Update(ctx, l.Name, l.leases.value, l.rev)
		if err == nil {
			l.rev = rev
			l.mu.Lock()
			l.sent = sent
			l.mu.Unlock()
			return true
		}
		if gone := l.reread(ctx, err); gone {
			return false
		}
		if retry.wait(ctx) != nil {
			break
		}
	}
	return true // run sees the lapse, the release or the end of the Conn
}

func (l *Lease) wantsRelease() bool {
	select {
	case <-l.release:
		return true
	default:
		return false
	}
}

// reread finds out, after a renewal that failed with err, whether the key is
// still ours: an earlier renewal may have been stored although its answer was
// lost. It reports true only when the key certainly is not ours.
func (l *Lease) reread(ctx context.Context, err error) (gone bool) {
	if !errors.Is(err, ErrWrongSequence) && !errors.Is(err, ErrUnknownOutcome) {
		return false
	}
	value, rev, ok, err := l.leases.bucket.Get(ctx, l.Name)
	switch {
	case err != nil:
		return false
	case !ok || !bytes.Equal(value, l.leases.value):
		return true
	}
	l.rev = rev
	return false
}
