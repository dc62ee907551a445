package cause

import (
	"testing"

	alertv1 "github.com/tocsin-dev/tocsin/proto/gen/tocsin/alert/v1"
)

func TestCompare(t *testing.T) {
	ordered := []*alertv1.Cause{
		nil,
		{LogId: "2026-01", Sequence: 5, Index: 0},
		{LogId: "2026-01", Sequence: 5, Index: 1},
		{LogId: "2026-01", Sequence: 900},
		{LogId: "2026-02", Sequence: 1},
	}
	for i, a := range ordered {
		for j, b := range ordered {
			if got, want := Compare(a, b), i-j; got*want < 0 || (got == 0) != (want == 0) {
				t.Errorf("Compare(%v, %v) = %d", a, b, got)
			}
		}
	}
}
