package sim

import (
	"encoding/json"
	"fmt"
	"time"
)

const (
	// keepAsync and keepSync are how long RunPod keeps what ended.
	keepAsync = 30 * time.Minute
	keepSync  = time.Minute
	// crashRetries is how often RunPod tries a job whose worker dies.
	crashRetries = 3
)

// Outcome says how a job ends. The failures have the names of the categories
// that a monitor should find.
type Outcome string

// The outcomes of a job.
const (
	// OutcomeOK completes.
	OutcomeOK Outcome = "ok"
	// OutcomeValidation fails because the input lacks something.
	OutcomeValidation Outcome = "validation"
	// OutcomeTimeout fails when the execution timeout has passed.
	OutcomeTimeout Outcome = "timeout"
	// OutcomeOOM fails because the GPU's memory is full.
	OutcomeOOM Outcome = "oom"
	// OutcomeCrash fails because the worker died again and again.
	OutcomeCrash Outcome = "crash"
	// OutcomeHandler fails with an exception of the handler.
	OutcomeHandler Outcome = "handler"
	// OutcomeUnknown fails without saying why.
	OutcomeUnknown Outcome = "unknown"
)

type outcomeShare struct {
	outcome Outcome
	weight  float64
}

// JobOptions describe a job to submit.
type JobOptions struct {
	// Input is any JSON, {} when empty.
	Input json.RawMessage
	// Webhook is where the result is posted, a loopback URL; "" for nowhere.
	// [Sim.Run] posts it.
	Webhook string
	// Outcome is how the job ends; when empty the endpoint decides.
	Outcome Outcome
	// Execution is how long it runs; when zero the endpoint decides.
	Execution time.Duration
	// Sync keeps the result for a minute only, as /runsync does.
	Sync bool
}

// job is one job; times are simulated, since the scenario began.
type job struct {
	id      string
	opts    JobOptions
	status  string
	outcome Outcome // decided when it starts
	worker  string
	retries int

	submitted, started, ended time.Duration
}

func (j *job) final() bool {
	switch j.status {
	case statusCompleted, statusFailed, statusCancelled:
		return true
	default:
		return false
	}
}

func (j *job) keep() time.Duration {
	if j.opts.Sync {
		return keepSync
	}
	return keepAsync
}

const (
	statusQueued    = "IN_QUEUE"
	statusProgress  = "IN_PROGRESS"
	statusCompleted = "COMPLETED"
	statusFailed    = "FAILED"
	statusCancelled = "CANCELLED"
)

// wireJob is what /status answers; fields appear only when they exist.
type wireJob struct {
	DelayTime     *int64 `json:"delayTime,omitempty"`
	Error         string `json:"error,omitempty"`
	ExecutionTime *int64 `json:"executionTime,omitempty"`
	ID            string `json:"id"`
	Output        any    `json:"output,omitempty"`
	Retries       int    `json:"retries,omitempty"`
	Status        string `json:"status"`
	WorkerID      string `json:"workerId,omitempty"`
}

func (j *job) wire() wireJob {
	w := wireJob{ID: j.id, Status: j.status, WorkerID: j.worker, Retries: j.retries}
	if j.started > 0 || j.worker != "" {
		w.DelayTime = millis(j.started - j.submitted)
	}
	switch j.status {
	case statusCompleted:
		w.ExecutionTime = millis(j.ended - j.started)
		w.Output = map[string]any{"image_url": "https://bucket.example/" + j.id + ".png"}
	case statusFailed:
		w.ExecutionTime = millis(j.ended - j.started)
		w.Error = j.outcome.errorText(j.worker)
	}
	return w
}

func millis(d time.Duration) *int64 {
	ms := d.Milliseconds()
	return &ms
}

// errorText is what RunPod puts into error for the outcome. Exceptions of the
// handler arrive as JSON within the string.
func (o Outcome) errorText(worker string) string {
	switch o {
	case OutcomeValidation:
		return raised(worker, "ValueError", "missing field 'prompt'", 17, "validate")
	case OutcomeTimeout:
		return "executionTimeout exceeded"
	case OutcomeOOM:
		return raised(worker, "torch.cuda.OutOfMemoryError",
			"CUDA out of memory. Tried to allocate 2.50 GiB. GPU 0 has a total capacity of 23.65 GiB", 88, "generate")
	case OutcomeCrash:
		return fmt.Sprintf("job timed out after %d retries", crashRetries)
	case OutcomeHandler:
		return raised(worker, "KeyError", "'scheduler'", 61, "load_pipeline")
	default:
		return "internal error"
	}
}

func raised(worker, kind, message string, line int, function string) string {
	trace := fmt.Sprintf("Traceback (most recent call last):\n"+
		"  File \"/usr/local/lib/python3.11/site-packages/runpod/serverless/modules/rp_job.py\", line 182, in run_job\n"+
		"    handler_return = handler(job)\n"+
		"  File \"/app/handler.py\", line %d, in %s\n    raise_it(job)\n", line, function)
	text, err := json.Marshal(map[string]string{
		"error_type": fmt.Sprintf("<class '%s'>", kind), "error_message": message, "error_traceback": trace,
		"hostname": worker + "-host", "worker_id": worker, "runpod_version": "1.12.0",
	})
	if err != nil { // a map of strings always encodes
		panic(err)
	}
	return string(text)
}
