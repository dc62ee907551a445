package poll

import (
	"hash/fnv"
	"time"
)

// Clock shows the time of the wall as it was at the start plus what passed
// since by the monotonic clock. It never steps, so that the slots of one process
// only grow, whatever happens to the machine's clock.
type Clock struct {
	start time.Time // with its monotonic reading
	shown time.Time // without
}

// NewClock returns a clock that shows the time of now, or a moment after the
// last slot of an earlier process when that is later: samples with older slots
// would be ignored.
func NewClock(now, lastSlot time.Time) Clock {
	shown := now.Round(0)
	if !lastSlot.Before(shown) {
		shown = lastSlot.Add(time.Millisecond)
	}
	return Clock{start: now, shown: shown}
}

// Now returns the time that the clock shows.
func (c Clock) Now() time.Time { return c.shown.Add(time.Since(c.start)) }

// Show returns what the clock showed at the instant t, which must carry a
// monotonic reading.
func (c Clock) Show(t time.Time) time.Time { return c.shown.Add(t.Sub(c.start)) }

// NextSlot returns the first instant after now at which the target called key
// is to be polled. Its place within the interval is a hash of its key, so that
// the polls of many targets spread evenly and a restart moves none of them.
func NextSlot(now time.Time, key string, interval time.Duration) time.Time {
	h := fnv.New64a()
	_, _ = h.Write([]byte(key)) // never fails
	phase := time.Duration(h.Sum64() % uint64(interval))
	since := time.Duration(now.UnixNano()) % interval
	return now.Add((phase-since+interval-1)%interval + 1)
}

// longestWish bounds how long RunPod's Retry-After, or a spent quota, can silence
// a target. A poll that the quota holds back costs RunPod nothing.
const longestWish = 15 * time.Minute

// Backoff returns how long after its failure a target that failed that many
// times in a row is polled again: its interval, doubled each time, at most
// longest, shortened by up to a quarter by jitter in [0, 1), and not before
// retryAfter, of which at most 15 minutes count.
func Backoff(interval, longest time.Duration, failures int, retryAfter time.Duration, jitter float64) time.Duration {
	delay := interval
	for i := 1; i < failures && delay < longest; i++ {
		delay *= 2
	}
	delay = max(min(delay, longest), interval)
	delay -= time.Duration(float64(delay) / 4 * jitter)
	return max(delay, min(retryAfter, longestWish))
}
