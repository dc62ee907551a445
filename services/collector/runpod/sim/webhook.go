package sim

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"maps"
	"net"
	"net/http"
	"net/url"
	"slices"
	"sync"
	"time"
)

const (
	// hookTries and hookPause are RunPod's rule: once, and at most twice more 10
	// simulated seconds apart, until the answer is 200.
	hookTries = 3
	hookPause = 10 * time.Second
	// hookLook is how often Run looks for jobs that ended.
	hookLook = 20 * time.Millisecond
	// hookTimeout bounds one attempt, on the real clock.
	hookTimeout = 5 * time.Second
	// hookParallel bounds the attempts in flight.
	hookParallel = 8
)

// checkHook allows http to the machine itself and nothing else: a simulator
// must not be able to post to anyone.
func checkHook(raw string) error {
	if raw == "" {
		return nil
	}
	u, err := url.Parse(raw)
	if err != nil || u.Scheme != "http" || u.User != nil {
		return errors.New("webhook is not a plain http URL")
	}
	if ip := net.ParseIP(u.Hostname()); u.Hostname() == "localhost" || ip != nil && ip.IsLoopback() {
		return nil
	}
	return errors.New("webhook is not on this machine")
}

// hooks are the completion webhooks that wait.
type hooks struct {
	wake chan struct{} // holds one token

	mu      sync.Mutex
	watched map[*endpoint]bool // guarded by mu; those with a webhook to come
	due     []delivery         // guarded by mu
	sent    []Delivery         // guarded by mu
}

type delivery struct {
	jobID, url string
	body       []byte
	at         time.Duration // simulated
	attempt    int
}

// Delivery is one attempt at a completion webhook.
type Delivery struct {
	// JobID names the job.
	JobID string
	// Attempt counts from 1.
	Attempt int
	// Status is the answer, 0 when there was none.
	Status int
}

func (h *hooks) poke() {
	select {
	case h.wake <- struct{}{}:
	default:
	}
}

// watch makes Run look after the jobs of e, which is locked, while it has
// webhooks to come.
func (h *hooks) watch(e *endpoint) {
	if e.hooked == 0 {
		return
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.watched == nil {
		h.watched = map[*endpoint]bool{}
	}
	h.watched[e] = true
	h.poke()
}

// add makes the result of an ended job due. Its endpoint is locked.
func (h *hooks) add(j *job) {
	state := j.wire()
	payload := struct {
		wireJob
		Input   json.RawMessage `json:"input"`
		Webhook string          `json:"webhook"`
	}{state, j.opts.Input, j.opts.Webhook}
	payload.WorkerID, payload.Retries = "", 0 // RunPod does not send them here
	if len(payload.Input) == 0 {
		payload.Input = json.RawMessage(`{}`)
	}
	body, err := json.Marshal(payload)
	if err != nil { // the input was JSON when it was taken
		body = []byte(`{}`)
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.due = append(h.due, delivery{jobID: j.id, url: j.opts.Webhook, body: body, at: j.ended, attempt: 1})
}

// look brings the watched endpoints up to t, so that their jobs end.
func (h *hooks) look(t func() time.Duration) {
	h.mu.Lock()
	watched := slices.Collect(maps.Keys(h.watched))
	h.mu.Unlock()
	for _, e := range watched {
		e.mu.Lock()
		e.advance(t())
		if e.hooked == 0 {
			h.mu.Lock()
			delete(h.watched, e)
			h.mu.Unlock()
		}
		e.mu.Unlock()
	}
}

// take removes and returns what is due at t.
func (h *hooks) take(t time.Duration) []delivery {
	h.mu.Lock()
	defer h.mu.Unlock()
	var now, later []delivery
	for _, d := range h.due {
		if d.at <= t {
			now = append(now, d)
		} else {
			later = append(later, d)
		}
	}
	h.due = later
	return now
}

// Deliveries returns every attempt at a webhook so far, in the order in which
// they ended.
func (s *Sim) Deliveries() []Delivery {
	s.hooks.mu.Lock()
	defer s.hooks.mu.Unlock()
	return append([]Delivery(nil), s.hooks.sent...)
}

// Run posts the webhooks of jobs that end until ctx ends, and returns when no
// attempt is in flight. Without it no webhook is posted.
func (s *Sim) Run(ctx context.Context) {
	client := &http.Client{
		Timeout:       hookTimeout,
		Transport:     &http.Transport{MaxIdleConnsPerHost: hookParallel}, // and no proxy
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	defer client.CloseIdleConnections()
	var inFlight sync.WaitGroup
	defer inFlight.Wait()
	slots := make(chan struct{}, hookParallel)
	look := time.NewTicker(hookLook)
	defer look.Stop()
	for {
		s.hooks.look(s.Elapsed)
		for _, d := range s.hooks.take(s.Elapsed()) {
			select {
			case slots <- struct{}{}:
			case <-ctx.Done():
				return
			}
			inFlight.Go(func() {
				defer func() { <-slots }()
				s.hooks.settle(d, post(ctx, client, d), s.Elapsed())
			})
		}
		select {
		case <-look.C:
		case <-s.hooks.wake:
		case <-ctx.Done():
			return
		}
	}
}

// settle records an attempt and plans the next when there is one.
func (h *hooks) settle(d delivery, status int, t time.Duration) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.sent = append(h.sent, Delivery{JobID: d.jobID, Attempt: d.attempt, Status: status})
	if status != http.StatusOK && d.attempt < hookTries {
		d.attempt++
		d.at = t + hookPause
		h.due = append(h.due, d)
	}
}

// post makes one attempt and returns the status of the answer, 0 without one.
func post(ctx context.Context, client *http.Client, d delivery) int {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, d.url, bytes.NewReader(d.body))
	if err != nil {
		return 0
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := client.Do(req)
	if err != nil {
		return 0
	}
	defer resp.Body.Close()
	// What the receiver says beyond its status is of no interest.
	_, _ = io.Copy(io.Discard, io.LimitReader(resp.Body, 64<<10))
	return resp.StatusCode
}
