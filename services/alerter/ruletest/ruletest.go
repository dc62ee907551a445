// Package ruletest tries rules in memory: it says what happens to endpoints,
// pods and accounts on a clock of its own, through the very fold that runs in
// the alerter, and tells which alerts came of it. It reads no clock and opens
// nothing, so twelve hours take milliseconds and come out the same each time.
//
//	h := ruletest.New(t, set)
//	h.Discover(ruletest.Endpoint("img-prod"), ruletest.QueueSpec(3))
//	h.Health("img-prod", ruletest.Sample{InQueue: 12, Unhealthy: 2})
//	h.Advance(5 * time.Minute)
//	h.WantFiring("CrashLoop")
package ruletest

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/tocsin-dev/tocsin/internal/event"
	alertv1 "github.com/tocsin-dev/tocsin/proto/gen/tocsin/alert/v1"
	eventv1 "github.com/tocsin-dev/tocsin/proto/gen/tocsin/event/v1"
	"github.com/tocsin-dev/tocsin/services/alerter/internal/engine"
	"github.com/tocsin-dev/tocsin/services/alerter/rulefile"
)

// The intervals at which Advance repeats samples, which are the collector's
// defaults, and the distance of its ticks.
const (
	// HealthInterval is how often endpoints are polled.
	HealthInterval = 15 * time.Second
	// PodInterval is how often pods are polled.
	PodInterval = 30 * time.Second
	// AccountInterval is how often an account's polls are summed up.
	AccountInterval = 15 * time.Second
	// TickInterval is how often time passes without anything else.
	TickInterval = 5 * time.Second
)

// Account is the account of all targets.
const Account = "default"

// Harness is a partition of the alerter with a clock of its own. All targets
// are in it, whatever their names.
type Harness struct {
	t           testing.TB
	partition   *engine.Partition
	program     *engine.Program
	seq         uint64
	now         time.Time
	repeated    map[string]*repeated
	transitions []*alertv1.Transition
}

// repeated is a sample that Advance sends again at its interval.
type repeated struct {
	event    *eventv1.Event
	interval time.Duration
	next     time.Time
}

// New returns a harness with the rules of a set in force and a collector that
// has just started. It ends the test if the set does not compile.
func New(t testing.TB, set *rulefile.Set) *Harness {
	t.Helper()
	program, err := engine.Compile(set)
	if err != nil {
		t.Fatalf("compile the rules:\n%v", err)
	}
	h := &Harness{
		t: t, program: program, partition: engine.NewPartition(0, "ruletest", 1),
		now: time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC), repeated: map[string]*repeated{},
	}
	h.Send(&eventv1.Event{Fact: &eventv1.Event_RuleSetActivated{RuleSetActivated: &eventv1.RuleSetActivated{Hash: set.Hash}}})
	h.Send(&eventv1.Event{Fact: &eventv1.Event_CollectorStarted{CollectorStarted: &eventv1.CollectorStarted{}}})
	return h
}

// Parse reads rules from one text and ends the test if they are wrong.
func Parse(t testing.TB, rules string, targets ...rulefile.TargetPattern) *rulefile.Set {
	t.Helper()
	set, err := rulefile.Parse(map[string][]byte{"rules.yaml": []byte(rules)}, targets)
	if err != nil {
		t.Fatalf("parse the rules:\n%v", err)
	}
	return set
}

// Now returns the harness's clock.
func (h *Harness) Now() time.Time { return h.now }

// Send applies one event now. It ends the test if a rule fails or the event
// cannot be used.
func (h *Harness) Send(e *eventv1.Event) {
	h.t.Helper()
	h.seq++
	result, err := h.partition.Step(engine.Message{Seq: h.seq, Time: h.now, Event: e}, func(hash string) *engine.Program {
		if hash == h.program.Hash() {
			return h.program
		}
		return nil
	})
	if err != nil {
		h.t.Fatalf("at %s: %v", h.clock(), err)
	}
	for _, p := range result.Problems {
		h.t.Fatalf("at %s: %s: rule %q, target %q: %s", h.clock(), p.Kind, p.Rule, p.Target, p.Detail)
	}
	h.transitions = append(h.transitions, result.Transitions...)
}

// Repeat applies a sample now, and Advance goes on applying it at an interval,
// until another is sent for the same target or it is stopped. The event's slot
// and interval are filled in.
func (h *Harness) Repeat(e *eventv1.Event, interval time.Duration) {
	h.t.Helper()
	r := &repeated{event: e, interval: interval, next: h.now.Add(interval)}
	h.repeated[event.Token(e.GetTarget())] = r
	h.Send(h.fresh(r))
}

// Stop ends the repetition of a target's samples: it falls silent.
func (h *Harness) Stop(target *eventv1.Target) { delete(h.repeated, event.Token(target)) }

// StopAll ends all repetitions: nobody polls any more.
func (h *Harness) StopAll() { clear(h.repeated) }

// Advance lets time pass: the last samples are repeated at their intervals, and
// ticks come in between.
func (h *Harness) Advance(d time.Duration) {
	h.t.Helper()
	end := h.now.Add(d)
	for h.now.Before(end) {
		next := h.now.Add(TickInterval)
		if end.Before(next) {
			next = end
		}
		for _, r := range h.repeated {
			if r.next.Before(next) {
				next = r.next
			}
		}
		h.now = next
		due := h.due()
		for _, token := range due {
			r := h.repeated[token]
			r.next = h.now.Add(r.interval)
			h.Send(h.fresh(r))
		}
		if len(due) == 0 {
			h.Send(&eventv1.Event{Fact: &eventv1.Event_Tick{Tick: &eventv1.Tick{}}})
		}
	}
}

// Sleep lets time pass in which nothing is published, as when everything is
// stopped. What is repeated goes on after it, so whoever means the collector to
// sleep too stops that before, and sends CollectorStarted after.
func (h *Harness) Sleep(d time.Duration) {
	h.now = h.now.Add(d)
	for _, r := range h.repeated {
		if r.next.Before(h.now) {
			r.next = h.now
		}
	}
}

// due lists the targets whose samples are to be repeated now, by token.
func (h *Harness) due() []string {
	var tokens []string
	for token, r := range h.repeated {
		if !r.next.After(h.now) {
			tokens = append(tokens, token)
		}
	}
	slices.Sort(tokens)
	return tokens
}

// fresh returns a copy of a repeated sample with its slot and interval.
func (h *Harness) fresh(r *repeated) *eventv1.Event {
	e := proto.CloneOf(r.event)
	slot, interval := h.now.UnixMilli(), durationpb.New(r.interval)
	switch f := e.GetFact().(type) {
	case *eventv1.Event_HealthSampled:
		f.HealthSampled.PollSlotMs, f.HealthSampled.Interval = slot, interval
	case *eventv1.Event_GpuSampled:
		f.GpuSampled.PollSlotMs, f.GpuSampled.Interval = slot, interval
	case *eventv1.Event_AccountPolled:
		f.AccountPolled.PollSlotMs, f.AccountPolled.Interval = slot, interval
	case *eventv1.Event_PollFailed:
		f.PollFailed.PollSlotMs = slot
	}
	return e
}

// Firing lists the alerts that fire now, sorted by name and labels.
func (h *Harness) Firing() []*alertv1.Alert { return h.alerts(alertv1.AlertState_ALERT_STATE_FIRING) }

// Pending lists the alerts that are pending now, sorted by name and labels.
func (h *Harness) Pending() []*alertv1.Alert { return h.alerts(alertv1.AlertState_ALERT_STATE_PENDING) }

func (h *Harness) alerts(state alertv1.AlertState) []*alertv1.Alert {
	var all []*alertv1.Alert
	for a := range h.partition.Alerts() {
		if a.GetState() == state {
			all = append(all, a)
		}
	}
	slices.SortFunc(all, func(a, b *alertv1.Alert) int { return strings.Compare(identity(a), identity(b)) })
	return all
}

func identity(a *alertv1.Alert) string { return fmt.Sprint(a.GetRule(), " ", a.GetLabels()) }

// Transitions lists all that people may have been told of since the beginning,
// or since the last Forget.
func (h *Harness) Transitions() []*alertv1.Transition { return h.transitions }

// Forget empties what Transitions lists.
func (h *Harness) Forget() { h.transitions = nil }

// WantFiring fails the test unless exactly the alerts of these names fire, each
// name as often as given, in any order.
func (h *Harness) WantFiring(names ...string) {
	h.t.Helper()
	h.want("firing", h.Firing(), names)
}

// WantPending is WantFiring for pending alerts.
func (h *Harness) WantPending(names ...string) {
	h.t.Helper()
	h.want("pending", h.Pending(), names)
}

func (h *Harness) want(state string, alerts []*alertv1.Alert, names []string) {
	h.t.Helper()
	got := make([]string, 0, len(alerts))
	for _, a := range alerts {
		got = append(got, a.GetRule())
	}
	want := append([]string{}, names...)
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		h.t.Errorf("at %s %s: %v, want %v", h.clock(), state, got, want)
	}
}

// clock is the time since the beginning, for messages.
func (h *Harness) clock() string {
	return h.now.Sub(time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)).String()
}
