package runpod

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"sync"
	"time"

	"github.com/tocsin-dev/tocsin/internal/event"
)

// maxErrorBytes bounds what is read of the body of a failed call; a problem+json
// body has about 200 bytes.
const maxErrorBytes = 16 << 10

// call is one GET.
type call struct {
	op    string
	url   string
	gated bool  // counts against the REST quota
	limit int64 // bytes of body
	skim  bool  // leave out the members that are not decoded anyway
}

// get makes the call and returns the body of a 200. Any other outcome is an
// [Error].
func (c *Client) get(ctx context.Context, k call) ([]byte, error) {
	if k.gated {
		if err := c.gate.wait(ctx, k.op, c.opts.Timeout); err != nil {
			return nil, err
		}
	}
	select {
	case c.slots <- struct{}{}:
		defer func() { <-c.slots }()
	case <-ctx.Done():
		return nil, c.failed(ctx, k.op, ctx.Err())
	}
	// The deadline starts here: waiting for a slot is not RunPod's doing.
	limited, cancel := context.WithTimeout(ctx, c.opts.Timeout)
	defer cancel()
	req, err := http.NewRequestWithContext(limited, http.MethodGet, k.url, nil)
	if err != nil {
		return nil, c.failed(ctx, k.op, err)
	}
	req.Header.Set("Authorization", "Bearer "+c.key)
	req.Header.Set("Accept", "application/json, application/problem+json")
	req.Header.Set("User-Agent", c.opts.UserAgent)
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, c.failed(ctx, k.op, err)
	}
	defer resp.Body.Close()
	if k.gated {
		c.gate.observe(resp)
	}
	if resp.StatusCode != http.StatusOK {
		return nil, c.refused(k.op, resp)
	}
	body, err := readBody(resp.Body, k, c.opts.MaxItemBytes)
	switch {
	case errors.Is(err, errTooLarge):
		return nil, &Error{Op: k.op, Kind: TooLarge, Status: resp.StatusCode, Detail: err.Error()}
	case err != nil:
		return nil, c.failed(ctx, k.op, err)
	}
	return event.Hide(body, c.key), nil
}

var errTooLarge = errors.New("answer is too large")

// readBody reads at most k.limit bytes, of which a skimmed body may keep
// maxKept.
func readBody(r io.Reader, k call, maxKept int64) ([]byte, error) {
	limited := &io.LimitedReader{R: r, N: k.limit + 1}
	var kept bytes.Buffer
	var to io.Writer = &kept
	if k.skim {
		to = &skimmer{to: &kept, max: maxKept}
	}
	if _, err := io.Copy(to, limited); err != nil {
		return nil, err
	}
	if limited.N == 0 {
		return nil, fmt.Errorf("%w: more than %d bytes", errTooLarge, k.limit)
	}
	return kept.Bytes(), nil
}

// refused turns an answer that is not a 200 into an error.
func (c *Client) refused(op string, resp *http.Response) *Error {
	// What cannot be read of the explanation is only missing from the text.
	body, _ := io.ReadAll(io.LimitReader(resp.Body, maxErrorBytes))
	wait, _ := RetryAfter(resp.Header, c.opts.Now())
	return &Error{
		Op: op, Kind: kindOfStatus(resp.StatusCode), Status: resp.StatusCode,
		RetryAfter: wait, Detail: c.detailOf(body),
	}
}

// failed turns an error of the transport into one of ours. ctx is the caller's,
// which tells its giving up from our deadline.
func (c *Client) failed(ctx context.Context, op string, err error) *Error {
	// The URL that url.Error adds says nothing that op does not.
	if e, ok := errors.AsType[*url.Error](err); ok {
		err = e.Err
	}
	failure := &Error{Op: op, Kind: Network, Detail: c.clean(err.Error()), Err: c.scrub(err)}
	netErr, isNet := errors.AsType[net.Error](err)
	switch {
	case errors.Is(ctx.Err(), context.Canceled):
		failure.Kind, failure.Detail, failure.Err = Canceled, "", context.Canceled
	case errors.Is(err, context.DeadlineExceeded), ctx.Err() != nil:
		failure.Kind, failure.Err = Timeout, context.DeadlineExceeded
		failure.Detail = fmt.Sprintf("no whole answer within %v", c.opts.Timeout)
	case isNet && netErr.Timeout():
		failure.Kind = Timeout
	}
	return failure
}

// scrub keeps an error as a cause only when its text is free of the key, which a
// broken server may send back.
func (c *Client) scrub(err error) error {
	text := []byte(err.Error())
	if bytes.Equal(event.Hide(text, c.key), text) {
		return err
	}
	return errors.New(c.clean(err.Error()))
}

// gate holds REST calls back while the quota says so.
type gate struct {
	now   func() time.Time
	share float64

	mu     sync.Mutex
	budget Budget // guarded by mu
}

// wait returns when the next call may be made. When that takes longer than
// longest it returns at once with an error of kind [RateLimited]: a caller that
// polls does better to come again than to hang.
func (g *gate) wait(ctx context.Context, op string, longest time.Duration) error {
	for {
		delay := g.take()
		if delay <= 0 {
			return nil
		}
		if delay > longest {
			return &Error{Op: op, Kind: RateLimited, RetryAfter: delay, Detail: "not called: the quota of this account is used up"}
		}
		timer := time.NewTimer(delay)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			kind := Canceled
			if errors.Is(ctx.Err(), context.DeadlineExceeded) {
				kind = Timeout
			}
			return &Error{Op: op, Kind: kind, Detail: "gave up waiting for the quota", Err: ctx.Err()}
		}
	}
}

// take spends one call, or says how long to wait before asking again.
func (g *gate) take() time.Duration {
	g.mu.Lock()
	defer g.mu.Unlock()
	now := g.now()
	delay := g.budget.Delay(now, g.share)
	if delay <= 0 {
		g.budget.Spend(now)
	}
	return delay
}

func (g *gate) observe(resp *http.Response) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.budget.Observe(g.now(), resp.StatusCode, resp.Header)
}

func (g *gate) windows() []Window {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.budget.Windows()
}
