// Package diagnosis says what is probably wrong with a target: RunPod's own triage
// as code. A crash loop comes before a lack of capacity and that before a cold
// start, since each looks like the next from outside: jobs wait and none runs.
// RunPod's maintainers found four of five reported "capacity timeouts" to be
// containers that crash.
//
// It promises that the same facts give the same answer, that a missing value is
// never taken for zero, and that there always is an answer: "nothing wrong is seen"
// and "nobody can know" are two.
package diagnosis

import (
	"slices"
	"time"

	alertv1 "github.com/tocsin-dev/tocsin/proto/gen/tocsin/alert/v1"
	eventv1 "github.com/tocsin-dev/tocsin/proto/gen/tocsin/event/v1"
)

// Point is one step of the course of a number. It holds until the next.
type Point struct {
	// At is when it began.
	At time.Time
	// Value is the number, nothing unless Known.
	Value float64
	// Known says that there was a value.
	Known bool
}

// Errors are failed jobs of one category.
type Errors struct {
	// Category is its short name: validation, timeout, oom, crash, handler, unknown.
	Category string
	// Count is how many failed lately: within the hour before.
	Count int64
	// Recent is how many of them failed within FailWindow.
	Recent int64
	// Last is when the newest failed.
	Last time.Time
	// Message is the newest message, redacted.
	Message string
	// JobIDs are some of them, newest first.
	JobIDs []string
}

// Target is all that is known of one target. Instants are of one clock.
type Target struct {
	// Kind is what it is.
	Kind eventv1.TargetKind
	// Labels are those that the configuration gives it.
	Labels map[string]string
	// Numbers are the latest values of numeric fields that have one, by name.
	Numbers map[string]float64
	// Texts are the latest values of the other fields that have one.
	Texts map[string]string
	// Settings are the fields that are settings: they have no age.
	Settings map[string]bool
	// Sampled is when it was last sampled; zero if never.
	Sampled time.Time
	// Holds says that what the last sample said is still so.
	Holds bool
	// Failure is the last failed poll if it is newer than the last sample, or nil.
	Failure *eventv1.PollFailed
	// Series is the recent course of numbers by field, oldest first. Of counters it is
	// what was added since first sight.
	Series map[string][]Point
	// Errors are the failed jobs by category, most first.
	Errors []Errors
	// Category is the category that is asked about; empty for the whole target.
	Category string
}

// The causes and certainties, in short.
const (
	nothing        = alertv1.DiagnosisCause_DIAGNOSIS_CAUSE_NOTHING
	unknown        = alertv1.DiagnosisCause_DIAGNOSIS_CAUSE_UNKNOWN
	unreachable    = alertv1.DiagnosisCause_DIAGNOSIS_CAUSE_UNREACHABLE
	keyRejected    = alertv1.DiagnosisCause_DIAGNOSIS_CAUSE_KEY_REJECTED
	scopeMissing   = alertv1.DiagnosisCause_DIAGNOSIS_CAUSE_SCOPE_MISSING
	runpodDown     = alertv1.DiagnosisCause_DIAGNOSIS_CAUSE_RUNPOD_DOWN
	rateLimited    = alertv1.DiagnosisCause_DIAGNOSIS_CAUSE_RATE_LIMITED
	shrunk         = alertv1.DiagnosisCause_DIAGNOSIS_CAUSE_INVENTORY_SHRUNK
	disabled       = alertv1.DiagnosisCause_DIAGNOSIS_CAUSE_DISABLED
	crashLoop      = alertv1.DiagnosisCause_DIAGNOSIS_CAUSE_CRASH_LOOP
	noCapacity     = alertv1.DiagnosisCause_DIAGNOSIS_CAUSE_NO_CAPACITY
	fromZero       = alertv1.DiagnosisCause_DIAGNOSIS_CAUSE_SCALING_FROM_ZERO
	coldStart      = alertv1.DiagnosisCause_DIAGNOSIS_CAUSE_COLD_START
	jobsOOM        = alertv1.DiagnosisCause_DIAGNOSIS_CAUSE_JOBS_OOM
	jobsTimeout    = alertv1.DiagnosisCause_DIAGNOSIS_CAUSE_JOBS_TIMEOUT
	jobsRefused    = alertv1.DiagnosisCause_DIAGNOSIS_CAUSE_JOBS_REFUSED
	jobsHandler    = alertv1.DiagnosisCause_DIAGNOSIS_CAUSE_JOBS_HANDLER
	jobsCrash      = alertv1.DiagnosisCause_DIAGNOSIS_CAUSE_JOBS_CRASH
	jobsFailing    = alertv1.DiagnosisCause_DIAGNOSIS_CAUSE_JOBS_FAILING
	noProgress     = alertv1.DiagnosisCause_DIAGNOSIS_CAUSE_NO_PROGRESS
	notTaken       = alertv1.DiagnosisCause_DIAGNOSIS_CAUSE_NOT_TAKEN
	saturated      = alertv1.DiagnosisCause_DIAGNOSIS_CAUSE_SATURATED
	unhealthy      = alertv1.DiagnosisCause_DIAGNOSIS_CAUSE_UNHEALTHY_WORKERS
	podDown        = alertv1.DiagnosisCause_DIAGNOSIS_CAUSE_POD_DOWN
	podStarting    = alertv1.DiagnosisCause_DIAGNOSIS_CAUSE_POD_STARTING
	podRestarting  = alertv1.DiagnosisCause_DIAGNOSIS_CAUSE_POD_RESTARTING
	gpuMissing     = alertv1.DiagnosisCause_DIAGNOSIS_CAUSE_GPU_MISSING
	gpuIdle        = alertv1.DiagnosisCause_DIAGNOSIS_CAUSE_GPU_IDLE
	memoryFull     = alertv1.DiagnosisCause_DIAGNOSIS_CAUSE_MEMORY_FULL
	possible       = alertv1.Certainty_CERTAINTY_POSSIBLE
	likely         = alertv1.Certainty_CERTAINTY_LIKELY
	sure           = alertv1.Certainty_CERTAINTY_SURE
	maxAlternative = 4 // more than that is no help
)

// check looks for one cause, and returns nil where nothing speaks for it.
type check func(*patient) *alertv1.Diagnosis

// Diagnose says what is probably wrong with a target. It never returns nil.
func Diagnose(t Target, now time.Time) *alertv1.Diagnosis {
	p := &patient{Target: t, now: now}
	if d := p.silent(); d != nil {
		return d // whatever its last values were, nobody knows what is so now
	}
	var found *alertv1.Diagnosis
	for _, c := range p.checks() {
		d := c(p)
		switch {
		case d == nil:
		case found == nil:
			found = d
		case d.GetCause() != found.GetCause() && !slices.Contains(found.GetAlternatives(), d.GetCause()) && len(found.GetAlternatives()) < maxAlternative:
			found.Alternatives = append(found.Alternatives, d.GetCause())
		}
	}
	if found == nil {
		found = p.well()
	}
	return found
}

// checks are what may be wrong with a kind of target, in the order of the triage.
func (p *patient) checks() []check {
	switch p.Kind {
	case eventv1.TargetKind_TARGET_KIND_ENDPOINT:
		all := []check{
			cannotStart, crashes, lacksCapacity, startsCold, failing, standsStill, takesNothing, isSaturated, hasUnhealthy, isOff,
		}
		if p.Category != "" {
			// Asked about failed jobs, they are the answer, whatever else is so.
			all = append([]check{failing}, all...)
		}
		return all
	case eventv1.TargetKind_TARGET_KIND_POD:
		return []check{isGone, isDown, isStarting, restarts, lacksGPU, isFull, idles}
	default:
		return []check{keyIsRejected, scopeIsMissing, apiIsDown, tooManyPolls, vanished}
	}
}

// well is the answer where no cause was found.
func (p *patient) well() *alertv1.Diagnosis {
	var missing []string
	for _, name := range needed[p.Kind] {
		if _, number := p.Numbers[name]; !number {
			if _, text := p.Texts[name]; !text {
				missing = append(missing, name)
			}
		}
	}
	if len(missing) > 0 {
		return p.found(unknown, possible, "What would tell is missing: RunPod answers without %s.", list(missing)).
			do("Look at the target in RunPod's console: without these values nothing can be said here.").done()
	}
	d := p.found(nothing, likely, "Nothing wrong is seen.")
	for _, name := range needed[p.Kind] {
		d.fact(name)
	}
	return d.done()
}

// needed are the fields without which a kind of target cannot be called well.
var needed = map[eventv1.TargetKind][]string{
	eventv1.TargetKind_TARGET_KIND_ENDPOINT: {"jobs.in_queue", "workers.running"},
	eventv1.TargetKind_TARGET_KIND_POD:      {"pod.status"},
	eventv1.TargetKind_TARGET_KIND_ACCOUNT:  {"polls.ok", "polls.failed"},
}
