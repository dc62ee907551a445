package e2e

import (
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/tocsin-dev/tocsin/test/internal/process"
)

// ledger is a webhook receiver that remembers all it was sent.
type ledger struct {
	server *httptest.Server

	mu      sync.Mutex
	entries []entry       // guarded by mu; in the order of arrival
	grown   chan struct{} // guarded by mu; closed and replaced at each arrival
	broken  bool          // guarded by mu; answers 500 while true
}

// entry is one delivery.
type entry struct {
	id     string
	body   string
	told   bool // answered with 200
	alerts []alert
}

// alert is what a delivery says of an alert.
type alert struct {
	ID       string            `json:"id"`
	Status   string            `json:"status"`
	Labels   map[string]string `json:"labels"`
	StartsAt time.Time         `json:"startsAt"`
	EndsAt   time.Time         `json:"endsAt"`
	Sequence uint64            `json:"sequence"`
}

func newLedger(t *testing.T) *ledger {
	l := &ledger{grown: make(chan struct{})}
	l.server = httptest.NewServer(l)
	t.Cleanup(l.server.Close)
	return l
}

// ServeHTTP takes down a delivery in the format "standard".
func (l *ledger) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(io.LimitReader(r.Body, 1<<20))
	if err != nil {
		return // a sender that was killed in the middle of a request
	}
	var message struct {
		Data struct {
			Alerts []alert `json:"alerts"`
		} `json:"data"`
	}
	if err := json.Unmarshal(body, &message); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.entries = append(l.entries, entry{
		id: r.Header.Get("webhook-id"), body: string(body), told: !l.broken, alerts: message.Data.Alerts,
	})
	close(l.grown)
	l.grown = make(chan struct{})
	if l.broken {
		http.Error(w, "out of order", http.StatusInternalServerError)
	}
}

func (l *ledger) setBroken(broken bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.broken = broken
}

func (l *ledger) all() []entry {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clip(l.entries)
}

// waitFor waits until the ledger as a whole satisfies a condition.
func (l *ledger) waitFor(t *testing.T, what string, holds func([]entry) bool) {
	t.Helper()
	deadline := time.After(process.Patience)
	for {
		l.mu.Lock()
		entries, grown := slices.Clip(l.entries), l.grown
		l.mu.Unlock()
		if holds(entries) {
			return
		}
		select {
		case <-grown:
		case <-deadline:
			t.Fatalf("not within %v: %s; received: %s", process.Patience, what, summary(entries))
		}
	}
}

func summary(entries []entry) string {
	var text []byte
	for _, e := range entries {
		for _, a := range e.alerts {
			text = append(text, "\n  "+e.id+" "+a.Status+" "+a.Labels["alertname"]+" "+a.Labels["endpoint_id"]+" "+a.ID...)
		}
	}
	return string(text)
}

// told lists what was said and answered well of each alert, by its id.
func told(entries []entry) map[string][]alert {
	by := map[string][]alert{}
	for _, e := range entries {
		if !e.told {
			continue
		}
		for _, a := range e.alerts {
			by[a.ID] = append(by[a.ID], a)
		}
	}
	return by
}

// check verifies what holds at any time: repeats are equal to the byte, no
// state goes backwards, and an alert keeps its start.
func check(t *testing.T, entries []entry) {
	t.Helper()
	bodies := map[string]string{}
	for _, e := range entries {
		if e.id == "" {
			t.Errorf("a delivery has no webhook-id: %s", e.body)
		}
		if first, ok := bodies[e.id]; ok && first != e.body {
			t.Errorf("delivery %s was repeated with another body:\n%s\n%s", e.id, first, e.body)
		}
		bodies[e.id] = e.body
	}
	for id, states := range told(entries) {
		last := alert{}
		for _, a := range states {
			if a.Sequence < last.Sequence {
				t.Errorf("alert %s went back from sequence %d to %d", id, last.Sequence, a.Sequence)
			}
			if last.Status == "resolved" && a.Status == "firing" {
				t.Errorf("alert %s (%s) was told firing after resolved", id, a.Labels["alertname"])
			}
			if last.ID != "" && !last.StartsAt.Equal(a.StartsAt) {
				t.Errorf("alert %s began at %v and then at %v", id, last.StartsAt, a.StartsAt)
			}
			last = a
		}
	}
}
