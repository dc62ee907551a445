package engine

import (
	"cmp"
	"container/heap"
	"strings"
	"time"
)

// timer is an instant at which the passing of time alone may change something:
// an alert of a rule, its buckets of time, an absence, or the memory of a removed target. When it
// is due follows from the state alone, so timers are not stored.
type timer struct {
	target   *target
	rule     *compiled // nil: the memory of a removed target
	category string
	// at is when the timer's entry in the queue is; never when it has none.
	at int64
	// index is the entry's place in the queue.
	index int
	// fired is when it fired last; it does not fire twice at one instant.
	fired int64
	// done is set when the timer's alert is over.
	done bool
	// tally says that it is due with each bucket of time of the rule.
	tally bool
}

func newTimer(t *target, c *compiled, category string) *timer {
	return &timer{target: t, rule: c, category: category, at: never, fired: never}
}

// timers is a queue of timers by (deadline, target, rule, category).
type timers []*timer

// Len counts the timers.
func (q timers) Len() int { return len(q) }

// Less orders by (deadline, target, rule, category), so that timers of one
// instant fire in the same order in every replay.
func (q timers) Less(i, j int) bool {
	a, b := q[i], q[j]
	if a.at != b.at {
		return a.at < b.at
	}
	if c := strings.Compare(a.target.token, b.target.token); c != 0 {
		return c < 0
	}
	return cmp.Or(cmp.Compare(a.order(), b.order()), strings.Compare(a.category, b.category)) < 0
}

func (t *timer) order() int {
	if t.rule == nil {
		return -1
	}
	return t.rule.order
}

// Swap swaps two timers.
func (q timers) Swap(i, j int) {
	q[i], q[j] = q[j], q[i]
	q[i].index, q[j].index = i, j
}

// Push adds a timer.
func (q *timers) Push(x any) {
	t := x.(*timer)
	t.index = len(*q)
	*q = append(*q, t)
}

// Pop takes the last timer.
func (q *timers) Pop() any {
	old := *q
	t := old[len(old)-1]
	old[len(old)-1] = nil
	*q = old[:len(old)-1]
	return t
}

// schedule puts a timer where it is due after an instant, if it is.
func (p *Partition) schedule(t *timer, after int64) {
	due, ok := p.due(t, after)
	switch {
	case !ok && t.at == never:
	case !ok:
		heap.Remove(&p.timers, t.index)
		t.at = never
	case t.at == never:
		t.at = due
		heap.Push(&p.timers, t)
	case due != t.at:
		t.at = due
		heap.Fix(&p.timers, t.index)
	}
}

// delay puts a timer off lazily: a watch that moves later with each sample
// stays where it is until it comes up, and is put right then.
func (p *Partition) delay(t *timer, after int64) {
	if due, ok := p.due(t, after); ok && (t.at == never || due < t.at) {
		p.schedule(t, after)
	}
}

// due returns when a timer is due after an instant, by the state alone.
func (p *Partition) due(t *timer, after int64) (int64, bool) {
	if t.done || t.target.dropped {
		return 0, false
	}
	after = max(after, t.fired)
	if t.rule == nil {
		at := t.target.gone + keepGone.Milliseconds()
		return at, !t.target.live() && at > after
	}
	if t.tally {
		return t.rule.times.Next(after), true
	}
	if a, _ := t.target.alert(t.rule, t.category); a != nil && a.timer == t {
		return a.due(after)
	}
	return p.absentDue(t, after)
}

// absentDue returns the earliest instant after another at which a rule's
// absences begin, if nothing is heard of the target.
func (p *Partition) absentDue(t *timer, after int64) (int64, bool) {
	due, ok := int64(0), false
	if !t.target.live() {
		return 0, false
	}
	for _, id := range t.rule.absences {
		s := &t.rule.group.slots[id]
		at := max(t.target.seen(), p.listening) + absence(t.target, s.Window)
		if at > after && (!ok || at < due) {
			due, ok = at, true
		}
	}
	return due, ok
}

// absence is how long a target must be silent to count as absent.
func absence(t *target, window int64) int64 { return max(window, absentIntervals*t.interval) }

// peek returns the timer that is due first. It puts timers right that were put
// off.
func (p *Partition) peek(after int64) *timer {
	for len(p.timers) > 0 {
		t := p.timers[0]
		if due, ok := p.due(t, after); ok && due == t.at {
			return t
		}
		p.schedule(t, after)
	}
	return nil
}

// Deadline returns the real time from the last message to the earliest timer,
// and false if no timer waits. It is never negative.
func (p *Partition) Deadline() (time.Duration, bool) {
	t := p.peek(p.nowMs())
	if t == nil {
		return 0, false
	}
	left := time.Duration(t.at)*time.Millisecond - time.Duration(p.clock.now)
	return time.Duration(float64(max(left, 0)) / p.speed), true
}
