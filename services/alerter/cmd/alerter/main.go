// Command alerter judges the event log by rules, tells the notifier of alerts
// and answers questions about them.
package main

import (
	"context"
	"errors"
	"os"

	"github.com/tocsin-dev/tocsin/internal/bus"
	"github.com/tocsin-dev/tocsin/internal/proc"
	"github.com/tocsin-dev/tocsin/services/alerter"
)

func main() {
	os.Exit(proc.Main("alerter", run))
}

func run(ctx context.Context, args []string) error {
	flags, ok, err := proc.ParseFlags("alerter", args, os.Stdout)
	if !ok {
		return err
	}
	opts, err := load(flags.Config, flags.Insecure)
	if err != nil {
		return err
	}
	if flags.Healthcheck {
		return proc.Probe(ctx, opts.HTTPAddress)
	}
	opts.Ready = func(a alerter.Addresses) { opts.Log.Info("alerter ready", "grpc", a.GRPC, "http", a.HTTP) }
	return alerter.Run(ctx, opts)
}

// load reads the configuration file and the environment.
func load(file string, insecure bool) (alerter.Options, error) {
	opts := alerter.DefaultOptions()
	nats := bus.DefaultConfig()
	redis, section, log := alerter.DefaultRedisConfig(), alerter.DefaultConfig(), proc.DefaultLogConfig()
	section.Insecure = insecure
	err := proc.Load(file, os.Environ(), map[string]any{
		"nats": &nats, "redis": &redis, "targets": &opts.Targets, "alerter": &section, "log": &log,
	})
	if err != nil {
		return opts, err
	}
	if err := errors.Join(nats.Apply(&opts.NATS), redis.Apply(&opts), section.Apply(&opts)); err != nil {
		return opts, proc.Usage(err)
	}
	if opts.Log, err = proc.Logger(os.Stderr, log); err != nil {
		return opts, proc.Usage(err)
	}
	return opts, nil
}
