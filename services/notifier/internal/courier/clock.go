package courier

import "time"

// clock tells the core's time: what the wall clock said when the courier began,
// and what has passed since. A wall clock that is set does not move it, which
// would put off what is due by as much, or make a retry in a second one in an
// hour. Its instants are without the readings of the monotonic clock: they are
// compared with others that were in the journal.
type clock struct{ began time.Time }

func newClock() clock { return clock{began: time.Now()} }

// now returns the instant that it is.
func (c clock) now() time.Time { return c.began.Round(0).Add(time.Since(c.began)) }
