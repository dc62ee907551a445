// Command tocsin is all of Tocsin in one process: it watches a RunPod account
// (up), shows how that looks with a simulated one (demo), and lists what fires
// (alerts).
package main

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"

	"github.com/alecthomas/kong"

	"github.com/tocsin-dev/tocsin/internal/proc"
)

func main() {
	os.Exit(proc.Main("tocsin", func(ctx context.Context, args []string) error {
		return run(ctx, args, os.Stdout, os.Stderr)
	}))
}

// commands are what tocsin can do.
type commands struct {
	Up      upCommand        `cmd:"" help:"Watch a RunPod account: everything in one process. Needs RUNPOD_API_KEY or a configuration."`
	Demo    demoCommand      `cmd:"" help:"Run everything against a simulated RunPod in which things go wrong. Needs no account."`
	Alerts  alertsCommand    `cmd:"" help:"List the alerts that are pending or firing."`
	Version kong.VersionFlag `help:"Print the version and exit."`
}

// terminal is where a command writes.
type terminal struct {
	out, err io.Writer
	// colour is true when out is a terminal that shows colours.
	colour bool
}

// errExit stands for "the parser has printed what was asked for".
var errExit = errors.New("done")

// run parses args and runs the command that they name.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) (err error) {
	// The parser ends --help and --version by calling its exit function.
	defer func() {
		if p := recover(); p != nil {
			if p != errExit { //nolint:errorlint // the very value that was thrown below
				panic(p)
			}
			err = nil
		}
	}()
	var c commands
	parser, err := kong.New(&c,
		kong.Name("tocsin"),
		kong.Description("Tocsin watches a RunPod account and tells people when something is wrong."),
		kong.Vars{"version": proc.ThisBuild().String()},
		kong.Writers(stdout, stderr),
		kong.Exit(func(int) { panic(errExit) }),
		kong.UsageOnError(),
		kong.BindTo(ctx, (*context.Context)(nil)),
	)
	if err != nil {
		return err
	}
	if len(args) == 0 {
		args = []string{"--help"}
	}
	parsed, err := parser.Parse(args)
	if err != nil {
		return proc.Usage(err)
	}
	return parsed.Run(terminal{out: stdout, err: stderr, colour: showsColours(stdout)})
}

// showsColours tells whether w is a terminal whose user did not ask for plain
// text (https://no-color.org).
func showsColours(w io.Writer) bool {
	f, ok := w.(*os.File)
	if !ok || os.Getenv("NO_COLOR") != "" || os.Getenv("TERM") == "dumb" {
		return false
	}
	info, err := f.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0
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
