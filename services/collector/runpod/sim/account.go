package sim

import (
	"errors"
	"fmt"
	"hash/fnv"
	"math/rand/v2"
	"time"
)

// EndpointSpec describes a serverless endpoint. Rates and times are simulated.
type EndpointSpec struct {
	// ID is RunPod's id for it.
	ID string
	// Name is what its owner calls it.
	Name string
	// LoadBalancer makes an endpoint without queue, jobs and health.
	LoadBalancer bool
	// Pools are its GPU pools; none makes a CPU endpoint.
	Pools []string
	// MinWorkers and MaxWorkers bound its workers.
	MinWorkers, MaxWorkers int
	// IdleTimeout is how long an idle worker stays, 5 s when zero.
	IdleTimeout time.Duration
	// ColdStart is how long a worker takes to become ready, 20 s when zero. Each
	// start takes 75 % to 125 % of it.
	ColdStart time.Duration
	// Service is the mean time that a job runs, 8 s when zero. Each job takes
	// 50 % to 150 % of it.
	Service time.Duration
	// Timeout bounds the time that a job runs, 10 minutes when zero.
	Timeout time.Duration
	// JobsPerMinute is the mean rate of random arrivals.
	JobsPerMinute float64
	// Burst adds arrivals in bursts.
	Burst Burst
	// FailureShare is the part of jobs (0 to 1) that fail in the handler on a
	// good day.
	FailureShare float64
	// Backlog is the number of jobs in the queue when the scenario begins.
	Backlog int
	// Completed and Failed are what the counters hold when it begins.
	Completed, Failed int
	// ThrottledLeftover is a number of throttled workers that are always there
	// and mean nothing, as RunPod leaves them at idle endpoints.
	ThrottledLeftover int
}

// Burst is traffic that comes and goes.
type Burst struct {
	// Every is the time from one burst to the next; none when zero.
	Every time.Duration
	// For is how long one lasts.
	For time.Duration
	// JobsPerMinute is the mean rate while it does.
	JobsPerMinute float64
}

func (e EndpointSpec) withDefaults() EndpointSpec {
	for _, d := range []struct {
		field *time.Duration
		value time.Duration
	}{
		{&e.IdleTimeout, 5 * time.Second},
		{&e.ColdStart, 20 * time.Second},
		{&e.Service, 8 * time.Second},
		{&e.Timeout, 10 * time.Minute},
	} {
		if *d.field == 0 {
			*d.field = d.value
		}
	}
	return e
}

func (e EndpointSpec) validate() error {
	var errs []error
	if e.MinWorkers < 0 || e.MaxWorkers < e.MinWorkers {
		errs = append(errs, fmt.Errorf("workers: %d to %d is no range", e.MinWorkers, e.MaxWorkers))
	}
	if e.JobsPerMinute < 0 || e.Burst.JobsPerMinute < 0 || e.FailureShare < 0 || e.FailureShare > 1 {
		errs = append(errs, errors.New("a rate or share is out of range"))
	}
	if e.Backlog < 0 || e.Completed < 0 || e.Failed < 0 || e.ThrottledLeftover < 0 {
		errs = append(errs, errors.New("a count is negative"))
	}
	if min(e.IdleTimeout, e.ColdStart, e.Service, e.Timeout, e.Burst.Every, e.Burst.For) < 0 {
		errs = append(errs, errors.New("a time is negative"))
	}
	return errors.Join(errs...)
}

// PodSpec describes a pod that runs when the scenario begins.
type PodSpec struct {
	// ID is RunPod's id for it.
	ID string
	// Name is what its owner calls it.
	Name string
	// GPU is the type of its GPUs, "" for a CPU pod.
	GPU string
	// GPUs is the number of them.
	GPUs int
	// CostPerHour is in US dollars.
	CostPerHour float64
	// Util is the mean utilisation of its GPUs in percent.
	Util int
	// Age is how long it has run when the scenario begins.
	Age time.Duration
	// Stopped makes it a pod that does not run.
	Stopped bool
}

func (p PodSpec) validate() error {
	if p.GPUs < 0 || p.CostPerHour < 0 || p.Util < 0 || p.Util > 100 || p.Age < 0 || (p.GPU != "") != (p.GPUs > 0) {
		return errors.New("a figure is out of range, or GPU and GPUs disagree")
	}
	return nil
}

// Fleet returns a scenario of n quiet endpoints for load tests: one worker each,
// a job every five minutes, nothing wrong.
func Fleet(n int) Scenario {
	var s Scenario
	for i := range n {
		s.Endpoints = append(s.Endpoints, EndpointSpec{
			ID: fmt.Sprintf("ep%05d", i), Name: fmt.Sprintf("team%02d-prod-%05d", i%20, i), Pools: []string{"ADA_24"},
			MaxWorkers: 3, JobsPerMinute: 0.2, Completed: 1000 + i,
		})
	}
	return s
}

// mix derives a seed from another and a name.
func mix(seed uint64, name string) uint64 {
	h := fnv.New64a()
	_, _ = fmt.Fprintf(h, "%d/%s", seed, name)
	return h.Sum64()
}

// draw returns a number of [0, 1) that depends on nothing but its arguments, so
// that no draw disturbs another.
func draw(seed uint64, name string) float64 {
	return rand.New(rand.NewPCG(seed, mix(seed, name))).Float64()
}
