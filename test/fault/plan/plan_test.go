package plan_test

import (
	"testing"

	"github.com/tocsin-dev/tocsin/test/fault/plan"
)

func TestList(t *testing.T) {
	for seed := uint64(1); seed < 60; seed++ {
		p := plan.Draw(seed)
		if p.Lossy() {
			t.Log(p)
		}
	}
}
