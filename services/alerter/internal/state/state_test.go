package state_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/testing/protocmp"

	"github.com/tocsin-dev/tocsin/internal/servertest"
	alertv1 "github.com/tocsin-dev/tocsin/proto/gen/tocsin/alert/v1"
	statev1 "github.com/tocsin-dev/tocsin/proto/gen/tocsin/state/v1"
	"github.com/tocsin-dev/tocsin/services/alerter/internal/state"
)

const partition = 7

func open(t testing.TB, r *servertest.RedisServer, dial func(context.Context, string, string) (net.Conn, error)) *state.Store {
	t.Helper()
	s := state.Open(state.Options{Address: r.Addr(), Dial: dial, Log: slog.New(slog.DiscardHandler)})
	t.Cleanup(s.Close)
	return s
}

func read(t testing.TB, s *state.Store) *state.Saved {
	t.Helper()
	saved, err := s.Read(t.Context(), partition)
	if err != nil {
		t.Fatal(err)
	}
	return saved
}

func position(seq uint64) *statev1.Position {
	return &statev1.Position{LogId: "log", AppliedSequence: seq, RuleSetHash: "rules"}
}

func transition(seq uint64) *alertv1.Transition {
	return &alertv1.Transition{Id: fmt.Sprint(seq), Cause: &alertv1.Cause{LogId: "log", Sequence: seq}}
}

// install puts a state at sequence 1 into an empty Redis.
func install(t testing.TB, s *state.Store) *state.Owner {
	t.Helper()
	owner, err := s.Install(t.Context(), partition, read(t, s), state.Content{
		Position: position(1),
		Fold:     []byte("fold 1"),
		Targets:  map[string][]byte{"a": []byte("1"), "b": []byte("1")},
		Active:   map[string][]byte{"x": []byte("1")},
		Outbox:   []*alertv1.Transition{transition(1)},
	})
	if err != nil {
		t.Fatal(err)
	}
	return owner
}

// second is a change after which a state looks like afterSecond.
func second() state.Change {
	return state.Change{
		Position:     position(2),
		Acknowledged: &alertv1.Cause{LogId: "log", Sequence: 1},
		Fold:         []byte("fold 2"),
		Targets:      map[string][]byte{"a": []byte("2"), "b": nil, "c": []byte("2")},
		Active:       map[string][]byte{"x": nil, "y": []byte("2")},
		Trim:         1,
		Push:         []*alertv1.Transition{transition(2), transition(3)},
	}
}

// wantSecond compares what lies in Redis with the effect of exactly one second().
func wantSecond(t *testing.T, got *state.Saved) {
	t.Helper()
	want := &state.Saved{
		Stored: &statev1.StoredHead{
			Format: state.Format, Position: position(2), Fold: []byte("fold 2"),
			Acknowledged: &alertv1.Cause{LogId: "log", Sequence: 1},
			Targets:      2, Active: 1, Outbox: 2,
		},
		Targets: map[string][]byte{"a": []byte("2"), "c": []byte("2")},
		Active:  map[string][]byte{"y": []byte("2")},
		Outbox:  []*alertv1.Transition{transition(2), transition(3)},
	}
	diff := cmp.Diff(want, got, protocmp.Transform(),
		protocmp.IgnoreFields(&statev1.StoredHead{}, "owner_token", "commit"),
		cmp.FilterPath(func(p cmp.Path) bool { return p.Last().String() == ".Head" }, cmp.Ignore()))
	if diff != "" {
		t.Errorf("state after the commit (-want +got):\n%s", diff)
	}
}

// wantSame checks that nothing was written since before was read.
func wantSame(t *testing.T, before, now *state.Saved) {
	t.Helper()
	if diff := cmp.Diff(before, now, protocmp.Transform()); diff != "" {
		t.Errorf("the state changed (-before +now):\n%s", diff)
	}
}

func TestCommitReplacesWhatItNames(t *testing.T) {
	s := open(t, servertest.Redis(t), nil)
	if saved := read(t, s); saved.Head != nil || saved.Stored != nil {
		t.Fatalf("an empty Redis holds head %q", saved.Head)
	}
	owner := install(t, s)
	if err := owner.Commit(t.Context(), second()); err != nil {
		t.Fatal(err)
	}
	got := read(t, s)
	wantSecond(t, got)
	if got.Stored.GetOwnerToken() != owner.Token() {
		t.Errorf("the head names owner %q, want %q", got.Stored.GetOwnerToken(), owner.Token())
	}
}

func TestInstallWipesWhatWasThere(t *testing.T) {
	s := open(t, servertest.Redis(t), nil)
	install(t, s)
	_, err := s.Install(t.Context(), partition, read(t, s), state.Content{
		Position: position(9), Targets: map[string][]byte{"z": []byte("9")},
	})
	if err != nil {
		t.Fatal(err)
	}
	got := read(t, s)
	if diff := cmp.Diff(map[string][]byte{"z": []byte("9")}, got.Targets); diff != "" {
		t.Errorf("targets (-want +got):\n%s", diff)
	}
	if len(got.Active) != 0 || len(got.Outbox) != 0 {
		t.Errorf("%d alerts and %d transitions were left behind", len(got.Active), len(got.Outbox))
	}
}

func TestWhoWasReplacedWritesNothing(t *testing.T) {
	s := open(t, servertest.Redis(t), nil)
	old := install(t, s)
	next, err := s.Take(t.Context(), partition, read(t, s))
	if err != nil {
		t.Fatal(err)
	}
	if next.Token() == old.Token() {
		t.Error("a takeover kept the token")
	}
	before := read(t, s)
	if err := old.Commit(t.Context(), second()); !errors.Is(err, state.ErrNotOwner) {
		t.Errorf("commit of the old owner: %v, want ErrNotOwner", err)
	}
	wantSame(t, before, read(t, s))
	if err := next.Commit(t.Context(), second()); err != nil {
		t.Errorf("commit of the new owner: %v", err)
	}
}

func TestOnlyOneOfTwoTakesOver(t *testing.T) {
	s := open(t, servertest.Redis(t), nil)
	install(t, s)
	saved := read(t, s)
	if _, err := s.Take(t.Context(), partition, saved); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Take(t.Context(), partition, saved); !errors.Is(err, state.ErrNotOwner) {
		t.Errorf("second takeover of the same state: %v, want ErrNotOwner", err)
	}
	if _, err := s.Install(t.Context(), partition, saved, state.Content{}); !errors.Is(err, state.ErrNotOwner) {
		t.Errorf("install over a head that changed: %v, want ErrNotOwner", err)
	}
	if _, err := s.Install(t.Context(), partition, &state.Saved{}, state.Content{}); !errors.Is(err, state.ErrNotOwner) {
		t.Errorf("install where a head appeared: %v, want ErrNotOwner", err)
	}
}

func TestAnAbsentHeadIsNeverCommittedOver(t *testing.T) {
	r := servertest.Redis(t)
	s := open(t, r, nil)
	owner := install(t, s)
	saved := read(t, s)
	r.FlushAll(t)
	if err := owner.Commit(t.Context(), second()); !errors.Is(err, state.ErrLost) {
		t.Errorf("commit after FLUSHALL: %v, want ErrLost", err)
	}
	if _, err := s.Take(t.Context(), partition, saved); !errors.Is(err, state.ErrLost) {
		t.Errorf("takeover after FLUSHALL: %v, want ErrLost", err)
	}
	if got := read(t, s); got.Head != nil || len(got.Targets) != 0 {
		t.Errorf("something was written: %+v", got)
	}
}

// tap is a connection that can be interfered with around the EXEC of the
// transaction whose head it is told to wait for.
type tap struct {
	net.Conn
	faults *faults
}

// faults says what happens at the next EXEC.
type faults struct {
	mu     sync.Mutex
	before func() // guarded by mu; runs between WATCH and EXEC
	cut    cutAt  // guarded by mu
	refuse int    // guarded by mu; dials that fail
	redis  *servertest.RedisServer
}

type cutAt int

const (
	cutNever cutAt = iota
	cutBeforeExec
	cutAfterExec
)

func (f *faults) dial(_ context.Context, network, address string) (net.Conn, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.refuse > 0 {
		f.refuse--
		return nil, errors.New("refused")
	}
	conn, err := net.Dial(network, address)
	if err != nil {
		return nil, err
	}
	return &tap{Conn: conn, faults: f}, nil
}

func (f *faults) next() (before func(), cut cutAt) {
	f.mu.Lock()
	defer f.mu.Unlock()
	before, cut = f.before, f.cut
	f.before, f.cut = nil, cutNever
	return before, cut
}

func (c *tap) Write(p []byte) (int, error) {
	if !bytes.Contains(p, []byte("\r\nexec\r\n")) {
		return c.Conn.Write(p)
	}
	before, cut := c.faults.next()
	if before != nil {
		before()
	}
	switch cut {
	case cutBeforeExec:
		c.Close()
		return 0, net.ErrClosed
	case cutAfterExec:
		n, err := c.Conn.Write(p)
		// Redis answers the whole transaction before the connection goes away, so
		// that it is certainly done and the answer certainly lost.
		if _, err := io.ReadAtLeast(c.Conn, make([]byte, 64), 1); err != nil {
			return n, err
		}
		c.Close()
		return n, err
	default:
		return c.Conn.Write(p)
	}
}

func TestCommitUnderFaults(t *testing.T) {
	for name, c := range map[string]struct {
		faults func(t *testing.T, f *faults, other *state.Store)
		want   error
	}{
		"an answer that is lost does not repeat the commit": {
			faults: func(_ *testing.T, f *faults, _ *state.Store) { f.cut = cutAfterExec },
		},
		"a connection cut before EXEC repeats the commit": {
			faults: func(_ *testing.T, f *faults, _ *state.Store) { f.cut = cutBeforeExec },
		},
		"a Redis that is away is waited for": {
			faults: func(_ *testing.T, f *faults, _ *state.Store) { f.cut, f.refuse = cutBeforeExec, 5 },
		},
		"FLUSHALL between WATCH and EXEC aborts it": {
			faults: func(t *testing.T, f *faults, _ *state.Store) { f.before = func() { f.redis.FlushAll(t) } },
			want:   state.ErrLost,
		},
		"a takeover between WATCH and EXEC aborts it": {
			faults: func(t *testing.T, f *faults, other *state.Store) {
				f.before = func() {
					if _, err := other.Take(t.Context(), partition, read(t, other)); err != nil {
						t.Error(err)
					}
				}
			},
			want: state.ErrNotOwner,
		},
	} {
		t.Run(name, func(t *testing.T) {
			r := servertest.Redis(t)
			f := &faults{redis: r}
			s, other := open(t, r, f.dial), open(t, r, nil)
			owner := install(t, s)
			c.faults(t, f, other)
			err := owner.Commit(t.Context(), second())
			if !errors.Is(err, c.want) {
				t.Fatalf("Commit: %v, want %v", err, c.want)
			}
			got := read(t, other)
			if c.want != nil {
				if got.Targets["c"] != nil || len(got.Outbox) > 1 {
					t.Errorf("an aborted commit left something behind: %+v", got)
				}
				return
			}
			wantSecond(t, got)
			third := state.Change{Position: position(3), Push: []*alertv1.Transition{transition(4)}}
			if err := owner.Commit(t.Context(), third); err != nil {
				t.Errorf("the next commit: %v", err)
			}
			if n := len(read(t, other).Outbox); n != 3 {
				t.Errorf("%d transitions in the outbox, want 3", n)
			}
		})
	}
}

func TestCommitEndsWithItsContext(t *testing.T) {
	r := servertest.Redis(t)
	s := open(t, r, nil)
	owner := install(t, s)
	r.Stop(t)
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := owner.Commit(ctx, second()); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Commit: %v, want the context's error", err)
	}
}

func TestHeadOfAnotherFormatIsNotUsed(t *testing.T) {
	for name, c := range map[string]struct {
		head  *statev1.StoredHead
		newer bool
	}{
		"a later version": {&statev1.StoredHead{Format: state.Format + 1}, true},
		"no version":      {&statev1.StoredHead{OwnerToken: "x"}, false},
	} {
		t.Run(name, func(t *testing.T) {
			r := servertest.Redis(t)
			s := open(t, r, nil)
			raw, err := proto.Marshal(c.head)
			if err != nil {
				t.Fatal(err)
			}
			set(t, r, "{tocsin:07}:head", raw)
			got := read(t, s)
			if got.Stored != nil || got.Newer != c.newer || !bytes.Equal(got.Head, raw) {
				t.Errorf("read %+v, want the raw head alone and newer %v", got, c.newer)
			}
			if _, err := s.Install(t.Context(), partition, got, state.Content{Position: position(1)}); err != nil {
				t.Errorf("install over it: %v", err)
			}
		})
	}
}

// set writes a key past the package under test.
func set(t *testing.T, r *servertest.RedisServer, key string, value []byte) {
	t.Helper()
	conn, err := net.Dial("unix", r.Addr())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	fmt.Fprintf(conn, "*3\r\n$3\r\nSET\r\n$%d\r\n%s\r\n$%d\r\n%s\r\n", len(key), key, len(value), value)
	answer := make([]byte, 5)
	if _, err := io.ReadFull(conn, answer); err != nil || string(answer) != "+OK\r\n" {
		t.Fatalf("SET answered %q, %v", answer, err)
	}
}
