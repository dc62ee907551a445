package runpod

import (
	"math"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"
)

const (
	// maxRetryAfter bounds how long one answer can silence the client. The
	// longest window that RunPod names short of a day is an hour; trying again
	// after a quarter of it costs at most three calls that are refused.
	maxRetryAfter = 15 * time.Minute
	// maxReset bounds the end of a window: RunPod's longest is a day.
	maxReset = 24 * time.Hour
	// floorDivisor keeps the last twentieth of a quota untouched, whoever used
	// the rest: below it the customer's own calls are about to be refused.
	floorDivisor = 20
	// resetSlack tells a new window from one whose end moved by rounding:
	// RunPod gives whole seconds, so an end moves by one either way.
	resetSlack = 2 * time.Second
	// maxWindows bounds the windows that are kept; RunPod has three.
	maxWindows = 8
	// maxWindowName bounds a window's name, in bytes, which becomes a label of
	// metrics; RunPod's longest has 6.
	maxWindowName = 64
)

// Window is one quota window of an account, as the last answer described it.
type Window struct {
	// Name is RunPod's name for it: minute, hour or day.
	Name string
	// Quota is the number of calls it allows, 0 when not known.
	Quota int64
	// Length is how long it lasts, 0 when not known.
	Length time.Duration
	// Remaining is the number of calls left to all tools together, less the
	// calls made since; negative when not known.
	Remaining int64
	// ResetAt is when it starts anew, zero when not known.
	ResetAt time.Time
	// Used is the number of calls that this client made in it.
	Used int64
}

// Budget paces calls by the RateLimit, RateLimit-Policy and Retry-After headers
// of the answers to earlier ones. It reads no clock: callers pass now. The zero
// Budget knows no limit and asks for no delay.
type Budget struct {
	windows      []Window
	blockedUntil time.Time
}

// Windows returns the windows known, in the order in which RunPod named them.
func (b *Budget) Windows() []Window { return slices.Clone(b.windows) }

// Delay returns how long after now the next call must wait. This client makes
// at most the part of each quota that remains when share (between 0 and 1) is
// left to the customer's other tools, none while less than a twentieth of the
// quota is left at all, and none before a Retry-After has passed. What is not
// known delays nothing.
func (b *Budget) Delay(now time.Time, share float64) time.Duration {
	delay := b.blockedUntil.Sub(now)
	for _, w := range b.windows {
		if w.exhausted(now, share) {
			delay = max(delay, w.ResetAt.Sub(now))
		}
	}
	return max(delay, 0)
}

func (w Window) exhausted(now time.Time, share float64) bool {
	if !now.Before(w.ResetAt) {
		return false
	}
	if w.Remaining >= 0 && w.Remaining <= w.Quota/floorDivisor {
		return true
	}
	own := int64(math.Floor(float64(w.Quota) * (1 - share)))
	return w.Quota > 0 && w.Used >= max(own, 1)
}

// Spend counts a call made at now.
func (b *Budget) Spend(now time.Time) {
	for i := range b.windows {
		w := &b.windows[i]
		if !now.Before(w.ResetAt) { // a new window, of which nothing is known yet
			w.Used, w.Remaining, w.ResetAt = 0, -1, time.Time{}
		}
		w.Used++
		if w.Remaining > 0 {
			w.Remaining--
		}
	}
}

// Observe learns from the status and header of an answer that came at now.
func (b *Budget) Observe(now time.Time, status int, h http.Header) {
	if status == http.StatusTooManyRequests || status == http.StatusServiceUnavailable {
		if wait, ok := RetryAfter(h, now); ok {
			b.blockedUntil = latest(b.blockedUntil, now.Add(wait))
		}
	}
	for _, p := range parseList(h.Values("RateLimit-Policy")) {
		w := b.window(p.name, now)
		if w == nil {
			continue
		}
		if q, ok := p.params["q"]; ok {
			w.Quota = q
		}
		if length, ok := p.params["w"]; ok {
			w.Length = seconds(length, maxReset)
		}
	}
	for _, m := range parseList(h.Values("RateLimit")) {
		w := b.window(m.name, now)
		if w == nil {
			continue
		}
		if r, ok := m.params["r"]; ok {
			w.Remaining = r
		}
		t, ok := m.params["t"]
		if !ok {
			continue
		}
		reset := now.Add(seconds(t, w.longest()))
		if !w.ResetAt.IsZero() && reset.Sub(w.ResetAt) > resetSlack {
			w.Used = 1 // the call that was answered
		}
		w.ResetAt = reset
	}
}

// longest returns how far off the end of w can be: no answer silences the client
// for longer than the window lasts.
func (w *Window) longest() time.Duration {
	if w.Length > 0 {
		return min(w.Length+resetSlack, maxReset)
	}
	return maxReset
}

// window returns the window called name, a new one when there is none. It returns
// nil for a name that can be none, and when there are too many windows of which
// none is over.
func (b *Budget) window(name string, now time.Time) *Window {
	for i := range b.windows {
		if b.windows[i].Name == name {
			return &b.windows[i]
		}
	}
	if len(name) > maxWindowName {
		return nil
	}
	if len(b.windows) >= maxWindows {
		b.windows = slices.DeleteFunc(b.windows, func(w Window) bool { return !now.Before(w.ResetAt) })
	}
	if len(b.windows) >= maxWindows {
		return nil
	}
	b.windows = append(b.windows, Window{Name: name, Remaining: -1})
	return &b.windows[len(b.windows)-1]
}

// RetryAfter reads the header Retry-After of an answer that came at now, seconds
// or a date, as a wait of at most 15 minutes. A date counts from the server's own,
// so that it means the same whatever our clock shows; from now where the server
// sends none. It reports false when there is no such header.
func RetryAfter(h http.Header, now time.Time) (time.Duration, bool) {
	value := strings.TrimSpace(h.Get("Retry-After"))
	if n, err := strconv.ParseUint(value, 10, 63); err == nil {
		return seconds(int64(n), maxRetryAfter), true
	}
	at, err := http.ParseTime(value)
	if err != nil {
		return 0, false
	}
	if sent, err := http.ParseTime(h.Get("Date")); err == nil {
		now = sent
	}
	return min(max(at.Sub(now), 0), maxRetryAfter), true
}

func seconds(n int64, most time.Duration) time.Duration {
	if n > int64(most/time.Second) {
		return most
	}
	return time.Duration(n) * time.Second
}

func latest(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}
