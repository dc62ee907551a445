package query

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/tocsin-dev/tocsin/internal/event"
	"github.com/tocsin-dev/tocsin/internal/fault"
	alertv1 "github.com/tocsin-dev/tocsin/proto/gen/tocsin/alert/v1"
	queryv1 "github.com/tocsin-dev/tocsin/proto/gen/tocsin/query/v1"
	statev1 "github.com/tocsin-dev/tocsin/proto/gen/tocsin/state/v1"
	"github.com/tocsin-dev/tocsin/services/alerter/internal/engine"
	"github.com/tocsin-dev/tocsin/services/alerter/internal/nearest"
	"github.com/tocsin-dev/tocsin/services/alerter/internal/rule"
	"github.com/tocsin-dev/tocsin/services/alerter/internal/ruleset"
)

// maxNamed bounds the ids that a message lists.
const maxNamed = 5

// ExplainAlert tells all there is to say of one alert.
func (s *Server) ExplainAlert(ctx context.Context, in *queryv1.ExplainAlertRequest) (*queryv1.ExplainAlertResponse, error) {
	if in.GetId() == "" {
		return nil, fault.New(fault.Invalid, "id: it is empty; an alert's id, the beginning of one, or its fingerprint is needed")
	}
	alerts, heads, err := s.alerts(ctx)
	if err != nil {
		return nil, err
	}
	found, err := choose(alerts, in.GetId())
	if err != nil {
		return nil, err
	}
	if found == nil {
		return s.explainResolved(ctx, in.GetId(), alerts, heads)
	}
	token := event.Token(found.GetTarget())
	inspection, part, program, err := s.inspect(ctx, token)
	if err != nil {
		return nil, err
	}
	x, ok := (*engine.Explanation)(nil), false
	if inspection != nil {
		x, ok = inspection.Alert(found.GetId())
	}
	if !ok { // it resolved between the two looks at the state
		return s.explainResolved(ctx, in.GetId(), nil, heads)
	}
	r := describe(*x.Rule, alerts)
	r.Observed = program.Set().Observed(x.Rule)
	heads[event.Partition(token)] = part
	out := &queryv1.ExplainAlertResponse{
		Alert: x.Alert, Rule: r, Condition: holds(x.Cond), Judged: holds(x.Judged), Until: holds(x.Until), Now: x.Now, UntilValues: x.UntilValues,
		Diagnosis: x.Diagnosis, At: part.GetPosition().GetAppliedTime(),
		Freshness: s.freshness(ctx, heads, []int{event.Partition(token)}),
	}
	if x.Left > 0 {
		out.Left = durationpb.New(x.Left)
	}
	out.Story = story(out, x)
	return out, nil
}

// explainResolved answers for an alert that is neither pending nor firing, if this
// replica remembers that it resolved.
func (s *Server) explainResolved(ctx context.Context, id string, active []*alertv1.Alert, heads []*statev1.StoredHead) (*queryv1.ExplainAlertResponse, error) {
	over := s.View.resolved()
	found, err := choose(over, id)
	if err != nil {
		return nil, err
	}
	if found == nil {
		var ids []string
		for _, a := range append(active, over...) {
			ids = append(ids, a.GetId(), a.GetFingerprint())
		}
		return nil, fault.Newf(fault.NotFound, "no pending or firing alert has the id or fingerprint %q%s. "+
			"Of resolved ones an alerter remembers the last %d that resolved while it ran; what receivers were told of them is with the notifier",
			id, nearest.Hint(id, ids), maxOver)
	}
	out := &queryv1.ExplainAlertResponse{
		Alert: proto.CloneOf(found), Remembered: true, At: timestamppb.New(found.GetResolvedAt().AsTime()),
		Freshness: s.freshness(ctx, heads, []int{event.Partition(event.Token(found.GetTarget()))}),
	}
	if hash := inForce(heads); hash != "" {
		// Without its rule, which may be gone, there is still the rest to tell.
		if program, err := s.Rules.Fetch(ctx, hash); err == nil {
			for _, r := range program.Set().Rules() {
				if of(found, r) {
					out.Rule = describe(r, active)
				}
			}
		}
	}
	out.Story = story(out, nil)
	return out, nil
}

// choose finds the alert with an id, a fingerprint or the beginning of an id; nil if
// there is none. It is an error if there are several.
func choose(alerts []*alertv1.Alert, id string) (*alertv1.Alert, error) {
	var begin []*alertv1.Alert
	for _, a := range alerts {
		switch {
		case a.GetId() == id, a.GetFingerprint() == id:
			return a, nil
		case strings.HasPrefix(a.GetId(), id):
			begin = append(begin, a)
		}
	}
	switch len(begin) {
	case 0:
		return nil, nil
	case 1:
		return begin[0], nil
	}
	var names []string
	for _, a := range begin[:min(len(begin), maxNamed)] {
		names = append(names, fmt.Sprintf("%s (%s on %s)", a.GetId(), a.GetRule(), a.GetTarget().GetId()))
	}
	return nil, fault.Newf(fault.Invalid, "id: %d alerts begin with %q: %s", len(begin), id, strings.Join(names, ", "))
}

// inspect reads a target as it is committed, and judges it. The inspection is nil
// where the target is not stored.
func (s *Server) inspect(ctx context.Context, token string) (*engine.Inspection, *statev1.StoredHead, *engine.Program, error) {
	part, err := s.Store.Part(ctx, token, engine.TargetKeys(token))
	if err != nil {
		return nil, nil, nil, s.unavailable(ctx, err)
	}
	position := part.Stored.GetPosition()
	if part.Stored == nil || position.GetRuleSetHash() == "" || len(part.Targets) == 0 {
		return nil, part.Stored, nil, nil
	}
	program, err := s.Rules.Fetch(ctx, position.GetRuleSetHash())
	switch {
	case errors.Is(err, ruleset.ErrMissing), errors.Is(err, ruleset.ErrUnreadable):
		return nil, nil, nil, fmt.Errorf("rules in force: %w", err)
	case err != nil:
		return nil, nil, nil, s.unavailable(ctx, err)
	}
	speed := s.Speed
	if speed == 0 {
		speed = 1
	}
	inspection, err := engine.Inspect(engine.Stored{
		Token: token, Head: part.Stored.GetFold(), Targets: part.Targets, Active: part.Active, At: position.GetAppliedTime().AsTime(),
	}, program, speed)
	if err != nil {
		return nil, nil, nil, fmt.Errorf("target %s: %w", token, err)
	}
	return inspection, part.Stored, program, nil
}

func holds(t rule.Truth) queryv1.Holds {
	switch t {
	case rule.Yes:
		return queryv1.Holds_HOLDS_YES
	case rule.No:
		return queryv1.Holds_HOLDS_NO
	default:
		return queryv1.Holds_HOLDS_UNSPECIFIED
	}
}
