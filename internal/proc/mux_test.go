package proc_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/tocsin-dev/tocsin/internal/fault"
	"github.com/tocsin-dev/tocsin/internal/proc"
)

// call answers one request and decodes the problem, if it is one.
func call(t *testing.T, h http.Handler, r *http.Request) (*httptest.ResponseRecorder, fault.Problem) {
	t.Helper()
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	var p fault.Problem
	if w.Header().Get("Content-Type") == "application/problem+json" {
		if err := json.Unmarshal(w.Body.Bytes(), &p); err != nil {
			t.Fatal(err)
		}
		if p.Status != w.Code {
			t.Errorf("the problem says %d, the answer %d", p.Status, w.Code)
		}
	}
	return w, p
}

func TestMuxAnswersWhatMatchesNothing(t *testing.T) {
	mux := proc.NewMux()
	mux.HandleFunc("POST /v1/jobs", func(http.ResponseWriter, *http.Request) {})
	mux.HandleFunc("PUT /v1/jobs", func(http.ResponseWriter, *http.Request) {})
	mux.HandleFunc("GET /v1/jobs/{id}", func(w http.ResponseWriter, r *http.Request) { _, _ = io.WriteString(w, r.PathValue("id")) })
	mux.HandleFunc("GET /tree/", func(http.ResponseWriter, *http.Request) {})
	for name, test := range map[string]struct {
		method, path string
		code         int
		reason       string
		header, want string
	}{
		"a route":                            {"POST", "/v1/jobs", 200, "", "", ""},
		"a path that does not exist":         {"GET", "/nothing", 404, "NOT_FOUND", "", ""},
		"a method that is not allowed":       {"GET", "/v1/jobs", 405, "METHOD_NOT_ALLOWED", "Allow", "POST, PUT"},
		"a path that must be cleaned first":  {"GET", "/v1//jobs/7", 307, "", "Location", "/v1/jobs/7"},
		"a directory without its last slash": {"GET", "/tree", 307, "", "Location", "/tree/"},
		"a method nobody knows":              {"BREW", "/nothing", 404, "NOT_FOUND", "", ""},
	} {
		t.Run(name, func(t *testing.T) {
			w, p := call(t, mux, httptest.NewRequestWithContext(t.Context(), test.method, test.path, nil))
			if w.Code != test.code || p.Reason != test.reason {
				t.Errorf("%d %q: %s", w.Code, p.Reason, w.Body)
			}
			if test.header != "" && w.Header().Get(test.header) != test.want {
				t.Errorf("%s is %q, want %q", test.header, w.Header().Get(test.header), test.want)
			}
		})
	}
	if w, _ := call(t, mux, httptest.NewRequestWithContext(t.Context(), "GET", "/v1/jobs/abc", nil)); w.Body.String() != "abc" {
		t.Errorf("the path's value is %q", w.Body)
	}
}

func TestRequireToken(t *testing.T) {
	ok := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "in") })
	for name, test := range map[string]struct {
		headers []string
		in      bool
	}{
		"the token":             {[]string{"Bearer hunter2"}, true},
		"in any case of scheme": {[]string{"bearer hunter2"}, true},
		"no header":             {nil, false},
		"an empty header":       {[]string{""}, false},
		"the token alone":       {[]string{"hunter2"}, false},
		"another token":         {[]string{"Bearer hunter3"}, false},
		"half the token":        {[]string{"Bearer hunter"}, false},
		"more than the token":   {[]string{"Bearer hunter2 x"}, false},
		"no token":              {[]string{"Bearer "}, false},
		"another scheme":        {[]string{"Basic hunter2"}, false},
	} {
		t.Run(name, func(t *testing.T) {
			r := httptest.NewRequestWithContext(t.Context(), "GET", "/", nil)
			for _, h := range test.headers {
				r.Header.Add("Authorization", h)
			}
			w, p := call(t, proc.RequireToken("hunter2", ok), r)
			if test.in {
				if w.Body.String() != "in" {
					t.Errorf("refused: %s", w.Body)
				}
				return
			}
			if w.Code != 401 || p.Reason != "UNAUTHENTICATED" || !strings.HasPrefix(w.Header().Get("WWW-Authenticate"), "Bearer") {
				t.Errorf("answers %d %v %s", w.Code, w.Header(), w.Body)
			}
			if strings.Contains(w.Body.String(), "hunter") {
				t.Errorf("the answer shows a token: %s", w.Body)
			}
		})
	}
	if w, _ := call(t, proc.RequireToken("", ok), httptest.NewRequestWithContext(t.Context(), "GET", "/", nil)); w.Body.String() != "in" {
		t.Error("without a token to ask for, somebody was refused")
	}
}

func TestReadJSON(t *testing.T) {
	type job struct {
		ID string `json:"id"`
		N  int    `json:"n"`
	}
	for name, test := range map[string]struct {
		body   io.Reader
		media  string
		code   int
		detail string
	}{
		"a whole value":           {strings.NewReader(` {"id":"a"} `), "application/json", 200, ""},
		"a charset beside it":     {strings.NewReader(`{"id":"a"}`), "Application/JSON; charset=utf-8", 200, ""},
		"exactly the limit":       {strings.NewReader(`{"id":"` + strings.Repeat("a", 91) + `"}`), "application/json", 200, ""},
		"one byte more":           {strings.NewReader(`{"id":"` + strings.Repeat("a", 92) + `"}`), "application/json", 413, "the body is longer than 100 bytes"},
		"one that never ends":     {endless{}, "application/json", 413, "the body is longer than 100 bytes"},
		"another media type":      {strings.NewReader(`{}`), "text/plain", 415, "send the body as application/json"},
		"no media type":           {strings.NewReader(`{}`), "", 415, "send the body as application/json"},
		"a broken media type":     {strings.NewReader(`{}`), "application/json; =", 415, "send the body as application/json"},
		"nothing":                 {strings.NewReader(""), "application/json", 400, "the body is not whole JSON"},
		"half a value":            {strings.NewReader(`{"id":`), "application/json", 400, "the body is not whole JSON"},
		"no JSON":                 {strings.NewReader(`id=a`), "application/json", 400, "the body is not the JSON that is wanted: invalid character 'i' looking for beginning of value"},
		"an unknown key":          {strings.NewReader(`{"di":"a"}`), "application/json", 400, `the body is not the JSON that is wanted: unknown field "di"`},
		"a wrong type":            {strings.NewReader(`{"n":"a"}`), "application/json", 400, `the body's "n" cannot be a string`},
		"two values":              {strings.NewReader(`{} {}`), "application/json", 400, "the body goes on after its JSON value"},
		"a caller who breaks off": {iotest.ErrReader(errors.New("reset by peer")), "application/json", 400, "read the body: reset by peer"},
		"a caller who breaks off 2": {
			io.MultiReader(strings.NewReader("{"), iotest.ErrReader(io.ErrUnexpectedEOF)), "application/json", 400, "read the body: unexpected EOF",
		},
	} {
		t.Run(name, func(t *testing.T) {
			h := proc.Answer(slog.New(slog.DiscardHandler), func(w http.ResponseWriter, r *http.Request) error {
				var j job
				return proc.ReadJSON(w, r, 100, &j)
			})
			r := httptest.NewRequestWithContext(t.Context(), "POST", "/", test.body)
			r.Header.Set("Content-Type", test.media)
			if w, p := call(t, h, r); w.Code != test.code || p.Detail != test.detail {
				t.Errorf("%d %q", w.Code, p.Detail)
			}
		})
	}
}

// endless never ends.
type endless struct{}

func (endless) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = ' '
	}
	return len(p), nil
}

func TestReadBodyWithoutTypesTakesAll(t *testing.T) {
	r := httptest.NewRequestWithContext(t.Context(), "POST", "/", strings.NewReader("abc"))
	if body, err := proc.ReadBody(httptest.NewRecorder(), r, 3); err != nil || string(body) != "abc" {
		t.Errorf("got %q, %v", body, err)
	}
}

func TestACompressedBodyIsRefused(t *testing.T) {
	for coding, want := range map[string]error{"gzip": fault.UnsupportedMedia, "identity": nil, "": nil} {
		r := httptest.NewRequestWithContext(t.Context(), "POST", "/", strings.NewReader("{}"))
		r.Header.Set("Content-Type", "application/json")
		r.Header.Set("Content-Encoding", coding)
		if _, err := proc.ReadBody(httptest.NewRecorder(), r, 3, "application/json"); !errors.Is(err, want) {
			t.Errorf("%q: %v, want %v", coding, err, want)
		}
	}
}

func TestAnswerLogsWhatTheCallerDoesNotSee(t *testing.T) {
	for name, test := range map[string]struct {
		err    error
		code   int
		logged bool
	}{
		"an internal error is logged and mute": {errors.New("dial 10.0.0.1: refused"), 500, true},
		"a caller's mistake is told":           {fault.New(fault.Invalid, "no id"), 400, false},
	} {
		var out bytes.Buffer
		h := proc.Answer(slog.New(slog.NewJSONHandler(&out, nil)), func(http.ResponseWriter, *http.Request) error { return test.err })
		w, p := call(t, h, httptest.NewRequestWithContext(t.Context(), "GET", "/", nil))
		if w.Code != test.code || strings.Contains(p.Detail, test.err.Error()) == test.logged || strings.Contains(out.String(), test.err.Error()) != test.logged {
			t.Errorf("%s: %d %q, log %s", name, w.Code, p.Detail, out.String())
		}
	}
}
