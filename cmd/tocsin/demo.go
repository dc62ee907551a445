package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"
	"golang.org/x/sync/errgroup"

	"github.com/tocsin-dev/tocsin/cmd/tocsin/internal/cli"
	"github.com/tocsin-dev/tocsin/cmd/tocsin/internal/receiver"
	"github.com/tocsin-dev/tocsin/cmd/tocsin/internal/rehearsal"
	"github.com/tocsin-dev/tocsin/cmd/tocsin/internal/stack"
	"github.com/tocsin-dev/tocsin/internal/proc"
	"github.com/tocsin-dev/tocsin/rules"
	"github.com/tocsin-dev/tocsin/services/alerter"
	"github.com/tocsin-dev/tocsin/services/collector"
	"github.com/tocsin-dev/tocsin/services/collector/runpod/sim"
	"github.com/tocsin-dev/tocsin/services/notifier"
)

const (
	// demoSpeed is how many seconds of the simulated account pass in one. The
	// rules' own durations pass as fast, so that the rules are the real ones: what
	// takes 6 minutes with RunPod takes 6 seconds here.
	demoSpeed = 60
	// demoIdleWindow stands for the two hours of the rule on idle GPUs: at the
	// demo's speed it is 12 s.
	demoIdleWindow = "'12m'"
)

// demoCommand runs everything against a simulated account.
type demoCommand struct {
	Data string `help:"Data directory (default: ~/.local/state/tocsin/demo)." type:"path" placeholder:"DIR"`
}

// Run plays scenes 1, 3 and 5 of the rule pack until ctx ends.
func (c *demoCommand) Run(ctx context.Context, t cli.Terminal) error {
	dir := c.Data
	if dir == "" {
		var err error
		if dir, err = stateDir("demo"); err != nil {
			return err
		}
	}
	if err := makeData(dir); err != nil {
		return err
	}
	logPath := filepath.Join(dir, "tocsin.log")
	logFile, err := os.OpenFile(logPath, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("open the log: %w", err)
	}
	defer logFile.Close()
	log, err := proc.Logger(logFile, proc.DefaultLogConfig())
	if err != nil {
		return err
	}

	g, ctx := errgroup.WithContext(ctx)
	account, err := sim.New(sim.Options{Scenario: rehearsal.Demo(), Speed: demoSpeed, Unlimited: true})
	if err != nil {
		return fmt.Errorf("make the simulated account: %w", err)
	}
	defer account.Close()
	accountURL, err := serve(ctx, g, account.Handler())
	if err != nil {
		return fmt.Errorf("serve the simulated account: %w", err)
	}

	secret := receiver.NewSecret()
	hooks, err := receiver.New(receiver.Options{Out: t.Out, Secret: secret, Colour: t.Colour})
	if err != nil {
		return err
	}
	hooksURL, err := serve(ctx, g, hooks)
	if err != nil {
		return fmt.Errorf("serve the webhook receiver: %w", err)
	}

	o, err := demoOptions(accountURL, hooksURL, secret)
	if err != nil {
		return err
	}
	o.Dir, o.Log = dir, log
	o.Ready = func(a stack.Addresses) { welcome(t, a, hooksURL, logPath) }
	fmt.Fprintf(t.Out, "Tocsin demo: a simulated RunPod account at %d times the speed of life. Ctrl-C ends it.\n"+
		"The rules are the default ones; only the rule on idle GPUs looks back %s here and not 2 hours.\n", demoSpeed, strings.Trim(demoIdleWindow, "'"))
	g.Go(func() error { return stack.Run(ctx, o) })
	g.Go(func() error { account.Run(ctx); return nil })
	err = g.Wait()
	if err == nil || ctx.Err() != nil && errors.Is(err, context.Canceled) {
		fmt.Fprintln(t.Out, "stopped; the next start goes on with the data in", dir)
		return nil
	}
	return err
}

// demoOptions are the services' options: intervals as much shorter as the
// account runs faster, and one receiver that is told of everything at once.
func demoOptions(accountURL, hooksURL, secret string) (stack.Options, error) {
	o := stack.Options{
		Collector: collector.DefaultOptions(),
		Alerter:   alerter.DefaultOptions(),
		Notifier:  notifier.DefaultOptions(),
	}
	o.Collector.RunPod.APIKey = sim.DefaultKey
	o.Collector.RunPod.Account = "demo"
	o.Collector.RunPod.RESTURL = accountURL + "/v2"
	o.Collector.RunPod.ServerlessURL = accountURL + "/runtime/v2"
	o.Collector.Collector.HealthInterval = 15 * time.Second / demoSpeed
	o.Collector.Collector.PodsInterval = 30 * time.Second / demoSpeed
	o.Collector.Collector.InventoryInterval = 60 * time.Second / demoSpeed
	o.Collector.Collector.JobFastInterval = 15 * time.Second / demoSpeed
	o.Collector.Collector.JobInterval = 15 * time.Second / demoSpeed
	o.Collector.Collector.MaxBackoff = time.Second
	o.Collector.Collector.Timeout = time.Second // of a hanging API, a simulated minute
	o.Alerter.Speed = demoSpeed
	o.Alerter.RuleFiles = demoRules()
	for _, address := range []*string{
		&o.Collector.Collector.IngestAddress, &o.Collector.Collector.HTTPAddress, &o.Collector.Collector.GRPCAddress,
		&o.Alerter.GRPCAddress, &o.Alerter.HTTPAddress, &o.Notifier.GRPCAddress, &o.Notifier.HTTPAddress,
	} {
		*address = freeOr(*address)
	}
	var err error
	o.Notifier.Config, err = demoRoutes(hooksURL, secret)
	return o, err
}

// demoRules are the default rules with one change: nobody watches a demo for
// the two minutes that two hours of an idle GPU take at its speed.
func demoRules() map[string][]byte {
	pack := rules.Default()
	const pods = "pod.yaml"
	text := bytes.ReplaceAll(pack[pods], []byte("'2h')"), []byte(demoIdleWindow+")"))
	pack[pods] = bytes.ReplaceAll(text, []byte("for 2 hours"), []byte("for 12 minutes"))
	return pack
}

// demoRoutes are the default routes with another receiver: the demo's webhook
// in place of the terminal.
func demoRoutes(hooksURL, secret string) ([]byte, error) {
	var routes map[string]any
	if err := yaml.Unmarshal(notifier.DefaultRoutes(), &routes); err != nil {
		return nil, fmt.Errorf("read the default routes: %w", err)
	}
	const name = "terminal"
	routes["receivers"] = []any{map[string]any{
		"name": name,
		"tocsin_configs": []any{map[string]any{
			"url": hooksURL, "format": "standard", "secret": secret,
		}},
	}}
	route, ok := routes["route"].(map[string]any)
	if !ok {
		return nil, errors.New("the default routes have no route")
	}
	route["receiver"] = name
	return yaml.Marshal(routes)
}

// welcome prints where everything is and what to try.
func welcome(t cli.Terminal, a stack.Addresses, hooksURL, logPath string) {
	printAddresses(t, a)
	fmt.Fprintf(t.Out, "  %s  %s\n  %s  %s\n", "webhook receiver   ", hooksURL, "log                ", logPath)
	self, err := os.Executable()
	if err != nil {
		self = "tocsin"
	}
	fmt.Fprintf(t.Out, `Try, in another terminal:
  %s alerts --address %s
  curl -s http://%s/metrics | grep ^runpod_
  curl -s http://%s/v1/endpoints
The alerts follow, as the receiver gets them:
`, self, a.Alerter.GRPC, a.Collector.HTTP, a.Collector.Ingest)
}

// serve serves h on a free port of loopback until ctx ends, and returns its URL.
func serve(ctx context.Context, g *errgroup.Group, h http.Handler) (string, error) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	srv := &http.Server{Handler: h, ReadHeaderTimeout: 5 * time.Second}
	g.Go(func() error {
		if err := srv.Serve(ln); !errors.Is(err, http.ErrServerClosed) {
			return err
		}
		return nil
	})
	g.Go(func() error {
		<-ctx.Done()
		return srv.Close()
	})
	return "http://" + ln.Addr().String(), nil
}

// freeOr returns the address if its port is free, and one with any port
// otherwise: a demo beside a running Tocsin should not fail for a port.
func freeOr(address string) string {
	ln, err := net.Listen("tcp", address)
	if err != nil {
		return "127.0.0.1:0"
	}
	ln.Close()
	return address
}
