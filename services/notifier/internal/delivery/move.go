package delivery

import (
	"maps"
	"slices"
	"time"

	alertv1 "github.com/tocsin-dev/tocsin/proto/gen/tocsin/alert/v1"
	deliveryv1 "github.com/tocsin-dev/tocsin/proto/gen/tocsin/delivery/v1"
	"github.com/tocsin-dev/tocsin/services/notifier/internal/route"
)

// Departure is a lane whose integration is not configured any more.
type Departure struct {
	// Lane is the lane that is left.
	Lane route.Lane
	// To is the integration that goes on in its place; zero when there is none.
	To route.Way
}

// depart leaves the lanes of integrations that are not configured any more. What
// their receivers are still to hear goes to the integrations in their place; where
// there is none, nobody knows the address, and it is given up.
func (c *Core) depart(now time.Time) []Departure {
	var gone []*lane
	for _, l := range c.sortedLanes() {
		if _, ok := c.o.Table.Integration(l.key); !ok {
			gone = append(gone, l)
		}
	}
	to := c.successors(gone)
	list := make([]Departure, 0, len(gone))
	for _, l := range gone {
		next, found := to[wayOf(l.key)]
		if found {
			c.move(l, next, now)
		} else {
			c.abandon(l, now)
		}
		list = append(list, Departure{Lane: l.key, To: next})
	}
	return list
}

// Reconfigured reports whether the integrations are others than those of the
// snapshot that the core was restored from. A new snapshot is due then, since the
// next change is told by it.
func (c *Core) Reconfigured() bool { return !slices.Equal(c.former, c.o.Table.Ways()) }

func wayOf(l route.Lane) route.Way {
	return route.Way{Receiver: l.Receiver, Integration: l.Integration}
}

// successors returns the configured integrations that stand in the place of those
// that the lanes in gone belong to:
//
//   - an integration of the same name at another receiver, since the name stands
//     for the destination: the receiver was renamed;
//   - else what is new at the same receiver, the first new integration for the
//     first one that is gone and so on: its URL was changed. More that are gone
//     than are new share the last new one.
//
// What is new is told by the integrations of the last snapshot. Without one only
// the first rule holds.
func (c *Core) successors(gone []*lane) map[route.Way]route.Way {
	now, left := c.o.Table.Ways(), slices.Clone(c.former)
	for _, l := range gone {
		if way := wayOf(l.key); !slices.Contains(left, way) {
			left = append(left, way) // came and went since the snapshot
		}
	}
	left = slices.DeleteFunc(left, func(w route.Way) bool { return slices.Contains(now, w) })
	fresh := map[string][]route.Way{}
	if len(c.former) > 0 {
		for _, w := range now {
			if !slices.Contains(c.former, w) {
				fresh[w.Receiver] = append(fresh[w.Receiver], w)
			}
		}
	}
	to := map[route.Way]route.Way{}
	place := map[string]int{} // among those of a receiver that are gone
	for _, w := range left {
		next := fresh[w.Receiver]
		if i := place[w.Receiver]; len(next) > 0 {
			to[w] = next[min(i, len(next)-1)]
		}
		place[w.Receiver]++
		if same, found := c.renamed(w, now); found {
			to[w] = same
		}
	}
	return to
}

// renamed returns the integration with the name of w at another receiver, rather
// at one that was not there before.
func (c *Core) renamed(w route.Way, now []route.Way) (same route.Way, found bool) {
	for _, other := range now {
		if other.Integration != w.Integration {
			continue
		}
		if !slices.Contains(c.former, other) {
			return other, true
		}
		if !found {
			same, found = other, true
		}
	}
	return same, found
}

// move leaves a lane for the one of the same group at the integration to. A
// pending message is not sent there: what it says is decided again.
func (c *Core) move(from *lane, to route.Way, now time.Time) {
	key := route.Lane{Receiver: to.Receiver, Integration: to.Integration, GroupKey: from.key.GroupKey}
	if from.pending != nil {
		c.out.Superseded = append(c.out.Superseded, from.key)
	}
	var owed []*deliveryv1.MemberState
	for _, id := range slices.Sorted(maps.Keys(from.members)) {
		if s, ok := c.legacy(from, from.members[id], key); ok {
			owed = append(owed, s)
		}
	}
	for done := false; !done; {
		// A record must fit into the journal, however many alerts a group has.
		n := min(len(owed), maxMentions)
		step := &deliveryv1.Moved{From: from.proto(), To: from.proto(), Members: owed[:n], Done: n == len(owed)}
		step.To.Receiver, step.To.Integration = to.Receiver, to.Integration
		c.record(now, from, &deliveryv1.Record{Fact: &deliveryv1.Record_Moved{Moved: step}})
		owed, done = owed[n:], step.GetDone()
	}
}

// legacy returns what the lane to goes on with of an alert whose lane from is left,
// and false for an alert of which nothing is to be told.
//
// The same address knows what it was told under another receiver's name. Another
// address was told nothing: it is told of what fires and leads to it, and of the
// end of all else that the old one was told of.
func (c *Core) legacy(from *lane, m *member, to route.Lane) (*deliveryv1.MemberState, bool) {
	s := m.proto()
	a := m.alert
	switch {
	case a.state == nil:
		return s, m.told != resolved
	case !a.firing():
		return s, m.owesResolved()
	case from.key.Integration == to.Integration, c.o.Inhibitor.Inhibited(a.id):
		return s, true
	}
	routed, here := false, false
	for _, l := range a.lanes {
		if l.members[a.id].routed && wayOf(l.key) == wayOf(to) {
			routed, here = true, here || l.key == to
		}
	}
	if !routed {
		return s, true
	}
	s.Due, s.Told, s.ToldVersion = true, alertv1.AlertState_ALERT_STATE_UNSPECIFIED, 0
	return s, here
}

// applyMoved leaves a lane, or some of its alerts, and lets another one owe what it
// owed. The journal is read before the alerts, so this must not depend on what they
// say.
func (c *Core) applyMoved(moved *deliveryv1.Moved) {
	to := c.laneOf(moved.GetTo())
	from := c.lanes[keyOf(moved.GetFrom())]
	if from != nil {
		to.toldAt = later(to.toldAt, from.toldAt)
		c.replace(from, nil)
	}
	for _, s := range moved.GetMembers() {
		a := c.alert(s.GetAlertId())
		if from != nil {
			from.remove(a)
		}
		m := to.member(a)
		m.due, m.committed = m.due || s.GetDue(), m.committed || s.GetCommitted()
		if s.GetToldVersion() > m.toldVersion || m.told == alertv1.AlertState_ALERT_STATE_UNSPECIFIED {
			m.told, m.toldVersion = s.GetTold(), s.GetToldVersion()
		}
	}
	if from != nil && moved.GetDone() {
		c.leave(from)
	}
	c.close(to)
}

// leave removes a lane with all that it holds.
func (c *Core) leave(l *lane) {
	c.replace(l, nil)
	for _, m := range l.members {
		l.remove(m.alert)
	}
	c.close(l)
}

// abandon gives up a lane whose integration is not configured any more.
func (c *Core) abandon(l *lane, now time.Time) {
	if l.pending != nil {
		c.record(now, l, &deliveryv1.Record{Fact: &deliveryv1.Record_Attempted{Attempted: &deliveryv1.Attempted{
			Id: l.pending.intent.GetId(), Attempt: uint32(l.pending.attempts),
			Outcome: deliveryv1.Outcome_OUTCOME_DEAD, Error: "the receiver is not configured any more",
		}}})
	}
	c.leave(l)
}
