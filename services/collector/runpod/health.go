package runpod

import (
	"encoding/json"
	"errors"
	"fmt"
)

// Health are the counts of a queue endpoint at one instant. Each count is nil
// when RunPod did not send it.
type Health struct {
	// Jobs counts jobs.
	Jobs HealthJobs
	// Workers counts workers by state.
	Workers HealthWorkers
}

// HealthJobs counts the jobs of an endpoint. Completed, Failed and Retried only
// grow, since the endpoint was made; InProgress and InQueue are the present.
type HealthJobs struct {
	Completed  *int64
	Failed     *int64
	InProgress *int64
	InQueue    *int64
	Retried    *int64
}

// HealthWorkers counts the workers of an endpoint. Idle and Ready count the same
// workers, so the counts must never be summed.
type HealthWorkers struct {
	Idle         *int64
	Initializing *int64
	Ready        *int64
	Running      *int64
	Throttled    *int64
	Unhealthy    *int64
}

func decodeHealth(body []byte) (Health, error) {
	var w struct {
		Jobs    map[string]json.RawMessage `json:"jobs"`
		Workers map[string]json.RawMessage `json:"workers"`
	}
	if err := json.Unmarshal(body, &w); err != nil {
		return Health{}, jsonError(err)
	}
	var errs []error
	if w.Jobs == nil {
		errs = append(errs, errors.New("jobs is missing"))
	}
	if w.Workers == nil {
		errs = append(errs, errors.New("workers is missing"))
	}
	count := func(name string, from map[string]json.RawMessage) *int64 {
		raw, ok := from[name]
		if !ok || string(raw) == "null" {
			return nil
		}
		var n whole
		if err := json.Unmarshal(raw, &n); err != nil || n.n == nil || *n.n < 0 {
			errs = append(errs, fmt.Errorf("%s is not a count", name))
			return nil
		}
		return n.n
	}
	h := Health{
		Jobs: HealthJobs{
			Completed: count("completed", w.Jobs), Failed: count("failed", w.Jobs),
			InProgress: count("inProgress", w.Jobs), InQueue: count("inQueue", w.Jobs),
			Retried: count("retried", w.Jobs),
		},
		Workers: HealthWorkers{
			Idle: count("idle", w.Workers), Initializing: count("initializing", w.Workers),
			Ready: count("ready", w.Workers), Running: count("running", w.Workers),
			Throttled: count("throttled", w.Workers), Unhealthy: count("unhealthy", w.Workers),
		},
	}
	if len(errs) > 0 {
		return Health{}, errors.Join(errs...)
	}
	return h, nil
}
