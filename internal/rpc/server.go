// Package rpc makes Tocsin's gRPC servers and clients alike.
//
// A server carries reflection (so that grpcurl needs no proto files), the
// standard health service, a token check, request metrics, and bounds on what a
// caller may hold. Handlers return plain errors or those of package fault; the
// server translates them once, logs what it hides, and turns a panic into
// INTERNAL. A client made by Dial gets the kinds of fault back.
package rpc

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/reflection"

	"github.com/tocsin-dev/tocsin/internal/secret"
)

// MaxMessage is the largest message, in bytes, that servers and clients take
// where their options say nothing else. The largest of ours is a page of 1,000
// alerts of about 2 KiB; 4 MiB is twice that, and gRPC's own default.
const MaxMessage = 4 << 20

// The bounds of a connection.
const (
	// maxStreams is how many calls one connection may have open: hundreds of
	// watchers behind one proxy, without letting one caller exhaust the process.
	maxStreams = 512
	// handshakeTimeout is how long a new connection may take to speak HTTP/2.
	handshakeTimeout = 10 * time.Second
	// pingEvery and pingTimeout find callers that vanished without a goodbye.
	pingEvery   = 30 * time.Second
	pingTimeout = 10 * time.Second
	// minPing is how often a caller may ping; ours do every clientPing (20 s),
	// and twice as often is still no attack.
	minPing = 10 * time.Second
	// stopGrace is how long calls may take to end when the server stops. Ctrl-C
	// must end the process within 3 s, so 2 s leave one for what comes after.
	stopGrace = 2 * time.Second
)

// ServerOptions are what a server is made of.
type ServerOptions struct {
	// Token is what callers must send as "authorization: Bearer <token>", except
	// to the health service. Not set means that everybody may call.
	Token secret.String
	// Log gets one line for each call that failed for a reason of ours. Nil
	// discards them.
	Log *slog.Logger
	// Registerer gets the metrics. Nil registers them nowhere.
	Registerer prometheus.Registerer
	// MaxMessage is the largest message in bytes, both ways. Zero means [MaxMessage].
	MaxMessage int
}

// Server is a gRPC server. Make it with NewServer, register services on it, and
// call Serve once.
type Server struct {
	grpc    *grpc.Server
	health  *health.Server
	guard   *guard
	stop    context.CancelFunc
	reflect sync.Once
}

// NewServer returns a server with the health service and no other yet.
func NewServer(o ServerOptions) *Server {
	if o.MaxMessage == 0 {
		o.MaxMessage = MaxMessage
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	stopping, stop := context.WithCancel(context.Background())
	g := &guard{token: o.Token, log: o.Log, metrics: newMetrics(o.Registerer), stopping: stopping}
	s := &Server{
		grpc: grpc.NewServer(
			grpc.MaxRecvMsgSize(o.MaxMessage),
			grpc.MaxSendMsgSize(o.MaxMessage),
			grpc.MaxConcurrentStreams(maxStreams),
			grpc.ConnectionTimeout(handshakeTimeout),
			grpc.KeepaliveParams(keepalive.ServerParameters{Time: pingEvery, Timeout: pingTimeout}),
			grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: minPing, PermitWithoutStream: true}),
			grpc.UnaryInterceptor(g.unary),
			grpc.StreamInterceptor(g.stream),
			// Calls of what is not registered come to g.stream, which answers them.
			grpc.UnknownServiceHandler(func(any, grpc.ServerStream) error { return errUnknown }),
		),
		health: health.NewServer(),
		guard:  g,
		stop:   stop,
	}
	healthpb.RegisterHealthServer(s.grpc, s.health)
	return s
}

// RegisterService registers a service; generated Register functions call it.
// The service is healthy from then on, until SetServing says otherwise.
func (s *Server) RegisterService(desc *grpc.ServiceDesc, impl any) {
	s.grpc.RegisterService(desc, impl)
	s.health.SetServingStatus(desc.ServiceName, healthpb.HealthCheckResponse_SERVING)
}

// SetServing tells those who ask the health service whether a service, by its
// full name, can do its work. The name "" stands for the whole server.
func (s *Server) SetServing(service string, serving bool) {
	status := healthpb.HealthCheckResponse_NOT_SERVING
	if serving {
		status = healthpb.HealthCheckResponse_SERVING
	}
	s.health.SetServingStatus(service, status)
}

// Serve answers calls on ln until ctx ends. Then the health service says
// NOT_SERVING, streams end with UNAVAILABLE so that their callers go elsewhere,
// other calls get up to two seconds, and ln is closed. It returns an error when
// the listener fails, and nil when it was stopped. Register all services before.
func (s *Server) Serve(ctx context.Context, ln net.Listener) error {
	s.reflect.Do(func() {
		reflection.Register(s.grpc) // both v1 and v1alpha
		s.guard.know(s.grpc.GetServiceInfo())
	})
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error {
		if err := s.grpc.Serve(ln); err != nil && !errors.Is(err, grpc.ErrServerStopped) {
			return fmt.Errorf("serve gRPC on %s: %w", ln.Addr(), err)
		}
		return nil
	})
	g.Go(func() error {
		<-ctx.Done()
		s.shutdown()
		return nil
	})
	return g.Wait()
}

// shutdown ends all calls, by force after stopGrace. A handler that does not even
// hear its context's end is left behind: GracefulStop would wait for it.
func (s *Server) shutdown() {
	s.health.Shutdown()
	s.stop()
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		s.grpc.GracefulStop()
	}()
	force := time.NewTimer(stopGrace)
	defer force.Stop()
	select {
	case <-ended:
	case <-force.C:
		s.grpc.Stop()
	}
}
