// Package own gives each partition to one replica of the alerter, and each
// replica its share of partitions.
//
// A lease says who owns a partition. It is a hint: it keeps two replicas from
// working against each other, and the head of the partition's state decides
// when they do all the same. A replica that stops, or that leaves its share to
// a new one, finishes its partitions before it frees them; one that dies loses
// its leases within 3 s.
package own

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"
)

// ErrGiveBack says that this replica cannot run a partition, since what is
// stored of it was written by a newer release.
var ErrGiveBack = errors.New("the partition is of a newer release")

const (
	// lookEvery is how often a replica looks at the leases. A dead one's leases
	// lapse after 3 s, so a partition is without owner for at most 4 s.
	lookEvery = time.Second
	// lookTimeout bounds one exchange with the leases.
	lookTimeout = 5 * time.Second
	// barFor is how long a partition that was given back is left to others: a
	// release of a few replicas takes minutes, and a try costs one load.
	barFor = 30 * time.Second
	// vacantFor is how long a partition may be without owner before that is worth
	// somebody's attention: a dead replica's leases lapse after 3 s and are found
	// within another, and one that was given back is tried again after barFor.
	vacantFor = 45 * time.Second
	// overdueAfter is how long a partition may be without owner before replicas
	// claim it that have their share: twice what a dead replica's takes.
	overdueAfter = 10 * time.Second
	// claimsAtOnce bounds the claims in flight: 64 at once would be a burst for
	// nothing, one by one would take 64 round trips.
	claimsAtOnce = 8

	replicaPrefix   = "replica-"
	partitionPrefix = "partition-"
)

// Lease is a claim that is kept until it is released or lost.
type Lease interface {
	// Done is closed when the lease has ended.
	Done() <-chan struct{}
	// Release ends it.
	Release()
}

// Leases hands out leases by name.
type Leases interface {
	// Claim takes the lease called name; ok is false when another has it.
	Claim(ctx context.Context, name string) (lease Lease, ok bool, err error)
	// Owners returns the owners of all leases by name.
	Owners(ctx context.Context) (map[string]string, error)
}

// Options say what a Keeper keeps.
type Options struct {
	// Self is the replica's name: what Owners gives for its leases.
	Self string
	// Partitions is how many partitions there are.
	Partitions int
	// Leases hands out leases.
	Leases Leases
	// Run runs a partition until its context ends, and returns when all that it
	// did for it has ended. ErrGiveBack leaves the partition to others.
	Run func(ctx context.Context, partition int) error
	// Log gets a line for each change of what is owned.
	Log *slog.Logger
	// Registerer gets the package's metrics.
	Registerer prometheus.Registerer
}

// Keeper owns partitions for this replica.
type Keeper struct {
	opts  Options
	owned prometheus.Gauge

	mu     sync.Mutex
	held   map[int]context.CancelFunc // guarded by mu; stops what runs here
	barred map[int]time.Time          // guarded by mu; until when, kept barFor longer
	vacant map[int]time.Time          // guarded by mu; since when nobody owns it
	// rescued are those that were overdue when they were claimed.
	rescued map[int]bool // guarded by mu
	work    sync.WaitGroup
}

// New returns a Keeper.
func New(o Options) *Keeper {
	k := &Keeper{
		opts:   o,
		held:   map[int]context.CancelFunc{},
		barred: map[int]time.Time{},
		vacant: map[int]time.Time{}, rescued: map[int]bool{},
		owned: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "tocsin_alerter_partitions_owned",
			Help: "Partitions that this replica owns.",
		}),
	}
	if o.Registerer != nil {
		o.Registerer.MustRegister(k.owned)
	}
	return k
}

// Run claims and releases partitions until ctx ends. Then it stops and frees
// all that it owns, and returns ctx's error.
func (k *Keeper) Run(ctx context.Context) error {
	defer k.work.Wait() // each holding ends with ctx
	var self Lease
	defer func() {
		if self != nil {
			self.Release()
		}
	}()
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	for {
		var err error
		if self, err = k.present(ctx, self); err == nil {
			err = k.look(ctx)
		}
		if err != nil && ctx.Err() == nil {
			k.opts.Log.LogAttrs(ctx, slog.LevelWarn, "leases not read; will try again", slog.Any("err", err))
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
	}
}

// Owns tells whether the partition runs here.
func (k *Keeper) Owns(partition int) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.held[partition] != nil
}

// Vacant returns an error that names the partitions that nobody owned for 45 s.
func (k *Keeper) Vacant() error {
	k.mu.Lock()
	defer k.mu.Unlock()
	var long []int
	for p, since := range k.vacant {
		if time.Since(since) > vacantFor {
			long = append(long, p)
		}
	}
	if len(long) == 0 {
		return nil
	}
	slices.Sort(long)
	return fmt.Errorf("nobody owns partitions %v", long)
}

// present keeps the lease by which other replicas know that this one is alive.
func (k *Keeper) present(ctx context.Context, lease Lease) (Lease, error) {
	if lease != nil {
		select {
		case <-lease.Done():
		default:
			return lease, nil
		}
	}
	ctx, cancel := context.WithTimeout(ctx, lookTimeout)
	defer cancel()
	lease, ok, err := k.opts.Leases.Claim(ctx, replicaPrefix+k.opts.Self)
	if err != nil || !ok {
		return nil, err
	}
	return lease, nil
}

// look compares what is owned with what should be.
func (k *Keeper) look(ctx context.Context) error {
	view, err := k.view(ctx)
	if err != nil {
		return err
	}
	claim, release := Plan(view)
	for _, p := range release {
		k.release(ctx, p)
	}
	leases := make([]Lease, len(claim))
	var g errgroup.Group
	g.SetLimit(claimsAtOnce)
	for i, p := range claim {
		g.Go(func() (err error) {
			leases[i], err = k.claim(ctx, p)
			return err
		})
	}
	err = g.Wait()
	for i, p := range claim {
		if leases[i] != nil {
			k.start(ctx, p, leases[i], view.Overdue[p])
		}
	}
	return err
}

func (k *Keeper) view(ctx context.Context) (View, error) {
	ctx, cancel := context.WithTimeout(ctx, lookTimeout)
	defer cancel()
	leases, err := k.opts.Leases.Owners(ctx)
	if err != nil {
		return View{}, fmt.Errorf("read the owners: %w", err)
	}
	v := View{
		Self: k.opts.Self, Partitions: k.opts.Partitions,
		Owners: map[int]string{}, Barred: map[int]bool{}, Overdue: map[int]bool{},
	}
	for name, owner := range leases {
		if replica, ok := strings.CutPrefix(name, replicaPrefix); ok {
			v.Replicas = append(v.Replicas, replica)
		} else if text, ok := strings.CutPrefix(name, partitionPrefix); ok {
			if p, err := strconv.Atoi(text); err == nil {
				v.Owners[p] = owner
			}
		}
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	now := time.Now()
	for p, until := range k.barred {
		switch {
		case now.Before(until):
			v.Barred[p] = true
		case now.After(until.Add(barFor)): // it was tried again, and runs
			delete(k.barred, p)
		}
	}
	for p := range k.held {
		v.Owners[p] = k.opts.Self
	}
	k.noteVacant(v.Owners, now)
	for p, since := range k.vacant {
		v.Overdue[p] = now.Sub(since) > overdueAfter
	}
	v.Rescued = maps.Clone(k.rescued)
	return v, nil
}

// noteVacant notes since when partitions have no owner. One that was given back
// and is tried again stays vacant until that went well. The caller holds mu.
func (k *Keeper) noteVacant(owners map[int]string, now time.Time) {
	for p := range k.opts.Partitions {
		owner, owned := owners[p]
		_, known := k.vacant[p]
		switch _, givenBack := k.barred[p]; {
		case owned && (owner != k.opts.Self || !givenBack):
			delete(k.vacant, p)
		case !owned && !known:
			k.vacant[p] = now
		}
	}
}

// claim tries to take a partition. It returns nil when another was faster.
func (k *Keeper) claim(ctx context.Context, partition int) (Lease, error) {
	ctx, cancel := context.WithTimeout(ctx, lookTimeout)
	defer cancel()
	lease, ok, err := k.opts.Leases.Claim(ctx, fmt.Sprintf("%s%02d", partitionPrefix, partition))
	if err != nil {
		return nil, fmt.Errorf("claim partition %d: %w", partition, err)
	}
	if !ok {
		return nil, nil //nolint:nilnil // nobody erred: another replica owns it
	}
	return lease, nil
}

func (k *Keeper) start(ctx context.Context, partition int, lease Lease, rescue bool) {
	ctx, stop := context.WithCancel(ctx)
	k.mu.Lock()
	defer k.mu.Unlock()
	k.held[partition] = stop
	if rescue {
		k.rescued[partition] = true
	}
	k.owned.Inc()
	k.work.Go(func() { k.hold(ctx, stop, partition, lease) })
}

// hold runs a partition as long as its lease holds.
func (k *Keeper) hold(ctx context.Context, stop context.CancelFunc, partition int, lease Lease) {
	defer stop()
	watched := make(chan struct{})
	go func() {
		defer close(watched)
		select {
		case <-lease.Done():
			stop()
		case <-ctx.Done():
		}
	}()
	began := time.Now()
	err := k.opts.Run(ctx, partition)
	stop()
	<-watched
	// The lease ends first: while it is held here, a claim would be given the
	// same one again.
	lease.Release()
	k.mu.Lock()
	delete(k.held, partition)
	delete(k.rescued, partition)
	if errors.Is(err, ErrGiveBack) {
		k.barred[partition] = time.Now().Add(barFor)
	}
	k.mu.Unlock()
	k.owned.Dec()
	level := slog.LevelInfo
	if errors.Is(err, ErrGiveBack) {
		level = slog.LevelError
	}
	k.opts.Log.LogAttrs(ctx, level, "partition freed", slog.Int("partition", partition),
		slog.Duration("owned", time.Since(began)), slog.Any("err", err))
}

func (k *Keeper) release(ctx context.Context, partition int) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if stop := k.held[partition]; stop != nil {
		k.opts.Log.LogAttrs(ctx, slog.LevelInfo, "partition left to another replica", slog.Int("partition", partition))
		stop()
	}
}
