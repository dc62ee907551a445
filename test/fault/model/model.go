// Package model says which alerts a log must lead to: a second, small account
// of what the alerter's fold promises, for the few rules of the fault test. It
// shares no code with the fold.
package model

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/tocsin-dev/tocsin/internal/event"
	eventv1 "github.com/tocsin-dev/tocsin/proto/gen/tocsin/event/v1"
)

// Above is the number of waiting jobs above which every rule's condition holds.
const Above = 10

// Rules is the file of the rules that the model knows.
const Rules = `
groups:
  - name: fault
    rules:
      - {alert: Waiting, on: endpoint, expr: jobs.in_queue > 10, labels: {severity: warning}}
      - {alert: Overdue, on: endpoint, expr: jobs.in_queue > 10, for: 1s, labels: {severity: critical}}
      - {alert: Latched, on: endpoint, expr: jobs.in_queue > 10, until: jobs.in_queue == 0, labels: {severity: warning}}
`

// rule is what the file says of a rule.
type rule struct {
	name    string
	wait    int64 // milliseconds that the condition must hold
	latches bool  // it ends only when no job waits
}

var rules = []rule{{name: "Waiting"}, {name: "Overdue", wait: 1000}, {name: "Latched", latches: true}}

// How the fold treats time: what a message moves it by at most, for how many
// intervals of the bus's time a sample holds, from how many on it is late, and
// how far back a poll slot is still a repetition.
const (
	maxStep       = 90 * time.Second
	holdIntervals = 3
	lateIntervals = 2
	slotMemory    = 5 * time.Minute
)

// Message is one message of the event log.
type Message struct {
	Seq       uint64
	Time      time.Time
	Partition int
	Event     *eventv1.Event
}

// Key names what an alert is of.
type Key struct{ Rule, Endpoint string }

// Change is that an alert began or ended.
type Change struct {
	Key
	// Seq is the message that caused it.
	Seq uint64
	// Firing is true when it began.
	Firing bool
}

// String tells the change in a line.
func (c Change) String() string {
	what := "resolved"
	if c.Firing {
		what = "firing"
	}
	return fmt.Sprintf("%s of %s %s because of message %d", c.Rule, c.Endpoint, what, c.Seq)
}

// Model is the state after the messages applied so far.
type Model struct {
	partitions [event.Partitions]partition
}

// New returns the state before the first message.
func New() *Model { return &Model{} }

// Begin has the rules in force before the first message, as they are when a
// state is rebuilt from what is left of a log.
func (m *Model) Begin() {
	for i := range m.partitions {
		m.partitions[i].active = anyRules
	}
}

// anyRules stands for the hash of the rules in force where it is not known.
const anyRules = "any"

// Apply applies the next message and returns what it changed. Its error says
// that the log holds what the model does not know.
func (m *Model) Apply(msg Message) ([]Change, error) {
	p := &m.partitions[msg.Partition]
	p.seq, p.changes = msg.Seq, nil
	p.advance(msg.Time)
	err := p.apply(msg.Event)
	if err != nil {
		err = fmt.Errorf("message %d: %w", msg.Seq, err)
	}
	return p.changes, err
}

// Firing lists the alerts that fire.
func (m *Model) Firing() map[Key]bool {
	firing := map[Key]bool{}
	for i := range m.partitions {
		for _, t := range m.partitions[i].targets {
			for j, a := range t.alerts {
				if a.phase == fires {
					firing[Key{rules[j].name, t.id}] = true
				}
			}
		}
	}
	return firing
}

// partition is the state of one partition.
type partition struct {
	begun   bool
	stamp   time.Time
	now     time.Duration // engine time
	skipped int64         // milliseconds that the bus's time is ahead of it
	active  string        // hash of the rules in force
	targets []*target     // by token
	seq     uint64
	changes []Change
}

// ms is engine time as the fold reckons it, and bus the bus's time of one of its
// instants.
func (p *partition) ms() int64          { return p.now.Milliseconds() }
func (p *partition) bus(at int64) int64 { return at + p.skipped }

// advance moves time to a message's timestamp and lets happen what comes due.
// Where more time went by than one message moves, nothing waits in it.
func (p *partition) advance(to time.Time) {
	before := p.ms()
	var gone time.Duration
	if p.begun {
		gone = max(to.Sub(p.stamp), 0)
	}
	left := max(gone-maxStep, 0).Milliseconds()
	if left > 0 {
		p.everyAlert(func(t *target, i int) { p.stop(t, i, before) })
	}
	p.now += min(gone, maxStep)
	p.skipped += left
	p.begun, p.stamp = true, to
	p.comeDue(before)
	if left > 0 {
		p.everyAlert(func(t *target, i int) {
			if t.alerts[i].stopped {
				p.step(t, i, p.ms())
			}
		})
	}
}

func (p *partition) everyAlert(f func(*target, int)) {
	for _, t := range p.targets {
		for i := range t.alerts {
			f(t, i)
		}
	}
}

// comeDue lets happen what comes due after an instant, in its order.
func (p *partition) comeDue(before int64) {
	type due struct {
		at int64
		t  *target
		r  int
	}
	var all []due
	for _, t := range p.targets {
		for i, a := range t.alerts {
			if at := a.since + rules[i].wait; a.phase == pends && !a.stopped && at > before && at <= p.ms() {
				all = append(all, due{at, t, i})
			}
		}
	}
	slices.SortStableFunc(all, func(a, b due) int { return int(a.at - b.at) })
	for _, d := range all {
		p.step(d.t, d.r, d.at)
	}
}

func (p *partition) apply(e *eventv1.Event) error {
	switch f := e.GetFact().(type) {
	case *eventv1.Event_Tick, *eventv1.Event_CollectorStarted:
		return nil
	case *eventv1.Event_RuleSetActivated:
		before := p.active
		p.active = f.RuleSetActivated.GetHash()
		if before == p.active || before == anyRules {
			return nil
		}
		for _, t := range p.targets {
			p.judge(t)
		}
		return nil
	}
	if e.GetTarget().GetKind() == eventv1.TargetKind_TARGET_KIND_ACCOUNT {
		return nil // no rule is about it
	}
	t := p.target(e)
	switch f := e.GetFact().(type) {
	case *eventv1.Event_TargetDiscovered, *eventv1.Event_TargetChanged:
		p.judge(t)
	case *eventv1.Event_HealthSampled:
		p.sample(t, f.HealthSampled, e.GetHeld().AsDuration())
	case *eventv1.Event_PollFailed:
		if f.PollFailed.GetKind() != eventv1.PollKind_POLL_KIND_JOB &&
			(!t.seen || f.PollFailed.GetPollSlotMs() == 0 || f.PollFailed.GetPollSlotMs() > t.slot) {
			p.judge(t)
		}
	case *eventv1.Event_JobRegistered:
		if t.register(f.JobRegistered.GetJobId()) {
			p.judge(t)
		}
	case *eventv1.Event_JobTransitioned:
		if t.move(f.JobTransitioned) {
			p.judge(t)
		}
	default:
		return fmt.Errorf("the model knows nothing of %s", event.Kind(e))
	}
	return nil
}

// target finds the target of an event, which may be new.
func (p *partition) target(e *eventv1.Event) *target {
	token := event.Token(e.GetTarget())
	i, known := slices.BinarySearchFunc(p.targets, token, func(t *target, token string) int { return strings.Compare(t.token, token) })
	if !known {
		t := &target{token: token, id: e.GetTarget().GetId(), alerts: make([]alert, len(rules)), jobs: map[string]job{}}
		p.targets = slices.Insert(p.targets, i, t)
	}
	return p.targets[i]
}

// sample takes in a poll. One that is no newer is a repetition; one that was
// held for long is no news, only the latest value.
func (p *partition) sample(t *target, s *eventv1.HealthSampled, held time.Duration) {
	interval := s.GetInterval().AsDuration()
	late := held > lateIntervals*interval
	back := t.slot - s.GetPollSlotMs()
	if t.seen && back >= 0 && (late || back < slotMemory.Milliseconds()) {
		return
	}
	if t.seen && p.bus(p.ms()) > t.holds() {
		for i := range t.alerts {
			p.stop(t, i, p.ms())
		}
	}
	t.slot, t.interval = s.GetPollSlotMs(), interval.Milliseconds()
	at := p.bus(p.ms()) - held.Milliseconds()
	if !t.seen || at > t.sampled {
		t.sampled = at
	}
	t.seen, t.waiting = true, s.GetJobs().GetInQueue()
	if !late {
		p.judge(t)
	}
}

func (p *partition) judge(t *target) {
	for i := range rules {
		p.step(t, i, p.ms())
	}
}

// step takes one alert on at an instant.
func (p *partition) step(t *target, i int, at int64) {
	if p.active == "" {
		return
	}
	r, a := rules[i], &t.alerts[i]
	known := t.seen && p.bus(at) <= t.holds()
	holds := known && t.waiting > Above
	over := known && !holds
	if r.latches {
		over = known && t.waiting == 0
	}
	switch a.phase {
	case rests:
		if !holds {
			return
		}
		*a = alert{phase: pends, since: at}
		if r.wait == 0 {
			p.turn(t, i, fires, at)
		}
	case pends:
		switch {
		case !known:
			p.stop(t, i, at)
		case !holds:
			*a = alert{}
		default:
			if a.stopped {
				*a = alert{phase: pends, since: at - a.waited}
			}
			if at-a.since >= r.wait {
				p.turn(t, i, fires, at)
			}
		}
	case fires:
		if over {
			p.turn(t, i, rests, at)
		}
	}
}

// stop ends the wait of a pending alert for the time being: since its sample
// ceased to hold, if that was before the instant at.
func (p *partition) stop(t *target, i int, at int64) {
	a := &t.alerts[i]
	if a.phase != pends || a.stopped {
		return
	}
	if t.seen {
		at = min(at, t.holds()+1-p.skipped)
	}
	a.stopped, a.waited = true, max(at-a.since, 0)
}

// turn makes a change that people are told of.
func (p *partition) turn(t *target, i int, to phase, at int64) {
	t.alerts[i] = alert{phase: to, since: at}
	p.changes = append(p.changes, Change{Key: Key{rules[i].name, t.id}, Seq: p.seq, Firing: to == fires})
}
