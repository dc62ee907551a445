package query

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"google.golang.org/protobuf/proto"

	"github.com/tocsin-dev/tocsin/internal/event"
	"github.com/tocsin-dev/tocsin/internal/fault"
	alertv1 "github.com/tocsin-dev/tocsin/proto/gen/tocsin/alert/v1"
	eventv1 "github.com/tocsin-dev/tocsin/proto/gen/tocsin/event/v1"
	queryv1 "github.com/tocsin-dev/tocsin/proto/gen/tocsin/query/v1"
	"github.com/tocsin-dev/tocsin/services/alerter/internal/engine"
	"github.com/tocsin-dev/tocsin/services/alerter/internal/nearest"
)

// nameChunk is how many targets are read at once to find one by its name: at about
// 10 KiB each, 5 MB.
const nameChunk = 500

// Diagnose says what is probably wrong with a target.
func (s *Server) Diagnose(ctx context.Context, in *queryv1.DiagnoseRequest) (*queryv1.DiagnoseResponse, error) {
	if in.GetTarget() == "" {
		return nil, fault.New(fault.Invalid, "target: it is empty; an endpoint's or a pod's id or name is needed")
	}
	if _, known := eventv1.TargetKind_name[int32(in.GetKind())]; !known {
		return nil, fault.Newf(fault.Invalid, "kind: there is no kind %d", in.GetKind())
	}
	token, err := s.find(ctx, in)
	if err != nil {
		return nil, err
	}
	inspection, head, _, err := s.inspect(ctx, token)
	if err != nil {
		return nil, err
	}
	if inspection == nil {
		return nil, fault.Newf(fault.NotFound, "the target %q is not known any more", in.GetTarget())
	}
	p, ok := inspection.Target()
	if !ok {
		return nil, fault.Newf(fault.NotFound, "the target %q is not known any more", in.GetTarget())
	}
	partition := event.Partition(token)
	alerts, heads, err := s.alertsIn(ctx, []int{partition})
	if err != nil {
		return nil, err
	}
	heads[partition] = head
	out := &queryv1.DiagnoseResponse{
		Target: p.Status, Diagnosis: p.Diagnosis, Series: p.Series, ErrorGroups: p.ErrorGroups,
		At: head.GetPosition().GetAppliedTime(), Freshness: s.freshness(ctx, heads, []int{partition}),
	}
	for _, a := range alerts {
		if event.Token(a.GetTarget()) == token {
			out.Alerts = append(out.Alerts, withoutSeries(a))
		}
	}
	return out, nil
}

func withoutSeries(a *alertv1.Alert) *alertv1.Alert {
	a = proto.CloneOf(a)
	if a.Evidence != nil {
		a.Evidence.Series = nil
	}
	return a
}

// find returns the token of the target that a request names, by its id or else by
// its name.
func (s *Server) find(ctx context.Context, in *queryv1.DiagnoseRequest) (string, error) {
	tokens, err := s.tokens(ctx, func(t *eventv1.Target) bool {
		return (in.GetKind() == 0 || t.GetKind() == in.GetKind()) && (in.GetAccount() == "" || t.GetAccount() == in.GetAccount())
	})
	if err != nil {
		return "", err
	}
	var words, byID []string
	for _, token := range tokens {
		t, err := event.ParseToken(token)
		if err != nil {
			return "", fmt.Errorf("stored target: %w", err)
		}
		words = append(words, t.GetId())
		if t.GetId() == in.GetTarget() {
			byID = append(byID, token)
		}
	}
	if len(byID) > 0 {
		return single(in.GetTarget(), byID)
	}
	var byName []string
	for chunk := range slices.Chunk(tokens, nameChunk) {
		stored, err := s.Store.Targets(ctx, chunk)
		if err != nil {
			return "", s.unavailable(ctx, err)
		}
		for _, token := range chunk {
			if stored[token] == nil { // removed in between
				continue
			}
			name, err := engine.DecodeName(stored[token])
			if err != nil {
				return "", fmt.Errorf("target %s: %w", token, err)
			}
			if words = append(words, name); name == in.GetTarget() {
				byName = append(byName, token)
			}
		}
	}
	if len(byName) == 0 {
		return "", fault.Newf(fault.NotFound, "no endpoint, pod or account with the id or name %q is known%s", in.GetTarget(), nearest.Hint(in.GetTarget(), words))
	}
	return single(in.GetTarget(), byName)
}

// single returns the only token, or says which there are.
func single(word string, tokens []string) (string, error) {
	if len(tokens) == 1 {
		return tokens[0], nil
	}
	var which []string
	for _, token := range tokens[:min(len(tokens), maxNamed)] {
		t, err := event.ParseToken(token)
		if err != nil {
			return "", fmt.Errorf("stored target: %w", err)
		}
		which = append(which, fmt.Sprintf("the %s %s of account %s", kindOf(t), t.GetId(), t.GetAccount()))
	}
	return "", fault.Newf(fault.Invalid, "target: %q is %d targets: %s; say the account, the kind or the id", word, len(tokens), strings.Join(which, ", "))
}
