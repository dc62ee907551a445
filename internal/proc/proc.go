// Package proc is what every process of Tocsin has in common and no service
// should invent again: its configuration, its logger, its health, its HTTP
// server, and how it ends.
//
// The parts are independent functions; a service's Run wires those that it
// needs. Nothing here is global, starts by itself, or reads the environment
// behind its caller's back; only Main touches arguments, signals and standard
// error, and only Hangups the signal of that name.
package proc

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"
)

// The exit codes that scripts may rely on.
const (
	// ExitStopped means that the process stopped as it was asked to.
	ExitStopped = 0
	// ExitFailed means that the process could not go on.
	ExitFailed = 1
	// ExitUsage means wrong arguments or a wrong configuration: starting again
	// without a change is in vain.
	ExitUsage = 2
)

// usageError marks what a person must correct.
type usageError struct{ err error }

func (e *usageError) Error() string { return e.err.Error() }
func (e *usageError) Unwrap() error { return e.err }

// Usage marks err as a mistake in arguments or configuration, for which Main
// exits with code 2. It returns nil when err is nil.
func Usage(err error) error {
	if err == nil {
		return nil
	}
	return &usageError{err}
}

// IsUsage reports whether err is a mistake in arguments or configuration.
func IsUsage(err error) bool {
	_, ok := errors.AsType[*usageError](err)
	return ok
}

// Main runs a program with the process's arguments until it ends or the process
// is asked to stop (SIGINT, SIGTERM), which ends the context. A second signal
// kills at once. It prints one line for each mistake to standard error and
// returns the exit code.
func Main(name string, run func(ctx context.Context, args []string) error) int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	// From the first signal on, the next one has its default effect again.
	defer context.AfterFunc(ctx, stop)()
	return exit(ctx, name, os.Stderr, run(ctx, os.Args[1:]))
}

// exit prints what err says and returns the exit code for it.
func exit(ctx context.Context, name string, stderr io.Writer, err error) int {
	switch {
	case err == nil, errors.Is(err, flag.ErrHelp):
		return ExitStopped
	case errors.Is(err, context.Canceled) && ctx.Err() != nil && !IsUsage(err):
		return ExitStopped
	}
	for line := range strings.SplitSeq(err.Error(), "\n") {
		fmt.Fprintf(stderr, "%s: %s\n", name, line)
	}
	if IsUsage(err) {
		return ExitUsage
	}
	return ExitFailed
}
