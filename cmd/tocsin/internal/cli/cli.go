// Package cli parses a command line by a struct of commands and runs the one
// that it names.
package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/alecthomas/kong"

	"github.com/tocsin-dev/tocsin/internal/proc"
)

// Terminal is where a command writes.
type Terminal struct {
	// Out is for what was asked for, Err for logs.
	Out, Err io.Writer
	// Colour is true when Out is a terminal that shows colours.
	Colour bool
}

// errExit stands for "the parser has printed what was asked for".
var errExit = errors.New("done")

// Run parses args as the fields of commands, a pointer to a struct in kong's
// form, and calls the method Run(context.Context, Terminal) of the command that
// they name. Without arguments it prints the help. Mistakes in args are errors of
// usage.
func Run(ctx context.Context, name, description string, commands any, args []string, stdout, stderr io.Writer) (err error) {
	// The parser ends --help and --version by calling its exit function.
	defer func() {
		if p := recover(); p != nil {
			if p != errExit { //nolint:errorlint // the very value that was thrown below
				panic(p)
			}
			err = nil
		}
	}()
	parser, err := kong.New(commands,
		kong.Name(name),
		kong.Description(description),
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
		return proc.Usage(fmt.Errorf("%w; see %s --help", err, name))
	}
	return parsed.Run(Terminal{Out: stdout, Err: stderr, Colour: showsColours(stdout)})
}

// showsColours tells whether w is a terminal whose user did not ask for plain
// text (https://no-color.org).
func showsColours(w io.Writer) bool {
	return IsTerminal(w) && os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb"
}

// IsTerminal tells whether a person reads w as it is written.
func IsTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	if !ok {
		return false
	}
	info, err := f.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0
}
