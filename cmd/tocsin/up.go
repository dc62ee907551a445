package main

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/tocsin-dev/tocsin/cmd/tocsin/internal/cli"
	"github.com/tocsin-dev/tocsin/cmd/tocsin/internal/stack"
	"github.com/tocsin-dev/tocsin/internal/proc"
	"github.com/tocsin-dev/tocsin/services/alerter"
	"github.com/tocsin-dev/tocsin/services/alerter/rulefile"
	"github.com/tocsin-dev/tocsin/services/collector"
	"github.com/tocsin-dev/tocsin/services/notifier"
)

// upCommand watches a RunPod account.
type upCommand struct {
	Config   string `help:"Configuration file; without one everything has its default." type:"path" placeholder:"FILE"`
	Data     string `help:"Data directory (default: ~/.local/state/tocsin/up)." type:"path" placeholder:"DIR"`
	Insecure bool   `help:"Let other machines reach ports that ask for no token."`
}

// config is what the file of a single process may say.
type config struct {
	runpod    collector.RunPodConfig
	targets   rulefile.TargetPatterns
	collector collector.Config
	alerter   alerter.Config
	notifier  notifier.Config
	log       proc.LogConfig
}

// load reads the file at path, if any, and the environment, and all files that
// they name. Its error names every mistake at once.
func load(path string, insecure bool, log proc.LogConfig) (*config, error) {
	c := &config{
		runpod:    collector.DefaultRunPodConfig(),
		collector: collector.DefaultConfig(),
		alerter:   alerter.DefaultConfig(),
		notifier:  notifier.DefaultConfig(),
		log:       log,
	}
	c.collector.Insecure, c.alerter.Insecure, c.notifier.Insecure = insecure, insecure, insecure
	err := proc.Load(path, os.Environ(), map[string]any{
		"runpod":    &c.runpod,
		"targets":   &c.targets,
		"collector": &c.collector,
		"alerter":   &c.alerter,
		"notifier":  &c.notifier,
		"log":       &c.log,
	}, c.check)
	return c, err
}

// check looks at what the configuration names.
func (c *config) check() error {
	o, err := c.options()
	o.Alerter.Notifier = alerter.DefaultOptions().Notifier // the one in this process
	return errors.Join(err, o.Collector.Check(), o.Alerter.Check(), o.Notifier.Check())
}

// options turns the configuration into what the stack runs.
func (c *config) options() (stack.Options, error) {
	o := stack.Options{
		Collector: collector.DefaultOptions(),
		Alerter:   alerter.DefaultOptions(),
		Notifier:  notifier.DefaultOptions(),
	}
	o.Collector.RunPod, o.Collector.Collector = c.runpod, c.collector
	err := errors.Join(c.alerter.Apply(&o.Alerter), c.notifier.Apply(&o.Notifier))
	o.Alerter.Targets = c.targets
	return o, err
}

// Run watches the account until ctx ends.
func (c *upCommand) Run(ctx context.Context, t cli.Terminal) error {
	cfg, err := load(c.Config, c.Insecure, logDefaults(cli.IsTerminal(t.Err)))
	if err != nil {
		return err
	}
	o, err := cfg.options()
	if err != nil {
		return proc.Usage(err)
	}
	if o.Dir = c.Data; o.Dir == "" {
		if o.Dir, err = stateDir("up"); err != nil {
			return err
		}
	}
	if err := makeData(o.Dir); err != nil {
		return err
	}
	if o.Log, err = proc.Logger(t.Err, cfg.log); err != nil {
		return proc.Usage(err)
	}
	if !cli.IsTerminal(t.Out) { // a terminal that is closed hangs up, and means the end
		o.Alerter.Reload = proc.Hangups(ctx)
	}
	o.Notifier.Print = func(line string) { fmt.Fprintln(t.Out, line) }
	o.Ready = func(a stack.Addresses) {
		fmt.Fprintf(t.Out, "Tocsin watches account %q. Its data is in %s.\n", cfg.runpod.Account, o.Dir)
		printAddresses(t, a)
		if cfg.notifier.ConfigFile == "" {
			fmt.Fprintln(t.Out, "No receiver is configured: alerts are printed here and nobody else is told. Name one in notifier.config_file.")
		}
	}
	return stack.Run(ctx, o)
}

// logDefaults are what is logged unless the configuration says otherwise: for a
// person at a terminal, where alerts are printed too, what goes wrong, as text.
func logDefaults(terminal bool) proc.LogConfig {
	if terminal {
		return proc.LogConfig{Level: "warn", Format: "text"}
	}
	return proc.DefaultLogConfig()
}

// printAddresses tells where everything is served.
func printAddresses(t cli.Terminal, a stack.Addresses) {
	for _, line := range []struct{ what, where any }{
		{"jobs and webhooks  ", a.Collector.Ingest},
		{"fleet metrics      ", fmt.Sprintf("http://%s/metrics", a.Collector.HTTP)},
		{"alerter metrics    ", fmt.Sprintf("http://%s/metrics", a.Alerter.HTTP)},
		{"notifier metrics   ", fmt.Sprintf("http://%s/metrics", a.Notifier.HTTP)},
		{"query API (gRPC)   ", a.Alerter.GRPC},
		{"notifier API (gRPC)", a.Notifier.GRPC},
		{"ingest API (gRPC)  ", a.Collector.GRPC},
	} {
		fmt.Fprintf(t.Out, "  %s  %v\n", line.what, line.where)
	}
}
