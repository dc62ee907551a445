// Package runpod reads a RunPod account: its serverless endpoints and pods from
// the control-plane REST API v2, and queue health and job states from the
// serverless runtime API.
//
// It only ever reads. What an answer lacks is absent in the result, never zero,
// and an answer that does not hold what it must hold is an error of kind
// [Malformed], never a guess; of a list, an entry that does not is [Unreadable] and
// costs the others nothing. Environment variables, arguments, registry
// credentials and job inputs and outputs are not decoded at all. The API key is
// sent to the two configured hosts alone and is in no error text. Every call
// ends within its deadline, whatever the server does.
package runpod

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"
)

// The base URLs of RunPod itself.
const (
	// DefaultServerlessURL is the base of RunPod's serverless runtime API.
	DefaultServerlessURL = "https://api.runpod.ai/v2"
	// DefaultRESTURL is the base of RunPod's control-plane REST API v2.
	DefaultRESTURL = "https://api.runpod.io/v2"
)

const (
	// defaultTimeout covers a whole call from the connect to the last byte of
	// the body. Health is polled every 15 s, so a call that hangs must be over
	// before the next one is due: 10 s leaves 5 s of slack.
	defaultTimeout = 10 * time.Second
	// defaultMaxConcurrent bounds the calls in flight. RunPod allows 200 to 400
	// concurrent calls per user and endpoint; 16 leaves nearly all of them to
	// the customer and still makes 160 calls a second at 100 ms each.
	defaultMaxConcurrent = 16
	// defaultQuotaShare is the part of each REST quota window that is left to
	// the customer's other tools.
	defaultQuotaShare = 0.5
	// DefaultMaxListBytes bounds a list of endpoints or pods: an entry has 1 to
	// 1.5 KiB, so 16 MiB hold more than 10,000 of them.
	DefaultMaxListBytes = 16 << 20
	// defaultMaxItemBytes bounds one endpoint, pod or job without its output: all
	// stay below 16 KiB, and 1 MiB is 64 times that.
	defaultMaxItemBytes = 1 << 20
	// maxHealthBytes bounds a health answer, of about 200 bytes. Each poll in flight
	// may hold one with all its members.
	maxHealthBytes = 64 << 10
	// defaultMaxJobBytes bounds a job answer with its output, which is skipped
	// while it is read. RunPod's largest outputs are those of synchronous jobs, 20
	// MB; a MiB more holds what stands beside them.
	defaultMaxJobBytes = 21 << 20
	// DefaultMaxEntries bounds the entries of a list: 16 MiB hold at most 16,000
	// whole ones, and as much again for short ones. Read, an entry has 1 KiB at
	// most of memory beside its texts, so that a list costs 32 MiB and its bytes.
	DefaultMaxEntries = 32_000
	// maxHeaderBytes bounds the header of an answer; RunPod sends about 1 KiB.
	maxHeaderBytes = 64 << 10
	// connectTimeout bounds the TCP connect and, apart from it, the TLS
	// handshake: half a call's time at most.
	connectTimeout = 5 * time.Second
	// pingAfter is how long a connection may be silent before it is asked for a sign
	// of life, and pingTimeout how long that may take. HTTP/2 puts all calls on one
	// connection: when a router forgets it, no call has an answer until the system
	// gives it up, which takes a quarter of an hour. So it takes 20 s: one round of
	// health of 15 s fails, or two.
	pingAfter   = 15 * time.Second
	pingTimeout = 5 * time.Second
	// idleConnTimeout keeps connections over the 60 s between two inventories.
	idleConnTimeout = 90 * time.Second
)

// Secret is a key that does not print. It is satisfied by the string type of
// the shared secret package.
type Secret interface {
	// Reveal returns the key itself.
	Reveal() string
}

// Options configure a [Client]. The zero value of every field but APIKey stands
// for its default.
type Options struct {
	// APIKey is sent as the bearer token of every call. It is required; a
	// read-only key is enough.
	APIKey Secret
	// ServerlessURL is the base URL of the runtime API, [DefaultServerlessURL]
	// when empty.
	ServerlessURL string
	// RESTURL is the base URL of the REST API v2, [DefaultRESTURL] when empty.
	RESTURL string
	// Transport makes the round trips. When nil the client has its own: TLS 1.2
	// or newer, no compression, and proxies as the environment variables
	// HTTPS_PROXY, HTTP_PROXY and NO_PROXY say.
	Transport http.RoundTripper
	// UserAgent names the program to RunPod, "tocsin" when empty.
	UserAgent string
	// Timeout bounds a whole call including its body, 10 s when zero.
	Timeout time.Duration
	// MaxConcurrent bounds the calls in flight, 16 when zero.
	MaxConcurrent int
	// QuotaShare is the part of each REST quota window left to the customer's
	// other tools, above 0 and below 1; 0.5 when zero.
	QuotaShare float64
	// MaxListBytes bounds the body of a list, 16 MiB when zero.
	MaxListBytes int64
	// MaxItemBytes bounds the body of any other answer, 1 MiB when zero. The
	// output of a job does not count; see MaxJobBytes.
	MaxItemBytes int64
	// MaxJobBytes bounds the body of a job answer with its output, 21 MiB when
	// zero.
	MaxJobBytes int64
	// MaxEntries bounds the entries of a list, 32,000 when zero.
	MaxEntries int
	// Now reads the clock for quota windows, [time.Now] when nil.
	Now func() time.Time
}

// Client calls RunPod. It is safe for concurrent use and keeps no more state
// than its connections and the REST quota.
type Client struct {
	opts       Options
	key        string
	serverless *url.URL
	rest       *url.URL
	http       *http.Client
	slots      chan struct{} // one token for each call in flight
	gate       *gate         // of all REST calls
}

// New returns a client for opts. Its error names every mistake in opts at once.
func New(opts Options) (*Client, error) {
	opts = opts.withDefaults()
	var errs []error
	key := ""
	if opts.APIKey != nil {
		key = strings.TrimSpace(opts.APIKey.Reveal())
	}
	if err := CheckKey(key); err != nil {
		errs = append(errs, fmt.Errorf("api key: %w", err))
	}
	serverless, err := parseBase(opts.ServerlessURL)
	if err != nil {
		errs = append(errs, fmt.Errorf("serverless url: %w", err))
	}
	rest, err := parseBase(opts.RESTURL)
	if err != nil {
		errs = append(errs, fmt.Errorf("rest url: %w", err))
	}
	if opts.Timeout < 0 {
		errs = append(errs, fmt.Errorf("timeout: %v is negative", opts.Timeout))
	}
	if opts.MaxConcurrent < 0 {
		errs = append(errs, fmt.Errorf("max concurrent: %d is negative", opts.MaxConcurrent))
	}
	if !(opts.QuotaShare > 0 && opts.QuotaShare < 1) {
		errs = append(errs, fmt.Errorf("quota share: %v is not between 0 and 1", opts.QuotaShare))
	}
	if min(opts.MaxListBytes, opts.MaxItemBytes, opts.MaxJobBytes) < 0 {
		errs = append(errs, errors.New("max bytes: a bound is negative"))
	}
	if opts.MaxEntries < 0 {
		errs = append(errs, fmt.Errorf("max entries: %d is negative", opts.MaxEntries))
	}
	if len(errs) > 0 {
		return nil, fmt.Errorf("runpod client: %w", errors.Join(errs...))
	}
	return &Client{
		opts:       opts,
		key:        key,
		serverless: serverless,
		rest:       rest,
		http: &http.Client{
			Transport: opts.Transport,
			// A redirect would carry the key elsewhere. The answer itself is
			// returned, and its status is an error like any other.
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		},
		slots: make(chan struct{}, opts.MaxConcurrent),
		gate:  &gate{now: opts.Now, share: opts.QuotaShare},
	}, nil
}

// Quota returns the quota windows of the REST API as the answers so far describe
// them, less the calls made since.
func (c *Client) Quota() []Window { return c.gate.windows() }

// CloseIdle closes the connections that no call uses.
func (c *Client) CloseIdle() { c.http.CloseIdleConnections() }

func (o Options) withDefaults() Options {
	orDefault(&o.ServerlessURL, DefaultServerlessURL)
	orDefault(&o.RESTURL, DefaultRESTURL)
	orDefault(&o.UserAgent, "tocsin")
	orDefault(&o.Timeout, defaultTimeout)
	orDefault(&o.MaxConcurrent, defaultMaxConcurrent)
	orDefault(&o.QuotaShare, defaultQuotaShare)
	orDefault(&o.MaxListBytes, DefaultMaxListBytes)
	orDefault(&o.MaxItemBytes, defaultMaxItemBytes)
	orDefault(&o.MaxJobBytes, defaultMaxJobBytes)
	orDefault(&o.MaxEntries, DefaultMaxEntries)
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Transport == nil {
		o.Transport = newTransport(o.MaxConcurrent)
	}
	return o
}

func orDefault[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}

func newTransport(conns int) *http.Transport {
	return &http.Transport{
		Proxy:                  http.ProxyFromEnvironment,
		DialContext:            (&net.Dialer{Timeout: connectTimeout}).DialContext,
		TLSClientConfig:        &tls.Config{MinVersion: tls.VersionTLS12},
		TLSHandshakeTimeout:    connectTimeout,
		ForceAttemptHTTP2:      true,
		HTTP2:                  &http.HTTP2Config{SendPingTimeout: pingAfter, PingTimeout: pingTimeout},
		MaxIdleConns:           2 * max(conns, 0), // two hosts
		MaxIdleConnsPerHost:    max(conns, 0),
		IdleConnTimeout:        idleConnTimeout,
		MaxResponseHeaderBytes: maxHeaderBytes,
		// A compressed body could grow a thousandfold past the bound on bytes
		// read from the wire.
		DisableCompression: true,
	}
}

// CheckKey reports what keeps a text from being an API key. It does not show it.
func CheckKey(key string) error {
	switch {
	case key == "":
		return errors.New("missing")
	case strings.ContainsFunc(key, func(r rune) bool { return r <= ' ' || r >= 0x7f }):
		return errors.New("holds characters that no HTTP header can carry")
	}
	return nil
}

// Endpoints lists all serverless endpoints of the account. It is an error when not
// one entry of several can be read, or when one does not say whose it is.
func (c *Client) Endpoints(ctx context.Context) (List[Endpoint], error) {
	const op = "list endpoints"
	body, err := c.get(ctx, call{op: op, url: c.restURL("serverless"), gated: true, limit: c.opts.MaxListBytes})
	if err != nil {
		return List[Endpoint]{}, err
	}
	list, err := endpointLister(c.opts.MaxEntries).decode(body)
	if err != nil {
		return List[Endpoint]{}, c.malformed(op, err)
	}
	return list, nil
}

// Endpoint reads one endpoint. An id that RunPod does not know is an error of
// kind [NotFound].
func (c *Client) Endpoint(ctx context.Context, id string) (Endpoint, error) {
	const op = "read endpoint"
	if err := checkID(op, id); err != nil {
		return Endpoint{}, err
	}
	body, err := c.get(ctx, call{op: op, url: c.restURL("serverless", id), gated: true, limit: c.opts.MaxItemBytes})
	if err != nil {
		return Endpoint{}, err
	}
	e, err := decodeEndpoint(body)
	if err == nil && e.ID != id {
		err = errors.New("answer is about another endpoint")
	}
	if err != nil {
		return Endpoint{}, c.malformed(op, err)
	}
	return e, nil
}

// Pods lists all pods of the account except the members of clusters. Its errors
// are those of [Client.Endpoints].
func (c *Client) Pods(ctx context.Context) (List[Pod], error) {
	const op = "list pods"
	body, err := c.get(ctx, call{op: op, url: c.restURL("pods"), gated: true, limit: c.opts.MaxListBytes})
	if err != nil {
		return List[Pod]{}, err
	}
	list, err := podLister(c.opts.MaxEntries).decode(body)
	if err != nil {
		return List[Pod]{}, c.malformed(op, err)
	}
	return list, nil
}

// Pod reads one pod. An id that RunPod does not know is an error of kind
// [NotFound].
func (c *Client) Pod(ctx context.Context, id string) (Pod, error) {
	const op = "read pod"
	if err := checkID(op, id); err != nil {
		return Pod{}, err
	}
	body, err := c.get(ctx, call{op: op, url: c.restURL("pods", id), gated: true, limit: c.opts.MaxItemBytes})
	if err != nil {
		return Pod{}, err
	}
	p, err := decodePod(body)
	if err == nil && p.ID != id {
		err = errors.New("answer is about another pod")
	}
	if err != nil {
		return Pod{}, c.malformed(op, err)
	}
	return p, nil
}

// Health reads the queue and worker counts of a queue endpoint from
// [Client.HealthURL]. Load-balancer endpoints have no queue: for them it makes
// no call and returns an error of kind [NotFound].
func (c *Client) Health(ctx context.Context, e Endpoint) (Health, error) {
	const op = "read health"
	if err := checkID(op, e.ID); err != nil {
		return Health{}, err
	}
	if e.Type == LoadBalancer {
		return Health{}, &Error{Op: op, Kind: NotFound, Detail: "a load-balancer endpoint has no queue"}
	}
	target, _ := c.HealthURL(e)
	body, err := c.get(ctx, call{op: op, url: target, limit: min(c.opts.MaxItemBytes, maxHealthBytes)})
	if err != nil {
		return Health{}, err
	}
	h, err := decodeHealth(body)
	if err != nil {
		return Health{}, c.malformed(op, err)
	}
	return h, nil
}

// JobStatus reads the state of one job. A job that RunPod has forgotten (30
// minutes after it ended, or when its ttl ran out) is an error of kind
// [NotFound]. It never sends ttl, which would change the job.
func (c *Client) JobStatus(ctx context.Context, endpointID, jobID string) (Job, error) {
	const op = "read job"
	if err := checkID(op, endpointID, jobID); err != nil {
		return Job{}, err
	}
	target := join(c.serverless, endpointID, "status", jobID)
	body, err := c.get(ctx, call{op: op, url: target, limit: c.opts.MaxJobBytes, skim: true})
	if err != nil {
		return Job{}, err
	}
	j, err := decodeJob(body)
	if err == nil && j.ID != "" && j.ID != jobID {
		err = errors.New("answer is about another job")
	}
	if err != nil {
		return Job{}, c.malformed(op, err)
	}
	j.ID = jobID
	return j, nil
}
