// Package query answers questions about alerts, targets and rules.
//
// Answers come from what is committed in Redis, so that any replica can answer
// for all partitions; each says how far it reaches. A watch brings the changes
// of this replica's own partitions as they are committed, and those of others
// within a second. A reader that is too slow is cut off rather than buffered
// for.
package query

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"

	"google.golang.org/grpc"

	"github.com/tocsin-dev/tocsin/internal/event"
	"github.com/tocsin-dev/tocsin/internal/fault"
	alertv1 "github.com/tocsin-dev/tocsin/proto/gen/tocsin/alert/v1"
	queryv1 "github.com/tocsin-dev/tocsin/proto/gen/tocsin/query/v1"
	statev1 "github.com/tocsin-dev/tocsin/proto/gen/tocsin/state/v1"
	"github.com/tocsin-dev/tocsin/services/alerter/internal/engine"
	"github.com/tocsin-dev/tocsin/services/alerter/internal/match"
	"github.com/tocsin-dev/tocsin/services/alerter/internal/state"
)

// maxMatchers bounds the conditions of a request.
const maxMatchers = 32

// Store is the part of the state that is asked.
type Store interface {
	alertReader
	// Heads reads the heads of all partitions.
	Heads(ctx context.Context) ([]*statev1.StoredHead, error)
	// Alert reads the stored alert with an id; nil when there is none.
	Alert(ctx context.Context, id string) ([]byte, error)
	// Tokens lists the keys of all stored targets, sorted.
	Tokens(ctx context.Context) ([]string, error)
	// Targets reads stored targets by token.
	Targets(ctx context.Context, tokens []string) (map[string][]byte, error)
	// Part reads at one instant what belongs to a target.
	Part(ctx context.Context, token string, keys []string) (*state.Saved, error)
}

// Rules finds rule sets.
type Rules interface {
	// Fetch returns a compiled rule set by its hash.
	Fetch(ctx context.Context, hash string) (*engine.Program, error)
}

// Options are what a Server answers from.
type Options struct {
	// Store is the committed state.
	Store Store
	// View is what this replica knows of alerts.
	View *View
	// Rules finds rule sets.
	Rules Rules
	// Speed is how many times faster than life the rules run; 0 means once.
	Speed float64
	// End finds the end of the event log.
	End EndFunc
	// Log gets the reasons that callers are not told.
	Log *slog.Logger
}

// Server implements QueryService. It is safe for concurrent use.
type Server struct {
	queryv1.UnimplementedQueryServiceServer
	Options
	end end
	// naming holds the one that looks for a target by its name.
	naming chan struct{}
}

// NewServer returns a Server.
func NewServer(o Options) *Server {
	return &Server{Options: o, end: end{find: o.End}, naming: make(chan struct{}, 1)}
}

// all lists the partitions.
var all = func() []int {
	partitions := make([]int, event.Partitions)
	for p := range partitions {
		partitions[p] = p
	}
	return partitions
}()

// alerts reads all pending and firing alerts, sorted by id.
func (s *Server) alerts(ctx context.Context) ([]*alertv1.Alert, []*statev1.StoredHead, error) {
	return s.alertsIn(ctx, all)
}

// alertsIn reads the pending and firing alerts of some partitions, sorted by
// id, and the heads of those partitions.
func (s *Server) alertsIn(ctx context.Context, partitions []int) ([]*alertv1.Alert, []*statev1.StoredHead, error) {
	stored, err := s.Store.Alerts(ctx, partitions)
	if err != nil {
		return nil, nil, s.unavailable(ctx, err)
	}
	var alerts []*alertv1.Alert
	heads := make([]*statev1.StoredHead, event.Partitions)
	for _, p := range stored {
		heads[p.Partition] = p.Head
		for id, raw := range p.Active {
			a, err := engine.DecodeAlert(raw)
			if err != nil {
				return nil, nil, fmt.Errorf("alert %s: %w", id, err)
			}
			alerts = append(alerts, a)
		}
	}
	slices.SortFunc(alerts, func(a, b *alertv1.Alert) int { return strings.Compare(a.GetId(), b.GetId()) })
	return alerts, heads, nil
}

// ListAlerts lists alerts that are pending or firing, sorted by id.
func (s *Server) ListAlerts(ctx context.Context, in *queryv1.ListAlertsRequest) (*queryv1.ListAlertsResponse, error) {
	states, err := statesOf(in.GetStates())
	if err != nil {
		return nil, err
	}
	matchers, err := parseMatchers(in.GetMatchers())
	if err != nil {
		return nil, err
	}
	page, err := newPage(in, append([]string{"alerts", fmt.Sprint(in.GetStates())}, in.GetMatchers()...)...)
	if err != nil {
		return nil, err
	}
	alerts, heads, err := s.alerts(ctx)
	if err != nil {
		return nil, err
	}
	out := &queryv1.ListAlertsResponse{Freshness: s.freshness(ctx, heads, all)}
	fill := filler{page: page}
	for _, a := range alerts {
		if a.GetId() <= page.after || !states[a.GetState()] || !matchers.Match(a.GetLabels()) {
			continue
		}
		if !fill.add(a.GetId(), a) {
			break
		}
		out.Alerts = append(out.Alerts, a)
	}
	out.NextPageToken = fill.next
	return out, nil
}

func statesOf(asked []alertv1.AlertState) (map[alertv1.AlertState]bool, error) {
	const pending, firing = alertv1.AlertState_ALERT_STATE_PENDING, alertv1.AlertState_ALERT_STATE_FIRING
	if len(asked) == 0 {
		return map[alertv1.AlertState]bool{pending: true, firing: true}, nil
	}
	states := map[alertv1.AlertState]bool{}
	for _, s := range asked {
		if s != pending && s != firing {
			return nil, fault.Newf(fault.Invalid, "states: %v cannot be listed; only pending and firing alerts are kept", s)
		}
		states[s] = true
	}
	return states, nil
}

func parseMatchers(texts []string) (match.Matchers, error) {
	if err := atMost("matchers", len(texts), maxMatchers); err != nil {
		return nil, err
	}
	matchers, err := match.Parse(texts)
	if err != nil {
		return nil, fault.Wrap(fault.Invalid, err)
	}
	return matchers, nil
}

// GetAlert reads one alert by its id or its fingerprint.
func (s *Server) GetAlert(ctx context.Context, in *queryv1.GetAlertRequest) (*queryv1.GetAlertResponse, error) {
	id := in.GetId()
	if id == "" {
		return nil, fault.New(fault.Invalid, "id: it is empty; an alert's id or fingerprint is needed")
	}
	raw, err := s.Store.Alert(ctx, id)
	if err != nil {
		return nil, s.unavailable(ctx, err)
	}
	if raw != nil {
		alert, err := engine.DecodeAlert(raw)
		if err != nil {
			return nil, fmt.Errorf("alert %s: %w", id, err)
		}
		return s.answerAlert(ctx, alert)
	}
	alerts, _, err := s.alerts(ctx)
	if err != nil {
		return nil, err
	}
	for _, a := range alerts {
		if a.GetFingerprint() == id {
			return s.answerAlert(ctx, a)
		}
	}
	return nil, fault.Newf(fault.NotFound, "no pending or firing alert has the id or fingerprint %q", id)
}

func (s *Server) answerAlert(ctx context.Context, alert *alertv1.Alert) (*queryv1.GetAlertResponse, error) {
	heads, err := s.Store.Heads(ctx)
	if err != nil {
		return nil, s.unavailable(ctx, err)
	}
	partition := event.Partition(event.Token(alert.GetTarget()))
	return &queryv1.GetAlertResponse{Alert: alert, Freshness: s.freshness(ctx, heads, []int{partition})}, nil
}

// WatchAlerts sends the alerts there are, then every change.
func (s *Server) WatchAlerts(in *queryv1.WatchAlertsRequest, stream grpc.ServerStreamingServer[queryv1.WatchAlertsResponse]) error {
	matchers, err := parseMatchers(in.GetMatchers())
	if err != nil {
		return err
	}
	ctx := stream.Context()
	initial, w, err := s.View.watch(ctx)
	switch {
	case errors.Is(err, errTooMany):
		return fault.Wrap(fault.Exhausted, err)
	case err != nil:
		return s.unavailable(ctx, err)
	}
	defer s.View.leave(w)
	for _, a := range initial {
		if !matchers.Match(a.GetLabels()) {
			continue
		}
		if err := stream.Send(&queryv1.WatchAlertsResponse{Alert: a, Initial: true}); err != nil {
			return err
		}
	}
	for {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-w.cut:
			return fault.Newf(fault.Exhausted, "more than %d changes waited to be read; watch again", watcherQueue)
		case a := <-w.changes:
			if !matchers.Match(a.GetLabels()) {
				continue
			}
			if err := stream.Send(&queryv1.WatchAlertsResponse{Alert: a}); err != nil {
				return err
			}
		}
	}
}

// unavailable is what callers are told when the state cannot be read. Where it
// is and what ails it is for the log.
func (s *Server) unavailable(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	s.Log.LogAttrs(ctx, slog.LevelWarn, "question not answered", slog.Any("err", err))
	return fault.New(fault.Unavailable, "the alerter's state cannot be read now")
}

var _ Store = (*state.Store)(nil)
