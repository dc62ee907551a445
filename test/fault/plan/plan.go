// Package plan draws what happens in a run of the fault test from its seed: what
// the account does, and what breaks when, for how long. The same seed gives the
// same plan.
package plan

import (
	"cmp"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"time"
)

// Length is how long things change and break.
const Length = 20 * time.Second

// The bounds of what is drawn.
const (
	leastFaults, mostFaults = 8, 16
	leastChange, mostChange = 200 * time.Millisecond, 2500 * time.Millisecond
	leastJob, mostJob       = 100 * time.Millisecond, 800 * time.Millisecond
)

// Above is a length of queues that is above the rules' bound.
const Above = 20

// The lengths of queues: none, below the rules' bound, and above it.
var queues = []int64{0, 5, Above}

// Plan is what happens in a run.
type Plan struct {
	// Seed is what it was drawn from.
	Seed uint64
	// SyncAlways makes NATS sync each write.
	SyncAlways bool
	// Scene is which scene is a part of it.
	Scene Scene
	// Faults are what breaks, by their beginning.
	Faults []Fault
	// Levels are how queues change, by time.
	Levels []Level
	// Final is how long the queues are in the end.
	Final map[string]int64
	// Jobs are the jobs that are submitted, by time.
	Jobs []Job
}

// Level is that a queue changes.
type Level struct {
	At       time.Duration
	Endpoint string
	Jobs     int64
}

// Job is that a job is submitted.
type Job struct {
	At       time.Duration
	Endpoint string
	ID       string
	// Webhook is true when RunPod is to call at the job's end.
	Webhook bool
}

// Draw returns the plan of a seed.
func Draw(seed uint64) Plan {
	r := rand.New(rand.NewPCG(seed, 0))
	p := begin(r, seed)
	p.Scene = drawn[r.IntN(len(drawn))]
	p.Faults = drawFaults(r, p.Scene.draw(r, between(r, 0, Length-sceneTime)))
	return p
}

// begin draws all of a plan but its faults.
func begin(r *rand.Rand, seed uint64) Plan {
	p := Plan{Seed: seed, SyncAlways: r.IntN(4) == 0, Final: map[string]int64{Constant: Above}}
	for _, endpoint := range Endpoints {
		if endpoint == Constant {
			continue
		}
		last := int64(0)
		for at := between(r, leastChange, mostChange); at < Length; at += between(r, leastChange, mostChange) {
			last = other(r, last)
			p.Levels = append(p.Levels, Level{at, endpoint, last})
		}
		p.Final[endpoint] = queues[r.IntN(len(queues))]
	}
	slices.SortStableFunc(p.Levels, func(a, b Level) int { return cmp.Compare(a.At, b.At) })
	for at := between(r, leastJob, mostJob); at < Length; at += between(r, leastJob, mostJob) {
		p.Jobs = append(p.Jobs, Job{at, Endpoints[r.IntN(len(Endpoints))], fmt.Sprint("job", len(p.Jobs)), r.IntN(2) == 0})
	}
	return p
}

// other draws another queue than the last.
func other(r *rand.Rand, last int64) int64 {
	i := slices.Index(queues, last)
	return queues[(i+1+r.IntN(len(queues)-1))%len(queues)]
}

func between(r *rand.Rand, least, most time.Duration) time.Duration {
	return least + time.Duration(r.Int64N(int64(most-least)))
}

// String lists the faults, a line each.
func (p Plan) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "seed %d, scene %s, sync always %v", p.Seed, p.Scene, p.SyncAlways)
	for _, f := range p.Faults {
		fmt.Fprintf(&b, "\n  %v", f)
	}
	return b.String()
}

// Has tells whether some fault is one of these.
func (p Plan) Has(which func(Fault) bool) bool { return slices.ContainsFunc(p.Faults, which) }
