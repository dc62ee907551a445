package query

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/tocsin-dev/tocsin/internal/event"
	"github.com/tocsin-dev/tocsin/internal/fault"
	alertv1 "github.com/tocsin-dev/tocsin/proto/gen/tocsin/alert/v1"
	eventv1 "github.com/tocsin-dev/tocsin/proto/gen/tocsin/event/v1"
	queryv1 "github.com/tocsin-dev/tocsin/proto/gen/tocsin/query/v1"
	"github.com/tocsin-dev/tocsin/services/alerter/internal/engine"
	"github.com/tocsin-dev/tocsin/services/alerter/internal/nearest"
)

const (
	// nameChunk is how many targets are read at once to find one by its name: at about
	// 10 KiB each, 5 MB.
	nameChunk = 500
	// maxUnnamed is among how many targets one is looked for by its name. Names are no
	// keys, and stand in the targets' states, all of which are read: 200 MB.
	maxUnnamed = 20_000
	// nameWait is how long a search for a name waits for another one to end. A usual one
	// takes milliseconds, and callers give up after 10 s.
	nameWait = 3 * time.Second
)

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
	byName, names, err := s.named(ctx, in.GetTarget(), tokens)
	if err != nil {
		return "", err
	}
	if len(byName) == 0 {
		return "", fault.Newf(fault.NotFound, "no endpoint, pod or account with the id or name %q is known%s", in.GetTarget(), nearest.Hint(in.GetTarget(), append(words, names...)))
	}
	return single(in.GetTarget(), byName)
}

// named returns which of some targets have a name, and the names of all. It reads all
// of them, and so few of them and for one caller at a time.
func (s *Server) named(ctx context.Context, name string, tokens []string) (found, names []string, err error) {
	if len(tokens) > maxUnnamed {
		return nil, nil, fault.Newf(fault.Invalid, "target: %q is no id of a known target, and %d are too many to look for a name, which is done among up to %d: "+
			"give the id, or the account and the kind if those have fewer", name, len(tokens), maxUnnamed)
	}
	late := time.NewTimer(nameWait)
	defer late.Stop()
	select {
	case s.naming <- struct{}{}:
		defer func() { <-s.naming }()
	case <-late.C:
		return nil, nil, fault.New(fault.Exhausted, "this alerter looks for another target by its name, one at a time: try again, or give the id")
	case <-ctx.Done():
		return nil, nil, ctx.Err()
	}
	for chunk := range slices.Chunk(tokens, nameChunk) {
		stored, err := s.Store.Targets(ctx, chunk)
		if err != nil {
			return nil, nil, s.unavailable(ctx, err)
		}
		for _, token := range chunk {
			if stored[token] == nil { // removed in between
				continue
			}
			its, err := engine.DecodeName(stored[token])
			if err != nil {
				return nil, nil, fmt.Errorf("target %s: %w", token, err)
			}
			if names = append(names, its); its == name {
				found = append(found, token)
			}
		}
	}
	return found, names, nil
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
