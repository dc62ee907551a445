package engine

import (
	"google.golang.org/protobuf/proto"

	alertv1 "github.com/tocsin-dev/tocsin/proto/gen/tocsin/alert/v1"
)

// reasonObserved is why an alert is over to those who were told of it, when its
// rule only observes from then on.
const reasonObserved = "only observed now"

// remode gives a firing alert the mode that its rule has in the new set: people
// are told of what still fires once its rule no longer only observes, and that it
// is over for them where they hear no more of it. It is the same alert throughout.
func (p *Partition) remode(a *alert, now int64) {
	switch {
	case a.told.GetObserved() == a.rule.observed:
		return
	case a.rule.observed:
		going := a.told
		a.told = proto.CloneOf(going)
		a.told.State, a.told.ResolveReason = alertv1.AlertState_ALERT_STATE_RESOLVED, reasonObserved
		p.resolvedAt(a, now)
		p.transition(a, alertv1.TransitionKind_TRANSITION_KIND_RESOLVED, now)
		a.told = going
		a.told.Observed = true
		p.tell(a)
	default:
		a.told.Observed = false
		p.tell(a)
		p.transition(a, alertv1.TransitionKind_TRANSITION_KIND_FIRING, now)
	}
}
