package bus

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// Kinds of refusal, for errors.Is.
var (
	// ErrClosed means that the Conn, or the Publisher, was closed.
	ErrClosed = errors.New("bus closed")
	// ErrStreamNotFound means that there is no such stream on the server.
	ErrStreamNotFound = errors.New("stream not found")
	// ErrStreamReplaced means that, during a read, the stream was replaced or
	// cut: it was removed and created anew, or lost its last messages, as a server
	// restored from a backup does. Sequences before and after have nothing in
	// common, and what was read may be gone.
	ErrStreamReplaced = errors.New("stream was replaced or cut")
	// ErrStreamFull means that the stream refuses new messages until old ones
	// leave it. Nothing was stored.
	ErrStreamFull = errors.New("stream is full")
	// ErrTooLarge means that the message exceeds what the server or the stream
	// takes. Nothing was stored, and no retry will change that.
	ErrTooLarge = errors.New("message is too large")
	// ErrWrongSequence means that the subject's, or the key's, last sequence is
	// not the expected one. Nothing was stored.
	ErrWrongSequence = errors.New("wrong last sequence")
	// ErrWriteInFlight means that another write to the subject is not settled
	// yet (replicated streams only). Nothing was stored: read, then try again.
	ErrWriteInFlight = errors.New("another write to the subject is in flight")
	// ErrUnknownOutcome means that no answer came: the message may be stored or
	// not. Read before trying again.
	ErrUnknownOutcome = errors.New("outcome unknown")
	// ErrDuplicate means that an atomic batch holds an ID that the stream knows:
	// the whole batch was stored before, or one stray ID was. Nothing was stored.
	ErrDuplicate = errors.New("batch holds a message id that is already stored")
	// ErrDamaged means that an object's content is not what was stored: some of it
	// is gone, or it does not match its digest. No retry will change that.
	ErrDamaged = errors.New("object is damaged")
	// ErrExists means that the key already has a value.
	ErrExists = errors.New("key exists")
)

// errDisconnected ends the waits of a connection that was lost.
var errDisconnected = errors.New("connection to NATS lost")

// Codes of JetStream's API that nats.go has no names for.
const (
	codeStorageExceeded    = 10047 // the server's disk reservation
	codeAccountExceeded    = 10002 // the account's limit
	codeStoreFailed        = 10077 // the stream's own limit: "maximum bytes exceeded", ...
	codeDuplicateInProcess = 10158 // the first message with this id is not settled
	codeBatchHasDuplicate  = 10201
	codeStreamMaxBytes     = 10122 // the account's limit on one stream's MaxBytes
)

// HTTP-like statuses of JetStream's refusals.
const (
	statusTooManyRequests = 429
	statusServerErrors    = 500 // and above
	statusUnavailable     = 503
)

// Descriptions that come with codeStoreFailed when a limit of the stream is
// reached; the same code also reports failing disks.
const (
	maxBytesExceeded      = "maximum bytes exceeded"
	maxMessagesExceeded   = "maximum messages exceeded"
	maxPerSubjectExceeded = "maximum messages per subject exceeded"
)

// Setting is one setting of a stream that differs from what is needed.
type Setting struct {
	// Name is the setting's name in JetStream's API, such as max_age.
	Name string
	// Have is the value on the server.
	Have string
	// Want is the value that Tocsin needs.
	Want string
}

// MismatchError reports every setting of an existing stream or bucket that
// differs from what is needed. The stream is left as it is: its owner decides.
type MismatchError struct {
	// Stream is the name of the stream; a bucket's begins with KV_ or OBJ_.
	Stream string
	// Settings lists what differs, ordered by name.
	Settings []Setting
}

// Error names the stream and each setting with both values, and says what to do.
func (e *MismatchError) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "stream %q has other settings than needed and was left unchanged:", e.Stream)
	for _, s := range e.Settings {
		fmt.Fprintf(&b, " %s is %s, want %s;", s.Name, s.Have, s.Want)
	}
	b.WriteString(" edit the stream with the nats tool, or set Tocsin to what it has")
	return b.String()
}

// apiError returns the refusal of the server inside err, or nil.
func apiError(err error) *jetstream.APIError {
	if api, ok := errors.AsType[*jetstream.APIError](err); ok {
		return api
	}
	if js, ok := errors.AsType[jetstream.JetStreamError](err); ok {
		return js.APIError()
	}
	return nil
}

// translate gives err the kind that callers may ask for. Errors that have
// none come back as they are.
func translate(err error) error {
	if err == nil {
		return nil
	}
	if kind := kindOf(err); kind != nil && !errors.Is(err, kind) {
		return fmt.Errorf("%w: %w", kind, err)
	}
	return err
}

func kindOf(err error) error {
	switch {
	case errors.Is(err, nats.ErrConnectionClosed), errors.Is(err, ErrClosed):
		return ErrClosed
	case errors.Is(err, nats.ErrMaxPayload):
		return ErrTooLarge
	}
	api := apiError(err)
	if api == nil {
		return nil
	}
	switch api.ErrorCode {
	case jetstream.JSErrCodeStreamWrongLastSequence:
		return ErrWrongSequence
	case jetstream.JSErrCodeStreamWrongLastSequenceConstant:
		return ErrWriteInFlight
	case jetstream.JSErrCodeStreamMessageExceedsMaximum:
		return ErrTooLarge
	case jetstream.JSErrCodeStreamNotFound:
		return ErrStreamNotFound
	case codeBatchHasDuplicate:
		return ErrDuplicate
	case codeAccountExceeded, codeStorageExceeded:
		return ErrStreamFull
	case codeStoreFailed:
		switch api.Description {
		case maxBytesExceeded, maxMessagesExceeded, maxPerSubjectExceeded:
			return ErrStreamFull
		}
	}
	return nil
}

// refused reports whether err is the server's final word: the same request
// would be refused again, and nothing was stored.
func refused(err error) bool {
	switch kind := kindOf(err); {
	case errors.Is(kind, ErrStreamFull), errors.Is(kind, ErrWriteInFlight), errors.Is(kind, ErrStreamNotFound):
		return false
	case kind != nil, errors.Is(err, nats.ErrBadSubject), errors.Is(err, nats.ErrInvalidMsg):
		return true
	}
	api := apiError(err)
	return api != nil && api.ErrorCode != codeDuplicateInProcess &&
		api.Code != statusTooManyRequests && api.Code < statusServerErrors
}

// passing reports whether an idempotent request that met err is worth
// repeating: the server was out of reach, or not ready.
func passing(err error) bool {
	for _, cause := range []error{
		errDisconnected, context.DeadlineExceeded, nats.ErrTimeout, nats.ErrNoResponders,
		nats.ErrDisconnected, nats.ErrReconnectBufExceeded, nats.ErrConnectionReconnecting,
		nats.ErrStaleConnection, jetstream.ErrNoStreamResponse,
	} {
		if errors.Is(err, cause) {
			return true
		}
	}
	if errors.Is(err, jetstream.ErrJetStreamNotEnabled) || errors.Is(err, jetstream.ErrJetStreamNotEnabledForAccount) {
		return false
	}
	api := apiError(err)
	return api != nil && (api.Code == statusUnavailable || api.Code == statusTooManyRequests)
}

// homeless reports whether err may mean that the stream of a request does not
// exist: the server says so, or nobody took the request.
func homeless(err error) bool {
	for _, is := range []error{
		ErrStreamNotFound, jetstream.ErrStreamNotFound, jetstream.ErrNoStreamResponse, nats.ErrNoResponders,
		nats.ErrStreamNotFound, // of the parts of nats.go that stand on its older API
	} {
		if errors.Is(err, is) {
			return true
		}
	}
	return errors.Is(kindOf(err), ErrStreamNotFound)
}

// unknown reports whether err leaves open what became of a request: it is not
// the server's answer.
func unknown(err error) bool {
	return apiError(err) == nil && kindOf(err) == nil && !refused(err)
}

// reason names the cause of a retry for the metrics.
func reason(err error) string {
	switch {
	case errors.Is(err, ErrStreamFull):
		return "full"
	case errors.Is(err, errDisconnected), errors.Is(err, nats.ErrReconnectBufExceeded),
		errors.Is(err, nats.ErrDisconnected):
		return "disconnected"
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, nats.ErrTimeout):
		return "timeout"
	default:
		return "unavailable"
	}
}
