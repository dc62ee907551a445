package state_test

import (
	"fmt"
	"testing"

	"github.com/tocsin-dev/tocsin/internal/servertest"
	"github.com/tocsin-dev/tocsin/services/alerter/internal/state"
)

// BenchmarkCommit commits one target of 2 KiB at a time, as a partition does
// whose alert fires, and 500 of them, as one does that catches up.
func BenchmarkCommit(b *testing.B) {
	value := make([]byte, 2<<10)
	for _, targets := range []int{1, 500} {
		b.Run(fmt.Sprintf("%d targets", targets), func(b *testing.B) {
			s := open(b, servertest.Redis(b), nil)
			owner := install(b, s)
			change := state.Change{Position: position(2), Fold: value, Targets: map[string][]byte{}}
			for i := range targets {
				change.Targets[fmt.Sprint("target", i)] = value
			}
			for b.Loop() {
				if err := owner.Commit(b.Context(), change); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
