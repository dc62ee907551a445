package proc_test

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/google/go-cmp/cmp"

	"github.com/tocsin-dev/tocsin/internal/proc"
)

// ask returns the status and body of GET path.
func ask(t *testing.T, h http.Handler, path string) (int, map[string]any) {
	t.Helper()
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), http.MethodGet, path, nil))
	body := map[string]any{}
	if err := json.Unmarshal(w.Body.Bytes(), &body); err != nil {
		t.Fatalf("%s answers %q: %v", path, w.Body, err)
	}
	return w.Code, body
}

func TestReadyzListsWhatFails(t *testing.T) {
	var h proc.Health
	mux := proc.NewMux()
	h.Routes(mux)

	if code, body := ask(t, mux, "/readyz"); code != 200 || body["status"] != "ready" {
		t.Errorf("without checks: %d %v", code, body)
	}
	redis := errors.New("redis://user:hunter2@host: connection refused " + strings.Repeat("x", 1000))
	h.Add("redis", func(context.Context) error { return redis })
	h.Add("nats", func(context.Context) error { return nil })
	code, body := ask(t, mux, "/readyz")
	failing, _ := body["failing"].(map[string]any)
	text, _ := failing["redis"].(string)
	if code != 503 || body["status"] != "not ready" || len(failing) != 1 ||
		!strings.HasPrefix(text, "redis://REDACTED@host: connection refused") || len(text) > 256 {
		t.Errorf("with one failing: %d %v", code, body)
	}
	if code, body := ask(t, mux, "/healthz"); code != 200 || body["status"] != "alive" {
		t.Errorf("liveness follows readiness: %d %v", code, body)
	}
	h.Add("redis", func(context.Context) error { return nil })
	if code, body := ask(t, mux, "/readyz"); code != 200 {
		t.Errorf("after it recovered: %d %v", code, body)
	}
}

func TestACheckThatHangsFailsAloneAndInTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var h proc.Health
		release := make(chan struct{})
		h.Add("obedient", func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() })
		h.Add("deaf", func(context.Context) error { <-release; return nil })
		h.Add("good", func(context.Context) error { return nil })
		got := map[string]string{}
		for name, err := range h.Failing(t.Context()) {
			got[name] = err.Error()
		}
		want := map[string]string{"obedient": "context deadline exceeded", "deaf": "context deadline exceeded"}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("failing (-want +got):\n%s", diff)
		}
		close(release) // the bubble ends only when the deaf one has
	})
}
