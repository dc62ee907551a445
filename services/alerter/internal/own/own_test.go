package own

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// leases are leases in memory, shared by replicas.
type leases struct {
	mu     *sync.Mutex
	owners map[string]*lease // guarded by mu
	self   string
	down   *bool // guarded by mu
}

type lease struct {
	name  string
	owner string
	all   leases
	done  chan struct{}
	once  sync.Once
}

func newLeases() leases {
	return leases{mu: new(sync.Mutex), owners: map[string]*lease{}, down: new(bool)}
}

func (l leases) of(self string) leases { l.self = self; return l }

func (l leases) Claim(_ context.Context, name string) (Lease, bool, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if *l.down {
		return nil, false, errors.New("away")
	}
	if held := l.owners[name]; held != nil {
		return held, held.owner == l.self, nil
	}
	l.owners[name] = &lease{name: name, owner: l.self, all: l, done: make(chan struct{})}
	return l.owners[name], true, nil
}

func (l leases) Owners(context.Context) (map[string]string, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if *l.down {
		return nil, errors.New("away")
	}
	owners := map[string]string{}
	for name, held := range l.owners {
		owners[name] = held.owner
	}
	return owners, nil
}

func (l *lease) Done() <-chan struct{} { return l.done }

func (l *lease) Release() {
	l.once.Do(func() {
		close(l.done)
		l.all.mu.Lock()
		defer l.all.mu.Unlock()
		delete(l.all.owners, l.name)
	})
}

// lose ends a replica's leases as if they had lapsed.
func (l leases) lose(replica string) {
	l.mu.Lock()
	var lost []*lease
	for _, held := range l.owners {
		if held.owner == replica {
			lost = append(lost, held)
		}
	}
	l.mu.Unlock()
	for _, held := range lost {
		held.Release()
	}
}

// runs counts the partitions that run on each replica, and fails the test when
// two replicas run the same one.
type runs struct {
	t  *testing.T
	mu sync.Mutex
	by map[int]string // guarded by mu
}

func (r *runs) run(self string) func(context.Context, int) error {
	return func(ctx context.Context, p int) error {
		r.mu.Lock()
		if other := r.by[p]; other != "" {
			r.t.Errorf("%s runs partition %d while %s does", self, p, other)
		}
		r.by[p] = self
		r.mu.Unlock()
		<-ctx.Done()
		time.Sleep(100 * time.Millisecond) // its clean stop
		r.mu.Lock()
		delete(r.by, p)
		r.mu.Unlock()
		return ctx.Err()
	}
}

func (r *runs) count(self string) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	n := 0
	for _, by := range r.by {
		if by == self {
			n++
		}
	}
	return n
}

func start(t *testing.T, self string, l leases, run func(context.Context, int) error) (stop func()) {
	_, stop = startKeeper(t, self, l, run)
	return stop
}

func startKeeper(t *testing.T, self string, l leases, run func(context.Context, int) error) (k *Keeper, stop func()) {
	ctx, cancel := context.WithCancel(t.Context())
	k = New(Options{
		Self: self, Partitions: 64, Leases: l.of(self), Run: run, Log: slog.New(slog.DiscardHandler),
	})
	done := make(chan error, 1)
	go func() { done <- k.Run(ctx) }()
	return k, func() {
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Errorf("Run: %v", err)
		}
	}
}

func TestAPartitionThatNobodyCanRunIsTold(t *testing.T) {
	for name, c := range map[string]struct {
		try    time.Duration // how long each attempt takes
		second bool          // whether another replica can run it
		want   string
	}{
		"at once":                    {0, false, "nobody owns partitions [3]"},
		"after a long attempt":       {5 * time.Second, false, "nobody owns partitions [3]"},
		"unless another replica can": {0, true, ""},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l := newLeases()
				able := func(ctx context.Context, _ int) error {
					<-ctx.Done()
					return ctx.Err()
				}
				k, stop := startKeeper(t, "a", l, func(ctx context.Context, p int) error {
					if p != 3 {
						return able(ctx, p)
					}
					time.Sleep(c.try)
					return ErrGiveBack
				})
				defer stop()
				if c.second {
					defer start(t, "b", l, able)()
				}
				time.Sleep(vacantFor / 2)
				if err := k.Vacant(); err != nil {
					t.Errorf("after %v: %v", vacantFor/2, err)
				}
				for range 60 {
					time.Sleep(time.Second)
				}
				got := ""
				if err := k.Vacant(); err != nil {
					got = err.Error()
				}
				if got != c.want {
					t.Errorf("after a minute and more: %q, want %q", got, c.want)
				}
			})
		})
	}
}

func TestReplicasShareEvenlyAndTakeOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, r := newLeases(), &runs{t: t, by: map[int]string{}}
		want := func(when string, counts map[string]int) {
			t.Helper()
			time.Sleep(5 * time.Second)
			for self, n := range counts {
				if got := r.count(self); got != n {
					t.Errorf("%s: %s runs %d partitions, want %d", when, self, got, n)
				}
			}
		}
		stopA := start(t, "a", l, r.run("a"))
		want("alone", map[string]int{"a": 64})
		stopB := start(t, "b", l, r.run("b"))
		want("with a second", map[string]int{"a": 32, "b": 32})
		stopC := start(t, "c", l, r.run("c"))
		want("with a third", map[string]int{"a": 22, "b": 21, "c": 21})
		stopB()
		want("after one stopped", map[string]int{"a": 32, "b": 0, "c": 32})
		stopA()
		want("alone again", map[string]int{"c": 64})
		stopC()
		if len(l.owners) != 0 {
			t.Errorf("%d leases are still held after all stopped", len(l.owners))
		}
	})
}

func TestLostLeasesStopTheWork(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, r := newLeases(), &runs{t: t, by: map[int]string{}}
		stop := start(t, "a", l, r.run("a"))
		time.Sleep(5 * time.Second)
		l.mu.Lock()
		*l.down = true
		l.mu.Unlock()
		l.lose("a")
		time.Sleep(5 * time.Second)
		if n := r.count("a"); n != 0 {
			t.Errorf("%d partitions run without a lease", n)
		}
		l.mu.Lock()
		*l.down = false
		l.mu.Unlock()
		time.Sleep(5 * time.Second)
		if n := r.count("a"); n != 64 {
			t.Errorf("%d partitions run after the leases are back, want 64", n)
		}
		stop()
	})
}

func TestAPartitionThatIsGivenBackIsLeftToOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var tries atomic.Int32
		run := func(ctx context.Context, p int) error {
			if p == 3 {
				tries.Add(1)
				return ErrGiveBack
			}
			<-ctx.Done()
			return ctx.Err()
		}
		stop := start(t, "a", newLeases(), run)
		time.Sleep(barFor / 2)
		if n := tries.Load(); n != 1 {
			t.Errorf("claimed %d times within %v, want once", n, barFor/2)
		}
		time.Sleep(barFor)
		if n := tries.Load(); n != 2 {
			t.Errorf("claimed %d times within %v, want twice", n, barFor+barFor/2)
		}
		stop()
	})
}
