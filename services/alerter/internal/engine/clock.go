package engine

import (
	"slices"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/tocsin-dev/tocsin/services/alerter/internal/expr"
	"github.com/tocsin-dev/tocsin/services/alerter/internal/window"
)

const (
	// maxStep is by how much one message may move engine time. What is longer is
	// a gap: a leap of the clock, an outage of the bus or a night off. It moves
	// engine time by this much, and nothing waits or is silent in it: see suspend
	// and listen. The owner publishes a tick at least every 60 s.
	maxStep = 90 * time.Second
	// longestGap bounds what one message may move the bus's time beyond engine
	// time: after it no window shows anything from before.
	longestGap = 2 * expr.MaxWindow
)

// clock is a partition's time, which only messages move. There are two of it.
// Engine time (now) is what waits are measured in: it moves by at most maxStep
// a message, so that time in which nobody could publish decides nothing. The
// bus's time is what windows are measured in: it is engine time and all that
// engine time left out, so that what grew in an outage of eight hours is not
// taken for the growth of its last minute. Instants of both are in milliseconds
// since the first message.
type clock struct {
	// stamp is the timestamp of the last message, and now is engine time, both
	// in nanoseconds.
	stamp, now int64
	// skipped is how much longer the bus's time is, in milliseconds.
	skipped int64
	// gaps are the stretches of the bus's time that engine time left out, oldest
	// first. They lie at least maxStep of engine time apart, and those that end
	// longer ago than any window reaches are dropped: fewer than 24 h / 90 s = 960
	// are kept.
	gaps []window.Gap
}

// elapsed returns how much engine time passes with a message of a timestamp,
// and how many milliseconds of the bus's time it leaves out. A step back of the
// bus's clock stands still and goes on from there.
func (p *Partition) elapsed(to time.Time) (passed time.Duration, skipped int64) {
	if p.applied == 0 {
		return 0, 0
	}
	raw := min(max(time.Duration(to.UnixNano()-p.clock.stamp), 0), longestGap)
	if p.speed != 1 {
		// The bound holds for engine time: a demo that was stopped for a minute
		// and a half has not been silent for an hour and a half.
		raw = time.Duration(float64(raw) * p.speed)
	}
	passed = min(raw, maxStep)
	return passed, min(raw-passed, longestGap).Milliseconds()
}

// advance moves the time to a message's timestamp.
func (c *clock) advance(to time.Time, passed time.Duration, skipped int64) {
	if skipped > 0 {
		from := c.bus()
		c.gaps = append(c.gaps, window.Gap{From: from, To: from + skipped})
		c.skipped += skipped
	}
	c.stamp = to.UnixNano()
	c.now += int64(passed)
	reach := c.reach(c.bus(), expr.MaxWindow.Milliseconds())
	c.gaps = slices.DeleteFunc(c.gaps, func(g window.Gap) bool { return g.To <= reach })
}

// bus returns the bus's time.
func (c *clock) bus() int64 { return c.now/int64(time.Millisecond) + c.skipped }

// busAt returns the bus's time at an instant of engine time after the last gap:
// what engine time passes with the message that ends a gap lies at its end.
func (c *clock) busAt(at int64) int64 { return at + c.skipped }

// reach returns the instant of the bus's time from which on width of engine
// time passed until the instant at.
func (c *clock) reach(at, width int64) int64 {
	from := at - width
	for _, g := range slices.Backward(c.gaps) {
		if g.To <= from {
			break
		}
		from -= g.To - g.From
	}
	return from
}

// engineAt returns the engine time of an instant of the bus's; of one in a gap,
// that of its beginning.
func (c *clock) engineAt(bus int64) int64 {
	skipped := c.skipped
	for _, g := range slices.Backward(c.gaps) {
		if g.To <= bus {
			break
		}
		skipped -= g.To - g.From
		bus = min(bus, g.From)
	}
	return bus - skipped
}

// shown returns the instant that people read for an instant of engine time.
func (p *Partition) shown(at int64) time.Time {
	ago := time.Duration(p.clock.now) - time.Duration(at)*time.Millisecond
	if p.speed != 1 {
		ago = time.Duration(float64(ago) / p.speed)
	}
	return p.step.message.Time.Add(-ago)
}

// firedAt returns the instant at which an alert fires, as people read it. Outside,
// an alert is known by its labels and this instant: one that ends and fires again
// within a millisecond, as when what waited in an outage comes at once, must not be
// taken for the one before. So what fires by a message fires at its very timestamp.
func (p *Partition) firedAt(at int64) *timestamppb.Timestamp {
	if at == p.nowMs() {
		return timestamppb.New(p.step.message.Time)
	}
	return timestamppb.New(p.shown(at))
}

// real turns a duration of the world into milliseconds of the clock.
func (p *Partition) real(d time.Duration) int64 {
	if p.speed != 1 {
		d = time.Duration(float64(d) * p.speed)
	}
	return d.Milliseconds()
}

func (p *Partition) nowMs() int64 { return p.clock.now / int64(time.Millisecond) }
