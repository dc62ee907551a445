package bus

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"regexp"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/tocsin-dev/tocsin/internal/secret"
)

const (
	// DefaultURL is where a NATS server listens unless told otherwise.
	DefaultURL = "nats://127.0.0.1:4222"

	// dialTimeout bounds one attempt to connect.
	dialTimeout = 2 * time.Second
	// dialWait is the pause between attempts, before jitter: a restarting
	// server is found within a quarter of a second of its return, which a
	// lease of 3 s needs.
	dialWait = 200 * time.Millisecond
	// dialJitter spreads the clients of a restarted server.
	dialJitter = 50 * time.Millisecond
	// pingEvery and pingsLost find a dead peer within 15 s when nothing is
	// being sent; what is being sent has its own limit, attemptLimit.
	pingEvery = 5 * time.Second
	pingsLost = 2
	// attemptLimit bounds one request to the server. A healthy one answers
	// within milliseconds; a replicated stream without a leader takes about 4 s
	// to elect one.
	attemptLimit = 5 * time.Second
	// bulkLimit bounds one request that moves or removes much: a snapshot of
	// 16 MiB at 1 MiB/s takes 16 s.
	bulkLimit = time.Minute
)

// InProcess is a NATS server in the same process, such as *server.Server.
type InProcess interface {
	// InProcessConn returns a connection that uses no network.
	InProcessConn() (net.Conn, error)
}

// Options say how to connect.
type Options struct {
	// URL of the server, or several separated by commas; empty means DefaultURL.
	URL string
	// InProcess, when set, is used instead of URL.
	InProcess InProcess
	// Name identifies the client in the server's monitoring and in metrics.
	Name string
	// User and Password authenticate when User is not empty. Answers are then
	// taken below _INBOX.<User>, so that the server may keep users from reading
	// those of others.
	User     string
	Password secret.String
	// Replicas is the number of copies of streams and buckets that this
	// connection creates; 0 means 1. Existing ones keep what they have.
	Replicas int
	// Log receives what happens to the connection; nil discards it.
	Log *slog.Logger
	// Registerer takes the metrics; nil keeps them unregistered.
	Registerer prometheus.Registerer
}

// Conn is a connection to NATS JetStream. It is safe for concurrent use.
type Conn struct {
	nc       *nats.Conn
	js       jetstream.JetStream
	link     *link
	log      *slog.Logger
	metrics  *metrics
	replicas int

	life   context.Context // ends with Close
	cancel context.CancelCauseFunc
	work   sync.WaitGroup // goroutines that end with life
}

// Connect connects to the server and waits for the first success until ctx
// ends. Later losses are repaired for ever, in the background. Wrong
// credentials, and a server without JetStream, fail at once.
func Connect(ctx context.Context, o Options) (*Conn, error) {
	if o.URL == "" {
		o.URL = DefaultURL
	}
	log := o.Log
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	m, err := newMetrics(o.Registerer, o.Name)
	if err != nil {
		return nil, fmt.Errorf("register metrics of the bus: %w", err)
	}
	c := &Conn{link: newLink(), log: log.With("client", o.Name), metrics: m, replicas: max(o.Replicas, 1)}
	c.life, c.cancel = context.WithCancelCause(context.Background())

	if c.nc, err = c.dial(ctx, o); err != nil {
		c.cancel(ErrClosed)
		return nil, err
	}
	c.link.rise(time.Now(), true)
	m.connected.Set(1)
	if c.js, err = jetstream.New(c.nc, jetstream.WithDefaultTimeout(attemptLimit)); err == nil {
		err = c.requireJetStream(ctx)
	}
	if err != nil {
		c.Close()
		return nil, err
	}
	return c, nil
}

// dial tries to connect until it succeeds, ctx ends or trying is pointless.
func (c *Conn) dial(ctx context.Context, o Options) (*nats.Conn, error) {
	opts := c.natsOptions(o)
	retry := newBackoff()
	for {
		nc, err := nats.Connect(o.URL, opts...)
		switch {
		case err == nil:
			return nc, nil
		case errors.Is(err, nats.ErrAuthorization), errors.Is(err, nats.ErrAuthExpired),
			errors.Is(err, nats.ErrAuthRevoked):
			return nil, fmt.Errorf("log in to NATS as %q: %w", o.User, err)
		}
		if waitErr := retry.wait(ctx); waitErr != nil {
			return nil, fmt.Errorf("connect to NATS: %w: %w", waitErr, err)
		}
	}
}

// inboxName is a user's name that can be a part of a subject as it is.
var inboxName = regexp.MustCompile(`^[A-Za-z0-9_-]+$`)

func (c *Conn) natsOptions(o Options) []nats.Option {
	opts := []nats.Option{
		nats.Name(o.Name),
		nats.Timeout(dialTimeout),
		nats.PingInterval(pingEvery),
		nats.MaxPingsOutstanding(pingsLost),
		// The defaults give up after 60 attempts, and send what was "published"
		// during an outage at some later time.
		nats.MaxReconnects(-1),
		nats.ReconnectBufSize(-1),
		nats.IgnoreAuthErrorAbort(),
		nats.ReconnectWait(dialWait),
		nats.ReconnectJitter(dialJitter, dialJitter),
		nats.DisconnectErrHandler(func(_ *nats.Conn, err error) { c.lost(err) }),
		nats.ReconnectHandler(func(*nats.Conn) { c.returned() }),
		nats.ErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) {
			c.log.Warn("nats reported an error", "err", err)
		}),
	}
	if o.User != "" {
		opts = append(opts, nats.UserInfo(o.User, o.Password.Reveal()))
		if inboxName.MatchString(o.User) {
			opts = append(opts, nats.CustomInboxPrefix(nats.InboxPrefix+o.User))
		}
	}
	if o.InProcess != nil {
		opts = append(opts, nats.InProcessServer(o.InProcess))
	}
	return opts
}

func (c *Conn) lost(err error) {
	c.metrics.connected.Set(0)
	if err == nil {
		c.link.fall(errDisconnected)
	} else {
		c.link.fall(fmt.Errorf("%w: %w", errDisconnected, err))
	}
	if c.life.Err() == nil {
		c.log.Warn("connection to NATS lost", "err", err)
	}
}

func (c *Conn) returned() {
	c.metrics.reconnects.Inc() // before the return shows
	c.metrics.connected.Set(1)
	c.link.rise(time.Now(), false)
	c.log.Info("connection to NATS is back")
}

// requireJetStream fails when the server, or the account, has no JetStream.
func (c *Conn) requireJetStream(ctx context.Context) error {
	err := c.persist(ctx, func(ctx context.Context) error {
		_, err := c.js.AccountInfo(ctx)
		return err
	})
	if err != nil {
		return fmt.Errorf("ask NATS for JetStream: %w", err)
	}
	return nil
}

// persist repeats an idempotent request until it succeeds, the server refuses
// it, or ctx ends. Each attempt ends after attemptLimit.
func (c *Conn) persist(ctx context.Context, request func(context.Context) error) error {
	return c.persistFor(ctx, attemptLimit, request)
}

// persistFor is persist with another limit for each attempt.
func (c *Conn) persistFor(ctx context.Context, limit time.Duration, request func(context.Context) error) error {
	retry := newBackoff()
	for {
		err := c.once(ctx, limit, request)
		if err == nil || !passing(err) {
			return translate(err)
		}
		if waitErr := c.pause(ctx, retry); waitErr != nil {
			return fmt.Errorf("%w: %w", waitErr, err)
		}
	}
}

// kept returns request with a remedy for what it stands on being gone: open finds
// that or creates it anew, and reports the latter. Then the request, of which
// nothing can have been stored, is made again, once.
func (c *Conn) kept(stream string, request func(context.Context) error, open func(context.Context) (created bool, err error)) func(context.Context) error {
	return func(ctx context.Context) error {
		err := request(ctx)
		if !homeless(err) {
			return err
		}
		openErr := c.once(ctx, attemptLimit, func(ctx context.Context) error {
			created, err := open(ctx)
			if created {
				c.log.ErrorContext(ctx, "what was kept in a stream is gone; a new one begins", "stream", stream)
			}
			return err
		})
		if openErr != nil {
			return err // the server is not ready, or does not allow it
		}
		return request(ctx)
	}
}

// once runs one request, which ends after limit or when the connection is lost.
func (c *Conn) once(ctx context.Context, limit time.Duration, request func(context.Context) error) error {
	bounded, cancel := c.link.bound(ctx, limit)
	defer cancel()
	err := request(bounded)
	if err != nil && bounded.Err() != nil && errors.Is(err, context.Canceled) {
		return context.Cause(bounded)
	}
	return err
}

// pause waits before the next attempt: a little, and until the connection is
// there.
func (c *Conn) pause(ctx context.Context, retry *backoff) error {
	if err := retry.wait(ctx); err != nil {
		return err
	}
	return c.link.wait(ctx)
}

// Connected reports whether the connection is up at this moment.
func (c *Conn) Connected() bool { return c.nc.IsConnected() }

// Close ends what the connection runs in the background and closes it. Leases
// that were not released lapse by themselves.
func (c *Conn) Close() {
	c.cancel(ErrClosed)
	c.nc.Close()
	c.link.fall(ErrClosed)
	c.work.Wait()
	c.metrics.connected.Set(0)
}
