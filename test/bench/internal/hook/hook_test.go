package hook_test

import (
	"errors"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/tocsin-dev/tocsin/test/bench/internal/hook"
)

func send(t *testing.T, h *hook.Hook, id, body string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, h.URL, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("webhook-id", id)
	resp, err := new(http.Client).Do(req)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
}

func TestRepeatsDoNotStandForWhatIsMissing(t *testing.T) {
	h, err := hook.Start(true)
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close()
	send(t, h, "a", `{"data":{"alerts":[{"id":"1","status":"firing","labels":{"x":"y"}}]}}`)
	send(t, h, "a", `{"data":{"alerts":[{"id":"1","status":"firing","labels":{"x":"y"}}]}}`)
	if err := h.Wait(t.Context(), 2, time.Millisecond); !errors.Is(err, hook.ErrMissing) {
		t.Errorf("a message that came twice counts as two: %v", err)
	}
	send(t, h, "b", `{"data":{"alerts":[{"id":"1","status":"resolved"},{"id":"2","status":"firing"}]}}`)
	if err := h.Wait(t.Context(), 2, time.Minute); err != nil {
		t.Error(err)
	}
	arrivals := h.Arrivals()
	if len(arrivals) != 3 || h.Distinct() != 2 {
		t.Fatalf("%d messages came, %d different, want 3 and 2", len(arrivals), h.Distinct())
	}
	told, err := arrivals[2].Read()
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]hook.Told{{ID: "1", Status: "resolved"}, {ID: "2", Status: "firing"}}, told); diff != "" {
		t.Errorf("the last message (-want +got):\n%s", diff)
	}
}
