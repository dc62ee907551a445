package bus

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"
)

func TestBackoffDoublesUpToItsLimitAndStartsOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBackoff()
		pause := func(longest time.Duration) {
			t.Helper()
			start := time.Now()
			if err := b.wait(t.Context()); err != nil {
				t.Fatal(err)
			}
			if took := time.Since(start); took < longest/2 || took >= longest {
				t.Errorf("a pause of %v, want from %v to %v", took, longest/2, longest)
			}
		}
		for longest := firstWait; longest < lastWait; longest *= 2 {
			pause(longest)
		}
		pause(lastWait)
		pause(lastWait)
		b.reset()
		pause(firstWait)
	})
}

func TestBackoffEndsWithItsContext(t *testing.T) {
	ctx, cancel := context.WithCancelCause(t.Context())
	cause := errors.New("cause")
	cancel(cause)
	if err := newBackoff().wait(ctx); !errors.Is(err, cause) {
		t.Errorf("error %v, want the context's cause", err)
	}
}

func TestLinkBoundsRequestsByTheConnection(t *testing.T) {
	lost := errors.New("lost")
	tests := map[string]struct {
		end  func(*link, context.CancelFunc)
		want error
	}{
		"the connection falls": {func(l *link, _ context.CancelFunc) { l.fall(lost) }, lost},
		"the caller gives up":  {func(_ *link, cancel context.CancelFunc) { cancel() }, context.Canceled},
		"the limit passes":     {func(*link, context.CancelFunc) { time.Sleep(2 * time.Second) }, context.DeadlineExceeded},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l := newLink()
				l.rise(time.Now(), true)
				parent, cancelParent := context.WithCancel(t.Context())
				defer cancelParent()
				ctx, cancel := l.bound(parent, time.Second)
				defer cancel()
				synctest.Wait()
				if ctx.Err() != nil {
					t.Fatalf("it ended before anything happened: %v", ctx.Err())
				}
				test.end(l, cancelParent)
				synctest.Wait()
				if got := context.Cause(ctx); !errors.Is(got, test.want) {
					t.Errorf("it ended with %v, want %v", got, test.want)
				}
			})
		})
	}
}

func TestLinkWaitsForTheConnection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLink()
		l.rise(time.Now(), true)
		l.fall(errDisconnected)
		go func() {
			time.Sleep(time.Minute)
			l.rise(time.Now(), false)
		}()
		start := time.Now()
		if err := l.wait(t.Context()); err != nil {
			t.Fatal(err)
		}
		if took := time.Since(start); took != time.Minute {
			t.Errorf("waited %v, want until the connection was up", took)
		}
		if err := l.wait(t.Context()); err != nil || time.Since(start) != time.Minute {
			t.Errorf("waiting while it is up: %v after %v", err, time.Since(start))
		}
	})
}

func TestLinkTellsAReturnFromTheFirstConnection(t *testing.T) {
	start := time.Unix(1000, 0)
	l := newLink()
	l.rise(start, true)
	if l.restoredSince(start, time.Hour) {
		t.Error("the first connection counts as a return")
	}
	l.fall(errDisconnected)
	l.rise(start.Add(time.Minute), false)
	for after, want := range map[time.Duration]bool{
		0: true, 999 * time.Millisecond: true, time.Second: false, time.Hour: false,
	} {
		if got := l.restoredSince(start.Add(time.Minute+after), time.Second); got != want {
			t.Errorf("%v after the return: %v, want %v", after, got, want)
		}
	}
}

func TestAnEpochEndsWithTheConnection(t *testing.T) {
	l := newLink()
	l.rise(time.Now(), true)
	epoch := l.present()
	if epoch.Err() != nil {
		t.Fatal("it ended while the connection is up")
	}
	l.fall(errDisconnected)
	l.rise(time.Now(), false)
	if !errors.Is(context.Cause(epoch), errDisconnected) {
		t.Errorf("it ended by %v, want %v", context.Cause(epoch), errDisconnected)
	}
	if l.present().Err() != nil {
		t.Error("the one after it ended too")
	}
}
