// Command tocsin is all of Tocsin in one process: it watches a RunPod account
// (up), shows how that looks with a simulated one (demo), lists what fires
// (alerts) and says why (explain, diagnose), looks at rules (rules), and plays RunPod or a receiver for services that run apart (simulate,
// receive).
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/alecthomas/kong"

	"github.com/tocsin-dev/tocsin/cmd/tocsin/internal/cli"
	"github.com/tocsin-dev/tocsin/cmd/tocsin/internal/rehearsal"
	"github.com/tocsin-dev/tocsin/internal/proc"
)

func main() {
	os.Exit(proc.Main("tocsin", func(ctx context.Context, args []string) error {
		return run(ctx, args, os.Stdout, os.Stderr)
	}))
}

// commands are what tocsin can do.
type commands struct {
	Up       upCommand       `cmd:"" help:"Watch a RunPod account: everything in one process. Needs RUNPOD_API_KEY or a configuration."`
	Demo     demoCommand     `cmd:"" help:"Run everything against a simulated RunPod in which things go wrong. Needs no account."`
	Alerts   alertsCommand   `cmd:"" help:"List the alerts that are pending or firing."`
	Explain  explainCommand  `cmd:"" help:"Tell all there is to say of one alert: why it fires, how bad it is, what is probably wrong and what to do."`
	Diagnose diagnoseCommand `cmd:"" help:"Say what is probably wrong with an endpoint or a pod, whether an alert fires or not."`
	Rules    rulesCommand    `cmd:"" help:"Check and try rules before they run, and print what they can name."`
	rehearsal.Commands
	Version kong.VersionFlag `help:"Print the version and exit."`
}

// run parses args and runs the command that they name.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	return cli.Run(ctx, "tocsin", "Tocsin watches a RunPod account and tells people when something is wrong.",
		new(commands), args, stdout, stderr)
}

// makeData makes the data directory when it is missing, and sees whether it can be
// written to.
func makeData(dir string) error {
	err := os.MkdirAll(dir, 0o700)
	if err == nil {
		var probe *os.File
		if probe, err = os.CreateTemp(dir, ".probe-*"); err == nil {
			err = errors.Join(probe.Close(), os.Remove(probe.Name()))
		}
	}
	if err == nil {
		return nil
	}
	if at, ok := errors.AsType[*fs.PathError](err); ok {
		err = at.Err // the directory stands in our sentence already
	}
	return fmt.Errorf("the data directory %s cannot be used: %w; choose another one with --data", dir, err)
}

// stateDir is where a command keeps its data when it is not told: below
// $XDG_STATE_HOME, which is ~/.local/state when it is not set.
func stateDir(command string) (string, error) {
	base := os.Getenv("XDG_STATE_HOME")
	if base == "" {
		home, err := os.UserHomeDir()
		if err != nil {
			return "", proc.Usage(errors.New("there is no home directory: say with --data where the data goes"))
		}
		base = filepath.Join(home, ".local", "state")
	}
	return filepath.Join(base, "tocsin", command), nil
}
