package window

import "slices"

// Min returns the least value of the last width milliseconds, and false while
// less than nine tenths of them are known.
func (s *Series) Min(now, width int64) (float64, bool) {
	return s.extreme(now, width, func(v, best float64) bool { return v < best })
}

// Max returns the greatest value of the last width milliseconds, and false
// while less than nine tenths of them are known.
func (s *Series) Max(now, width int64) (float64, bool) {
	return s.extreme(now, width, func(v, best float64) bool { return v > best })
}

func (s *Series) extreme(now, width int64, better func(v, best float64) bool) (float64, bool) {
	var best float64
	var covered int64
	seen := false
	s.clip(now, width, func(v float64, held int64) {
		covered += held
		if !seen || better(v, best) {
			best, seen = v, true
		}
	})
	return best, seen && enough(covered, width)
}

// Avg returns the time-weighted mean of the last width milliseconds, and false
// while less than nine tenths of them are known.
func (s *Series) Avg(now, width int64) (float64, bool) {
	var sum float64
	var covered int64
	s.clip(now, width, func(v float64, held int64) {
		covered += held
		sum += float64(v * float64(held))
	})
	if covered == 0 || !enough(covered, width) {
		return 0, false
	}
	return sum / float64(covered), true
}

func enough(covered, width int64) bool {
	return float64(covered) >= float64(minCovered*float64(width))
}

// Increase returns by how much a course that never falls rose in the last
// width milliseconds, counted from first sight, and false while it has no value.
func (s *Series) Increase(now, width int64) (float64, bool) {
	newest, ok := s.Now(now)
	if !ok {
		return 0, false
	}
	return newest - s.base(now-width), true
}

// base returns the value at t or, where it is unknown, the one before; without
// any, the first value.
func (s *Series) base(t int64) float64 {
	value, found := 0.0, false
	for _, p := range s.steps {
		if p.Start > t && found {
			break
		}
		if p.Known {
			value, found = p.Value, true
		}
	}
	return value
}

// Rate returns the increase per second of the part of the window since first
// sight, and false while it has no value or no time has passed.
func (s *Series) Rate(now, width int64) (float64, bool) {
	rise, ok := s.Increase(now, width)
	covered := min(now-s.first, width)
	if !ok || covered <= 0 {
		return 0, false
	}
	return rise * 1000 / float64(covered), true
}

// Last returns the newest value of the last width milliseconds, and false if
// there was none.
func (s *Series) Last(now, width int64) (float64, bool) {
	for i, p := range slices.Backward(s.steps) {
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
func (s *Series) CountTrue(now, width, bucket int64) (float64, bool) {
	n := int(width / bucket)
	hit := make([]bool, n)
	var covered int64
	for i, p := range s.steps {
		end := s.end(i, now)
		start := max(p.Start, now-width)
		if !p.Known || p.Start > now || end < start {
			continue
		}
		covered += end - start
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
	from := now - width
	for i, p := range s.steps {
		if p.Start > now || i+1 < len(s.steps) && s.steps[i+1].Start <= from {
			continue
		}
		p.Start = max(p.Start, from)
		all = append(all, p)
		if i+1 == len(s.steps) && p.Known && s.until < now && s.until > p.Start {
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
