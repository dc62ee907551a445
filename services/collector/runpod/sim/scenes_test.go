package sim

import (
	"testing"
	"time"
)

// TestTheDemoLastsLongEnoughForTheDefaultRules samples the demo every 15 s, as a
// monitor would, for three rounds.
func TestTheDemoLastsLongEnoughForTheDefaultRules(t *testing.T) {
	t.Parallel()
	timing := DefaultDemoTiming()
	s := frozen(t, DemoScenarioAt(timing))
	const sample = 15 * time.Second
	// holds counts how long a condition held without a break in this round.
	holds := map[string]time.Duration{}
	longest := map[string]time.Duration{}
	check := func(name string, ok bool) {
		if !ok {
			holds[name] = 0
			return
		}
		holds[name] += sample
		longest[name] = max(longest[name], holds[name])
	}
	for round := range 3 {
		clear(holds)
		clear(longest)
		for s.Elapsed() < time.Duration(round+1)*timing.Repeat {
			s.Advance(sample)
			crash, _ := s.Counts(DemoCrashLoop)
			none, _ := s.Counts(DemoNoCapacity)
			off, _ := s.Counts(DemoDisabled)
			_, down := s.account.active(s.Elapsed(), apiOutage)
			_, revoked := s.account.active(s.Elapsed(), revokeKey)
			check("crash loop", crash.Unhealthy > 0 && crash.InQueue > 0 && crash.Running == 0)
			check("no capacity", none.InQueue > 0 && none.Running+none.Initializing+none.Unhealthy == 0 && none.Throttled > 0)
			check("disabled", off.MaxWorkers == 0 && off.InQueue > 0)
			check("down", down)
			check("revoked", revoked)
			check("well", !down && !revoked && crash.Unhealthy+none.Throttled == 0 && off.MaxWorkers == 5 &&
				crash.InQueue+none.InQueue+off.InQueue < 10)
		}
		for name, least := range map[string]time.Duration{
			"crash loop": 6 * time.Minute, "no capacity": 7 * time.Minute, "disabled": 2 * time.Minute,
			"down": 4 * time.Minute, "revoked": 3 * time.Minute,
			"well": 12 * time.Minute, // for the last alerts to resolve
		} {
			if longest[name] < least {
				t.Errorf("round %d: %s held for %v, want at least %v", round, name, longest[name], least)
			}
		}
	}
}

// TestNothingIsWrongInTheQuietNight watches every endpoint for 12 hours, every
// 15 s, for what the default rules page about.
func TestNothingIsWrongInTheQuietNight(t *testing.T) {
	t.Parallel()
	scenario := QuietNight()
	s := frozen(t, scenario)
	if len(scenario.Endpoints) != 60 {
		t.Errorf("%d endpoints, want 60", len(scenario.Endpoints))
	}
	const sample = 15 * time.Second
	stuck, failed := map[string]time.Duration{}, map[string]int{}
	deepest, burstsSeen := 0, false
	for s.Elapsed() < 12*time.Hour {
		s.Advance(sample)
		for _, spec := range scenario.Endpoints {
			c, ok := s.Counts(spec.ID)
			if !ok {
				continue
			}
			if c.Unhealthy > 0 || c.MaxWorkers == 0 {
				t.Fatalf("%s at %v: %+v", spec.ID, s.Elapsed(), c)
			}
			if stuck[spec.ID] += sample; c.InQueue == 0 || c.Running > 0 {
				stuck[spec.ID] = 0
			}
			if stuck[spec.ID] > 2*time.Minute {
				t.Fatalf("%s at %v: nobody works for %v: %+v", spec.ID, s.Elapsed(), stuck[spec.ID], c)
			}
			failed[spec.ID] = c.Failed - spec.Failed
			deepest = max(deepest, c.InQueue)
			burstsSeen = burstsSeen || spec.Burst.Every > 0 && c.InQueue > 0 && c.Running == 0
		}
	}
	for id, n := range failed {
		if n > 30 { // of more than 3,000 jobs
			t.Errorf("%s: %d jobs failed", id, n)
		}
	}
	if deepest < 9_900 || !burstsSeen {
		t.Errorf("nothing looked wrong either: deepest queue %d, bursts from zero %v", deepest, burstsSeen)
	}
}
