package diagnosis

import (
	"time"

	eventv1 "github.com/tocsin-dev/tocsin/proto/gen/tocsin/event/v1"
)

// Course is a field whose recent course a diagnosis looks at.
type Course struct {
	// Field is its name.
	Field string
	// Width is how much of it is looked at, at most.
	Width time.Duration
}

// Courses lists what a diagnosis of a kind of target looks at besides its latest
// values. What is not kept of it makes an answer less sure, or general.
func Courses(kind eventv1.TargetKind) []Course {
	const minutes, hour = FailWindow, time.Hour
	switch kind {
	case eventv1.TargetKind_TARGET_KIND_ENDPOINT:
		return []Course{
			{"jobs.in_queue", hour},
			{"jobs.completed", minutes},
			{"jobs.failed", minutes},
			{"jobs.retried", minutes},
			{"workers.running", hour},
			{"workers.idle", minutes},
			{"workers.initializing", hour},
			{"workers.throttled", minutes},
			{"workers.unhealthy", minutes},
		}
	case eventv1.TargetKind_TARGET_KIND_POD:
		return []Course{{"gpu.util_max", 2 * hour}, {"cpu.util_percent", 2 * hour}, {"pod.restarts", minutes}}
	default:
		return []Course{
			{"polls.ok", round},
			{"polls.unauthorized", round},
			{"polls.forbidden", round},
			{"polls.rate_limited", round},
			{"polls.server_error", round},
			{"polls.timeout", round},
			{"polls.network", round},
			{"polls.malformed", round},
		}
	}
}
