// Command alerter judges the event log by rules, tells the notifier of alerts
// and answers questions about them.
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
	"github.com/tocsin-dev/tocsin/services/alerter"
)

func main() {
	os.Exit(proc.Main("alerter", run))
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
	flags := flag.NewFlagSet("alerter", flag.ContinueOnError)
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
		fmt.Fprintln(os.Stdout, "alerter", proc.ThisBuild())
		return nil
	}
	opts, err := load(*file, *insecure)
	if err != nil {
		return err
	}
	opts.Ready = func(a alerter.Addresses) { opts.Log.Info("alerter ready", "grpc", a.GRPC, "http", a.HTTP) }
	return alerter.Run(ctx, opts)
}

// load reads the configuration file and the environment.
func load(file string, insecure bool) (alerter.Options, error) {
	opts := alerter.DefaultOptions()
	nats := natsConfig{URL: opts.NATS.URL}
	redis, section, log := alerter.DefaultRedisConfig(), alerter.DefaultConfig(), proc.DefaultLogConfig()
	section.Insecure = insecure
	err := proc.Load(file, os.Environ(), map[string]any{
		"nats": &nats, "redis": &redis, "targets": &opts.Targets, "alerter": &section, "log": &log,
	})
	if err != nil {
		return opts, err
	}
	password, err := secret.Resolve("nats.password", nats.Password, nats.PasswordFile)
	if err := errors.Join(err, redis.Apply(&opts), section.Apply(&opts)); err != nil {
		return opts, proc.Usage(err)
	}
	opts.NATS = bus.Options{URL: nats.URL, Name: opts.NATS.Name, User: nats.User, Password: password, Replicas: nats.Replicas}
	if opts.Log, err = proc.Logger(os.Stderr, log); err != nil {
		return opts, proc.Usage(err)
	}
	return opts, nil
}
