package delivery

import (
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	deliveryv1 "github.com/tocsin-dev/tocsin/proto/gen/tocsin/delivery/v1"
)

// ApplyJournal takes in records of a shard's message that has the given
// sequence, before [Core.GoLive].
func (c *Core) ApplyJournal(shard int, seq uint64, records []*deliveryv1.Record) {
	if shard < 0 || shard >= Shards || seq <= c.shards[shard] {
		return
	}
	for _, r := range records {
		c.apply(r)
	}
	c.shards[shard] = seq
}

// ShardSequences returns the sequence of the last message of each shard that
// was applied or journaled.
func (c *Core) ShardSequences() [Shards]uint64 { return c.shards }

// record applies a new record and leaves it for the journal. Live decisions and
// replay take the same way, hence lead to the same state.
func (c *Core) record(now time.Time, l *lane, r *deliveryv1.Record) {
	r.At = timestamppb.New(now)
	c.apply(r)
	c.out.Records = append(c.out.Records, ShardRecord{Shard: ShardOf(l.key.GroupKey), Record: r})
}

func (c *Core) apply(r *deliveryv1.Record) {
	switch f := r.GetFact().(type) {
	case *deliveryv1.Record_Intended:
		c.applyIntended(r.GetAt().AsTime(), f.Intended)
	case *deliveryv1.Record_Attempted:
		c.applyAttempted(r.GetAt().AsTime(), f.Attempted)
	case *deliveryv1.Record_Dropped:
		if l := c.sent[f.Dropped.GetId()]; l != nil {
			c.replace(l, nil)
			c.close(l)
		}
	case *deliveryv1.Record_Moved:
		c.applyMoved(f.Moved)
	}
}

func (c *Core) applyIntended(at time.Time, in *deliveryv1.Intended) {
	if c.sent[in.GetId()] != nil {
		return
	}
	c.highest = max(c.highest, in.GetSequence())
	l := c.laneOf(in.GetLane())
	c.replace(l, &message{intent: in, journaled: !c.live, next: at})
	for _, s := range in.GetMentions() {
		c.highest = max(c.highest, s.GetVersion())
		m := l.member(c.alert(s.GetAlertId()))
		m.due = true
		m.committed = m.committed || s.GetState() == firing
	}
}

func (c *Core) applyAttempted(at time.Time, att *deliveryv1.Attempted) {
	l := c.sent[att.GetId()]
	if l == nil {
		return // told already, or replaced
	}
	if att.GetOutcome() == deliveryv1.Outcome_OUTCOME_FAILED {
		l.pending.attempts = int(att.GetAttempt())
		l.pending.next = att.GetNextAttempt().AsTime()
		l.pending.wait = l.pending.next.Sub(at)
		return
	}
	said := l.pending.intent
	c.replace(l, nil)
	l.toldAt = at
	for _, s := range said.GetMentions() {
		m := l.members[s.GetAlertId()]
		if m == nil {
			continue
		}
		if s.GetVersion() >= m.toldVersion {
			m.told, m.toldVersion = s.GetState(), s.GetVersion()
		}
		if !m.alert.firing() && m.alert.state != nil && !m.owesResolved() {
			c.settle(l, m.alert)
		}
	}
	if l.anyToldFiring() {
		l.repeatAt = l.repeatDue(c.o.Start)
	}
	if said.GetLeftOver() > 0 || l.flushAt.IsZero() && l.owesAny() {
		l.flushAt = at
	}
	c.close(l)
}

// replace makes p, which may be nil, the lane's message.
func (c *Core) replace(l *lane, p *message) {
	if l.pending != nil {
		delete(c.sent, l.pending.intent.GetId())
		c.pool(l.key).pending--
		if p != nil && c.live {
			c.out.Superseded = append(c.out.Superseded, l.key)
		}
	}
	l.pending = p
	if p != nil {
		c.sent[p.intent.GetId()] = l
		c.pool(l.key).pending++
	}
}

func mentions(ms []*member) []*deliveryv1.Mention {
	list := make([]*deliveryv1.Mention, 0, len(ms))
	for _, m := range ms {
		list = append(list, &deliveryv1.Mention{AlertId: m.alert.id, State: m.alert.state.GetState(), Version: m.alert.version})
	}
	return list
}

// newest returns when the newest change that the receiver does not know was
// stored, or nil.
func newest(ms []*member) *timestamppb.Timestamp {
	var at time.Time
	for _, m := range ms {
		if rank(m) == 0 && m.alert.stored.After(at) {
			at = m.alert.stored
		}
	}
	return stamp(at)
}

// stamp returns an instant for a record; the zero time is absent.
func stamp(t time.Time) *timestamppb.Timestamp {
	if t.IsZero() {
		return nil
	}
	return timestamppb.New(t)
}

// instant returns the instant of a record; absent is the zero time.
func instant(p *timestamppb.Timestamp) time.Time {
	if p == nil {
		return time.Time{}
	}
	return p.AsTime()
}
