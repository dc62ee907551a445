package fault_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/tocsin-dev/tocsin/internal/fault"
)

// told is how each kind reads outside, written out once more so that a change
// of what callers may rely on is seen.
var told = map[fault.Kind]struct {
	code   codes.Code
	status int
	title  string
	reason string
}{
	fault.Internal:         {codes.Internal, 500, "Internal Server Error", "INTERNAL"},
	fault.Invalid:          {codes.InvalidArgument, 400, "Bad Request", "INVALID"},
	fault.Unauthenticated:  {codes.Unauthenticated, 401, "Unauthorized", "UNAUTHENTICATED"},
	fault.PermissionDenied: {codes.PermissionDenied, 403, "Forbidden", "PERMISSION_DENIED"},
	fault.NotFound:         {codes.NotFound, 404, "Not Found", "NOT_FOUND"},
	fault.MethodNotAllowed: {codes.Unimplemented, 405, "Method Not Allowed", "METHOD_NOT_ALLOWED"},
	fault.Conflict:         {codes.Aborted, 409, "Conflict", "CONFLICT"},
	fault.TooLarge:         {codes.ResourceExhausted, 413, "Request Entity Too Large", "TOO_LARGE"},
	fault.UnsupportedMedia: {codes.InvalidArgument, 415, "Unsupported Media Type", "UNSUPPORTED_MEDIA"},
	fault.Permanent:        {codes.FailedPrecondition, 422, "Unprocessable Entity", "PERMANENT"},
	fault.Exhausted:        {codes.ResourceExhausted, 429, "Too Many Requests", "EXHAUSTED"},
	fault.Unavailable:      {codes.Unavailable, 503, "Service Unavailable", "UNAVAILABLE"},
	fault.Canceled:         {codes.Canceled, 499, "canceled", "CANCELED"},
	fault.Timeout:          {codes.DeadlineExceeded, 504, "Gateway Timeout", "TIMEOUT"},
}

func TestEveryKindIsToldTheSameWayEverywhere(t *testing.T) {
	for kind, want := range told {
		t.Run(want.reason, func(t *testing.T) {
			err := fmt.Errorf("load alert %q: %w", "a1", fault.Wrap(kind, io.ErrUnexpectedEOF))
			if !errors.Is(err, kind) || !errors.Is(err, io.ErrUnexpectedEOF) {
				t.Errorf("the kind or the cause is lost in %v", err)
			}
			if fault.Of(err) != kind {
				t.Errorf("Of is %v", fault.Of(err))
			}
			detail := `load alert "a1": unexpected EOF`
			if kind == fault.Internal {
				detail = "internal error"
			}
			st := fault.GRPC(err)
			if st.Code() != want.code || st.Message() != detail {
				t.Errorf("gRPC says %v %q", st.Code(), st.Message())
			}
			info, ok := st.Details()[0].(*errdetails.ErrorInfo)
			if !ok || info.GetReason() != want.reason || info.GetDomain() != "tocsin.dev" {
				t.Errorf("gRPC's detail is %v", st.Details())
			}
			w := httptest.NewRecorder()
			fault.WriteProblem(w, err)
			var got fault.Problem
			if err := json.Unmarshal(w.Body.Bytes(), &got); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(fault.Problem{Type: "about:blank", Title: want.title, Status: want.status, Detail: detail, Reason: want.reason}, got); diff != "" {
				t.Errorf("problem (-want +got):\n%s", diff)
			}
			if w.Code != want.status || w.Header().Get("Content-Type") != "application/problem+json" {
				t.Errorf("HTTP says %d %v", w.Code, w.Header())
			}
			if got := w.Header().Get("WWW-Authenticate"); (got != "") != (want.status == http.StatusUnauthorized) {
				t.Errorf("WWW-Authenticate is %q on %d", got, w.Code)
			}
		})
	}
	if len(told) != int(fault.Timeout)+1 {
		t.Errorf("the test knows %d kinds of %d", len(told), fault.Timeout+1)
	}
}

func TestKindsCrossTheWire(t *testing.T) {
	for kind := range told {
		sent := fault.WithReason("STALE_OWNER", fault.New(kind, "x"))
		plain := fault.New(kind, "x")
		for name, err := range map[string]error{"with a reason of its own": sent, "with the kind's reason": plain} {
			// What arrives is the status as bytes, with nothing of the error behind it.
			wire, marshalErr := proto.Marshal(fault.GRPC(err).Proto())
			if marshalErr != nil {
				t.Fatal(marshalErr)
			}
			p := fault.GRPC(nil).Proto()
			if unmarshalErr := proto.Unmarshal(wire, p); unmarshalErr != nil {
				t.Fatal(unmarshalErr)
			}
			got := fault.FromGRPC(status.FromProto(p).Err())
			if fault.Of(got) != kind {
				t.Errorf("%v %s arrives as %v", kind, name, fault.Of(got))
			}
			if fault.GRPC(got).Code() != kind.Code() {
				t.Errorf("%v %s is passed on with code %v", kind, name, fault.GRPC(got).Code())
			}
			if st, ok := status.FromError(got); !ok || st.Code() != kind.Code() {
				t.Errorf("%v %s: the status is lost: %v", kind, name, st)
			}
		}
	}
	received := fault.FromGRPC(fault.GRPC(fault.WithReason("STALE_OWNER", fault.New(fault.Conflict, "x"))).Err())
	if e, ok := errors.AsType[*fault.Error](received); !ok || e.Reason != "STALE_OWNER" || e.Kind != fault.Conflict {
		t.Errorf("a reason of its own arrives as %+v", received)
	}
}

func TestStatusesOfOthersGetAKind(t *testing.T) {
	for code, want := range map[codes.Code]fault.Kind{
		codes.NotFound: fault.NotFound, codes.AlreadyExists: fault.Conflict, codes.Aborted: fault.Conflict,
		codes.InvalidArgument: fault.Invalid, codes.OutOfRange: fault.Invalid, codes.Unimplemented: fault.MethodNotAllowed,
		codes.ResourceExhausted: fault.Exhausted, codes.Unavailable: fault.Unavailable, codes.Unknown: fault.Internal,
		codes.DataLoss: fault.Internal, codes.Internal: fault.Internal, codes.FailedPrecondition: fault.Permanent,
		codes.Canceled: fault.Canceled, codes.DeadlineExceeded: fault.Timeout, codes.Unauthenticated: fault.Unauthenticated,
		codes.PermissionDenied: fault.PermissionDenied,
	} {
		if got := fault.Of(fault.FromGRPC(status.Error(code, "x"))); got != want {
			t.Errorf("%v has the kind %v, want %v", code, got, want)
		}
	}
	foreign, err := status.New(codes.NotFound, "x").WithDetails(&errdetails.ErrorInfo{Reason: "INVALID", Domain: "example.com"})
	if err != nil {
		t.Fatal(err)
	}
	if got := fault.Of(fault.FromGRPC(foreign.Err())); got != fault.NotFound {
		t.Errorf("a reason of another domain was believed: %v", got)
	}
}

func TestWhatIsNoFaultIsMute(t *testing.T) {
	secret := errors.New("dial tcp 10.1.2.3:6379: connection refused")
	if st := fault.GRPC(secret); st.Code() != codes.Internal || st.Message() != "internal error" {
		t.Errorf("gRPC says %v %q", st.Code(), st.Message())
	}
	w := httptest.NewRecorder()
	fault.WriteProblem(w, fault.WithReason("X", secret))
	if p := fault.ProblemOf(secret); p.Detail != "internal error" || w.Code != 500 {
		t.Errorf("HTTP says %+v", p)
	}
	if got := fault.FromGRPC(secret); got != secret { //nolint:errorlint // the very same error must come back
		t.Errorf("an error that is no status became %v", got)
	}
}

func TestOf(t *testing.T) {
	for name, test := range map[string]struct {
		err  error
		want fault.Kind
	}{
		"nil has no kind of its own":           {nil, fault.Internal},
		"a plain error is internal":            {io.EOF, fault.Internal},
		"a bare kind is itself":                {fault.NotFound, fault.NotFound},
		"a wrapped bare kind is found":         {fmt.Errorf("x: %w", fault.Conflict), fault.Conflict},
		"the outermost kind wins":              {fault.Wrap(fault.Permanent, fault.New(fault.Invalid, "x")), fault.Permanent},
		"a canceled context":                   {fmt.Errorf("x: %w", context.Canceled), fault.Canceled},
		"a deadline":                           {context.DeadlineExceeded, fault.Timeout},
		"a kind stronger than its own context": {fault.Wrap(fault.Unavailable, context.DeadlineExceeded), fault.Unavailable},
		"a text with its cause":                {fault.Newf(fault.Invalid, "line %d: %w", 3, io.EOF), fault.Invalid},
		"a reason keeps the kind":              {fault.WithReason("R", fault.New(fault.NotFound, "x")), fault.NotFound},
	} {
		if got := fault.Of(test.err); got != test.want {
			t.Errorf("%s: %v, want %v", name, got, test.want)
		}
	}
	if fault.Wrap(fault.Invalid, nil) != nil || fault.WithReason("R", nil) != nil || fault.FromGRPC(nil) != nil {
		t.Error("nil became an error")
	}
	if fault.GRPC(nil).Code() != codes.OK {
		t.Error("nil is not OK")
	}
}

func TestIsPermanent(t *testing.T) {
	for kind := range told {
		want := map[fault.Kind]bool{
			fault.Invalid: true, fault.PermissionDenied: true, fault.MethodNotAllowed: true,
			fault.TooLarge: true, fault.UnsupportedMedia: true, fault.Permanent: true,
		}[kind]
		if got := fault.IsPermanent(fmt.Errorf("x: %w", fault.New(kind, "y"))); got != want {
			t.Errorf("%v is permanent: %v", kind, got)
		}
	}
}

func TestWaitsAreToldInBothWorlds(t *testing.T) {
	err := fmt.Errorf("enqueue: %w", &fault.Error{Kind: fault.Exhausted, RetryAfter: 1500 * time.Millisecond, Err: errors.New("the queue is full")})
	w := httptest.NewRecorder()
	fault.WriteProblem(w, err)
	if got := w.Header().Get("Retry-After"); got != "2" {
		t.Errorf("Retry-After is %q, want whole seconds, rounded up", got)
	}
	back := fault.FromGRPC(fault.GRPC(err).Err())
	if e, ok := errors.AsType[*fault.Error](back); !ok || e.RetryAfter != 1500*time.Millisecond || e.Kind != fault.Exhausted {
		t.Errorf("over gRPC the wait arrives as %+v", back)
	}
}

func TestHeadersOfTheCallerAreKept(t *testing.T) {
	w := httptest.NewRecorder()
	w.Header().Set("WWW-Authenticate", `Basic realm="x"`)
	w.Header().Set("Allow", "POST")
	fault.WriteProblem(w, fault.Unauthenticated)
	if w.Header().Get("WWW-Authenticate") != `Basic realm="x"` || w.Header().Get("Allow") != "POST" {
		t.Errorf("headers are %v", w.Header())
	}
}
