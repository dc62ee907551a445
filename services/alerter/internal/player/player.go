// Package player plays events to a partition of the alerter at instants of its
// own: the fold that runs in the alerter, without a log, a clock or a store. Kits
// for testing rules are made of it.
package player

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/tocsin-dev/tocsin/internal/event"
	alertv1 "github.com/tocsin-dev/tocsin/proto/gen/tocsin/alert/v1"
	eventv1 "github.com/tocsin-dev/tocsin/proto/gen/tocsin/event/v1"
	"github.com/tocsin-dev/tocsin/services/alerter/internal/engine"
)

// Beginning is when the clocks of players begin.
var Beginning = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

// Player is a partition of the alerter that plays what it is given, at the
// instants that it is told. All targets are in it, whatever their names.
type Player struct {
	partition   *engine.Partition
	program     *engine.Program
	seq         uint64
	now         time.Time
	transitions []*alertv1.Transition
}

// New returns a player with the rules of a program in force and a collector that
// has just started.
func New(program *engine.Program) (*Player, error) {
	p := &Player{program: program, partition: engine.NewPartition(0, "player", 1), now: Beginning}
	err := errors.Join(
		p.Play(&eventv1.Event{Fact: &eventv1.Event_RuleSetActivated{RuleSetActivated: &eventv1.RuleSetActivated{Hash: program.Hash()}}}),
		p.Play(&eventv1.Event{Fact: &eventv1.Event_CollectorStarted{CollectorStarted: &eventv1.CollectorStarted{}}}),
	)
	if err != nil {
		return nil, fmt.Errorf("bring the rules into force: %w", err)
	}
	return p, nil
}

// Now returns the player's clock, which begins on the first of January 2026.
func (p *Player) Now() time.Time { return p.now }

// Elapsed returns how far the clock is from its beginning.
func (p *Player) Elapsed() time.Duration { return p.now.Sub(Beginning) }

// Wait moves the clock without playing anything.
func (p *Player) Wait(d time.Duration) { p.now = p.now.Add(d) }

// Play applies one event now. Its error says that a rule failed or that the
// event cannot be used.
func (p *Player) Play(e *eventv1.Event) error {
	p.seq++
	result, err := p.partition.Step(engine.Message{Seq: p.seq, Time: p.now, Event: e}, func(hash string) *engine.Program {
		if hash == p.program.Hash() {
			return p.program
		}
		return nil
	})
	if err != nil {
		return err
	}
	p.transitions = append(p.transitions, result.Transitions...)
	var errs []error
	for _, problem := range result.Problems {
		errs = append(errs, fmt.Errorf("%s: rule %q, target %q: %s", problem.Kind, problem.Rule, problem.Target, problem.Detail))
	}
	return errors.Join(errs...)
}

// Tick lets the partition notice the time.
func (p *Player) Tick() error {
	return p.Play(&eventv1.Event{Fact: &eventv1.Event_Tick{Tick: &eventv1.Tick{}}})
}

// Firing lists the alerts that fire now, sorted by name and labels.
func (p *Player) Firing() []*alertv1.Alert { return p.alerts(alertv1.AlertState_ALERT_STATE_FIRING) }

// Pending lists the alerts that are pending now, sorted by name and labels.
func (p *Player) Pending() []*alertv1.Alert { return p.alerts(alertv1.AlertState_ALERT_STATE_PENDING) }

func (p *Player) alerts(state alertv1.AlertState) []*alertv1.Alert {
	var all []*alertv1.Alert
	for a := range p.partition.Alerts() {
		if a.GetState() == state {
			all = append(all, a)
		}
	}
	slices.SortFunc(all, func(a, b *alertv1.Alert) int { return strings.Compare(identity(a), identity(b)) })
	return all
}

func identity(a *alertv1.Alert) string { return fmt.Sprint(a.GetRule(), " ", a.GetLabels()) }

// Diagnose says what is probably wrong with a target now; nil if it is not known.
func (p *Player) Diagnose(target *eventv1.Target) *alertv1.Diagnosis {
	return p.partition.Diagnose(event.Token(target))
}

// Transitions lists all that people may have been told of since the beginning,
// or since the last Forget.
func (p *Player) Transitions() []*alertv1.Transition { return p.transitions }

// Forget empties what Transitions lists.
func (p *Player) Forget() { p.transitions = nil }
