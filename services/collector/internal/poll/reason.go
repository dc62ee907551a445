package poll

import (
	"errors"
	"time"

	"github.com/tocsin-dev/tocsin/internal/event"
	eventv1 "github.com/tocsin-dev/tocsin/proto/gen/tocsin/event/v1"
	"github.com/tocsin-dev/tocsin/services/collector/runpod"
)

// maxDetail bounds the sentence about a failure, in bytes.
const maxDetail = 512

// Failure is a poll that gave nothing that can be used.
type Failure struct {
	// Reason says why.
	Reason eventv1.PollFailureReason
	// Name is the short name of the reason in AccountPolled and metrics.
	Name string
	// Status is the HTTP status, 0 without an answer.
	Status int
	// Detail is a redacted sentence for people.
	Detail string
	// RetryAfter is how long RunPod, or the quota, asks to wait.
	RetryAfter time.Duration
}

var reasons = map[runpod.Kind]struct {
	reason eventv1.PollFailureReason
	name   string
}{
	runpod.Unauthorized: {eventv1.PollFailureReason_POLL_FAILURE_REASON_UNAUTHORIZED, "unauthorized"},
	runpod.Forbidden:    {eventv1.PollFailureReason_POLL_FAILURE_REASON_FORBIDDEN, "forbidden"},
	runpod.NotFound:     {eventv1.PollFailureReason_POLL_FAILURE_REASON_NOT_FOUND, "not_found"},
	runpod.RateLimited:  {eventv1.PollFailureReason_POLL_FAILURE_REASON_RATE_LIMITED, "rate_limited"},
	runpod.Server:       {eventv1.PollFailureReason_POLL_FAILURE_REASON_SERVER_ERROR, "server_error"},
	runpod.Timeout:      {eventv1.PollFailureReason_POLL_FAILURE_REASON_TIMEOUT, "timeout"},
	runpod.Network:      {eventv1.PollFailureReason_POLL_FAILURE_REASON_NETWORK, "network"},
	runpod.Malformed:    {eventv1.PollFailureReason_POLL_FAILURE_REASON_MALFORMED, "malformed"},
	runpod.TooLarge:     {eventv1.PollFailureReason_POLL_FAILURE_REASON_TOO_LARGE, "too_large"},
	runpod.Unexpected:   {eventv1.PollFailureReason_POLL_FAILURE_REASON_UNEXPECTED_STATUS, "unexpected_status"},
}

// FailureOf returns what the error of a call means for a poll. It reports false
// for a call that ended because the caller gave up, which says nothing about
// RunPod, and for no error.
func FailureOf(err error) (Failure, bool) {
	e, ok := errors.AsType[*runpod.Error](err)
	if err == nil || runpod.KindOf(err) == runpod.Canceled {
		return Failure{}, false
	}
	if !ok {
		e = &runpod.Error{Kind: runpod.Network}
	}
	known, ok := reasons[e.Kind]
	if !ok {
		known = reasons[runpod.Unexpected]
	}
	return Failure{
		Reason:     known.reason,
		Name:       known.name,
		Status:     e.Status,
		Detail:     event.RedactTo(err.Error(), maxDetail),
		RetryAfter: e.RetryAfter,
	}, true
}

// Gone reports whether RunPod does not know what was asked about.
func (f Failure) Gone() bool {
	return f.Reason == eventv1.PollFailureReason_POLL_FAILURE_REASON_NOT_FOUND
}

// General reports whether the cause lies with the way to RunPod or the key, so that
// any other call fails as well.
func (f Failure) General() bool {
	switch f.Reason {
	case eventv1.PollFailureReason_POLL_FAILURE_REASON_UNAUTHORIZED, eventv1.PollFailureReason_POLL_FAILURE_REASON_RATE_LIMITED,
		eventv1.PollFailureReason_POLL_FAILURE_REASON_TIMEOUT, eventv1.PollFailureReason_POLL_FAILURE_REASON_NETWORK:
		return true
	default:
		return false
	}
}

// Limited reports whether RunPod, or the quota, asks for fewer calls.
func (f Failure) Limited() bool {
	return f.Reason == eventv1.PollFailureReason_POLL_FAILURE_REASON_RATE_LIMITED
}

// Refused reports whether the key is the cause: waiting cures nothing, and a
// refusal costs RunPod little, so that no pause follows.
func (f Failure) Refused() bool {
	return f.Reason == eventv1.PollFailureReason_POLL_FAILURE_REASON_UNAUTHORIZED ||
		f.Reason == eventv1.PollFailureReason_POLL_FAILURE_REASON_FORBIDDEN
}

// Event returns the failure as a fact about target; slot is when the poll was
// due and at when it failed.
func (f Failure) Event(target *eventv1.Target, kind eventv1.PollKind, slot time.Time) *eventv1.Event {
	return &eventv1.Event{
		Target: target,
		Source: eventv1.Source_SOURCE_POLL,
		Fact: &eventv1.Event_PollFailed{PollFailed: &eventv1.PollFailed{
			Kind: kind, Reason: f.Reason, StatusCode: int32(f.Status), Detail: f.Detail,
			PollSlotMs: slot.UnixMilli(),
		}},
	}
}
