package sim

import (
	"fmt"
	"time"
)

// The targets of [DemoScenario].
const (
	// DemoCrashLoop is the endpoint whose workers never become healthy.
	DemoCrashLoop = "img7x2k9q4m"
	// DemoNoCapacity is the endpoint that finds no machine.
	DemoNoCapacity = "llm3n5t6r8g"
	// DemoDisabled is the endpoint whose maximum of workers falls to 0.
	DemoDisabled = "tts9q2m7x4c"
	// DemoIdlePod is the pod that costs $2.49 an hour for nothing.
	DemoIdlePod = "pod4n6p7h9k2m"
)

// DemoTiming places the scenes of [DemoScenarioAt]; all of it is simulated time.
type DemoTiming struct {
	// Trouble is how long the first scene's problems last. The slowest of them,
	// no capacity, fires after 6 minutes.
	Trouble time.Duration
	// OutageAt is when the API goes down: after the alerts of the first scene,
	// which fire on for 5 minutes, have resolved.
	OutageAt time.Duration
	// Outage is how long it stays down; that fires after 3 minutes.
	Outage time.Duration
	// Revoked is how long the key is refused afterwards; that fires after 2
	// minutes.
	Revoked time.Duration
	// Repeat is when all begins again, with time for the last alerts to resolve.
	Repeat time.Duration
}

// DefaultDemoTiming is made for a speed of 60: the first alert is seen after a
// few seconds, all have resolved after 32, and the next round begins after 40.
func DefaultDemoTiming() DemoTiming {
	return DemoTiming{
		Trouble: 10 * time.Minute, OutageAt: 18 * time.Minute, Outage: 5 * time.Minute,
		Revoked: 4 * time.Minute, Repeat: 40 * time.Minute,
	}
}

// DemoScenario is [DemoScenarioAt] the default times.
func DemoScenario() Scenario { return DemoScenarioAt(DefaultDemoTiming()) }

// DemoScenarioAt is an account in which three things happen over and over.
//
// At the start three endpoints have jobs that nobody takes, each for another
// reason: one is in a crash loop, one finds no capacity, and of one the maximum
// of workers falls from 5 to 0. When they have recovered the API fails for
// everyone, and then refuses the key. All along a pod idles at $2.49 an hour,
// and a few healthy endpoints and a busy pod go about their work.
func DemoScenarioAt(t DemoTiming) Scenario {
	healthy := func(id, name string, perMinute float64) EndpointSpec {
		return EndpointSpec{
			ID: id, Name: name, Pools: []string{"ADA_24"}, MinWorkers: 1, MaxWorkers: 4,
			Service: 6 * time.Second, JobsPerMinute: perMinute, Completed: 12_345, Failed: 67,
		}
	}
	troubled := func(id, name, pool string) EndpointSpec {
		return EndpointSpec{
			ID: id, Name: name, Pools: []string{pool}, MaxWorkers: 5, IdleTimeout: time.Minute, ColdStart: 15 * time.Second,
			Service: 6 * time.Second, JobsPerMinute: 4, Backlog: 5, Completed: 48_211, Failed: 103,
		}
	}
	disabled := troubled(DemoDisabled, "voice-prod-tts", "AMPERE_16")
	disabled.JobsPerMinute, disabled.Backlog = 0.5, 0
	// The maximum must have been seen at 5 before it is seen to fall.
	const seen = 2 * time.Minute
	return Scenario{
		Endpoints: []EndpointSpec{
			troubled(DemoCrashLoop, "vision-prod-img", "ADA_24"),
			troubled(DemoNoCapacity, "chat-prod-llm", "HOPPER_141"),
			disabled,
			healthy("emb5t6r8g3n", "search-prod-embed", 6),
			healthy("ocr2m7x4c9q", "docs-dev-ocr", 2),
			{ID: "web8g3n5t6r", Name: "chat-prod-gateway", LoadBalancer: true, MinWorkers: 2, MaxWorkers: 6},
		},
		Pods: []PodSpec{
			{ID: DemoIdlePod, Name: "research-dev-notebook", GPU: "NVIDIA H100 PCIe", GPUs: 1, CostPerHour: 2.49, Util: 80, Age: 51 * time.Hour},
			{ID: "pod8m2k4n6p7h", Name: "research-prod-train", GPU: "NVIDIA A100 80GB PCIe", GPUs: 2, CostPerHour: 3.28, Util: 91, Age: 30 * time.Hour},
		},
		Events: []Event{
			{At: 0, Target: DemoCrashLoop, Effect: CrashLoop(t.Trouble)},
			{At: 0, Target: DemoNoCapacity, Effect: Throttle(t.Trouble)},
			{At: seen, Target: DemoDisabled, Effect: MaxWorkersZero(max(t.Trouble-seen, time.Minute))},
			{At: seen, Target: DemoDisabled, Effect: Batch(1)},
			{At: t.OutageAt, Effect: APIOutage(503, t.Outage)},
			{At: t.OutageAt + t.Outage, Effect: RevokeKey(t.Revoked)},
			{At: 0, Target: DemoIdlePod, Effect: IdleGPU(0)},
		},
		Repeat: t.Repeat,
	}
}

// QuietNight is an account of 60 endpoints and 4 pods in which nothing is wrong
// for 12 hours, although much looks it: queues of endpoints that scale from
// zero, endpoints without workers, a throttled worker left over, and 10,000 jobs
// at once that an endpoint works off in under ten minutes.
func QuietNight() Scenario {
	var s Scenario
	add := func(n int, kind string, spec EndpointSpec) {
		for i := range n {
			one := spec
			one.ID, one.Name = fmt.Sprintf("%s%07d", kind, i), fmt.Sprintf("team%d-prod-%s-%02d", i%4, kind, i)
			if !one.LoadBalancer {
				one.Pools = []string{"ADA_24"}
			}
			s.Endpoints = append(s.Endpoints, one)
		}
	}
	add(25, "burst", EndpointSpec{
		MaxWorkers: 5, ColdStart: 40 * time.Second, Completed: 5000, Failed: 12, FailureShare: 0.002,
		Burst: Burst{Every: 90 * time.Minute, For: 6 * time.Minute, JobsPerMinute: 12},
	})
	add(12, "steady", EndpointSpec{
		MinWorkers: 1, MaxWorkers: 4, IdleTimeout: time.Minute, JobsPerMinute: 5, Completed: 90_000, Failed: 300, FailureShare: 0.002,
	})
	add(14, "parked", EndpointSpec{MaxWorkers: 3, Completed: 535})
	add(4, "balance", EndpointSpec{LoadBalancer: true, MinWorkers: 1, MaxWorkers: 3})
	add(4, "leftover", EndpointSpec{MaxWorkers: 3, JobsPerMinute: 0.05, Completed: 800, ThrottledLeftover: 1})
	add(1, "batch", EndpointSpec{MaxWorkers: 60, ColdStart: 15 * time.Second, Service: 3 * time.Second, Completed: 40_000})
	for i := range 4 {
		s.Pods = append(s.Pods, PodSpec{
			ID: fmt.Sprintf("nightpod%02d", i), Name: fmt.Sprintf("research-prod-train-%d", i),
			GPU: "NVIDIA A100 80GB PCIe", GPUs: 1 + i%2, CostPerHour: 1.64 * float64(1+i%2), Util: 88, Age: 20 * time.Hour,
		})
	}
	s.Events = []Event{{At: 2 * time.Hour, Target: "batch0000000", Effect: Batch(10_000)}}
	return s
}
