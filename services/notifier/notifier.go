// Package notifier stores alerts and tells receivers about them.
//
// It promises that an alert that was accepted is stored; that every firing that a
// route matched, and that no other alert inhibited, reaches the route's
// receivers at least once; that a receiver that was told "firing" is told
// "resolved"; that repeats carry the same id and, for webhooks, equal bytes; and
// that the state a receiver is told of a group never goes backwards. All of it
// holds over crashes and restarts at any instant, as long as JetStream keeps
// what it acknowledged. One notifier leads; others stand by.
package notifier

import (
	"context"
	"errors"
)

// Run runs a notifier until ctx ends, and returns nil then.
func Run(ctx context.Context, o Options) error {
	if err := o.validate(); err != nil {
		return err
	}
	<-ctx.Done()
	return errors.New("notifier is being built")
}
