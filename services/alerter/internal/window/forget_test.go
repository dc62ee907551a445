package window_test

import (
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/tocsin-dev/tocsin/services/alerter/internal/window"
)

// TestASeriesIsWhatItsStateSays compares a series that lives on, and forgets as it
// goes, with one that is made anew of its state before each question.
func TestASeriesIsWhatItsStateSays(t *testing.T) {
	for seed := range uint64(20) {
		r := rand.New(rand.NewPCG(seed, 1))
		var s window.Series
		var gaps []window.Gap
		now := int64(10_000)
		for range 120 {
			switch r.IntN(10) {
			case 0:
				s.SetUnknown(now)
			case 1:
				s.AddAt(now-r.Int64N(5000), 1)
			case 2, 3:
				s.Prune(now - r.Int64N(9000))
			case 4:
				gaps = append(gaps, window.Gap{From: now, To: now + 500})
				now += 500
			default:
				s.Set(now, float64(r.IntN(4)), now+r.Int64N(3000))
			}
			now += r.Int64N(1200)
			st := s.State()
			st.Steps = slices.Clone(st.Steps)
			anew := window.Restore(st)
			if s.Empty() {
				continue
			}
			at, width := now-r.Int64N(500), 1+r.Int64N(8000)
			if diff := cmp.Diff(answers(&anew, at, width, gaps), answers(&s, at, width, gaps)); diff != "" {
				t.Fatalf("seed %d, %v at %d over %d: %s", seed, st, at, width, diff)
			}
		}
	}
}

// answer is what a function gives.
type answer struct {
	Value any
	Known bool
}

// answers asks a series everything.
func answers(s *window.Series, at, width int64, gaps []window.Gap) map[string]answer {
	all := map[string]answer{}
	number := func(name string) func(float64, bool) {
		return func(v float64, ok bool) { all[name] = answer{v, ok} }
	}
	rise := func(name string) func(window.Rise, bool) {
		return func(v window.Rise, ok bool) { all[name] = answer{v, ok} }
	}
	number("now")(s.Now(at))
	number("at")(s.At(at-width, at))
	number("min")(s.Min(at, width, gaps))
	number("max")(s.Max(at, width, gaps))
	number("avg")(s.Avg(at, width, gaps))
	number("last")(s.Last(at, width))
	number("delta")(s.Delta(at, width))
	number("count")(s.Count(at, width, gaps))
	number("count_true")(s.CountTrue(at, width, 1+width/7, gaps))
	number("quantile")(s.Quantile(0.5, at, width, gaps))
	rise("increase")(s.Increase(at, width))
	rise("changes")(s.Changes(at, width, gaps))
	ceased, ok := s.Ceased(at)
	all["ceased"] = answer{ceased, ok}
	all["points"] = answer{s.Points(at, width, 20), true}
	return all
}
