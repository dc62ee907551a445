package sim

import (
	"fmt"
	"slices"
	"time"
)

// maxCrashing is how many workers of a crash loop RunPod keeps trying.
const maxCrashing = 3

type workerState int

const (
	initializing workerState = iota
	idle
	running
	throttled
	unhealthy
)

// statusNames are the states as REST names them.
var statusNames = [...]string{
	initializing: "INITIALIZING", idle: "IDLE", running: "RUNNING", throttled: "THROTTLED", unhealthy: "UNHEALTHY",
}

type worker struct {
	id    string
	state workerState
	born  time.Duration
	until time.Duration // when its state ends by itself
	job   *job          // while running
}

// settle gives queued jobs to idle workers and hires what is missing.
func (e *endpoint) settle() {
	for _, w := range e.workers {
		if len(e.queue) == 0 {
			break
		}
		if w.state == idle && !e.mode.closed {
			e.start(w)
		}
	}
	if len(e.queue) == 0 && len(e.workers) > e.spec.MinWorkers {
		e.dismissAll(throttled)
	}
	busy := 0
	for _, w := range e.workers {
		if w.state == running {
			busy++
		}
	}
	want := min(max(busy+len(e.queue), e.spec.MinWorkers), e.maxWorkers())
	if e.mode.crashing {
		want = min(want, maxCrashing)
	}
	for len(e.workers) < want {
		e.hire()
	}
}

func (e *endpoint) maxWorkers() int {
	if e.mode.closed {
		return 0
	}
	return e.spec.MaxWorkers
}

// hire adds a worker in the state in which the mode lets it begin.
func (e *endpoint) hire() *worker {
	e.made.workers++
	name := fmt.Sprintf("worker/%d", e.made.workers)
	w := &worker{id: fmt.Sprintf("%014x", mix(e.seed, name)>>8), born: e.now, until: never}
	switch {
	case e.mode.crashing:
		w.state = unhealthy
	case e.mode.throttled:
		w.state = throttled
	default:
		cold := e.spec.ColdStart
		if e.mode.cold > 0 {
			cold = e.mode.cold
		}
		w.state = initializing
		w.until = e.now + time.Duration(float64(cold)*(0.75+draw(e.seed, name)/2))
	}
	e.workers = append(e.workers, w)
	return w
}

// start gives the first queued job to a worker.
func (e *endpoint) start(w *worker) {
	j := e.queue[0]
	e.queue = e.queue[1:]
	j.status, j.worker, j.started = statusProgress, w.id, e.now
	j.outcome = e.outcome(j)
	takes := j.opts.Execution
	if takes == 0 {
		takes = time.Duration(float64(e.spec.Service) * (0.5 + draw(e.seed, j.id)))
	}
	if j.outcome == OutcomeTimeout || takes > e.spec.Timeout {
		j.outcome, takes = OutcomeTimeout, e.spec.Timeout
	}
	w.state, w.job, w.until = running, j, e.now+takes
}

// turn ends the state of a worker.
func (e *endpoint) turn(w *worker) {
	switch w.state {
	case initializing:
		e.rest(w)
	case running:
		e.finish(w.job)
		e.rest(w)
	case idle:
		if w.until = never; len(e.workers) > e.spec.MinWorkers {
			e.dismiss(w)
		}
	}
}

// rest makes a worker idle, or sends it away when it may not take another job.
func (e *endpoint) rest(w *worker) {
	w.job = nil
	if e.mode.throttled || e.mode.closed {
		e.dismiss(w)
		return
	}
	w.state, w.until = idle, e.now+e.spec.IdleTimeout
}

func (e *endpoint) dismiss(w *worker) {
	e.workers = slices.DeleteFunc(e.workers, func(other *worker) bool { return other == w })
}

// dismissAll sends the workers in the given states away.
func (e *endpoint) dismissAll(states ...workerState) {
	e.workers = slices.DeleteFunc(e.workers, func(w *worker) bool { return slices.Contains(states, w.state) })
}

// crash makes every worker unhealthy and puts its job back in front.
func (e *endpoint) crash() {
	for _, w := range e.workers {
		if w.state == running {
			w.job.retries++
			e.total.Retried++
			w.job.status, w.job.worker, w.job.started = statusQueued, "", 0
			e.queue = slices.Insert(e.queue, 0, w.job)
		}
		w.state, w.until, w.job = unhealthy, never, nil
	}
}
