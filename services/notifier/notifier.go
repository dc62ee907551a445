// Package notifier stores alerts and tells receivers about them.
//
// It promises that an alert that was accepted is stored; that every firing that a
// route matched, and that no other alert inhibited then or within the hold
// before, reaches the route's receivers at least once; that a receiver that was told "firing" is told
// "resolved"; that repeats carry the same id and, for webhooks, equal bytes; and
// that the state a receiver is told of a group never goes backwards. All of it
// holds over crashes and restarts at any instant, as long as JetStream keeps
// what it acknowledged. One notifier leads; others stand by.
package notifier

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"

	"github.com/tocsin-dev/tocsin/internal/bus"
	"github.com/tocsin-dev/tocsin/internal/proc"
	"github.com/tocsin-dev/tocsin/internal/rpc"
	notifyv1 "github.com/tocsin-dev/tocsin/proto/gen/tocsin/notify/v1"
	"github.com/tocsin-dev/tocsin/services/notifier/internal/courier"
	"github.com/tocsin-dev/tocsin/services/notifier/internal/intake"
	"github.com/tocsin-dev/tocsin/services/notifier/internal/receiver"
	"github.com/tocsin-dev/tocsin/services/notifier/internal/settings"
)

// Run runs a notifier until ctx ends, and returns nil then. It returns an error
// for which [proc.IsUsage] holds when the options or the file of routes are
// wrong, and others when a port is taken or a stream has other settings than
// needed. Whatever else fails is tried again.
func Run(ctx context.Context, o Options) error {
	o = o.withDefaults()
	if err := o.validate(); err != nil {
		return proc.Usage(err)
	}
	routes, err := o.routes()
	if err != nil {
		return proc.Usage(err)
	}
	if !routes.Sends() {
		o.Log.WarnContext(ctx, "no receiver is configured: alerts are printed and nobody is told; set notifier.config_file")
	}
	grpcListener, err := proc.Listen("notifier.grpc_address", o.GRPCAddress)
	if err != nil {
		return err
	}
	defer grpcListener.Close()
	httpListener, err := proc.Listen("notifier.http_address", o.HTTPAddress)
	if err != nil {
		return err
	}
	defer httpListener.Close()
	sender, err := courier.NewSender(routes.Integrations, userAgent(), o.Print)
	if err != nil {
		return proc.Usage(err)
	}
	defer sender.Close()

	health := &proc.Health{}
	gate := newGate(intake.NewMetrics(o.Registerer))
	health.Add("leading", gate.ready)
	leader := &leader{
		o: o, gate: gate, addresses: Addresses{GRPC: grpcListener.Addr().String(), HTTP: httpListener.Addr().String()},
		courier: courier.Options{
			Settings: routes, Hold: o.InhibitionHold, MaxJournalBytes: o.MaxJournalBytes,
			Sender: sender, Log: o.Log, Metrics: courier.NewMetrics(o.Registerer),
			Render: receiver.NewWriter(routes.Integrations, o.externalURL(httpListener.Addr())).Write,
		},
		leading: proc.Register(o.Registerer, prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "tocsin_notifier_leader", Help: "1 while this notifier leads, 0 while it stands by.",
		})),
	}
	server := rpc.NewServer(rpc.ServerOptions{Token: o.Token, Log: o.Log, Registerer: o.Registerer})
	notifyv1.RegisterNotifierServiceServer(server, &service{gate: gate, log: o.Log})

	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return server.Serve(ctx, grpcListener) })
	g.Go(func() error { return proc.ServeHTTP(ctx, httpListener, admin(o, health), o.Log) })
	g.Go(func() error {
		conn, err := bus.Connect(ctx, o.NATS)
		if err != nil {
			return fmt.Errorf("connect to NATS: %w", err)
		}
		defer conn.Close()
		health.Add("nats", func(context.Context) error {
			if !conn.Connected() {
				return errors.New("NATS is away")
			}
			return nil
		})
		return leader.run(ctx, conn)
	})
	if err := g.Wait(); err != nil && !errors.Is(err, context.Canceled) {
		return err
	}
	return nil
}

// admin answers on the HTTP port.
func admin(o Options, health *proc.Health) http.Handler {
	mux := proc.NewMux()
	health.Routes(mux)
	gatherer, ok := o.Registerer.(prometheus.Gatherer)
	if !ok {
		gatherer = prometheus.NewRegistry()
	}
	mux.Handle("GET /metrics", proc.RequireToken(o.Token, proc.MetricsHandler(gatherer)))
	return mux
}

// routes reads what names routes and receivers.
func (o *Options) routes() (*settings.Settings, error) {
	switch {
	case o.ConfigFile != "":
		routes, err := settings.Load(o.ConfigFile)
		if pathErr, ok := errors.AsType[*fs.PathError](err); ok && pathErr.Path == o.ConfigFile {
			err = fmt.Errorf("notifier.config_file: %w", err)
		}
		return routes, err
	case o.Config != nil:
		return settings.Parse("configuration of the notifier", o.Config, ".")
	}
	return settings.Default()
}

func (o *Options) externalURL(http net.Addr) string {
	if o.ExternalURL != "" {
		return o.ExternalURL
	}
	return "http://" + http.String()
}

func userAgent() string { return "Tocsin/" + proc.ThisBuild().Version }
