package proc

import (
	"errors"
	"flag"
	"fmt"
	"io"
)

// Flags are what every service is told on its command line.
type Flags struct {
	// Config is the path of the configuration file, or empty.
	Config string
	// Insecure lets other machines reach ports that ask for no token.
	Insecure bool
	// Healthcheck is true for "<service> healthcheck": nothing is run, and the
	// service that runs with the same configuration is asked by [Probe].
	Healthcheck bool
}

// healthcheck is the argument that asks instead of running. Images without a
// shell have no other program that could.
const healthcheck = "healthcheck"

const usage = `Usage:
  %[1]s [flags]              run until asked to stop
  %[1]s healthcheck [flags]  ask the %[1]s that runs here with the same flags and
                             environment whether it is ready: 0 yes, 1 no
Flags:
`

// ParseFlags reads a service's arguments. It returns false when there is nothing
// to run, since the help or the version was asked for, which are printed to stdout.
// Errors are ones of usage.
func ParseFlags(name string, args []string, stdout io.Writer) (f Flags, run bool, err error) {
	flags := flag.NewFlagSet(name, flag.ContinueOnError)
	flags.SetOutput(io.Discard) // a mistake is told once, by Main
	flags.StringVar(&f.Config, "config", "", "configuration `file`; its keys are also read from TOCSIN_<SECTION>_<KEY>")
	flags.BoolVar(&f.Insecure, "insecure", false, "let other machines reach ports that ask for no token")
	version := flags.Bool("version", false, "print the version and exit")
	flags.Usage = func() {
		fmt.Fprintf(flags.Output(), usage, name)
		flags.PrintDefaults()
	}
	if len(args) > 0 && args[0] == healthcheck {
		f.Healthcheck, args = true, args[1:]
	}
	if err := flags.Parse(args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			flags.SetOutput(stdout)
			flags.Usage()
			return f, false, nil
		}
		return f, false, Usage(fmt.Errorf("%w; see %s --help", err, name))
	}
	if flags.NArg() > 0 {
		return f, false, Usage(fmt.Errorf("unexpected argument %q; see %s --help", flags.Arg(0), name))
	}
	if *version {
		_, err := fmt.Fprintln(stdout, name, ThisBuild())
		return f, false, err
	}
	return f, true, nil
}
