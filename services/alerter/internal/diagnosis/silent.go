package diagnosis

import (
	alertv1 "github.com/tocsin-dev/tocsin/proto/gen/tocsin/alert/v1"
	eventv1 "github.com/tocsin-dev/tocsin/proto/gen/tocsin/event/v1"
)

// silent answers where nothing is known of what is so now.
func (p *patient) silent() *alertv1.Diagnosis {
	switch {
	case p.Kind == eventv1.TargetKind_TARGET_KIND_ENDPOINT && p.Texts["endpoint.type"] == "load_balancer":
		// RunPod answers /health for endpoints with a queue only.
		return p.found(unknown, sure, "A load-balancing endpoint has no queue and no health counters that RunPod tells: nothing can be said of it.").
			do("Ask the workers themselves: GET /ping of the endpoint.").done()
	case p.Texts["pod.gone"] == "true":
		return nil // that nothing is heard of it is no wonder
	case p.Holds:
		return nil
	}
	var f *finding
	if p.Sampled.IsZero() {
		f = p.found(unreachable, sure, "Nothing was ever heard of it.")
	} else {
		silence := p.now.Sub(p.Sampled)
		f = p.found(unreachable, sure, "Nothing was heard of it for %s: what is so now is not known, and not that anything is wrong with it.", span(silence)).
			saw("last sample", span(silence)+" ago", p.Sampled)
	}
	if p.Failure == nil {
		return f.do("See whether the collector runs, and its metrics of failed polls.").done()
	}
	why, advice := pollFailure(p.Failure.GetReason())
	f.d.Sentence += " Its last poll failed: " + why + "."
	f.d.Facts = append(f.d.Facts, &alertv1.DiagnosisFact{Name: "last failed poll", Value: why})
	return f.do(advice).done()
}

// pollFailure says why a poll failed, and what to do.
func pollFailure(reason eventv1.PollFailureReason) (why, advice string) {
	switch reason {
	case eventv1.PollFailureReason_POLL_FAILURE_REASON_UNAUTHORIZED:
		return "RunPod rejects the API key (401)", "Give the collector a key that is valid."
	case eventv1.PollFailureReason_POLL_FAILURE_REASON_FORBIDDEN:
		return "the API key lacks a scope (403)", "Give the key read access to this target."
	case eventv1.PollFailureReason_POLL_FAILURE_REASON_NOT_FOUND:
		return "RunPod does not know it (404)", "See in RunPod's console whether it was deleted."
	case eventv1.PollFailureReason_POLL_FAILURE_REASON_RATE_LIMITED:
		return "too many requests (429)", "Poll more rarely, or find what else uses the account's budget of requests."
	case eventv1.PollFailureReason_POLL_FAILURE_REASON_SERVER_ERROR:
		return "RunPod's API fails (5xx)", "Wait, and see https://uptime.runpod.io."
	case eventv1.PollFailureReason_POLL_FAILURE_REASON_TIMEOUT:
		return "no answer in time", "See https://uptime.runpod.io, and the network between here and RunPod."
	case eventv1.PollFailureReason_POLL_FAILURE_REASON_NETWORK:
		return "no connection", "Look at the network between here and RunPod."
	default:
		return "the answer is not what the API promises", "Look at the collector's log."
	}
}
