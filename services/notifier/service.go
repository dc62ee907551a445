package notifier

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"sync/atomic"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	"github.com/tocsin-dev/tocsin/internal/bus"
	"github.com/tocsin-dev/tocsin/internal/fault"
	"github.com/tocsin-dev/tocsin/internal/rpc"
	alertv1 "github.com/tocsin-dev/tocsin/proto/gen/tocsin/alert/v1"
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
	gate    *gate
	log     *slog.Logger
	watches atomic.Int64 // how many are open
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
	resp, whole := bounded(&notifyv1.ListActiveResponse{Alerts: alerts}, maxActive)
	if !whole {
		s.log.WarnContext(ctx, "so many alerts fire in a partition that they are listed without their evidence or texts",
			"partition", req.GetPartition(), "alerts", len(alerts))
	}
	return resp, nil
}

// maxActive bounds the alerts of an answer, in bytes, below what gRPC takes: whoever
// asks would ask again for ever.
const maxActive = rpc.MaxMessage - 64<<10

// bounded returns resp if it has at most limit bytes, else its alerts without their
// evidence and, if that is not enough, without their texts: what tells them apart
// is some 400 bytes of each. It reports whether nothing was left out.
func bounded(resp *notifyv1.ListActiveResponse, limit int) (_ *notifyv1.ListActiveResponse, whole bool) {
	if proto.Size(resp) <= limit {
		return resp, true
	}
	resp = proto.CloneOf(resp) // the courier's own are not changed
	for _, less := range []func(*alertv1.Alert){
		func(a *alertv1.Alert) { a.Evidence = nil },
		func(a *alertv1.Alert) { a.Annotations = nil },
	} {
		for _, a := range resp.GetAlerts() {
			less(a)
		}
		if proto.Size(resp) <= limit {
			break
		}
	}
	return resp, false
}

// maxWatches bounds the watches: each reads ALERTS for itself, and holds up to 8 MiB
// that its reader is too slow for.
const maxWatches = 100

// WatchAlerts streams transitions.
func (s *service) WatchAlerts(req *notifyv1.WatchAlertsRequest, stream grpc.ServerStreamingServer[notifyv1.WatchAlertsResponse]) error {
	defer s.watches.Add(-1)
	if s.watches.Add(1) > maxWatches {
		s.gate.metrics.RefuseWatch()
		return fault.Newf(fault.Exhausted, "%d watches of alerts are open, which is the most: end one, or let one reader serve the others", maxWatches)
	}
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
