package bus

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

func TestErrorsAreToldApart(t *testing.T) {
	api := func(status int, code jetstream.ErrorCode, description string) error {
		return fmt.Errorf("nats: %w", &jetstream.APIError{Code: status, ErrorCode: code, Description: description})
	}
	type verdict struct {
		kind                      error
		refused, passing, unknown bool
		reason                    string
	}
	tests := map[string]struct {
		err  error
		want verdict
	}{
		"a wrong sequence":                         {api(400, 10071, "wrong last sequence: 5"), verdict{kind: ErrWrongSequence, refused: true, reason: "unavailable"}},
		"a write in flight on a replicated stream": {api(400, 10164, "wrong last sequence"), verdict{kind: ErrWriteInFlight, reason: "unavailable"}},
		"a full stream":                            {api(503, 10077, "maximum bytes exceeded"), verdict{kind: ErrStreamFull, passing: true, reason: "full"}},
		"a failing disk":                           {api(503, 10077, "write /x: input/output error"), verdict{passing: true, reason: "unavailable"}},
		"a full account":                           {api(400, 10002, "resource limits exceeded for account"), verdict{kind: ErrStreamFull, reason: "full"}},
		"a full server":                            {api(500, 10047, "insufficient storage resources available"), verdict{kind: ErrStreamFull, reason: "full"}},
		"a large message":                          {api(400, 10054, "message size exceeds maximum allowed"), verdict{kind: ErrTooLarge, refused: true, reason: "unavailable"}},
		"a payload above the server's limit":       {nats.ErrMaxPayload, verdict{kind: ErrTooLarge, refused: true, reason: "unavailable"}},
		"an id whose first message is settled":     {api(409, 10158, "duplicate message id is in process"), verdict{reason: "unavailable"}},
		"a batch with a known id":                  {api(400, 10201, "atomic publish batch contains duplicate message id"), verdict{kind: ErrDuplicate, refused: true, reason: "unavailable"}},
		"no leader":                                {api(503, 10008, "JetStream system temporarily unavailable"), verdict{passing: true, reason: "unavailable"}},
		"too many requests":                        {api(429, 10167, "too many requests"), verdict{passing: true, reason: "unavailable"}},
		"no stream behind the subject":             {jetstream.ErrNoStreamResponse, verdict{passing: true, unknown: true, reason: "unavailable"}},
		"no such stream":                           {jetstream.ErrStreamNotFound, verdict{kind: ErrStreamNotFound, reason: "unavailable"}},
		"no JetStream":                             {jetstream.ErrJetStreamNotEnabled, verdict{reason: "unavailable"}},
		"a lost connection":                        {fmt.Errorf("%w: EOF", errDisconnected), verdict{passing: true, unknown: true, reason: "disconnected"}},
		"no connection":                            {nats.ErrReconnectBufExceeded, verdict{passing: true, unknown: true, reason: "disconnected"}},
		"a timeout":                                {context.DeadlineExceeded, verdict{passing: true, unknown: true, reason: "timeout"}},
		"a closed connection":                      {nats.ErrConnectionClosed, verdict{kind: ErrClosed, refused: true, reason: "unavailable"}},
		"a bad subject":                            {nats.ErrBadSubject, verdict{refused: true, reason: "unavailable"}},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			for _, err := range []error{test.err, translate(test.err), translate(translate(test.err))} {
				got := verdict{kindOf(err), refused(err), passing(err), unknown(err), reason(err)}
				if err == test.err { //nolint:errorlint // only the untranslated lacks its kind
					got.reason = reason(translate(err))
				}
				if got != test.want {
					t.Errorf("%v is %+v, want %+v", err, got, test.want)
				}
				if test.want.kind != nil && !errors.Is(translate(err), test.want.kind) {
					t.Errorf("%v lost its kind in translation", err)
				}
				if !errors.Is(translate(err), test.err) {
					t.Errorf("%v lost its cause in translation", err)
				}
			}
		})
	}
	if translate(nil) != nil {
		t.Error("no error became one")
	}
}

func TestSettleMarksOnlyWhatHasNoAnswer(t *testing.T) {
	answer := func(code jetstream.ErrorCode) error {
		return translate(&jetstream.APIError{Code: 400, ErrorCode: code})
	}
	tests := map[string]struct {
		err  error
		want bool
	}{
		"a lost connection":   {errDisconnected, true},
		"a cancelled context": {context.Canceled, true},
		"a timeout":           {context.DeadlineExceeded, true},
		"a closed connection": {ErrClosed, true},
		"a wrong sequence":    {answer(10071), false},
		"a full stream":       {answer(10047), false},
		"a large message":     {answer(10054), false},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			got := settle(fmt.Errorf("publish: %w", test.err))
			if errors.Is(got, ErrUnknownOutcome) != test.want {
				t.Errorf("%v: unknown should be %v", got, test.want)
			}
			if !errors.Is(got, test.err) {
				t.Errorf("%v lost its cause", got)
			}
		})
	}
}
