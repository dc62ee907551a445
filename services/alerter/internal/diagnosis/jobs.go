package diagnosis

import (
	"fmt"
	"time"

	alertv1 "github.com/tocsin-dev/tocsin/proto/gen/tocsin/alert/v1"
)

const (
	// FailWindow is how recent failures must be to be what is wrong now.
	FailWindow = 15 * time.Minute
	// failLeast and failShare are from how many failed jobs on, and from what share of
	// those that ended, failures are what is wrong: any large endpoint has some.
	failLeast = 3
	failShare = 0.05
)

// ailment is what failures of a category mean, and what to do.
type ailment struct {
	cause  alertv1.DiagnosisCause
	what   string
	advice []string
}

// ailments are the meaning of each category of failures.
var ailments = map[string]ailment{
	"oom": {jobsOOM, "run out of memory", []string{
		"Make batches smaller, or inputs: images, contexts, frames.",
		"Choose a GPU with more memory, or a smaller or quantised model.",
		"See whether memory is freed between jobs: a leak fails later jobs first.",
	}},
	"timeout": {jobsTimeout, "run into their timeout", []string{
		"Set a longer execution timeout, in the endpoint's settings or a job's policy.executionTimeout.",
		"See whether the handler hangs, or waits for something else: a download, another service.",
		"Make jobs smaller, or use a faster GPU.",
	}},
	"validation": {jobsRefused, "are refused for their input", []string{
		"Look at what is submitted: the endpoint is well, its caller is not.",
		"See whether a new release changed what it asks for. An empty input is refused too.",
	}},
	"handler": {jobsHandler, "end with an error of the handler", []string{
		"Read the message and the place in the code below; the worker's log has the rest.",
		"Undo the last release if it began with it.",
	}},
	"crash": {jobsCrash, "end because their worker died", []string{
		"Read the container log of the worker that had the job: RunPod's own text (\"job timed out after N retries\") does not tell the cause.",
		"A worker that the system kills for memory leaves no message: look at the size of inputs.",
	}},
	"unknown": {jobsFailing, "fail", []string{
		"Ask RunPod for the status of one of the jobs below while it is kept (30 minutes), and read its worker's log.",
	}},
}

// failing looks for jobs that fail, by the category with most.
func failing(p *patient) *alertv1.Diagnosis {
	worst := p.worstErrors()
	failed, counted := p.rise("jobs.failed", FailWindow)
	done, ended := p.rise("jobs.completed", FailWindow)
	n := 0.0
	if counted {
		n = failed
	}
	if worst != nil {
		n = max(n, float64(worst.Recent)) // over the same window: a share has one
	}
	switch {
	case p.Category != "" && worst != nil: // that was the question
	case n == 0, worst == nil && !counted:
		return nil
	case ended && done == 0: // all that ended failed
	case n < failLeast, ended && n < failShare*(n+done):
		return nil
	}
	category := "unknown"
	if worst != nil {
		category = worst.Category
	}
	a, known := ailments[category]
	if !known {
		a = ailments["unknown"]
	}
	certainty := likely
	if worst == nil || category == "unknown" {
		certainty = possible
	}
	f := p.found(a.cause, certainty, "Jobs %s: %s", a.what, p.extent(worst, n, counted, done, ended))
	if worst != nil {
		f.errors(*worst)
	}
	switch a.cause {
	case jobsTimeout:
		f.fact("endpoint.execution_timeout_s")
	case jobsOOM:
		f.or(jobsCrash)
	case jobsCrash:
		f.or(jobsOOM) // RunPod's texts do not tell them apart
	}
	for _, e := range p.Errors {
		if worst != nil && e.Category != worst.Category && p.recent(e) {
			f.errors(e)
			f.or(ailments[e.Category].cause)
		}
	}
	return f.do(a.advice...).done()
}

// extent says how many jobs failed.
func (p *patient) extent(worst *Errors, failed float64, counted bool, done float64, ended bool) string {
	var text string
	switch {
	case counted && ended && failed > 0:
		text = fmt.Sprintf("%s failed and %s completed in the last %s.", count(failed, "job"), text0(done), span(FailWindow))
	case counted && failed > 0:
		text = fmt.Sprintf("%s failed in the last %s.", count(failed, "job"), span(FailWindow))
	default:
		return fmt.Sprintf("%s failed lately, the last %s ago.", count(float64(worst.Count), "followed job"), span(p.now.Sub(worst.Last)))
	}
	if worst == nil {
		text += " None of them is followed, so that nothing is known of their errors."
	}
	return text
}

// text0 writes a number of completed jobs.
func text0(n float64) string {
	if n == 0 {
		return "none"
	}
	return text(n)
}

// worstErrors returns the recent failures that are most, of the category that is
// asked about if one is; nil if there are none.
func (p *patient) worstErrors() *Errors {
	var worst *Errors
	for i, e := range p.Errors {
		switch {
		case p.Category != "" && e.Category != p.Category, p.Category == "" && !p.recent(e):
		case worst == nil || e.Recent > worst.Recent || e.Recent == worst.Recent && e.Count > worst.Count:
			worst = &p.Errors[i]
		}
	}
	return worst
}

// recent says that failures are what happens now.
func (p *patient) recent(e Errors) bool { return e.Count > 0 && p.now.Sub(e.Last) <= FailWindow }

// errors adds failed jobs of a category.
func (f *finding) errors(e Errors) {
	value := text(float64(e.Count))
	if e.Message != "" {
		value += ": " + e.Message
	}
	f.saw("failed jobs ("+e.Category+")", value, e.Last)
}
