package engine

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	alertv1 "github.com/tocsin-dev/tocsin/proto/gen/tocsin/alert/v1"
	"github.com/tocsin-dev/tocsin/services/alerter/rulefile"
)

const observed = "groups: [{name: g, rules: [{alert: A, on: endpoint, expr: jobs.in_queue > 5, mode: observe}, {alert: B, on: endpoint, expr: jobs.in_queue > 5, for: 1m}]}]"

var unobserved = strings.Replace(observed, ", mode: observe", "", 1)

// shown lists the alerts that there are, and which are only observed.
func shown(p *Partition) (all []string) {
	for a := range p.Alerts() {
		text := a.GetRule() + " " + strings.ToLower(strings.TrimPrefix(a.GetState().String(), "ALERT_STATE_"))
		if a.GetObserved() {
			text += " observed"
		}
		all = append(all, text)
	}
	return all
}

func (s *story) shows(want ...string) {
	s.t.Helper()
	got := map[string]bool{}
	for _, line := range shown(s.p) {
		got[line] = true
	}
	wanted := map[string]bool{}
	for _, line := range want {
		wanted[line] = true
	}
	if diff := cmp.Diff(wanted, got); diff != "" {
		s.t.Error(diff)
	}
}

func TestNobodyIsToldOfWhatIsObserved(t *testing.T) {
	s := newStory(t, compile(t, observed))
	r := s.queue(15*time.Second, "x", 9)
	s.want(r)
	s.shows("A firing observed", "B pending")
	changes := map[string]alertv1.AlertState{}
	for _, a := range r.Changes {
		changes[a.GetRule()] = a.GetState()
	}
	if changes["A"] != alertv1.AlertState_ALERT_STATE_FIRING {
		t.Errorf("those who watch are told %v", changes)
	}
	if lines := many(10, func() StepResult { return s.queue(15*time.Second, "x", 9) }); !cmp.Equal(lines, []string{"firing B"}) {
		t.Errorf("told %v", lines)
	}
	// A day on it would be renewed.
	for range 25 * 60 {
		for _, line := range told(s.queue(time.Minute, "x", 9)) {
			if line != "renewed B" {
				t.Errorf("told %s", line)
			}
		}
	}
	s.want(s.queue(15*time.Second, "x", 0), "resolved B")
	s.shows()
}

func TestWhatStillFiresIsToldWhenItIsNoLongerObserved(t *testing.T) {
	a, b := compile(t, observed), compile(t, unobserved)
	s := newStory(t, a, b)
	s.queue(15*time.Second, "x", 9)
	s.queue(0, "y", 9)
	began := s.at
	s.p = viaSnapshot(t, s.p, 1)
	s.want(s.queue(15*time.Second, "y", 0))
	r := s.send(0, activated(b.Hash()))
	s.want(r, "firing A")
	if got := r.Transitions[0].GetAlert(); got.GetTarget().GetId() != "x" || !got.GetFiredAt().AsTime().Equal(began) || got.GetObserved() {
		t.Errorf("told of %v", got)
	}
	s.shows("A firing", "B pending")
	s.want(s.queue(15*time.Second, "x", 0), "resolved A")
}

func TestWhatWasToldIsOverWhenItIsOnlyObserved(t *testing.T) {
	a, b := compile(t, unobserved), compile(t, observed)
	s := newStory(t, a, b)
	r := s.queue(15*time.Second, "x", 9)
	s.want(r, "firing A")
	id := r.Transitions[0].GetAlert().GetId()
	r = s.send(0, activated(b.Hash()))
	s.want(r, "resolved A: only observed now")
	if got := r.Transitions[0].GetAlert(); got.GetId() != id || got.GetState() != alertv1.AlertState_ALERT_STATE_RESOLVED || got.GetObserved() {
		t.Errorf("told of %v", got)
	}
	s.shows("A firing observed", "B pending")
	s.want(s.send(0, activated(a.Hash())), "firing A")
	s.want(s.send(0, activated(b.Hash())), "resolved A: only observed now")
	s.want(s.queue(15*time.Second, "x", 0))
}

func TestAllRulesCanBeObserved(t *testing.T) {
	normal := compile(t, unobserved)
	all, err := Compile(normal.Set().WithMode(rulefile.ModeObserve))
	if err != nil {
		t.Fatal(err)
	}
	s := newStory(t, all, normal)
	if lines := many(10, func() StepResult { return s.queue(15*time.Second, "x", 9) }); len(lines) > 0 {
		t.Errorf("told %v", lines)
	}
	s.shows("A firing observed", "B firing observed")
	s.want(s.send(0, activated(normal.Hash())), "firing A", "firing B")
}

// TestARebuildTellsNothingOfWhatIsObserved: and that is over what the notifier knows.
func TestARebuildTellsNothingOfWhatIsObserved(t *testing.T) {
	s := newStory(t, compile(t, observed))
	s.queue(15*time.Second, "x", 9)
	var known []*alertv1.Alert
	for a := range s.p.Alerts() {
		if a.GetRule() == "A" {
			known = append(known, a)
		}
	}
	if told := s.p.Reconcile(nil, s.at); len(told) > 0 {
		t.Errorf("a notifier that knows nothing is told %v", told)
	}
	again := s.p.Reconcile(known, s.at)
	if len(again) != 1 || again[0].GetKind() != alertv1.TransitionKind_TRANSITION_KIND_RESOLVED {
		t.Errorf("one that knows it is told %v, want its end", again)
	}
}
