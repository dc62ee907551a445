package engine

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/testing/protocmp"

	alertv1 "github.com/tocsin-dev/tocsin/proto/gen/tocsin/alert/v1"
	statev1 "github.com/tocsin-dev/tocsin/proto/gen/tocsin/state/v1"
	"github.com/tocsin-dev/tocsin/services/alerter/rulefile"
)

// fold is one way to run the fold: something may be done to the state between
// two messages, which must change nothing.
type fold struct {
	p       *Partition
	results []StepResult
}

func (f *fold) step(t *testing.T, m Message, programs Programs) {
	t.Helper()
	result, err := f.p.Step(m, programs)
	if err != nil {
		t.Fatal(err)
	}
	f.results = append(f.results, result)
}

// store keeps what Delta gives, as Redis does.
type store struct {
	head            []byte
	targets, active map[string][]byte
}

func (s *store) write(d Delta) {
	s.head = d.Head
	keep := func(all, changed map[string][]byte) {
		for k, v := range changed {
			if v == nil {
				delete(all, k)
			} else {
				all[k] = v
			}
		}
	}
	keep(s.targets, d.Targets)
	keep(s.active, d.Active)
}

func TestALoadedStateGoesOnAsIfNothingHadHappened(t *testing.T) {
	targets := []rulefile.TargetPattern{{Match: `^(?P<team>\w+)-`, Overrides: map[string]float64{"rate": 0.3}}}
	all, less := compile(t, everything, targets...), compile(t, lessThanEverything, targets...)
	programs := known(all, less)
	messages, seeds := 2500, uint64(6)
	if testing.Short() {
		messages, seeds = 1000, 3 // each speed, and each rule fires
	}
	seen := map[string]int{}
	for seed := range seeds {
		w := newWorld(seed, all, less)
		speed := []float64{1, 1, 7.5}[seed%3]
		plain := &fold{p: NewPartition(7, "log", speed)}
		restored := &fold{p: NewPartition(7, "log", speed)}
		loaded := &fold{p: NewPartition(7, "log", speed)}
		redis := &store{targets: map[string][]byte{}, active: map[string][]byte{}}
		for range messages {
			m := w.next()
			plain.step(t, m, programs)
			restored.step(t, m, programs)
			loaded.step(t, m, programs)
			if w.chance(5) {
				restored.p = viaSnapshot(t, restored.p, speed)
			}
			if w.chance(30) {
				redis.write(loaded.p.Delta())
				if w.chance(20) {
					loaded.p = viaStore(t, redis, speed)
				}
			}
		}
		for _, r := range plain.results {
			for _, tr := range r.Transitions {
				if tr.GetAlert().GetFlapping() {
					seen["flapping "+tr.GetKind().String()]++
				}
				seen[tr.GetAlert().GetRule()+" "+tr.GetKind().String()]++
			}
		}
		redis.write(loaded.p.Delta())
		loaded.p = viaStore(t, redis, speed)
		compareFolds(t, "restored from a snapshot", plain, restored)
		compareFolds(t, "loaded from the store", plain, loaded)
	}
	for _, rule := range all.Set().Rules() {
		if rule.Mode == rulefile.ModeObserve {
			continue
		}
		if seen[rule.Alert+" TRANSITION_KIND_FIRING"] == 0 {
			t.Errorf("the world never made %s fire, so this proves nothing of it", rule.Alert)
		}
	}
	for _, kind := range []string{"FIRING", "RESOLVED"} {
		if seen["flapping TRANSITION_KIND_"+kind] == 0 {
			t.Errorf("nothing that flaps was told as %s", kind)
		}
	}
}

func viaSnapshot(t *testing.T, p *Partition, speed float64) *Partition {
	t.Helper()
	data, err := p.Snapshot()
	if err != nil {
		t.Fatal(err)
	}
	again, err := Restore(data, speed)
	if err != nil {
		t.Fatal(err)
	}
	return again
}

func viaStore(t *testing.T, s *store, speed float64) *Partition {
	t.Helper()
	p, err := Load(s.head, s.targets, s.active, speed)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// compareFolds fails unless both folds gave the same results and have the same state.
func compareFolds(t *testing.T, name string, want, got *fold) {
	t.Helper()
	for i := range want.results {
		if sameResult(want.results[i], got.results[i]) {
			continue
		}
		if diff := cmp.Diff(want.results[i], got.results[i], protocmp.Transform()); diff != "" {
			t.Fatalf("%s: message %d gives something else:\n%s", name, i, diff)
		}
	}
	a, err := want.p.Snapshot()
	if err != nil {
		t.Fatal(err)
	}
	b, err := got.p.Snapshot()
	if err != nil {
		t.Fatal(err)
	}
	if string(a) != string(b) {
		t.Fatalf("%s: the snapshots differ:\n%s", name, cmp.Diff(readable(t, a), readable(t, b), protocmp.Transform()))
	}
}

// sameResult compares faster than a readable difference is made.
func sameResult(a, b StepResult) bool {
	same := slices.EqualFunc(a.Transitions, b.Transitions, func(x, y *alertv1.Transition) bool { return proto.Equal(x, y) })
	return same && slices.Equal(a.Problems, b.Problems) &&
		slices.EqualFunc(a.Changes, b.Changes, func(x, y *alertv1.Alert) bool { return proto.Equal(x, y) })
}

// readable decodes all of a snapshot.
func readable(t *testing.T, data []byte) map[string]proto.Message {
	t.Helper()
	var s statev1.Snapshot
	decode(t, data, &s)
	all := map[string]proto.Message{"head": s.GetHead()}
	for _, e := range s.GetTargets() {
		var m proto.Message = &statev1.TargetState{}
		if strings.HasSuffix(e.GetKey(), jobsSuffix) {
			m = &statev1.JobTable{}
		}
		decode(t, e.GetValue(), m)
		all[e.GetKey()] = m
	}
	for _, e := range s.GetActive() {
		m := &statev1.AlertRecord{}
		decode(t, e.GetValue(), m)
		all[e.GetKey()] = m
	}
	return all
}

func decode(t *testing.T, data []byte, m proto.Message) {
	t.Helper()
	if err := proto.Unmarshal(data, m); err != nil {
		t.Fatal(err)
	}
}

func TestASnapshotOfARestoredStateIsTheSame(t *testing.T) {
	all := compile(t, everything)
	w := newWorld(5, all)
	f := &fold{p: NewPartition(7, "log", 1)}
	for range 500 {
		f.step(t, w.next(), known(all))
	}
	a, _ := f.p.Snapshot()
	b, _ := viaSnapshot(t, f.p, 1).Snapshot()
	if string(a) != string(b) {
		t.Error("the snapshots differ before the first message after a load")
	}
}

// TestARestoredStateIsWrittenWhole writes a snapshot into an empty store, as an
// owner does that found none, and reads it back before anything changed.
func TestARestoredStateIsWrittenWhole(t *testing.T) {
	program := compile(t, everything)
	w := newWorld(3, program, program)
	p := NewPartition(7, "log", 1)
	for range 500 {
		if _, err := p.Step(w.next(), known(program)); err != nil {
			t.Fatal(err)
		}
	}
	want, err := p.Snapshot()
	if err != nil {
		t.Fatal(err)
	}
	restored, err := Restore(want, 1)
	if err != nil {
		t.Fatal(err)
	}
	redis := &store{targets: map[string][]byte{}, active: map[string][]byte{}}
	redis.write(restored.Delta())
	if len(redis.targets) == 0 || len(redis.active) == 0 {
		t.Errorf("%d targets and %d alerts are written", len(redis.targets), len(redis.active))
	}
	loaded, err := Load(redis.head, redis.targets, redis.active, 1)
	if err != nil {
		t.Fatal(err)
	}
	got, err := loaded.Snapshot()
	if err != nil {
		t.Fatal(err)
	}
	if string(got) != string(want) {
		t.Errorf("a restored state of %d bytes became one of %d in the store", len(want), len(got))
	}
}

func TestAMessageIsAppliedOnce(t *testing.T) {
	all := compile(t, everything)
	w := newWorld(6, all)
	once, twice := &fold{p: NewPartition(7, "log", 1)}, &fold{p: NewPartition(7, "log", 1)}
	var messages []Message
	for range 800 {
		messages = append(messages, w.next())
	}
	for i, m := range messages {
		once.step(t, m, known(all))
		twice.step(t, m, known(all))
		for _, old := range messages[max(0, i-3) : i+1] {
			if r, err := twice.p.Step(old, known(all)); err != nil || len(r.Changes)+len(r.Transitions)+len(r.Problems) > 0 {
				t.Fatalf("message %d again: %v, %v", old.Seq, r, err)
			}
		}
	}
	compareFolds(t, "applied twice", once, twice)
}

func TestAnUnknownRuleSetLeavesTheStateAsItWas(t *testing.T) {
	all, less := compile(t, everything), compile(t, lessThanEverything)
	p := NewPartition(7, "log", 1)
	w := newWorld(6, all)
	for range 300 {
		if _, err := p.Step(w.next(), known(all)); err != nil {
			t.Fatal(err)
		}
	}
	before, _ := p.Snapshot()
	m := w.next()
	m.Event = activated(less.Hash())
	_, err := p.Step(m, known(all))
	var unknown UnknownRulesError
	if !errors.As(err, &unknown) || unknown.Hash != less.Hash() {
		t.Fatalf("error %v, want the new rule set's hash", err)
	}
	if after, _ := p.Snapshot(); string(before) != string(after) {
		t.Error("the state changed")
	}
	if _, err := p.Step(m, known(all, less)); err != nil || p.RuleSetHash() != less.Hash() {
		t.Errorf("with the rule set loaded: %v, in force is %s", err, p.RuleSetHash())
	}
	loaded := viaSnapshot(t, p, 1)
	if _, err := loaded.Step(w.next(), known(all)); !errors.As(err, &unknown) || unknown.Hash != less.Hash() {
		t.Errorf("a loaded state without its rules: %v", err)
	}
}

func TestStatesOfAnotherFormatAreRefused(t *testing.T) {
	p := NewPartition(7, "log", 1)
	h := p.head()
	for found, newer := range map[uint32]bool{stateFormat + 1: true, oldestFormat - 1: false} {
		h.Format = found
		var format FormatError
		if _, err := Load(marshal(h), nil, nil, 1); !errors.As(err, &format) || format.Newer() != newer {
			t.Errorf("format %d: error %v, newer %v", found, err, format.Newer())
		}
	}
	if _, err := Restore([]byte("no snapshot"), 1); err == nil {
		t.Error("bytes that are no snapshot were read")
	}
}
