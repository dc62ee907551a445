// Package stack runs the whole of Tocsin in one process: NATS and Redis inside,
// and the three services as they would run alone.
package stack

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"sync"

	"golang.org/x/sync/errgroup"

	"github.com/tocsin-dev/tocsin/cmd/tocsin/internal/embedded"
	"github.com/tocsin-dev/tocsin/internal/bus"
	"github.com/tocsin-dev/tocsin/internal/secret"
	"github.com/tocsin-dev/tocsin/services/alerter"
	"github.com/tocsin-dev/tocsin/services/collector"
	"github.com/tocsin-dev/tocsin/services/notifier"
)

// Options say what to run.
type Options struct {
	// Dir is the data directory; it is made when missing.
	Dir string
	// Collector, Alerter and Notifier are the services' options. Run sets their
	// connections, their loggers and their Ready functions.
	Collector collector.Options
	Alerter   alerter.Options
	Notifier  notifier.Options
	// Log takes the lines of all of them.
	Log *slog.Logger
	// Ready is called once, when all three serve; it may be nil.
	Ready func(Addresses)
}

// Addresses are where the services serve.
type Addresses struct {
	Collector collector.Addresses
	Alerter   alerter.Addresses
	Notifier  notifier.Addresses
}

// Run runs everything until ctx ends, which is no error, or until one of the
// services cannot go on. The services stop before the servers that they stand on.
func Run(ctx context.Context, o Options) error {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	dir, err := filepath.Abs(o.Dir)
	if err != nil {
		return fmt.Errorf("find the data directory: %w", err)
	}
	servers, err := embedded.Start(ctx, dir, o.Log)
	if err != nil {
		if errors.Is(err, context.Canceled) {
			return nil
		}
		return err
	}
	defer servers.Close()

	connect := func(name string) bus.Options { return bus.Options{InProcess: servers, Name: name} }
	ready := gather{tell: o.Ready, missing: 3}

	o.Notifier.NATS = connect("tocsin-notifier")
	o.Notifier.Log = o.Log.With("service", "notifier")
	o.Alerter.NATS = connect("tocsin-alerter")
	o.Alerter.Redis.Address = servers.RedisAddress
	o.Alerter.Redis.Password = secret.String(servers.RedisPassword)
	o.Alerter.Log = o.Log.With("service", "alerter")
	o.Collector.NATS = connect("tocsin-collector")
	o.Collector.Log = o.Log.With("service", "collector")
	// Whoever comes first makes the event log, so both must ask for the same.
	size := cmp.Or(o.Collector.Collector.MaxStreamBytes, o.Alerter.MaxStreamBytes, servers.HistoryBytes)
	o.Collector.Collector.MaxStreamBytes, o.Alerter.MaxStreamBytes = size, size

	g, ctx := errgroup.WithContext(ctx)
	// The alerter asks the notifier where its log ends, so it starts when the
	// notifier's port is known, which may be any (":0").
	notifierAt := make(chan string, 1)
	o.Notifier.Ready = func(a notifier.Addresses) {
		ready.add(func(all *Addresses) { all.Notifier = a })
		notifierAt <- a.GRPC
	}
	o.Alerter.Ready = func(a alerter.Addresses) { ready.add(func(all *Addresses) { all.Alerter = a }) }
	o.Collector.Ready = func(a collector.Addresses) { ready.add(func(all *Addresses) { all.Collector = a }) }
	g.Go(func() error { return named("notifier", notifier.Run(ctx, o.Notifier)) })
	g.Go(func() error {
		select {
		case o.Alerter.Notifier.Address = <-notifierAt:
		case <-ctx.Done():
			return nil
		}
		o.Alerter.Notifier.Token = o.Notifier.Token
		return named("alerter", alerter.Run(ctx, o.Alerter))
	})
	g.Go(func() error { return named("collector", collector.Run(ctx, o.Collector)) })
	return g.Wait()
}

// named says whose error it is.
func named(service string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s: %w", service, err)
}

// gather collects the addresses and tells them when it has all.
type gather struct {
	tell func(Addresses)

	mu      sync.Mutex
	all     Addresses // guarded by mu
	missing int       // guarded by mu
}

func (g *gather) add(set func(*Addresses)) {
	g.mu.Lock()
	defer g.mu.Unlock()
	set(&g.all)
	g.missing--
	if g.missing == 0 && g.tell != nil {
		g.tell(g.all)
	}
}
