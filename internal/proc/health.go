package proc

import (
	"context"
	"encoding/json"
	"net/http"
	"sync"
	"time"

	"github.com/tocsin-dev/tocsin/internal/event"
)

// readyTimeout bounds all checks of one question. Kubernetes gives a probe one
// second by default; 800 ms leave room for the answer's way.
const readyTimeout = 800 * time.Millisecond

// maxReadyText bounds what /readyz shows of one failing check, in bytes.
const maxReadyText = 256

// Health answers whether the process lives and whether it can do its work. Its
// checks are added while the process is wired, and may be added at any time.
// The zero value has no checks and is ready.
type Health struct {
	mu     sync.Mutex
	checks map[string]func(context.Context) error // guarded by mu
}

// Add adds a check that the process is ready only when it returns nil. It must
// end with its context, better answer from memory, and may be called from
// several goroutines at once. A check of the same name is replaced.
func (h *Health) Add(name string, check func(context.Context) error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.checks == nil {
		h.checks = map[string]func(context.Context) error{}
	}
	h.checks[name] = check
}

// Failing runs all checks at once and returns the errors of those that fail, by
// name. A check that has not answered after 800 ms fails with its context's
// error.
func (h *Health) Failing(ctx context.Context) map[string]error {
	ctx, cancel := context.WithTimeout(ctx, readyTimeout)
	defer cancel()
	type answer struct {
		name string
		err  error
	}
	h.mu.Lock()
	waiting := make(map[string]bool, len(h.checks))
	answers := make(chan answer, len(h.checks)) // room for all, so that a late one can end
	for name, check := range h.checks {
		waiting[name] = true
		go func() { answers <- answer{name, check(ctx)} }()
	}
	h.mu.Unlock()

	failing := map[string]error{}
	for len(waiting) > 0 {
		select {
		case a := <-answers:
			delete(waiting, a.name)
			if a.err != nil {
				failing[a.name] = a.err
			}
		case <-ctx.Done():
			for name := range waiting {
				failing[name] = ctx.Err()
			}
			return failing
		}
	}
	return failing
}

// Routes adds GET /healthz and GET /readyz to mux. The first answers 200 as long
// as the process answers at all, so that a restart is asked for only where it
// helps. The second answers 200, or 503 with the failing checks.
func (h *Health) Routes(mux *Mux) {
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) {
		writeJSON(w, http.StatusOK, map[string]string{"status": "alive"})
	})
	mux.HandleFunc("GET /readyz", h.ready)
}

func (h *Health) ready(w http.ResponseWriter, r *http.Request) {
	failing := h.Failing(r.Context())
	if len(failing) == 0 {
		writeJSON(w, http.StatusOK, map[string]any{"status": "ready"})
		return
	}
	texts := make(map[string]string, len(failing))
	for name, err := range failing {
		texts[name] = event.RedactTo(err.Error(), maxReadyText)
	}
	writeJSON(w, http.StatusServiceUnavailable, map[string]any{"status": "not ready", "failing": texts})
}

// writeJSON answers with v, which must be encodable.
func writeJSON(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	// An error here is a caller who went away; there is nobody left to tell.
	_ = json.NewEncoder(w).Encode(v)
}
