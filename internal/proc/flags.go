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
}

// ParseFlags reads a service's arguments. It returns false when there is nothing
// to run, since the help or the version was asked for; the version is printed
// to stdout. Errors are ones of usage.
func ParseFlags(name string, args []string, stdout io.Writer) (f Flags, run bool, err error) {
	flags := flag.NewFlagSet(name, flag.ContinueOnError)
	flags.StringVar(&f.Config, "config", "", "configuration `file`; its keys are also read from TOCSIN_<SECTION>_<KEY>")
	flags.BoolVar(&f.Insecure, "insecure", false, "let other machines reach ports that ask for no token")
	version := flags.Bool("version", false, "print the version and exit")
	if err := flags.Parse(args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			return f, false, nil
		}
		return f, false, Usage(err)
	}
	if flags.NArg() > 0 {
		return f, false, Usage(fmt.Errorf("unexpected argument %q", flags.Arg(0)))
	}
	if *version {
		_, err := fmt.Fprintln(stdout, name, ThisBuild())
		return f, false, err
	}
	return f, true, nil
}
