package window

import (
	"math/rand/v2"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const (
	second = int64(1000)
	minute = 60 * second
	poll   = 15 * second
	hold   = 3 * poll
)

// polled records values that a source had at polls 15 s apart, from time 0 on;
// a nil is a poll that did not come.
func polled(values ...any) *Series {
	s := new(Series)
	for i, v := range values {
		if n, ok := v.(int); ok {
			at := int64(i) * poll
			s.Set(at, float64(n), at+hold)
		}
	}
	return s
}

func repeat(n int, values ...any) []any {
	var all []any
	for range n {
		all = append(all, values...)
	}
	return all
}

// answer is what a function gives: a number or nothing.
type answer struct {
	Value float64
	OK    bool
}

func gives(v float64, ok bool) answer {
	if !ok {
		v = 0 // the number means nothing then
	}
	return answer{v, ok}
}

// exact gives a rise that has no slack.
func exact(r Rise, ok bool) (float64, bool) { return r.Least, ok && r.Slack == 0 }

func TestFunctionsOverWindows(t *testing.T) {
	none := answer{}
	for _, c := range []struct {
		name string
		s    *Series
		ask  func(*Series) (float64, bool)
		want answer
	}{
		{"nothing of an empty series", new(Series), func(s *Series) (float64, bool) { return s.Max(0, minute, nil) }, none},
		{"the value holds until the next", polled(5), func(s *Series) (float64, bool) { return s.Now(14 * second) }, answer{5, true}},
		{"and for three intervals at most", polled(5), func(s *Series) (float64, bool) { return s.Now(hold) }, answer{5, true}},
		{"then it is unknown", polled(5), func(s *Series) (float64, bool) { return s.Now(hold + 1) }, none},
		{"min of a covered window", polled(repeat(5, 5)...), func(s *Series) (float64, bool) { return s.Min(minute, minute, nil) }, answer{5, true}},
		{"a window that is not yet covered has no min", polled(repeat(4, 5)...), func(s *Series) (float64, bool) { return s.Min(45*second, minute, nil) }, none},
		{"nine tenths are enough", polled(repeat(4, 5)...), func(s *Series) (float64, bool) { return s.Min(54*second, minute, nil) }, answer{5, true}},
		{"a value that begins now counts for min", polled(5, 5, 5, 5, 0), func(s *Series) (float64, bool) { return s.Min(minute, minute, nil) }, answer{0, true}},
		{"and for max", polled(5, 5, 5, 5, 9), func(s *Series) (float64, bool) { return s.Max(minute, minute, nil) }, answer{9, true}},
		{"a value that ended where the window begins does not", polled(9, 5, 5, 5, 5), func(s *Series) (float64, bool) { return s.Max(75*second, minute, nil) }, answer{5, true}},
		{"the mean is weighted by time", polled(0, 0, 0, 8, 8), func(s *Series) (float64, bool) { return s.Avg(minute, minute, nil) }, answer{2, true}},
		{"a silence is not averaged over", polled(append(repeat(37, 4), nil, nil, nil, nil, 9)...), func(s *Series) (float64, bool) { return s.Avg(41*poll, 41*poll, nil) }, answer{4, true}},
		{"too long a silence leaves no mean", polled(append(repeat(10, 4), append(repeat(10, nil), 4)...)...), func(s *Series) (float64, bool) { return s.Avg(20*poll, 20*poll, nil) }, none},
		{"increase counts from first sight", polled(100, 103), func(s *Series) (float64, bool) { return exact(s.Increase(poll, 10*minute)) }, answer{3, true}},
		{"increase is 0 at first sight", polled(100), func(s *Series) (float64, bool) { return exact(s.Increase(0, 10*minute)) }, answer{0, true}},
		{"increase within the window only", polled(0, 1, 2, 3, 4, 5, 6, 7, 8), func(s *Series) (float64, bool) { return exact(s.Increase(2*minute, minute)) }, answer{4, true}},
		{"increase bridges a silence", polled(append([]any{1, 2}, append(repeat(10, nil), 9)...)...), func(s *Series) (float64, bool) { return exact(s.Increase(12*poll, 10*minute)) }, answer{8, true}},
		{"increase has no value once the source is silent", polled(1, 2), func(s *Series) (float64, bool) { return exact(s.Increase(5*minute, 10*minute)) }, none},
		{"rate is over the part since first sight", polled(0, 0, 60), func(s *Series) (float64, bool) { return exact(s.Rate(2*poll, 10*minute)) }, answer{2, true}},
		{"rate is over the window after that", polled(append(repeat(40, 0), 60)...), func(s *Series) (float64, bool) { return exact(s.Rate(40*poll, minute)) }, answer{1, true}},
		{"no rate at first sight", polled(60), func(s *Series) (float64, bool) { return exact(s.Rate(0, minute)) }, none},
		{"last remembers what no longer holds", polled(1, 7), func(s *Series) (float64, bool) { return s.Last(5*minute, 10*minute) }, answer{7, true}},
		{"within the window", polled(1, 7), func(s *Series) (float64, bool) { return s.Last(20*minute, 10*minute) }, none},
		{"delta needs both ends", polled(repeat(5, 3)...), func(s *Series) (float64, bool) { return s.Delta(minute, 2*minute) }, none},
		{"delta may be negative", polled(9, 9, 9, 9, 2), func(s *Series) (float64, bool) { return s.Delta(minute, minute) }, answer{-7, true}},
		{"first sight is no change", polled(9), func(s *Series) (float64, bool) { return s.Delta(0, minute) }, none},
		{"buckets in which it was true", polled(repeat(10, 1, 0, 0, 0)...), func(s *Series) (float64, bool) { return s.CountTrue(10*minute, 10*minute, minute, nil) }, answer{10, true}},
		{"one long stretch counts in each bucket", polled(append(repeat(20, 0), repeat(21, 1)...)...), func(s *Series) (float64, bool) { return s.CountTrue(10*minute, 10*minute, minute, nil) }, answer{5, true}},
		{"a moment counts once", polled(append(repeat(20, 0), append([]any{1}, repeat(20, 0)...)...)...), func(s *Series) (float64, bool) { return s.CountTrue(10*minute, 10*minute, minute, nil) }, answer{1, true}},
		{"no count of a window that is not covered", polled(repeat(20, 1)...), func(s *Series) (float64, bool) { return s.CountTrue(5*minute, 10*minute, minute, nil) }, none},
	} {
		t.Run(c.name, func(t *testing.T) {
			if diff := cmp.Diff(c.want, gives(c.ask(c.s))); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// asleep is a counter that was polled 41 times, rose by grown while nobody polled
// for d, and then rises by one with each poll. It returns when it was polled again.
func asleep(d int64, grown int) (s *Series, woke int64) {
	s = polled(repeat(41, 100)...)
	woke = 40*poll + d
	for i := range int64(41) {
		at := woke + i*poll
		s.Set(at, float64(100+grown)+float64(i), at+hold)
	}
	return s, woke
}

// TestGrowthThatNobodySawHasNoDate: a night is 8 hours, of which the first 45 s
// are known still.
func TestGrowthThatNobodySawHasNoDate(t *testing.T) {
	const hour = 60 * minute
	for _, c := range []struct {
		name  string
		d     int64 // how long nobody polled
		grown int
		after int64 // the instant asked for, since the first poll after it
		width int64
		want  Rise
	}{
		{"a window that reaches over it has all of it", 8 * hour, 100, 0, 8*hour + minute, Rise{100, 0}},
		{"an hour has its part at most", 8 * hour, 480, 0, hour, Rise{0, 60}},
		{"less of it when time passes", 8 * hour, 480, 10 * minute, hour, Rise{40, 50}},
		{"none when the window begins after it", 8 * hour, 480, 10 * minute, 10 * minute, Rise{40, 0}},
		{"a part below a half is none", 8 * hour, 3, 0, hour, Rise{0, 0}},
		{"what rose before is not in it", 8 * hour, 480, 0, 8*hour - 30*minute, Rise{0, 451}},
		{"where nothing grew everything is known", 8 * hour, 0, 5 * minute, hour, Rise{20, 0}},
		{"a short one is no other", 10 * minute, 40, 5 * minute, 10 * minute, Rise{20, 22}},
		{"two polls that fail are nothing", 45 * second, 3, minute, minute, Rise{4, 0}},
	} {
		t.Run(c.name, func(t *testing.T) {
			s, woke := asleep(c.d, c.grown)
			at := woke + c.after
			got, ok := cut(s, at).Increase(at, c.width)
			if diff := cmp.Diff(c.want, got); diff != "" || !ok {
				t.Errorf("%v %s", ok, diff)
			}
			rate, ok := cut(s, at).Rate(at, c.width)
			covered := float64(min(c.width, at) / second)
			if want := (Rise{c.want.Least / covered, c.want.Slack / covered}); rate != want || !ok {
				t.Errorf("rate %v, %v; want %v", rate, ok, want)
			}
		})
	}
}

// TestWhatHoldsForEverIsNotKnownInAGap: nobody could have told of a change.
func TestWhatHoldsForEverIsNotKnownInAGap(t *testing.T) {
	s := new(Series)
	s.Set(0, 5, Forever)
	s.Set(50*minute, 2, Forever)
	gaps := []Gap{{From: 60 * minute, To: 600 * minute}}
	for _, c := range []struct {
		name string
		ask  func(now, width int64) (float64, bool)
		now  int64
		want answer
	}{
		{"max of a window that it fills", func(now, w int64) (float64, bool) { return s.Max(now, w, gaps) }, 610 * minute, answer{}},
		{"min", func(now, w int64) (float64, bool) { return s.Min(now, w, gaps) }, 610 * minute, answer{}},
		{"mean", func(now, w int64) (float64, bool) { return s.Avg(now, w, gaps) }, 610 * minute, answer{}},
		{"buckets", func(now, w int64) (float64, bool) { return s.CountTrue(now, w, w/4, gaps) }, 610 * minute, answer{}},
		{"until nine tenths are known", func(now, w int64) (float64, bool) { return s.Max(now, w, gaps) }, 654 * minute, answer{2, true}},
		{"before it", func(now, w int64) (float64, bool) { return s.Max(now, w, gaps) }, 60 * minute, answer{5, true}},
		{"a change over it is one", func(now, _ int64) (float64, bool) { return s.Delta(now, 555*minute) }, 604 * minute, answer{-3, true}},
	} {
		t.Run(c.name, func(t *testing.T) {
			if diff := cmp.Diff(c.want, gives(c.ask(c.now, 60*minute))); diff != "" {
				t.Error(diff)
			}
		})
	}
	short := []Gap{{From: 60 * minute, To: 65 * minute}}
	if got := gives(s.Max(90*minute, 60*minute, short)); got != (answer{5, true}) {
		t.Errorf("with a gap of a twelfth of the window the maximum is %v, want 5", got)
	}
}

func TestEqualNeighboursAreOneStep(t *testing.T) {
	s := polled(repeat(100, 4)...)
	s.Set(100*poll, 5, 101*poll)
	if n := len(s.State().Steps); n != 2 {
		t.Errorf("%d steps, want 2", n)
	}
}

func TestTheSourceSaysThatItHasNoValue(t *testing.T) {
	s := polled(4, 4)
	s.SetUnknown(2 * poll)
	if v, ok := s.Now(2 * poll); ok {
		t.Errorf("value %v, want none", v)
	}
	if v, ok := s.At(poll, 2*poll); !ok || v != 4 {
		t.Errorf("value before is %v, %v; want 4", v, ok)
	}
}

func TestLateFactsRaiseTheCourseFromTheirInstantOn(t *testing.T) {
	s := new(Series)
	s.Set(0, 0, Forever)
	s.AddAt(10*minute, 1)
	s.AddAt(4*minute, 1) // late
	s.AddAt(10*minute, 1)
	for _, c := range []struct {
		width int64
		want  float64
	}{{minute, 2}, {7 * minute, 3}, {30 * minute, 3}} {
		if got, ok := exact(s.Increase(11*minute, c.width+minute)); !ok || got != c.want {
			t.Errorf("increase over %d min: %v, %v; want %v", c.width/minute+1, got, ok, c.want)
		}
	}
	s.Prune(9 * minute)
	s.AddAt(minute, 1) // before all that is kept: no window can see it happen
	if got, _ := exact(s.Increase(11*minute, 2*minute)); got != 2 {
		t.Errorf("increase after a fact that is too late: %v, want 2", got)
	}
}

func TestPruneChangesNoAnswerOfTheWindow(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for range 200 {
		whole, pruned := new(Series), new(Series)
		total := 0.0
		for i := range int64(200) {
			at := i * poll
			if r.IntN(4) == 0 {
				continue
			}
			total += float64(r.IntN(3))
			whole.Set(at, total, at+hold)
			pruned.Set(at, total, at+hold)
			pruned.Prune(at - 5*minute)
			for _, f := range functions(at, 5*minute) {
				if a, b := gives(f(whole)), gives(f(pruned)); a != b {
					t.Fatalf("at %d: %v, pruned %v", at, a, b)
				}
			}
		}
	}
}

// functions lists all functions over a window.
func functions(now, width int64) []func(*Series) (float64, bool) {
	return []func(*Series) (float64, bool){
		func(s *Series) (float64, bool) { return s.Min(now, width, nil) },
		func(s *Series) (float64, bool) { return s.Max(now, width, nil) },
		func(s *Series) (float64, bool) { return s.Avg(now, width, nil) },
		func(s *Series) (float64, bool) { r, ok := s.Increase(now, width); return r.Least, ok },
		func(s *Series) (float64, bool) { r, ok := s.Increase(now, width); return r.Slack, ok },
		func(s *Series) (float64, bool) { return s.Last(now, width) },
		func(s *Series) (float64, bool) { return s.Delta(now, width) },
		func(s *Series) (float64, bool) { return s.CountTrue(now, width, width/5, nil) },
		func(s *Series) (float64, bool) { return s.Deriv(now, width, nil) },
		func(s *Series) (float64, bool) { return s.Predict(now, width, width, nil) },
		func(s *Series) (float64, bool) { return s.Sum(now, width, nil) },
		func(s *Series) (float64, bool) { return s.Count(now, width, nil) },
		func(s *Series) (float64, bool) { return s.First(now, width, nil) },
		func(s *Series) (float64, bool) { return s.Stddev(now, width, nil) },
		func(s *Series) (float64, bool) { return s.ZScore(now, width, nil) },
		func(s *Series) (float64, bool) { return s.Quantile(0.3, now, width, nil) },
		func(s *Series) (float64, bool) { r, ok := s.Changes(now, width, nil); return r.Least, ok },
		func(s *Series) (float64, bool) { r, ok := s.Changes(now, width, nil); return r.Slack, ok },
		func(s *Series) (float64, bool) { at, ok := s.Ceased(now); return float64(at), ok },
	}
}

func TestPollingTwiceAsOftenChangesNothing(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	for range 300 {
		slow, fast := new(Series), new(Series)
		value, last := 0.0, int64(300)
		for i := range last {
			at := i * poll
			if r.IntN(5) == 0 {
				value = float64(r.IntN(4))
			}
			slow.Set(at, value, at+hold)
			fast.Set(at, value, at+hold/2)
			fast.Set(at+poll/2, value, at+poll/2+hold/2)
		}
		for range 20 {
			now := r.Int64N(last * poll)
			for i, f := range functions(now, 5*minute) {
				if a, b := gives(f(cut(slow, now))), gives(f(cut(fast, now))); a != b {
					t.Fatalf("function %d at %d: %v, polled twice as often %v", i, now, a, b)
				}
			}
		}
	}
}

// cut returns the series as it was at an instant.
func cut(s *Series, now int64) *Series {
	st := s.State()
	c := State{Until: Forever, First: st.First}
	for _, p := range st.Steps {
		if p.Start <= now {
			c.Steps = append(c.Steps, p)
		}
	}
	restored := Restore(c)
	return &restored
}

func TestASeriesIsBounded(t *testing.T) {
	s := new(Series)
	dropped := 0
	for i := range int64(3 * MaxPoints) {
		dropped += s.Set(i, float64(i), Forever)
	}
	if n := len(s.State().Steps); n != MaxPoints || dropped != 2*MaxPoints {
		t.Errorf("%d steps kept, %d dropped; want %d and %d", n, dropped, MaxPoints, 2*MaxPoints)
	}
}

func TestPointsAreAFewThatShowTheCourse(t *testing.T) {
	s := new(Series)
	for i := range int64(600) {
		s.Set(i*second, float64(i), i*second+3*second)
	}
	points := s.Points(599*second, 10*minute, 60)
	if len(points) > 60 || len(points) < 50 {
		t.Errorf("%d points, want about 60", len(points))
	}
	if newest := points[len(points)-1]; newest.Value != 599 {
		t.Errorf("the newest point is %v", newest)
	}
	few := polled(1, 2)
	want := []Step{{Start: 0, Value: 1, Known: true}, {Start: poll, Value: 2, Known: true}, {Start: poll + hold}}
	if diff := cmp.Diff(want, few.Points(5*minute, 10*minute, 60)); diff != "" {
		t.Errorf("the course shows its end: %s", diff)
	}
}

func TestRestoreGivesTheSameSeries(t *testing.T) {
	s := polled(1, 2, nil, nil, nil, nil, 3)
	again := Restore(s.State())
	if diff := cmp.Diff(s.State(), again.State()); diff != "" {
		t.Error(diff)
	}
}
