// Package window keeps the recent course of values as steps and answers
// questions about stretches of time. A value holds from its instant until the
// next one, so that asking a source more often changes no answer; where the
// source was silent for too long the course is unknown, and an answer that
// would rest on too much of the unknown is withheld, or told with what it may
// be off by. Time is an argument, in milliseconds of the bus's time, in which an
// outage is as long as it was. The same facts give the same bytes.
package window

import (
	"math"
	"slices"
)

// Forever is the end of a value that holds until it is replaced.
const Forever = math.MaxInt64

// MaxPoints bounds the steps of one series: 1,024 are 2 h of a value that
// changes every 7 s, and 16 KiB of memory.
const MaxPoints = 1024

// minCovered is the part of a window that must be known before its minimum,
// maximum or average is told.
const minCovered = 0.9

// Step is a value and the instant from which it holds.
type Step struct {
	// Start is when it begins, in milliseconds.
	Start int64
	// Value is the value, 0 when it is not known.
	Value float64
	// Known is false while there is no value.
	Known bool
}

// Gap is a stretch of time in which nobody could record anything, and in which
// also what holds for ever is not known: it may have changed there and back.
type Gap struct {
	// From and To are where it begins and ends, in milliseconds.
	From, To int64
}

// unseen returns how much of a stretch lies in gaps, which do not overlap.
func unseen(gaps []Gap, from, to int64) int64 {
	var sum int64
	for _, g := range gaps {
		sum += max(min(g.To, to)-max(g.From, from), 0)
	}
	return sum
}

// Series is the course of one value. The zero value is empty and ready. It is 64
// bytes, a cache line: what most calls ask for stands in it, since a look at the
// steps themselves costs a fact more than all that is computed from them.
type Series struct {
	// all are the steps, oldest first, after those that were forgotten.
	all []Step
	// until is when the last step stops to hold, if nothing follows.
	until int64
	// first is the instant of first sight.
	first int64
	// lastStart, lastValue and lastKnown are the last step.
	lastStart int64
	lastValue float64
	// forgotten is how many steps of all are forgotten.
	forgotten uint32
	lastKnown bool
}

// steps are what is kept, oldest first.
func (s *Series) steps() []Step { return s.all[s.forgotten:] }

// Empty says that nothing was ever recorded.
func (s *Series) Empty() bool { return len(s.all) == 0 }

// Set records that the value is v from t on, until another is recorded or until
// the instant until. Recording an instant before the last one changes nothing.
// It returns how many of the oldest steps were dropped to stay within MaxPoints.
func (s *Series) Set(t int64, v float64, until int64) (dropped int) {
	until = max(until, t)
	if s.Empty() {
		s.first, s.until = t, until
		s.push(Step{t, v, true})
		return 0
	}
	if t < s.lastStart {
		return 0
	}
	s.closeGap(t)
	s.put(Step{t, v, true})
	s.until = until
	return s.bound()
}

// SetUnknown records that there is no value from t on.
func (s *Series) SetUnknown(t int64) (dropped int) {
	if s.Empty() || t < s.lastStart {
		return 0
	}
	s.closeGap(t)
	s.put(Step{Start: t})
	s.until = Forever
	return s.bound()
}

// AddAt raises the course by delta from t on, also when t is in the past: a
// counter of facts that may arrive late. The value holds for ever.
func (s *Series) AddAt(t int64, delta float64) (dropped int) {
	s.until = Forever
	if s.Empty() {
		s.first = t
		s.push(Step{t, delta, true})
		return 0
	}
	steps := s.steps()
	i := len(steps)
	for i > 0 && steps[i-1].Start > t {
		i--
		steps[i].Value += delta
	}
	switch {
	case i > 0 && steps[i-1].Start == t:
		steps[i-1].Value += delta
	case i > 0:
		s.all = slices.Insert(s.all, int(s.forgotten)+i, Step{t, steps[i-1].Value + delta, true})
	default:
		// Before everything that is kept: all of the window already has it.
		s.noteLast()
		return 0
	}
	s.noteLast()
	return s.bound()
}

// closeGap ends the last step where it stopped to hold, if that is before t.
func (s *Series) closeGap(t int64) {
	if s.lastKnown && s.until < t {
		s.put(Step{Start: s.until})
	}
}

// put appends a step and keeps the series free of equal neighbours.
func (s *Series) put(p Step) {
	if s.lastStart == p.Start {
		s.all = s.all[:len(s.all)-1]
		if len(s.all) == int(s.forgotten) {
			s.push(p)
			return
		}
		s.noteLast()
	}
	if s.lastKnown != p.Known || s.lastValue != p.Value {
		s.push(p)
	}
}

// push appends a step. What was forgotten makes room before the memory grows.
func (s *Series) push(p Step) {
	if len(s.all) == cap(s.all) && s.forgotten > 0 {
		s.all = slices.Delete(s.all, 0, int(s.forgotten))
		s.forgotten = 0
	}
	s.all = append(s.all, p)
	s.lastStart, s.lastValue, s.lastKnown = p.Start, p.Value, p.Known
}

// noteLast notes the last step, which must be there.
func (s *Series) noteLast() {
	p := s.all[len(s.all)-1]
	s.lastStart, s.lastValue, s.lastKnown = p.Start, p.Value, p.Known
}

func (s *Series) bound() int {
	over := len(s.all) - int(s.forgotten) - MaxPoints
	if over <= 0 {
		return 0
	}
	s.forgotten += uint32(over)
	return over
}

// Prune forgets what ended before from. The step that holds at from stays, and
// if it is unknown the known one before it, from which a counter goes on.
func (s *Series) Prune(from int64) {
	if len(s.all) < 2 {
		return
	}
	steps, drop := s.steps(), 0
	for drop+1 < len(steps) && steps[drop+1].Start <= from {
		drop++
	}
	if drop > 0 && !steps[drop].Known {
		drop--
	}
	s.forgotten += uint32(drop)
}

// holding returns the index of the step that holds at t, or the first.
func holding(steps []Step, t int64) int {
	low, high := 0, len(steps) // it is in [low, high)
	for high-low > 1 {
		if middle := int(uint(low+high) / 2); steps[middle].Start <= t {
			low = middle
		} else {
			high = middle
		}
	}
	return low
}

// end returns where step i stops to hold, at most now.
func (s *Series) end(i int, now int64) int64 {
	if steps := s.steps(); i+1 < len(steps) {
		return min(steps[i+1].Start, now)
	}
	return min(s.until, now)
}

// Now returns the value that holds at now.
func (s *Series) Now(now int64) (float64, bool) { return s.At(now, now) }

// At returns the value that held at t, as known at now. A step that ends at t
// does not hold any more, except that the newest holds at its very end.
func (s *Series) At(t, now int64) (float64, bool) {
	switch {
	case s.Empty():
		return 0, false
	case s.lastStart <= t:
		if !s.lastKnown || t > s.until {
			return 0, false
		}
		return s.lastValue, true
	}
	steps := s.steps()
	p := steps[holding(steps, t)]
	if !p.Known || p.Start > t {
		return 0, false
	}
	return p.Value, true
}

// inWindow returns the steps that may lie in the window that ends at now, oldest
// first. Where there is but one it stands in one: no need to look at the steps.
func (s *Series) inWindow(now, width int64, one *[1]Step) []Step {
	if len(s.all) == int(s.forgotten)+1 {
		one[0] = Step{s.lastStart, s.lastValue, s.lastKnown}
		return one[:]
	}
	steps := s.steps()
	return steps[holding(steps, now-width):]
}

// held returns for how long the i-th of the steps in a window holds in it outside of
// gaps, and false where it has no part in it. One that begins at now holds for no
// time.
func (s *Series) held(steps []Step, i int, now, width int64, gaps []Gap) (int64, bool) {
	start, end := max(steps[i].Start, now-width), min(s.until, now)
	if i+1 < len(steps) {
		end = min(steps[i+1].Start, now)
	}
	if !steps[i].Known || steps[i].Start > now || end <= now-width {
		return 0, false
	}
	held := end - start
	if len(gaps) > 0 {
		held -= unseen(gaps, start, end)
	}
	return held, held > 0 || start == end
}

// State is a series as it is stored.
type State struct {
	// Steps, oldest first.
	Steps []Step
	// Until is when the last step stops to hold; Forever if never.
	Until int64
	// First is the instant of first sight.
	First int64
}

// State returns what Restore needs. The steps are shared, not copied.
func (s *Series) State() State { return State{s.steps(), s.until, s.first} }

// Restore makes a series of its state. It takes the steps over.
func Restore(st State) Series {
	s := Series{all: st.Steps, until: st.Until, first: st.First}
	if len(s.all) > 0 {
		s.noteLast()
	}
	return s
}
