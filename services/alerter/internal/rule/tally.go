package rule

import "math/bits"

// MaxBuckets bounds the buckets that a Tally keeps: one bit of a word each.
const MaxBuckets = 64

// Times says in how many of the last buckets of time a condition must have held.
// Buckets lie at whole multiples of their size since the beginning of engine time,
// so that they are the same however often anybody looks.
type Times struct {
	// Least is in how many, at least 1.
	Least int
	// Of is how many are looked at, the one that is not over included; at most
	// MaxBuckets.
	Of int
	// Size is the length of a bucket, in milliseconds.
	Size int64
}

// bucket returns the number of the bucket of an instant.
func (t Times) bucket(at int64) int64 { return at / t.Size }

// Next returns where the bucket after that of an instant begins.
func (t Times) Next(at int64) int64 { return (t.bucket(at) + 1) * t.Size }

// Tally says in which of the last buckets a condition held. What is known of it
// at an instant stands until the next note, so that the instants at which it is
// judged change nothing.
type Tally struct {
	// At is the instant of the last note.
	At int64
	// Truth is what is known from then on.
	Truth Truth
	// Held has bit i for the i-th bucket before that of At, in which the condition
	// held at some time.
	Held uint64
	// Unknown has the same for buckets in which nobody knew at some time.
	Unknown uint64
}

// NewTally returns the tally of a condition of which nothing is known before an
// instant.
func NewTally(at int64) Tally { return Tally{At: at, Unknown: ^uint64(0)} }

// Note takes in what is known of the condition from an instant on. An instant
// before that of the last note stands for that.
func (y Tally) Note(at int64, truth Truth, t Times) Tally {
	at = max(at, y.At)
	// Older ones are out of sight.
	for left := min(t.bucket(at)-t.bucket(y.At), MaxBuckets); left > 0; left-- {
		y.Held, y.Unknown = y.Held<<1, y.Unknown<<1
		if left > 1 || at%t.Size > 0 {
			y.mark(y.Truth) // until the instant that was told, and no longer
		}
	}
	y.At, y.Truth = at, truth
	y.mark(truth)
	mask := ^uint64(0) >> (MaxBuckets - t.Of)
	y.Held, y.Unknown = y.Held&mask, y.Unknown&mask
	return y
}

// mark notes a truth in the newest bucket.
func (y *Tally) mark(truth Truth) {
	switch truth {
	case Yes:
		y.Held |= 1
	case Unknown:
		y.Unknown |= 1
	}
}

// Verdict says whether the condition held in enough buckets. It is Unknown where
// those decide of which nobody knows.
func (y Tally) Verdict(t Times) Truth {
	held := y.Count()
	switch {
	case held >= t.Least:
		return Yes
	case held+bits.OnesCount64(y.Unknown&^y.Held) >= t.Least:
		return Unknown
	default:
		return No
	}
}

// Count returns in how many of the buckets the condition held.
func (y Tally) Count() int { return bits.OnesCount64(y.Held) }

// Idle says that no bucket holds anything that a new tally would lack.
func (y Tally) Idle() bool { return y.Held == 0 && y.Truth != Yes }
