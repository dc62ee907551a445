package engine

import (
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	alertv1 "github.com/tocsin-dev/tocsin/proto/gen/tocsin/alert/v1"
)

// Reconcile compares the alerts that fire after a cold rebuild, of which nobody
// was told, with those that the notifier was told of, at the instant of the
// last message. It returns what the notifier must be told: firing for those
// only here, resolved with the reason "state rebuilt" for those only there. An
// alert in both keeps the id and the start that it was told with. The causes
// stand after those of the last message's own transitions. For them to be above
// the notifier's watermark, let the last message be one that was published
// after the watermark was asked for, such as a Tick.
func (p *Partition) Reconcile(told []*alertv1.Alert, at time.Time) []*alertv1.Transition {
	p.step = step{message: Message{Seq: p.applied, Time: at}}
	defer func() { p.step = step{} }()
	there := map[string]*alertv1.Alert{}
	for _, a := range told {
		if a.GetState() == alertv1.AlertState_ALERT_STATE_FIRING {
			there[a.GetFingerprint()] = a
		}
	}
	for _, id := range sortedKeys(p.byID) {
		a := p.byID[id]
		if !a.fires() || a.told.GetObserved() {
			continue
		}
		if known := there[a.told.GetFingerprint()]; known != nil {
			delete(there, a.told.GetFingerprint())
			p.rename(a, known)
			continue
		}
		p.retell(a, alertv1.TransitionKind_TRANSITION_KIND_FIRING)
	}
	gone := make([]*alertv1.Alert, 0, len(there))
	for _, fingerprint := range sortedKeys(there) {
		gone = append(gone, there[fingerprint])
	}
	slices.SortStableFunc(gone, func(a, b *alertv1.Alert) int { return strings.Compare(a.GetId(), b.GetId()) })
	for _, a := range gone {
		over := proto.CloneOf(a)
		over.Observed = false // whatever it is, somebody was told
		over.State, over.ResolveReason, over.ResolvedAt = alertv1.AlertState_ALERT_STATE_RESOLVED, reasonRebuilt, timestamppb.New(at)
		lasted(over)
		p.retell(&alert{told: over}, alertv1.TransitionKind_TRANSITION_KIND_RESOLVED)
	}
	return p.step.Transitions
}

// reconciled is where the causes of a reconciliation begin within their
// message: above all that one message can cause, which is a change for each
// alert that a partition can hold.
const reconciled = 1 << 20

// retell notes a transition of a reconciliation.
func (p *Partition) retell(a *alert, kind alertv1.TransitionKind) {
	p.transition(a, kind, p.nowMs())
	t := p.step.Transitions[len(p.step.Transitions)-1]
	t.Cause.Index += reconciled
	t.Id = p.hash128(a.told.GetGroup(), a.told.GetRule(), a.told.GetFingerprint()+kind.String(), int(t.Cause.GetIndex()))
}

// rename gives an alert the id and the start that the notifier knows it by.
func (p *Partition) rename(a *alert, known *alertv1.Alert) {
	p.touchAlert(a)
	delete(p.byID, a.told.GetId())
	a.told.Id, a.told.ActiveAt, a.told.FiredAt = known.GetId(), known.GetActiveAt(), known.GetFiredAt()
	p.byID[a.told.GetId()] = a
	p.touchAlert(a)
	p.touch(a.target)
}
