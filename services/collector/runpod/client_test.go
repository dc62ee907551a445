package runpod_test

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/tocsin-dev/tocsin/services/collector/runpod"
)

const testKey = "rpa_TESTKEY0123456789"

type key string

func (k key) Reveal() string { return string(k) }

// patient is as long as a client waits by itself.
const patient = 10 * time.Second

// hanging ends a test that hangs, also on a machine that is busy with others. No
// test answer takes a hundredth of it by itself.
const hanging = 2 * time.Minute

// serve returns a client of a server with the given handler.
func serve(t *testing.T, h http.HandlerFunc, change ...func(*runpod.Options)) *runpod.Client {
	t.Helper()
	srv := httptest.NewServer(h)
	t.Cleanup(srv.Close)
	opts := runpod.Options{
		APIKey: key(testKey), RESTURL: srv.URL + "/v2", ServerlessURL: srv.URL + "/runtime/v2", Timeout: hanging,
	}
	for _, c := range change {
		c(&opts)
	}
	client, err := runpod.New(opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.CloseIdle)
	return client
}

// calls lists every call that a client can make.
var calls = map[string]func(context.Context, *runpod.Client) error{
	"endpoints": func(ctx context.Context, c *runpod.Client) error { _, err := c.Endpoints(ctx); return err },
	"endpoint":  func(ctx context.Context, c *runpod.Client) error { _, err := c.Endpoint(ctx, "ep1"); return err },
	"pods":      func(ctx context.Context, c *runpod.Client) error { _, err := c.Pods(ctx); return err },
	"pod":       func(ctx context.Context, c *runpod.Client) error { _, err := c.Pod(ctx, "pod1"); return err },
	"health": func(ctx context.Context, c *runpod.Client) error {
		_, err := c.Health(ctx, runpod.Endpoint{ID: "ep1"})
		return err
	},
	"job": func(ctx context.Context, c *runpod.Client) error {
		_, err := c.JobStatus(ctx, "ep1", "job-1")
		return err
	},
}

func TestEachCallAsksForItsPathWithTheKey(t *testing.T) {
	t.Parallel()
	want := map[string]string{
		"endpoints": "/v2/serverless", "endpoint": "/v2/serverless/ep1", "pods": "/v2/pods", "pod": "/v2/pods/pod1",
		"health": "/runtime/v2/ep1/health", "job": "/runtime/v2/ep1/status/job-1",
	}
	for name, do := range calls {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var got http.Request
			c := serve(t, func(w http.ResponseWriter, r *http.Request) {
				got = *r
				http.Error(w, "", http.StatusTeapot)
			})
			if err := do(t.Context(), c); runpod.KindOf(err) != runpod.Unexpected {
				t.Errorf("error %v, want an unexpected status", err)
			}
			if got.Method != http.MethodGet || got.RequestURI != want[name] {
				t.Errorf("called %s %s, want GET %s", got.Method, got.RequestURI, want[name])
			}
			if auth := got.Header.Get("Authorization"); auth != "Bearer "+testKey {
				t.Errorf("authorization %q", auth)
			}
			if got.Header.Get("User-Agent") != "tocsin" || got.Header.Get("Accept-Encoding") != "" {
				t.Errorf("header %v", got.Header)
			}
		})
	}
}

// TestEachAnswerThatIsWrongIsAnErrorOfItsKind plays each wrong answer to each
// call. The server repeats the key wherever it can, and no error text may.
func TestEachAnswerThatIsWrongIsAnErrorOfItsKind(t *testing.T) {
	t.Parallel()
	problem := func(status int) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", "application/problem+json")
			w.WriteHeader(status)
			fmt.Fprintf(w, `{"title":"no","status":%d,"detail":"refused %s for key %s"}`, status, r.Header.Get("Authorization"), testKey)
		}
	}
	answer := func(body string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, body) }
	}
	for name, test := range map[string]struct {
		handler http.HandlerFunc
		want    runpod.Kind
		status  int
	}{
		"401": {problem(401), runpod.Unauthorized, 401},
		"403": {problem(403), runpod.Forbidden, 403},
		"404": {problem(404), runpod.NotFound, 404},
		"429": {problem(429), runpod.RateLimited, 429},
		"500": {problem(500), runpod.Server, 500},
		"503 with plain text": {func(w http.ResponseWriter, _ *http.Request) {
			http.Error(w, "down "+testKey, http.StatusServiceUnavailable)
		}, runpod.Server, 503},
		"204":                      {func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(204) }, runpod.Unexpected, 204},
		"an empty body":            {answer(""), runpod.Malformed, 200},
		"an HTML page":             {answer("<html>" + testKey + "</html>"), runpod.Malformed, 200},
		"JSON cut off":             {answer(`{"endpoints":[{"id":"`), runpod.Malformed, 200},
		"a JSON list":              {answer(`["` + testKey + `"]`), runpod.Malformed, 200},
		"null":                     {answer(`null`), runpod.Malformed, 200},
		"an object without fields": {answer(`{}`), runpod.Malformed, 200},
		"fields of another type": {
			answer(`{"id":7,"status":7,"endpoints":7,"pods":"` + testKey + `","jobs":7,"workers":7}`), runpod.Malformed, 200,
		},
		"20 MB of blanks": {func(w http.ResponseWriter, _ *http.Request) { writeMuch(w, 20<<20) }, runpod.TooLarge, 200},
		"a redirect": {func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "/elsewhere?key="+testKey, http.StatusFound)
		}, runpod.Unexpected, 302},
		"no HTTP at all": {func(w http.ResponseWriter, _ *http.Request) {
			conn, _, err := w.(http.Hijacker).Hijack()
			if err == nil {
				_, _ = io.WriteString(conn, "Bearer "+testKey+"\r\n\r\n")
				_ = conn.Close()
			}
		}, runpod.Network, 0},
		"a connection closed in the body": {func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "100")
			_, _ = io.WriteString(w, `{"jobs":`)
		}, runpod.Network, 0},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := serve(t, test.handler)
			for call, do := range calls {
				err := do(t.Context(), c)
				e, ok := errors.AsType[*runpod.Error](err)
				if !ok {
					t.Fatalf("%s: error %v is none of ours", call, err)
				}
				if e.Kind != test.want || e.Status != test.status {
					t.Errorf("%s: kind %q status %d, want %q and %d (%v)", call, e.Kind, e.Status, test.want, test.status, err)
				}
				for _, text := range []string{err.Error(), e.Detail, fmt.Sprintf("%+v %v", e, errors.Unwrap(err))} {
					if strings.Contains(text, testKey) {
						t.Errorf("%s: the key is in %q", call, text)
					}
				}
			}
		})
	}
}

func writeMuch(w io.Writer, n int) {
	blanks := []byte(strings.Repeat(" ", 64<<10))
	for ; n > 0; n -= len(blanks) {
		if _, err := w.Write(blanks); err != nil {
			return
		}
	}
}

func TestNoAnswerOutlastsTheDeadline(t *testing.T) {
	t.Parallel()
	for name, handler := range map[string]http.HandlerFunc{
		"a server that is silent": func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() },
		"a body that stops halfway": func(w http.ResponseWriter, r *http.Request) {
			_, _ = io.WriteString(w, `{"jobs":{`)
			_ = http.NewResponseController(w).Flush()
			<-r.Context().Done()
		},
		"a body that drips for ever": func(w http.ResponseWriter, r *http.Request) {
			tick := time.NewTicker(time.Millisecond)
			defer tick.Stop()
			for {
				select {
				case <-tick.C:
					_, _ = io.WriteString(w, " ")
					_ = http.NewResponseController(w).Flush()
				case <-r.Context().Done():
					return
				}
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := serve(t, handler, func(o *runpod.Options) { o.Timeout = 50 * time.Millisecond })
			for call, do := range calls {
				err := do(t.Context(), c)
				if runpod.KindOf(err) != runpod.Timeout || !errors.Is(err, context.DeadlineExceeded) {
					t.Errorf("%s: %v, want a timeout", call, err)
				}
			}
		})
	}
}

func TestACallerWhoGivesUpIsNotATimeout(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	c := serve(t, func(_ http.ResponseWriter, r *http.Request) { cancel(); <-r.Context().Done() })
	_, err := c.Pods(ctx)
	if runpod.KindOf(err) != runpod.Canceled || !errors.Is(err, context.Canceled) {
		t.Errorf("error %v, want canceled", err)
	}
}

func TestARefusedConnectionIsANetworkError(t *testing.T) {
	t.Parallel()
	srv := httptest.NewServer(http.NotFoundHandler())
	srv.Close()
	c, err := runpod.New(runpod.Options{APIKey: key(testKey), RESTURL: srv.URL, ServerlessURL: srv.URL})
	if err != nil {
		t.Fatal(err)
	}
	for call, do := range calls {
		if err := do(t.Context(), c); runpod.KindOf(err) != runpod.Network {
			t.Errorf("%s: error %v, want a network error", call, err)
		}
	}
}

func TestAServerThatOnlySpeaksOldTLSIsRefused(t *testing.T) {
	t.Parallel()
	srv := httptest.NewUnstartedServer(http.NotFoundHandler())
	srv.TLS = &tls.Config{MinVersion: tls.VersionTLS10, MaxVersion: tls.VersionTLS11}
	srv.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
	srv.StartTLS()
	t.Cleanup(srv.Close)
	c, err := runpod.New(runpod.Options{APIKey: key(testKey), RESTURL: srv.URL})
	if err != nil {
		t.Fatal(err)
	}
	_, err = c.Pods(t.Context())
	if runpod.KindOf(err) != runpod.Network || !strings.Contains(err.Error(), "protocol version") {
		t.Errorf("error %v, want a refused protocol version", err)
	}
}

func TestIdsThatCannotBeArePlacedInNoPath(t *testing.T) {
	t.Parallel()
	var paths []string
	c := serve(t, func(w http.ResponseWriter, r *http.Request) {
		paths = append(paths, r.RequestURI)
		http.NotFound(w, r)
	})
	for _, id := range []string{"", ".", "..", strings.Repeat("x", 300), "a/../b?ttl=1"} {
		if _, err := c.Pod(t.Context(), id); runpod.KindOf(err) != runpod.NotFound {
			t.Errorf("pod %q: %v, want not found", id, err)
		}
		if _, err := c.JobStatus(t.Context(), "ep1", id); runpod.KindOf(err) != runpod.NotFound {
			t.Errorf("job %q: %v, want not found", id, err)
		}
	}
	want := []string{"/v2/pods/a%2F..%2Fb%3Fttl=1", "/runtime/v2/ep1/status/a%2F..%2Fb%3Fttl=1"}
	if diff := cmp.Diff(want, paths); diff != "" {
		t.Errorf("paths called (-want +got):\n%s", diff)
	}
}

func TestTheKeyGoesToNoHostThatTheOperatorDidNotConfigure(t *testing.T) {
	t.Parallel()
	c, err := runpod.New(runpod.Options{APIKey: key(testKey), ServerlessURL: "https://api.runpod.ai/v2/"})
	if err != nil {
		t.Fatal(err)
	}
	for name, test := range map[string]struct {
		health string
		want   string
		listed bool
	}{
		"the same host is used":      {"https://api.runpod.ai/v3/ep1/health", "https://api.runpod.ai/v3/ep1/health", true},
		"another endpoint's is not":  {"https://api.runpod.ai/v2/ep12/health", "https://api.runpod.ai/v2/ep1/health", false},
		"none is built":              {"", "https://api.runpod.ai/v2/ep1/health", false},
		"another host is not":        {"https://evil.example/v2/ep1/health", "https://api.runpod.ai/v2/ep1/health", false},
		"another port is not":        {"https://api.runpod.ai:8443/v2/ep1/health", "https://api.runpod.ai/v2/ep1/health", false},
		"another scheme is not":      {"http://api.runpod.ai/v2/ep1/health", "https://api.runpod.ai/v2/ep1/health", false},
		"a user in the URL is not":   {"https://x:y@api.runpod.ai/v2/ep1/health", "https://api.runpod.ai/v2/ep1/health", false},
		"a longer host name is not":  {"https://api.runpod.ai.evil.example/h", "https://api.runpod.ai/v2/ep1/health", false},
		"a query is not":             {"https://api.runpod.ai/v2/ep1/health?ttl=1", "https://api.runpod.ai/v2/ep1/health", false},
		"what is no URL is not used": {"https://%zz", "https://api.runpod.ai/v2/ep1/health", false},
	} {
		got, listed := c.HealthURL(runpod.Endpoint{ID: "ep1", HealthURL: test.health})
		if got != test.want || listed != test.listed {
			t.Errorf("%s: %s %v, want %s %v", name, got, listed, test.want, test.listed)
		}
	}
}

func TestALoadBalancerIsNotAskedForHealth(t *testing.T) {
	t.Parallel()
	c := serve(t, func(http.ResponseWriter, *http.Request) { t.Error("a call was made") })
	_, err := c.Health(t.Context(), runpod.Endpoint{ID: "ep1", Type: runpod.LoadBalancer})
	if runpod.KindOf(err) != runpod.NotFound {
		t.Errorf("error %v, want not found", err)
	}
}

func TestNewNamesEveryMistakeAtOnce(t *testing.T) {
	t.Parallel()
	_, err := runpod.New(runpod.Options{
		APIKey: key("two words"), ServerlessURL: "ftp://x", RESTURL: "https://user:hunter2@host", Timeout: -1,
		MaxConcurrent: -1, QuotaShare: 2, MaxListBytes: -1,
	})
	if err == nil {
		t.Fatal("no error")
	}
	for _, want := range []string{"api key", "serverless url", "rest url", "timeout", "max concurrent", "quota share", "max bytes"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("error lacks %q: %v", want, err)
		}
	}
	if strings.Contains(err.Error(), "hunter2") || strings.Contains(err.Error(), "two words") {
		t.Errorf("a secret is in %v", err)
	}
	if _, err := runpod.New(runpod.Options{}); err == nil || !strings.Contains(err.Error(), "api key: missing") {
		t.Errorf("without a key: %v", err)
	}
}

func TestCallsInFlightAreBounded(t *testing.T) {
	t.Parallel()
	inside, leave := make(chan struct{}), make(chan struct{})
	c := serve(t, func(w http.ResponseWriter, _ *http.Request) {
		inside <- struct{}{}
		<-leave
		_, _ = io.WriteString(w, `{"pods":[]}`)
	}, func(o *runpod.Options) { o.MaxConcurrent = 2 })
	done := make(chan error)
	for range 3 {
		go func() { _, err := c.Pods(t.Context()); done <- err }()
	}
	<-inside
	<-inside
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if _, err := c.Pods(ctx); runpod.KindOf(err) != runpod.Timeout {
		t.Errorf("a call beyond the bound: %v, want a timeout", err)
	}
	select {
	case <-inside:
		t.Error("a third call is in flight")
	default:
	}
	close(leave)
	<-inside
	for range 3 {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
}

func TestAKeyOfAnyShapeIsHiddenAndAShortOneManglesNothing(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct{ key, want string }{
		"a key without RunPod's prefix": {"OLDKEYWITHOUTPREFIX", "no voice for REDACTED in a job"},
		"a word":                        {"job", "no voice for OLDKEYWITHOUTPREFIX in a job"},
	} {
		body := `{"id":"j","status":"FAILED","error":"no voice for OLDKEYWITHOUTPREFIX in a job"}`
		srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if strings.HasSuffix(r.URL.Path, "/health") {
				w.WriteHeader(http.StatusInternalServerError)
				_, _ = io.WriteString(w, "no voice for OLDKEYWITHOUTPREFIX in a job")
				return
			}
			_, _ = io.WriteString(w, body)
		}))
		t.Cleanup(srv.Close)
		c, err := runpod.New(runpod.Options{APIKey: key(test.key), ServerlessURL: srv.URL})
		if err != nil {
			t.Fatal(err)
		}
		polled, err := c.JobStatus(t.Context(), "ep", "j")
		if err != nil {
			t.Fatal(err)
		}
		hooked, err := runpod.ReadJob(strings.NewReader(body), 1<<20, 1<<20, key(test.key))
		if err != nil {
			t.Fatal(err)
		}
		_, refused := c.Health(t.Context(), runpod.Endpoint{ID: "ep"})
		if polled.Failure.Message != test.want || hooked.Failure.Message != test.want || !strings.HasSuffix(refused.Error(), test.want) {
			t.Errorf("%s: %q, %q and %q; want %q", name, polled.Failure.Message, hooked.Failure.Message, refused, test.want)
		}
	}
}
