package delivery

import (
	"maps"
	"slices"
	"strings"
	"time"

	alertv1 "github.com/tocsin-dev/tocsin/proto/gen/tocsin/alert/v1"
)

const (
	// maxAnnotation bounds one annotation's text in messages, in bytes.
	maxAnnotation = 8 << 10
	// maxLabels and maxAnnotations bound all labels and all annotations of an
	// alert, in bytes. JSON makes up to six bytes of one, and a message names
	// labels up to four times and annotations twice: 16 KiB x 24 + 32 KiB x 12 are
	// 768 KiB, which the journal takes.
	maxLabels      = 16 << 10
	maxAnnotations = 32 << 10
	// maxField bounds each of an alert's other texts, which are names.
	maxField = 1 << 10
	// maxAlert bounds what is kept of an alert; above it the evidence goes.
	maxAlert = 64 << 10
)

// alert is what is known of one alert.
type alert struct {
	id        string
	state     *alertv1.Alert // nil until ALERTS said it: the journal only names alerts
	version   uint64         // of its last change of state
	partition int
	stored    time.Time // when that change was stored
	order     string    // sorts alerts of a message
	lanes     []*lane   // those that have it as a member

	quiet bool      // inhibited
	free  time.Time // when it may be told, having been inhibited; zero if it was not, or once it may
}

func (a *alert) firing() bool {
	return a.state != nil && a.state.GetState() == alertv1.AlertState_ALERT_STATE_FIRING
}

// AlertMessage is one message of the ALERTS stream.
type AlertMessage struct {
	// Seq is its sequence.
	Seq uint64
	// Partition is the partition that its subject names.
	Partition int
	// Stored is its JetStream timestamp.
	Stored time.Time
	// Transitions are its content.
	Transitions []*alertv1.Transition
}

// ApplyAlerts takes in one message of ALERTS at the instant now. Messages that
// were applied before change nothing.
func (c *Core) ApplyAlerts(now time.Time, m AlertMessage) {
	at := m.Stored
	if at.After(now) {
		at = now // the store's clock is ahead; waiting for it would delay the alert
	}
	for i, tr := range m.Transitions {
		if tr.GetAlert().GetId() == "" || c.known(m, i) {
			continue
		}
		version := c.applied
		switch tr.GetKind() {
		case alertv1.TransitionKind_TRANSITION_KIND_RENEWED:
			if a := c.alerts[tr.GetAlert().GetId()]; a != nil && a.firing() {
				a.state = c.keep(tr.GetAlert(), a.state, alertv1.AlertState_ALERT_STATE_FIRING)
				continue
			}
			c.fire(tr.GetAlert(), version, at, m.Partition)
		case alertv1.TransitionKind_TRANSITION_KIND_FIRING:
			c.fire(tr.GetAlert(), version, at, m.Partition)
		case alertv1.TransitionKind_TRANSITION_KIND_RESOLVED:
			c.resolve(tr.GetAlert(), version, at)
		}
	}
	if m.Seq >= c.alertsSeq {
		c.alertsSeq, c.alertsAt = m.Seq, m.Stored
	}
}

func (c *Core) fire(state *alertv1.Alert, version uint64, at time.Time, partition int) {
	a := c.alert(state.GetId())
	if !a.firing() {
		a.version, a.stored = version, at
		a.quiet, a.free = false, time.Time{}
	}
	a.partition = partition
	a.state = c.keep(state, a.state, alertv1.AlertState_ALERT_STATE_FIRING)
	a.order = orderOf(a.state.GetLabels())
	touched := c.o.Inhibitor.Fire(a.id, a.state.GetLabels())
	c.place(a, at)
	c.adopt(a)
	c.reconsider(a, at)
	c.reconsiderAll(touched, at)
}

func (c *Core) resolve(state *alertv1.Alert, version uint64, at time.Time) {
	a := c.alerts[state.GetId()]
	if a == nil {
		return // nobody was told, and nobody is to be
	}
	c.adopt(a)
	if a.firing() && due(a.free, at) {
		a.free = time.Time{} // it fired for the whole hold, so it is to be told
		c.reconsider(a, at)
	}
	if a.firing() || a.state == nil {
		a.version, a.stored = version, at
	}
	a.state = c.keep(state, a.state, alertv1.AlertState_ALERT_STATE_RESOLVED)
	a.order = orderOf(a.state.GetLabels())
	touched := c.o.Inhibitor.Resolve(a.id)
	for _, l := range slices.Clone(a.lanes) {
		if l.members[a.id].owesResolved() {
			c.touch(l, at)
		} else {
			c.settle(l, a)
		}
	}
	c.forget(a)
	c.reconsiderAll(touched, at)
}

// place makes the alert a member of every lane that its labels lead to.
func (c *Core) place(a *alert, at time.Time) {
	for _, l := range a.lanes {
		l.members[a.id].routed = false
	}
	for _, d := range c.o.Table.Destinations(a.state.GetLabels()) {
		l := c.lane(d.Lane)
		l.timing, l.routed = d.Timing, true
		l.groupLabels, l.routeLabels = d.GroupLabels, d.RouteLabels
		if l.firstDue.IsZero() {
			l.firstDue = firstDue(a.state.GetFiredAt().AsTime(), at, d.Timing.GroupWait)
		}
		l.member(a).routed = true
	}
}

// firstDue is when the first message of a group is due: group_wait after the
// alert began to fire, but not before it was stored at the instant at.
func firstDue(fired, at time.Time, wait time.Duration) time.Time {
	if due := fired.Add(wait); due.Before(at) {
		return at
	} else if latest := at.Add(wait); due.Before(latest) {
		return due
	}
	return at.Add(wait)
}

func (c *Core) reconsiderAll(ids []string, at time.Time) {
	for _, id := range ids {
		if a := c.alerts[id]; a != nil {
			c.reconsider(a, at)
		}
	}
}

// reconsider updates whether receivers are to hear of the firing alert a: when
// it is routed to them and not inhibited, nor was a moment ago. Once a message
// says so, inhibition comes too late.
func (c *Core) reconsider(a *alert, at time.Time) {
	if c.history || !a.firing() {
		return
	}
	if quiet := c.o.Inhibitor.Inhibited(a.id); quiet != a.quiet {
		a.quiet = quiet
		if a.free = (time.Time{}); !quiet {
			a.free = at.Add(c.o.Hold)
		}
	}
	for _, l := range a.lanes {
		m := l.members[a.id]
		if !m.committed {
			m.due = m.routed && !a.quiet && a.free.IsZero()
		}
		switch {
		case m.owesFiring():
			c.touch(l, at)
		case m.routed && !a.free.IsZero():
			c.touch(l, a.free)
		}
	}
}

// ripen lets the lane's alerts that were inhibited long enough ago be told, and
// looks again when others will be.
func (c *Core) ripen(l *lane, now time.Time) {
	var next time.Time
	for _, m := range l.ordered() {
		a := m.alert
		switch {
		case !a.firing() || a.free.IsZero():
		case a.free.After(now):
			if next.IsZero() || a.free.Before(next) {
				next = a.free
			}
		default:
			a.free = time.Time{}
			c.reconsider(a, now)
		}
	}
	l.flushAt = time.Time{}
	if !next.IsZero() {
		c.touch(l, next)
	}
}

// alert returns the record of an alert, which may be new.
func (c *Core) alert(id string) *alert {
	a := c.alerts[id]
	if a == nil {
		a = &alert{id: id}
		c.alerts[id] = a
	}
	return a
}

// forget removes an alert that is over and that no lane speaks of.
func (c *Core) forget(a *alert) {
	if !a.firing() && len(a.lanes) == 0 {
		delete(c.alerts, a.id)
	}
}

// Active returns the alerts of a partition that fire, ordered by id. They must
// not be changed.
func (c *Core) Active(partition int) []*alertv1.Alert {
	var active []*alertv1.Alert
	for _, a := range c.alerts {
		if a.firing() && a.partition == partition {
			active = append(active, a.state)
		}
	}
	slices.SortFunc(active, func(a, b *alertv1.Alert) int { return strings.Compare(a.GetId(), b.GetId()) })
	return active
}

// AlertsSequence returns the sequence of the last message of ALERTS that was
// applied.
func (c *Core) AlertsSequence() uint64 { return c.alertsSeq }

// AlertsStored returns when that message was stored; zero if that is not known.
func (c *Core) AlertsStored() time.Time { return c.alertsAt }

func orderOf(labels map[string]string) string {
	var b strings.Builder
	for _, name := range slices.Sorted(maps.Keys(labels)) {
		b.WriteString(name)
		b.WriteByte(0)
		b.WriteString(labels[name])
		b.WriteByte(0)
	}
	return b.String()
}
