package rule

import (
	"math/rand/v2"
	"testing"
)

const second = minute / 60

var eightOfTen = Times{Least: 8, Of: 10, Size: minute}

func TestAConditionMustHaveHeldInEnoughBuckets(t *testing.T) {
	type note struct {
		at    int64
		truth Truth
	}
	every := func(from, to, step int64, truth Truth) (notes []note) {
		for at := from; at < to; at += step {
			notes = append(notes, note{at, truth})
		}
		return notes
	}
	join := func(parts ...[]note) (all []note) {
		for _, p := range parts {
			all = append(all, p...)
		}
		return all
	}
	for _, c := range []struct {
		name  string
		notes []note
		at    int64
		want  Truth
	}{
		{"seven full minutes and a moment", []note{{0, Yes}}, 7 * minute, Yes},
		{"not a moment less", []note{{0, Yes}}, 7*minute - 1, Unknown},
		{"a moment in each minute", join(every(30*second, 10*minute, minute, Yes), every(31*second, 10*minute, minute, No)), 8 * minute, Yes},
		{"seven are not enough", join(every(30*second, 7*minute, minute, Yes), every(31*second, 12*minute, minute, No)), 12 * minute, No},
		{"what is not known may be enough", join(every(30*second, 7*minute, minute, Yes), every(31*second, 12*minute, minute, No)), 8 * minute, Unknown},
		{"a bucket that is nearly over counts", []note{{0, No}, {5*minute - 1, Yes}}, 12 * minute, Yes},
		{"and one that it held until", []note{{0, Yes}, {minute, No}, {3 * minute, Yes}}, 9 * minute, Yes},
		{"but not longer", []note{{0, Yes}, {minute, No}, {3 * minute, Yes}}, 10 * minute, Yes},
		{"it falls out of sight", []note{{0, Yes}, {8 * minute, No}}, 10 * minute, No},
		{"not before", []note{{0, Yes}, {8 * minute, No}}, 10*minute - 1, Yes},
		{"what is missing decides nothing", []note{{0, Yes}, {8 * minute, Unknown}}, 15 * minute, Unknown},
		{"for as long as it is in sight", []note{{0, Yes}, {8 * minute, Unknown}, {9 * minute, No}}, 17 * minute, No},
		{"a moment of not knowing", []note{{0, Yes}, {8 * minute, No}, {8*minute + 1, Unknown}, {8*minute + 2, No}}, 9*minute + 1, Yes},
		{"a long time", []note{{0, Yes}}, 1000 * minute, Yes},
		{"a long time of nothing", []note{{0, No}}, 1000 * minute, No},
	} {
		t.Run(c.name, func(t *testing.T) {
			sorted := c.notes
			for i := range sorted { // the notes of two courses
				for j := i; j > 0 && sorted[j].at < sorted[j-1].at; j-- {
					sorted[j], sorted[j-1] = sorted[j-1], sorted[j]
				}
			}
			y := NewTally(0)
			for _, n := range sorted {
				if n.at <= c.at {
					y = y.Note(n.at, n.truth, eightOfTen)
				}
			}
			if got := y.Note(c.at, y.Truth, eightOfTen).Verdict(eightOfTen); got != c.want {
				t.Errorf("the verdict is %v, want %v; held %b, unknown %b", got, c.want, y.Held, y.Unknown)
			}
		})
	}
}

// TestATallyIsThatOfItsCourse compares with the definition, bucket by bucket, and
// with a tally that was noted more often.
func TestATallyIsThatOfItsCourse(t *testing.T) {
	r := rand.New(rand.NewPCG(5, 6))
	for range 3000 {
		times := Times{Of: 1 + r.IntN(MaxBuckets), Size: 1 + r.Int64N(50)}
		times.Least = 1 + r.IntN(times.Of)
		type step struct {
			at    int64
			truth Truth
		}
		var course []step
		rare, often := NewTally(0), NewTally(0)
		at := int64(0)
		for range 1 + r.IntN(30) {
			truth := Truth(r.IntN(3))
			course = append(course, step{at, truth})
			rare, often = rare.Note(at, truth, times), often.Note(at, truth, times)
			next := at + 1 + r.Int64N(4*times.Size)
			for range r.IntN(3) {
				often = often.Note(at+r.Int64N(next-at), truth, times)
			}
			at = next
		}
		at += r.Int64N(times.Size * int64(times.Of))
		rare, often = rare.Note(at, rare.Truth, times), often.Note(at, often.Truth, times)
		if rare != often {
			t.Fatalf("noted rarely %+v, often %+v", rare, often)
		}
		for i := range int64(times.Of) {
			from := (at/times.Size - i) * times.Size
			to := min(from+times.Size, at+1)
			held, unknown := false, from < 0
			for j, s := range course {
				end := at + 1
				if j+1 < len(course) {
					end = course[j+1].at
				}
				if s.at < to && end > from {
					held, unknown = held || s.truth == Yes, unknown || s.truth == Unknown
				}
			}
			// The first bucket was begun before anything was known.
			unknown = unknown || from == 0
			if got := rare.Held>>i&1 == 1; got != held {
				t.Fatalf("bucket %d: held %v, want %v of %+v", i, got, held, course)
			}
			if got := rare.Unknown>>i&1 == 1; got != unknown {
				t.Fatalf("bucket %d: unknown %v, want %v of %+v", i, got, unknown, course)
			}
		}
	}
}

func TestATallyIsIdleWhenItSaysNothing(t *testing.T) {
	y := NewTally(0).Note(0, Yes, eightOfTen)
	if y.Idle() {
		t.Error("a condition that holds is idle")
	}
	if y = y.Note(minute/2, No, eightOfTen); y.Idle() {
		t.Error("one that held is idle")
	}
	if y = y.Note(10*minute, No, eightOfTen); !y.Idle() || y.Count() != 0 {
		t.Errorf("one that did not hold in sight is not: %+v", y)
	}
}
