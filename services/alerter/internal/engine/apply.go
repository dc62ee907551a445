package engine

import (
	"slices"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/tocsin-dev/tocsin/internal/event"
	eventv1 "github.com/tocsin-dev/tocsin/proto/gen/tocsin/event/v1"
	"github.com/tocsin-dev/tocsin/services/alerter/internal/expr"
)

// slotMemory is how far a poll slot may lie back and still be a repetition. One
// further back is a collector whose clock was set back.
const slotMemory = 5 * time.Minute

// apply takes in one fact at the instant now.
func (p *Partition) apply(e *eventv1.Event) {
	switch f := e.GetFact().(type) {
	case *eventv1.Event_Tick, *eventv1.Event_RuleSetActivated:
		// A tick moves time, which is done; a rule set that is in force changes nothing.
	case *eventv1.Event_CollectorStarted:
		if p.heard() {
			p.listen()
			p.reconsider(func(a *alert) bool { return len(a.rule.absences) > 0 })
		}
	case nil:
		p.problem(UndecodableEvent, "", "", "message %d has no fact that can be read", p.step.message.Seq)
	default:
		p.applyToTarget(e, f)
	}
}

// heard says that something was sampled since observation last began, or that it
// never did. A collector that dies again and again before it has polled anything
// does not begin to observe: its starts must not put off for ever that its silence
// is told.
func (p *Partition) heard() bool {
	for _, t := range p.targets {
		if t.sampled >= p.listening {
			return true
		}
	}
	return p.listening == never
}

// listen notes that observation begins: absence counts from here.
func (p *Partition) listen() {
	p.listening = p.nowMs()
	for _, t := range p.targets {
		for _, w := range t.watches {
			p.delay(w, p.nowMs())
		}
	}
}

// applyToTarget takes in a fact about a target.
func (p *Partition) applyToTarget(e *eventv1.Event, fact any) {
	if want := kindOfFact(fact); e.GetTarget() == nil || want != 0 && e.GetTarget().GetKind() != want {
		p.problem(UndecodableEvent, "", event.Token(e.GetTarget()), "message %d: a fact about the wrong kind of target", p.step.message.Seq)
		return
	}
	t := p.find(e.GetTarget())
	if t == nil {
		return
	}
	switch f := fact.(type) {
	case *eventv1.Event_TargetDiscovered:
		p.specified(t, f.TargetDiscovered.GetSpec())
	case *eventv1.Event_TargetChanged:
		p.specified(t, f.TargetChanged.GetSpec())
	case *eventv1.Event_TargetRemoved:
		p.removed(t)
	default:
		if t.live() {
			p.observed(t, e)
		}
	}
}

// kindOfFact returns the kind of target that a fact must be about, 0 for any.
func kindOfFact(fact any) eventv1.TargetKind {
	switch fact.(type) {
	case *eventv1.Event_HealthSampled, *eventv1.Event_JobRegistered, *eventv1.Event_JobTransitioned:
		return eventv1.TargetKind_TARGET_KIND_ENDPOINT
	case *eventv1.Event_GpuSampled:
		return eventv1.TargetKind_TARGET_KIND_POD
	case *eventv1.Event_AccountPolled, *eventv1.Event_InventoryShrunk:
		return eventv1.TargetKind_TARGET_KIND_ACCOUNT
	default:
		return 0
	}
}

// find returns the target of a fact, adding it if new. It returns nil for what
// is no target or one too many.
func (p *Partition) find(about *eventv1.Target) *target {
	switch about.GetKind() {
	case eventv1.TargetKind_TARGET_KIND_ENDPOINT, eventv1.TargetKind_TARGET_KIND_POD, eventv1.TargetKind_TARGET_KIND_ACCOUNT:
	default:
		p.problem(UndecodableEvent, "", "", "message %d: a target of no known kind", p.step.message.Seq)
		return nil
	}
	p.token = event.AppendToken(p.token[:0], about)
	t := p.targets[string(p.token)]
	if t == nil {
		token := string(p.token)
		if len(p.targets) >= maxTargets {
			p.problem(TooManyTargets, "", token, "the partition has %d targets already", len(p.targets))
			return nil
		}
		t = &target{
			token: token, target: proto.CloneOf(about), firstSeen: p.nowMs(),
			gone: never, sampled: never, sampledBus: never, interval: p.real(usualInterval),
		}
		p.keep(t)
		p.describe(t)
		p.equip(t)
	} else if about.GetName() != "" && about.GetName() != t.target.GetName() {
		t.target.Name = about.GetName()
		p.describe(t)
	}
	p.touch(t)
	return t
}

// describe gives a target the labels and overrides of the rule set's patterns.
func (p *Partition) describe(t *target) {
	if p.program != nil {
		t.labels, t.overrides = p.program.describe(t.target.GetKind(), t.target.GetName())
	}
}

// specified takes in a target's settings. They bring a removed target back.
func (p *Partition) specified(t *target, spec *eventv1.TargetSpec) {
	if !t.live() {
		p.revive(t)
	}
	if spec != nil {
		t.spec = proto.CloneOf(spec)
	}
	p.record(t, factsOfSpec|factsOfState)
	p.judge(t)
}

// observed takes in what was seen of a target that is there.
func (p *Partition) observed(t *target, e *eventv1.Event) {
	held := max(e.GetHeld().AsDuration(), 0)
	switch f := e.GetFact().(type) {
	case *eventv1.Event_HealthSampled:
		s := f.HealthSampled
		p.sampled(t, sample{s.GetPollSlotMs(), s.GetInterval().AsDuration(), held, func() {
			t.health = keepHealth(t.health, s)
			p.countHealth(t, s.GetJobs())
		}})
	case *eventv1.Event_GpuSampled:
		s := f.GpuSampled
		p.sampled(t, sample{s.GetPollSlotMs(), s.GetInterval().AsDuration(), held, func() {
			t.gpu = proto.CloneOf(s)
			if s.UptimeSeconds != nil {
				t.restarted(float64(s.GetUptimeSeconds()))
			}
		}})
	case *eventv1.Event_AccountPolled:
		s := f.AccountPolled
		p.sampled(t, sample{s.GetPollSlotMs(), s.GetInterval().AsDuration(), held, func() { t.account = proto.CloneOf(s) }})
	case *eventv1.Event_InventoryShrunk:
		t.inventory = proto.CloneOf(f.InventoryShrunk)
		p.record(t, factsOfState)
		p.judge(t)
	case *eventv1.Event_PollFailed:
		p.pollFailed(t, f.PollFailed)
	case *eventv1.Event_JobRegistered:
		p.jobRegistered(t, f.JobRegistered, p.real(held))
	case *eventv1.Event_JobTransitioned:
		p.jobMoved(t, f.JobTransitioned, p.real(held))
	}
}

// sample is what all samples have in common.
type sample struct {
	slot     int64
	interval time.Duration
	held     time.Duration
	// take keeps the values and counts the counters.
	take func()
}

// sampled takes in a sample. One whose slot is not newer is a repetition; one
// that was held for too long updates the latest values and the counters and is
// no sign of life for now.
func (p *Partition) sampled(t *target, s sample) {
	interval := min(s.interval, longestInterval)
	if interval <= 0 {
		interval = usualInterval
	}
	late := s.held > lateIntervals*interval
	memory := max(slotMemory, absentIntervals*interval)
	if back := t.slot - s.slot; t.sampled != never && back >= 0 && (late || back < memory.Milliseconds()) {
		return
	}
	if t.sampled != never && p.clock.bus() > t.holds() {
		p.lapse(t)
	}
	t.slot, t.interval = s.slot, p.real(interval)
	t.sampled = max(t.sampled, p.nowMs()-p.real(s.held))
	t.sampledBus = max(t.sampledBus, p.clock.bus()-p.real(s.held))
	t.sampledAt = p.step.message.Time.Add(-s.held).UnixNano()
	for _, w := range t.watches {
		p.delay(w, p.nowMs())
	}
	s.take()
	if late {
		p.recordCounters(t)
		return
	}
	t.failure = nil
	p.record(t, factsOfSample|factsOfState|factsOfJobs)
	p.tidy(t)
	p.judge(t)
}

func (p *Partition) countHealth(t *target, j *eventv1.JobCounts) {
	if j == nil {
		return
	}
	for _, c := range []struct {
		field expr.FieldID
		raw   *int64
	}{{expr.JobsCompleted, j.Completed}, {expr.JobsFailed, j.Failed}, {expr.JobsRetried, j.Retried}} {
		if c.raw != nil {
			t.count(c.field, float64(*c.raw))
		}
	}
}

// pollFailed takes in a poll of the target that gave nothing. What was asked
// about one job says nothing about its endpoint.
func (p *Partition) pollFailed(t *target, f *eventv1.PollFailed) {
	if f.GetKind() == eventv1.PollKind_POLL_KIND_JOB || t.sampled != never && f.GetPollSlotMs() != 0 && f.GetPollSlotMs() <= t.slot {
		return
	}
	t.failure = proto.CloneOf(f)
	p.record(t, factsOfState)
	p.judge(t)
}

// removed takes in that a target is no more. Its alerts are over, but those of
// rules that judge just that.
func (p *Partition) removed(t *target) {
	if !t.live() {
		return
	}
	now := p.nowMs()
	for _, a := range slices.Clone(t.alerts) {
		if !a.rule.readsGone {
			p.end(a, now, reasonTargetRemoved)
		}
	}
	p.touch(t)
	p.touchJobs(t)
	p.strip(t)
	p.dropTallies(t)
	*t = target{
		token: t.token, target: t.target, labels: t.labels, overrides: t.overrides, firstSeen: t.firstSeen,
		gone: now, slot: t.slot, interval: t.interval, sampled: never, sampledBus: never, alerts: t.alerts,
	}
	p.touch(t)
	p.equip(t)
	p.judge(t)
}

// revive forgets that a target was removed.
func (p *Partition) revive(t *target) {
	p.touch(t)
	t.gone, t.firstSeen, t.slot = never, p.nowMs(), 0
	p.touch(t)
	p.equip(t)
}

// forget drops a removed target for good.
func (p *Partition) forget(t *target, at int64) {
	for _, a := range slices.Clone(t.alerts) {
		p.end(a, at, reasonTargetRemoved)
	}
	t.dropped = true
	delete(p.targets, t.token)
	p.kinds[t.target.GetKind()]--
	p.touch(t)
}

// keep adds a target that is not there yet.
func (p *Partition) keep(t *target) {
	p.targets[t.token] = t
	p.kinds[t.target.GetKind()]++
}
