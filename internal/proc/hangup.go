package proc

import (
	"context"
	"os"
	"os/signal"
	"syscall"
)

// Hangups returns a channel that has a value after each SIGHUP, by which daemons
// are asked to read their files anew, until ctx ends. Several at once are one. The
// process does not end by the signal from then on, also after ctx.
func Hangups(ctx context.Context) <-chan struct{} {
	signals, hangups := make(chan os.Signal, 1), make(chan struct{}, 1)
	signal.Notify(signals, syscall.SIGHUP)
	go func() {
		for {
			select {
			case <-ctx.Done():
				return
			case <-signals:
			}
			select {
			case hangups <- struct{}{}:
			default:
			}
		}
	}()
	return hangups
}
