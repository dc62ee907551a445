// Package state keeps partitions in Redis: a head, the targets, the active
// alerts and the outbox, written together or not at all.
//
// A partition has one writer at a time. The head names it, and each commit
// first checks that the head is, byte for byte, what this writer last wrote:
// whoever was replaced finds out at its next commit and writes nothing. An
// absent head means that Redis lost the partition; it is never written over
// by a commit. What is in Redis is a cache: losing it costs a replay.
//
// This is the only package that knows Redis.
package state

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/maintnotifications"

	"github.com/tocsin-dev/tocsin/internal/secret"
	alertv1 "github.com/tocsin-dev/tocsin/proto/gen/tocsin/alert/v1"
	statev1 "github.com/tocsin-dev/tocsin/proto/gen/tocsin/state/v1"
)

// Format is the version of what this package writes. A reader of another
// version cannot use it.
const Format = 1

const (
	// attemptTimeout bounds one exchange with Redis. The largest is the load of
	// a partition of 100,000/64 targets of 10 KiB, 16 MB, well under a second on
	// any network that Redis is used over.
	attemptTimeout = 5 * time.Second
	// firstWait and longestWait bound the pause between attempts: short enough
	// that a restarted Redis is found at once, long enough that 64 partitions
	// ask it no more than 64 times in longestWait.
	firstWait   = 20 * time.Millisecond
	longestWait = time.Second
)

var (
	// ErrNotOwner says that somebody else wrote the partition's head since this
	// owner last did. Nothing was written.
	ErrNotOwner = errors.New("another owner took the partition")
	// ErrLost says that the partition's head is gone from Redis. Nothing was
	// written.
	ErrLost = errors.New("the partition's state is gone from Redis")
)

// Options say where Redis is.
type Options struct {
	// Address is host:port.
	Address string
	// User is the name in Redis's ACL; empty means its default user.
	User string
	// Password opens it; empty means that it needs none.
	Password secret.String
	// DB is the number of the database.
	DB int
	// Dial replaces the network, for tests of broken connections. Nil dials.
	Dial func(ctx context.Context, network, address string) (net.Conn, error)
	// Log gets one line for each commit that did not go through at once.
	Log *slog.Logger
	// Registerer gets the package's metrics.
	Registerer prometheus.Registerer
}

// Store is a Redis that holds partitions. It is safe for concurrent use.
type Store struct {
	redis   *redis.Client
	log     *slog.Logger
	metrics *metrics
}

// Open returns a Store. It does not connect: Redis may be away, now or later.
func Open(o Options) *Store {
	// The client's own logger writes to standard error what its errors say too.
	redis.SetLogger(silent{})
	return &Store{
		redis: redis.NewClient(&redis.Options{
			Addr:                  o.Address,
			Username:              o.User,
			Password:              o.Password.Reveal(),
			DB:                    o.DB,
			Dialer:                o.Dial,
			ContextTimeoutEnabled: true,
			// An EXEC whose answer was lost may have been done: only this package
			// may decide to send it again.
			MaxRetries:               -1,
			DialerRetries:            1,
			DisableIdentity:          true,
			MaintNotificationsConfig: &maintnotifications.Config{Mode: maintnotifications.ModeDisabled},
		}),
		log:     o.Log,
		metrics: newMetrics(o.Registerer),
	}
}

// silent is a logger of the client that says nothing.
type silent struct{}

// Printf does nothing.
func (silent) Printf(context.Context, string, ...any) {}

// Close ends the connections.
func (s *Store) Close() {
	// Its only error is that it was closed before.
	_ = s.redis.Close()
}

// Ping tells whether Redis answers.
func (s *Store) Ping(ctx context.Context) error {
	if err := s.redis.Ping(ctx).Err(); err != nil {
		return fmt.Errorf("ping Redis: %w", err)
	}
	return nil
}

// neverEvicts is the policy by which Redis refuses writes when it is full. By
// any other it throws away what it was given.
const neverEvicts = "noeviction"

// WarnOfEviction says so once if Redis may throw states away when its memory is
// full. It asks until Redis answers, or refuses to, or ctx ends.
func (s *Store) WarnOfEviction(ctx context.Context) {
	for n := 0; ; n++ {
		attempt, cancel := context.WithTimeout(ctx, attemptTimeout)
		settings, err := s.redis.ConfigGet(attempt, "maxmemory-policy").Result()
		cancel()
		var refusal redis.Error
		if err == nil || errors.As(err, &refusal) { // managed ones do not let anybody ask
			if policy := settings["maxmemory-policy"]; err == nil && policy != neverEvicts {
				s.log.LogAttrs(ctx, slog.LevelWarn, "Redis may evict states when its memory is full; partitions are then loaded anew. Set maxmemory-policy to "+neverEvicts,
					slog.String("maxmemory_policy", policy))
			}
			return
		}
		if pause(ctx, n) != nil {
			return
		}
	}
}

// keys are the names of a partition's keys. They share a hash tag, so that a
// Redis Cluster keeps them in one slot and a transaction may span them.
type keys struct{ head, targets, active, outbox string }

func keysOf(partition int) keys {
	tag := fmt.Sprintf("{tocsin:%02d}", partition)
	return keys{head: tag + ":head", targets: tag + ":targets", active: tag + ":active", outbox: tag + ":outbox"}
}

// Content is the whole of a partition's state.
type Content struct {
	// Position says how far the state reaches.
	Position *statev1.Position
	// Acknowledged is the newest cause that the notifier acknowledged, or nil.
	Acknowledged *alertv1.Cause
	// Fold is the fold's own head.
	Fold []byte
	// Targets are the stored targets by token.
	Targets map[string][]byte
	// Active are the stored pending and firing alerts by id.
	Active map[string][]byte
	// Outbox are the transitions not yet acknowledged, in the order of causes.
	Outbox []*alertv1.Transition
}

// Change is what one commit changes.
type Change struct {
	// Position says how far the state reaches now.
	Position *statev1.Position
	// Acknowledged is the newest cause that the notifier acknowledged, or nil.
	Acknowledged *alertv1.Cause
	// Fold is the fold's own head.
	Fold []byte
	// Targets are the targets that changed, by token; nil deletes.
	Targets map[string][]byte
	// Active are the alerts that changed, by id; nil deletes.
	Active map[string][]byte
	// Trim is how many transitions leave the front of the outbox.
	Trim int
	// Push are the transitions that enter the outbox.
	Push []*alertv1.Transition
}

// pause waits before attempt n (from 0) is repeated, twice as long each time.
// It returns ctx's error when ctx ends first.
func pause(ctx context.Context, n int) error {
	wait := longestWait
	if n < 6 { // firstWait * 2^6 is above longestWait
		wait = min(firstWait<<n, longestWait)
	}
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C:
		return nil
	}
}

type metrics struct {
	commits    prometheus.Counter
	incomplete prometheus.Counter
	failures   *prometheus.CounterVec
	seconds    prometheus.Histogram
}

func newMetrics(r prometheus.Registerer) *metrics {
	m := &metrics{
		commits: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "tocsin_alerter_commits_total",
			Help: "Transactions that stored a partition's progress in Redis.",
		}),
		incomplete: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "tocsin_alerter_incomplete_states_total",
			Help: "States that Redis had lost a part of when they were read.",
		}),
		failures: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "tocsin_alerter_commit_failures_total",
			Help: "Commits that did not go through, by reason: not_owner, lost, unknown (outcome looked up afterwards).",
		}, []string{"reason"}),
		seconds: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name:    "tocsin_alerter_commit_seconds",
			Help:    "Time that a commit took, attempts after errors included.",
			Buckets: prometheus.ExponentialBuckets(0.0002, 2.5, 12),
		}),
	}
	for _, reason := range []string{"not_owner", "lost", "unknown"} {
		m.failures.WithLabelValues(reason)
	}
	if r != nil {
		r.MustRegister(m.commits, m.incomplete, m.failures, m.seconds)
	}
	return m
}
