package delivery

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"slices"
	"time"

	deliveryv1 "github.com/tocsin-dev/tocsin/proto/gen/tocsin/delivery/v1"
	"github.com/tocsin-dev/tocsin/services/notifier/internal/route"
)

// Reasons of messages, in Alertmanager's words.
const (
	reasonFirst    = "first notification"
	reasonNew      = "new alerts added"
	reasonSome     = "some alerts resolved"
	reasonAll      = "all alerts resolved"
	reasonRepeated = "repeat interval elapsed"
)

// IsRepeat says of a message's reason that it tells nothing new.
func IsRepeat(reason string) bool { return reason == reasonRepeated }

// decide compares what the lane's receiver should know with what it was told,
// and makes the message that closes the gap, if there is one. It must not be
// called while an attempt is in flight.
func (c *Core) decide(l *lane, now time.Time) {
	c.ripen(l, now)
	in, _ := c.o.Table.Integration(l.key)
	speak, owed := c.survey(l, in)
	if c.pool(l.key).gone {
		c.giveUp(l, in, speak, owed, now)
		return
	}
	if l.pending != nil && !l.pending.current(l) && owed == 0 {
		c.drop(l, now)
	}
	switch {
	case owed > 0:
		c.intend(l, in, speak, now, false)
	case l.pending == nil && anyFiring(speak) && !now.Before(l.repeatDue(c.o.Start)):
		c.intend(l, in, speak, now, true)
	}
	l.repeatAt = time.Time{}
	if l.pending == nil && l.anyToldFiring() {
		if l.repeatAt = l.repeatDue(c.o.Start); !l.repeatAt.After(now) {
			l.repeatAt = now.Add(max(l.timing.GroupInterval, quietRecheck))
		}
	}
	c.close(l)
}

// survey returns the members that a message would speak of, and how many of
// them are news to the receiver. It settles those of which nothing is to be
// told any more.
func (c *Core) survey(l *lane, in route.Integration) (speak []*member, owed int) {
	for _, m := range l.ordered() {
		switch {
		case m.owesFiring():
			speak = append(speak, m)
			owed++
		case m.alert.firing():
			if m.told == firing && m.routed && !c.o.Inhibitor.Inhibited(m.alert.id) {
				speak = append(speak, m)
			}
		case m.owesResolved() && in.SendResolved:
			speak = append(speak, m)
			owed++
		default:
			c.settle(l, m.alert)
		}
	}
	return speak, owed
}

// intend makes a message about the members in speak, unless the pending one
// says the same.
func (c *Core) intend(l *lane, in route.Integration, speak []*member, now time.Time, repeat bool) {
	if len(speak) > maxMentions {
		newsFirst(speak)
	}
	n := min(len(speak), maxMentions)
	if l.pending != nil && l.pending.says(speak[:n]) {
		return
	}
	notice := Notice{
		Lane: l.key, GroupLabels: l.groupLabels, RouteLabels: l.routeLabels,
		Reason: l.reason(speak, repeat), Sequence: c.applied,
	}
	var body Body
	for {
		notice.Alerts, notice.Truncated = alertsOf(speak[:n], in.MaxAlerts)
		notice.ID = c.messageID(l, speak[:n], notice.Sequence, repeat)
		body = c.o.Render(notice)
		if len(body.Bytes) <= maxBody || len(notice.Alerts) == 1 {
			break
		}
		// By what is shown: what max_alerts leaves out makes nothing smaller.
		n = (len(notice.Alerts) + 1) / 2
		newsFirst(speak)
	}
	if l.pending != nil && l.pending.says(speak[:n]) {
		return // it was made smaller like this one
	}
	if len(body.Bytes) > maxSingle {
		body = c.slim(notice)
	}
	c.record(now, l, &deliveryv1.Record{Fact: &deliveryv1.Record_Intended{Intended: &deliveryv1.Intended{
		Id: notice.ID, Lane: l.proto(), Mentions: mentions(speak[:n]), Body: body.Bytes, ContentType: body.ContentType,
		ConfigHash: c.o.ConfigHash, Reason: notice.Reason, Sequence: notice.Sequence,
		LeftOver: countOwed(speak[n:]), StoredAt: newest(speak[:n]),
	}}})
}

// slim renders the notice of one alert that is too large for the journal with
// less of it: first with its labels cut and without its texts, and without the
// alert if that is not enough.
func (c *Core) slim(n Notice) Body {
	c.out.Cut = append(c.out.Cut, n.Lane)
	n.GroupLabels, n.RouteLabels = bounded(n.GroupLabels, slimLabels), bounded(n.RouteLabels, slimLabels)
	for i, a := range n.Alerts {
		k := kept(a.Alert, a.Alert, a.Alert.GetState())
		k.Labels, k.Annotations, k.Evidence = bounded(k.GetLabels(), slimLabels), nil, nil
		n.Alerts[i].Alert = k
	}
	body := c.o.Render(n)
	if len(body.Bytes) > maxSingle {
		n.Alerts, n.Truncated = nil, n.Truncated+len(n.Alerts)
		body = c.o.Render(n)
	}
	return body
}

// newsFirst puts what the receiver does not know before the rest, of which a
// message that cannot hold everything tells what fits.
func newsFirst(speak []*member) {
	slices.SortStableFunc(speak, func(a, b *member) int { return rank(a) - rank(b) })
}

// rank sorts news before what is known.
func rank(m *member) int {
	if m.owesFiring() || m.owesResolved() {
		return 0
	}
	return 1
}

func countOwed(ms []*member) uint32 {
	var n uint32
	for _, m := range ms {
		n += uint32(1 - rank(m))
	}
	return n
}

func anyFiring(ms []*member) bool {
	return slices.ContainsFunc(ms, func(m *member) bool { return m.alert.firing() })
}

// alertsOf returns what a message says, bounded by limit unless that is 0.
func alertsOf(ms []*member, limit int) (list []Alert, truncated int) {
	if limit > 0 && len(ms) > limit {
		ms, truncated = ms[:limit], len(ms)-limit
	}
	for _, m := range ms {
		list = append(list, Alert{
			Alert: m.alert.state, Firing: m.alert.firing(), Changed: rank(m) == 0, Sequence: m.alert.version,
		})
	}
	return list, truncated
}

// reason says in Alertmanager's words why a message about speak is sent.
func (l *lane) reason(speak []*member, repeat bool) string {
	switch {
	case repeat:
		return reasonRepeated
	case slices.ContainsFunc(speak, (*member).owesFiring):
		if l.anyToldFiring() {
			return reasonNew
		}
		return reasonFirst
	case l.anyFiring():
		return reasonSome
	default:
		return reasonAll
	}
}

func (l *lane) anyToldFiring() bool {
	for _, m := range l.members {
		if m.told == firing {
			return true
		}
	}
	return false
}

func (l *lane) anyFiring() bool {
	for _, m := range l.members {
		if m.alert.firing() && m.told == firing {
			return true
		}
	}
	return false
}

// repeatDue returns when an unchanged group is told again.
func (l *lane) repeatDue(start time.Time) time.Time {
	from := l.toldAt
	if from.Before(start) {
		from = start
	}
	return from.Add(l.timing.RepeatInterval)
}

// messageID names a message by what it says to whom: a hash of everything that
// its body is made from. The same alerts at another sequence are another message,
// since the body tells the sequence and may tell newer evidence. So are alerts
// that began or ended at another instant: where ALERTS was rolled back, its
// sequences are given anew.
func (c *Core) messageID(l *lane, ms []*member, sequence uint64, repeat bool) string {
	h := sha256.New()
	_, _ = fmt.Fprintf(h, "%q %q %q\n", l.key.Receiver, l.key.Integration, l.key.GroupKey)
	_, _ = fmt.Fprintf(h, "%d %q\n", sequence, c.o.ConfigHash)
	if repeat {
		_, _ = fmt.Fprintf(h, "again after %d\n", l.toldAt.UnixNano())
	}
	for _, m := range ms {
		_, _ = fmt.Fprintf(h, "%q %d %d %d %d\n", m.alert.id, m.alert.state.GetState(), m.alert.version,
			instant(m.alert.state.GetFiredAt()).UnixNano(), instant(m.alert.state.GetResolvedAt()).UnixNano())
	}
	return "msg_" + hex.EncodeToString(h.Sum(nil)[:16])
}

// says reports whether the message speaks of exactly these members in their
// present state and order.
func (p *message) says(ms []*member) bool {
	said := p.intent.GetMentions()
	if len(said) != len(ms) {
		return false
	}
	for i, m := range ms {
		if said[i].GetAlertId() != m.alert.id || said[i].GetState() != m.alert.state.GetState() || said[i].GetVersion() != m.alert.version {
			return false
		}
	}
	return true
}

// current reports whether everything that the message says is still so.
func (p *message) current(l *lane) bool {
	for _, s := range p.intent.GetMentions() {
		m := l.members[s.GetAlertId()]
		if m == nil || (m.alert.state != nil && m.alert.state.GetState() != s.GetState()) {
			return false
		}
	}
	return true
}

// giveUp journals everything as dead that a receiver is to hear that wants
// nothing more. What does not fit into one message follows.
func (c *Core) giveUp(l *lane, in route.Integration, speak []*member, owed int, now time.Time) {
	if owed > 0 {
		c.intend(l, in, speak, now, false)
	}
	if l.pending != nil {
		c.record(now, l, &deliveryv1.Record{Fact: &deliveryv1.Record_Attempted{Attempted: &deliveryv1.Attempted{
			Id: l.pending.intent.GetId(), Attempt: uint32(l.pending.attempts),
			Outcome: deliveryv1.Outcome_OUTCOME_DEAD, Error: "the receiver answered 410 and is disabled",
		}}})
		c.out.Dead = append(c.out.Dead, l.key)
	}
	l.repeatAt = time.Time{}
	c.close(l)
}

// drop removes the pending message, of which nothing is to be told any more.
func (c *Core) drop(l *lane, now time.Time) {
	c.out.Superseded = append(c.out.Superseded, l.key)
	c.record(now, l, &deliveryv1.Record{Fact: &deliveryv1.Record_Dropped{Dropped: &deliveryv1.Dropped{Id: l.pending.intent.GetId()}}})
}
