package window

import (
	"math/rand/v2"
	"testing"
)

func TestWhatIsUsualAtAnHour(t *testing.T) {
	// hours of some days: the value of hour h of day d is 10*h + 1 but on the last
	// days before now, which the cases change.
	for _, c := range []struct {
		name           string
		days, known    int
		odd            map[int]float64 // by days ago
		missing        map[int]bool
		median, spread float64
		ok             bool
	}{
		{name: "the same every day", days: 7, known: 7, median: 31, ok: true},
		{name: "one odd day moves nothing", days: 7, known: 7, odd: map[int]float64{2: 5000}, median: 31, ok: true},
		{name: "the distances of the days", days: 5, known: 5, odd: map[int]float64{1: 27, 2: 29, 3: 33, 4: 35}, median: 31, spread: ofNormal * 2, ok: true},
		{name: "an even number of days", days: 4, known: 4, odd: map[int]float64{1: 33, 2: 33}, median: 32, spread: ofNormal * 1, ok: true},
		{name: "two days are not enough", days: 7, known: 2},
		{name: "three are", days: 7, known: 3, median: 31, ok: true},
		{name: "all of two", days: 2, known: 2, median: 31, ok: true},
		{name: "one of two", days: 2, known: 1},
		{name: "days that nobody saw do not count", days: 7, known: 7, missing: map[int]bool{1: true, 3: true, 5: true, 6: true}, odd: map[int]float64{2: 41}, median: 31, ok: true},
		{name: "no more days than are asked for", days: 3, known: 7, odd: map[int]float64{4: 99, 5: 99, 6: 99, 7: 99}, median: 31, ok: true},
	} {
		t.Run(c.name, func(t *testing.T) {
			var s Series
			now := 8*Day + 3*Hour + 17*60*1000
			for at := now - now%Hour - int64(c.known)*Day; at < now-now%Hour; at += Hour {
				ago := int((now - now%Hour - at) / Day)
				value, odd := c.odd[ago]
				if !odd || at%Day != 3*Hour {
					value = float64(10*(at%Day/Hour) + 1)
				}
				s.Summarise(at, at+Hour, value, !c.missing[ago] || at%Day != 3*Hour)
			}
			median, spread, ok := s.Usual(now, c.days)
			if median != c.median || spread != c.spread || ok != c.ok {
				t.Errorf("%v, %v, %v; want %v, %v, %v", median, spread, ok, c.median, c.spread, c.ok)
			}
			again := Restore(s.State())
			if m, sp, known := again.Usual(now, c.days); m != median || sp != spread || known != ok {
				t.Errorf("%v, %v, %v after a restart", m, sp, known)
			}
		})
	}
}

func TestHoursThatWerePassedOverHaveNoValue(t *testing.T) {
	var s Series
	s.Summarise(0, Hour, 5, true)
	s.Summarise(Hour, 2*Hour, 0, false)
	s.Summarise(4*Hour, 5*Hour, 5, true)
	s.Summarise(5*Hour, 6*Hour, 5, true)
	for hour, want := range []bool{true, false, false, false, true, true, false} {
		if _, known := s.At(int64(hour)*Hour+Hour/2, 9*Hour); known != want {
			t.Errorf("hour %d is known: %v", hour, known)
		}
	}
	if to, any := s.SummarisedTo(); to != 6*Hour || !any {
		t.Errorf("summed up to %d, %v", to, any)
	}
}

// TestACoarseCourseIsOffByAGrain compares windows over a counter of which each grain
// keeps two steps with those over the counter itself.
func TestACoarseCourseIsOffByAGrain(t *testing.T) {
	const grain, width = 15 * 60 * 1000, Day
	r := rand.New(rand.NewPCG(7, 7))
	var fine, thin Series
	value, most := 0.0, 0.0 // most is the largest growth in a grain
	var inGrain []float64
	for at := int64(0); at < 3*Day; at += 10_000 {
		if n := int(at / grain); n == len(inGrain) {
			inGrain = append(inGrain, value)
		}
		if r.IntN(500) == 0 {
			fine.push(Step{Start: at}) // beyond its bound, to compare with
			thin.SetUnknown(at)
			at += r.Int64N(4 * Hour)
			continue
		}
		value += float64(r.IntN(4))
		fine.push(Step{at, value, true})
		fine.until = Forever
		if dropped := thin.Set(at, value, Forever); dropped > 0 {
			t.Fatalf("%d steps were dropped", dropped)
		}
		thin.Thin(grain, 7*grain/3)
		thin.Prune(at - width)
		if alike := thin.Clone(); alike.lastStart != thin.lastStart || alike.lastValue != thin.lastValue {
			t.Fatalf("%+v is not %+v", alike, thin)
		}
	}
	for i := 1; i < len(inGrain); i++ {
		most = max(most, inGrain[i]-inGrain[i-1])
	}
	now := thin.lastStart
	for _, w := range []int64{6 * Hour, 12 * Hour, Day} {
		want, _ := fine.Increase(now, w)
		got, ok := thin.Increase(now, w)
		if off := got.Least + got.Slack - want.Least - want.Slack; !ok || off < -most || off > most {
			t.Errorf("%d ms: %+v, %v; want %+v, off by at most %v", w, got, ok, want, most)
		}
	}
	if n := len(thin.steps()); n > 2*int(width/grain+1)+3*60 {
		t.Errorf("%d steps are kept", n)
	}
}
