package pack

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/tocsin-dev/tocsin/services/alerter/ruletest"
	"github.com/tocsin-dev/tocsin/services/collector/runpod/sim"
)

// accountRules are on the account, and say that nothing else can be known.
var accountRules = []string{"RunPodAPIDown", "RunPodAPIDownLong", "RunPodKeyRejected"}

// told writes transitions as a test compares them: in whole minutes.
func told(lines []line, keep func(line) bool) []string {
	var all []string
	for _, l := range lines {
		if keep(l) {
			all = append(all, fmt.Sprintf("%s %s %s at %.0fm", l.rule, l.what, l.on, l.at.Minutes()))
		}
	}
	slices.Sort(all)
	return all
}

// plays watches a scenario for a while and returns what was told.
func plays(t *testing.T, s sim.Scenario, d time.Duration) []line {
	t.Helper()
	h := ruletest.New(t, pack(t))
	w := newWatch(t, s, h)
	w.pass(d)
	lines := w.lines(h)
	for _, l := range lines {
		t.Log(l)
	}
	return lines
}

// firing says whether an alert of a rule on a target fires at an instant.
func firing(lines []line, rule, on string, at time.Duration) bool {
	fires := false
	for _, l := range lines {
		if l.rule == rule && l.on == on && l.at <= at {
			fires = l.what != "resolved"
		}
	}
	return fires
}

func TestScene1TheSameSymptomHasTwoCauses(t *testing.T) {
	t.Parallel()
	lines := plays(t, sim.DemoScenario(), 18*time.Minute)
	got := told(lines, func(l line) bool {
		return slices.Contains([]string{"CrashLoop", "NoCapacity", "EndpointDisabled"}, l.rule)
	})
	want := []string{
		"CrashLoop firing " + sim.DemoCrashLoop + " at 6m",
		"CrashLoop resolved " + sim.DemoCrashLoop + " at 15m",
		"EndpointDisabled firing " + sim.DemoDisabled + " at 3m",
		"EndpointDisabled resolved " + sim.DemoDisabled + " at 15m",
		"NoCapacity firing " + sim.DemoNoCapacity + " at 6m",
		"NoCapacity resolved " + sim.DemoNoCapacity + " at 15m",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("what was told (-want +got):\n%s", diff)
	}
	diagnosed(t, lines, "CrashLoop", sim.DemoCrashLoop, "crash_loop")
	diagnosed(t, lines, "NoCapacity", sim.DemoNoCapacity, "no_capacity")
	diagnosed(t, lines, "EndpointDisabled", sim.DemoDisabled, "disabled")
	// One message each: whatever else a troubled endpoint shows comes while its
	// cause fires, at least 2 minutes later, and is inhibited by it.
	causes := map[string]string{
		sim.DemoCrashLoop: "CrashLoop", sim.DemoNoCapacity: "NoCapacity", sim.DemoDisabled: "EndpointDisabled",
	}
	for _, l := range lines {
		cause, troubled := causes[l.on]
		switch {
		case l.what != "firing" || l.rule == cause || l.rule == "WorkersMaxReduced":
		case !troubled:
			t.Errorf("something is told of a target that is well: %s", l)
		case !firing(lines, cause, l.on, l.at-2*time.Minute):
			t.Errorf("a symptom is told before its cause: %s", l)
		}
	}
	// And nothing outlasts its cause, or it would be told then.
	for _, end := range lines {
		if end.what != "resolved" || end.rule != causes[end.on] {
			continue
		}
		for _, l := range lines {
			if l.on == end.on && l.rule != end.rule && firing(lines, l.rule, l.on, end.at) {
				t.Errorf("when %s resolves, %s still fires", end.rule, l.rule)
			}
		}
	}
}

func TestScene3RunPodIsDownAndThenTheKeyIsRevoked(t *testing.T) {
	t.Parallel()
	// The endpoints stay in trouble all along, so that their alerts fire on.
	const outage, revoked, back = 15 * time.Minute, 35 * time.Minute, 45 * time.Minute
	lines := plays(t, sim.DemoScenarioAt(sim.DemoTiming{
		Trouble: 90 * time.Minute, OutageAt: outage, Outage: revoked - outage, Revoked: back - revoked, Repeat: 6 * time.Hour,
	}), 80*time.Minute)

	got := told(lines, func(l line) bool { return slices.Contains(accountRules, l.rule) })
	want := []string{
		"RunPodAPIDown firing default at 18m",
		"RunPodAPIDown resolved default at 41m",
		"RunPodAPIDownLong firing default at 30m",
		"RunPodAPIDownLong resolved default at 41m",
		"RunPodKeyRejected firing default at 37m",
		"RunPodKeyRejected resolved default at 50m",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("what was told of the account (-want +got):\n%s", diff)
	}
	diagnosed(t, lines, "RunPodAPIDown", "default", "runpod_down")
	diagnosed(t, lines, "RunPodKeyRejected", "default", "key_rejected")
	for _, l := range lines {
		switch {
		case l.at < outage || l.at >= back+step || slices.Contains(accountRules, l.rule):
		case l.rule != "NoData":
			t.Errorf("nothing is known, and yet: %s", l)
		case !slices.ContainsFunc(accountRules, func(rule string) bool { return firing(lines, rule, "default", l.at) }):
			t.Errorf("nothing inhibits this: %s", l)
		}
	}
	for rule, on := range map[string]string{
		"CrashLoop": sim.DemoCrashLoop, "NoCapacity": sim.DemoNoCapacity, "EndpointDisabled": sim.DemoDisabled,
	} {
		for at := outage; at < 80*time.Minute; at += time.Minute {
			if !firing(lines, rule, on, at) {
				t.Errorf("%s does not fire on at %s", rule, at)
				break
			}
		}
	}
}

func TestScene3AMissingScopeIsNoRejectedKeyAndNoOutage(t *testing.T) {
	t.Parallel()
	quiet := sim.DemoScenario()
	quiet.Events = []sim.Event{{At: 10 * time.Minute, Effect: sim.DropScope(sim.ScopePods, 30*time.Minute)}}
	quiet.Repeat = 0
	lines := plays(t, quiet, time.Hour)
	diagnosed(t, lines, "RunPodKeyLacksScope", "default", "scope_missing")
	got := told(lines, func(l line) bool { return l.level != "info" })
	want := []string{"RunPodKeyLacksScope firing default at 14m", "RunPodKeyLacksScope resolved default at 46m"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("what was told (-want +got):\n%s", diff)
	}
}

func TestScene5MoneyAndTrust(t *testing.T) {
	t.Parallel()
	// The outages of the demo would leave less than nine tenths of 2 hours known.
	lines := plays(t, sim.DemoScenarioAt(sim.DemoTiming{
		Trouble: 10 * time.Minute, OutageAt: 3 * time.Hour, Outage: time.Minute, Revoked: time.Minute, Repeat: 6 * time.Hour,
	}), 2*time.Hour)
	for _, want := range []struct {
		rule, on, text string
		after, before  time.Duration
	}{
		{"WorkersMaxReduced", sim.DemoDisabled, "max workers of voice-prod-tts fell to 0", 2 * time.Minute, 2 * time.Minute},
		{"EndpointDisabled", sim.DemoDisabled, "max workers 0 and 1 queued jobs", 3 * time.Minute, 4 * time.Minute},
		{"LowGPUUtilization", sim.DemoIdlePod, "pod research-dev-notebook has idled for 2 hours at $2.49 an hour", 108 * time.Minute, 109 * time.Minute},
	} {
		i := slices.IndexFunc(lines, func(l line) bool { return l.rule == want.rule && l.on == want.on && l.what == "firing" })
		if i < 0 {
			t.Errorf("%s is not told", want.rule)
			continue
		}
		if l := lines[i]; l.at < want.after || l.at > want.before || !strings.Contains(l.text, want.text) {
			t.Errorf("told: %s\nwant %q between %s and %s", l, want.text, want.after, want.before)
		}
	}
	diagnosed(t, lines, "LowGPUUtilization", sim.DemoIdlePod, "gpu_idle")
	diagnosed(t, lines, "EndpointDisabled", sim.DemoDisabled, "disabled")
	for _, l := range lines {
		if l.rule == "LowGPUUtilization" && l.on != sim.DemoIdlePod {
			t.Errorf("a pod that works is called idle: %s", l)
		}
	}
}

func TestTheDemoPlaysTheSameScenesInEachRound(t *testing.T) {
	t.Parallel()
	round := sim.DefaultDemoTiming().Repeat
	lines := plays(t, sim.DemoScenario(), 3*round)
	for n := range 3 {
		for _, rule := range []string{"CrashLoop", "NoCapacity", "EndpointDisabled", "WorkersMaxReduced", "RunPodAPIDown", "RunPodKeyRejected"} {
			fired, resolved := 0, 0
			for _, l := range lines {
				if l.rule != rule || l.at < time.Duration(n)*round || l.at >= time.Duration(n+1)*round {
					continue
				}
				if l.what == "firing" {
					fired++
				} else {
					resolved++
				}
			}
			if fired != 1 || resolved != 1 {
				t.Errorf("round %d: %s fired %d times and resolved %d times, want once each", n, rule, fired, resolved)
			}
		}
	}
}
