package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/tocsin-dev/tocsin/internal/bus"
	"github.com/tocsin-dev/tocsin/internal/rpc"
	queryv1 "github.com/tocsin-dev/tocsin/proto/gen/tocsin/query/v1"
	"github.com/tocsin-dev/tocsin/test/bench/internal/hook"
	"github.com/tocsin-dev/tocsin/test/bench/internal/rig"
)

const (
	// pollEvery is how often a service is asked how far it is. Its answer costs it
	// about a millisecond: one part in a hundred.
	pollEvery = 100 * time.Millisecond
	// patience bounds a wait for what must happen. It only ends a run that hangs.
	patience = 5 * time.Minute
	// perHour keeps an alerter from saving snapshots but when it stops, so that a
	// benchmark knows how much there is to replay.
	perHour = time.Hour
)

// routes tell each alert in a message of its own, at once: group_interval, to
// whose grid the news of a group that is known waits, is the shortest there is.
const routes = `
route: {receiver: bench, group_by: ['...'], group_wait: 0s, group_interval: 1ms, repeat_interval: 24h}
receivers:
- name: bench
  tocsin_configs: [{url: %q, format: standard, secret: whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw}]
`

// world is what a benchmark runs on.
type world struct {
	*rig.Rig
	suite    *suite
	conn     *bus.Conn
	hook     *hook.Hook
	notifier *rig.Service
}

// world starts servers, a receiver and a notifier that tells it. keep keeps the
// bodies of webhooks.
func (s *suite) world(ctx context.Context, always, keep bool, part string) (*world, error) {
	s.progress.step("%s, %s: starting the servers", part, syncName(always))
	name := s.current
	if always {
		name += "-always"
	}
	if part != s.current {
		name += "-" + part
	}
	r, err := rig.New(ctx, rig.Options{Dir: s.data, NATSBinary: s.nats, SyncAlways: always, Profiles: s.profiles, Name: name})
	if err != nil {
		return nil, err
	}
	w := &world{Rig: r, suite: s}
	if err := w.equip(ctx, keep); err != nil {
		return nil, w.end(err)
	}
	return w, nil
}

func (w *world) equip(ctx context.Context, keep bool) (err error) {
	if w.conn, err = bus.Connect(ctx, bus.Options{URL: w.NATS.URL(), Name: "bench"}); err != nil {
		return err
	}
	if _, err = w.conn.EnsureStream(ctx, bus.Events(0)); err != nil {
		return err
	}
	if w.hook, err = hook.Start(keep); err != nil {
		return err
	}
	w.notifier, err = w.Start(ctx, rig.Spec{Service: "notifier", Routes: fmt.Appendf(nil, routes, w.hook.URL)})
	return err
}

// end ends everything. After a failure the logs of all processes stay, and the
// error that it returns says where.
func (w *world) end(failed error) error {
	if w.conn != nil {
		w.conn.Close()
	}
	if w.hook != nil {
		defer w.hook.Close()
	}
	if failed != nil {
		return fmt.Errorf("%w\nlogs: %s", errors.Join(failed, w.Stop()), w.Dir())
	}
	return w.Close()
}

// alerter starts an alerter that saves no snapshots of its own accord.
func (w *world) alerter(ctx context.Context, name string, rules map[string][]byte) (*alerter, error) {
	s, err := w.Start(ctx, rig.Spec{
		Service: "alerter", Name: name, Notifier: w.notifier.GRPC, Rules: rules, SnapshotInterval: perHour,
	})
	if err != nil {
		return nil, err
	}
	conn, err := rpc.Dial(s.GRPC, rpc.DialOptions{})
	if err != nil {
		return nil, fmt.Errorf("connect to %s: %w", name, err)
	}
	return &alerter{Service: s, queries: queryv1.NewQueryServiceClient(conn), hangUp: conn.Close}, nil
}

// alerter is a running alerter.
type alerter struct {
	*rig.Service
	queries queryv1.QueryServiceClient
	hangUp  func() error
}

// stop ends the alerter as Ctrl-C does: it saves snapshots.
func (a *alerter) stop() error {
	return errors.Join(a.hangUp(), a.Stop())
}

// kill ends the alerter as a power cut would.
func (a *alerter) kill() error {
	a.Kill()
	return a.hangUp()
}

// committed returns up to which message of the log all partitions are dealt
// with and committed.
func (a *alerter) committed(ctx context.Context) (uint64, error) {
	answer, err := a.queries.ListAlerts(ctx, &queryv1.ListAlertsRequest{PageSize: 1})
	if err != nil {
		return 0, fmt.Errorf("ask %s how far it is: %w", a.Name, err)
	}
	return answer.GetFreshness().GetAppliedSequence(), nil
}

// await waits until everything up to seq is committed.
func (a *alerter) await(ctx context.Context, seq uint64) error {
	return every(ctx, fmt.Sprintf("%s commits everything up to message %d", a.Name, seq), func() (bool, error) {
		reached, err := a.committed(ctx)
		if err != nil && !a.Ended() && ctx.Err() == nil {
			return false, nil // Redis was emptied, or a partition moves
		}
		return reached >= seq, err
	})
}

// every calls f again and again until it is done, fails, or patience is over.
func every(ctx context.Context, what string, f func() (done bool, err error)) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	tick := time.NewTicker(pollEvery)
	defer tick.Stop()
	for {
		done, err := f()
		if done || err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("wait until %s: %w", what, ctx.Err())
		case <-tick.C:
		}
	}
}

// last returns the last sequence of the event log.
func (w *world) last(ctx context.Context) (uint64, error) {
	s, err := w.conn.StreamState(ctx, bus.EventsStream)
	return s.LastSeq, err
}

// settle waits until an alerter has its rules in force in all partitions and is
// up to date with the log as it is now.
func (w *world) settle(ctx context.Context, a *alerter) error {
	if err := every(ctx, "the rules are in force", func() (bool, error) {
		m, err := a.Metrics(ctx)
		return err == nil && m.Sum("tocsin_alerter_partitions_owned") > 0, err
	}); err != nil {
		return err
	}
	var last uint64
	if err := every(ctx, "the log names the rules", func() (done bool, err error) {
		last, err = w.last(ctx)
		return last >= partitions, err
	}); err != nil {
		return err
	}
	return a.await(ctx, last)
}

// partitions is how many messages activate a rule set.
const partitions = 64

// work is how an alerter went through a stretch of the log.
type work struct {
	// perSecond is the rate from before the first message is applied, at most a
	// look before, until the last is committed.
	perSecond float64
	// cpu is the processor time of each process for one message.
	cpu map[string]time.Duration
}

// follow watches an alerter that is about to apply so many messages, up to seq,
// and measures it from the last look at which it had applied none.
func (w *world) follow(ctx context.Context, a *alerter, seq uint64, events int) (work, error) {
	began, before := time.Now(), w.Usage()
	err := every(ctx, "the log is applied", func() (bool, error) {
		m, err := a.Metrics(ctx)
		if err != nil {
			return false, err
		}
		applied := m.Sum("tocsin_alerter_events_applied_total")
		if applied == 0 {
			began, before = time.Now(), w.Usage()
		}
		w.suite.progress.done(applied, float64(events))
		return applied >= float64(events), nil
	})
	if err != nil {
		return work{}, err
	}
	if err := a.await(ctx, seq); err != nil {
		return work{}, err
	}
	took := time.Since(began)
	done := work{perSecond: float64(events) / took.Seconds(), cpu: map[string]time.Duration{}}
	for name, now := range w.Usage() {
		done.cpu[name] = (now.CPU - before[name].CPU) / time.Duration(events)
	}
	return done, nil
}
