package engine

import (
	"slices"
	"time"

	"github.com/tocsin-dev/tocsin/services/alerter/internal/expr"
	"github.com/tocsin-dev/tocsin/services/alerter/internal/window"
)

const (
	// fineWindow is how long a window of a counter may be that is kept step by step.
	// A busy endpoint has another count in every poll: at one every 10 s this is 720
	// of the 1,024 steps of a series, and 6 h would be more than all.
	fineWindow = 2 * time.Hour
	// coarseGrain is by how much the beginning of a longer window may be off: a 24th
	// of 6 h. A day is 97 grains of two steps, 2 KiB of a target's state.
	coarseGrain = 15 * time.Minute
	// hourLate is how long the course of an hour is kept after its end, for the fact
	// that comes next to sum it up. An hour of which no fact came since is not known.
	hourLate = time.Hour
)

// detail says how much of a course is kept.
type detail int

const (
	// exact keeps every step.
	exact detail = iota
	// coarse keeps the first and the last step of each grain of a counter.
	coarse
	// hourly keeps one number of each hour: the mean of a gauge, the growth of a
	// counter.
	hourly
)

// detailFor says how much of its field's course a slot needs.
func detailFor(s expr.Slot) detail {
	switch {
	case usual(s.Fn):
		return hourly
	case (s.Fn == expr.FnIncrease || s.Fn == expr.FnRate) && s.Window > fineWindow.Milliseconds() && !ownCounter(s.Field):
		return coarse
	default:
		return exact
	}
}

// usual says that a function asks for the same hour of earlier days.
func usual(fn expr.Fn) bool { return fn == expr.FnBaseline || fn == expr.FnBaselineSpread }

// needs lists what must be recorded beside r: hours are summed up from the course
// itself, which is also what alerts show.
func (r recorded) needs() []recorded {
	fine := recorded{key: expr.FieldOf(r.field).Name, field: r.field, source: r.source}
	switch r.detail {
	case coarse:
		fine.length = evidenceWindow.Milliseconds()
	case hourly:
		fine.length = window.Hour + hourLate.Milliseconds()
	default:
		return nil
	}
	return []recorded{fine}
}

// calendar returns what the clock on the wall says at an instant of the bus's time, in
// milliseconds since 1970. Hours and grains begin by it: the bus's time begins with
// the first message that a fold has, which is another one after a rebuild and in a
// backtest, and it leaves out what lies beyond longestGap. Where rules run faster
// this does too.
func (p *Partition) calendar(bus int64) int64 {
	now := p.clock.stamp / int64(time.Millisecond)
	if p.speed != 1 {
		now = int64(float64(now) * p.speed)
	}
	return now - (p.clock.bus() - bus)
}

// sumUp notes the hour that ended last, once. Hours are kept by the calendar.
func (p *Partition) sumUp(t *target, s *window.Series, r recorded) {
	bus := p.clock.bus()
	now := p.calendar(bus)
	end := now - now%window.Hour
	if done, any := s.SummarisedTo(); any && done >= end {
		return
	}
	v, known := p.hour(t, r, bus-(now-end))
	s.Summarise(end-window.Hour, end, v, known)
	s.Prune(now - r.length)
}

// hour returns the number that is kept of the hour that ended at end, an instant of
// the bus's time.
func (p *Partition) hour(t *target, r recorded, end int64) (float64, bool) {
	i, found := slices.BinarySearchFunc(p.recordedOf(t), expr.FieldOf(r.field).Name, compareKey)
	if !found {
		return 0, false
	}
	fine := &t.series[i]
	if expr.FieldOf(r.field).Kind == expr.Gauge {
		return fine.Avg(end, window.Hour, p.clock.gaps)
	}
	if _, known := fine.At(end-window.Hour, end); !known {
		return 0, false
	}
	grown, ok := fine.Increase(end, window.Hour)
	return grown.Least, ok && grown.Slack == 0
}

// standIn finds where the course of a counter is kept as it is, for a coarse one
// that is asked for newly; -1 if nowhere.
func standIn(r recorded, before []recorded) int {
	if r.detail != coarse {
		return -1
	}
	i, found := slices.BinarySearchFunc(before, expr.FieldOf(r.field).Name, compareKey)
	if !found {
		return -1
	}
	return i
}
