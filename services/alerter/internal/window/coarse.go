package window

import "slices"

// Thin drops the step before the newest where it and both its neighbours begin in
// the same grain of time. Grains begin offset milliseconds before multiples of one. Of a course that only rises each grain then keeps its first
// step and its last, so that a window is off by what grew in the grain in which it
// begins, and twice the grains of a window bound its steps.
func (s *Series) Thin(grain, offset int64) {
	steps := s.steps()
	n := len(steps)
	if n < 3 {
		return
	}
	before, middle, newest := steps[n-3], steps[n-2], steps[n-1]
	if !before.Known || !middle.Known || !newest.Known || (before.Start+offset)/grain != (newest.Start+offset)/grain {
		return
	}
	s.all[len(s.all)-2] = newest
	s.all = s.all[:len(s.all)-1]
}

// Clone returns a series of its own with the same course.
func (s *Series) Clone() Series {
	st := s.State()
	st.Steps = slices.Clone(st.Steps)
	return Restore(st)
}
