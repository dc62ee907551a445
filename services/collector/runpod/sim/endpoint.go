package sim

import (
	"cmp"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"time"
)

// endpoint is the state of one endpoint at simulated time now. It moves only
// when advance is called, from one event to the next, so its state at an instant
// does not depend on how often it was asked before.
type endpoint struct {
	spec   EndpointSpec
	seed   uint64
	script schedule
	ended  func(*job) // hears of each job with a webhook that ended

	mu       sync.Mutex // guards all that follows
	now      time.Duration
	random   *rand.Rand    // of arrivals alone
	arrival  time.Duration // of the next job
	boundary time.Duration // next change of mode or of the rate of arrivals
	mode     mode
	queue    []*job
	workers  []*worker
	jobs     map[string]*job
	expiring []expiry // in order of time
	hooked   int      // jobs with a webhook that have not ended
	made     struct{ jobs, workers int }
	total    Counts // only the counters
}

// mode is what the script does to an endpoint at present.
type mode struct {
	crashing, throttled, closed, removed bool
	cold                                 time.Duration // of a cold start wave
	surge                                float64       // jobs per minute
	storm                                Effect        // of kind failureStorm, or none
}

// expiry is when RunPod forgets a job that ended at a certain time.
type expiry struct {
	at, ended time.Duration
	job       *job
}

func newEndpoint(spec EndpointSpec, seed uint64, script schedule, ended func(*job)) *endpoint {
	spec = spec.withDefaults()
	e := &endpoint{
		spec: spec, seed: mix(seed, spec.ID), script: script, ended: ended,
		jobs: map[string]*job{}, arrival: never, boundary: never,
	}
	if spec.LoadBalancer {
		return e
	}
	e.random = rand.New(rand.NewPCG(e.seed, 1))
	e.total = Counts{Completed: spec.Completed, Failed: spec.Failed}
	for range spec.MinWorkers {
		w := e.hire()
		w.state, w.until = idle, never
	}
	for range spec.Backlog {
		e.enqueue(JobOptions{})
	}
	e.cross()
	e.settle()
	return e
}

// advance plays all events up to t.
func (e *endpoint) advance(t time.Duration) {
	for !e.spec.LoadBalancer && e.step(t) {
		e.settle()
	}
	e.now = max(e.now, t)
}

// step plays the next event if it is due by t. Of two at one time the order is
// fixed: workers, the script, arrivals, forgetting.
func (e *endpoint) step(t time.Duration) bool {
	var first *worker
	turn, forget := never, never
	for _, w := range e.workers {
		if w.until < turn {
			first, turn = w, w.until
		}
	}
	if len(e.expiring) > 0 {
		forget = e.expiring[0].at
	}
	at := min(turn, e.boundary, e.arrival, forget)
	if at > t || at == never {
		return false
	}
	e.now = at
	switch at {
	case turn:
		e.turn(first)
	case e.boundary:
		e.cross()
	case e.arrival:
		e.arrive()
	default:
		e.forget()
	}
	return true
}

// cross enters the mode and the rate of arrivals that hold from now on.
func (e *endpoint) cross() {
	was := e.mode
	e.mode = e.modeNow()
	if e.mode.crashing && !was.crashing {
		e.crash()
	}
	if was.crashing && !e.mode.crashing {
		e.dismissAll(unhealthy)
	}
	if e.mode.throttled && !was.throttled {
		e.dismissAll(idle, initializing)
	}
	if was.throttled && !e.mode.throttled {
		e.dismissAll(throttled)
	}
	if e.mode.closed && !was.closed {
		e.dismissAll(idle, initializing, throttled, unhealthy)
	}
	if e.mode.cold > 0 && was.cold == 0 {
		e.dismissAll(idle)
	}
	e.script.begun(e.now, func(effect Effect) {
		if effect.kind == batch {
			for range effect.jobs {
				e.enqueue(JobOptions{})
			}
		}
	})
	e.boundary = min(e.script.next(e.now), e.nextBurst())
	e.plan()
}

func (e *endpoint) modeNow() mode {
	on := func(kind effectKind) bool { _, ok := e.script.active(e.now, kind); return ok }
	m := mode{crashing: on(crashLoop), throttled: on(throttle), closed: on(maxWorkersZero), removed: on(removeEndpoint)}
	wave, _ := e.script.active(e.now, coldStartWave)
	surge, _ := e.script.active(e.now, queueSurge)
	m.cold, m.surge = wave.cold, surge.rate
	m.storm, _ = e.script.active(e.now, failureStorm)
	return m
}

// burstAt returns the position within the burst cycle at t.
func (e *endpoint) burstAt(t time.Duration) time.Duration {
	phase := time.Duration(draw(e.seed, "phase") * float64(e.spec.Burst.Every))
	return (t + phase) % e.spec.Burst.Every
}

// nextBurst returns when a burst next begins or ends.
func (e *endpoint) nextBurst() time.Duration {
	if e.spec.Burst.Every == 0 {
		return never
	}
	if at := e.burstAt(e.now); at < e.spec.Burst.For {
		return e.now + e.spec.Burst.For - at
	} else {
		return e.now + e.spec.Burst.Every - at
	}
}

// plan draws the next arrival. The time to it has no memory, so it may be drawn
// anew whenever the rate changes.
func (e *endpoint) plan() {
	rate := e.spec.JobsPerMinute + e.mode.surge
	if e.spec.Burst.Every > 0 && e.burstAt(e.now) < e.spec.Burst.For {
		rate += e.spec.Burst.JobsPerMinute
	}
	if rate <= 0 || e.mode.removed {
		e.arrival = never
		return
	}
	e.arrival = e.now + time.Duration(e.random.ExpFloat64()/rate*float64(time.Minute)) + 1
}

func (e *endpoint) arrive() {
	e.enqueue(JobOptions{})
	e.plan()
}

func (e *endpoint) enqueue(opts JobOptions) *job {
	e.made.jobs++
	e.total.Arrived++
	a, b := mix(e.seed, fmt.Sprintf("job/%d", e.made.jobs)), mix(e.seed+1, fmt.Sprintf("job/%d", e.made.jobs))
	id := fmt.Sprintf("%08x-%04x-%04x-%04x-%012x-u1", a>>32, a>>16&0xffff, a&0xffff, b>>48, b&0xffffffffffff)
	if opts.Sync {
		id = "sync-" + id
	}
	j := &job{id: id, opts: opts, status: statusQueued, submitted: e.now}
	e.hook(j, 1)
	e.jobs[id] = j
	e.queue = append(e.queue, j)
	return j
}

// outcome decides how a job that starts now ends.
func (e *endpoint) outcome(j *job) Outcome {
	if j.opts.Outcome != "" {
		return j.opts.Outcome
	}
	luck := draw(e.seed, "outcome/"+j.id)
	if luck < e.mode.storm.rate {
		total := 0.0
		for _, o := range e.mode.storm.outcomes {
			total += o.weight
		}
		pick := luck / e.mode.storm.rate * total
		for _, o := range e.mode.storm.outcomes {
			if pick -= o.weight; pick < 0 {
				return o.outcome
			}
		}
	}
	if luck >= 1-e.spec.FailureShare {
		return OutcomeHandler
	}
	return OutcomeOK
}

// finish ends a job that ran.
func (e *endpoint) finish(j *job) {
	j.status, j.ended = statusCompleted, e.now
	if j.outcome == OutcomeOK {
		e.total.Completed++
	} else {
		j.status = statusFailed
		e.total.Failed++
	}
	if j.outcome == OutcomeCrash {
		j.retries += crashRetries
		e.total.Retried += crashRetries
	}
	e.expire(j)
	e.hook(j, -1)
	if j.opts.Webhook != "" {
		e.ended(j)
	}
}

// hook counts a job that has, or no longer has, a webhook to come.
func (e *endpoint) hook(j *job, n int) {
	if j.opts.Webhook != "" {
		e.hooked += n
	}
}

func (e *endpoint) expire(j *job) {
	x := expiry{at: j.ended + j.keep(), ended: j.ended, job: j}
	at, _ := slices.BinarySearchFunc(e.expiring, x.at+1, func(y expiry, t time.Duration) int { return cmp.Compare(y.at, t) })
	e.expiring = slices.Insert(e.expiring, at, x)
}

// forget drops the job whose time has come, unless it was retried since.
func (e *endpoint) forget() {
	x := e.expiring[0]
	e.expiring = e.expiring[1:]
	if x.job.final() && x.job.ended == x.ended {
		delete(e.jobs, x.job.id)
	}
}

// counts returns the figures at now.
func (e *endpoint) counts() Counts {
	c := e.total
	c.InQueue, c.MaxWorkers, c.Throttled = len(e.queue), e.maxWorkers(), e.spec.ThrottledLeftover
	for _, w := range e.workers {
		switch w.state {
		case idle:
			c.Idle++
		case running:
			c.Running++
			c.InProgress++
		case initializing:
			c.Initializing++
		case throttled:
			c.Throttled++
		case unhealthy:
			c.Unhealthy++
		}
	}
	return c
}

// cancel takes a job out of the queue or from its worker. One that ended stays
// as it is.
func (e *endpoint) cancel(j *job) {
	if j.final() {
		return
	}
	if i := slices.IndexFunc(e.workers, func(w *worker) bool { return w.job == j }); i >= 0 {
		e.rest(e.workers[i])
	}
	e.queue = slices.DeleteFunc(e.queue, func(other *job) bool { return other == j })
	e.cancelled(j)
	e.settle()
}

func (e *endpoint) cancelled(j *job) {
	j.status, j.ended = statusCancelled, e.now
	e.total.Cancelled++
	e.expire(j)
	e.hook(j, -1)
}

// retry queues a failed job again under its id.
func (e *endpoint) retry(j *job) {
	j.status, j.worker, j.started, j.submitted = statusQueued, "", 0, e.now
	j.retries++
	e.total.Retried++
	e.total.Arrived++
	e.hook(j, 1)
	e.queue = append(e.queue, j)
	e.settle()
}

// purge cancels what is queued and returns how many jobs that were.
func (e *endpoint) purge() int {
	queued := e.queue
	e.queue = nil
	for _, j := range queued {
		e.cancelled(j)
	}
	e.settle()
	return len(queued)
}
