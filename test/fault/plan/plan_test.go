package plan_test

import (
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/tocsin-dev/tocsin/test/fault/plan"
)

// many plans hold everything that can be drawn.
const many = 400

// plans are drawn ones, and all scenes.
func plans() []plan.Plan {
	var all []plan.Plan
	for seed := range uint64(many) {
		all = append(all, plan.Draw(seed))
	}
	for _, s := range plan.Scenes {
		for seed := range uint64(20) {
			all = append(all, plan.Play(seed, s))
		}
	}
	return all
}

func TestASeedIsAPlan(t *testing.T) {
	for _, s := range plan.Scenes {
		if diff := cmp.Diff(plan.Play(7, s), plan.Play(7, s)); diff != "" {
			t.Errorf("scene %s played twice differs:\n%s", s, diff)
		}
	}
	if diff := cmp.Diff(plan.Draw(7), plan.Draw(7)); diff != "" {
		t.Errorf("a seed drawn twice differs:\n%s", diff)
	}
	if cmp.Equal(plan.Draw(7).Faults, plan.Draw(8).Faults) {
		t.Error("two seeds draw the same faults")
	}
}

func TestNoTwoFaultsBefallTheSameAtATime(t *testing.T) {
	for _, p := range plans() {
		for i, f := range p.Faults {
			for _, o := range p.Faults[i+1:] {
				if o.Who == f.Who && o.At <= f.End() {
					t.Errorf("%v:\n%v begins within\n%v", p, o, f)
				}
			}
		}
	}
}

// TestEverythingBreaks finds all kinds of faults, on all that they can befall.
func TestEverythingBreaks(t *testing.T) {
	seen := map[plan.Kind][]string{}
	lost := map[plan.Kind][]string{}
	aways, scenes := 0, map[plan.Scene]bool{}
	for seed := range uint64(many) {
		p := plan.Draw(seed)
		scenes[p.Scene] = true
		for _, f := range p.Faults {
			seen[f.Kind] = append(seen[f.Kind], f.Who)
			lost[f.Kind] = append(lost[f.Kind], f.Part)
			if f.End() > plan.Length {
				aways++
			}
		}
	}
	processes := append([]string{plan.NATS, plan.Redis}, plan.Services...)
	receivers := []string{plan.Moody, plan.Grouped}
	for kind, who := range map[plan.Kind][]string{
		plan.Kill: processes, plan.Pause: processes, plan.Flush: {plan.Redis},
		plan.Cut: plan.Links, plan.Mute: plan.Links, plan.Flap: plan.Links, plan.Stall: plan.Links,
		plan.Fail: append(receivers, plan.RunPod), plan.Hang: append(receivers, plan.RunPod),
		plan.Throttle: receivers, plan.Drop: plan.Receivers, plan.Late: plan.Receivers,
		plan.Clock: append([]string{plan.NATS}, plan.Services...), plan.Wipe: {plan.NATS}, plan.Rollback: {plan.NATS},
	} {
		for _, w := range who {
			if !slices.Contains(seen[kind], w) {
				t.Errorf("of %d plans none has a %s of %s", many, kind, w)
			}
		}
		delete(seen, kind)
	}
	for kind := range seen {
		t.Errorf("nobody expects a %s", kind)
	}
	for _, kind := range []plan.Kind{plan.Wipe, plan.Rollback} {
		for _, part := range []string{"", plan.Events} {
			if !slices.Contains(lost[kind], part) {
				t.Errorf("of %d plans none has a %s of the part %q", many, kind, part)
			}
		}
	}
	if aways == 0 {
		t.Errorf("of %d plans none has a receiver that is away for long", many)
	}
	for _, s := range plan.Scenes {
		if s != plan.Log && !scenes[s] {
			t.Errorf("of %d plans none has the scene %s", many, s)
		}
	}
}
