package sim

import (
	"crypto/subtle"
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"
)

// outageHold bounds how long an answer is held open in a silent outage: longer
// than any client's timeout, so that it is the client that gives up.
const outageHold = time.Minute

// access says who may call, and how often.
type access struct {
	keys      []Key
	quota     []Quota
	unlimited bool
	speed     float64

	mu    sync.Mutex
	spent []spent // guarded by mu; one for each of quota
}

// spent counts the calls of one window, of whatever key: RunPod counts by user.
type spent struct {
	began time.Time
	calls int
}

func newAccess(o Options) access {
	return access{keys: o.Keys, quota: o.Quota, unlimited: o.Unlimited, speed: o.Speed, spent: make([]spent, len(o.Quota))}
}

// find returns the key of a request, nil when it is not one of the account's.
func (a *access) find(r *http.Request) *Key {
	auth := r.Header.Get("Authorization")
	// The runtime API takes the bare key, too.
	sent := strings.TrimPrefix(auth, "Bearer ")
	for i, k := range a.keys {
		if subtle.ConstantTimeCompare([]byte(sent), []byte(k.Value)) == 1 {
			return &a.keys[i]
		}
	}
	return nil
}

// spend counts a call, writes the headers of what is left, and returns the name
// of the window that is exceeded and the seconds until it begins anew.
func (a *access) spend(now time.Time, h http.Header) (exceeded string, wait int) {
	if a.unlimited {
		return "", 0
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	var limits, policies []string
	for i, q := range a.quota {
		s := &a.spent[i]
		if now.Sub(s.began) >= q.Window || now.Before(s.began) {
			*s = spent{began: now}
		}
		s.calls++
		allowed := int(float64(q.Calls) * max(a.speed, 1))
		reset := int(math.Ceil(s.began.Add(q.Window).Sub(now).Seconds()))
		limits = append(limits, fmt.Sprintf("%q;r=%d;t=%d", q.Name, max(allowed-s.calls, 0), reset))
		policies = append(policies, fmt.Sprintf("%q;q=%d;w=%d", q.Name, allowed, int(q.Window.Seconds())))
		if s.calls > allowed && reset > wait {
			exceeded, wait = q.Name, reset
		}
	}
	h.Set("RateLimit", strings.Join(limits, ", "))
	h.Set("RateLimit-Policy", strings.Join(policies, ", "))
	return exceeded, wait
}

// refuse answers a call that the account, the script or the quota refuses, and
// reports whether it did.
func (s *Sim) refuse(w *statusWriter, r *http.Request, scope Scope, rest bool) bool {
	t := s.Elapsed()
	if outage, ok := s.account.active(t, apiOutage); ok {
		s.outage(w, r, outage)
		return true
	}
	key := s.access.find(r)
	if _, revoked := s.account.active(t, revokeKey); key == nil || revoked {
		detail := "the bearer token is not valid"
		if r.Header.Get("Authorization") == "" {
			detail = "missing bearer token"
		}
		problem(w, http.StatusUnauthorized, detail)
		return true
	}
	if rest {
		if window, wait := s.access.spend(s.opts.Now(), w.Header()); window != "" {
			w.Header().Set("Retry-After", fmt.Sprint(wait))
			problem(w, http.StatusTooManyRequests, "rate limit exceeded for the "+window+" window")
			return true
		}
	}
	dropped, drop := s.account.active(t, dropScope)
	if slices.Contains(key.Without, scope) || drop && dropped.scope == scope {
		problem(w, http.StatusForbidden, "access denied")
		return true
	}
	return false
}

func (s *Sim) outage(w *statusWriter, r *http.Request, e Effect) {
	if e.status != 0 {
		problem(w, e.status, "upstream is not available")
		return
	}
	hold := time.NewTimer(outageHold)
	defer hold.Stop()
	select {
	case <-hold.C:
	case <-r.Context().Done():
	case <-s.stopped:
	}
	w.status = 0
	panic(http.ErrAbortHandler) // no answer at all
}

// problem answers with an error as REST v2 does (RFC 9457).
func problem(w http.ResponseWriter, status int, detail string) {
	w.Header().Set("Content-Type", "application/problem+json")
	w.WriteHeader(status)
	writeJSON(w, map[string]any{"title": http.StatusText(status), "status": status, "detail": detail})
}

func answer(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	writeJSON(w, v)
}

// writeJSON writes v. A caller that went away misses nothing by the error.
func writeJSON(w http.ResponseWriter, v any) { _ = json.NewEncoder(w).Encode(v) }

// callLog counts answered calls by route and status.
type callLog struct {
	mu sync.Mutex
	n  map[string]int // guarded by mu
}

func (l *callLog) add(pattern string, status int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.n == nil {
		l.n = map[string]int{}
	}
	l.n[fmt.Sprintf("%s %d", pattern, status)]++
}

func (l *callLog) counts() map[string]int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return maps.Clone(l.n)
}

// statusWriter remembers the status that was written.
type statusWriter struct {
	http.ResponseWriter
	status int
}

// WriteHeader passes the status on.
func (w *statusWriter) WriteHeader(status int) {
	w.status = status
	w.ResponseWriter.WriteHeader(status)
}
