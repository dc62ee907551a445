// Command collector watches a RunPod account and writes what it sees to the
// event log in NATS.
package main

import (
	"context"
	"errors"
	"os"

	"github.com/tocsin-dev/tocsin/internal/bus"
	"github.com/tocsin-dev/tocsin/internal/proc"
	"github.com/tocsin-dev/tocsin/services/collector"
)

func main() {
	os.Exit(proc.Main("collector", run))
}

func run(ctx context.Context, args []string) error {
	flags, ok, err := proc.ParseFlags("collector", args, os.Stdout)
	if !ok {
		return err
	}
	opts := collector.DefaultOptions()
	nats := bus.DefaultConfig()
	log := proc.DefaultLogConfig()
	opts.Collector.Insecure = flags.Insecure
	err = proc.Load(flags.Config, os.Environ(), map[string]any{
		"runpod": &opts.RunPod, "nats": &nats, "collector": &opts.Collector, "log": &log,
	}, func() error {
		if flags.Healthcheck { // it asks a process that has checked
			return nil
		}
		return errors.Join(nats.Apply(&opts.NATS), opts.Check())
	})
	if err != nil {
		return err
	}
	if flags.Healthcheck {
		return proc.Probe(ctx, opts.Collector.HTTPAddress)
	}
	if opts.Log, err = proc.Logger(os.Stderr, log); err != nil {
		return proc.Usage(err)
	}
	opts.Ready = func(a collector.Addresses) {
		opts.Log.Info("collector ready", "ingest", a.Ingest.String(), "http", a.HTTP.String(), "grpc", a.GRPC.String())
	}
	return collector.Run(ctx, opts)
}
