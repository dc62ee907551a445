package proc

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"mime"
	"net/http"
	"slices"
	"strings"

	"github.com/tocsin-dev/tocsin/internal/fault"
	"github.com/tocsin-dev/tocsin/internal/secret"
)

// Mux routes requests by the patterns of http.ServeMux and answers those that
// match none with 404 or 405 as problem+json. Make one with NewMux.
type Mux struct{ routes *http.ServeMux }

// NewMux returns a Mux without routes.
func NewMux() *Mux { return &Mux{routes: http.NewServeMux()} }

// Handle routes requests that match pattern to h. Like http.ServeMux it panics
// on a pattern that is malformed or in conflict, which is a mistake in the code.
func (m *Mux) Handle(pattern string, h http.Handler) { m.routes.Handle(pattern, h) }

// HandleFunc routes requests that match pattern to f.
func (m *Mux) HandleFunc(pattern string, f http.HandlerFunc) { m.routes.Handle(pattern, f) }

// ServeHTTP answers a request by its route.
func (m *Mux) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	refuse, pattern := m.routes.Handler(r)
	if pattern != "" {
		m.routes.ServeHTTP(w, r)
		return
	}
	// No route: the handler given is the standard one that says why in plain text.
	said := refusal{header: http.Header{}}
	refuse.ServeHTTP(&said, r)
	switch said.status {
	case http.StatusMethodNotAllowed:
		allow := said.header.Get("Allow")
		w.Header().Set("Allow", allow)
		fault.WriteProblem(w, fault.Newf(fault.MethodNotAllowed, "%s is not allowed here, only %s", r.Method, allow))
	case http.StatusNotFound:
		fault.WriteProblem(w, fault.New(fault.NotFound, "there is nothing at this path"))
	default: // a redirect to the clean path, or a bad request
		refuse.ServeHTTP(w, r)
	}
}

// refusal keeps the status and headers of an answer and drops its body.
type refusal struct {
	header http.Header
	status int
}

func (r *refusal) Header() http.Header         { return r.header }
func (r *refusal) WriteHeader(status int)      { r.status = status }
func (r *refusal) Write(b []byte) (int, error) { return len(b), nil }

// Answer makes a handler of a function whose error is the answer, written by
// fault.WriteProblem. Internal errors are logged, since the caller does not see
// them. The function must not have begun an answer when it returns an error.
func Answer(log *slog.Logger, f func(w http.ResponseWriter, r *http.Request) error) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		err := f(w, r)
		if err == nil {
			return
		}
		if fault.Of(err) == fault.Internal {
			log.ErrorContext(r.Context(), "http request failed",
				slog.String("method", r.Method), slog.String("pattern", r.Pattern), slog.Any("err", err))
		}
		fault.WriteProblem(w, err)
	})
}

// RequireToken lets requests to h through that carry the token in the header
// "Authorization: Bearer <token>", and answers 401 to the others. A token that
// is not set lets all through; CheckListen keeps such a port on loopback.
func RequireToken(token secret.String, h http.Handler) http.Handler {
	if !token.Set() {
		return h
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		scheme, given, _ := strings.Cut(r.Header.Get("Authorization"), " ")
		switch {
		case given == "":
			fault.WriteProblem(w, fault.New(fault.Unauthenticated, "send the token as Authorization: Bearer"))
		case !strings.EqualFold(scheme, "Bearer") || !token.Equal(strings.TrimSpace(given)):
			fault.WriteProblem(w, fault.New(fault.Unauthenticated, "this token is not valid here"))
		default:
			h.ServeHTTP(w, r)
		}
	})
}

// ReadBody returns the body of a request of at most limit bytes. It returns an
// error of kind UnsupportedMedia when the Content-Type is none of types (no
// types accept all) or the body is compressed, TooLarge when the body is longer than limit, and Invalid
// when it breaks off.
func ReadBody(w http.ResponseWriter, r *http.Request, limit int64, types ...string) ([]byte, error) {
	if coding := r.Header.Get("Content-Encoding"); coding != "" && !strings.EqualFold(coding, "identity") {
		return nil, fault.New(fault.UnsupportedMedia, "send the body without a Content-Encoding")
	}
	if len(types) > 0 {
		media, _, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
		if err != nil || !slices.Contains(types, media) {
			return nil, fault.Newf(fault.UnsupportedMedia, "send the body as %s", strings.Join(types, " or "))
		}
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, limit))
	if tooLarge, ok := errors.AsType[*http.MaxBytesError](err); ok {
		return nil, fault.Newf(fault.TooLarge, "the body is longer than %d bytes", tooLarge.Limit)
	} else if err != nil {
		return nil, fault.Newf(fault.Invalid, "read the body: %w", err)
	}
	return body, nil
}

// ReadJSON decodes the body of a request, sent as application/json and at most
// limit bytes, into v. Unknown keys, a wrong type and anything after the value
// are errors of kind Invalid; the others are those of ReadBody.
func ReadJSON(w http.ResponseWriter, r *http.Request, limit int64, v any) error {
	body, err := ReadBody(w, r, limit, "application/json")
	if err != nil {
		return err
	}
	dec := json.NewDecoder(strings.NewReader(string(body)))
	dec.DisallowUnknownFields()
	if err := dec.Decode(v); err != nil {
		return fault.Wrap(fault.Invalid, jsonMistake(err))
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return fault.New(fault.Invalid, "the body goes on after its JSON value")
	}
	return nil
}

// jsonMistake says what is wrong in the caller's words instead of Go's.
func jsonMistake(err error) error {
	if wrong, ok := errors.AsType[*json.UnmarshalTypeError](err); ok {
		return fmt.Errorf("the body's %q cannot be a %s", wrong.Field, wrong.Value)
	}
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return errors.New("the body is not whole JSON")
	}
	return fmt.Errorf("the body is not the JSON that is wanted: %s", strings.TrimPrefix(err.Error(), "json: "))
}
