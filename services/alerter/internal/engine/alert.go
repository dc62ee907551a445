package engine

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"maps"
	"slices"

	"github.com/prometheus/common/model"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	alertv1 "github.com/tocsin-dev/tocsin/proto/gen/tocsin/alert/v1"
	eventv1 "github.com/tocsin-dev/tocsin/proto/gen/tocsin/event/v1"
	"github.com/tocsin-dev/tocsin/services/alerter/internal/expr"
	"github.com/tocsin-dev/tocsin/services/alerter/internal/rule"
	"github.com/tocsin-dev/tocsin/services/alerter/rulefile"
)

// The reasons for which an alert resolves other than by its condition.
const (
	reasonTargetRemoved = "target removed"
	reasonRuleRemoved   = "rule removed"
	reasonRuleChanged   = "rule changed"
	reasonRebuilt       = "state rebuilt"
)

// begin makes an alert whose condition begins to hold.
func (p *Partition) begin(t *target, c *compiled, cat *failures, v verdict, at int64) {
	category := ""
	if cat != nil {
		category = cat.category
	}
	labels := c.labels(t, category)
	fingerprint := fingerprintOf(labels)
	if other := p.byFingerprint[fingerprint]; other != nil {
		p.problem(DuplicateAlert, c.key, t.token, "the rule %s has an alert with the same labels", other.rule.key)
		return
	}
	if p.perRule[c.key] >= maxAlerts {
		p.problem(TooManyAlerts, c.key, t.token, "the rule has %d alerts in the partition already", p.perRule[c.key])
		return
	}
	a := &alert{rule: c, key: c.key, category: category, target: t, timer: newTimer(t, c, category)}
	a.told = &alertv1.Alert{
		Id:          p.hash128(c.rule.Group, c.rule.Alert, fingerprint, p.step.changes),
		Fingerprint: fingerprint, Group: c.rule.Group, Rule: c.rule.Alert, Target: proto.CloneOf(t.target),
		Labels: labels, ActiveAt: timestamppb.New(p.shown(at)), Observed: c.observed,
	}
	_, i := t.alert(c, category)
	t.alerts = slices.Insert(t.alerts, i, a)
	p.byID[a.told.GetId()], p.byFingerprint[fingerprint] = a, a
	p.perRule[c.key]++
	p.move(a, v, at)
}

// move takes an alert one step on and tells what came of it.
func (p *Partition) move(a *alert, v verdict, at int64) {
	p.lacks(a, v.lack)
	p.worsen(a, at)
	before := a.state
	next, change := a.state.Step(at, rule.Verdict{Cond: v.cond, Until: v.until, Since: p.missing(a.target, a.rule, at)}, a.rule.timing)
	a.state = next
	if a.hold != nil {
		p.moveHeld(a, before, v, change, at)
		return
	}
	switch change {
	case rule.None:
		if next != before {
			p.touchAlert(a)
		}
	case rule.Began:
		a.told.State = alertv1.AlertState_ALERT_STATE_PENDING
		a.told.Evidence = p.values(a)
		p.tell(a)
	case rule.Fires:
		a.told.State = alertv1.AlertState_ALERT_STATE_FIRING
		a.told.FiredAt = p.firedAt(at)
		if p.changed(a, at) {
			p.flap(a, at)
		}
		p.explain(a, at)
		p.tell(a)
		p.transition(a, alertv1.TransitionKind_TRANSITION_KIND_FIRING, at)
	case rule.Renewed:
		p.tell(a)
		p.transition(a, alertv1.TransitionKind_TRANSITION_KIND_RENEWED, at)
	case rule.Vanished, rule.Resolved:
		if change == rule.Resolved {
			p.changed(a, at)
			// The texts stay: they tell of the problem that is over, and would
			// contradict themselves with the values of its end.
			a.told.Evidence = p.closing(a, at)
			if v.decided {
				a.told.ResolveReason = withoutData(v.lack)
			}
		}
		p.over(a, at, change == rule.Resolved)
		return
	}
	p.schedule(a.timer, at)
}

// end resolves an alert for a reason other than its condition.
func (p *Partition) end(a *alert, at int64, reason string) {
	a.told.ResolveReason = reason
	p.over(a, at, a.fires())
}

// over takes an alert out of the state and tells that it resolved; people are
// told only of what fired.
func (p *Partition) over(a *alert, at int64, fired bool) {
	a.told.State = alertv1.AlertState_ALERT_STATE_RESOLVED
	p.resolvedAt(a, at)
	t := a.target
	t.alerts = slices.DeleteFunc(t.alerts, func(x *alert) bool { return x == a })
	delete(p.byID, a.told.GetId())
	delete(p.byFingerprint, a.told.GetFingerprint())
	if p.perRule[a.key]--; p.perRule[a.key] == 0 {
		delete(p.perRule, a.key)
	}
	a.timer.done = true
	p.schedule(a.timer, at)
	p.tell(a)
	if fired {
		p.transition(a, alertv1.TransitionKind_TRANSITION_KIND_RESOLVED, at)
	}
}

// resolvedAt notes when an alert is over, which is never before it fired.
func (p *Partition) resolvedAt(a *alert, at int64) {
	a.told.ResolvedAt = timestamppb.New(p.shown(at))
	if fired := a.told.GetFiredAt(); fired != nil && fired.AsTime().After(a.told.GetResolvedAt().AsTime()) {
		a.told.ResolvedAt = proto.CloneOf(fired)
	}
	lasted(a.told)
}

// touchAlert notes that an alert's record must be written.
func (p *Partition) touchAlert(a *alert) { p.dirty.alerts[a.told.GetId()] = struct{}{} }

// tell notes a change of an alert.
func (p *Partition) tell(a *alert) {
	p.touchAlert(a)
	p.touch(a.target)
	p.step.Changes = append(p.step.Changes, proto.CloneOf(a.told))
	p.step.changes++
}

// transition notes a change that people may be told of.
func (p *Partition) transition(a *alert, kind alertv1.TransitionKind, at int64) {
	if a.told.GetObserved() {
		return
	}
	n := len(p.step.Transitions)
	p.step.Transitions = append(p.step.Transitions, &alertv1.Transition{
		Id:   p.hash128(a.told.GetGroup(), a.told.GetRule(), a.told.GetFingerprint()+kind.String(), n),
		Kind: kind,
		Cause: &alertv1.Cause{
			LogId: p.logID, Sequence: p.step.message.Seq, Index: uint32(n), StoredAt: timestamppb.New(p.step.message.Time),
		},
		At:    timestamppb.New(p.shown(at)),
		Alert: proto.CloneOf(a.told),
	})
}

// hash128 names what happened to something at a place in the log: 32
// hexadecimal digits, the same in every replay.
func (p *Partition) hash128(group, name, what string, n int) string {
	h := sha256.New()
	for _, s := range []string{group, name, what, p.logID} {
		h.Write([]byte(s))
		h.Write([]byte{0})
	}
	var place [16]byte
	binary.BigEndian.PutUint64(place[:8], p.step.message.Seq)
	binary.BigEndian.PutUint64(place[8:], uint64(n))
	h.Write(place[:])
	return hex.EncodeToString(h.Sum(nil)[:16])
}

// labels returns the identity of a rule's alert on a target. The target's own
// labels cannot be overridden by a rule, nor Tocsin's by either.
func (c *compiled) labels(t *target, category string) map[string]string {
	labels := make(map[string]string, len(c.rule.Labels)+len(t.labels)+4)
	maps.Copy(labels, c.rule.Labels)
	maps.Copy(labels, t.labels)
	labels["alertname"], labels["account"] = c.rule.Alert, t.target.GetAccount()
	switch t.target.GetKind() {
	case eventv1.TargetKind_TARGET_KIND_ENDPOINT:
		labels["endpoint_id"] = t.target.GetId()
	case eventv1.TargetKind_TARGET_KIND_POD:
		labels["pod_id"] = t.target.GetId()
	}
	if category != "" {
		labels["category"] = category
	}
	return labels
}

// fingerprintOf computes a label set's fingerprint as Prometheus does.
func fingerprintOf(labels map[string]string) string {
	set := make(model.LabelSet, len(labels))
	for k, v := range labels {
		set[model.LabelName(k)] = model.LabelValue(v)
	}
	return set.Fingerprint().String()
}

// explain gives an alert its evidence and its texts.
func (p *Partition) explain(a *alert, at int64) {
	a.told.Evidence = p.evidence(a, at)
	a.told.Evidence.Diagnosis = p.diagnose(a.target, a.category, at)
	a.told.Annotations = p.annotations(a, at)
	a.told.Target = proto.CloneOf(a.target.target)
}

// annotations renders the texts of an alert.
func (p *Partition) annotations(a *alert, at int64) map[string]string {
	about := p.about(a.target, a.target.category(a.category), at)
	data := rulefile.TemplateData{
		Labels: a.told.GetLabels(), Name: a.target.target.GetName(), First: rulefile.NoValue, Parts: map[string]any{},
		Field: func(name string) (any, bool) {
			id, ok := expr.FieldByName(name)
			return about.field(id).Any(), ok && slices.Contains(expr.FieldOf(id).On, a.rule.group.on)
		},
	}
	if about.cat != nil {
		data.Message = about.cat.message
	}
	if data.Name == "" {
		data.Name = a.target.target.GetId()
	}
	for _, v := range a.told.GetEvidence().GetValues() {
		data.Parts[v.GetName()] = v.GetValue()
		if v.Number != nil {
			data.Parts[v.GetName()] = v.GetNumber()
			if data.First == rulefile.NoValue {
				data.First = v.GetNumber()
			}
		}
	}
	texts := map[string]string{"target_name": data.Name}
	for _, an := range a.rule.annotations {
		text, err := an.tmpl.Render(data)
		if err != nil {
			p.problem(TemplateFailed, a.key, a.target.token, "the template %s: %v", an.name, err)
			text = "the template " + an.name + " failed: " + err.Error()
		}
		texts[an.name] = text
	}
	if a.lack.GetReason() == leftOut {
		texts["no_data"] = withoutData(a.lack)
	}
	a.flapTexts(texts)
	return texts
}
