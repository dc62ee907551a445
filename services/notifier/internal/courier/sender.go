package courier

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/tocsin-dev/tocsin/services/notifier/internal/delivery"
	"github.com/tocsin-dev/tocsin/services/notifier/internal/send"
	"github.com/tocsin-dev/tocsin/services/notifier/internal/settings"
)

// Sender makes attempts over the configured integrations.
type Sender struct {
	ways map[[2]string]way
	mu   sync.Mutex // one line is printed at a time
	line func(string)
}

// way is one integration and how to reach it.
type way struct {
	settings.Integration
	client *send.Client // nil for those that print
}

// result is what became of an attempt, and how long it took.
type result struct {
	attempt delivery.Attempt
	outcome delivery.Outcome
	took    time.Duration
}

// NewSender returns a sender. Integrations that print call line with each line,
// one at a time. When files that the configuration names cannot be read, it returns
// an error that names every one, with the place of its integration.
func NewSender(integrations []settings.Integration, userAgent string, line func(string)) (*Sender, error) {
	s := &Sender{ways: map[[2]string]way{}, line: line}
	var errs []error
	for _, in := range integrations {
		w := way{Integration: in}
		if in.Format != settings.FormatPrint {
			client, err := send.NewClient(send.Options{
				Name: in.Receiver + "/" + in.Name, HTTP: in.HTTP, Guard: send.Operator, Timeout: in.Timeout, UserAgent: userAgent,
			})
			if err != nil {
				errs = append(errs, fmt.Errorf("%s: receiver %q: http_config: %w", in.Place, in.Receiver, err))
				continue
			}
			w.client = client
		}
		s.ways[[2]string{in.Receiver, in.Name}] = w
	}
	if len(errs) > 0 {
		s.Close()
		return nil, errors.Join(errs...)
	}
	return s, nil
}

// Close closes idle connections.
func (s *Sender) Close() {
	for _, w := range s.ways {
		if w.client != nil {
			w.client.Close()
		}
	}
}

// notLeading is the outcome of attempts that were not made because this process
// does not lead any more.
var notLeading = delivery.Outcome{Canceled: true, Error: "the lease ended before the attempt"}

// attempt makes one attempt, unless valid says that this process does not lead.
func (s *Sender) attempt(ctx context.Context, valid func() bool, a delivery.Attempt) result {
	begin := time.Now()
	w := s.ways[[2]string{a.Lane.Receiver, a.Lane.Integration}]
	r := result{attempt: a}
	switch {
	case w.Format != settings.FormatPrint:
		r.outcome = w.post(ctx, valid, a)
	case valid():
		r.outcome = s.print(a)
	default:
		r.outcome = notLeading
	}
	r.outcome.Canceled = r.outcome.Canceled || ctx.Err() != nil && !r.outcome.Told
	r.took = time.Since(begin)
	return r
}

func (s *Sender) print(a delivery.Attempt) delivery.Outcome {
	s.mu.Lock()
	defer s.mu.Unlock()
	for line := range strings.Lines(string(a.Body.Bytes)) {
		s.line(strings.TrimSuffix(line, "\n"))
	}
	return delivery.Outcome{Told: true}
}

func (w way) post(ctx context.Context, valid func() bool, a delivery.Attempt) delivery.Outcome {
	to, err := w.Endpoint.URL()
	if err != nil {
		return delivery.Outcome{Error: err.Error()}
	}
	now := time.Now()
	header := http.Header{"Content-Type": {a.Body.ContentType}}
	for name, value := range w.Key.Headers(a.ID, now, a.Body.Bytes) {
		header.Set(name, value)
	}
	// The last thing before the request: reading a file or signing may have taken
	// as long as the process was stopped.
	if !valid() {
		return notLeading
	}
	return outcome(w.client.Post(ctx, now, send.Request{URL: to, Header: header, Body: a.Body.Bytes}))
}

// outcome judges an answer. A 2xx whose body does not end is a 2xx.
func outcome(a send.Answer) delivery.Outcome {
	o := delivery.Outcome{Status: a.Status, RetryAfter: a.RetryAfter}
	switch {
	case a.Status >= 200 && a.Status < 300:
		o.Told = true
		return o
	case a.Status == 0:
		o.Error = a.Err.Error()
		return o
	}
	o.Gone = a.Status == http.StatusGone
	switch a.Status {
	case http.StatusTooManyRequests, http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
		o.Throttled = true // as Standard Webhooks has it
	}
	o.Error = strings.TrimSpace(fmt.Sprintf("answered %d %s", a.Status, http.StatusText(a.Status)))
	if a.Excerpt != "" {
		o.Error += ": " + a.Excerpt
	}
	return o
}
