package window

import (
	"math"
	"slices"
)

// Min returns the least value of the last width milliseconds, and false while
// less than nine tenths of them are known. What lies in a gap is not.
func (s *Series) Min(now, width int64, gaps []Gap) (float64, bool) {
	return s.extreme(now, width, gaps, true)
}

// Max returns the greatest value of the last width milliseconds, and false
// while less than nine tenths of them are known. What lies in a gap is not.
func (s *Series) Max(now, width int64, gaps []Gap) (float64, bool) {
	return s.extreme(now, width, gaps, false)
}

func (s *Series) extreme(now, width int64, gaps []Gap, least bool) (best float64, ok bool) {
	var one [1]Step
	var covered int64
	seen := false
	steps := s.inWindow(now, width, &one)
	for i := range steps {
		held, in := s.held(steps, i, now, width, gaps)
		if !in {
			continue
		}
		covered += held
		if v := steps[i].Value; !seen || least && v < best || !least && v > best {
			best, seen = v, true
		}
	}
	return best, seen && enough(covered, width)
}

// Avg returns the time-weighted mean of the last width milliseconds, and false
// while less than nine tenths of them are known. What lies in a gap is not.
func (s *Series) Avg(now, width int64, gaps []Gap) (float64, bool) {
	var one [1]Step
	var sum float64
	var covered int64
	steps := s.inWindow(now, width, &one)
	for i := range steps {
		if held, in := s.held(steps, i, now, width, gaps); in {
			covered += held
			sum += float64(steps[i].Value * float64(held))
		}
	}
	if covered == 0 || !enough(covered, width) {
		return 0, false
	}
	return sum / float64(covered), true
}

func enough(covered, width int64) bool {
	return float64(covered) >= float64(minCovered*float64(width))
}

// Rise is by how much a course rose, as far as that can be told.
type Rise struct {
	// Least is what it certainly rose by.
	Least float64
	// Slack is how much more it may be: growth that nobody saw, and whose date
	// nobody knows. 0 where the rise is exact.
	Slack float64
}

// Increase returns by how much a course that never falls rose in the last
// width milliseconds, counted from first sight, and false while it has no
// value. Where the window begins while the course was unknown, it is not known
// which part of the growth of that time belongs to it: none of it is certain,
// and the part that would, had it been even, is slack.
func (s *Series) Increase(now, width int64) (Rise, bool) {
	newest, ok := s.Now(now)
	if !ok {
		return Rise{}, false
	}
	base, slack := s.base(now - width)
	return Rise{Least: newest - base, Slack: slack}, true
}

// base returns the highest value that the course can have had at t, and how
// much lower it may have been. Before first sight it is the first value.
func (s *Series) base(t int64) (value, slack float64) {
	if s.lastStart <= t && s.lastKnown {
		return s.lastValue, 0
	}
	steps := s.steps()
	i := holding(steps, t)
	if steps[i].Known {
		return steps[i].Value, 0
	}
	next := slices.IndexFunc(steps[i:], func(p Step) bool { return p.Known })
	if next < 0 {
		return 0, 0 // never: the newest is known
	}
	after := steps[i+next]
	if i == 0 || !steps[i-1].Known || t < steps[i].Start {
		return after.Value, 0
	}
	// The unknown stretch lasts from step i to after; of its growth the part
	// that lies behind t, in whole numbers, as counters count.
	grown := max(after.Value-steps[i-1].Value, 0)
	behind := float64(grown*float64(after.Start-t)) / float64(after.Start-steps[i].Start)
	return after.Value, math.Round(behind)
}

// Rate returns the increase per second of the part of the window since first
// sight, and false while it has no value or no time has passed.
func (s *Series) Rate(now, width int64) (Rise, bool) {
	rise, ok := s.Increase(now, width)
	covered := min(now-s.first, width)
	if !ok || covered <= 0 {
		return Rise{}, false
	}
	per := func(n float64) float64 { return n * 1000 / float64(covered) }
	return Rise{Least: per(rise.Least), Slack: per(rise.Slack)}, true
}

// Last returns the newest value of the last width milliseconds, and false if
// there was none.
func (s *Series) Last(now, width int64) (float64, bool) {
	for i, p := range slices.Backward(s.steps()) {
		if p.Known && p.Start <= now {
			return p.Value, s.end(i, now) >= now-width
		}
	}
	return 0, false
}

// Delta returns the value now minus the value width milliseconds ago, and false
// if one of them is unknown: first sight of a value is no change.
func (s *Series) Delta(now, width int64) (float64, bool) {
	newest, ok := s.Now(now)
	if !ok {
		return 0, false
	}
	oldest, ok := s.At(now-width, now)
	return newest - oldest, ok
}

// CountTrue splits the last width milliseconds into buckets of size bucket,
// ending at now, and counts those in which the value was other than 0 at any
// time. It returns false while less than nine tenths of the window are known.
// What lies in a gap is not.
func (s *Series) CountTrue(now, width, bucket int64, gaps []Gap) (float64, bool) {
	n := int(width / bucket)
	var few [128]bool // as many as rules may ask for, and some
	hit := few[:]
	if n > len(few) {
		hit = make([]bool, n)
	}
	var covered int64
	steps := s.steps()
	for i := holding(steps, now-width); i < len(steps); i++ {
		p := steps[i]
		end := s.end(i, now)
		start := max(p.Start, now-width)
		if !p.Known || p.Start > now || end < start {
			continue
		}
		covered += end - start - unseen(gaps, start, end)
		if p.Value == 0 || end == start && p.Start < now {
			continue
		}
		// Bucket b begins at now-(b+1)*bucket; now itself belongs to the newest.
		newest, oldest := max(now-max(end, start+1), 0)/bucket, max(now-start-1, 0)/bucket
		for b := newest; b <= min(oldest, int64(n)-1); b++ {
			hit[b] = true
		}
	}
	if !enough(covered, width) {
		return 0, false
	}
	count := 0.0
	for _, h := range hit {
		if h {
			count++
		}
	}
	return count, true
}

// Points returns the course of the last width milliseconds as at most limit
// steps. The first begins at the window's start. Where there are more, the
// window is cut into equal parts and each shows its last step, the newest kept.
func (s *Series) Points(now, width int64, limit int) []Step {
	var all []Step
	from, steps := now-width, s.steps()
	for i, p := range steps {
		if p.Start > now || i+1 < len(steps) && steps[i+1].Start <= from {
			continue
		}
		p.Start = max(p.Start, from)
		all = append(all, p)
		if i+1 == len(steps) && p.Known && s.until < now && s.until > p.Start {
			all = append(all, Step{Start: s.until})
		}
	}
	if len(all) <= limit {
		return all
	}
	thin := make([]Step, 0, limit)
	for i, p := range all {
		part := (p.Start - from) * int64(limit) / (width + 1)
		if i+1 < len(all) && (all[i+1].Start-from)*int64(limit)/(width+1) == part {
			continue
		}
		thin = append(thin, p)
	}
	return thin
}
