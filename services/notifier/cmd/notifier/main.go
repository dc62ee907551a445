// Command notifier stores alerts in NATS and tells receivers about them.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	_ "time/tzdata" // routes name time zones, and an image without a system has no files of them

	"github.com/tocsin-dev/tocsin/internal/bus"
	"github.com/tocsin-dev/tocsin/internal/proc"
	"github.com/tocsin-dev/tocsin/services/notifier"
)

func main() {
	os.Exit(proc.Main("notifier", run))
}

func run(ctx context.Context, args []string) error {
	flags, ok, err := proc.ParseFlags("notifier", args, os.Stdout)
	if !ok {
		return err
	}
	opts, err := options(flags, os.Environ())
	if err != nil {
		return err
	}
	if flags.Healthcheck {
		return proc.Probe(ctx, opts.HTTPAddress)
	}
	opts.Print = func(line string) { fmt.Fprintln(os.Stdout, line) }
	opts.Ready = func(a notifier.Addresses) {
		opts.Log.Info("notifier ready", "grpc", a.GRPC, "http", a.HTTP)
	}
	return notifier.Run(ctx, opts)
}

// options reads the configuration.
func options(flags proc.Flags, environ []string) (notifier.Options, error) {
	opts := notifier.DefaultOptions()
	conf := notifier.DefaultConfig()
	conf.Insecure = flags.Insecure
	nats := bus.DefaultConfig()
	log := proc.DefaultLogConfig()
	err := proc.Load(flags.Config, environ, map[string]any{"nats": &nats, "notifier": &conf, "log": &log}, func() error {
		applied := errors.Join(nats.Apply(&opts.NATS), conf.Apply(&opts))
		if flags.Healthcheck { // it asks a process that has checked
			return applied
		}
		return errors.Join(applied, opts.Check())
	})
	if err != nil {
		return opts, err
	}
	if opts.Log, err = proc.Logger(os.Stderr, log); err != nil {
		return opts, proc.Usage(err)
	}
	return opts, nil
}
