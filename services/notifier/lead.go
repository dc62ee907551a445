package notifier

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/tocsin-dev/tocsin/internal/bus"
	"github.com/tocsin-dev/tocsin/internal/proc"
	"github.com/tocsin-dev/tocsin/services/notifier/internal/courier"
	"github.com/tocsin-dev/tocsin/services/notifier/internal/intake"
)

const (
	// leaseName is the lease of the one notifier that leads.
	leaseName = "notifier"
	// claimEvery is how often a standby asks for the lease, whose life is 3 s:
	// together they keep a take-over within 5 s.
	claimEvery = 500 * time.Millisecond
	// failurePause is the wait before leading again after a failure.
	failurePause = time.Second
)

// errLost ends the work of a leader whose lease ended.
var errLost = errors.New("the lease of the notifier ended")

// leader claims the lease and leads while it holds.
type leader struct {
	o         Options
	gate      *gate
	addresses Addresses
	courier   courier.Options
	leading   prometheus.Gauge
	ready     sync.Once
}

// run leads whenever it may, until ctx ends. It returns an error only when no
// repetition can help.
func (l *leader) run(ctx context.Context, conn *bus.Conn) error {
	owner := ownerName()
	leases, err := conn.Leases(ctx, bus.LeasesBucket, bus.LeaseOptions{Owner: owner})
	if err != nil {
		return err
	}
	l.courier.Conn, l.courier.Owner = conn, owner
	standing := false
	for ctx.Err() == nil {
		lease, ok, err := leases.Claim(ctx, leaseName)
		switch {
		case err != nil && ctx.Err() == nil:
			l.o.Log.WarnContext(ctx, "the lease cannot be claimed", "err", err)
		case ok:
			standing = false
			if err := l.lead(ctx, lease); err != nil {
				return err
			}
			continue
		case !standing:
			standing = true
			l.o.Log.InfoContext(ctx, "standing by: another notifier leads, or led until a moment ago",
				"grpc_address", l.addresses.GRPC, "http_address", l.addresses.HTTP)
		}
		pause(ctx, claimEvery)
	}
	return nil
}

// lead leads until the lease or ctx ends. A failure that others or time can cure
// is logged, and the lease given back.
func (l *leader) lead(ctx context.Context, lease *bus.Lease) error {
	lost, cancel := context.WithCancelCause(context.WithoutCancel(ctx))
	defer cancel(errLost)
	defer lease.Release()
	go func() {
		select {
		case <-lease.Done():
			cancel(errLost)
		case <-lost.Done():
		}
	}()
	options := l.courier
	options.Valid = lease.Valid
	c := courier.New(options)
	in := intake.New(options.Conn, l.gate.metrics, l.o.Log)
	c.OnReady(func() {
		l.leading.Set(1)
		l.gate.open(&session{intake: in, courier: c, conn: options.Conn, ended: lost})
		l.o.Log.InfoContext(ctx, "the notifier leads", "owner", options.Owner)
		l.ready.Do(func() {
			if l.o.Ready != nil {
				l.o.Ready(l.addresses)
			}
		})
	})
	err := c.Run(ctx, lost)
	l.gate.close()
	l.leading.Set(0)
	if _, wrong := errors.AsType[*bus.MismatchError](err); wrong {
		return err
	}
	if err != nil && ctx.Err() == nil {
		l.o.Log.ErrorContext(ctx, "leading ended; trying again", "err", err)
		lease.Release()
		pause(ctx, failurePause)
	}
	return nil
}

// ownerName names this process among notifiers.
func ownerName() string {
	host, err := os.Hostname()
	if err != nil {
		host = "unknown"
	}
	return fmt.Sprintf("%s-%d-%s", host, os.Getpid(), rand.Text()[:8])
}

func pause(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}

// withDefaults fills what may be left out.
func (o Options) withDefaults() Options {
	if o.Log == nil {
		o.Log = DefaultOptions().Log
	}
	if o.Registerer == nil {
		o.Registerer = proc.NewRegistry()
	}
	if o.NATS.Log == nil {
		o.NATS.Log = o.Log
	}
	if o.NATS.Registerer == nil {
		o.NATS.Registerer = o.Registerer
	}
	if o.NATS.Name == "" {
		o.NATS.Name = DefaultOptions().NATS.Name
	}
	if o.Print == nil {
		o.Print = func(line string) { o.Log.Info("alert", "line", line) }
	}
	return o
}
