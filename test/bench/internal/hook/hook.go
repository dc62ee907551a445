// Package hook is the receiver of the benchmarks: it answers every webhook at
// once, and remembers when it came.
package hook

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"
	"time"
)

// maxBody bounds a message: the sender stays below 240 KiB.
const maxBody = 1 << 20

// readLimit bounds how long a message may take to arrive.
const readLimit = 30 * time.Second

// Arrival is a message that came.
type Arrival struct {
	// At is when it was there whole.
	At time.Time
	// ID is its webhook-id: repeats of a message have the same.
	ID string
	// Body is the message; nil unless bodies are kept.
	Body []byte
}

// Hook is a receiver that runs.
type Hook struct {
	// URL is where it listens.
	URL string

	server *http.Server
	keep   bool

	mu       sync.Mutex
	arrivals []Arrival           // guarded by mu
	ids      map[string]struct{} // guarded by mu
	grown    chan struct{}       // has a token after a message came
}

// Start starts a receiver. keep makes it keep the bodies of messages.
func Start(keep bool) (*Hook, error) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("listen for webhooks: %w", err)
	}
	h := &Hook{
		URL: "http://" + ln.Addr().String() + "/hook", keep: keep,
		ids: map[string]struct{}{}, grown: make(chan struct{}, 1),
	}
	h.server = &http.Server{Handler: http.HandlerFunc(h.take), ReadHeaderTimeout: readLimit, ReadTimeout: readLimit}
	go func() { _ = h.server.Serve(ln) }() // it ends with Close
	return h, nil
}

// Close ends the receiver.
func (h *Hook) Close() {
	// Its error is about the listener, which nothing comes from any more.
	_ = h.server.Close()
}

func (h *Hook) take(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	a := Arrival{At: time.Now(), ID: r.Header.Get("webhook-id")}
	if h.keep {
		a.Body = body
	}
	h.mu.Lock()
	h.arrivals = append(h.arrivals, a)
	h.ids[a.ID] = struct{}{}
	h.mu.Unlock()
	select {
	case h.grown <- struct{}{}:
	default:
	}
}

// Distinct returns how many different messages came.
func (h *Hook) Distinct() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return len(h.ids)
}

// Arrivals returns what came, in the order of its coming.
func (h *Hook) Arrivals() []Arrival {
	h.mu.Lock()
	defer h.mu.Unlock()
	return append([]Arrival(nil), h.arrivals...)
}

// ErrMissing says that fewer messages came than were waited for.
var ErrMissing = errors.New("messages are missing")

// Wait waits until n different messages have come. It returns an error wrapping
// ErrMissing when none came for as long as quiet.
func (h *Hook) Wait(ctx context.Context, n int, quiet time.Duration) error {
	timer := time.NewTimer(quiet)
	defer timer.Stop()
	for {
		came := h.Distinct()
		if came >= n {
			return nil
		}
		timer.Reset(quiet)
		select {
		case <-h.grown:
		case <-ctx.Done():
			return fmt.Errorf("wait for %d webhooks: %w", n, ctx.Err())
		case <-timer.C:
			return fmt.Errorf("%d of %d webhooks came, and none for %v: %w", came, n, quiet, ErrMissing)
		}
	}
}

// Told is what a message says of one alert.
type Told struct {
	// ID is the alert's id.
	ID string `json:"id"`
	// Status is "firing" or "resolved".
	Status string `json:"status"`
	// Labels are the alert's labels.
	Labels map[string]string `json:"labels"`
}

// Read returns what a message in the standard format says.
func (a Arrival) Read() ([]Told, error) {
	var body struct {
		Data struct {
			Alerts []Told `json:"alerts"`
		} `json:"data"`
	}
	if err := json.Unmarshal(a.Body, &body); err != nil {
		return nil, fmt.Errorf("read a webhook: %w", err)
	}
	return body.Data.Alerts, nil
}
