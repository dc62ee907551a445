package foreign

import (
	"fmt"
	"math/rand/v2"
	"net/http"
	"sync/atomic"
	"testing"
	"time"
)

// TestKilledRightAfterAWebhookWasAnswered kills Tocsin as soon as it has
// answered a webhook, again and again. A registered job's end is found by a poll
// if it was not stored; that of a job which only the webhook names was stored
// before the answer. In the end each failure counts once.
func TestKilledRightAfterAWebhookWasAnswered(t *testing.T) {
	t.Parallel()
	const rounds = 4
	// After that a webhook is answered also where the log has not stored it: RunPod
	// is not kept waiting.
	const patience = 500 * time.Millisecond
	w := newWorld(t, 2*rounds)
	w.rest.set([]map[string]any{endpoint("killed", "name", "killed")}, nil)
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))

	w.untilRulesHold(t, "killed")
	var late []string // answered so on a machine that stood still
	for round := range rounds {
		s := w.up(t)
		hooks := w.hooks(t, s, 1)
		id, unknown := fmt.Sprintf("registered-%d", round), fmt.Sprintf("unregistered-%d", round)
		failed := jobBody(id, "FAILED", map[string]any{"error": "job timed out after 1 retries"})
		var ended atomic.Bool
		w.runtime.setJob("killed", id, func(rw http.ResponseWriter, req *http.Request) {
			body := jobBody(id, "IN_PROGRESS", nil)
			if ended.Load() {
				body = failed
			}
			says(200, body)(rw, req)
		})
		register(t, s, "killed", id)
		bodies := []string{failed, jobBody(unknown, "FAILED", map[string]any{"error": "job timed out after 1 retries"})}
		random.Shuffle(2, func(i, j int) { bodies[i], bodies[j] = bodies[j], bodies[i] })
		ended.Store(true)
		for _, body := range bodies {
			began := time.Now()
			if hook(t, hooks["killed"], body); time.Since(began) >= patience {
				late = append(late, body)
			}
		}
		s.Kill()
	}

	s := w.up(t)
	for _, body := range late {
		hook(t, w.hooks(t, s, 1)["killed"], body)
	}
	query := reflectOn(t, s.query, queryToken)
	eventually(t, "every failure counts", func() string {
		if n := len(query.alerts(t, "AllFailuresCounted")); n != 1 {
			return fmt.Sprintf("%d alerts say so: %v", n, query.alerts(t, "JobsFailing"))
		}
		return ""
	})
	polled := w.runtime.times("killed/health")
	eventually(t, "five more polls", func() string {
		if n := w.runtime.times("killed/health") - polled; n < 5 {
			return fmt.Sprintf("%d so far", n)
		}
		return ""
	})
	if invented := query.alerts(t, "FailuresInvented"); len(invented) > 0 {
		t.Errorf("more than %d failures were counted: %v", 2*rounds, invented)
	}
	if code := s.Stop(); code != 0 {
		t.Errorf("it ended with code %d, want 0", code)
	}
	if n := w.receiver.count("standard", "AllFailuresCounted", "firing"); n != 1 {
		t.Errorf("the receiver was told %d times that all are counted, want once", n)
	}
}

// untilRulesHold runs Tocsin until a rule has judged an endpoint: what is told
// before the rules are in force enters none of their windows.
func (w *world) untilRulesHold(t *testing.T, id string) {
	t.Helper()
	w.runtime.setJob(id, "first", says(200, jobBody("first", "IN_PROGRESS", nil)))
	s := w.up(t)
	w.hooks(t, s, 1)
	register(t, s, id, "first")
	query := reflectOn(t, s.query, queryToken)
	eventually(t, "a rule judges "+id, func() string { return unequal(fmt.Sprint(len(query.alerts(t, "JobOpen"))), "1") })
	w.runtime.setJob(id, "first", says(200, jobBody("first", "CANCELLED", nil)))
	eventually(t, "its first job ends", func() string { return unequal(fmt.Sprint(len(query.alerts(t, "JobOpen"))), "0") })
	if code := s.Stop(); code != 0 {
		t.Errorf("it ended with code %d, want 0", code)
	}
}
