// Package collector watches a RunPod account and writes what it sees to the
// event log: every fact once, in order per target. It polls RunPod's inventory,
// the health of each queue endpoint, the pods and the jobs that it was told of,
// takes RunPod's completion webhooks, and never sends anything but reads to
// RunPod. It keeps running, and says so, while RunPod or NATS are away.
package collector

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/tocsin-dev/tocsin/internal/bus"
	"github.com/tocsin-dev/tocsin/internal/proc"
	"github.com/tocsin-dev/tocsin/internal/rpc"
	eventv1 "github.com/tocsin-dev/tocsin/proto/gen/tocsin/event/v1"
	ingestv1 "github.com/tocsin-dev/tocsin/proto/gen/tocsin/ingest/v1"
	"github.com/tocsin-dev/tocsin/services/collector/internal/fleet"
	"github.com/tocsin-dev/tocsin/services/collector/internal/ingest"
	"github.com/tocsin-dev/tocsin/services/collector/internal/inventory"
	"github.com/tocsin-dev/tocsin/services/collector/internal/job"
	"github.com/tocsin-dev/tocsin/services/collector/internal/outbox"
	"github.com/tocsin-dev/tocsin/services/collector/internal/poll"
	"github.com/tocsin-dev/tocsin/services/collector/runpod"
)

// jobShare is the part of the calls in flight, one in so many, that polls of jobs
// may take. A million jobs must not delay the health of their endpoints.
const jobShare = 4

const (
	// samplesOfTarget are the samples of a target that can wait at once: what was
	// read of it, that its poll failed, and that those of its jobs did.
	samplesOfTarget = 3
	// samplesOfAccount are those of the account: its heartbeat and the failures of
	// two lists.
	samplesOfAccount = 3
)

var errAway = errors.New("NATS is away")

// Run watches the account until ctx ends, which is no error. It returns an error
// when opts are wrong, a port is taken, the event log has other settings than
// expected, or RunPod refuses the key of an account that was never seen before.
func Run(ctx context.Context, opts Options) error {
	opts = opts.withDefaults()
	secrets, err := opts.resolve()
	if err != nil {
		return proc.Usage(err)
	}
	client, err := runpod.New(runpod.Options{
		APIKey: secrets.key, ServerlessURL: opts.RunPod.ServerlessURL, RESTURL: opts.RunPod.RESTURL,
		Timeout: opts.Collector.Timeout, MaxConcurrent: opts.Collector.MaxConcurrent,
		MaxListBytes: runpod.DefaultMaxListBytes * opts.Collector.lists(), MaxEntries: runpod.DefaultMaxEntries * int(opts.Collector.lists()),
	})
	if err != nil {
		return proc.Usage(err)
	}
	defer client.CloseIdle()
	for _, u := range opts.RunPod.unencrypted() {
		opts.Log.Warn("RunPod's API key is sent unencrypted: use https", "url", u)
	}
	opts.Registerer.MustRegister(quota{windows: client.Quota})
	ports, err := listen(opts.Collector)
	if err != nil {
		return err
	}
	defer ports.close()

	// The port of administration answers while the collector still waits for NATS.
	health := &proc.Health{}
	started := make(chan struct{})
	health.Add("started", func(context.Context) error {
		select {
		case <-started:
			return nil
		default:
			return errors.New("the collector waits for NATS, or reads its log")
		}
	})
	admin := proc.NewMux()
	health.Routes(admin)
	admin.Handle("GET /metrics", proc.RequireToken(secrets.token, proc.MetricsHandler(opts.gatherer)))

	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return proc.ServeHTTP(ctx, ports.http, admin, opts.Log) })
	g.Go(func() error {
		return watch(ctx, opts, secrets, client, ports, health, func() {
			close(started)
			if opts.Ready != nil {
				opts.Ready(ports.addresses())
			}
		})
	})
	if err := g.Wait(); err != nil && !errors.Is(err, context.Canceled) {
		return err
	}
	return nil
}

// watch wires the collector's parts and runs them until ctx ends. Read it top to
// bottom: each part needs only what is above it.
func watch(
	ctx context.Context, opts Options, secrets secrets, client *runpod.Client, ports listeners, health *proc.Health, ready func(),
) error {
	cfg, account, log := opts.Collector, opts.RunPod.Account, opts.Log
	conn, err := bus.Connect(ctx, opts.NATS)
	if err != nil {
		return fmt.Errorf("connect to NATS: %w", err)
	}
	defer conn.Close()
	health.Add("nats", func(context.Context) error {
		if !conn.Connected() {
			return errAway
		}
		return nil
	})
	if _, err := conn.EnsureStream(ctx, bus.Events(cfg.MaxStreamBytes)); err != nil {
		return fmt.Errorf("open the event log: %w", err)
	}
	meta, err := conn.Bucket(ctx, bus.BucketConfig{Name: bus.MetaBucket})
	if err != nil {
		return err
	}
	if secrets.webhook, err = webhookSecret(ctx, meta, secrets.webhook); err != nil {
		return err
	}

	tracker := job.NewTracker(job.Options{MaxOpen: cfg.MaxTrackedJobs, Fast: cfg.JobFastInterval, Slow: cfg.JobInterval})
	past, err := recall(ctx, conn, meta, inventory.New(account, cfg.MaxTargets), account, tracker)
	if err != nil {
		return fmt.Errorf("read the event log: %w", err)
	}
	log.Info("event log read", "targets", past.inventory.Len(), "open_jobs", len(tracker.Open()))
	if err := announce(ctx, conn); err != nil {
		return err
	}

	// A target that is polled rarely keeps its series from one poll to the next.
	figures := fleet.New(opts.Registerer, cfg.MaxTargets, max(fleet.StaleAfter, 3*cfg.HealthInterval, 3*cfg.PodsInterval))
	box := outbox.New(outbox.Options{
		Store: func(ctx context.Context, subject, id string, data []byte) error {
			if !conn.Connected() {
				return errAway // an attempt that waits would not count what it holds
			}
			_, err := conn.Publish(ctx, bus.Message{Subject: subject, ID: id, Data: data})
			return err
		},
		Hopeless:   func(err error) bool { return errors.Is(err, bus.ErrTooLarge) },
		MaxFacts:   max(outbox.DefaultMaxFacts, cfg.MaxTargets), // all of which may be discovered by one list
		MaxSamples: samplesOfTarget*cfg.MaxTargets + samplesOfAccount,
		Registerer: opts.Registerer,
		Log:        log,
	})
	publish := func(e *eventv1.Event, read time.Time) bool {
		if !box.Add(e, read) {
			return false
		}
		figures.Observe(e, read)
		return true
	}

	clock := poll.NewClock(time.Now(), past.lastSlot)
	polls := poll.NewMetrics(opts.Registerer)
	directory := ingest.NewDirectory(account, secrets.webhook)
	for _, t := range past.inventory.Targets() {
		enlist(directory, t)
	}
	jobWorkers := max(cfg.MaxConcurrent/jobShare, 1)
	known := past.inventory.Len() > 0
	skew := newSkew(conn, account)
	var jobs *job.Follower
	targets := poll.NewAccount(poll.Options{
		Account: account, API: client, Clock: clock, Publish: publish,
		Changed: func(t inventory.Target) { enlist(directory, t) },
		Removed: func(key inventory.Key) {
			directory.Remove(key.ID)
			jobs.Drop(key.ID)
		},
		Health: cfg.HealthInterval, Pods: cfg.PodsInterval, Inventory: cfg.InventoryInterval,
		MaxBackoff: cfg.MaxBackoff, Workers: max(cfg.MaxConcurrent-jobWorkers, 1),
		Jitter: rand.Float64, Skew: skew.known, Metrics: polls, Log: log,
	}, past.inventory)
	jobs = job.NewFollower(job.FollowerOptions{
		Account: account, Status: client.JobStatus, Clock: clock, Publish: targets.Publish,
		Store:  func(ctx context.Context, e *eventv1.Event) error { return store(ctx, conn, e) },
		Target: targets.Target, Healthy: targets.Healthy, Round: targets.Round(),
		Bounds:     job.Options{MaxOpen: cfg.MaxTrackedJobs, Fast: cfg.JobFastInterval, Slow: cfg.JobInterval},
		MaxBackoff: cfg.MaxBackoff, FailureEvery: cfg.HealthInterval, Workers: jobWorkers,
		Jitter: rand.Float64, Polls: polls, Metrics: job.NewMetrics(opts.Registerer), Log: log,
	}, tracker)
	poll.RegisterLag(opts.Registerer, "targets", targets.Late)
	poll.RegisterLag(opts.Registerer, "jobs", jobs.Late)
	service := ingest.NewService(ingest.Options{
		Account: account, Jobs: jobs, Directory: directory, Token: secrets.token, APIKey: secrets.key,
		Settle: func(ctx context.Context, endpoint string) {
			box.Settle(ctx, &eventv1.Target{Account: account, Kind: eventv1.TargetKind_TARGET_KIND_ENDPOINT, Id: endpoint})
		},
		Registerer: opts.Registerer, Log: log,
	})
	open := proc.NewMux()
	service.Routes(open)
	(&proc.Health{}).Routes(open) // alive is all that this port tells
	server := rpc.NewServer(rpc.ServerOptions{Token: secrets.token, Log: log, Registerer: opts.Registerer})
	ingestv1.RegisterIngestServiceServer(server, service)

	endpoints, pods := targets.First(ctx)
	if err := checkKey(log, known, endpoints, pods); err != nil {
		return err
	}
	working, stop := context.WithCancel(ctx)
	defer stop()
	var work errgroup.Group
	work.Go(func() error { box.Run(working); return nil })
	work.Go(func() error { targets.Run(working); return nil })
	work.Go(func() error { jobs.Run(working); return nil })
	work.Go(func() error { return keepOldest(working, meta, account, jobs.Oldest, log) })
	work.Go(func() error { skew.run(working); return nil })
	work.Go(func() error { defer stop(); return ingest.Serve(working, ports.ingest, open, log) })
	work.Go(func() error { defer stop(); return server.Serve(working, ports.grpc) })
	ready()
	return work.Wait()
}

// enlist gives an endpoint its webhook.
func enlist(d *ingest.Directory, t inventory.Target) {
	if t.Kind != eventv1.TargetKind_TARGET_KIND_ENDPOINT {
		return
	}
	e := ingest.Endpoint{ID: t.ID, Name: t.Name, Type: "unknown"}
	switch t.Spec.GetEndpoint().GetType() {
	case eventv1.EndpointType_ENDPOINT_TYPE_QUEUE:
		e.Type = "queue"
	case eventv1.EndpointType_ENDPOINT_TYPE_LOAD_BALANCER:
		e.Type = "load_balancer"
	}
	d.Put(e)
}
