package window

import (
	"math"
	"slices"
)

const (
	// Hour is an hour in milliseconds.
	Hour int64 = 60 * 60 * 1000
	// Day is a day in milliseconds.
	Day = 24 * Hour
	// daysNeeded is how many earlier days must be known before they say what is
	// usual: of fewer the median is any of them.
	daysNeeded = 3
	// ofNormal turns a median distance from the median into a standard deviation, for
	// values that are spread as in a normal distribution.
	ofNormal = 1.4826
)

// Summarise records one value for a stretch of time that is over, or that it has
// none. Stretches come in order; one that was passed over has no value.
func (s *Series) Summarise(from, to int64, v float64, known bool) {
	p := Step{Start: from, Known: known}
	if known {
		p.Value = v
	}
	if s.Empty() {
		s.first, s.until = from, to
		s.push(p)
		return
	}
	s.closeGap(from)
	s.put(p)
	s.until = to
}

// SummarisedTo returns where the last stretch ends, false before the first.
func (s *Series) SummarisedTo() (int64, bool) { return s.until, !s.Empty() }

// Usual returns what summaries of hours say of the hour of day at hand: the median
// over some days before, and how far they lie from it, as a standard deviation that
// a single odd day does not move. It is false until three of the days are known, or
// all where fewer are asked for.
func (s *Series) Usual(now int64, days int) (median, spread float64, ok bool) {
	middle := now - now%Hour + Hour/2
	var values []float64
	for back := int64(1); back <= int64(days); back++ {
		if v, known := s.At(middle-back*Day, now); known {
			values = append(values, v)
		}
	}
	if len(values) < min(daysNeeded, days) {
		return 0, 0, false
	}
	median = medianOf(values)
	for i, v := range values {
		values[i] = math.Abs(v - median)
	}
	return median, float64(ofNormal * medianOf(values)), true
}

// medianOf sorts values and returns the middle one, or the mean of the two middle
// ones. There is at least one.
func medianOf(values []float64) float64 {
	slices.Sort(values)
	n := len(values)
	return (values[(n-1)/2] + values[n/2]) / 2
}
