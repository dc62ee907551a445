package rpc

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"runtime/debug"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"

	"github.com/tocsin-dev/tocsin/internal/fault"
	"github.com/tocsin-dev/tocsin/internal/secret"
)

// guard stands before every handler: it measures, checks the token, catches
// panics and translates errors.
type guard struct {
	token    secret.String
	log      *slog.Logger
	metrics  *metrics
	stopping context.Context // ends when the server begins to stop
	methods  map[string]bool // those of registered services; set before the first call
}

// know notes the methods that exist.
func (g *guard) know(services map[string]grpc.ServiceInfo) {
	g.methods = map[string]bool{}
	for service, info := range services {
		for _, m := range info.Methods {
			g.methods["/"+service+"/"+m.Name] = true
		}
	}
}

// errUnknown answers calls of what does not exist.
var errUnknown = fault.New(fault.MethodNotAllowed, "there is no such service or method here; reflection lists those that are")

// unknownMethod stands for the methods that callers make up.
const unknownMethod = "unknown"

// errStopping is what streams end with when the server stops.
var errStopping = fault.New(fault.Unavailable, "the server is stopping")

func (g *guard) unary(ctx context.Context, req any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (resp any, err error) {
	begin := time.Now()
	defer func() {
		took := time.Since(begin)
		g.metrics.took.WithLabelValues(info.FullMethod).Observe(took.Seconds())
		err = g.settle(ctx, info.FullMethod, err, took)
	}()
	defer g.recover(ctx, info.FullMethod, &err)
	if err := g.authorize(ctx, info.FullMethod); err != nil {
		return nil, err
	}
	return handler(ctx, req)
}

func (g *guard) stream(srv any, ss grpc.ServerStream, info *grpc.StreamServerInfo, handler grpc.StreamHandler) (err error) {
	begin := time.Now()
	if !g.methods[info.FullMethod] {
		err := g.authorize(ss.Context(), unknownMethod)
		return g.settle(ss.Context(), unknownMethod, cmp.Or(err, errUnknown), time.Since(begin))
	}
	ctx, cancel := context.WithCancelCause(ss.Context())
	defer cancel(nil)
	defer context.AfterFunc(g.stopping, func() { cancel(errStopping) })()
	g.metrics.streams.WithLabelValues(info.FullMethod).Inc()
	defer func() {
		g.metrics.streams.WithLabelValues(info.FullMethod).Dec()
		if err != nil && ss.Context().Err() == nil && g.stopping.Err() != nil {
			err = errStopping // what the handler made of the ended context
		}
		err = g.settle(ctx, info.FullMethod, err, time.Since(begin))
	}()
	defer g.recover(ctx, info.FullMethod, &err)
	if err := g.authorize(ctx, info.FullMethod); err != nil {
		return err
	}
	return handler(srv, &stoppable{ServerStream: ss, ctx: ctx})
}

// stoppable is a stream whose context ends with the server's, too.
type stoppable struct {
	grpc.ServerStream
	ctx context.Context
}

// Context returns the context of the stream.
func (s *stoppable) Context() context.Context { return s.ctx }

// settle counts the call, logs what the caller will not learn, and returns the
// error that goes over the wire.
func (g *guard) settle(ctx context.Context, method string, err error, took time.Duration) error {
	st := fault.GRPC(err)
	g.metrics.requests.WithLabelValues(method, st.Code().String()).Inc()
	level := slog.LevelDebug
	if c := st.Code(); c == codes.Internal || c == codes.Unknown || c == codes.DataLoss {
		level = slog.LevelError
	}
	g.log.LogAttrs(ctx, level, "rpc ended",
		slog.String("method", method), slog.String("code", st.Code().String()),
		slog.Duration("took", took), slog.Any("err", err))
	return st.Err()
}

// recover turns a panic into an internal error. It is deferred directly.
func (g *guard) recover(ctx context.Context, method string, err *error) {
	p := recover()
	if p == nil {
		return
	}
	g.metrics.panics.WithLabelValues(method).Inc()
	g.log.ErrorContext(ctx, "rpc panicked", slog.String("method", method),
		slog.Any("panic", p), slog.String("stack", string(debug.Stack())))
	*err = fmt.Errorf("panic: %v", p)
}

// healthPrefix begins the methods that need no token: a load balancer's probe
// has none, and learns only whether to send callers here.
var healthPrefix = "/" + healthpb.Health_ServiceDesc.ServiceName + "/"

// authorize returns an error when the call lacks the token.
func (g *guard) authorize(ctx context.Context, method string) error {
	if !g.token.Set() || strings.HasPrefix(method, healthPrefix) {
		return nil
	}
	given := metadata.ValueFromIncomingContext(ctx, "authorization")
	if len(given) == 0 {
		return fault.New(fault.Unauthenticated, "send the token in the metadata as authorization: Bearer")
	}
	scheme, token, _ := strings.Cut(given[0], " ")
	if len(given) > 1 || !strings.EqualFold(scheme, "Bearer") || !g.token.Equal(strings.TrimSpace(token)) {
		return fault.New(fault.Unauthenticated, "this token is not valid here")
	}
	return nil
}
