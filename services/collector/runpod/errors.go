package runpod

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/tocsin-dev/tocsin/internal/event"
)

// Kind says what went wrong with a call. Its values are stable: they name the
// reason in events and metrics.
type Kind string

// The kinds of failure.
const (
	// Unauthorized means that RunPod does not know the key (401).
	Unauthorized Kind = "unauthorized"
	// Forbidden means that the key is good and lacks a permission (403).
	Forbidden Kind = "forbidden"
	// NotFound means that RunPod does not know the id (404).
	NotFound Kind = "not_found"
	// RateLimited means that RunPod refused the call (429), or that the client
	// did not make it because the quota is used up (Status is 0 then).
	RateLimited Kind = "rate_limited"
	// Server means that RunPod failed (5xx).
	Server Kind = "server"
	// Timeout means that the call, its body included, did not end in time.
	Timeout Kind = "timeout"
	// Network means that the connection failed.
	Network Kind = "network"
	// Malformed means that the answer is not JSON or lacks what it must hold.
	Malformed Kind = "malformed"
	// TooLarge means that the answer exceeds its bound.
	TooLarge Kind = "too_large"
	// Unexpected means a status that this client does not know, a redirect
	// among them.
	Unexpected Kind = "unexpected_status"
	// Canceled means that the caller gave up.
	Canceled Kind = "canceled"
)

// Error is the one error that the calls of [Client] return. Its text holds
// neither the key nor anything else secret.
type Error struct {
	// Op is what was being done, such as "list pods".
	Op string
	// Kind is what went wrong.
	Kind Kind
	// Status is the HTTP status, 0 when there was no answer.
	Status int
	// RetryAfter is how long RunPod, or the quota, asks to wait; 0 when it does
	// not say.
	RetryAfter time.Duration
	// Detail is the server's or the client's explanation: redacted, one line, at
	// most 256 bytes, perhaps empty.
	Detail string
	// Err is the cause, nil when the answer itself is the failure.
	Err error
}

// Error returns one line: what was done, the kind, the status and the detail.
func (e *Error) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s: %s", e.Op, strings.ReplaceAll(string(e.Kind), "_", " "))
	if e.Status != 0 {
		fmt.Fprintf(&b, " (%d)", e.Status)
	}
	if e.Detail != "" {
		b.WriteString(": ")
		b.WriteString(e.Detail)
	}
	if e.RetryAfter > 0 {
		fmt.Fprintf(&b, ", retry after %v", e.RetryAfter)
	}
	return b.String()
}

// Unwrap returns the cause, so that [errors.Is] finds context.Canceled and
// context.DeadlineExceeded.
func (e *Error) Unwrap() error { return e.Err }

// KindOf returns the kind of the [Error] in err's chain, "" when there is none.
func KindOf(err error) Kind {
	if e, ok := errors.AsType[*Error](err); ok {
		return e.Kind
	}
	return ""
}

// maxDetailBytes keeps a detail on one terminal line or two.
const maxDetailBytes = 256

func kindOfStatus(status int) Kind {
	switch {
	case status == 401:
		return Unauthorized
	case status == 403:
		return Forbidden
	case status == 404:
		return NotFound
	case status == 429:
		return RateLimited
	case status >= 500:
		return Server
	default:
		return Unexpected
	}
}

// detailOf extracts the explanation from the body of a failed call:
// problem+json, the {"error"} or {"message"} of older APIs, or plain text.
func (c *Client) detailOf(body []byte) string {
	var problem struct {
		Title, Detail  string
		Error, Message any
	}
	text := ""
	if json.Unmarshal(body, &problem) == nil {
		for _, candidate := range []any{problem.Detail, problem.Error, problem.Message, problem.Title} {
			if s, ok := candidate.(string); ok && s != "" {
				text = s
				break
			}
		}
	} else if !strings.HasPrefix(strings.TrimSpace(string(body)), "<") { // an HTML page says nothing in one line
		text = string(body)
	}
	return c.clean(text)
}

// clean makes text fit for a detail: without secrets, in one line, bounded.
func (c *Client) clean(text string) string {
	return event.Line(string(event.Hide([]byte(text), c.key)), maxDetailBytes)
}

func (c *Client) malformed(op string, err error) *Error {
	kind := Malformed
	if errors.Is(err, errTooMany) {
		kind = TooLarge
	}
	return &Error{Op: op, Kind: kind, Status: 200, Detail: c.clean(err.Error())}
}
