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
	"slices"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/tocsin-dev/tocsin/internal/event"
	alertv1 "github.com/tocsin-dev/tocsin/proto/gen/tocsin/alert/v1"
	eventv1 "github.com/tocsin-dev/tocsin/proto/gen/tocsin/event/v1"
	"github.com/tocsin-dev/tocsin/services/alerter/internal/engine"
	"github.com/tocsin-dev/tocsin/services/alerter/internal/player"
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
	t testing.TB
	*player.Player
	repeated map[string]*repeated
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
	p, err := player.New(program)
	if err != nil {
		t.Fatal(err)
	}
	h := &Harness{t: t, Player: p, repeated: map[string]*repeated{}}
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

// Send applies one event now. It ends the test if a rule fails or the event
// cannot be used.
func (h *Harness) Send(e *eventv1.Event) {
	h.t.Helper()
	if err := h.Play(e); err != nil {
		h.t.Fatalf("at %s: %v", h.clock(), err)
	}
}

// Repeat applies a sample now, and Advance goes on applying it at an interval,
// until another is sent for the same target or it is stopped. The event's slot
// and interval are filled in.
func (h *Harness) Repeat(e *eventv1.Event, interval time.Duration) {
	h.t.Helper()
	r := &repeated{event: e, interval: interval, next: h.Now().Add(interval)}
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
	end := h.Now().Add(d)
	for h.Now().Before(end) {
		next := h.Now().Add(TickInterval)
		if end.Before(next) {
			next = end
		}
		for _, r := range h.repeated {
			if r.next.Before(next) {
				next = r.next
			}
		}
		h.Wait(next.Sub(h.Now()))
		due := h.due()
		for _, token := range due {
			r := h.repeated[token]
			r.next = h.Now().Add(r.interval)
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
	h.Wait(d)
	for _, r := range h.repeated {
		if r.next.Before(h.Now()) {
			r.next = h.Now()
		}
	}
}

// due lists the targets whose samples are to be repeated now, by token.
func (h *Harness) due() []string {
	var tokens []string
	for token, r := range h.repeated {
		if !r.next.After(h.Now()) {
			tokens = append(tokens, token)
		}
	}
	slices.Sort(tokens)
	return tokens
}

// fresh returns a copy of a repeated sample with its slot and interval.
func (h *Harness) fresh(r *repeated) *eventv1.Event {
	e := proto.CloneOf(r.event)
	slot, interval := h.Now().UnixMilli(), durationpb.New(r.interval)
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
func (h *Harness) clock() string { return h.Elapsed().String() }
