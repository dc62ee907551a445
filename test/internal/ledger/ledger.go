// Package ledger is a webhook receiver that remembers all it was sent, answers
// as badly as a test wants, and judges what it was told: an independent account
// of what Tocsin promises to receivers.
package ledger

import (
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"
)

// maxBody bounds what is read of a request.
const maxBody = 1 << 20

// Mood is how a receiver answers. The zero value answers 200.
type Mood struct {
	// Status is what it answers; 0 means 200.
	Status int
	// RetryAfter, in seconds, is sent with a Status unless it is 0.
	RetryAfter int
	// Hang answers nothing until the caller goes or the mood changes. What came
	// counts as processed.
	Hang bool
	// Drop closes the connection without an answer. What came counts as processed.
	Drop bool
	// Late is how long it takes to answer 200. What came counts as processed at once.
	Late time.Duration
}

// Entry is one delivery that arrived.
type Entry struct {
	// ID is its webhook-id.
	ID string
	// Body is what came, to the byte.
	Body string
	// Told is true when it was answered with 200.
	Told bool
	// Alerts is what it says.
	Alerts []Alert
}

// Alert is what a delivery says of an alert.
type Alert struct {
	// ID names the incident: Tocsin's id or, in Alertmanager's payload, which has
	// none, what Incident makes of it.
	ID string
	// Status is "firing" or "resolved".
	Status string
	// Labels are its identity.
	Labels map[string]string
	// StartsAt is when it began to fire.
	StartsAt time.Time
	// Sequence orders what is said of an alert.
	Sequence uint64
}

// Incident names an incident where only its fingerprint and start are known.
func Incident(fingerprint string, start time.Time) string {
	return fingerprint + "@" + start.UTC().Format(time.RFC3339Nano)
}

// Ledger is the receiver. It is safe for concurrent use.
type Ledger struct {
	server *httptest.Server

	mu      sync.Mutex
	entries []Entry       // guarded by mu; in the order of arrival
	changed chan struct{} // guarded by mu; closed and replaced at each arrival and change of mood
	mood    Mood          // guarded by mu
}

// New starts a receiver that answers 200.
func New(t testing.TB) *Ledger {
	t.Helper()
	l := &Ledger{changed: make(chan struct{})}
	l.server = httptest.NewServer(l)
	t.Cleanup(func() {
		l.SetMood(Mood{})
		l.server.CloseClientConnections()
		l.server.Close()
	})
	return l
}

// URL returns where deliveries are sent.
func (l *Ledger) URL() string { return l.server.URL }

// Addr returns the host and port of the URL.
func (l *Ledger) Addr() string { return l.server.Listener.Addr().String() }

// SetMood changes how the receiver answers from now on.
func (l *Ledger) SetMood(m Mood) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.mood = m
	l.wake()
}

// All returns what arrived so far.
func (l *Ledger) All() []Entry {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clip(l.entries)
}

// Changed returns what arrived so far, and a channel that is closed when more
// has.
func (l *Ledger) Changed() ([]Entry, <-chan struct{}) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clip(l.entries), l.changed
}

// wake tells those who wait. The caller holds mu.
func (l *Ledger) wake() {
	close(l.changed)
	l.changed = make(chan struct{})
}

// ServeHTTP takes down a delivery in the format "standard" or in Alertmanager's.
func (l *Ledger) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(io.LimitReader(r.Body, maxBody))
	if err != nil {
		return // a sender that was killed in the middle of a request
	}
	alerts, err := parse(body)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	mood, changed, place := l.take(Entry{ID: r.Header.Get("webhook-id"), Body: string(body), Alerts: alerts})
	switch {
	case mood.Hang:
		select {
		case <-changed:
		case <-r.Context().Done():
		}
		panic(http.ErrAbortHandler)
	case mood.Drop:
		panic(http.ErrAbortHandler)
	case mood.Late > 0:
		select {
		case <-time.After(mood.Late):
			l.told(place)
		case <-r.Context().Done():
			panic(http.ErrAbortHandler)
		}
	case mood.Status != 0:
		if mood.RetryAfter > 0 {
			w.Header().Set("Retry-After", strconv.Itoa(mood.RetryAfter))
		}
		http.Error(w, "out of order", mood.Status)
	}
}

// take notes a delivery and says how to answer it, until when, and its place.
func (l *Ledger) take(e Entry) (mood Mood, changed <-chan struct{}, place int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	e.Told = l.mood == Mood{}
	l.entries = append(l.entries, e)
	l.wake()
	return l.mood, l.changed, len(l.entries) - 1
}

// told notes that a delivery is answered with 200 after all.
func (l *Ledger) told(place int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.entries = slices.Clone(l.entries) // others may be reading the old ones
	l.entries[place].Told = true
	l.wake()
}

// parse reads both formats: they have no key in common.
func parse(body []byte) ([]Alert, error) {
	type common struct {
		Status   string            `json:"status"`
		Labels   map[string]string `json:"labels"`
		StartsAt time.Time         `json:"startsAt"`
	}
	var message struct {
		Data struct {
			Alerts []struct {
				common
				ID       string `json:"id"`
				Sequence uint64 `json:"sequence"`
			} `json:"alerts"`
		} `json:"data"`
		Sequence uint64 `json:"sequence"`
		Alerts   []struct {
			common
			Fingerprint string `json:"fingerprint"`
		} `json:"alerts"`
	}
	if err := json.Unmarshal(body, &message); err != nil {
		return nil, err
	}
	var alerts []Alert
	for _, a := range message.Data.Alerts {
		alerts = append(alerts, Alert{ID: a.ID, Status: a.Status, Labels: a.Labels, StartsAt: a.StartsAt, Sequence: a.Sequence})
	}
	for _, a := range message.Alerts {
		alerts = append(alerts, Alert{
			ID: Incident(a.Fingerprint, a.StartsAt), Status: a.Status, Labels: a.Labels, StartsAt: a.StartsAt, Sequence: message.Sequence,
		})
	}
	return alerts, nil
}
