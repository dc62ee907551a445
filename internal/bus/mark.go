package bus

import (
	"context"
	"fmt"
	"time"
)

// Mark is what a stored message is recognized by. A stream that was cut and grew
// again has other messages at the same sequences, and stored them at other
// instants.
type Mark struct {
	// Seq is the message's sequence; 0 means no message.
	Seq uint64
	// Time is when it was stored.
	Time time.Time
}

// Recognize returns an error wrapping ErrStreamReplaced unless the stream is the
// one that the message came from: it holds it still, or removed it with all that
// were before. A Mark of no message is recognized in any stream. The leader is
// asked, since a follower may lag behind what was read.
func (c *Conn) Recognize(ctx context.Context, stream string, m Mark) error {
	if m.Seq == 0 {
		return nil
	}
	d, kept, err := c.At(ctx, stream, m.Seq)
	switch {
	case err != nil:
		return err
	case kept && d.Time.Equal(m.Time):
		return nil
	case kept:
		return fmt.Errorf("%w: message %d of %s was stored at %v, and the one known at %v",
			ErrStreamReplaced, m.Seq, stream, d.Time, m.Time)
	}
	// Asked in this order, a message that leaves the stream by its age in between
	// is seen as removed.
	info, err := c.streamInfo(ctx, stream)
	if err != nil {
		return err
	}
	if state := stateOf(info); m.Seq > state.LastSeq || m.Seq >= state.FirstSeq {
		return fmt.Errorf("%w: message %d of %s, which is known, is gone, and the stream holds %d to %d",
			ErrStreamReplaced, m.Seq, stream, state.FirstSeq, state.LastSeq)
	}
	return nil
}
