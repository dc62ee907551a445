package wire

import (
	"fmt"
	"slices"
)

// Stored is a message that a stream holds. Its subject is the one that it was
// published to.
type Stored struct {
	Message
	Place
}

// Compare returns what is wrong with what streams hold: all that had been
// acknowledged before it was read must be there, each at its place, unchanged, and
// of each id one; and nothing may be there that was not published before it was
// there, nor more often than it was.
func Compare(acked []Acknowledged, stored []Stored, published map[Message]int) (wrong []string) {
	at := make(map[Place]Message, len(stored))
	type name struct{ stream, id string }
	named := map[name]int{}
	copies := map[Message]int{}
	for _, s := range stored {
		at[s.Place] = s.Message
		copies[s.Message]++
		if s.ID != "" {
			named[name{s.Stream, s.ID}]++
		}
	}
	taken := map[Place]Message{}
	for _, a := range acked {
		is, there := at[a.Place]
		switch first, twice := taken[a.Place]; {
		case !there:
			wrong = append(wrong, fmt.Sprintf("acknowledged and gone: %v", a))
		case a.Duplicate && (is.ID != a.ID || a.ID == ""):
			wrong = append(wrong, fmt.Sprintf("acknowledged as there before, and there is %v: %v", is, a))
		case a.Duplicate:
		case is != a.Message:
			wrong = append(wrong, fmt.Sprintf("acknowledged, and %v is in its place: %v", is, a))
		case twice:
			wrong = append(wrong, fmt.Sprintf("acknowledged at the same place as %v: %v", first, a))
		}
		if !a.Duplicate {
			taken[a.Place] = a.Message
		}
		if n := named[name{a.Stream, a.ID}]; a.ID != "" && n > 1 {
			wrong = append(wrong, fmt.Sprintf("acknowledged, and there %d times: %v", n, a))
		}
	}
	for m, n := range copies {
		if n > published[m] {
			wrong = append(wrong, fmt.Sprintf("published %d times and stored %d times: %v", published[m], n, m))
		}
	}
	slices.Sort(wrong)
	return slices.Compact(wrong)
}

// String tells the message in a line.
func (m Message) String() string {
	id := m.ID
	if id == "" {
		id = "without id"
	}
	return fmt.Sprintf("%s %s %x", m.Subject, id, m.Sum[:4])
}

// String tells the message and its place in a line.
func (a Acknowledged) String() string {
	return fmt.Sprintf("message %d of %s: %v", a.Seq, a.Stream, a.Message)
}
