package query

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"google.golang.org/protobuf/types/known/durationpb"

	alertv1 "github.com/tocsin-dev/tocsin/proto/gen/tocsin/alert/v1"
	queryv1 "github.com/tocsin-dev/tocsin/proto/gen/tocsin/query/v1"
	statev1 "github.com/tocsin-dev/tocsin/proto/gen/tocsin/state/v1"
	"github.com/tocsin-dev/tocsin/services/alerter/internal/ruleset"
	"github.com/tocsin-dev/tocsin/services/alerter/rulefile"
)

// ListRules lists the rules in force, in the order of their files. The list is
// empty before the first rule set is in force.
func (s *Server) ListRules(ctx context.Context, _ *queryv1.ListRulesRequest) (*queryv1.ListRulesResponse, error) {
	alerts, heads, err := s.alerts(ctx)
	if err != nil {
		return nil, err
	}
	out := &queryv1.ListRulesResponse{RuleSetHash: inForce(heads)}
	if out.GetRuleSetHash() == "" {
		return out, nil
	}
	program, err := s.Rules.Fetch(ctx, out.GetRuleSetHash())
	switch {
	case errors.Is(err, ruleset.ErrMissing), errors.Is(err, ruleset.ErrUnreadable):
		return nil, fmt.Errorf("rules in force: %w", err)
	case err != nil:
		return nil, s.unavailable(ctx, err)
	}
	for _, r := range program.Set().Rules() {
		rule := describe(r, alerts)
		rule.Observed = program.Set().Observed(&r)
		out.Rules = append(out.Rules, rule)
	}
	return out, nil
}

// inForce returns the rule set of most partitions: a new one reaches them
// within moments of each other.
func inForce(heads []*statev1.StoredHead) string {
	count := map[string]int{}
	for _, head := range heads {
		if hash := head.GetPosition().GetRuleSetHash(); hash != "" {
			count[hash]++
		}
	}
	most := ""
	for _, hash := range slices.Sorted(maps.Keys(count)) {
		if most == "" || count[hash] > count[most] {
			most = hash
		}
	}
	return most
}

func describe(r rulefile.Rule, alerts []*alertv1.Alert) *queryv1.Rule {
	out := &queryv1.Rule{
		Group:         r.Group,
		Name:          r.Alert,
		On:            string(r.On),
		Expr:          r.Expr,
		Until:         r.Until,
		For:           durationpb.New(r.For),
		KeepFiringFor: durationpb.New(r.KeepFiringFor),
		Labels:        r.Labels,
		Annotations:   r.Annotations,
		Source:        r.Source.String(),
		Times:         r.Times.String(),
		NoData:        r.NoData.String(),
		Flapping:      r.Flapping.String(),
	}
	for _, a := range alerts {
		if !of(a, r) {
			continue
		}
		switch a.GetState() {
		case alertv1.AlertState_ALERT_STATE_PENDING:
			out.Pending++
		case alertv1.AlertState_ALERT_STATE_FIRING:
			out.Firing++
		}
	}
	return out
}

// of tells whether an alert is of a rule. Rules of one name differ in their
// labels, which their alerts carry.
func of(a *alertv1.Alert, r rulefile.Rule) bool {
	if a.GetGroup() != r.Group || a.GetRule() != r.Alert {
		return false
	}
	for name, value := range r.Labels {
		if !strings.Contains(value, "{{") && a.GetLabels()[name] != value {
			return false
		}
	}
	return true
}
