// Package rehearsal plays what Tocsin has to do with and does not own: RunPod,
// and whoever is told. With it the services can be tried, each in a process or
// container of its own, without an account.
package rehearsal

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/tocsin-dev/tocsin/cmd/tocsin/internal/cli"
	"github.com/tocsin-dev/tocsin/cmd/tocsin/internal/receiver"
	"github.com/tocsin-dev/tocsin/internal/proc"
	"github.com/tocsin-dev/tocsin/internal/secret"
	"github.com/tocsin-dev/tocsin/services/collector/runpod/sim"
)

// Commands are the commands of a rehearsal.
type Commands struct {
	Simulate    Simulate    `cmd:"" help:"Serve a simulated RunPod account, for a collector to watch."`
	Receive     Receive     `cmd:"" help:"Receive webhooks, check their signatures and print what they tell."`
	Healthcheck Healthcheck `cmd:"" help:"Ask a health address, and fail unless it answers 200. For containers without a shell."`
}

// Simulate serves an account.
type Simulate struct {
	Address  string        `help:"Address to serve on." default:"127.0.0.1:8090"`
	Scenario string        `help:"What happens. demo: three endpoints in trouble, an outage and a revoked key, every 40 minutes; quiet: 12 hours in which nothing is wrong, although much looks it." enum:"demo,quiet" default:"demo"`
	Speed    float64       `help:"How many simulated seconds pass in one." default:"1"`
	Key      secret.String `help:"API key that callers must send. Without one a well-known key is taken, on loopback only." placeholder:"KEY"`
	KeyFile  string        `help:"File that holds the API key." type:"existingfile" placeholder:"FILE"`
}

// Run serves the account until ctx ends.
func (c *Simulate) Run(ctx context.Context, t cli.Terminal) error {
	key, err := secret.Resolve("key", c.Key, c.KeyFile)
	if err == nil {
		err = checkAddress(c.Address, key, "key")
	}
	if err != nil {
		return proc.Usage(err)
	}
	if !key.Set() {
		key = sim.DefaultKey
	}
	scenario := Demo()
	if c.Scenario == "quiet" {
		scenario = sim.QuietNight()
	}
	account, err := sim.New(sim.Options{Scenario: scenario, Speed: c.Speed, Keys: []sim.Key{{Value: key.Reveal()}}})
	if err != nil {
		return proc.Usage(err)
	}
	defer account.Close()
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { account.Run(ctx); return nil })
	g.Go(func() error {
		return serve(ctx, c.Address, account.Handler(), t, func(address string) {
			fmt.Fprintf(t.Out, "A simulated RunPod account (%s, at %v times the speed of life). Point a collector to it:\n"+
				"  runpod.rest_url        http://%[3]s/v2\n  runpod.serverless_url  http://%[3]s/runtime/v2\n", c.Scenario, c.Speed, address)
			if key == sim.DefaultKey {
				fmt.Fprintf(t.Out, "  runpod.api_key         %s\n", sim.DefaultKey)
			}
		})
	})
	return g.Wait()
}

// idleFor is how long the demo's pod idles in each round of 40 minutes: the
// demo's window of 12, and time to see the alert fire.
const idleFor = 22 * time.Minute

// Demo is the simulator's scenario, but the idle pod finds work in the end, so
// that its alert resolves and comes again.
func Demo() sim.Scenario {
	scenario := sim.DemoScenario()
	for i, event := range scenario.Events {
		if event.Target == sim.DemoIdlePod {
			scenario.Events[i].Effect = sim.IdleGPU(idleFor)
		}
	}
	return scenario
}

// Receive prints what it is sent.
type Receive struct {
	Address    string        `help:"Address to listen on." default:"127.0.0.1:8095"`
	Secret     secret.String `help:"Signing secret (whsec_...) of the sender. Without one a new one is made and printed." placeholder:"SECRET"`
	SecretFile string        `help:"File that holds the signing secret." type:"existingfile" placeholder:"FILE"`
	JSON       bool          `name:"json" help:"Print each delivery, repeats too, as one line of JSON."`
}

// Run receives until ctx ends.
func (c *Receive) Run(ctx context.Context, t cli.Terminal) error {
	signing, err := secret.Resolve("secret", c.Secret, c.SecretFile)
	if err != nil {
		return proc.Usage(err)
	}
	made := !signing.Set()
	if made {
		signing = secret.String(receiver.NewSecret())
	}
	hooks, err := receiver.New(receiver.Options{Out: t.Out, Secret: signing.Reveal(), Colour: t.Colour, JSON: c.JSON})
	if err != nil {
		return proc.Usage(err)
	}
	mux := http.NewServeMux()
	mux.Handle("POST /", hooks)
	return serve(ctx, c.Address, mux, t, func(address string) {
		fmt.Fprintf(t.Err, "Receives webhooks at http://%s/ (tocsin_configs, format: standard).\n", address)
		if made {
			fmt.Fprintf(t.Err, "Their secret: %s\n", signing.Reveal())
		}
	})
}

// Healthcheck asks a process how it is.
type Healthcheck struct {
	URL string `arg:"" help:"Address to ask, such as http://127.0.0.1:8082/readyz."`
}

// Run asks once.
func (c *Healthcheck) Run(ctx context.Context) error { return proc.ProbeURL(ctx, c.URL) }

// checkAddress refuses to serve other machines without a secret.
func checkAddress(address string, key secret.String, flag string) error {
	if err := proc.CheckListen("address", address, key, false); err != nil {
		return fmt.Errorf("--address: %q needs --%[2]s or --%[2]s-file, or an address of loopback such as 127.0.0.1:8090", address, flag)
	}
	return nil
}

// serve serves h and GET /healthz until ctx ends. ready is told the address.
func serve(ctx context.Context, address string, h http.Handler, t cli.Terminal, ready func(address string)) error {
	ln, err := proc.Listen("--address", address)
	if err != nil {
		return err
	}
	defer ln.Close() // ServeHTTP has closed it, unless it was never called
	mux := http.NewServeMux()
	mux.Handle("/", h)
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "ok\n") })
	ready(ln.Addr().String())
	return proc.ServeHTTP(ctx, ln, mux, slog.New(slog.NewTextHandler(t.Err, nil)))
}
