package bus

import (
	"context"
	"math/rand/v2"
	"time"
)

const (
	// firstWait and lastWait bound the pauses between attempts: short enough
	// that a restart of the server costs little, long enough that 100 waiting
	// publishers ask a full stream no more than 50 times a second.
	firstWait = 20 * time.Millisecond
	lastWait  = 2 * time.Second
)

// backoff doubles the pauses between attempts, each shortened by up to half at
// random.
type backoff struct{ next time.Duration }

func newBackoff() *backoff { return &backoff{next: firstWait} }

// wait sleeps for the next pause, or returns the cause of ctx's end.
func (b *backoff) wait(ctx context.Context) error {
	pause := b.next/2 + rand.N(b.next/2)
	b.next = min(2*b.next, lastWait)
	timer := time.NewTimer(pause)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// reset starts over with the shortest pause.
func (b *backoff) reset() { b.next = firstWait }
