package engine

import (
	"fmt"
	"iter"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	alertv1 "github.com/tocsin-dev/tocsin/proto/gen/tocsin/alert/v1"
	eventv1 "github.com/tocsin-dev/tocsin/proto/gen/tocsin/event/v1"
	queryv1 "github.com/tocsin-dev/tocsin/proto/gen/tocsin/query/v1"
	statev1 "github.com/tocsin-dev/tocsin/proto/gen/tocsin/state/v1"
	"github.com/tocsin-dev/tocsin/services/alerter/internal/expr"
	"github.com/tocsin-dev/tocsin/services/alerter/rulefile"
)

// Targets lists the targets that are there with their latest values, by token
// in its order.
func (p *Partition) Targets() iter.Seq2[string, *queryv1.TargetStatus] {
	return func(yield func(string, *queryv1.TargetStatus) bool) {
		for _, t := range p.sortedTargets() {
			if t.live() && !yield(t.token, t.status(alertIDs(t))) {
				return
			}
		}
	}
}

func alertIDs(t *target) []string {
	ids := map[string]struct{}{}
	for _, a := range t.alerts {
		ids[a.told.GetId()] = struct{}{}
	}
	return sortedKeys(ids)
}

// Alerts lists the pending and firing alerts, by id in its order.
func (p *Partition) Alerts() iter.Seq[*alertv1.Alert] {
	return func(yield func(*alertv1.Alert) bool) {
		for _, id := range sortedKeys(p.byID) {
			if !yield(proto.CloneOf(p.byID[id].told)) {
				return
			}
		}
	}
}

// DecodeTarget turns a stored value into a target's status. The bytes must be
// of a key for which IsTarget is true.
func DecodeTarget(data []byte) (*queryv1.TargetStatus, error) {
	var s statev1.TargetState
	if err := proto.Unmarshal(data, &s); err != nil {
		return nil, fmt.Errorf("decode target: %w", err)
	}
	return decodeTarget("", &s).status(s.GetAlertIds()), nil
}

// DecodeName reads the name of a stored target; empty if it has none. The bytes must
// be of a key for which IsTarget is true.
func DecodeName(data []byte) (string, error) {
	var s statev1.TargetState
	if err := proto.Unmarshal(data, &s); err != nil {
		return "", fmt.Errorf("decode target: %w", err)
	}
	return s.GetTarget().GetName(), nil
}

// DecodeAlert turns a stored value of Delta.Active into an alert.
func DecodeAlert(data []byte) (*alertv1.Alert, error) {
	r, err := decodeRecord(data)
	return r.GetAlert(), err
}

func decodeRecord(data []byte) (*statev1.AlertRecord, error) {
	r := new(statev1.AlertRecord)
	if err := proto.Unmarshal(data, r); err != nil {
		return nil, fmt.Errorf("decode alert: %w", err)
	}
	return r, nil
}

// status describes a target for people: its latest values, whether they still
// hold or not.
func (t *target) status(alerts []string) *queryv1.TargetStatus {
	s := &queryv1.TargetStatus{
		Target: proto.CloneOf(t.target), Spec: proto.CloneOf(t.spec), Labels: t.labels,
		LastFailure: proto.CloneOf(t.failure), AlertIds: alerts,
	}
	if t.sampled != never {
		s.LastSampleAt = timestamppb.New(instantOf(t.sampledAt))
	}
	about := subject{t: t, now: t.sampled, latest: true}
	for _, f := range expr.Fields(onOf(t.target.GetKind())) {
		if source := sourceOf(f.ID); source == factsOfJobs && !ownCounter(f.ID) || source == factsOfCategory {
			continue // stored elsewhere, or about a part of the target
		}
		v := about.field(f.ID)
		if !v.Known() {
			continue
		}
		value := &alertv1.Value{Name: f.Name, Value: v.String()}
		if v.Kind == expr.Gauge {
			value.Number = &v.Number
		}
		s.Values = append(s.Values, value)
	}
	return s
}

func onOf(kind eventv1.TargetKind) rulefile.On {
	switch kind {
	case eventv1.TargetKind_TARGET_KIND_ENDPOINT:
		return rulefile.OnEndpoint
	case eventv1.TargetKind_TARGET_KIND_POD:
		return rulefile.OnPod
	default:
		return rulefile.OnAccount
	}
}
