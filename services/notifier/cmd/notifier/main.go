// Command notifier stores alerts in NATS and tells receivers about them.
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
	"github.com/tocsin-dev/tocsin/services/notifier"
)

func main() {
	os.Exit(proc.Main("notifier", run))
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
	flags := flag.NewFlagSet("notifier", flag.ContinueOnError)
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
		_, err := fmt.Fprintln(os.Stdout, "notifier", proc.ThisBuild())
		return err
	}
	opts, err := options(*file, *insecure, os.Environ())
	if err != nil {
		return err
	}
	opts.Print = func(line string) { fmt.Fprintln(os.Stdout, line) }
	opts.Ready = func(a notifier.Addresses) {
		opts.Log.Info("notifier ready", "grpc", a.GRPC, "http", a.HTTP)
	}
	return notifier.Run(ctx, opts)
}

// options reads the configuration.
func options(file string, insecure bool, environ []string) (notifier.Options, error) {
	opts := notifier.DefaultOptions()
	conf := notifier.DefaultConfig()
	conf.Insecure = insecure
	nats := natsConfig{URL: opts.NATS.URL}
	log := proc.DefaultLogConfig()
	if err := proc.Load(file, environ, map[string]any{"nats": &nats, "notifier": &conf, "log": &log}); err != nil {
		return opts, err
	}
	password, err := secret.Resolve("nats.password", nats.Password, nats.PasswordFile)
	if err := errors.Join(err, conf.Apply(&opts)); err != nil {
		return opts, proc.Usage(err)
	}
	opts.NATS = bus.Options{URL: nats.URL, Name: opts.NATS.Name, User: nats.User, Password: password, Replicas: nats.Replicas}
	if opts.Log, err = proc.Logger(os.Stderr, log); err != nil {
		return opts, proc.Usage(err)
	}
	return opts, nil
}
