package ruleset_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tocsin-dev/tocsin/internal/bus"
	"github.com/tocsin-dev/tocsin/internal/event"
	"github.com/tocsin-dev/tocsin/services/alerter/internal/engine"
	"github.com/tocsin-dev/tocsin/services/alerter/internal/ruleset"
	"github.com/tocsin-dev/tocsin/services/alerter/rulefile"
)

const text = `
groups:
  - name: g
    rules:
      - {alert: A, on: endpoint, expr: jobs.in_queue > 1}
`

func parse(t *testing.T) *rulefile.Set {
	t.Helper()
	return parseText(t, text)
}

func parseText(t *testing.T, text string) *rulefile.Set {
	t.Helper()
	set, err := rulefile.Parse(map[string][]byte{"a.yaml": []byte(text)}, nil)
	if err != nil {
		t.Fatal(err)
	}
	return set
}

// configured is a rule set that nothing but a replica's configuration names.
func configured(t *testing.T) *engine.Program {
	t.Helper()
	program, err := engine.Compile(parseText(t, strings.Replace(text, "> 1", "> 99", 1)))
	if err != nil {
		t.Fatal(err)
	}
	return program
}

// bucket is a bucket in memory.
type bucket struct {
	mu     sync.Mutex
	values map[string][]byte // guarded by mu
	rev    uint64            // guarded by mu; of all keys
	err    error             // guarded by mu
}

func (b *bucket) Get(_ context.Context, key string) ([]byte, uint64, bool, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	value, ok := b.values[key]
	return value, b.rev, ok, b.err
}

func (b *bucket) Put(_ context.Context, key string, value []byte) (uint64, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.err != nil {
		return 0, b.err
	}
	b.rev++
	b.values[key] = value
	return b.rev, nil
}

func (b *bucket) Create(ctx context.Context, key string, value []byte) (uint64, error) {
	if _, _, ok, _ := b.Get(ctx, key); ok {
		return 0, bus.ErrExists
	}
	return b.Put(ctx, key, value)
}

func (b *bucket) Update(ctx context.Context, key string, value []byte, rev uint64) (uint64, error) {
	if _, now, _, _ := b.Get(ctx, key); now != rev {
		return 0, bus.ErrWrongSequence
	}
	return b.Put(ctx, key, value)
}

func newBuckets() (sets, meta *bucket) {
	return &bucket{values: map[string][]byte{}}, &bucket{values: map[string][]byte{}}
}

func TestFetch(t *testing.T) {
	set := parse(t)
	away := errors.New("away")
	for name, c := range map[string]struct {
		stored []byte
		err    error
		want   error
	}{
		"a set that is kept":            {set.Encode(), nil, nil},
		"a set that nobody keeps":       {nil, nil, ruleset.ErrMissing},
		"a set that is not readable":    {[]byte("rubbish"), nil, ruleset.ErrUnreadable},
		"a bucket that does not answer": {set.Encode(), away, away},
	} {
		t.Run(name, func(t *testing.T) {
			sets, meta := newBuckets()
			if c.stored != nil {
				sets.values[set.Hash] = c.stored
			}
			sets.err = c.err
			l := ruleset.NewLibrary(sets, meta, configured(t))
			program, err := l.Fetch(t.Context(), set.Hash)
			if !errors.Is(err, c.want) {
				t.Fatalf("Fetch: %v, want %v", err, c.want)
			}
			if c.want != nil {
				if l.Program(set.Hash) != nil {
					t.Error("a set that was not fetched is known")
				}
				return
			}
			if program.Hash() != set.Hash || l.Program(set.Hash) != program {
				t.Errorf("fetched %s, want %s, kept", program.Hash(), set.Hash)
			}
			sets.err = away
			if again, err := l.Fetch(t.Context(), set.Hash); err != nil || again != program {
				t.Errorf("a set that is known is fetched again: %v", err)
			}
		})
	}
}

// compiled is a set, ready to be used.
func compiled(t *testing.T, set *rulefile.Set) *engine.Program {
	t.Helper()
	program, err := engine.Compile(set)
	if err != nil {
		t.Fatal(err)
	}
	return program
}

// stage is an activation and what it published.
type stage struct {
	ruleset.Activation
	others    *ruleset.Library // of a replica that is configured with something else
	mu        sync.Mutex
	published [][]bus.Message // guarded by mu
	err       error           // guarded by mu
	log       string          // guarded by mu
	changed   chan struct{}   // guarded by mu
}

func newStage(t *testing.T, sets, meta *bucket) *stage {
	s := &stage{log: "log-1", changed: make(chan struct{})}
	s.others = ruleset.NewLibrary(sets, meta, configured(t))
	s.Activation = ruleset.Activation{
		Library: ruleset.NewLibrary(sets, meta, compiled(t, parse(t))),
		Log: func() (string, <-chan struct{}) {
			s.mu.Lock()
			defer s.mu.Unlock()
			return s.log, s.changed
		},
		Publish: func(_ context.Context, messages []bus.Message) error {
			s.mu.Lock()
			defer s.mu.Unlock()
			if s.err != nil {
				return s.err
			}
			s.published = append(s.published, messages)
			return nil
		},
		Logger: slog.New(slog.DiscardHandler),
	}
	return s
}

// hash names the set that the replica is configured with.
func (s *stage) hash() string { return s.Library.Configured().Hash() }

func (s *stage) count() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.published)
}

func TestActivateReachesEveryPartitionOnce(t *testing.T) {
	sets, meta := newBuckets()
	s := newStage(t, sets, meta)
	if hash, err := s.Library.Last(t.Context()); hash != "" || err != nil {
		t.Errorf("before the first, %q is in force, %v", hash, err)
	}
	for range 2 { // a second start with the same file changes nothing
		if err := s.Activate(t.Context(), "log-1"); err != nil {
			t.Fatal(err)
		}
	}
	if s.count() != 1 || len(s.published[0]) != event.Partitions {
		t.Fatalf("%d batches were published, want one of %d messages", s.count(), event.Partitions)
	}
	for p, m := range s.published[0] {
		if m.Subject != event.PartitionSubject(p, event.KindRuleSetActivated) {
			t.Errorf("message %d is on %s", p, m.Subject)
		}
		e, err := event.Unmarshal(m.Data)
		if err != nil || e.GetRuleSetActivated().GetHash() != s.hash() {
			t.Errorf("message %d activates %v, %v", p, e, err)
		}
	}
	if _, err := s.others.Fetch(t.Context(), s.hash()); err != nil {
		t.Errorf("the activated set is not kept: %v", err)
	}
	if hash, err := s.Library.Last(t.Context()); hash != s.hash() || err != nil {
		t.Errorf("%q is in force, %v; want %s", hash, err, s.hash())
	}
	if err := s.Activate(t.Context(), "log-2"); err != nil || s.count() != 2 {
		t.Errorf("another log: %d batches, %v; want a second one", s.count(), err)
	}
}

func TestActivateIsNotNotedBeforeItIsDone(t *testing.T) {
	sets, meta := newBuckets()
	s := newStage(t, sets, meta)
	s.err = bus.ErrUnknownOutcome
	if err := s.Activate(t.Context(), "log-1"); !errors.Is(err, bus.ErrUnknownOutcome) {
		t.Fatalf("Activate: %v", err)
	}
	s.err = nil
	if err := s.Activate(t.Context(), "log-1"); err != nil || s.count() != 1 {
		t.Errorf("after the failure: %d batches, %v; want one", s.count(), err)
	}
}

// TestReplicasWithOtherFilesAgreeOnWhatIsInForce has a second replica activate
// its own files between the first one's messages and its note of them.
func TestReplicasWithOtherFilesAgreeOnWhatIsInForce(t *testing.T) {
	for name, before := range map[string]bool{"for the first time": false, "after others": true} {
		t.Run(name, func(t *testing.T) {
			sets, meta := newBuckets()
			if before {
				meta.values["rules"] = []byte("log-1 others")
			}
			var log []string // what was published, in order
			slow, quick := newStage(t, sets, meta), newStage(t, sets, meta)
			quick.Library.Configure(compiled(t, parseText(t, strings.Replace(text, "> 1", "> 2", 1))))
			quick.Publish = func(context.Context, []bus.Message) error {
				log = append(log, quick.hash())
				return nil
			}
			slow.Publish = func(ctx context.Context, _ []bus.Message) error {
				if log = append(log, slow.hash()); len(log) > 1 {
					return nil
				}
				return quick.Activate(ctx, "log-1")
			}
			if err := slow.Activate(t.Context(), "log-1"); err == nil {
				t.Error("the first notes its set over the second's without a word")
			}
			if err := slow.Activate(t.Context(), "log-1"); err != nil {
				t.Fatal(err)
			}
			hash, err := slow.Library.Last(t.Context())
			if err != nil || hash != log[len(log)-1] {
				t.Errorf("noted as in force is %s, %v; the log ends with %s", hash, err, log[len(log)-1])
			}
		})
	}
}

func TestRunFollowsTheLog(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		sets, meta := newBuckets()
		s := newStage(t, sets, meta)
		s.err = errors.New("away")
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- s.Run(ctx) }()
		time.Sleep(10 * time.Second)
		s.mu.Lock()
		s.err = nil
		s.mu.Unlock()
		time.Sleep(10 * time.Second)
		if s.count() != 1 {
			t.Errorf("%d batches after NATS came back, want 1", s.count())
		}
		s.mu.Lock()
		s.log = "log-2"
		close(s.changed)
		s.changed = make(chan struct{})
		s.mu.Unlock()
		time.Sleep(10 * time.Second)
		if s.count() != 2 {
			t.Errorf("%d batches after the log changed, want 2", s.count())
		}
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Errorf("Run: %v", err)
		}
	})
}

func TestWhatIsConfiguredAnewComesIntoForce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		sets, meta := newBuckets()
		s := newStage(t, sets, meta)
		reconfigured := make(chan struct{}, 1)
		s.Reconfigured = reconfigured
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- s.Run(ctx) }()
		synctest.Wait()
		before := s.hash()
		s.Library.Configure(compiled(t, parseText(t, strings.Replace(text, "> 1", "> 2", 1))))
		reconfigured <- struct{}{}
		synctest.Wait()
		if last, err := s.others.Last(t.Context()); err != nil || last != s.hash() || last == before || s.count() != 2 {
			t.Errorf("in force is %s after %d batches, %v; want %s after 2", last, s.count(), err, s.hash())
		}
		if s.Library.Program(before) == nil || s.Library.Program(s.hash()) == nil {
			t.Error("the set of before, or the new one, is not known any more")
		}
		if _, err := meta.Put(t.Context(), "rules", []byte("log-1 others")); err != nil { // another replica's files
			t.Fatal(err)
		}
		reconfigured <- struct{}{}
		synctest.Wait()
		reconfigured <- struct{}{} // and not again
		synctest.Wait()
		if last, err := s.others.Last(t.Context()); err != nil || last != s.hash() || s.count() != 3 {
			t.Errorf("in force is %s after %d batches, %v; want %s after 3", last, s.count(), err, s.hash())
		}
		cancel()
		<-done
	})
}

func TestASetThatWasLostIsPutBack(t *testing.T) {
	sets, meta := newBuckets()
	s := newStage(t, sets, meta)
	if err := s.Activate(t.Context(), "log-1"); err != nil {
		t.Fatal(err)
	}
	clear(sets.values)
	again := newStage(t, sets, meta)
	if err := again.Activate(t.Context(), "log-1"); err != nil {
		t.Fatal(err)
	}
	if again.count() != 0 {
		t.Errorf("what is in force was activated once more, in %d batches", again.count())
	}
	if _, err := again.others.Fetch(t.Context(), s.hash()); err != nil {
		t.Errorf("the set in force is not kept: %v", err)
	}
}

func TestSeed(t *testing.T) {
	set := parse(t)
	own := configured(t).Hash()
	away := errors.New("away")
	for name, c := range map[string]struct {
		last   string
		stored []byte
		err    error
		want   string
		fails  error
	}{
		"the set that was last in force":                {"log " + set.Hash, set.Encode(), nil, set.Hash, nil},
		"the configured one when nobody keeps it":       {"log " + set.Hash, nil, nil, own, nil},
		"the configured one when none was in force":     {"", nil, nil, own, nil},
		"none when this release cannot read it":         {"log " + set.Hash, []byte("rubbish"), nil, "", ruleset.ErrUnreadable},
		"none while the bucket of sets does not answer": {"log " + set.Hash, set.Encode(), away, "", away},
	} {
		t.Run(name, func(t *testing.T) {
			sets, meta := newBuckets()
			if c.last != "" {
				meta.values["rules"] = []byte(c.last)
			}
			if c.stored != nil {
				sets.values[set.Hash] = c.stored
			}
			sets.err = c.err
			program, err := ruleset.NewLibrary(sets, meta, configured(t)).Seed(t.Context())
			if !errors.Is(err, c.fails) {
				t.Fatalf("Seed: %v, want %v", err, c.fails)
			}
			if c.fails == nil && program.Hash() != c.want {
				t.Errorf("rule set %s, want %s", program.Hash(), c.want)
			}
		})
	}
}

func TestRuleSetsThatAreNotUsedAreDropped(t *testing.T) {
	sets, meta := newBuckets()
	own := configured(t)
	l := ruleset.NewLibrary(sets, meta, own)
	var hashes []string
	for n := range 20 {
		set := parseText(t, strings.Replace(text, "> 1", fmt.Sprintf("> 1%d", n), 1))
		sets.values[set.Hash] = set.Encode()
		hashes = append(hashes, set.Hash)
		if _, err := l.Fetch(t.Context(), set.Hash); err != nil {
			t.Fatal(err)
		}
		l.Program(hashes[0]) // in use all the time
	}
	kept := 0
	for _, hash := range hashes {
		if l.Program(hash) != nil {
			kept++
		}
	}
	if kept != 8 || l.Program(hashes[0]) == nil || l.Program(hashes[19]) == nil || l.Program(own.Hash()) != own {
		t.Errorf("%d of 20 are kept, want 8: the one in use and the newest, and the configured one beside them", kept)
	}
	if _, err := l.Fetch(t.Context(), hashes[1]); err != nil {
		t.Errorf("one that was dropped: %v", err)
	}
}

func TestTheConfiguredSetIsKnown(t *testing.T) {
	sets, meta := newBuckets()
	program := configured(t)
	if ruleset.NewLibrary(sets, meta, program).Program(program.Hash()) != program {
		t.Error("it is not known")
	}
}
