package own

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

// owned gives the partitions from to below to, to a replica.
func owned(owners map[int]string, replica string, from, to int) map[int]string {
	owners = maps.Clone(owners)
	if owners == nil {
		owners = map[int]string{}
	}
	for p := from; p < to; p++ {
		owners[p] = replica
	}
	return owners
}

func TestPlan(t *testing.T) {
	for name, c := range map[string]struct {
		view         View
		claims       int
		release      []int
		neverClaimed []int
	}{
		"a lone replica claims all": {
			view:   View{Self: "a", Partitions: 64},
			claims: 64,
		},
		"the second of two claims half": {
			view:   View{Self: "b", Replicas: []string{"a", "b"}, Partitions: 64},
			claims: 32,
		},
		"what others own is not claimed": {
			view:   View{Self: "b", Replicas: []string{"a", "b"}, Partitions: 64, Owners: owned(nil, "a", 0, 50)},
			claims: 14,
		},
		"what is above the share is released": {
			view:    View{Self: "a", Replicas: []string{"a", "b"}, Partitions: 6, Owners: owned(nil, "a", 0, 6)},
			release: []int{3, 4, 5},
		},
		"the first by name own one more when it does not come out even": {
			view:    View{Self: "a", Replicas: []string{"a", "b", "c"}, Partitions: 7, Owners: owned(nil, "a", 0, 4)},
			release: []int{3},
		},
		"the last by name own one less": {
			view:   View{Self: "c", Replicas: []string{"a", "b", "c"}, Partitions: 7},
			claims: 2,
		},
		"the partitions of a dead replica are shared by those that live": {
			view:   View{Self: "a", Replicas: []string{"a"}, Partitions: 6, Owners: owned(nil, "a", 0, 3)},
			claims: 3,
		},
		"a partition that was given back is left alone": {
			view:         View{Self: "a", Partitions: 4, Barred: map[int]bool{2: true}},
			claims:       3,
			neverClaimed: []int{2},
		},
		"what nobody owned for long is claimed above the share": {
			view: View{
				Self: "a", Replicas: []string{"a", "b"}, Partitions: 6, Owners: owned(owned(nil, "a", 0, 3), "b", 3, 5),
				Overdue: map[int]bool{5: true},
			},
			claims: 1,
		},
		"what was rescued is released last": {
			view: View{
				Self: "a", Replicas: []string{"a", "b"}, Partitions: 6, Owners: owned(owned(nil, "b", 0, 2), "a", 2, 6),
				Rescued: map[int]bool{5: true},
			},
			release: []int{4},
		},
		"what is overdue and was given back is left alone": {
			view: View{
				Self: "a", Partitions: 4, Barred: map[int]bool{2: true}, Overdue: map[int]bool{2: true},
			},
			claims:       3,
			neverClaimed: []int{2},
		},
	} {
		t.Run(name, func(t *testing.T) {
			claim, release := Plan(c.view)
			if len(claim) != c.claims {
				t.Errorf("claims %v, want %d of them", claim, c.claims)
			}
			for _, p := range claim {
				if c.view.Owners[p] != "" || slices.Contains(c.neverClaimed, p) {
					t.Errorf("claims partition %d", p)
				}
			}
			if diff := cmp.Diff(c.release, release, cmpopts.EquateEmpty()); diff != "" {
				t.Errorf("release (-want +got):\n%s", diff)
			}
		})
	}
}

// TestPlanSettles plays replicas that come and go at random, acting one after
// the other, and looks whether the shares become even and stay so.
func TestPlanSettles(t *testing.T) {
	for seed := range uint64(50) {
		r := rand.New(rand.NewPCG(seed, 1))
		owners := map[int]string{}
		for change := range 10 {
			alive := make([]string, 1+r.IntN(5))
			for i := range alive {
				alive[i] = fmt.Sprint("replica", r.IntN(3)*10+i)
			}
			maps.DeleteFunc(owners, func(_ int, o string) bool { return !slices.Contains(alive, o) })
			moves := 0
			for round := range 4 {
				moves = 0
				for _, self := range alive {
					claim, release := Plan(View{Self: self, Replicas: alive, Partitions: 64, Owners: owners})
					for _, p := range release {
						delete(owners, p)
					}
					for _, p := range claim {
						owners[p] = self
					}
					moves += len(claim) + len(release)
				}
				if round == 0 && change == 0 && moves == 0 {
					t.Fatal("nobody did anything")
				}
			}
			if moves != 0 {
				t.Fatalf("seed %d: still %d moves after four rounds", seed, moves)
			}
			count := map[string]int{}
			for p := range 64 {
				if owners[p] == "" {
					t.Fatalf("seed %d: nobody owns partition %d", seed, p)
				}
				count[owners[p]]++
			}
			for _, self := range alive {
				if n := count[self]; n < 64/len(alive) || n > 64/len(alive)+1 {
					t.Errorf("seed %d: %s owns %d of 64 among %d", seed, self, n, len(alive))
				}
			}
		}
	}
}
