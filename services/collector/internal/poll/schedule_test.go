package poll_test

import (
	"context"
	"fmt"
	"math"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/tocsin-dev/tocsin/services/collector/internal/poll"
)

var noon = time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)

func TestSlotsKeepTheirPlaceInTheInterval(t *testing.T) {
	const interval = 15 * time.Second
	first := poll.NextSlot(noon, "endpoint/a", interval)
	if wait := first.Sub(noon); wait <= 0 || wait > interval {
		t.Fatalf("first slot after %v", wait)
	}
	for _, test := range []struct {
		name string
		now  time.Time
		want time.Time
	}{
		{"a moment before it", first.Add(-time.Nanosecond), first},
		{"at it", first, first.Add(interval)},
		{"a moment after it", first.Add(time.Nanosecond), first.Add(interval)},
		{"after a day off", first.Add(24*time.Hour + time.Second), first.Add(24*time.Hour + interval)},
	} {
		if got := poll.NextSlot(test.now, "endpoint/a", interval); !got.Equal(test.want) {
			t.Errorf("%s: the next slot is %v, want %v", test.name, got, test.want)
		}
	}
}

func TestSlotsOfManyTargetsSpreadEvenly(t *testing.T) {
	const targets, interval = 15_000, 15 * time.Second
	var seconds [15]int
	for i := range targets {
		wait := poll.NextSlot(noon, fmt.Sprintf("endpoint/ep%05d", i), interval).Sub(noon)
		seconds[int(wait/time.Second)%15]++
	}
	for s, n := range seconds {
		if math.Abs(float64(n)-1000) > 150 { // 5 standard deviations of 30
			t.Errorf("second %d has %d of %d polls", s, n, targets)
		}
	}
}

func TestBackoff(t *testing.T) {
	const interval, longest = 15 * time.Second, 5 * time.Minute
	for name, test := range map[string]struct {
		failures   int
		retryAfter time.Duration
		jitter     float64
		want       time.Duration
	}{
		"the first failure waits for the next poll": {failures: 1, want: interval},
		"the second waits twice as long":            {failures: 2, want: 2 * interval},
		"the fourth eight times":                    {failures: 4, want: 8 * interval},
		"the sixth reaches the longest":             {failures: 6, want: longest},
		"the thousandth does not pass it":           {failures: 1000, want: longest},
		"jitter takes up to a quarter":              {failures: 6, jitter: 0.8, want: 4 * time.Minute},
		"RunPod's wish goes before":                 {failures: 2, retryAfter: 10 * time.Minute, want: 10 * time.Minute},
		"a wish of a day is not granted":            {failures: 2, retryAfter: 24 * time.Hour, want: 15 * time.Minute},
		"a short wish changes nothing":              {failures: 6, retryAfter: time.Second, want: longest},
	} {
		if got := poll.Backoff(interval, longest, test.failures, test.retryAfter, test.jitter); got != test.want {
			t.Errorf("%s: waits %v, want %v", name, got, test.want)
		}
	}
}

func TestTheClockNeverStepsBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		now := time.Now()
		plain := poll.NewClock(now, time.Time{})
		after := poll.NewClock(now, now.Add(time.Hour)) // the machine's clock was set back an hour
		time.Sleep(time.Minute)
		if got := plain.Now().Sub(now); got != time.Minute {
			t.Errorf("a clock shows %v after a minute", got)
		}
		if got := after.Now(); !got.After(now.Add(time.Hour + time.Minute)) {
			t.Errorf("the clock shows %v, before the last slot of the earlier process", got)
		}
		if got := plain.Show(time.Now().Add(time.Second)).Sub(plain.Now()); got != time.Second {
			t.Errorf("in a second is shown as in %v", got)
		}
	})
}

func TestAQueueCallsEachWhenItIsDue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		clock := poll.NewClock(time.Now(), time.Time{})
		began := clock.Now()
		q := poll.NewQueue(clock, 2)
		var mu sync.Mutex
		calls := map[string][]time.Duration{}
		every := func(key string, interval time.Duration) poll.Func {
			return func(_ context.Context, slot time.Time) time.Time {
				mu.Lock()
				defer mu.Unlock()
				calls[key] = append(calls[key], slot.Sub(began))
				return slot.Add(interval)
			}
		}
		if late := q.Late(); late != 0 {
			t.Errorf("nothing is %v late", late)
		}
		q.Put("slow", began.Add(10*time.Second), every("slow", 20*time.Second))
		q.Put("fast", began.Add(5*time.Second), every("fast", 10*time.Second))
		q.Put("fast", began, every("other", time.Second)) // it is there already
		q.Put("once", began.Add(time.Second), func(context.Context, time.Time) time.Time { return time.Time{} })
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan struct{})
		go func() { q.Run(ctx); close(ended) }()

		time.Sleep(31 * time.Second)
		synctest.Wait()
		want := map[string][]time.Duration{
			"slow": {10 * time.Second, 30 * time.Second},
			"fast": {5 * time.Second, 15 * time.Second, 25 * time.Second},
		}
		mu.Lock()
		if diff := cmp.Diff(want, calls); diff != "" {
			t.Errorf("calls (-want +got):\n%s", diff)
		}
		mu.Unlock()
		if q.Len() != 2 {
			t.Errorf("%d schedules, want 2", q.Len())
		}
		q.Remove("fast")
		q.Hasten(func(string) time.Time { return clock.Now().Add(time.Second) })
		time.Sleep(2 * time.Second)
		synctest.Wait()
		mu.Lock()
		if len(calls["fast"]) != 3 || len(calls["slow"]) != 3 {
			t.Errorf("after removing one and hastening the other: %v", calls)
		}
		mu.Unlock()
		cancel()
		<-ended
	})
}

func TestAQueueBoundsItsCallsAndWaitsForThem(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		clock := poll.NewClock(time.Now(), time.Time{})
		q := poll.NewQueue(clock, 3)
		var mu sync.Mutex
		running, most, done := 0, 0, 0
		for i := range 10 {
			q.Put(fmt.Sprint(i), clock.Now(), func(context.Context, time.Time) time.Time {
				mu.Lock()
				running++
				most = max(most, running)
				mu.Unlock()
				time.Sleep(time.Second)
				mu.Lock()
				defer mu.Unlock()
				running--
				done++
				return time.Time{}
			})
		}
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan struct{})
		go func() { q.Run(ctx); close(ended) }()
		time.Sleep(1500 * time.Millisecond)
		if late := q.Late(); late != 1500*time.Millisecond { // four still wait
			t.Errorf("the call that is due longest is %v late, want 1.5 s", late)
		}
		cancel() // three ended, three are in progress
		<-ended
		if most != 3 || running != 0 || done != 6 {
			t.Errorf("at most %d at once, %d after the end, %d done", most, running, done)
		}
	})
}

func TestARemovedKeyMayComeBackWhileItsLastCallRuns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		clock := poll.NewClock(time.Now(), time.Time{})
		q := poll.NewQueue(clock, 2)
		var first, second int
		q.Put("a", clock.Now(), func(context.Context, time.Time) time.Time {
			first++
			time.Sleep(3 * time.Second)
			return clock.Now()
		})
		go q.Run(t.Context())
		time.Sleep(time.Second)
		q.Remove("a")
		q.Put("a", clock.Now(), func(context.Context, time.Time) time.Time {
			second++
			return time.Time{}
		})
		time.Sleep(5 * time.Second)
		synctest.Wait()
		if first != 1 || second != 1 || q.Len() != 0 {
			t.Errorf("first %d, second %d, %d left; want one call each", first, second, q.Len())
		}
	})
}

func TestAKeyThatIsPutWhileItsLastCallRunsIsCalledAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		clock := poll.NewClock(time.Now(), time.Time{})
		q := poll.NewQueue(clock, 2)
		calls := 0
		run := func(context.Context, time.Time) time.Time {
			calls++
			time.Sleep(3 * time.Second)
			return time.Time{}
		}
		q.Put("a", clock.Now(), run)
		go q.Run(t.Context())
		time.Sleep(time.Second)
		q.Put("a", clock.Now().Add(5*time.Second), run) // as a job that is registered anew
		time.Sleep(4 * time.Second)
		synctest.Wait()
		if calls != 1 || q.Len() != 1 {
			t.Errorf("%d calls and %d schedules before it is due again, want one each", calls, q.Len())
		}
		time.Sleep(10 * time.Second)
		synctest.Wait()
		if calls != 2 || q.Len() != 0 {
			t.Errorf("%d calls, %d schedules left; want two calls", calls, q.Len())
		}
	})
}
