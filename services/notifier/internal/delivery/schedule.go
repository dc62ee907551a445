package delivery

import (
	"encoding/binary"
	"hash/fnv"
	"time"
)

// schedule is the pause after each failed attempt. Fourteen attempts span about
// 24 hours: a receiver that is away over a night still hears of it.
var schedule = []time.Duration{
	time.Second, 5 * time.Second, 15 * time.Second,
	time.Minute, 2 * time.Minute, 5 * time.Minute, 10 * time.Minute, 30 * time.Minute,
	time.Hour, 2 * time.Hour, 4 * time.Hour, 6 * time.Hour, 10 * time.Hour,
}

const (
	// jitter is the share by which a pause is made shorter or longer, so that
	// what failed together does not come back together.
	jitter = 0.2
	// maxRetryAfter bounds what a receiver can ask for, unless the schedule's
	// own pause is longer.
	maxRetryAfter = 2 * time.Hour
)

// pause returns how long to wait after the failed attempt of that number (from
// 1) of the message id, and false when it was the last one. A receiver that
// asks for more gets it, up to two hours.
func pause(id string, number int, retryAfter time.Duration) (time.Duration, bool) {
	if number > len(schedule) {
		return 0, false
	}
	d := schedule[number-1]
	h := fnv.New64a()
	_, _ = h.Write([]byte(id))
	_, _ = h.Write(binary.BigEndian.AppendUint32(nil, uint32(number)))
	// 53 bits fill a float64's mantissa: a share in [0, 1).
	share := float64(h.Sum64()>>11) / (1 << 53)
	d += time.Duration(float64(d) * jitter * (2*share - 1))
	return max(d, min(retryAfter, maxRetryAfter)), true
}
