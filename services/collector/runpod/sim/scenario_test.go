package sim

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// fixed is a clock that stands still; tests move simulated time by Advance.
func fixed() time.Time { return time.Unix(1_800_000_000, 0) }

// frozen returns an account whose time moves by Advance alone.
func frozen(t testing.TB, s Scenario, change ...func(*Options)) *Sim {
	t.Helper()
	opts := Options{Scenario: s, Now: fixed}
	for _, c := range change {
		c(&opts)
	}
	sim, err := New(opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(sim.Close)
	return sim
}

func TestAnEventHoldsFromItsStartToItsEnd(t *testing.T) {
	t.Parallel()
	const m = time.Minute
	for name, test := range map[string]struct {
		event  Event
		repeat time.Duration
		at     time.Duration
		active bool
		next   time.Duration
	}{
		"before it begins":            {Event{At: 2 * m, Effect: Throttle(m)}, 0, m, false, 2 * m},
		"at its start":                {Event{At: 2 * m, Effect: Throttle(m)}, 0, 2 * m, true, 3 * m},
		"at its end":                  {Event{At: 2 * m, Effect: Throttle(m)}, 0, 3 * m, false, never},
		"at its end, when it repeats": {Event{At: 2 * m, Effect: Throttle(m)}, 10 * m, 3 * m, false, 12 * m},
		"in the third round":          {Event{At: 2 * m, Effect: Throttle(m)}, 10 * m, 22*m + 1, true, 23 * m},
		"back to back":                {Event{At: 2 * m, Effect: Throttle(10 * m)}, 10 * m, 12 * m, true, 22 * m},
		"for ever":                    {Event{At: 2 * m, Effect: Throttle(0)}, 10 * m, 50 * m, true, never},
	} {
		_, _, active := test.event.around(test.at, test.repeat)
		if next := test.event.boundary(test.at, test.repeat); active != test.active || next != test.next {
			t.Errorf("%s: active %v, next %v; want %v, %v", name, active, next, test.active, test.next)
		}
	}
}

func TestAScenarioWithMistakesIsRefusedWithAllOfThem(t *testing.T) {
	t.Parallel()
	_, err := New(Options{
		Speed: -1,
		Quota: []Quota{{"minute", 0, time.Minute}},
		Scenario: Scenario{
			Endpoints: []EndpointSpec{{ID: "a", MinWorkers: 3, MaxWorkers: 1}, {ID: "a", FailureShare: 2}},
			Pods:      []PodSpec{{ID: "p", GPU: "x"}},
			Events: []Event{
				{Target: "a"},
				{Target: "gone", Effect: Throttle(0)},
				{Target: "a", Effect: IdleGPU(0)},
				{Target: "a", Effect: RevokeKey(0)},
				{At: -1, Target: "*", Effect: Throttle(time.Hour)},
			},
			Repeat: time.Minute,
		},
	})
	for _, want := range []string{
		"speed", "quota", "3 to 1", "the id is taken", "share is out of range", "GPU and GPUs disagree", "event 0: has no effect",
		`event 1: throttle needs an existing endpoint, not "gone"`, "event 2: idle gpu needs an existing pod",
		"event 3: revoke key needs an existing account", "event 4",
	} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("the error lacks %q: %v", want, err)
		}
	}
}

// trouble is one endpoint with steady work to which effect happens from minute
// 10 to 20.
func trouble(effect Effect) Scenario {
	return Scenario{
		Endpoints: []EndpointSpec{{ID: "ep", Name: "ep", MinWorkers: 1, MaxWorkers: 5, IdleTimeout: time.Minute, JobsPerMinute: 6, Backlog: 3}},
		Events:    []Event{{At: 10 * time.Minute, Target: "ep", Effect: effect}},
	}
}

func TestEffectsOnAnEndpointHoldAndRecover(t *testing.T) {
	t.Parallel()
	const d = 10 * time.Minute
	for name, test := range map[string]struct {
		effect Effect
		during func(before, now Counts) bool // at minute 19
	}{
		"a queue surge outruns the workers": {QueueSurge(120, d), func(_, c Counts) bool {
			return c.InQueue > 100 && c.Running == 5
		}},
		"a failure storm fails a share": {FailureStorm(1, map[Outcome]float64{OutcomeOOM: 1}, d), func(b, c Counts) bool {
			return c.Failed-b.Failed > 30 && c.Completed-b.Completed < 5
		}},
		"a crash loop finishes nothing": {CrashLoop(d), func(b, c Counts) bool {
			return c.Unhealthy > 0 && c.Running+c.Idle+c.Initializing+c.Throttled == 0 && c.InQueue > 30 && c.Completed == b.Completed
		}},
		"without capacity workers wait": {Throttle(d), func(_, c Counts) bool {
			return c.Throttled > 0 && c.Running+c.Idle+c.Initializing+c.Unhealthy == 0 && c.InQueue > 30
		}},
		"a cold start wave keeps workers from starting": {ColdStartWave(time.Hour, d), func(_, c Counts) bool {
			return c.Initializing > 0 && c.Running+c.Idle == 0 && c.InQueue > 30
		}},
		"without a maximum nobody works": {MaxWorkersZero(d), func(_, c Counts) bool {
			return c.MaxWorkers == 0 && c.InQueue > 30 && c.Throttled+c.Running+c.Idle+c.Initializing+c.Unhealthy == 0
		}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := frozen(t, trouble(test.effect))
			s.Advance(d)
			before, _ := s.Counts("ep")
			if before.Completed < 30 || before.InQueue > 10 {
				t.Errorf("before: %+v, want work being done", before)
			}
			s.Advance(9 * time.Minute)
			if now, _ := s.Counts("ep"); !test.during(before, now) {
				t.Errorf("during: %+v after %+v", now, before)
			}
			// A worker that began to start in the wave takes up to 75 minutes.
			s.Advance(2 * time.Hour)
			after, _ := s.Counts("ep")
			if after.InQueue > 10 || after.MaxWorkers != 5 || after.Unhealthy+after.Throttled > 0 || after.Completed < before.Completed+500 {
				t.Errorf("afterwards: %+v, want recovered", after)
			}
		})
	}
}

func TestABatchArrivesAtOnceAndInEachRound(t *testing.T) {
	t.Parallel()
	s := frozen(t, Scenario{
		Endpoints: []EndpointSpec{{ID: "ep", MaxWorkers: 1}},
		Events:    []Event{{At: 0, Target: "*", Effect: Batch(7)}},
		Repeat:    time.Hour,
	})
	for round := 1; round <= 3; round++ {
		if c, _ := s.Counts("ep"); c.Arrived != 7*round {
			t.Errorf("round %d: %d jobs arrived, want %d", round, c.Arrived, 7*round)
		}
		s.Advance(time.Hour)
	}
}

func TestTheStateDoesNotDependOnWhoLooks(t *testing.T) {
	t.Parallel()
	watched, alone := frozen(t, DemoScenario()), frozen(t, DemoScenario())
	for range 6000 { // every second, for 100 minutes
		watched.Advance(time.Second)
		for id := range watched.endpoints {
			watched.Counts(id)
		}
	}
	alone.Advance(6000 * time.Second)
	for id := range alone.endpoints {
		a, _ := watched.Counts(id)
		b, _ := alone.Counts(id)
		if diff := cmp.Diff(b, a); diff != "" {
			t.Errorf("%s, watched every second, differs (-alone +watched):\n%s", id, diff)
		}
	}
	other := frozen(t, DemoScenario(), func(o *Options) { o.Seed = 1 })
	other.Advance(6000 * time.Second)
	a, _ := alone.Counts(DemoCrashLoop)
	b, _ := other.Counts(DemoCrashLoop)
	if a == b {
		t.Error("another seed makes the same account")
	}
}

// TestNoJobIsLostOrInvented checks the books of random accounts at random times.
func TestNoJobIsLostOrInvented(t *testing.T) {
	t.Parallel()
	for seed := range uint64(30) {
		r := rand.New(rand.NewPCG(seed, 0))
		random := func(most time.Duration) time.Duration { return time.Duration(r.Int64N(int64(most))) + time.Second }
		spec := EndpointSpec{
			ID: "ep", MinWorkers: r.IntN(2), MaxWorkers: 1 + r.IntN(6), JobsPerMinute: r.Float64() * 20, Backlog: r.IntN(20),
			FailureShare: r.Float64() / 2, Completed: 100, Failed: 10, IdleTimeout: random(time.Minute),
			Burst: Burst{Every: random(time.Hour), For: random(time.Hour), JobsPerMinute: r.Float64() * 20},
		}
		storm := map[Outcome]float64{OutcomeCrash: 1, OutcomeTimeout: 1, OutcomeHandler: 2}
		s := frozen(t, Scenario{Endpoints: []EndpointSpec{spec}, Repeat: time.Hour, Events: []Event{
			{At: random(time.Hour), Target: "ep", Effect: CrashLoop(random(20 * time.Minute))},
			{At: random(time.Hour), Target: "ep", Effect: Throttle(random(20 * time.Minute))},
			{At: random(time.Hour), Target: "ep", Effect: MaxWorkersZero(random(20 * time.Minute))},
			{At: random(time.Hour), Target: "ep", Effect: ColdStartWave(random(5*time.Minute), random(20*time.Minute))},
			{At: random(time.Hour), Target: "ep", Effect: FailureStorm(r.Float64(), storm, random(20*time.Minute))},
			{At: random(time.Hour), Target: "ep", Effect: QueueSurge(r.Float64()*60, random(20*time.Minute))},
			{At: random(time.Hour), Target: "ep", Effect: RemoveEndpoint(random(5 * time.Minute))},
		}}, func(o *Options) { o.Seed = seed })
		last := Counts{}
		for range 200 {
			s.Advance(random(2 * time.Minute))
			c, _ := s.Counts("ep")
			if got := c.Completed - spec.Completed + c.Failed - spec.Failed + c.InQueue + c.InProgress; got != c.Arrived {
				t.Fatalf("seed %d: %d jobs arrived, %d are accounted for: %+v", seed, c.Arrived, got, c)
			}
			workers := c.Idle + c.Running + c.Initializing + c.Throttled + c.Unhealthy
			if c.Running != c.InProgress || c.MaxWorkers > 0 && workers > c.MaxWorkers || c.InQueue > 0 && c.Idle > 0 {
				t.Fatalf("seed %d: workers and jobs disagree: %+v", seed, c)
			}
			if c.Completed < last.Completed || c.Failed < last.Failed || c.Retried < last.Retried {
				t.Fatalf("seed %d: a counter fell from %+v to %+v", seed, last, c)
			}
			last = c
		}
		if last.Completed == spec.Completed {
			t.Errorf("seed %d: nothing was ever completed: %+v", seed, last)
		}
	}
}

func TestOccurrencesTellWhenThingsHappen(t *testing.T) {
	t.Parallel()
	const m = time.Minute
	s := frozen(t, Scenario{
		Endpoints: []EndpointSpec{{ID: "ep", MaxWorkers: 1}},
		Events:    []Event{{At: 5 * m, Target: "ep", Effect: Throttle(2 * m)}, {At: m, Effect: RevokeKey(0)}},
		Repeat:    10 * m,
	})
	var got []string
	for _, o := range s.Occurrences(0, 20*m) {
		got = append(got, fmt.Sprint(o.Event.Effect, " ", o.Start, " ", o.End == never))
	}
	want := []string{"revoke key 1m0s true", "throttle 5m0s false", "throttle 15m0s false"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("occurrences (-want +got):\n%s", diff)
	}
}

func TestTenThousandEndpointsKeepWorking(t *testing.T) {
	t.Parallel()
	s := frozen(t, Fleet(10_000))
	completed := 0
	for range 4 {
		s.Advance(15 * time.Minute)
		completed = 0
		for id := range s.endpoints {
			c, _ := s.Counts(id)
			completed += c.Completed
		}
	}
	// 10,000 x 0.2 jobs a minute for an hour are 120,000, on top of the counters.
	if done := completed - 10_000*1000 - 10_000*9999/2; done < 110_000 || done > 125_000 {
		t.Errorf("%d jobs completed in an hour, want about 119,000", done)
	}
}

// BenchmarkAnHourOfTenThousandEndpoints is what the simulator itself costs a
// load test of the collector: about half a second of one core an hour.
func BenchmarkAnHourOfTenThousandEndpoints(b *testing.B) {
	for b.Loop() {
		s := frozen(b, Fleet(10_000))
		for range 4 {
			s.Advance(15 * time.Minute)
		}
	}
}
