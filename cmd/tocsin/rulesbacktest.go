package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/url"
	"os"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/tocsin-dev/tocsin/cmd/tocsin/internal/cli"
	"github.com/tocsin-dev/tocsin/internal/bus"
	"github.com/tocsin-dev/tocsin/internal/proc"
	"github.com/tocsin-dev/tocsin/internal/secret"
	alertv1 "github.com/tocsin-dev/tocsin/proto/gen/tocsin/alert/v1"
	rulev1 "github.com/tocsin-dev/tocsin/proto/gen/tocsin/rule/v1"
	"github.com/tocsin-dev/tocsin/rules"
	"github.com/tocsin-dev/tocsin/services/alerter/backtest"
	"github.com/tocsin-dev/tocsin/services/alerter/rulecheck"
	"github.com/tocsin-dev/tocsin/services/alerter/rulefile"
	"github.com/tocsin-dev/tocsin/services/notifier"
	"github.com/tocsin-dev/tocsin/services/notifier/forecast"
)

// natsTimeout bounds the first connection to NATS, which a server that is there
// answers within milliseconds.
const natsTimeout = 5 * time.Second

// rulesBacktestCommand plays what was recorded through rules.
type rulesBacktestCommand struct {
	Files   []string `arg:"" optional:"" help:"Files of rules, or patterns such as rules/*.yaml; - reads standard input. Without any: those that the alerter is configured with, with --nats those of --config or the default pack."`
	Against []string `help:"Files of rules to compare with, such as those before a change." placeholder:"OLD_FILE"`
	Since   string   `help:"How far back from the newest event firings count: 90m, 12h, 7d. Everything recorded before is played too." default:"7d"`
	Config  string   `help:"Configuration file whose targets, rules and routes count." type:"path" placeholder:"FILE"`
	Routes  string   `help:"File in Alertmanager's format that says who would have been told. Without it: notifier.config_file of --config, or the default routes." type:"path" placeholder:"FILE"`
	JSON    bool     `name:"json" help:"Print everything as one JSON object."`
	Quiet   bool     `short:"q" help:"Show no progress."`

	NATS         string        `name:"nats" help:"Read the events from this NATS server, in this process and on all its processors, rather than ask an alerter." placeholder:"URL"`
	NATSUser     string        `name:"nats-user" help:"User of NATS: the alerter's has all the rights that are needed." placeholder:"USER"`
	NATSPassword secret.String `name:"nats-password" help:"Password of NATS." env:"TOCSIN_NATS_PASSWORD" placeholder:"PASSWORD"`
	alerterFlags
}

// Help shows examples.
func (c *rulesBacktestCommand) Help() string {
	return `It tells what would have fired, and changes nothing. Examples:

  tocsin rules backtest --since 7d my-rules.yaml
      Ask the alerter on this machine, such as that of make demo or make up.
  tocsin rules backtest --since 24h --against old.yaml new.yaml
      Show which firings a change adds, takes away, lengthens and shortens.
  tocsin rules backtest --routes alertmanager.yml my-rules.yaml
      Count the messages that each receiver would have got.
  tocsin rules backtest --nats nats://127.0.0.1:4222 --json my-rules.yaml
      Read NATS directly, which is faster and leaves the alerter alone.`
}

// trial is what a backtest needs.
type trial struct {
	files, against map[string][]byte
	targets        rulefile.TargetPatterns
	since          time.Duration
	routes         forecast.Routes
	hold           time.Duration
}

// Run plays the events and prints what came of them.
func (c *rulesBacktestCommand) Run(ctx context.Context, t cli.Terminal) error {
	w, err := c.read()
	if err != nil {
		return err
	}
	p := newProgress(t.Err, c.Quiet)
	r := record{since: w.since, compared: len(w.against) > 0}
	tell := func(part *rulev1.BacktestResponse) error {
		if part.GetProgress() != nil {
			p.show(part.GetProgress())
		}
		r.take(part)
		return nil
	}
	if c.NATS != "" {
		err = c.direct(ctx, w, tell)
	} else {
		err = c.ask(ctx, w, tell)
	}
	p.end(r.summary)
	if err != nil {
		return err
	}
	if err := r.forecast(w.routes, w.hold); err != nil {
		return err
	}
	if c.JSON {
		return r.json(t.Out)
	}
	return r.print(t)
}

// read reads what the flags name, and finds all mistakes at once.
func (c *rulesBacktestCommand) read() (*trial, error) {
	w := &trial{hold: notifier.DefaultConfig().InhibitionHold}
	var errs []error
	var err error
	if w.since, err = rulefile.ParseDuration(c.Since); err != nil {
		errs = append(errs, fmt.Errorf("--since: %w", err))
	}
	section := notifier.DefaultConfig()
	source := ruleFiles{Files: c.Files, Config: c.Config}
	if w.files, w.targets, err = source.read(); err != nil {
		errs = append(errs, err)
	}
	if len(c.Files) == 0 && c.NATS == "" && c.Config == "" {
		w.files = nil // the alerter knows better than the default pack
	}
	if c.Config != "" {
		if err := proc.Load(c.Config, os.Environ(), map[string]any{"notifier": &section}); err != nil {
			errs = append(errs, err)
		}
		w.hold = section.InhibitionHold
	}
	if w.against, err = readAll(c.Against); err != nil {
		errs = append(errs, fmt.Errorf("--against: %w", err))
	}
	if w.routes, err = loadRoutes(c.Routes, section.ConfigFile); err != nil {
		errs = append(errs, err)
	}
	if len(errs) == 0 {
		errs = append(errs, checkRules(w.files, w.targets), checkRules(w.against, w.targets))
	}
	return w, proc.Usage(errors.Join(errs...))
}

// loadRoutes reads the routes that are named first, or the default ones.
func loadRoutes(paths ...string) (forecast.Routes, error) {
	for _, path := range paths {
		if path != "" {
			return forecast.Load(path)
		}
	}
	return forecast.Default()
}

// checkRules returns every mistake in rules, by place.
func checkRules(files map[string][]byte, targets rulefile.TargetPatterns) error {
	if len(files) == 0 {
		return nil
	}
	report, err := rulecheck.Check(files, targets)
	if err != nil {
		return fmt.Errorf("check the rules: %w", err)
	}
	var errs []error
	for _, m := range report.Mistakes {
		errs = append(errs, m)
	}
	return errors.Join(errs...)
}

// direct reads NATS in this process.
func (c *rulesBacktestCommand) direct(ctx context.Context, w *trial, tell func(*rulev1.BacktestResponse) error) error {
	if w.files == nil {
		w.files = rules.Default()
	}
	o := backtest.Options{Since: w.since}
	var err error
	if o.Rules, err = backtest.Compile(w.files, w.targets); err != nil {
		return proc.Usage(err)
	}
	if len(w.against) > 0 {
		against, err := backtest.Compile(w.against, w.targets)
		if err != nil {
			return proc.Usage(err)
		}
		o.Against = &against
	}
	connecting, cancel := context.WithTimeout(ctx, natsTimeout)
	defer cancel()
	conn, err := bus.Connect(connecting, bus.Options{URL: c.NATS, User: c.NATSUser, Password: c.NATSPassword, Name: "tocsin-backtest"})
	if err != nil {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		return fmt.Errorf("NATS does not let us in at %s (is it running there, and are --nats-user and --nats-password right?): %w", plainURL(c.NATS), err)
	}
	defer conn.Close()
	o.Log = conn
	return backtest.Run(ctx, o, tell)
}

// ask has an alerter do it.
func (c *rulesBacktestCommand) ask(ctx context.Context, w *trial, tell func(*rulev1.BacktestResponse) error) error {
	conn, err := c.dial()
	if err != nil {
		return err
	}
	defer conn.Close()
	req := &rulev1.BacktestRequest{Files: wireFiles(w.files), Against: wireFiles(w.against), Since: durationpb.New(w.since)}
	for _, p := range w.targets {
		req.Targets = append(req.Targets, &rulev1.TargetPattern{Match: p.Match, Kind: p.Kind, Labels: p.Labels, Overrides: p.Overrides})
	}
	stream, err := rulev1.NewRuleServiceClient(conn).Backtest(ctx, req)
	if err != nil {
		return c.refused(err)
	}
	whole := false
	for {
		part, err := stream.Recv()
		switch {
		case errors.Is(err, io.EOF) && whole:
			return nil
		case errors.Is(err, io.EOF):
			return fmt.Errorf("the alerter at %s ended before its summary", c.Address)
		case ctx.Err() != nil:
			return ctx.Err()
		case err != nil:
			return c.refused(err)
		}
		whole = whole || part.GetSummary() != nil
		if err := tell(part); err != nil {
			return err
		}
	}
}

func wireFiles(files map[string][]byte) []*rulev1.RuleFile {
	var all []*rulev1.RuleFile
	for _, name := range slices.Sorted(maps.Keys(files)) {
		all = append(all, &rulev1.RuleFile{Name: name, Text: files[name]})
	}
	return all
}

func alertsOf(firings []*rulev1.BacktestFiring) []*alertv1.Alert {
	all := make([]*alertv1.Alert, 0, len(firings))
	for _, f := range firings {
		all = append(all, f.GetAlert())
	}
	return all
}

// plainURL writes the addresses of NATS without what they may hold of a login.
func plainURL(list string) string {
	var plain []string
	for one := range strings.SplitSeq(list, ",") {
		u, err := url.Parse(strings.TrimSpace(one))
		if err != nil {
			return "the address that --nats names"
		}
		u.User = nil
		plain = append(plain, u.String())
	}
	return strings.Join(plain, ",")
}
