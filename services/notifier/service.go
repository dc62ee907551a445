package notifier

import (
	"context"
	"errors"
	"log/slog"
	"sync"

	"google.golang.org/grpc"

	"github.com/tocsin-dev/tocsin/internal/bus"
	"github.com/tocsin-dev/tocsin/internal/fault"
	notifyv1 "github.com/tocsin-dev/tocsin/proto/gen/tocsin/notify/v1"
	"github.com/tocsin-dev/tocsin/services/notifier/internal/courier"
	"github.com/tocsin-dev/tocsin/services/notifier/internal/intake"
)

// session is what answers calls while this notifier leads.
type session struct {
	intake  *intake.Intake
	courier *courier.Courier
	conn    *bus.Conn
	ended   context.Context
}

// gate holds the session, if there is one.
type gate struct {
	metrics *intake.Metrics

	mu      sync.Mutex
	current *session // guarded by mu; nil while another notifier leads
}

func newGate(m *intake.Metrics) *gate { return &gate{metrics: m} }

func (g *gate) open(s *session) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.current = s
}

func (g *gate) close() { g.open(nil) }

// enter returns the session, and a context that ends with it. The error is of
// the kind that makes callers try again.
func (g *gate) enter(ctx context.Context) (*session, context.Context, context.CancelFunc, error) {
	g.mu.Lock()
	s := g.current
	g.mu.Unlock()
	if s == nil {
		return nil, nil, nil, errStandby
	}
	ctx, cancel := context.WithCancelCause(ctx)
	stop := context.AfterFunc(s.ended, func() { cancel(errStandby) })
	return s, ctx, func() { stop(); cancel(nil) }, nil
}

// ready is the readiness check of a notifier.
func (g *gate) ready(context.Context) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.current == nil {
		return errors.New("this notifier stands by, or is catching up")
	}
	return nil
}

var errStandby = fault.New(fault.Unavailable, "this notifier does not lead (yet)")

// service answers NotifierService.
type service struct {
	notifyv1.UnimplementedNotifierServiceServer
	gate *gate
	log  *slog.Logger
}

// Notify stores a batch.
func (s *service) Notify(ctx context.Context, req *notifyv1.NotifyRequest) (*notifyv1.NotifyResponse, error) {
	now, ctx, done, err := s.gate.enter(ctx)
	if err != nil {
		return nil, err
	}
	defer done()
	resp, err := now.intake.Notify(ctx, req)
	return resp, ended(ctx, err)
}

// Watermark tells the newest stored cause of a partition.
func (s *service) Watermark(ctx context.Context, req *notifyv1.WatermarkRequest) (*notifyv1.WatermarkResponse, error) {
	now, ctx, done, err := s.gate.enter(ctx)
	if err != nil {
		return nil, err
	}
	defer done()
	resp, err := now.intake.Watermark(ctx, req)
	return resp, ended(ctx, err)
}

// ListActive lists the alerts of a partition that fire by what is stored.
func (s *service) ListActive(ctx context.Context, req *notifyv1.ListActiveRequest) (*notifyv1.ListActiveResponse, error) {
	now, ctx, done, err := s.gate.enter(ctx)
	if err != nil {
		return nil, err
	}
	defer done()
	newest, seq, err := now.intake.Stored(ctx, req.GetPartition())
	if err != nil {
		return nil, ended(ctx, err)
	}
	alerts, err := now.courier.Active(ctx, int(req.GetPartition()), newest, seq)
	if err != nil {
		return nil, ended(ctx, err)
	}
	return &notifyv1.ListActiveResponse{Alerts: alerts}, nil
}

// WatchAlerts streams transitions.
func (s *service) WatchAlerts(req *notifyv1.WatchAlertsRequest, stream grpc.ServerStreamingServer[notifyv1.WatchAlertsResponse]) error {
	now, ctx, done, err := s.gate.enter(stream.Context())
	if err != nil {
		return err
	}
	defer done()
	return ended(ctx, intake.Watch(ctx, s.log, now.conn, req, stream.Send))
}

// ended tells the end of the session from other failures of a call.
func ended(ctx context.Context, err error) error {
	if err != nil && errors.Is(context.Cause(ctx), errStandby) {
		return errStandby
	}
	return err
}
