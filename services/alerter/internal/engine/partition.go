package engine

import (
	"container/heap"
	"fmt"
	"strings"
	"time"

	eventv1 "github.com/tocsin-dev/tocsin/proto/gen/tocsin/event/v1"
	"github.com/tocsin-dev/tocsin/services/alerter/internal/expr"
)

const (
	// keepGone is how long a removed target is remembered, so that a straggling
	// sample does not bring it back, and a pod that is gone can be told of.
	keepGone = 24 * time.Hour
	// maxTargets bounds the targets of a partition: 64 partitions hold 1.28
	// million, at about 2 KiB each 40 MiB a partition.
	maxTargets = 20_000
	// maxAlerts bounds the alerts of one rule in a partition: as many as targets.
	maxAlerts = maxTargets
)

// Partition is the state of one partition's fold. It is not safe for
// concurrent use: it has one owner.
type Partition struct {
	index int
	logID string
	speed float64

	applied uint64
	clock   clock
	hash    string
	// listening is since when silence means something: since a collector began to
	// observe, or a gap ended; never before.
	listening int64

	targets map[string]*target
	// kinds counts them.
	kinds map[eventv1.TargetKind]int
	// byID and byFingerprint find the pending and firing alerts; perRule counts them.
	byID          map[string]*alert
	byFingerprint map[string]*alert
	perRule       map[string]int
	timers        timers
	program       *Program
	dirty         dirt
	cache         cache
	workspace     expr.Workspace
	// token is room for that of a fact's target.
	token []byte

	// step is what the message at hand does.
	step step
}

// step is what one message does, and when.
type step struct {
	StepResult
	message Message
	changes int
}

// dirt is what changed since the last Delta.
type dirt struct {
	targets, alerts map[string]struct{}
}

// NewPartition returns the empty state of a partition of a log. Engine time
// runs speed times as fast as the log's timestamps; speed is 1 but in a demo.
func NewPartition(index int, logID string, speed float64) *Partition {
	return &Partition{
		index: index, logID: logID, speed: speed, listening: never,
		targets: map[string]*target{}, kinds: map[eventv1.TargetKind]int{}, byID: map[string]*alert{}, byFingerprint: map[string]*alert{}, perRule: map[string]int{},
		dirty: dirt{map[string]struct{}{}, map[string]struct{}{}},
	}
}

// Step applies one message. Its only error is UnknownRulesError: the state is
// untouched then; load the rule set and call again. A message that was applied
// before is ignored.
func (p *Partition) Step(m Message, programs Programs) (StepResult, error) {
	if m.Seq <= p.applied {
		return StepResult{}, nil
	}
	current, next, err := p.lookUp(m, programs)
	if err != nil {
		return StepResult{}, err
	}
	p.step = step{message: m}
	if current != nil {
		p.attach(current)
	}
	p.pass(m.Time)
	if next != nil {
		p.activate(next)
	} else {
		p.apply(m.Event)
	}
	p.applied = m.Seq
	result := p.step.StepResult
	p.step = step{}
	return result, nil
}

// lookUp finds the programs that the message needs, before anything changes:
// the one in force, where a loaded state has none yet, and the one that the
// message brings into force.
func (p *Partition) lookUp(m Message, programs Programs) (current, next *Program, err error) {
	if p.hash != "" && p.program == nil {
		if current = programs(p.hash); current == nil {
			return nil, nil, UnknownRulesError{p.hash}
		}
	}
	hash := m.Event.GetRuleSetActivated().GetHash()
	if hash == "" || hash == p.hash {
		return current, nil, nil
	}
	if next = programs(hash); next == nil {
		return nil, nil, UnknownRulesError{hash}
	}
	return current, next, nil
}

// pass lets the time up to a message pass.
func (p *Partition) pass(to time.Time) {
	before := p.nowMs()
	passed, skipped := p.elapsed(to)
	if skipped > 0 {
		p.suspend()
	}
	p.clock.advance(to, passed, skipped)
	if skipped > 0 {
		p.listen()
	}
	p.fireTimers(before)
	if skipped > 0 {
		p.resume()
	}
}

// fireTimers fires what came due after an instant, in order, each at its own
// deadline: the message that let the time pass is not applied yet.
func (p *Partition) fireTimers(after int64) {
	for {
		t := p.peek(after)
		if t == nil || t.at > p.nowMs() {
			return
		}
		at := t.at
		heap.Remove(&p.timers, t.index)
		t.at, t.fired = never, at
		if t.rule == nil {
			p.forget(t.target, at)
			continue
		}
		p.evaluate(t.target, t.rule, t.target.category(t.category), at)
		p.schedule(t, at)
	}
}

// category finds the failures of a category, or nil.
func (t *target) category(name string) *failures {
	for _, f := range t.failures {
		if f.category == name {
			return f
		}
	}
	return nil
}

// problem notes something that went wrong.
func (p *Partition) problem(kind ProblemKind, rule, target, format string, args ...any) {
	p.step.Problems = append(p.step.Problems, Problem{Kind: kind, Rule: rule, Target: target, Detail: fmt.Sprintf(format, args...)})
}

// touch notes that a target's value must be written. That of a removed target
// stands under a key of its own.
func (p *Partition) touch(t *target) {
	switch {
	case !t.live():
		p.dirty.targets[t.token+goneSuffix] = struct{}{}
	case !t.touched:
		t.touched = true
		p.dirty.targets[t.token] = struct{}{}
	}
}

// touchJobs notes that a target's jobs must be written.
func (p *Partition) touchJobs(t *target) { p.dirty.targets[t.token+jobsSuffix] = struct{}{} }

const (
	jobsSuffix = "/jobs"
	goneSuffix = "/gone"
)

// IsTarget tells the keys of targets that are there, whose values DecodeTarget
// reads, from the other keys of Delta.Targets.
func IsTarget(key string) bool { return !strings.Contains(key, "/") }

// AppliedSeq returns the sequence of the last message applied, 0 before the first.
func (p *Partition) AppliedSeq() uint64 { return p.applied }

// LogID returns the log that was folded.
func (p *Partition) LogID() string { return p.logID }

// Index returns the partition's number.
func (p *Partition) Index() int { return p.index }

// Stamp returns the timestamp of the last message applied, the zero time before
// the first.
func (p *Partition) Stamp() time.Time {
	if p.applied == 0 {
		return time.Time{}
	}
	return time.Unix(0, p.clock.stamp).UTC()
}

// Now returns engine time: how much of it passed since the first message.
func (p *Partition) Now() time.Duration { return time.Duration(p.clock.now) }

// RuleSetHash names the rule set in force. Empty before the first.
func (p *Partition) RuleSetHash() string { return p.hash }

// group returns the rules that judge a kind of target.
func (p *Program) group(kind eventv1.TargetKind) *ruleGroup {
	switch kind {
	case eventv1.TargetKind_TARGET_KIND_ENDPOINT:
		return p.on["endpoint"]
	case eventv1.TargetKind_TARGET_KIND_POD:
		return p.on["pod"]
	default:
		return p.on["account"]
	}
}
