package delivery

import (
	"slices"
	"strings"
	"time"

	alertv1 "github.com/tocsin-dev/tocsin/proto/gen/tocsin/alert/v1"
	deliveryv1 "github.com/tocsin-dev/tocsin/proto/gen/tocsin/delivery/v1"
	"github.com/tocsin-dev/tocsin/services/notifier/internal/route"
)

// lane is what is known of one integration's view of one group.
type lane struct {
	key         route.Lane
	routed      bool // some alert leads here by the present configuration
	timing      route.Timing
	groupLabels map[string]string
	routeLabels map[string]string
	members     map[string]*member // by alert id

	firstDue time.Time // when the first message is due; anchors the later ones
	flushAt  time.Time // when to decide next; zero while nothing changed
	repeatAt time.Time // when to decide about a repetition; zero while nothing fires
	toldAt   time.Time // when a message was last told or given up

	pending  *message  // decided on and not told
	inFlight bool      // an attempt of pending runs
	waiting  bool      // in its pool's queue for a free slot
	queuedAt time.Time // its place in the queue of deadlines; zero while it has none
}

// member is what the lane's receiver knows of one alert.
type member struct {
	alert       *alert
	routed      bool // the alert leads here by the present configuration
	due         bool // the receiver is to hear of it
	committed   bool // a journaled message speaks of it as firing
	told        alertv1.AlertState
	toldVersion uint64
}

// message is a message that is not told yet.
type message struct {
	intent    *deliveryv1.Intended
	journaled bool
	attempts  int
	next      time.Time
	wait      time.Duration // how long before next it was known
}

const (
	firing   = alertv1.AlertState_ALERT_STATE_FIRING
	resolved = alertv1.AlertState_ALERT_STATE_RESOLVED
)

// owesFiring reports whether the receiver is to be told that the alert fires.
func (m *member) owesFiring() bool {
	return m.alert.firing() && m.due && m.told != firing && m.alert.version > m.toldVersion
}

// owesResolved reports whether the receiver is to be told that the alert is
// over: it was told that it fires, or should have been.
func (m *member) owesResolved() bool {
	return m.alert.state != nil && !m.alert.firing() && m.alert.version > m.toldVersion &&
		(m.told == firing || (m.due && m.told != resolved))
}

// owesAny reports whether the receiver is to be told anything.
func (l *lane) owesAny() bool {
	for _, m := range l.members {
		if rank(m) == 0 {
			return true
		}
	}
	return false
}

// lane returns the lane of the key, which may be new.
func (c *Core) lane(key route.Lane) *lane {
	l := c.lanes[key]
	if l == nil {
		l = &lane{key: key, members: map[string]*member{}}
		c.lanes[key] = l
	}
	return l
}

// member returns the lane's record of an alert, which may be new.
func (l *lane) member(a *alert) *member {
	m := l.members[a.id]
	if m == nil {
		m = &member{alert: a}
		l.members[a.id] = m
		a.lanes = append(a.lanes, l)
	}
	return m
}

// adopt moves what a receiver was told of a firing alert from the lanes that it
// does not lead to any more to the one that it leads to now, so that another
// grouping is no news to the receiver. What was told last counts: the journal
// does not say that a lane adopted something, and its replay does it again. The
// journal must be replayed, or the lane that is left may have told the end.
func (c *Core) adopt(a *alert) {
	if !a.firing() {
		return
	}
	for _, old := range slices.Clone(a.lanes) {
		m := old.members[a.id]
		if m.routed || m.told != firing {
			continue
		}
		i := slices.IndexFunc(a.lanes, func(l *lane) bool {
			return l.key.Receiver == old.key.Receiver && l.key.Integration == old.key.Integration && l.members[a.id].routed
		})
		if i < 0 {
			continue
		}
		l := a.lanes[i]
		n := l.members[a.id]
		n.due, n.committed = n.due || m.due, n.committed || m.committed
		if m.toldVersion > n.toldVersion || n.told == alertv1.AlertState_ALERT_STATE_UNSPECIFIED {
			n.told, n.toldVersion = m.told, m.toldVersion
		}
		if old.toldAt.After(l.toldAt) {
			l.toldAt = old.toldAt
		}
		c.settle(old, a)
		if c.live {
			c.touch(l, l.toldAt) // for its repetitions
			if c.lanes[old.key] == old {
				c.touch(old, l.toldAt) // its message may speak of the alert
			}
		}
	}
}

// settle removes an alert of which the receiver knows enough. The alert must be
// known to be over, so that a replay of ALERTS cannot make it news again.
func (c *Core) settle(l *lane, a *alert) {
	l.remove(a)
	c.forget(a)
	c.close(l)
}

// remove ends the membership of an alert.
func (l *lane) remove(a *alert) {
	delete(l.members, a.id)
	a.lanes = slices.DeleteFunc(a.lanes, func(other *lane) bool { return other == l })
}

// close removes a lane that has nothing left to tell.
func (c *Core) close(l *lane) {
	if len(l.members) == 0 && l.pending == nil && !l.inFlight && c.lanes[l.key] == l {
		delete(c.lanes, l.key)
		l.queuedAt = time.Time{} // its entry in the queue is stale
	}
}

// touch notes that the lane has something to tell since the instant at.
func (c *Core) touch(l *lane, at time.Time) {
	if due := l.tick(at); l.flushAt.IsZero() || due.Before(l.flushAt) {
		l.flushAt = due
	}
	c.enqueue(l)
}

// tick returns when a change at the instant at may be told: at the group's
// first due time or at a whole number of group intervals after it, as in
// Alertmanager. Groups that the configuration no longer makes do not wait.
func (l *lane) tick(at time.Time) time.Time {
	if !l.routed {
		return at
	}
	since := at.Sub(l.firstDue)
	if since <= 0 {
		return l.firstDue
	}
	interval := max(l.timing.GroupInterval, time.Millisecond)
	return l.firstDue.Add((since + interval - 1) / interval * interval)
}

// meet brings what a leader before planned to this one's clock, which may be far
// behind that one's: nothing waits longer than it was to wait.
func (l *lane) meet(now time.Time) {
	if p := l.pending; p != nil {
		p.next = sooner(p.next, now.Add(p.wait))
	}
	l.firstDue = sooner(l.firstDue, now.Add(l.timing.GroupWait))
	l.toldAt = sooner(l.toldAt, now)
}

// ordered returns the members in the order of a message: by labels, and the
// older of two incidents with the same labels first.
func (l *lane) ordered() []*member {
	all := make([]*member, 0, len(l.members))
	for _, m := range l.members {
		if m.alert.state != nil {
			all = append(all, m)
		}
	}
	slices.SortFunc(all, func(a, b *member) int {
		if d := strings.Compare(a.alert.order, b.alert.order); d != 0 {
			return d
		}
		if a.alert.version != b.alert.version {
			return int(min(1, max(-1, int64(a.alert.version)-int64(b.alert.version))))
		}
		return strings.Compare(a.alert.id, b.alert.id)
	})
	return all
}

// proto returns the lane as the journal writes it.
func (l *lane) proto() *deliveryv1.Lane {
	return &deliveryv1.Lane{
		Receiver: l.key.Receiver, Integration: l.key.Integration, GroupKey: l.key.GroupKey,
		GroupLabels: l.groupLabels, RouteLabels: l.routeLabels, FirstDue: stamp(l.firstDue),
	}
}

// keyOf returns the key of the lane that a journal record names.
func keyOf(p *deliveryv1.Lane) route.Lane {
	return route.Lane{Receiver: p.GetReceiver(), Integration: p.GetIntegration(), GroupKey: p.GetGroupKey()}
}

// laneOf returns the lane that a journal record names.
func (c *Core) laneOf(p *deliveryv1.Lane) *lane {
	l := c.lane(keyOf(p))
	if l.firstDue.IsZero() {
		l.firstDue = instant(p.GetFirstDue())
	}
	if l.groupLabels == nil {
		l.groupLabels, l.routeLabels = p.GetGroupLabels(), p.GetRouteLabels()
	}
	return l
}
