// Package rig runs what the benchmarks measure as it runs in production: a
// nats-server built from its module, a redis-server, and each service of Tocsin
// in a process of its own, all on this machine and talking over loopback.
//
// A service's process is the benchmark's own program, started anew to call the
// service's Run function. That lets it tell its memory and write profiles,
// which the shipped programs do not. Everything ends with the rig.
package rig

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"time"
)

// patience bounds every wait for a process: it only ends a run that hangs.
const patience = 2 * time.Minute

// Options are what a Rig needs.
type Options struct {
	// Dir is where servers keep their data, on the disk that is to be measured.
	// The rig makes a directory of its own in it, and removes that in the end.
	Dir string
	// NATSBinary is a nats-server; see BuildNATS.
	NATSBinary string
	// SyncAlways makes NATS write to the disk itself before it acknowledges.
	SyncAlways bool
	// Profiles is where profiles are written; empty writes none.
	Profiles string
	// Name stands at the beginning of the names of profiles.
	Name string
}

// Rig is a NATS, a Redis and the services that were started on them.
type Rig struct {
	// NATS and Redis are the servers.
	NATS  *NATS
	Redis *Redis

	opts     Options
	dir      string
	services []*Service
}

// New starts the servers. The rig must be closed.
func New(ctx context.Context, o Options) (*Rig, error) {
	if err := os.MkdirAll(o.Dir, 0o750); err != nil {
		return nil, fmt.Errorf("make the directory for data: %w", err)
	}
	dir, err := os.MkdirTemp(o.Dir, "run")
	if err != nil {
		return nil, fmt.Errorf("make a directory for data: %w", err)
	}
	if dir, err = filepath.Abs(dir); err != nil {
		return nil, fmt.Errorf("find the directory for data: %w", err)
	}
	r := &Rig{opts: o, dir: dir}
	if r.NATS, err = startNATS(ctx, o, filepath.Join(dir, "nats")); err == nil {
		r.Redis, err = startRedis(ctx, filepath.Join(dir, "redis"))
	}
	if err != nil {
		return nil, errors.Join(err, r.Close())
	}
	return r, nil
}

// Dir is where the processes keep their data and their logs.
func (r *Rig) Dir() string { return r.dir }

// Close ends all processes and removes their data.
func (r *Rig) Close() error {
	err := r.Stop()
	if e := os.RemoveAll(r.dir); e != nil {
		err = errors.Join(err, fmt.Errorf("remove the data: %w", e))
	}
	return err
}

// Stop ends all processes and leaves their data.
func (r *Rig) Stop() error {
	var errs []error
	for _, s := range slices.Backward(r.services) {
		errs = append(errs, s.Stop())
	}
	if r.Redis != nil {
		r.Redis.process.kill()
	}
	if r.NATS != nil {
		r.NATS.process.kill()
	}
	return errors.Join(errs...)
}

// Usage returns what each process has used so far, by name.
func (r *Rig) Usage() map[string]Usage {
	all := map[string]Usage{"nats": r.NATS.process.usage(), "redis": r.Redis.process.usage()}
	for _, s := range r.services {
		if !s.process.ended() {
			all[s.Name] = s.process.usage()
		}
	}
	return all
}

// freePort returns a port of loopback that nothing listens on now.
func freePort() (int, error) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, fmt.Errorf("find a free port: %w", err)
	}
	defer ln.Close()
	return ln.Addr().(*net.TCPAddr).Port, nil
}

// await calls ready again and again until it returns nil, the process ends, ctx
// ends or patience is over.
func await(ctx context.Context, p *process, ready func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	poll := time.NewTicker(10 * time.Millisecond)
	defer poll.Stop()
	for {
		err := ready(ctx)
		if err == nil {
			return nil
		}
		select {
		case <-p.done:
			return fmt.Errorf("%s ended before it was ready: %s", p.name, p.tail())
		case <-ctx.Done():
			return fmt.Errorf("%s is not ready: %w: %w", p.name, ctx.Err(), err)
		case <-poll.C:
		}
	}
}
