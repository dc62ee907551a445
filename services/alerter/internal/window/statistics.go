package window

import (
	"cmp"
	"math"
	"slices"
)

// The functions of this file weigh each value by the time for which it held, so
// that the polling rate changes nothing. They ask for nine tenths of the window,
// as Min does, and cost its steps: 24 h with all 1,024 of them are 10 us, and 80 us
// for Quantile, which sorts them.

// stretch is a part of a window in which one value held.
type stretch struct {
	value    float64
	from, to int64
}

func (s stretch) held() int64 { return s.to - s.from }

// stretches lists the known parts of the window that ends at now, oldest first,
// and says how much of it they are. What lies in a gap is not known.
func (s *Series) stretches(now, width int64, gaps []Gap) (all []stretch, covered int64) {
	add := func(v float64, from, to int64) {
		if from < to {
			all = append(all, stretch{v, from, to})
			covered += to - from
		}
	}
	for i, p := range s.steps() {
		from, to := max(p.Start, now-width), s.end(i, now)
		if !p.Known || from >= to {
			continue
		}
		for _, g := range gaps {
			if g.To > from && g.From < to {
				add(p.Value, from, g.From)
				from = g.To
			}
		}
		add(p.Value, from, to)
	}
	return all, covered
}

// known is stretches of a window of which enough is known.
func (s *Series) known(now, width int64, gaps []Gap) (all []stretch, covered int64, ok bool) {
	all, covered = s.stretches(now, width, gaps)
	return all, covered, len(all) > 0 && enough(covered, width)
}

// flat says that the value never changes, which sums of fractions would not show.
func flat(all []stretch) bool {
	return !slices.ContainsFunc(all, func(s stretch) bool { return s.value != all[0].value })
}

// spread returns the mean and the standard deviation of some stretches.
func spread(all []stretch, covered int64) (mean, deviation float64) {
	if flat(all) {
		return all[0].value, 0
	}
	for _, s := range all {
		mean += float64(s.value * float64(s.held()))
	}
	mean /= float64(covered)
	for _, s := range all {
		off := s.value - mean
		deviation += float64(float64(off*off) * float64(s.held()))
	}
	return mean, math.Sqrt(deviation / float64(covered))
}

// line returns the straight line that is nearest to some stretches by least
// squares: its value at now and by how much it rises in a millisecond.
func line(all []stretch, covered, now int64) (level, slope float64) {
	if flat(all) {
		return all[0].value, 0
	}
	middle := func(s stretch) float64 { return float64(s.from-now+s.to-now) / 2 }
	value, at := 0.0, 0.0
	for _, s := range all {
		held := float64(s.held())
		value += float64(s.value * held)
		at += float64(middle(s) * held)
	}
	value /= float64(covered)
	at /= float64(covered)
	var both, square float64
	for _, s := range all {
		held, off := float64(s.held()), middle(s)-at
		both += float64(float64(off*(s.value-value)) * held)
		// A stretch is no point in time: the square over its length has a part more.
		square += float64((float64(off*off) + float64(held*held)/12) * held)
	}
	slope = both / square
	return value - float64(slope*at), slope
}

// Deriv returns by how much a value rises in a second, by the line through the
// last width milliseconds.
func (s *Series) Deriv(now, width int64, gaps []Gap) (float64, bool) {
	all, covered, ok := s.known(now, width, gaps)
	if !ok {
		return 0, false
	}
	_, slope := line(all, covered, now)
	return slope * 1000, true
}

// Predict returns what a value will be after ahead milliseconds, by the line
// through the last width milliseconds.
func (s *Series) Predict(now, width, ahead int64, gaps []Gap) (float64, bool) {
	all, covered, ok := s.known(now, width, gaps)
	if !ok {
		return 0, false
	}
	level, slope := line(all, covered, now)
	return level + float64(slope*float64(ahead)), true
}

// Sum returns the area under the course in the last width milliseconds, in values
// times seconds. What is not known of the window is taken to be as its mean.
func (s *Series) Sum(now, width int64, gaps []Gap) (float64, bool) {
	mean, ok := s.Avg(now, width, gaps)
	return mean * float64(width) / 1000, ok
}

// Count returns for how many seconds of the last width milliseconds there was a
// value, and false until nine tenths of them have passed since first sight. A gap
// is no time that passed.
func (s *Series) Count(now, width int64, gaps []Gap) (float64, bool) {
	if s.Empty() {
		return 0, false
	}
	from := max(now-width, s.first)
	_, covered := s.stretches(now, width, gaps)
	return float64(covered) / 1000, enough(now-from-unseen(gaps, from, now), width)
}

// First returns the oldest value of the last width milliseconds.
func (s *Series) First(now, width int64, gaps []Gap) (float64, bool) {
	all, _, ok := s.known(now, width, gaps)
	if !ok {
		return 0, false
	}
	return all[0].value, true
}

// Stddev returns the standard deviation of the last width milliseconds.
func (s *Series) Stddev(now, width int64, gaps []Gap) (float64, bool) {
	all, covered, ok := s.known(now, width, gaps)
	if !ok {
		return 0, false
	}
	_, deviation := spread(all, covered)
	return deviation, true
}

// ZScore returns how many standard deviations of the last width milliseconds the
// value is above their mean. Where it never moved, its first step away has none.
func (s *Series) ZScore(now, width int64, gaps []Gap) (float64, bool) {
	all, covered, ok := s.known(now, width, gaps)
	newest, present := s.Now(now)
	if !ok || !present {
		return 0, false
	}
	mean, deviation := spread(all, covered)
	switch {
	case newest == mean:
		return 0, true
	case deviation == 0:
		return 0, false
	default:
		return (newest - mean) / deviation, true
	}
}

// Quantile returns the least value that was not exceeded for the part q of the
// last width milliseconds: their minimum for 0, their maximum for 1.
func (s *Series) Quantile(q float64, now, width int64, gaps []Gap) (float64, bool) {
	switch q {
	case 0:
		return s.Min(now, width, gaps)
	case 1:
		return s.Max(now, width, gaps)
	}
	all, covered, ok := s.known(now, width, gaps)
	if !ok {
		return 0, false
	}
	slices.SortFunc(all, func(a, b stretch) int { return cmp.Compare(a.value, b.value) })
	enough, passed := q*float64(covered), int64(0)
	for _, s := range all {
		if passed += s.held(); float64(passed) >= enough {
			return s.value, true
		}
	}
	return all[len(all)-1].value, true
}

// Changes returns how often a value is known to have changed in the last width
// milliseconds, and false while less than nine tenths of them are known. A change
// that nobody saw, in a time that began before the window, may belong to it.
func (s *Series) Changes(now, width int64, gaps []Gap) (Rise, bool) {
	if _, _, ok := s.known(now, width, gaps); !ok {
		return Rise{}, false
	}
	var changes Rise
	last, from, steps := -1, now-width, s.steps()
	for i, p := range steps {
		if !p.Known || p.Start > now {
			continue
		}
		switch {
		case last < 0 || p.Start <= from || steps[last].Value == p.Value:
		case s.end(last, now) >= from:
			changes.Least++
		default:
			changes.Slack++
		}
		last = i
	}
	return changes, true
}

// Ceased returns the instant at which the newest value ceased to hold, now while
// it holds, and false before first sight.
func (s *Series) Ceased(now int64) (int64, bool) {
	for i, p := range slices.Backward(s.steps()) {
		if p.Known && p.Start <= now {
			return s.end(i, now), true
		}
	}
	return 0, false
}
