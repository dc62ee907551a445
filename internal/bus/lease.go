package bus

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/nats-io/nuid"
)

const (
	// leaseTTL is when the server frees a lease that is not renewed.
	leaseTTL = 3 * time.Second
	// leaseRenew leaves room for one failed renewal before leaseStopAfter.
	leaseRenew = time.Second
	// leaseStopAfter is when the holder stops by itself, counted from before it
	// sent its last successful renewal. It must be below leaseTTL by more than
	// two machines' clocks drift apart in 3 s, plus one slow step: 1 s is ample.
	leaseStopAfter = 2 * time.Second
	// leaseGrace is how long after NATS returns only previous holders may claim:
	// an outage longer than leaseTTL freed every lease at once, and without it
	// the fastest replica would take them all.
	leaseGrace = time.Second
	// releaseLimit bounds the deletion of a released lease; it lapses anyway.
	releaseLimit = time.Second
)

// LeaseOptions configure Leases. All durations have defaults.
type LeaseOptions struct {
	// Owner is the name that Owners tells others.
	Owner string
	// TTL of the bucket; 0 means 3 s.
	TTL time.Duration
	// Renew is the interval of renewals; 0 means 1 s.
	Renew time.Duration
	// StopAfter is how long after a renewal was sent the lease is valid; 0 means
	// 2 s. It must be below TTL and above Renew.
	StopAfter time.Duration
	// Grace is how long after the connection came back only leases that were
	// held here before may be claimed; 0 means 1 s.
	Grace time.Duration
}

// Leases hands out leases by name. It is safe for concurrent use.
type Leases struct {
	conn   *Conn
	bucket *Bucket
	opts   LeaseOptions
	value  []byte // of every key that is held here

	mu       sync.Mutex
	held     map[string]*Lease   // guarded by mu
	claiming map[string]struct{} // guarded by mu; claims under way
	// previous names the leases that ended here against our will, or whose claim
	// got no answer, until another is seen to have them.
	previous map[string]struct{} // guarded by mu
	// sightings are those that others have, as they were seen.
	sightings map[string]sighting // guarded by mu
}

// sighting is what was last seen of a lease that another has.
type sighting struct {
	rev   uint64    // its revision
	since time.Time // when that was first seen here
}

// claim is the value of a lease's key.
type claim struct {
	Owner string `json:"owner"`
	// Token is new for each Leases, so that two processes of the same name never
	// take each other's lease for their own.
	Token string `json:"token"`
}

// Leases opens the bucket of leases, creating it with o.TTL when it does not
// exist.
func (c *Conn) Leases(ctx context.Context, bucket string, o LeaseOptions) (*Leases, error) {
	o.TTL = cmp.Or(o.TTL, leaseTTL)
	o.Renew = cmp.Or(o.Renew, leaseRenew)
	o.StopAfter = cmp.Or(o.StopAfter, leaseStopAfter)
	o.Grace = cmp.Or(o.Grace, leaseGrace)
	if o.Renew >= o.StopAfter || o.StopAfter >= o.TTL {
		return nil, fmt.Errorf("open leases %s: renewing each %v, stopping after %v and freeing after %v must be in this order",
			bucket, o.Renew, o.StopAfter, o.TTL)
	}
	b, err := c.Bucket(ctx, BucketConfig{Name: bucket, TTL: o.TTL})
	if err != nil {
		return nil, fmt.Errorf("open leases: %w", err)
	}
	value, err := json.Marshal(claim{Owner: o.Owner, Token: nuid.Next()})
	if err != nil {
		return nil, fmt.Errorf("open leases %s: %w", bucket, err)
	}
	return &Leases{
		conn: c, bucket: b, opts: o, value: value,
		held:     make(map[string]*Lease),
		claiming: make(map[string]struct{}),
		previous: make(map[string]struct{}), sightings: make(map[string]sighting),
	}, nil
}

// Claim takes the lease called name, and keeps it renewed until Release or
// until it is lost. ok is false, without an error, when another holds it, when
// another call is claiming it, or when the connection came back a moment ago and
// the lease was not held here. A lease that is already held here is returned as
// it is.
func (l *Leases) Claim(ctx context.Context, name string) (lease *Lease, ok bool, err error) {
	if lease, decided := l.begin(name); decided {
		return lease, lease != nil, nil
	}
	defer l.finish(name)
	sent := time.Now()
	rev, err := l.take(ctx, name)
	switch {
	case errors.Is(err, ErrExists), errors.Is(err, ErrWrongSequence):
		l.setPrevious(name, false)
		return nil, false, nil
	case errors.Is(err, ErrUnknownOutcome):
		l.setPrevious(name, true) // the next claim finds out
		return nil, false, fmt.Errorf("claim %s: %w", name, err)
	case err != nil:
		return nil, false, fmt.Errorf("claim %s: %w", name, err)
	}
	return l.keep(name, rev, sent)
}

// take writes our value as the claim on name. A key that holds it already is
// taken over, since nobody else can have held it in between, and so is one that
// its holder does not renew.
func (l *Leases) take(ctx context.Context, name string) (rev uint64, err error) {
	rev, err = l.bucket.Create(ctx, name, l.value)
	if !errors.Is(err, ErrExists) {
		return rev, err
	}
	present, rev, ok, getErr := l.bucket.Get(ctx, name)
	if getErr != nil {
		return 0, getErr
	}
	if !ok || !bytes.Equal(present, l.value) && !l.lapsed(name, rev, time.Now()) {
		return 0, err
	}
	return l.bucket.Update(ctx, name, l.value, rev)
}

// lapsed notes that another's lease is at a revision, and reports whether it was
// not renewed for twice the time that a lease lives, by the clock of this process.
// The server frees it long before, but where its own clock was set back: it waits
// until that has come back to where it was.
func (l *Leases) lapsed(name string, rev uint64, now time.Time) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	s, known := l.sightings[name]
	if !known || s.rev != rev {
		l.sightings[name] = sighting{rev, now}
		return false
	}
	return now.Sub(s.since) > 2*l.opts.TTL
}

// forget drops what was seen of leases that are no more. A list that is made while
// leases are renewed may lack one that is there, so that takes its time.
func (l *Leases) forget(present map[string]bool, now time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for name, s := range l.sightings {
		if !present[name] && now.Sub(s.since) > 4*l.opts.TTL {
			delete(l.sightings, name)
		}
	}
}

// setPrevious remembers that name was ours, or forgets it.
func (l *Leases) setPrevious(name string, ours bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if ours {
		l.previous[name] = struct{}{}
		return
	}
	delete(l.previous, name)
}

// begin answers a claim that needs no server: the lease is held here, or must be
// left to others (nil, true). Otherwise the claim is under way until finish.
func (l *Leases) begin(name string) (lease *Lease, decided bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if lease := l.held[name]; lease != nil {
		return lease, true
	}
	_, busy := l.claiming[name]
	_, ours := l.previous[name]
	if busy || !ours && l.conn.link.restoredSince(time.Now(), l.opts.Grace) {
		return nil, true
	}
	l.claiming[name] = struct{}{}
	return nil, false
}

func (l *Leases) finish(name string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.claiming, name)
}

// keep registers a lease that was just created and starts its renewals.
func (l *Leases) keep(name string, rev uint64, sent time.Time) (*Lease, bool, error) {
	lease := &Lease{
		Name: name, leases: l, rev: rev, sent: sent,
		release: make(chan struct{}), done: make(chan struct{}), stopped: make(chan struct{}),
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := l.conn.life.Err(); err != nil {
		return nil, false, fmt.Errorf("claim %s: %w", name, ErrClosed)
	}
	l.held[name] = lease
	delete(l.previous, name)
	l.conn.metrics.leases.Inc()
	l.conn.work.Go(lease.run)
	return lease, true, nil
}

// drop forgets a lease that ended.
func (l *Leases) drop(lease *Lease, lost bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.held, lease.Name)
	l.conn.metrics.leases.Dec()
	if lost {
		l.previous[lease.Name] = struct{}{}
		l.conn.metrics.leasesLost.Inc()
	}
}

// Owners returns who holds which lease, by the leases' names. Those that were not
// renewed for twice as long as a lease lives while this process looked are
// nobody's, whether the server freed them or not.
func (l *Leases) Owners(ctx context.Context) (map[string]string, error) {
	var owners map[string]string
	err := l.conn.persist(ctx, l.bucket.kept(func(ctx context.Context) (err error) {
		owners, err = l.owners(ctx)
		return err
	}))
	if err != nil {
		return nil, fmt.Errorf("list owners of leases: %w", err)
	}
	return owners, nil
}

func (l *Leases) owners(ctx context.Context) (map[string]string, error) {
	watcher, err := l.bucket.kv.WatchAll(ctx, jetstream.IgnoreDeletes())
	if err != nil {
		return nil, err
	}
	defer watcher.Stop() //nolint:errcheck // the end of ctx stops it as well
	owners, present, now := make(map[string]string), make(map[string]bool), time.Now()
	for {
		select {
		case entry, open := <-watcher.Updates():
			if !open {
				return nil, errDisconnected
			}
			if entry == nil { // all present values were delivered
				l.forget(present, now)
				return owners, nil
			}
			var c claim
			if err := json.Unmarshal(entry.Value(), &c); err != nil {
				return nil, fmt.Errorf("decode lease %s: %w", entry.Key(), err)
			}
			present[entry.Key()] = true
			if !l.lapsed(entry.Key(), entry.Revision(), now) {
				owners[entry.Key()] = c.Owner
			}
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}
