package window

import (
	"math"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

// near compares numbers that were divided.
var near = cmpopts.EquateApprox(0, 1e-9)

// rising is a value that rises by one with each of n polls.
func rising(n int) *Series {
	values := make([]any, n)
	for i := range values {
		values[i] = i
	}
	return polled(values...)
}

func TestStatisticsOverWindows(t *testing.T) {
	none := answer{}
	// 12 of 20 minutes at 2, 8 at 7: the mean is 4, the variance 6.
	two := polled(append(repeat(48, 2), repeat(33, 7)...)...)
	for _, c := range []struct {
		name string
		s    *Series
		ask  func(*Series) (float64, bool)
		want answer
	}{
		{"a flat line rises by nothing", polled(repeat(41, 5)...), func(s *Series) (float64, bool) { return s.Deriv(10*minute, 10*minute, nil) }, answer{0, true}},
		{"stairs rise by their step in each poll", rising(41), func(s *Series) (float64, bool) { return s.Deriv(10*minute, 10*minute, nil) }, answer{1.0 / 15 * 1599 / 1600, true}},
		{"one step in the middle", two, func(s *Series) (float64, bool) { return s.Deriv(20*minute, 16*minute, nil) }, answer{1.5 * 5 / 960, true}},
		{"no line through a window that is not covered", rising(40), func(s *Series) (float64, bool) { return s.Deriv(10*minute, 20*minute, nil) }, none},
		{"the line goes on", rising(41), func(s *Series) (float64, bool) { return s.Predict(10*minute, 10*minute, 10*minute, nil) }, answer{19.5 + 15*60.0/15*1599/1600, true}},
		{"nothing to go on from", polled(3), func(s *Series) (float64, bool) { return s.Predict(15*second, minute, minute, nil) }, none},
		{"a flat line stays", polled(repeat(41, 5)...), func(s *Series) (float64, bool) { return s.Predict(10*minute, 10*minute, 20*minute, nil) }, answer{5, true}},
		{"the area is the mean times the seconds", two, func(s *Series) (float64, bool) { return s.Sum(20*minute, 20*minute, nil) }, answer{4800, true}},
		{"no area of a window that is not covered", two, func(s *Series) (float64, bool) { return s.Sum(20*minute, 40*minute, nil) }, none},
		{"seconds with a value", polled(append(repeat(21, 5), append(repeat(17, nil), repeat(4, 5)...)...)...), func(s *Series) (float64, bool) { return s.Count(615*second, 10*minute, nil) }, answer{375, true}},
		{"all of them", two, func(s *Series) (float64, bool) { return s.Count(20*minute, 20*minute, nil) }, answer{1200, true}},
		{"none in the window", polled(5), func(s *Series) (float64, bool) { return s.Count(20*minute, 10*minute, nil) }, answer{0, true}},
		{"seconds are not counted before they have passed", polled(repeat(20, 5)...), func(s *Series) (float64, bool) { return s.Count(5*minute, 10*minute, nil) }, none},
		{"nor of nothing", new(Series), func(s *Series) (float64, bool) { return s.Count(20*minute, 10*minute, nil) }, none},
		{"the first value", two, func(s *Series) (float64, bool) { return s.First(20*minute, 20*minute, nil) }, answer{2, true}},
		{"the first value is that at the window's start", two, func(s *Series) (float64, bool) { return s.First(20*minute, 8*minute, nil) }, answer{7, true}},
		{"the first value of a window that is not covered", two, func(s *Series) (float64, bool) { return s.First(20*minute, 30*minute, nil) }, none},
		{"the deviation of a flat line", polled(repeat(41, 5)...), func(s *Series) (float64, bool) { return s.Stddev(10*minute, 10*minute, nil) }, answer{0, true}},
		{"the deviation is weighted by time", two, func(s *Series) (float64, bool) { return s.Stddev(20*minute, 20*minute, nil) }, answer{math.Sqrt(6), true}},
		{"no deviation of a window that is not covered", two, func(s *Series) (float64, bool) { return s.Stddev(20*minute, 30*minute, nil) }, none},
		{"so many deviations above the mean", two, func(s *Series) (float64, bool) { return s.ZScore(20*minute, 20*minute, nil) }, answer{3 / math.Sqrt(6), true}},
		{"a value that never moved is at its mean", polled(repeat(41, 5)...), func(s *Series) (float64, bool) { return s.ZScore(10*minute, 10*minute, nil) }, answer{0, true}},
		{"its first move cannot be measured", polled(append(repeat(40, 5), 6)...), func(s *Series) (float64, bool) { return s.ZScore(10*minute, 10*minute, nil) }, none},
		{"no score without a value", polled(repeat(41, 5)...), func(s *Series) (float64, bool) { return s.ZScore(11*minute, 10*minute, nil) }, none},
		{"what was not exceeded for most of the time", two, func(s *Series) (float64, bool) { return s.Quantile(0.6, 20*minute, 20*minute, nil) }, answer{2, true}},
		{"for more than that", two, func(s *Series) (float64, bool) { return s.Quantile(0.61, 20*minute, 20*minute, nil) }, answer{7, true}},
		{"for none of it", polled(append(repeat(40, 5), 1)...), func(s *Series) (float64, bool) { return s.Quantile(0, 10*minute, 10*minute, nil) }, answer{1, true}},
		{"for all of it", polled(append(repeat(40, 5), 9)...), func(s *Series) (float64, bool) { return s.Quantile(1, 10*minute, 10*minute, nil) }, answer{9, true}},
		{"no quantile of a window that is not covered", two, func(s *Series) (float64, bool) { return s.Quantile(0.5, 20*minute, 30*minute, nil) }, none},
		{"changes in the window", polled(repeat(10, 1, 1, 1, 2)...), func(s *Series) (float64, bool) { return exact(s.Changes(585*second, 570*second, nil)) }, answer{19, true}},
		{"a value that came back is no change", polled(append(repeat(36, 5), nil, nil, nil, nil, 5)...), func(s *Series) (float64, bool) { return exact(s.Changes(10*minute, 10*minute, nil)) }, answer{0, true}},
		{"one that came back as another is one", polled(append(repeat(36, 5), nil, nil, nil, nil, 6)...), func(s *Series) (float64, bool) { return exact(s.Changes(10*minute, 10*minute, nil)) }, answer{1, true}},
		{"no changes of a window that is not covered", polled(1, 2), func(s *Series) (float64, bool) { return exact(s.Changes(poll, 10*minute, nil)) }, none},
	} {
		t.Run(c.name, func(t *testing.T) {
			if diff := cmp.Diff(c.want, gives(c.ask(c.s)), near); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// TestAChangeThatNobodySawMayBelongToTheWindow: the value was lost before it began.
func TestAChangeThatNobodySawMayBelongToTheWindow(t *testing.T) {
	s := polled(append([]any{1, nil, nil, nil, nil}, repeat(60, 2)...)...)
	// It was known as 1 until 45 s and as 2 from 75 s on.
	for from, want := range map[int64]Rise{44 * second: {1, 0}, 45 * second: {1, 0}, 46 * second: {0, 1}, 74 * second: {0, 1}, 75 * second: {0, 0}} {
		now := from + 10*minute
		if got, ok := cut(s, now).Changes(now, 10*minute, nil); got != want || !ok {
			t.Errorf("in a window from %d s on: %v, %v; want %v", from/second, got, ok, want)
		}
	}
}

// TestStatisticsLeaveGapsOut: a setting is 5 until a gap of 10 minutes after half
// an hour, and is found to be 2 ten minutes later.
func TestStatisticsLeaveGapsOut(t *testing.T) {
	s := new(Series)
	s.Set(0, 5, Forever)
	s.Set(50*minute, 2, Forever)
	gaps := []Gap{{From: 30 * minute, To: 40 * minute}}
	const now, width = 110 * minute, 110 * minute
	// 40 minutes at 5 and 60 at 2 are known: 3.2 on average.
	for _, c := range []struct {
		name string
		ask  func() (float64, bool)
		want answer
	}{
		{"stddev", func() (float64, bool) { return s.Stddev(now, width, gaps) }, answer{math.Sqrt(0.4*1.8*1.8 + 0.6*1.2*1.2), true}},
		{"sum", func() (float64, bool) { return s.Sum(now, width, gaps) }, answer{3.2 * 6600, true}},
		{"count", func() (float64, bool) { return s.Count(now, width, gaps) }, answer{6000, true}},
		{"quantile", func() (float64, bool) { return s.Quantile(0.6, now, width, gaps) }, answer{2, true}},
		{"the next", func() (float64, bool) { return s.Quantile(0.601, now, width, gaps) }, answer{5, true}},
		{"too much of it", func() (float64, bool) { return s.Stddev(now, 79*minute, gaps) }, answer{}},
		{"no seconds to count", func() (float64, bool) { return s.Count(now, 79*minute, gaps) }, answer{}},
		{"no line", func() (float64, bool) { return s.Deriv(now, 79*minute, gaps) }, answer{}},
		{"no changes", func() (float64, bool) { return exact(s.Changes(now, 79*minute, gaps)) }, answer{}},
	} {
		if diff := cmp.Diff(c.want, gives(c.ask()), near); diff != "" {
			t.Errorf("%s: %s", c.name, diff)
		}
	}
}

func TestAValueCeasesToHold(t *testing.T) {
	s := polled(1, 7)
	for now, want := range map[int64]int64{poll: poll, 59 * second: 59 * second, poll + hold: poll + hold, 10 * minute: poll + hold} {
		if got, ok := s.Ceased(now); got != want || !ok {
			t.Errorf("at %d s it ceased at %d ms, %v; want %d", now/second, got, ok, want)
		}
	}
	s.SetUnknown(40 * second)
	if got, ok := s.Ceased(minute); got != 40*second || !ok {
		t.Errorf("one that was left out ceased at %d ms, %v; want %d", got, ok, 40*second)
	}
	if at, ok := new(Series).Ceased(minute); ok {
		t.Errorf("one that never was ceased at %d ms", at)
	}
}
