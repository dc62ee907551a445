package main

import (
	"context"
	"errors"
	"fmt"

	"google.golang.org/grpc"
	"google.golang.org/grpc/status"

	"github.com/tocsin-dev/tocsin/internal/fault"
	"github.com/tocsin-dev/tocsin/internal/proc"
	"github.com/tocsin-dev/tocsin/internal/rpc"
	"github.com/tocsin-dev/tocsin/internal/secret"
)

// alerterFlags say how the alerter is reached, for commands that ask it.
type alerterFlags struct {
	Address  string        `help:"gRPC address of the alerter." default:"127.0.0.1:9091"`
	Token    secret.String `help:"Bearer token of the alerter." env:"TOCSIN_ALERTER_TOKEN" placeholder:"TOKEN"`
	Insecure bool          `help:"Send the token unencrypted to another machine."`
}

// dial returns a connection to the alerter, which is made when it is first used.
func (c *alerterFlags) dial() (*grpc.ClientConn, error) {
	conn, err := rpc.Dial(c.Address, rpc.DialOptions{Token: c.Token, Insecure: c.Insecure})
	if err != nil {
		return nil, proc.Usage(err)
	}
	return conn, nil
}

// ask calls the alerter once, within queryTimeout, and says for people why it did not
// answer.
func (c *alerterFlags) ask(ctx context.Context, call func(context.Context, *grpc.ClientConn) error) error {
	conn, err := c.dial()
	if err != nil {
		return err
	}
	defer conn.Close()
	ctx, cancel := context.WithTimeout(ctx, queryTimeout)
	defer cancel()
	if err := call(ctx, conn); err != nil {
		return c.refused(err)
	}
	return nil
}

// refused says for people why the alerter did not answer.
func (c *alerterFlags) refused(err error) error {
	if errors.Is(err, fault.Unavailable) {
		return fmt.Errorf("no alerter answers at %s: is Tocsin running, and is this its query API (gRPC)?", c.Address)
	}
	if s, ok := errors.AsType[interface {
		error
		GRPCStatus() *status.Status
	}](err); ok {
		return fmt.Errorf("the alerter at %s: %s", c.Address, s.GRPCStatus().Message())
	}
	return fmt.Errorf("ask the alerter at %s: %w", c.Address, err)
}
