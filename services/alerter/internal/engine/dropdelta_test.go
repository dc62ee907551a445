package engine

import "testing"

func TestWhatIsDroppedIsNotInTheNextDeltaAndWhatFollowsIs(t *testing.T) {
	program := compile(t, "groups: [{name: g, rules: [{alert: A, on: endpoint, expr: jobs.in_queue > 1}]}]")
	w := newWorld(1, program)
	p := NewPartition(0, "log", 1)
	step := func(n int) {
		for range n {
			if _, err := p.Step(w.next(), known(program)); err != nil {
				t.Fatal(err)
			}
		}
	}
	step(300)
	if p.TargetCount() == 0 || len(p.dirty.targets) == 0 || len(p.dirty.alerts) == 0 {
		t.Fatal("nothing happened")
	}
	p.DropDelta()
	if d := p.Delta(); len(d.Targets) != 0 || len(d.Active) != 0 {
		t.Errorf("after it was dropped: %v", d)
	}
	step(300)
	if d := p.Delta(); len(d.Targets) == 0 || len(d.Active) == 0 {
		t.Error("what happened later is not told")
	}
}
