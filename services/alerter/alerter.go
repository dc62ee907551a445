// Package alerter judges the event log by rules: it folds each partition of
// the log into state, keeps the state in Redis, tells the notifier of every
// alert that fires or resolves, and answers questions about alerts, targets
// and rules.
//
// What it tells follows from the log and the rule sets that the log names. It
// may be killed at any moment, and Redis may forget everything: what comes back
// from snapshots and a replay is the same, alert ids included, so that the
// notifier knows what it has already. When no snapshot fits what is left of the
// log, the state is rebuilt from that and compared with what the notifier was
// told: alerts that fire in both keep their ids, and only differences are told.
package alerter

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/tocsin-dev/tocsin/internal/bus"
	"github.com/tocsin-dev/tocsin/internal/event"
	"github.com/tocsin-dev/tocsin/internal/proc"
	"github.com/tocsin-dev/tocsin/internal/rpc"
	notifyv1 "github.com/tocsin-dev/tocsin/proto/gen/tocsin/notify/v1"
	queryv1 "github.com/tocsin-dev/tocsin/proto/gen/tocsin/query/v1"
	rulev1 "github.com/tocsin-dev/tocsin/proto/gen/tocsin/rule/v1"
	"github.com/tocsin-dev/tocsin/services/alerter/internal/drive"
	"github.com/tocsin-dev/tocsin/services/alerter/internal/engine"
	"github.com/tocsin-dev/tocsin/services/alerter/internal/eventlog"
	"github.com/tocsin-dev/tocsin/services/alerter/internal/feed"
	"github.com/tocsin-dev/tocsin/services/alerter/internal/outbox"
	"github.com/tocsin-dev/tocsin/services/alerter/internal/own"
	"github.com/tocsin-dev/tocsin/services/alerter/internal/query"
	"github.com/tocsin-dev/tocsin/services/alerter/internal/reload"
	"github.com/tocsin-dev/tocsin/services/alerter/internal/ruleset"
	"github.com/tocsin-dev/tocsin/services/alerter/internal/snapshot"
	"github.com/tocsin-dev/tocsin/services/alerter/internal/state"
	"github.com/tocsin-dev/tocsin/services/alerter/internal/trial"
)

// Run runs the alerter until ctx ends, which is no error. It returns an error
// when opts or rules are wrong, a port is taken, or the streams and buckets in
// NATS have other settings than expected.
func Run(ctx context.Context, opts Options) error {
	opts = opts.withDefaults()
	program, files, err := opts.compile()
	if err != nil {
		return proc.Usage(err)
	}
	grpcLn, err := proc.Listen("alerter.grpc_address", opts.GRPCAddress)
	if err != nil {
		return err
	}
	defer grpcLn.Close()
	httpLn, err := proc.Listen("alerter.http_address", opts.HTTPAddress)
	if err != nil {
		return err
	}
	defer httpLn.Close()

	g, ctx := errgroup.WithContext(ctx)
	health := &proc.Health{}
	var working atomic.Bool
	health.Add("started", func(context.Context) error {
		if !working.Load() {
			return errors.New("the alerter waits for NATS")
		}
		return nil
	})
	admin := proc.NewMux()
	health.Routes(admin)
	admin.Handle("GET /metrics", proc.RequireToken(opts.Token, proc.MetricsHandler(opts.gatherer)))
	g.Go(func() error { return proc.ServeHTTP(ctx, httpLn, admin, opts.Log) })
	g.Go(func() error {
		return work(ctx, opts, program, files, health, grpcLn, func() {
			working.Store(true)
			if opts.Ready != nil {
				opts.Ready(Addresses{GRPC: grpcLn.Addr().String(), HTTP: httpLn.Addr().String()})
			}
		})
	})
	if err := g.Wait(); err != nil && !errors.Is(err, context.Canceled) {
		return err
	}
	return nil
}

// work wires what stands on NATS and runs it until ctx ends. Read it top to
// bottom: each part needs only what is above it.
func work(ctx context.Context, opts Options, program *engine.Program, files map[string][]byte, health *proc.Health, ln net.Listener, ready func()) error {
	log, reg := opts.Log, opts.Registerer
	conn, err := bus.Connect(ctx, opts.NATS)
	if err != nil {
		return fmt.Errorf("connect to NATS: %w", err)
	}
	defer conn.Close()
	nats, err := openNATS(ctx, conn)
	if err != nil {
		return err
	}
	store := state.Open(state.Options{
		Address: opts.Redis.Address, User: opts.Redis.User, Password: opts.Redis.Password, DB: opts.Redis.DB,
		Log: log, Registerer: reg,
	})
	defer store.Close()
	notifierConn, err := rpc.Dial(opts.Notifier.Address, rpc.DialOptions{Token: opts.Notifier.Token, Insecure: opts.Notifier.Insecure})
	if err != nil {
		return proc.Usage(fmt.Errorf("alerter.notifier.address: %w", err))
	}
	defer notifierConn.Close()
	notifier := notifyv1.NewNotifierServiceClient(notifierConn)
	addChecks(health, conn, store)

	if _, err := conn.EnsureStream(ctx, bus.Events(opts.MaxStreamBytes)); err != nil {
		return fmt.Errorf("open the event log: %w", err)
	}
	eventLog, err := eventlog.Open(ctx, conn, bus.Events(opts.MaxStreamBytes), nats.meta, log)
	if err != nil {
		return err
	}
	snapshots, err := snapshot.NewStore(nats.snapshots)
	if err != nil {
		return err
	}
	library := ruleset.NewLibrary(nats.rules, nats.meta, program)
	reloader, reconfigured := reloading(opts, program, files, library)
	activation := &ruleset.Activation{
		Library: library, Log: eventLog.Changed, Publish: conn.PublishAtomic, Logger: log, Reconfigured: reconfigured,
	}
	reader := eventlog.NewReader(conn, eventLog)
	events := feed.New(reader, log, reg)
	view := query.NewView(store, log)
	driver, err := drive.New(drive.Options{
		State: store, Snapshots: snapshots, EventLog: eventLog, Feed: events, Rules: library,
		Sender: outbox.NewSender(notifier, log, reg), Notifier: notifier,
		Publish: conn.Publish, ReadPartition: reader.ReadPartition, Audience: view,
		Speed: opts.Speed, SnapshotEvery: opts.SnapshotInterval, Log: log, Registerer: reg,
	})
	if err != nil {
		return err
	}
	self := "alerter-" + rand.Text()[:12]
	leases, err := conn.Leases(ctx, bus.LeasesBucket, bus.LeaseOptions{Owner: self})
	if err != nil {
		return err
	}
	keeper := own.New(own.Options{
		Self: self, Partitions: event.Partitions, Leases: busLeases{leases}, Run: driver.Run, Log: log, Registerer: reg,
	})
	older := func(ctx context.Context) (map[int]uint64, error) { return snapshots.Older(ctx, eventLog.ID()) }
	health.Add("owners", func(context.Context) error { return keeper.Vacant() })
	health.Add("partitions", func(context.Context) error { return driver.Stuck() })
	history := eventlog.NewHistory(conn, event.Partitions, older, log, reg)
	server := rpc.NewServer(rpc.ServerOptions{Token: opts.Token, Log: log, Registerer: reg})
	queryv1.RegisterQueryServiceServer(server, query.NewServer(query.Options{
		Store: store, View: view, Rules: library, Speed: opts.Speed, End: reader.End, Log: log,
	}))
	rulev1.RegisterRuleServiceServer(server, ruleService{&reload.Server{Reloader: reloader}, backtests(opts, eventLog, library)})

	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error {
		store.WarnOfEviction(ctx)
		return nil
	})
	g.Go(func() error { return activation.Run(ctx) })
	g.Go(func() error { return reloader.Run(ctx) })
	g.Go(func() error { return events.Run(ctx) })
	g.Go(func() error { return eventLog.Run(ctx, events.Reached) })
	g.Go(func() error { return keeper.Run(ctx) })
	g.Go(func() error { return history.Run(ctx) })
	g.Go(func() error { return view.Run(ctx) })
	g.Go(func() error { return server.Serve(ctx, ln) })
	g.Go(func() error { return tellHealth(ctx, health, server) })
	log.Info("alerter works", "replica", self, "log_id", eventLog.ID(), "rule_set", program.Hash(), "rules", len(program.Set().Rules()))
	ready()
	return g.Wait()
}

// reloading returns what reads the rule files anew, and what tells that it brought
// others into the library.
func reloading(opts Options, program *engine.Program, files map[string][]byte, library *ruleset.Library) (*reload.Reloader, <-chan struct{}) {
	doubt := func(program *engine.Program) {
		for _, d := range program.Doubts() {
			opts.Log.Warn("a rule may say what is not meant", "place", d.Position.String(), "doubt", d.Text)
		}
	}
	doubt(program)
	reconfigured := make(chan struct{}, 1)
	return reload.New(reload.Options{
		Read: opts.ruleFiles, Compile: opts.compileRules,
		Bring: func(program *engine.Program) {
			doubt(program)
			library.Configure(program)
			select {
			case reconfigured <- struct{}{}:
			default: // it is told already
			}
		},
		Hangup: opts.Reload, Log: opts.Log, Registerer: opts.Registerer,
	}, files, program), reconfigured
}

// ruleService is the RuleService, which has two parts.
type ruleService struct {
	*reload.Server
	*trial.Handler
}

// backtests returns what serves backtests.
func backtests(opts Options, log *eventlog.Log, library *ruleset.Library) *trial.Handler {
	nats := opts.NATS
	// Each has a connection of its own, whose metrics would be the live one's.
	nats.Name, nats.Registerer = nats.Name+"-backtest", nil
	return trial.New(trial.Options{
		Connect: func(ctx context.Context) (*bus.Conn, error) { return bus.Connect(ctx, nats) },
		LogID:   log.ID, Configured: library.Configured, Targets: opts.Targets, Speed: opts.Speed,
		Log: opts.Log, Registerer: opts.Registerer,
	})
}

// natsParts are what the alerter keeps in NATS, but for the leases.
type natsParts struct {
	rules, meta *bus.Bucket
	snapshots   *bus.Objects
}

func openNATS(ctx context.Context, conn *bus.Conn) (p natsParts, err error) {
	if p.rules, err = conn.Bucket(ctx, bus.BucketConfig{Name: bus.RulesBucket}); err != nil {
		return p, err
	}
	if p.meta, err = conn.Bucket(ctx, bus.BucketConfig{Name: bus.MetaBucket}); err != nil {
		return p, err
	}
	p.snapshots, err = conn.Objects(ctx, bus.SnapshotsBucket)
	return p, err
}

func addChecks(health *proc.Health, conn *bus.Conn, store *state.Store) {
	health.Add("nats", func(context.Context) error {
		if !conn.Connected() {
			return errors.New("NATS is away")
		}
		return nil
	})
	health.Add("redis", store.Ping)
}

// healthEvery is how often gRPC's health service learns what /readyz would say.
const healthEvery = time.Second

// tellHealth tells gRPC's health service until ctx ends, and returns its error:
// the server serves when the alerter is ready, and questions are answered as long
// as there is Redis.
func tellHealth(ctx context.Context, health *proc.Health, server *rpc.Server) error {
	tick := time.NewTicker(healthEvery)
	defer tick.Stop()
	for {
		failing := health.Failing(ctx)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		server.SetServing("", len(failing) == 0)
		server.SetServing(queryv1.QueryService_ServiceDesc.ServiceName, failing["redis"] == nil)
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
	}
}

// busLeases are the bus's leases as the keeper of partitions sees them.
type busLeases struct{ leases *bus.Leases }

// Claim takes a lease.
func (l busLeases) Claim(ctx context.Context, name string) (own.Lease, bool, error) {
	lease, ok, err := l.leases.Claim(ctx, name)
	return lease, ok, err
}

// Owners returns the owners of all leases.
func (l busLeases) Owners(ctx context.Context) (map[string]string, error) {
	return l.leases.Owners(ctx)
}
