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

// Series is the course of one value. The zero value is empty and ready.
type Series struct {
	steps []Step
	// until is when the last step stops to hold, if nothing follows.
	until int64
	// first is the instant of first sight.
	first int64
}

// Empty says that nothing was ever recorded.
func (s *Series) Empty() bool { return len(s.steps) == 0 }

// Set records that the value is v from t on, until another is recorded or until
// the instant until. Recording an instant before the last one changes nothing.
// It returns how many of the oldest steps were dropped to stay within MaxPoints.
func (s *Series) Set(t int64, v float64, until int64) (dropped int) {
	until = max(until, t)
	if len(s.steps) == 0 {
		s.first = t
		s.steps, s.until = append(s.steps, Step{t, v, true}), until
		return 0
	}
	if t < s.last().Start {
		return 0
	}
	s.closeGap(t)
	s.put(Step{t, v, true})
	s.until = until
	return s.bound()
}

// SetUnknown records that there is no value from t on.
func (s *Series) SetUnknown(t int64) (dropped int) {
	if len(s.steps) == 0 || t < s.last().Start {
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
	if len(s.steps) == 0 {
		s.first = t
		s.steps = append(s.steps, Step{t, delta, true})
		return 0
	}
	i := len(s.steps)
	for i > 0 && s.steps[i-1].Start > t {
		i--
		s.steps[i].Value += delta
	}
	switch {
	case i > 0 && s.steps[i-1].Start == t:
		s.steps[i-1].Value += delta
	case i > 0:
		s.steps = slices.Insert(s.steps, i, Step{t, s.steps[i-1].Value + delta, true})
	default:
		// Before everything that is kept: all of the window already has it.
		return 0
	}
	return s.bound()
}

// closeGap ends the last step where it stopped to hold, if that is before t.
func (s *Series) closeGap(t int64) {
	if l := s.last(); l.Known && s.until < t {
		s.put(Step{Start: s.until})
	}
}

// put appends a step and keeps the series free of equal neighbours.
func (s *Series) put(p Step) {
	n := len(s.steps)
	if s.steps[n-1].Start == p.Start {
		s.steps = s.steps[:n-1]
		n--
	}
	if n > 0 && s.steps[n-1].Known == p.Known && s.steps[n-1].Value == p.Value {
		return
	}
	s.steps = append(s.steps, p)
}

func (s *Series) bound() int {
	over := len(s.steps) - MaxPoints
	if over <= 0 {
		return 0
	}
	s.steps = slices.Delete(s.steps, 0, over)
	return over
}

// Prune forgets what ended before from. The step that holds at from stays, and
// if it is unknown the known one before it, from which a counter goes on.
func (s *Series) Prune(from int64) {
	drop := 0
	for drop+1 < len(s.steps) && s.steps[drop+1].Start <= from {
		drop++
	}
	if drop > 0 && !s.steps[drop].Known {
		drop--
	}
	if drop > 0 {
		s.steps = slices.Delete(s.steps, 0, drop)
	}
}

func (s *Series) last() Step { return s.steps[len(s.steps)-1] }

// end returns where step i stops to hold, at most now.
func (s *Series) end(i int, now int64) int64 {
	if i+1 < len(s.steps) {
		return min(s.steps[i+1].Start, now)
	}
	return min(s.until, now)
}

// Now returns the value that holds at now.
func (s *Series) Now(now int64) (float64, bool) { return s.At(now, now) }

// At returns the value that held at t, as known at now. A step that ends at t
// does not hold any more, except that the newest holds at its very end.
func (s *Series) At(t, now int64) (float64, bool) {
	for i, p := range slices.Backward(s.steps) {
		if p.Start <= t {
			if !p.Known || i == len(s.steps)-1 && t > s.until {
				return 0, false
			}
			return p.Value, true
		}
	}
	return 0, false
}

// clip calls f with each known step of the window that ends at now and with
// how long it holds in it outside of gaps. A step that begins at now holds for
// no time.
func (s *Series) clip(now, width int64, gaps []Gap, f func(value float64, held int64)) {
	from := now - width
	for i, p := range s.steps {
		end := s.end(i, now)
		if !p.Known || p.Start > now || end <= from {
			continue
		}
		start := max(p.Start, from)
		held := end - start - unseen(gaps, start, end)
		if held > 0 || start == end {
			f(p.Value, held)
		}
	}
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
func (s *Series) State() State { return State{s.steps, s.until, s.first} }

// Restore makes a series of its state. It takes the steps over.
func Restore(st State) Series { return Series{steps: st.Steps, until: st.Until, first: st.First} }
