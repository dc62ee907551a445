// Package fault names the kinds of failure that another process may learn about,
// and translates them to gRPC and HTTP in one place.
//
// Code deep inside says New(NotFound, ...) or Wrap(Unavailable, err); callers
// add context with fmt.Errorf and %w and ask with errors.Is(err, fault.NotFound).
// At the edge GRPC and WriteProblem turn the error into a status with a reason
// and a sentence. An error without a kind is internal: the outside learns that
// it happened and nothing else, and the one who translates logs it. FromGRPC
// gives the kind back on the other side of the wire.
package fault

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"google.golang.org/grpc/codes"
)

// Kind is a kind of failure. It is an error itself, so that errors.Is finds it.
type Kind int //nolint:errname // it classifies errors rather than being one that occurs

// The kinds. Internal is what every error without a kind is.
//
//nolint:errname // errors.Is(err, fault.NotFound) reads as a sentence; fault.ErrNotFound would stutter
const (
	// Internal is a failure of ours; its text is not shown outside.
	Internal Kind = iota
	// Invalid is a request that can never succeed as it is written.
	Invalid
	// Unauthenticated is a request without a valid token.
	Unauthenticated
	// PermissionDenied is a known caller who may not do this.
	PermissionDenied
	// NotFound is a thing that does not exist.
	NotFound
	// MethodNotAllowed is a path that exists, asked with the wrong method.
	MethodNotAllowed
	// Conflict is a request that lost against another; read again, then decide.
	Conflict
	// TooLarge is a request above a size limit.
	TooLarge
	// UnsupportedMedia is a body of a type that is not accepted.
	UnsupportedMedia
	// Permanent is a failure that no repetition will cure, whoever repeats it.
	Permanent
	// Exhausted is a quota or a bounded queue that is full; try later.
	Exhausted
	// Unavailable is something we need that does not answer; try later.
	Unavailable
	// Canceled is a request whose caller went away.
	Canceled
	// Timeout is a request that did not end before its deadline.
	Timeout
)

// statusClientClosed is the status that nginx made customary for a caller who
// went away; nobody is left to read it, but access logs and metrics are.
const statusClientClosed = 499

// kinds says how each kind is told outside.
var kinds = [...]struct {
	reason string
	title  string
	code   codes.Code
	status int
}{
	Internal:         {"INTERNAL", "internal error", codes.Internal, http.StatusInternalServerError},
	Invalid:          {"INVALID", "invalid request", codes.InvalidArgument, http.StatusBadRequest},
	Unauthenticated:  {"UNAUTHENTICATED", "not authenticated", codes.Unauthenticated, http.StatusUnauthorized},
	PermissionDenied: {"PERMISSION_DENIED", "permission denied", codes.PermissionDenied, http.StatusForbidden},
	NotFound:         {"NOT_FOUND", "not found", codes.NotFound, http.StatusNotFound},
	MethodNotAllowed: {"METHOD_NOT_ALLOWED", "method not allowed", codes.Unimplemented, http.StatusMethodNotAllowed},
	Conflict:         {"CONFLICT", "conflict", codes.Aborted, http.StatusConflict},
	TooLarge:         {"TOO_LARGE", "too large", codes.ResourceExhausted, http.StatusRequestEntityTooLarge},
	UnsupportedMedia: {"UNSUPPORTED_MEDIA", "unsupported media type", codes.InvalidArgument, http.StatusUnsupportedMediaType},
	Permanent:        {"PERMANENT", "cannot be done", codes.FailedPrecondition, http.StatusUnprocessableEntity},
	Exhausted:        {"EXHAUSTED", "too many requests", codes.ResourceExhausted, http.StatusTooManyRequests},
	Unavailable:      {"UNAVAILABLE", "unavailable", codes.Unavailable, http.StatusServiceUnavailable},
	Canceled:         {"CANCELED", "canceled", codes.Canceled, statusClientClosed},
	Timeout:          {"TIMEOUT", "timed out", codes.DeadlineExceeded, http.StatusGatewayTimeout},
}

// Error returns the kind in words, e.g. "not found".
func (k Kind) Error() string { return kinds[k].title }

// Reason returns the kind's constant name for machines, e.g. "NOT_FOUND".
func (k Kind) Reason() string { return kinds[k].reason }

// Code returns the gRPC code of the kind.
func (k Kind) Code() codes.Code { return kinds[k].code }

// Status returns the HTTP status of the kind.
func (k Kind) Status() int { return kinds[k].status }

// Error is an error with a kind, and what else the outside may learn about it.
type Error struct {
	// Kind is the kind of the failure.
	Kind Kind
	// Reason is a constant for machines that says more than the kind does, in
	// UPPER_SNAKE_CASE. Empty means the kind's own.
	Reason string
	// RetryAfter is how long the caller should wait. Zero says nothing.
	RetryAfter time.Duration
	// Err is the failure itself; its text is shown outside unless Kind is Internal.
	Err error
}

// Error returns the text of the failure, without the kind.
func (e *Error) Error() string { return e.Err.Error() }

// Unwrap returns the kind and the failure, so that errors.Is and errors.As find both.
func (e *Error) Unwrap() []error { return []error{e.Kind, e.Err} }

// New returns an error of the kind k that reads msg.
func New(k Kind, msg string) error { return &Error{Kind: k, Err: errors.New(msg)} }

// Newf returns an error of the kind k with a text in the manner of fmt.Errorf,
// %w included.
func Newf(k Kind, format string, args ...any) error {
	return &Error{Kind: k, Err: fmt.Errorf(format, args...)}
}

// Wrap gives err the kind k and keeps its text. It returns nil when err is nil.
func Wrap(k Kind, err error) error {
	if err == nil {
		return nil
	}
	return &Error{Kind: k, Err: err}
}

// WithReason gives err a reason for machines and keeps its kind and text. It
// returns nil when err is nil.
func WithReason(reason string, err error) error {
	if err == nil {
		return nil
	}
	return &Error{Kind: Of(err), Reason: reason, RetryAfter: retryAfter(err), Err: err}
}

// Of returns the kind of err: that of the outermost [Error] in its chain, or
// Canceled and Timeout for the errors of a context, or Internal.
func Of(err error) Kind {
	if e, ok := errors.AsType[*Error](err); ok {
		return e.Kind
	}
	if k, ok := errors.AsType[Kind](err); ok {
		return k
	}
	switch {
	case errors.Is(err, context.Canceled):
		return Canceled
	case errors.Is(err, context.DeadlineExceeded):
		return Timeout
	}
	return Internal
}

// IsPermanent reports whether no repetition of the same will cure err.
func IsPermanent(err error) bool {
	switch Of(err) {
	case Invalid, PermissionDenied, MethodNotAllowed, TooLarge, UnsupportedMedia, Permanent:
		return true
	default:
		return false
	}
}

// reasonOf returns the reason of err for machines.
func reasonOf(err error) string {
	if e, ok := errors.AsType[*Error](err); ok && e.Reason != "" {
		return e.Reason
	}
	return Of(err).Reason()
}

// retryAfter returns how long the caller should wait, or zero.
func retryAfter(err error) time.Duration {
	if e, ok := errors.AsType[*Error](err); ok {
		return e.RetryAfter
	}
	return 0
}

// visible returns the text of err that the outside may read.
func visible(err error) string {
	if k := Of(err); k == Internal {
		return k.Error()
	}
	return err.Error()
}
