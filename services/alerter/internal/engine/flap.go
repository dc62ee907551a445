package engine

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/prometheus/common/model"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	alertv1 "github.com/tocsin-dev/tocsin/proto/gen/tocsin/alert/v1"
	statev1 "github.com/tocsin-dev/tocsin/proto/gen/tocsin/state/v1"
	"github.com/tocsin-dev/tocsin/services/alerter/internal/rule"
	"github.com/tocsin-dev/tocsin/services/alerter/rulefile"
)

// An alert that fires and resolves too often is told once more, as one that flaps,
// and then held: to those who were told it fires until it has not changed for a
// window. Then the notice is over, and what fires is told as a new alert. A notice
// is an alert like any other, of the same labels, so that whatever routes, silences
// and inhibits does so with it.

// reasonCalm is why the notice of an alert that flapped is over.
const reasonCalm = "no longer flapping"

// restless are the instants at which a rule's alert on a target fired or resolved
// lately; also while there is none.
type restless struct {
	rule     *compiled
	key      string // of the rule, by which it is found after a load
	category string
	changes  []int64
}

// hold is what is kept of an alert while it flaps, besides what is told of it.
type hold struct {
	calm rule.Calm
	// renew is when the notice is to be sent again.
	renew int64
	// active and fired are when its condition last began to hold, and to fire, for
	// people.
	active, fired *timestamppb.Timestamp
}

// fires says that people are told that an alert fires.
func (a *alert) fires() bool { return a.hold != nil || a.state.Phase == rule.Firing }

// due returns when the passing of time alone may change an alert.
func (a *alert) due(after int64) (int64, bool) {
	due, ok := a.state.Due(after, a.rule.timing)
	if a.hold == nil {
		return due, ok
	}
	calm, known := a.hold.calm.Due(a.rule.flapping)
	for _, d := range []struct {
		at int64
		ok bool
	}{{calm, known}, {a.hold.renew, true}} {
		if d.ok && d.at > after && (!ok || d.at < due) {
			due, ok = d.at, true
		}
	}
	return due, ok
}

// restlessOf finds the changes of a rule's alert, and the position at which they
// stand or would stand.
func (t *target) restlessOf(c *compiled, category string) (*restless, int) {
	for i, r := range t.restless {
		switch {
		case r.rule == c && r.category == category:
			return r, i
		case r.rule.order > c.order, r.rule == c && r.category > category:
			return nil, i
		}
	}
	return nil, len(t.restless)
}

// changed counts that an alert fired or resolved, and says whether that is too
// often.
func (p *Partition) changed(a *alert, at int64) bool {
	f := a.rule.flapping
	if !f.Set() {
		return false
	}
	r, i := a.target.restlessOf(a.rule, a.category)
	if r == nil {
		r = &restless{rule: a.rule, key: a.key, category: a.category}
		a.target.restless = slices.Insert(a.target.restless, i, r)
	}
	r.changes = f.Changed(r.changes, at)
	p.touch(a.target)
	return f.Flaps(r.changes)
}

// rest forgets the changes of a rule's alert that are not counted any more.
func (p *Partition) rest(t *target, c *compiled, category string, at int64) {
	r, i := t.restlessOf(c, category)
	if r == nil {
		return
	}
	recent := c.flapping.Recent(r.changes, at)
	if len(recent) == len(r.changes) {
		return
	}
	if r.changes = recent; len(recent) == 0 {
		t.restless = slices.Delete(t.restless, i, i+1)
	}
	p.touch(t)
}

// rebindRestless gives what a target's alerts did its rule in the present set.
func (p *Partition) rebindRestless(t *target) {
	t.restless = slices.DeleteFunc(t.restless, func(r *restless) bool {
		r.rule = p.program.byKey[r.key]
		return r.rule == nil || !r.rule.flapping.Set()
	})
	slices.SortStableFunc(t.restless, func(a, b *restless) int {
		return cmp.Or(cmp.Compare(a.rule.order, b.rule.order), strings.Compare(a.category, b.category))
	})
}

// flap holds an alert that begins to fire once too often.
func (p *Partition) flap(a *alert, at int64) {
	a.hold = &hold{
		calm: rule.Calm{Since: at}, renew: at + rule.RenewEvery.Milliseconds(),
		active: a.told.GetActiveAt(), fired: p.firedAt(at),
	}
	a.told.Flapping = true
}

// moveHeld takes in what became of an alert that flaps. Only its calm is told.
func (p *Partition) moveHeld(a *alert, before rule.State, v verdict, change rule.Change, at int64) {
	h := *a.hold
	switch {
	case change == rule.Fires || change == rule.Resolved:
		p.changed(a, at)
		h.calm = rule.Calm{Since: at}
	case v.cond == rule.Unknown:
		h.calm = h.calm.Freeze(p.missing(a.target, a.rule, at))
	default:
		h.calm = h.calm.Thaw(at)
	}
	if change == rule.Began || change == rule.Fires && a.rule.timing.For == 0 {
		h.active = timestamppb.New(p.shown(at))
	}
	if change == rule.Fires {
		h.fired = p.firedAt(at)
	}
	if h != *a.hold || a.state != before {
		*a.hold = h
		p.touchAlert(a)
	}
	switch {
	case h.calm.Over(at, a.rule.flapping):
		p.release(a, at)
		return
	case at >= h.renew:
		a.hold.renew += rule.RenewEvery.Milliseconds()
		p.tell(a)
		p.transition(a, alertv1.TransitionKind_TRANSITION_KIND_RENEWED, at)
	}
	p.schedule(a.timer, at)
}

// release ends the notice of an alert that is calm and tells of it what is so. The
// cache must hold the values that it was judged by.
func (p *Partition) release(a *alert, at int64) {
	h := a.hold
	a.hold = nil
	if a.state.Phase == rule.Inactive {
		a.told.Evidence = p.closing(a, at)
		a.told.ResolveReason = reasonCalm
		p.over(a, at, true)
		return
	}
	notice := proto.CloneOf(a.told)
	a.told.State, a.told.ResolveReason = alertv1.AlertState_ALERT_STATE_RESOLVED, reasonCalm
	p.resolvedAt(a, at)
	p.tell(a)
	p.transition(a, alertv1.TransitionKind_TRANSITION_KIND_RESOLVED, at)

	delete(p.byID, notice.GetId())
	a.worst = nil // of the notice: what was worst since its condition last began is not known apart
	p.worsen(a, at)
	a.told = &alertv1.Alert{
		Id:          p.hash128(notice.GetGroup(), notice.GetRule(), notice.GetFingerprint(), p.step.changes),
		Fingerprint: notice.GetFingerprint(), Group: notice.GetGroup(), Rule: notice.GetRule(), Target: notice.GetTarget(),
		Labels: notice.GetLabels(), ActiveAt: h.active, Observed: notice.GetObserved(),
		State: alertv1.AlertState_ALERT_STATE_PENDING, Evidence: p.values(a),
	}
	p.byID[a.told.GetId()] = a
	if a.state.Phase == rule.Firing {
		a.told.State, a.told.FiredAt = alertv1.AlertState_ALERT_STATE_FIRING, h.fired
		p.explain(a, at)
		p.tell(a)
		p.transition(a, alertv1.TransitionKind_TRANSITION_KIND_FIRING, at)
	} else {
		p.tell(a)
	}
	p.schedule(a.timer, at)
}

// flapTexts says in an alert's texts that it flaps.
func (a *alert) flapTexts(texts map[string]string) {
	if a.hold == nil {
		return
	}
	f := a.rule.rule.Flapping
	texts["flapping"] = fmt.Sprintf("fired and resolved %d times within %s; nothing more is told until it was calm for as long", f.Transitions, model.Duration(f.Window))
	texts["summary"] = strings.TrimSuffix("flapping: "+texts["summary"], ": ")
}

func (r *restless) encode() *statev1.Restless {
	return &statev1.Restless{RuleKey: r.key, Category: r.category, ChangesMs: r.changes}
}

func decodeRestless(s *statev1.Restless) *restless {
	return &restless{key: s.GetRuleKey(), category: s.GetCategory(), changes: s.GetChangesMs()}
}

func (h *hold) encode(idle bool) *statev1.Hold {
	if h == nil {
		return nil
	}
	s := &statev1.Hold{CalmMs: h.calm.Since, RenewMs: h.renew, ActiveAt: h.active, FiredAt: h.fired, Idle: idle}
	if h.calm.Frozen {
		s.HeldMs = &h.calm.Held
	}
	return s
}

func decodeHold(s *statev1.Hold) *hold {
	if s == nil {
		return nil
	}
	return &hold{
		calm:  rule.Calm{Since: s.GetCalmMs(), Frozen: s.HeldMs != nil, Held: s.GetHeldMs()},
		renew: s.GetRenewMs(), active: s.GetActiveAt(), fired: s.GetFiredAt(),
	}
}

// flappingOf turns what a rule says into the clock's milliseconds.
func flappingOf(f rulefile.Flapping) rule.Flapping {
	return rule.Flapping{Window: f.Window.Milliseconds(), Transitions: f.Transitions}
}
