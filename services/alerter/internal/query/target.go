package query

import (
	"context"
	"fmt"
	"maps"
	"slices"

	"github.com/tocsin-dev/tocsin/internal/event"
	"github.com/tocsin-dev/tocsin/internal/fault"
	eventv1 "github.com/tocsin-dev/tocsin/proto/gen/tocsin/event/v1"
	queryv1 "github.com/tocsin-dev/tocsin/proto/gen/tocsin/query/v1"
	"github.com/tocsin-dev/tocsin/services/alerter/internal/engine"
)

// ListTargets lists the known targets, sorted by account, kind and id.
func (s *Server) ListTargets(ctx context.Context, in *queryv1.ListTargetsRequest) (*queryv1.ListTargetsResponse, error) {
	if _, known := eventv1.TargetKind_name[int32(in.GetKind())]; !known {
		return nil, fault.Newf(fault.Invalid, "kind: there is no kind %d", in.GetKind())
	}
	page, err := newPage(in, "targets", in.GetKind().String(), in.GetAccount())
	if err != nil {
		return nil, err
	}
	tokens, err := s.tokens(ctx, func(t *eventv1.Target) bool {
		return (in.GetKind() == 0 || t.GetKind() == in.GetKind()) && (in.GetAccount() == "" || t.GetAccount() == in.GetAccount())
	})
	if err != nil {
		return nil, err
	}
	begin := 0
	for begin < len(tokens) && tokens[begin] <= page.after {
		begin++
	}
	end := min(len(tokens), begin+page.size)
	more := end < len(tokens)
	tokens = tokens[begin:end]
	statuses, err := s.statuses(ctx, tokens)
	if err != nil {
		return nil, err
	}
	heads, err := s.Store.Heads(ctx)
	if err != nil {
		return nil, s.unavailable(ctx, err)
	}
	out := &queryv1.ListTargetsResponse{Freshness: s.freshness(ctx, heads, all)}
	fill := filler{page: page}
	for _, token := range tokens {
		status := statuses[token]
		if status == nil { // removed in between
			continue
		}
		if !fill.add(token, status) {
			break
		}
		out.Targets = append(out.Targets, status)
	}
	out.NextPageToken = fill.next
	if more && fill.next == "" {
		out.NextPageToken = page.token(tokens[len(tokens)-1])
	}
	return out, nil
}

// tokens lists the tokens of the targets that wanted holds for, sorted.
func (s *Server) tokens(ctx context.Context, wanted func(*eventv1.Target) bool) ([]string, error) {
	keys, err := s.Store.Tokens(ctx)
	if err != nil {
		return nil, s.unavailable(ctx, err)
	}
	tokens := keys[:0]
	for _, key := range keys {
		if !engine.IsTarget(key) {
			continue
		}
		target, err := event.ParseToken(key)
		if err != nil {
			return nil, fmt.Errorf("stored target: %w", err)
		}
		if wanted(target) {
			tokens = append(tokens, key)
		}
	}
	return tokens, nil
}

// statuses reads targets, and the ids of their alerts.
func (s *Server) statuses(ctx context.Context, tokens []string) (map[string]*queryv1.TargetStatus, error) {
	stored, err := s.Store.Targets(ctx, tokens)
	if err != nil {
		return nil, s.unavailable(ctx, err)
	}
	statuses := make(map[string]*queryv1.TargetStatus, len(stored))
	partitions := map[int]bool{}
	for token, raw := range stored {
		status, err := engine.DecodeTarget(raw)
		if err != nil {
			return nil, fmt.Errorf("target %s: %w", token, err)
		}
		status.AlertIds = nil
		statuses[token] = status
		partitions[event.Partition(token)] = true
	}
	alerts, _, err := s.alertsIn(ctx, slices.Sorted(maps.Keys(partitions)))
	if err != nil {
		return nil, err
	}
	for _, a := range alerts {
		if status := statuses[event.Token(a.GetTarget())]; status != nil {
			status.AlertIds = append(status.AlertIds, a.GetId())
		}
	}
	return statuses, nil
}

// GetTarget reads one target with its latest values.
func (s *Server) GetTarget(ctx context.Context, in *queryv1.GetTargetRequest) (*queryv1.GetTargetResponse, error) {
	switch {
	case in.GetId() == "":
		return nil, fault.New(fault.Invalid, "id: it is empty")
	case in.GetKind() == eventv1.TargetKind_TARGET_KIND_UNSPECIFIED:
		return nil, fault.New(fault.Invalid, "kind: it must be given")
	}
	target := &eventv1.Target{Account: in.GetAccount(), Kind: in.GetKind(), Id: in.GetId()}
	token := event.Token(target)
	if in.GetAccount() == "" {
		found, err := s.tokens(ctx, func(t *eventv1.Target) bool {
			return t.GetKind() == in.GetKind() && t.GetId() == in.GetId()
		})
		switch {
		case err != nil:
			return nil, err
		case len(found) > 1:
			return nil, fault.Newf(fault.Invalid, "account: %d accounts have such a target; say which", len(found))
		case len(found) == 0:
			return nil, unknownTarget(in)
		}
		token = found[0]
	}
	statuses, err := s.statuses(ctx, []string{token})
	if err != nil {
		return nil, err
	}
	if statuses[token] == nil {
		return nil, unknownTarget(in)
	}
	heads, err := s.Store.Heads(ctx)
	if err != nil {
		return nil, s.unavailable(ctx, err)
	}
	return &queryv1.GetTargetResponse{
		Target:    statuses[token],
		Freshness: s.freshness(ctx, heads, []int{event.Partition(token)}),
	}, nil
}

func unknownTarget(in *queryv1.GetTargetRequest) error {
	return fault.Newf(fault.NotFound, "no target of kind %v with the id %q is known", in.GetKind(), in.GetId())
}
