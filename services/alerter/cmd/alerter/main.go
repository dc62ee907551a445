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
	"github.com/tocsin-dev/tocsin/services/alerter/rulefile"
)

func main() {
	os.Exit(proc.Main("alerter", run))
}

func run(ctx context.Context, args []string) error {
	flags, ok, err := proc.ParseFlags("alerter", args, os.Stdout)
	if !ok {
		return err
	}
	opts, err := load(flags)
	if err != nil {
		return err
	}
	if flags.Healthcheck {
		return proc.Probe(ctx, opts.HTTPAddress)
	}
	opts.Reload = proc.Hangups(ctx)
	opts.Ready = func(a alerter.Addresses) { opts.Log.Info("alerter ready", "grpc", a.GRPC, "http", a.HTTP) }
	return alerter.Run(ctx, opts)
}

// load reads the configuration file and the environment.
func load(flags proc.Flags) (alerter.Options, error) {
	opts := alerter.DefaultOptions()
	nats := bus.DefaultConfig()
	redis, section, log := alerter.DefaultRedisConfig(), alerter.DefaultConfig(), proc.DefaultLogConfig()
	section.Insecure = flags.Insecure
	var targets rulefile.TargetPatterns
	err := proc.Load(flags.Config, os.Environ(), map[string]any{
		"nats": &nats, "redis": &redis, "targets": &targets, "alerter": &section, "log": &log,
	}, func() error {
		applied := errors.Join(nats.Apply(&opts.NATS), redis.Apply(&opts), section.Apply(&opts))
		if flags.Healthcheck { // it asks a process that has checked
			return applied
		}
		return errors.Join(applied, opts.Check())
	})
	if err != nil {
		return opts, err
	}
	opts.Targets = targets
	if opts.Log, err = proc.Logger(os.Stderr, log); err != nil {
		return opts, proc.Usage(err)
	}
	return opts, nil
}
