// Command rehearse is the part of tocsin that plays RunPod and a receiver. It is
// a program of its own so that the demo's containers need not carry the rest.
package main

import (
	"context"
	"os"

	"github.com/alecthomas/kong"

	"github.com/tocsin-dev/tocsin/cmd/tocsin/internal/cli"
	"github.com/tocsin-dev/tocsin/cmd/tocsin/internal/rehearsal"
	"github.com/tocsin-dev/tocsin/internal/proc"
)

func main() {
	os.Exit(proc.Main("rehearse", func(ctx context.Context, args []string) error {
		var commands struct {
			rehearsal.Commands
			Version kong.VersionFlag `help:"Print the version and exit."`
		}
		return cli.Run(ctx, "rehearse", "Plays RunPod and a receiver, to try Tocsin without an account.",
			&commands, args, os.Stdout, os.Stderr)
	}))
}
