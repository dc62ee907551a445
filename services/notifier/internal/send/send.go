// Package send makes one attempt to deliver a message over HTTP.
//
// An attempt is bounded in everything: in time including the answer's body, in
// what it reads of the answer, and in where it connects to ([Guard]). Redirects
// are not followed, answers not unpacked, and nothing is repeated in secret.
// Errors hold neither the URL nor what it carries.
package send

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	commoncfg "github.com/prometheus/common/config"

	"github.com/tocsin-dev/tocsin/internal/event"
)

const (
	// DefaultTimeout bounds an attempt from the first packet to the end of the
	// answer's body, unless the configuration says otherwise.
	DefaultTimeout = 10 * time.Second
	// maxExcerpt is how much of an answer is kept for the log, in bytes.
	maxExcerpt = 256
	// maxRead is how much of an answer is read, so that the connection can be
	// used again after answers of ordinary size. The rest is cut off.
	maxRead = 64 << 10
	// idleTimeout closes connections that were not used for a while.
	idleTimeout = 90 * time.Second
)

// Client delivers to one integration. It is safe for concurrent use.
type Client struct {
	http    *http.Client
	proxy   func(*http.Request) (*url.URL, error)
	guard   Guard
	timeout time.Duration
	// abandoned bounds the requests that may outlive their attempt. Nil where none
	// can.
	abandoned chan struct{}
}

// maxAbandoned is how many requests that wait for a token may outlive their
// attempts: those that may run at once.
const maxAbandoned = 16

// Options are how a client connects.
type Options struct {
	// Name names the client's connections in metrics of the HTTP package.
	Name string
	// HTTP is the http_config of the receiver. Nil means the defaults: no proxy,
	// not even one that the environment names.
	HTTP *commoncfg.HTTPClientConfig
	// Guard says which addresses may be connected to.
	Guard Guard
	// Timeout bounds an attempt. 0 means DefaultTimeout.
	Timeout time.Duration
	// UserAgent is sent with every request.
	UserAgent string
}

// NewClient returns a client. It returns an error when files that the
// configuration names cannot be read.
func NewClient(o Options) (*Client, error) {
	conf := commoncfg.DefaultHTTPClientConfig
	if o.HTTP != nil {
		conf = *o.HTTP
	}
	client, err := commoncfg.NewClientFromConfig(conf, o.Name,
		commoncfg.WithDialContextFunc(o.Guard.dialer().DialContext),
		commoncfg.WithIdleConnTimeout(idleTimeout),
		commoncfg.WithUserAgent(o.UserAgent))
	if err != nil {
		return nil, fmt.Errorf("make HTTP client: %w", err)
	}
	client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	if o.Timeout == 0 {
		o.Timeout = DefaultTimeout
	}
	c := &Client{http: client, proxy: conf.Proxy(), guard: o.Guard, timeout: o.Timeout}
	if conf.OAuth2 != nil {
		c.abandoned = make(chan struct{}, maxAbandoned)
		if u, err := url.Parse(conf.OAuth2.TokenURL); err != nil || o.Guard.checkHost(u.Hostname()) != nil {
			return nil, errors.New("oauth2.token_url is not a URL that may be asked")
		}
	}
	return c, nil
}

// Close closes the idle connections.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// Request is one attempt.
type Request struct {
	// URL is where to.
	URL string
	// Header is sent as it is.
	Header http.Header
	// Body is sent as it is.
	Body []byte
}

// Answer is what came back.
type Answer struct {
	// Status is the HTTP status. 0 when no answer came.
	Status int
	// RetryAfter is how long the receiver asks to wait. 0 when it does not.
	RetryAfter time.Duration
	// Excerpt is the beginning of the body, redacted.
	Excerpt string
	// Err says why no whole answer came; it holds no secrets. Nil when it came.
	Err error
}

// Post makes the attempt at the instant now.
func (c *Client) Post(ctx context.Context, now time.Time, r Request) Answer {
	ctx, cancel := context.WithTimeoutCause(ctx, c.timeout, fmt.Errorf("no whole answer within %v", c.timeout))
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, r.URL, bytes.NewReader(r.Body))
	if err != nil {
		return Answer{Err: errors.New("the URL cannot be parsed")}
	}
	req.Header = r.Header.Clone()
	req.GetBody = nil // net/http cannot send it a second time by itself
	if err := c.checkProxied(req); err != nil {
		return Answer{Err: err}
	}
	resp, err := c.do(ctx, req)
	if err != nil {
		return Answer{Err: plain(ctx, err)}
	}
	defer resp.Body.Close()
	a := Answer{Status: resp.StatusCode, RetryAfter: retryAfter(resp.Header.Get("Retry-After"), now)}
	head, err := io.ReadAll(io.LimitReader(resp.Body, maxRead))
	a.Excerpt = excerpt(head, req.URL)
	if err != nil {
		a.Err = plain(ctx, err)
	}
	return a
}

// do makes the request. Where a token comes first, it may hang in the library that
// fetches it, which knows no deadline: it is left behind then.
func (c *Client) do(ctx context.Context, req *http.Request) (*http.Response, error) {
	if c.abandoned == nil {
		return c.http.Do(req)
	}
	select {
	case c.abandoned <- struct{}{}:
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	type answer struct {
		resp *http.Response
		err  error
	}
	done := make(chan answer, 1)
	go func() {
		defer func() { <-c.abandoned }()
		resp, err := c.http.Do(req)
		if err == nil && ctx.Err() != nil {
			_ = resp.Body.Close() // nobody waits for it any more
		}
		done <- answer{resp, err}
	}()
	select {
	case a := <-done:
		return a.resp, a.err
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

// checkProxied checks the host that a proxy would connect to in our place; the
// guard of the dialer sees only the proxy's own address.
func (c *Client) checkProxied(req *http.Request) error {
	if c.proxy == nil {
		return nil
	}
	via, err := c.proxy(req)
	if err != nil {
		return errors.New("the proxy cannot be determined")
	}
	if via == nil {
		return nil
	}
	return c.guard.checkHost(req.URL.Hostname())
}

// plain takes the URL out of an error of net/http, and tells our timeout from
// others.
func plain(ctx context.Context, err error) error {
	if inner, ok := errors.AsType[*url.Error](err); ok {
		err = inner.Err
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return errors.New(event.RedactTo(err.Error(), maxExcerpt))
}

// excerpt returns the beginning of an answer without secrets, of which the
// receiver knows those of the URL.
func excerpt(body []byte, u *url.URL) string {
	text := strings.ToValidUTF8(string(body[:min(len(body), 4*maxExcerpt)]), "")
	secrets := []string{u.RequestURI(), u.Path, u.RawQuery}
	for part := range strings.SplitSeq(u.Path, "/") {
		secrets = append(secrets, part)
	}
	for _, values := range u.Query() {
		secrets = append(secrets, values...)
	}
	if password, set := u.User.Password(); set {
		secrets = append(secrets, password)
	}
	for _, s := range secrets {
		if len(s) >= 8 { // shorter ones are words such as "webhook"
			text = strings.ReplaceAll(text, s, "REDACTED")
		}
	}
	return event.RedactTo(strings.Join(strings.Fields(text), " "), maxExcerpt)
}

// retryAfter reads the header: seconds or a date. What cannot be read asks for
// nothing; more seconds than a duration holds ask for the longest one.
func retryAfter(value string, now time.Time) time.Duration {
	value = strings.TrimSpace(value)
	if value == "" {
		return 0
	}
	seconds, err := strconv.ParseInt(value, 10, 64)
	switch {
	case err == nil && seconds <= 0:
		return 0
	case err == nil && seconds < int64(longest/time.Second):
		return time.Duration(seconds) * time.Second
	case err == nil, errors.Is(err, strconv.ErrRange) && !strings.HasPrefix(value, "-"):
		return longest
	}
	if at, err := http.ParseTime(value); err == nil && at.After(now) {
		return at.Sub(now)
	}
	return 0
}

// longest stands for more than anyone will wait: a hundred years.
const longest = 100 * 365 * 24 * time.Hour
