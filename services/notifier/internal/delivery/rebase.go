package delivery

import (
	"time"

	alertv1 "github.com/tocsin-dev/tocsin/proto/gen/tocsin/alert/v1"
	"github.com/tocsin-dev/tocsin/services/notifier/internal/cause"
)

// Version orders the transitions in ALERTS: by the sequence of their message,
// then by their place in it. Intake bounds a message to 500 transitions. After a
// cut of the stream a base is added, so that versions never fall.
func Version(sequence uint64, index int) uint64 {
	return sequence<<indexBits | uint64(min(index, 1<<indexBits-1))
}

// indexBits is how many bits of a version count the transitions of a message.
const indexBits = 10

// Rebase prepares for another stream of ALERTS than the one that the core knows:
// one that was made anew, or was cut and may have grown again. It is read from
// its beginning. What receivers were told, and are to be told, stays known, and
// all that follows is newer than that.
//
// What the new stream has in common with the old one is known by two signs, and
// passed over: its message was stored no later than until, which is when the last
// message that the core knows was, and nothing newer was known of its partition.
// Either alone may be wrong, since a clock may step back and a log of events may
// be cut too: then an alert is told twice, and none is lost. Call it after the
// journal was applied, and before ALERTS is.
func (c *Core) Rebase(until time.Time) {
	c.base = max(c.applied, c.highest)
	c.alertsSeq, c.alertsAt, c.rebased = 0, time.Time{}, until
}

// known tells whether a transition was applied before the stream was cut. It
// notes the transition as applied.
func (c *Core) known(m AlertMessage, i int) bool {
	version := c.base + Version(m.Seq, i)
	if version <= c.applied {
		return true
	}
	c.applied = version
	why := m.Transitions[i].GetCause()
	if why == nil {
		return false
	}
	old := cause.Compare(why, c.watermarks[m.Partition]) <= 0
	if !old {
		c.watermarks[m.Partition] = why
	}
	return old && !m.Stored.After(c.rebased)
}

// Watermark returns the newest cause of a partition that was applied, or nil.
func (c *Core) Watermark(partition int) *alertv1.Cause { return c.watermarks[partition] }
