package diagnosis

import (
	"math"
	"time"

	alertv1 "github.com/tocsin-dev/tocsin/proto/gen/tocsin/alert/v1"
)

const (
	// flicker is for how long a worker counts as unhealthy after it was: in a crash
	// loop it is starting again in between.
	flicker = 5 * time.Minute
	// capacityWait is after what time without any worker RunPod has none to give,
	// where before it may just be scaling from zero.
	capacityWait = 5 * time.Minute
	// initTimeout is when RunPod calls a worker that starts unhealthy, unless
	// RUNPOD_INIT_TIMEOUT says otherwise (RunPod's optimization guide).
	initTimeout = 7 * time.Minute
	// stall is for how long nothing must have ended before work stands still: many
	// jobs take minutes.
	stall = 10 * time.Minute
	// idleWait is for how long a worker must idle beside a queue: handing out jobs
	// takes seconds.
	idleWait = 2 * time.Minute
)

// queue is how many jobs wait, and whether any is known to.
func (p *patient) queue() (float64, bool) {
	n, ok := p.number("jobs.in_queue")
	return n, ok && n > 0
}

// cannotStart looks for an endpoint that may have no worker.
func cannotStart(p *patient) *alertv1.Diagnosis {
	n, queued := p.queue()
	if !queued || !p.none("workers.max") {
		return nil
	}
	// Before a crash loop: whatever ails the workers, none can start until this is set.
	return p.found(disabled, sure, "Max workers is 0 and %s %s: none can ever start. Either RunPod's idle scale-down set it, after 7 days without requests, or a human.", count(n, "job"), wait(n)).
		fact("workers.max", "jobs.in_queue", "workers.unhealthy").
		do(
			"Set max workers of the endpoint to what you need; the queued jobs then run.",
			"If nobody of you set it, it was the scale-down: send a request now and then.",
			"RunPod also scales endpoints down whose workers stay unhealthy: read their logs before you set it back.",
		).done()
}

// crashes looks for workers that start and die.
func crashes(p *patient) *alertv1.Diagnosis {
	n, queued := p.queue()
	if !queued {
		return nil
	}
	sick, known := p.number("workers.unhealthy")
	_, lately, _ := p.course("workers.unhealthy", flicker)
	none := p.none("workers.running")
	var f *finding
	switch {
	case known && sick > 0 && none:
		certainty := sure
		if done, ok := p.rise("jobs.completed", flicker); !ok || done > 0 {
			certainty = likely
		}
		f = p.found(crashLoop, certainty, "A crash loop and no lack of capacity: %s %s unhealthy while %s %s and none runs.", count(sick, "worker"), are(sick), count(n, "job"), wait(n))
	case known && sick > 0:
		f = p.found(crashLoop, likely, "Some workers crash: %s %s unhealthy while %s %s.", count(sick, "worker"), are(sick), count(n, "job"), wait(n))
	case known && lately > 0 && none:
		f = p.found(crashLoop, likely, "A crash loop: up to %s %s unhealthy in the last %s, %s %s and none runs.", count(lately, "worker"), was(lately), span(flicker), count(n, "job"), wait(n))
	default:
		return nil
	}
	f.fact("workers.unhealthy", "jobs.in_queue", "workers.running", "workers.initializing", "workers.throttled")
	for _, e := range p.Errors {
		if (e.Category == "crash" || e.Category == "oom") && p.now.Sub(e.Last) <= FailWindow {
			f.errors(e)
		}
	}
	return f.do(
		"Read the container log of an unhealthy worker now: it is gone minutes later.",
		"Common: an import that fails, a model that does not fit into memory, a wrong start command. Undo the last release if it began with it.",
		"Jobs can stay queued for as long as their ttl: cancel those that nobody waits for.",
	).done()
}

// lacksCapacity looks for an endpoint that gets no workers.
func lacksCapacity(p *patient) *alertv1.Diagnosis {
	n, queued := p.queue()
	if !queued {
		return nil
	}
	throttled, known := p.number("workers.throttled")
	if known && throttled > 0 && p.none("workers.running") {
		certainty := sure
		if p.some("workers.idle") || !p.throughout("workers.throttled", idleWait, 1, math.Inf(1)) {
			certainty = likely // one that is throttled for half a minute is usual
		}
		f := p.found(noCapacity, certainty, "No host capacity: %s %s throttled and none runs while %s %s.", count(throttled, "worker"), are(throttled), count(n, "job"), wait(n)).
			fact("workers.throttled", "workers.running", "jobs.in_queue", "workers.idle", "workers.max")
		return f.do(moreHosts...).done()
	}
	total, known := p.workers()
	if !known || total > 0 {
		return nil
	}
	since := p.waited()
	if since < capacityWait {
		f := p.found(fromZero, likely, "There is no worker at all and %s %s: the endpoint scales from zero, or there is no capacity.", count(n, "job"), wait(n)).
			fact("jobs.in_queue", "workers.running", "workers.initializing", "workers.max", "workers.min").or(noCapacity)
		return f.do(
			"Wait: a first worker comes within minutes.",
			"If the first request must not wait, keep min workers at 1, or turn FlashBoot on.",
		).done()
	}
	f := p.found(noCapacity, likely, "There is no worker, and none ran or started for %s while %s %s: no host of the chosen kind is free, or the settings allow none.", span(since), count(n, "job"), wait(n)).
		fact("jobs.in_queue", "workers.running", "workers.initializing", "workers.throttled", "workers.max").or(fromZero)
	if _, told := p.number("workers.unhealthy"); !told {
		f.or(crashLoop)
	}
	return f.do(moreHosts...).done()
}

// moreHosts is what helps where no host is free.
var moreHosts = []string{
	"Allow more GPU types in the endpoint's settings.",
	"Allow more data centres, or all: a network volume binds the endpoint to one.",
	"Keep a worker with min workers, so that a host stays yours.",
}

// workers returns how many workers there are. idle and ready are the same ones, so
// that the greater counts; and unhealthy ones are left out by old answers of RunPod.
func (p *patient) workers() (float64, bool) {
	total := 0.0
	for _, name := range []string{"workers.running", "workers.initializing", "workers.throttled"} {
		n, ok := p.number(name)
		if !ok {
			return 0, false
		}
		total += n
	}
	idle, ok := p.number("workers.idle")
	ready, told := p.number("workers.ready")
	return total + max(idle, ready) + p.Numbers["workers.unhealthy"], ok || told
}

// waited is for how long jobs have waited without any worker that runs or starts, as
// far as the courses tell; zero where they do not.
func (p *patient) waited() time.Duration {
	zero := func(name string, d time.Duration) bool { return p.throughout(name, d, 0, 0) }
	for _, d := range []time.Duration{time.Hour, 30 * time.Minute, 15 * time.Minute, 10 * time.Minute, capacityWait} {
		if p.throughout("jobs.in_queue", d, 1, math.Inf(1)) && zero("workers.running", d) && zero("workers.initializing", d) {
			return d
		}
	}
	return 0
}

// startsCold looks for workers that are starting while none runs.
func startsCold(p *patient) *alertv1.Diagnosis {
	n, queued := p.queue()
	starting, known := p.number("workers.initializing")
	if !queued || !known || starting == 0 || !p.none("workers.running") {
		return nil
	}
	f := p.found(coldStart, likely, "A cold start: %s %s starting while %s %s.", count(starting, "worker"), are(starting), count(n, "job"), wait(n))
	if p.throughout("workers.initializing", initTimeout, 1, math.Inf(1)) {
		f = p.found(coldStart, likely, "A cold start that does not end: workers have been starting for %s and more, after which RunPod calls them unhealthy.", span(initTimeout)).or(crashLoop)
	}
	if _, told := p.number("workers.unhealthy"); !told {
		f.or(crashLoop)
	}
	return f.fact("workers.initializing", "jobs.in_queue", "workers.running", "workers.min").do(
		"Bake the models into the image, or put them on a network volume: downloads are most of a cold start.",
		"Turn FlashBoot on.",
		"Make the image smaller; keep min workers at 1 where the first request must not wait.",
		"Raise RUNPOD_INIT_TIMEOUT where a start takes longer than 7 minutes and is well.",
	).done()
}

// standsStill looks for workers that have jobs and end none.
func standsStill(p *patient) *alertv1.Diagnosis {
	running, known := p.number("workers.running")
	done, told := p.rise("jobs.completed", stall)
	if !known || running == 0 || !told || done > 0 || !p.throughout("jobs.in_queue", stall, 1, math.Inf(1)) {
		return nil
	}
	failed, ok := p.rise("jobs.failed", stall)
	if !ok || failed > 0 {
		return nil
	}
	certainty := possible // a job may take that long
	f := p.found(noProgress, certainty, "Nothing ended for %s although %s %s a job and others wait: the handler hangs, its jobs take that long, or results do not reach RunPod.", span(stall), count(running, "worker"), has(running))
	if again, ok := p.rise("jobs.retried", stall); ok && again > 0 {
		f.d.Certainty = likely
		f.d.Sentence += " " + count(again, "job") + " " + was(again) + " tried again meanwhile."
	}
	return f.fact("workers.running", "jobs.in_queue", "jobs.in_progress", "jobs.retried", "endpoint.execution_timeout_s").do(
		"Read a running worker's log: does the handler go on?",
		"Set an execution timeout that ends a job that hangs.",
		"Where results do not arrive, look for \"job-done\" errors in the log: results above 20 MB are refused.",
	).done()
}

// takesNothing looks for workers that idle beside a queue.
func takesNothing(p *patient) *alertv1.Diagnosis {
	n, queued := p.queue()
	idle, known := p.number("workers.idle")
	if !queued || n <= 2 || !known || idle == 0 {
		return nil
	}
	certainty := possible // with min workers 0, idle ones are cached and not started
	if p.throughout("workers.idle", idleWait, 1, math.Inf(1)) && p.throughout("jobs.in_queue", idleWait, 1, math.Inf(1)) {
		certainty = likely
	}
	return p.found(notTaken, certainty, "%s %s idle while %s %s: jobs are not handed out.", upper(count(idle, "worker")), are(idle), count(n, "job"), wait(n)).
		fact("workers.idle", "jobs.in_queue", "workers.running").do(
		"Update RunPod's SDK: versions 1.7.11 to 1.10.0 with a network volume send all jobs to one worker.",
		"Restart the endpoint's workers.",
		"See whether the scaler asks for more: a lower request count or queue delay in the endpoint's settings.",
	).done()
}

// isSaturated looks for an endpoint that does what it can.
func isSaturated(p *patient) *alertv1.Diagnosis {
	n, queued := p.queue()
	running, known := p.number("workers.running")
	most, set := p.number("workers.max")
	if !queued || !known || !set || most == 0 || running < most || p.some("workers.idle") {
		return nil
	}
	f := p.found(saturated, likely, "It does what it can: all %s %s busy and %s %s.", count(most, "worker"), are(most), count(n, "job"), wait(n)).
		fact("workers.running", "workers.max", "jobs.in_queue")
	if done, ok := p.rise("jobs.completed", stall); ok && done > 0 {
		f.d.Sentence += " At its present pace that is " + span(time.Duration(n/done*float64(stall))) + " of work."
	}
	return f.do(
		"Raise max workers if the wait matters.",
		"See whether jobs take longer than they did; smaller or fewer steps for each help as much as workers.",
	).done()
}

// hasUnhealthy looks for sick workers that nobody misses yet.
func hasUnhealthy(p *patient) *alertv1.Diagnosis {
	sick, known := p.number("workers.unhealthy")
	if _, queued := p.queue(); !known || sick == 0 || queued {
		return nil
	}
	return p.found(unhealthy, likely, "%s %s unhealthy, while no job is known to wait.", upper(count(sick, "worker")), are(sick)).
		fact("workers.unhealthy", "jobs.in_queue", "workers.running").do(
		"Read the container log of an unhealthy worker.",
		"RunPod scales endpoints down whose workers stay unhealthy.",
	).done()
}

// isOff looks for an endpoint that the next job would hang in.
func isOff(p *patient) *alertv1.Diagnosis {
	if _, queued := p.queue(); queued || !p.none("workers.max") {
		return nil
	}
	return p.found(disabled, likely, "Max workers is 0: the next job would wait for ever. No job waits now, so it may be meant.").
		fact("workers.max", "jobs.in_queue").
		do("Set max workers before the next job comes. RunPod sets it to 0 after 7 days without requests.").done()
}

// was, has and upper write what a number of things did.
func was(n float64) string {
	if n == 1 {
		return "was"
	}
	return "were"
}

func has(n float64) string {
	if n == 1 {
		return "has"
	}
	return "have"
}

// upper begins a sentence. What begins one here is ASCII.
func upper(s string) string {
	if s == "" || s[0] < 'a' || s[0] > 'z' {
		return s
	}
	return string(s[0]-'a'+'A') + s[1:]
}
