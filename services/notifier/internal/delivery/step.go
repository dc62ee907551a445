package delivery

import (
	"cmp"
	"container/heap"
	"slices"
	"time"

	deliveryv1 "github.com/tocsin-dev/tocsin/proto/gen/tocsin/delivery/v1"
	"github.com/tocsin-dev/tocsin/services/notifier/internal/route"
)

// integration is what a pool delivers to.
type integration struct{ receiver, name string }

// pool bounds what is in flight to one integration, so that a slow one delays
// nobody else.
type pool struct {
	inFlight int
	pending  int       // messages that are not told
	waiting  []*lane   // in the order in which their attempts were due
	hold     time.Time // no attempt starts before; the receiver asked for it
	gone     bool      // the receiver answered 410 since the process began to lead
}

func (c *Core) pool(key route.Lane) *pool {
	id := integration{key.Receiver, key.Integration}
	p := c.pools[id]
	if p == nil {
		p = &pool{}
		c.pools[id] = p
	}
	return p
}

// deadline is when to look at a lane. Entries that the lane no longer means are
// left in the heap and skipped.
type deadline struct {
	at   time.Time
	lane *lane
}

type deadlines []deadline

func (d deadlines) Len() int           { return len(d) }
func (d deadlines) Less(i, j int) bool { return d[i].at.Before(d[j].at) }
func (d deadlines) Swap(i, j int)      { d[i], d[j] = d[j], d[i] }
func (d *deadlines) Push(x any)        { *d = append(*d, x.(deadline)) }
func (d *deadlines) Pop() any {
	last := (*d)[len(*d)-1]
	*d = (*d)[:len(*d)-1]
	return last
}

// enqueue puts the lane where its next deadline belongs.
func (c *Core) enqueue(l *lane) {
	at, ok := l.next()
	if !ok || l.queuedAt.Equal(at) {
		return
	}
	l.queuedAt = at
	heap.Push(&c.queue, deadline{at: at, lane: l})
	if len(c.queue) > 2*len(c.lanes)+minSweep {
		c.sweep()
	}
}

// minSweep is how many entries of the queue may be stale before it is swept:
// few enough to cost nothing, many enough that sweeping is rare.
const minSweep = 1000

// sweep removes the entries that no lane means any more, such as the
// repetitions of what is over by now.
func (c *Core) sweep() {
	c.queue = slices.DeleteFunc(c.queue, func(d deadline) bool { return !d.lane.queuedAt.Equal(d.at) })
	heap.Init(&c.queue)
}

// next returns when something is to be done about the lane.
func (l *lane) next() (time.Time, bool) {
	if l.inFlight {
		return time.Time{}, false // looked at when the attempt ends
	}
	candidates := []time.Time{l.flushAt, l.repeatAt}
	if l.pending != nil {
		candidates[1] = time.Time{}
		if l.pending.journaled && !l.waiting {
			candidates = append(candidates, l.pending.next)
		}
	}
	var at time.Time
	for _, t := range candidates {
		if !t.IsZero() && (at.IsZero() || t.Before(at)) {
			at = t
		}
	}
	return at, !at.IsZero()
}

// Deadline returns when [Core.Step] must be called next at the latest, and false
// when only new input can change anything.
func (c *Core) Deadline() (time.Time, bool) {
	for len(c.queue) > 0 {
		if top := c.queue[0]; top.lane.queuedAt.Equal(top.at) {
			return top.at, true
		}
		heap.Pop(&c.queue)
	}
	return time.Time{}, false
}

// GoLive ends the replay at the instant now and returns the lanes that are left
// because their receiver or integration is not configured any more.
func (c *Core) GoLive(now time.Time) []Departure {
	c.live, c.history, c.rebased = true, false, time.Time{}
	for _, l := range c.lanes {
		l.meet(now)
	}
	left := c.depart(now)
	for _, a := range c.byVersion() {
		a.free = sooner(a.free, now.Add(c.o.Hold))
		c.adopt(a)
		c.reconsider(a, now)
		if a.state == nil {
			c.forgetUnknown(a)
		}
	}
	for _, l := range c.sortedLanes() {
		c.touch(l, now)
	}
	for _, a := range c.byVersion() {
		c.forget(a)
	}
	return left
}

// forgetUnknown removes an alert that ALERTS no longer knows from where it was
// told as resolved. Where it was told as firing its end may still come.
func (c *Core) forgetUnknown(a *alert) {
	for _, l := range slices.Clone(a.lanes) {
		if l.members[a.id].told == resolved {
			c.settle(l, a)
		}
	}
}

// Step does what is due at the instant now: it decides, and returns what is to
// be journaled and which attempts are to be started. It does nothing before
// [Core.GoLive].
func (c *Core) Step(now time.Time) Actions {
	for c.live {
		at, ok := c.Deadline()
		if !ok || at.After(now) {
			break
		}
		l := heap.Pop(&c.queue).(deadline).lane
		l.queuedAt = time.Time{}
		if l.inFlight {
			continue // Finished comes back to it
		}
		if due(l.flushAt, now) || due(l.repeatAt, now) {
			c.decide(l, now)
		}
		if p := l.pending; p != nil && p.journaled && !l.waiting && due(p.next, now) {
			l.waiting = true
			pool := c.pool(l.key)
			pool.waiting = append(pool.waiting, l)
			c.admit(pool, now)
		}
		c.enqueue(l)
	}
	out := c.out
	c.out = Actions{}
	return out
}

// Drain returns the records that were made since the last Step, for an owner that
// starts no attempts any more.
func (c *Core) Drain() []ShardRecord {
	records := c.out.Records
	c.out.Records = nil
	return records
}

func due(at, now time.Time) bool { return !at.IsZero() && !at.After(now) }

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

func sooner(a, b time.Time) time.Time {
	if a.Before(b) {
		return a
	}
	return b
}

// admit starts waiting attempts while the pool has free slots.
func (c *Core) admit(p *pool, now time.Time) {
	for p.inFlight < maxInFlight && len(p.waiting) > 0 {
		l := p.waiting[0]
		p.waiting = p.waiting[1:]
		l.waiting = false
		m := l.pending
		if m == nil || !m.journaled || l.inFlight || m.next.After(now) {
			c.enqueue(l)
			continue // replaced since it was queued
		}
		if p.gone || p.hold.After(now) {
			if m.next = p.hold; p.gone {
				l.flushAt = now
			}
			c.enqueue(l)
			continue
		}
		l.inFlight = true
		p.inFlight++
		c.out.Attempts = append(c.out.Attempts, m.attempt(l))
	}
}

func (p *message) attempt(l *lane) Attempt {
	a := Attempt{
		ID: p.intent.GetId(), Lane: l.key, Number: p.attempts + 1,
		Body:     Body{ContentType: p.intent.GetContentType(), Bytes: p.intent.GetBody()},
		StoredAt: instant(p.intent.GetStoredAt()),
	}
	for _, s := range p.intent.GetMentions() {
		a.Alerts = append(a.Alerts, s.GetAlertId())
	}
	return a
}

// Journaled notes that records of a shard are stored under the sequence seq.
// Messages among them may be attempted from now on.
func (c *Core) Journaled(shard int, seq uint64, records []*deliveryv1.Record) {
	c.shards[shard] = seq
	for _, r := range records {
		id := r.GetIntended().GetId()
		if l := c.sent[id]; l != nil {
			l.pending.journaled = true
			c.enqueue(l)
		}
	}
}

// Finished takes in what became of an attempt at the instant now.
func (c *Core) Finished(a Attempt, o Outcome, now time.Time) Verdict {
	p, l := c.pool(a.Lane), c.lanes[a.Lane]
	p.inFlight--
	if l == nil || !l.inFlight {
		return Verdict{}
	}
	l.inFlight = false
	var v Verdict
	if !o.Canceled && l.pending != nil && l.pending.intent.GetId() == a.ID {
		v = c.judge(l, p, a, o, now)
	}
	c.admit(p, now)
	c.close(l)
	c.enqueue(l)
	return v
}

// judge journals the result of an attempt.
func (c *Core) judge(l *lane, p *pool, a Attempt, o Outcome, now time.Time) Verdict {
	res := &deliveryv1.Attempted{Id: a.ID, Attempt: uint32(a.Number), Status: uint32(max(0, o.Status)), Error: o.Error}
	v := Verdict{Result: deliveryv1.Outcome_OUTCOME_TOLD}
	if !o.Told {
		wait, again := pause(a.ID, a.Number, o.RetryAfter)
		switch {
		case o.Gone:
			p.gone = true
			v.Result = deliveryv1.Outcome_OUTCOME_DEAD
		case !again:
			v.Result = deliveryv1.Outcome_OUTCOME_DEAD
		default:
			v = Verdict{Result: deliveryv1.Outcome_OUTCOME_FAILED, RetryAt: now.Add(wait)}
			res.NextAttempt = stamp(v.RetryAt)
			if o.Throttled && o.RetryAfter > 0 {
				// What was asked for, not this message's own pause, which is hours
				// after many attempts.
				p.hold = later(p.hold, now.Add(min(o.RetryAfter, maxRetryAfter)))
			}
		}
	}
	res.Outcome = v.Result
	c.record(now, l, &deliveryv1.Record{Fact: &deliveryv1.Record_Attempted{Attempted: res}})
	return v
}

// Pending returns how many messages each integration was not told yet, by
// receiver and integration.
func (c *Core) Pending() map[[2]string]int {
	n := make(map[[2]string]int, len(c.pools))
	for id, p := range c.pools {
		n[[2]string{id.receiver, id.name}] = p.pending
	}
	return n
}

func (c *Core) byVersion() []*alert {
	all := make([]*alert, 0, len(c.alerts))
	for _, a := range c.alerts {
		all = append(all, a)
	}
	slices.SortFunc(all, func(a, b *alert) int {
		return cmp.Or(cmp.Compare(a.version, b.version), cmp.Compare(a.id, b.id))
	})
	return all
}

func (c *Core) sortedLanes() []*lane {
	all := make([]*lane, 0, len(c.lanes))
	for _, l := range c.lanes {
		all = append(all, l)
	}
	slices.SortFunc(all, func(a, b *lane) int {
		return cmp.Or(cmp.Compare(a.key.Receiver, b.key.Receiver), cmp.Compare(a.key.Integration, b.key.Integration),
			cmp.Compare(a.key.GroupKey, b.key.GroupKey))
	})
	return all
}
