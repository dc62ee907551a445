package sim_test

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/tocsin-dev/tocsin/services/collector/runpod"
	"github.com/tocsin-dev/tocsin/services/collector/runpod/sim"
)

// receiver collects webhooks and answers them with the statuses given, the last
// of them for ever.
func receiver(t *testing.T, statuses ...int) (url string, bodies <-chan []byte) {
	t.Helper()
	got := make(chan []byte, 100)
	var mu sync.Mutex
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil || r.Method != http.MethodPost || r.Header.Get("Content-Type") != "application/json" {
			t.Errorf("a %s of %q: %v", r.Method, r.Header.Get("Content-Type"), err)
		}
		mu.Lock()
		status := statuses[0]
		if len(statuses) > 1 {
			statuses = statuses[1:]
		}
		mu.Unlock()
		w.WriteHeader(status)
		got <- body
	}))
	t.Cleanup(srv.Close)
	return srv.URL + "/webhook/token", got
}

// posting runs the account's webhooks for as long as the test.
func posting(t *testing.T, s *sim.Sim) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); s.Run(ctx) }()
	t.Cleanup(func() { cancel(); <-done })
}

// patience bounds every wait. It is no expectation of speed: it only ends a test
// that hangs.
const patience = time.Minute

func await(t *testing.T, bodies <-chan []byte) []byte {
	t.Helper()
	select {
	case body := <-bodies:
		return body
	case <-time.After(patience):
		t.Fatal("no webhook came")
		return nil
	}
}

// awaitDeliveries waits until so many attempts have ended.
func awaitDeliveries(t *testing.T, s *sim.Sim, n int) []sim.Delivery {
	t.Helper()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	timeout := time.After(patience)
	for {
		if list := s.Deliveries(); len(list) >= n {
			return list
		}
		select {
		case <-tick.C:
		case <-timeout:
			t.Fatalf("%d deliveries, want %d", len(s.Deliveries()), n)
		}
	}
}

func TestAWebhookTellsTheEndOfAJob(t *testing.T) {
	t.Parallel()
	s, _ := account(t, one(), nil)
	url, bodies := receiver(t, 200)
	posting(t, s)
	for _, outcome := range []sim.Outcome{sim.OutcomeOK, sim.OutcomeOOM} {
		id, err := s.Submit("ep", sim.JobOptions{Webhook: url, Outcome: outcome, Input: json.RawMessage(`{"prompt":"x"}`), Execution: time.Second})
		if err != nil {
			t.Fatal(err)
		}
		s.Advance(time.Minute)
		var got map[string]any
		if err := json.Unmarshal(await(t, bodies), &got); err != nil {
			t.Fatal(err)
		}
		want := map[string]any{
			"id": id, "executionTime": 1000.0, "delayTime": got["delayTime"], "input": map[string]any{"prompt": "x"}, "webhook": url,
		}
		if outcome == sim.OutcomeOK {
			want["status"], want["output"] = "COMPLETED", map[string]any{"image_url": "https://bucket.example/" + id + ".png"}
		} else {
			want["status"], want["error"] = "FAILED", got["error"]
			raw, err := json.Marshal(got["error"])
			if f := runpod.ParseFailure("FAILED", raw); err != nil || f.Category != runpod.OutOfMemory {
				t.Errorf("the error is of category %s: %v", f.Category, err)
			}
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", outcome, diff)
		}
	}
}

func TestAWebhookIsTriedThreeTimesTenSecondsApart(t *testing.T) {
	t.Parallel()
	s, _ := account(t, one(), nil)
	url, bodies := receiver(t, 500)
	posting(t, s)
	id, err := s.Submit("ep", sim.JobOptions{Webhook: url, Execution: time.Second})
	if err != nil {
		t.Fatal(err)
	}
	s.Advance(time.Minute)
	first := await(t, bodies)
	for n := 1; n <= 2; n++ {
		awaitDeliveries(t, s, n)
		s.Advance(9 * time.Second)
		select {
		case <-bodies:
			t.Fatalf("attempt %d came after 9 s", n+1)
		case <-time.After(60 * time.Millisecond): // three rounds of looking
		}
		s.Advance(time.Second)
		if diff := cmp.Diff(string(first), string(await(t, bodies))); diff != "" {
			t.Errorf("attempt %d has another body:\n%s", n+1, diff)
		}
	}
	awaitDeliveries(t, s, 3)
	s.Advance(time.Hour)
	select {
	case <-bodies:
		t.Error("a fourth attempt was made")
	case <-time.After(60 * time.Millisecond):
	}
	want := []sim.Delivery{{JobID: id, Attempt: 1, Status: 500}, {JobID: id, Attempt: 2, Status: 500}, {JobID: id, Attempt: 3, Status: 500}}
	if diff := cmp.Diff(want, s.Deliveries()); diff != "" {
		t.Errorf("deliveries (-want +got):\n%s", diff)
	}
}

func TestAWebhookThatIsTakenLaterIsNotSentAgain(t *testing.T) {
	t.Parallel()
	s, _ := account(t, one(), nil)
	url, bodies := receiver(t, 503, 200)
	posting(t, s)
	if _, err := s.Submit("ep", sim.JobOptions{Webhook: url, Execution: time.Second}); err != nil {
		t.Fatal(err)
	}
	s.Advance(time.Minute)
	await(t, bodies)
	awaitDeliveries(t, s, 1)
	s.Advance(10 * time.Second)
	await(t, bodies)
	list := awaitDeliveries(t, s, 2)
	s.Advance(time.Hour)
	select {
	case <-bodies:
		t.Error("it was sent after it had been taken")
	case <-time.After(60 * time.Millisecond):
	}
	if len(list) != 2 || list[1].Status != 200 {
		t.Errorf("deliveries %+v, want the second taken", list)
	}
}

func TestACancelledJobHasNoWebhook(t *testing.T) {
	t.Parallel()
	s, srv := account(t, one(), nil)
	url, bodies := receiver(t, 200)
	posting(t, s)
	id, err := s.Submit("ep", sim.JobOptions{Webhook: url})
	if err != nil {
		t.Fatal(err)
	}
	send(t, srv, http.MethodPost, "/runtime/v2/ep/cancel/"+id, sim.DefaultKey, nil)
	if _, err := s.Submit("ep", sim.JobOptions{Webhook: url}); err != nil {
		t.Fatal(err)
	}
	s.Advance(time.Hour)
	var got struct{ ID string }
	if err := json.Unmarshal(await(t, bodies), &got); err != nil || got.ID == id {
		t.Errorf("the cancelled job was told: %+v, %v", got, err)
	}
}
