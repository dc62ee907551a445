// Command collector watches a RunPod account and writes what it sees to the
// event log in NATS.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"

	"github.com/tocsin-dev/tocsin/internal/bus"
	"github.com/tocsin-dev/tocsin/internal/proc"
	"github.com/tocsin-dev/tocsin/internal/secret"
	"github.com/tocsin-dev/tocsin/services/collector"
)

func main() {
	os.Exit(proc.Main("collector", run))
}

// natsConfig is the section "nats" of the configuration.
type natsConfig struct {
	URL          string        `yaml:"url"`
	User         string        `yaml:"user"`
	Password     secret.String `yaml:"password"`
	PasswordFile string        `yaml:"password_file"`
	Replicas     int           `yaml:"replicas"`
}

func run(ctx context.Context, args []string) error {
	flags := flag.NewFlagSet("collector", flag.ContinueOnError)
	file := flags.String("config", "", "configuration `file`; its keys are also read from TOCSIN_<SECTION>_<KEY>")
	insecure := flags.Bool("insecure", false, "let other machines reach ports that ask for no token")
	version := flags.Bool("version", false, "print the version and exit")
	if err := flags.Parse(args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			return err
		}
		return proc.Usage(err)
	}
	if flags.NArg() > 0 {
		return proc.Usage(fmt.Errorf("unexpected argument %q", flags.Arg(0)))
	}
	if *version {
		_, err := fmt.Fprintln(os.Stdout, "collector", proc.ThisBuild())
		return err
	}

	opts := collector.DefaultOptions()
	nats := natsConfig{URL: opts.NATS.URL}
	log := proc.DefaultLogConfig()
	opts.Collector.Insecure = *insecure
	err := proc.Load(*file, os.Environ(), map[string]any{
		"runpod": &opts.RunPod, "nats": &nats, "collector": &opts.Collector, "log": &log,
	})
	if err != nil {
		return err
	}
	password, err := secret.Resolve("nats.password", nats.Password, nats.PasswordFile)
	if err != nil {
		return proc.Usage(err)
	}
	opts.NATS = bus.Options{URL: nats.URL, Name: opts.NATS.Name, User: nats.User, Password: password, Replicas: nats.Replicas}
	if opts.Log, err = proc.Logger(os.Stderr, log); err != nil {
		return proc.Usage(err)
	}
	opts.Ready = func(a collector.Addresses) {
		opts.Log.Info("collector ready", "ingest", a.Ingest.String(), "http", a.HTTP.String(), "grpc", a.GRPC.String())
	}
	return collector.Run(ctx, opts)
}
