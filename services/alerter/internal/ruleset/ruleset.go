// Package ruleset keeps rule sets by their hash where all replicas find them,
// and brings one into force.
//
// A rule set comes into force by a message in each partition, so that all
// replicas change at the same point of the log, and a replay uses the rules of
// its time. Rule sets are never removed: a log or a snapshot may name them, and
// a year of daily changes is a few megabytes.
//
// A replica cannot tell a file that was put back on purpose from one that is
// out of date: each start and each change of its files brings the replica's own
// into force if they are not. All replicas must have the same ones; the last to
// start or to change decides.
package ruleset

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/tocsin-dev/tocsin/internal/bus"
	"github.com/tocsin-dev/tocsin/internal/event"
	eventv1 "github.com/tocsin-dev/tocsin/proto/gen/tocsin/event/v1"
	"github.com/tocsin-dev/tocsin/services/alerter/internal/engine"
	"github.com/tocsin-dev/tocsin/services/alerter/rulefile"
)

const (
	// key holds the log and the hash of the last activation in the meta bucket.
	key = "rules"
	// retryWait is the pause after an activation that did not go through.
	retryWait = time.Second
	// programsKept is how many compiled rule sets are kept: the one in force and
	// those of changes that a replay of a few days meets. Partitions hold on to
	// what they use, and what was dropped is fetched again.
	programsKept = 8
)

var (
	// ErrMissing says that nobody has a rule set with this hash.
	ErrMissing = errors.New("the rule set is not kept")
	// ErrUnreadable says that this release cannot use a rule set that another
	// release could.
	ErrUnreadable = errors.New("the rule set cannot be used by this release")
)

// Bucket is a set of keys.
type Bucket interface {
	// Get returns the value of key and its revision; ok is false when there is none.
	Get(ctx context.Context, key string) (value []byte, rev uint64, ok bool, err error)
	// Put sets key to value.
	Put(ctx context.Context, key string, value []byte) (uint64, error)
	// Create sets key if it has no value.
	Create(ctx context.Context, key string, value []byte) (uint64, error)
	// Update sets key if its revision is still rev.
	Update(ctx context.Context, key string, value []byte, rev uint64) (uint64, error)
}

// Library holds rule sets. It is safe for concurrent use.
type Library struct {
	sets Bucket
	meta Bucket

	mu         sync.Mutex
	configured *engine.Program   // guarded by mu; what this replica's files say
	programs   []*engine.Program // guarded by mu; the one used last is the last
}

// NewLibrary returns a Library over the bucket of rule sets and the one that
// says which is in force. It knows the rule set that this replica is configured
// with without asking.
func NewLibrary(sets, meta Bucket, configured *engine.Program) *Library {
	return &Library{sets: sets, meta: meta, configured: configured}
}

// Program returns a compiled rule set that is loaded, or nil.
func (l *Library) Program(hash string) *engine.Program {
	l.mu.Lock()
	defer l.mu.Unlock()
	if hash == l.configured.Hash() {
		return l.configured
	}
	i := slices.IndexFunc(l.programs, func(p *engine.Program) bool { return p.Hash() == hash })
	if i < 0 {
		return nil
	}
	p := l.programs[i]
	l.programs = append(slices.Delete(l.programs, i, i+1), p)
	return p
}

// Configure changes what this replica is configured with. The rule set of before
// is kept as long as others are.
func (l *Library) Configure(program *engine.Program) {
	l.mu.Lock()
	before := l.configured
	l.configured = program
	l.mu.Unlock()
	l.add(before)
}

// Configured returns what this replica is configured with.
func (l *Library) Configured() *engine.Program {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.configured
}

// add keeps a compiled rule set, in place of the one that was not used for
// longest if there are too many.
func (l *Library) add(p *engine.Program) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.programs = slices.DeleteFunc(l.programs, func(old *engine.Program) bool { return old.Hash() == p.Hash() })
	if len(l.programs) == programsKept {
		l.programs = slices.Delete(l.programs, 0, 1)
	}
	l.programs = append(l.programs, p)
}

// Fetch loads and compiles a rule set unless it is loaded. Its error wraps
// ErrMissing or ErrUnreadable when trying again is of no use.
func (l *Library) Fetch(ctx context.Context, hash string) (*engine.Program, error) {
	if p := l.Program(hash); p != nil {
		return p, nil
	}
	data, _, ok, err := l.sets.Get(ctx, hash)
	switch {
	case err != nil:
		return nil, fmt.Errorf("fetch rule set %s: %w", hash, err)
	case !ok:
		return nil, fmt.Errorf("fetch rule set %s: %w", hash, ErrMissing)
	}
	set, err := rulefile.Decode(data)
	if err != nil {
		return nil, fmt.Errorf("decode rule set %s: %w: %w", hash, ErrUnreadable, err)
	}
	program, err := engine.Compile(set)
	if err != nil {
		return nil, fmt.Errorf("compile rule set %s: %w: %w", hash, ErrUnreadable, err)
	}
	l.add(program)
	return program, nil
}

// Seed returns the rule set to begin with where the log does not say: the one
// that was last brought into force, or the configured one when nobody keeps
// that any more, or when there was none.
func (l *Library) Seed(ctx context.Context) (*engine.Program, error) {
	hash, err := l.Last(ctx)
	if err != nil {
		return nil, err
	}
	if hash == "" {
		return l.Configured(), nil
	}
	program, err := l.Fetch(ctx, hash)
	if errors.Is(err, ErrMissing) {
		return l.Configured(), nil
	}
	return program, err
}

// Last returns the hash of the rule set that was last brought into force, in
// whatever log. It is empty when none was.
func (l *Library) Last(ctx context.Context) (string, error) {
	value, _, _, err := l.meta.Get(ctx, key)
	if err != nil {
		return "", fmt.Errorf("find the rule set in force: %w", err)
	}
	_, hash, _ := strings.Cut(string(value), " ")
	return hash, nil
}

// Activation brings one rule set into force.
type Activation struct {
	// Library keeps the sets and knows the one that is configured.
	Library *Library
	// Log tells the present event log, and when another takes its place.
	Log func() (id string, changed <-chan struct{})
	// Publish stores messages, all or none.
	Publish func(ctx context.Context, messages []bus.Message) error
	// Logger gets one line for each activation.
	Logger *slog.Logger
	// Reconfigured has a value when the library is configured anew; nil never does.
	Reconfigured <-chan struct{}
}

// Run brings the configured set into force in the present log and in each that takes
// its place, and each that is configured later, until ctx ends, and returns ctx's error.
func (a *Activation) Run(ctx context.Context) error {
	for {
		id, changed := a.Log()
		if err := a.Activate(ctx, id); err != nil {
			if ctx.Err() != nil {
				return ctx.Err()
			}
			a.Logger.LogAttrs(ctx, slog.LevelWarn, "rule set not activated; will try again", slog.Any("err", err))
			timer := time.NewTimer(retryWait)
			select {
			case <-ctx.Done():
				timer.Stop()
				return ctx.Err()
			case <-timer.C:
			}
			continue
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-changed:
		case <-a.Reconfigured:
		}
	}
}

// Activate stores the set, if it is not kept, and publishes its activation to
// all partitions of the log, unless that was the last thing done there. When its outcome is not
// known it may be done twice, which changes nothing.
func (a *Activation) Activate(ctx context.Context, logID string) error {
	set := a.Library.Configured().Set()
	hash := set.Hash
	if err := a.keep(ctx, set); err != nil {
		return fmt.Errorf("store rule set %s: %w", hash, err)
	}
	value, rev, ok, err := a.Library.meta.Get(ctx, key)
	if err != nil {
		return fmt.Errorf("find the rule set in force: %w", err)
	}
	if string(value) == logID+" "+hash {
		return nil
	}
	data, err := event.Marshal(&eventv1.Event{
		OccurredAt: timestamppb.Now(),
		Source:     eventv1.Source_SOURCE_TOCSIN,
		Fact:       &eventv1.Event_RuleSetActivated{RuleSetActivated: &eventv1.RuleSetActivated{Hash: hash}},
	})
	if err != nil {
		return fmt.Errorf("encode the activation: %w", err)
	}
	messages := make([]bus.Message, event.Partitions)
	for p := range messages {
		messages[p] = bus.Message{Subject: event.PartitionSubject(p, "rule_set_activated"), Data: data}
	}
	if err := a.Publish(ctx, messages); err != nil {
		return fmt.Errorf("publish the activation of rule set %s: %w", hash, err)
	}
	// When another replica was faster with other files, nobody knows which set
	// came last: an error, so that the next attempt makes it certain.
	if ok {
		_, err = a.Library.meta.Update(ctx, key, []byte(logID+" "+hash), rev)
	} else {
		_, err = a.Library.meta.Create(ctx, key, []byte(logID+" "+hash))
	}
	if err != nil {
		return fmt.Errorf("note the rule set in force: %w", err)
	}
	a.Logger.LogAttrs(ctx, slog.LevelInfo, "rule set activated", slog.String("rule_set", hash),
		slog.Int("rules", len(set.Rules())), slog.String("before", string(value)))
	return nil
}

// keep stores the set where the other replicas find it. It looks first, since
// the bucket may have been lost after the set was brought into force.
func (a *Activation) keep(ctx context.Context, set *rulefile.Set) error {
	_, _, ok, err := a.Library.sets.Get(ctx, set.Hash)
	if err != nil || ok {
		return err
	}
	_, err = a.Library.sets.Put(ctx, set.Hash, set.Encode())
	return err
}
