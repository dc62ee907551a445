package main

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/tocsin-dev/tocsin/internal/bus"
	alertv1 "github.com/tocsin-dev/tocsin/proto/gen/tocsin/alert/v1"
	deliveryv1 "github.com/tocsin-dev/tocsin/proto/gen/tocsin/delivery/v1"
	"github.com/tocsin-dev/tocsin/test/bench/internal/facts"
	"github.com/tocsin-dev/tocsin/test/bench/internal/hook"
)

// flip is a fact that makes an alert fire or resolve, and when it was where. All
// instants are of this machine's clock.
type flip struct {
	published time.Time // the call that publishes
	stored    time.Time // in EVENTS
	accepted  time.Time // in ALERTS
	intended  time.Time // in DELIVERIES
	arrived   time.Time // at the receiver
	// overtaken says that the alert was over before its first message: the
	// receiver was told of it once, by the message that it is resolved.
	overtaken bool
}

// flips are the facts of a run at one rate, in the order of their publishing.
type flips struct {
	rate   int
	queues int
	from   int  // the number of the first queue
	still  bool // the queues are always short, so that no alert fires
	warm   int  // so many of the first do not count
	all    []flip
	late   time.Duration // the most by which one was published too late

	invented int // messages about what no fact made
	again    int // messages that came before

	mu    sync.Mutex
	bySeq map[uint64]int // guarded by mu while messages are published
	first error          // guarded by mu; of a fact that was refused
}

// newFlips returns the flips of a rate: those of a warm-up, and as many as are
// measured.
func newFlips(rate int, warmUp, measured time.Duration) *flips {
	count := func(d time.Duration) int { return int(float64(rate) * d.Seconds()) }
	return &flips{
		rate: rate, queues: max(count(flipEvery), 1), warm: count(warmUp),
		all: make([]flip, count(warmUp)+count(measured)), bySeq: map[uint64]int{},
	}
}

// prepare publishes that the queues exist and are short.
func (f *flips) prepare(ctx context.Context, conn *bus.Conn) error {
	var batch []bus.Message
	for q := range f.queues {
		discovery, err := facts.Queue(f.from + q).Discovery()
		if err != nil {
			return err
		}
		sample, err := facts.Queue(f.from+q).Sample(0, false)
		if err != nil {
			return err
		}
		if batch = append(batch, discovery, sample); len(batch) > bus.MaxAtomic-2 {
			if err := conn.PublishAtomic(ctx, batch); err != nil {
				return fmt.Errorf("publish the queues: %w", err)
			}
			batch = nil
		}
	}
	if err := conn.PublishAtomic(ctx, batch); err != nil {
		return fmt.Errorf("publish the queues: %w", err)
	}
	return nil
}

// run publishes all at their rate, each when its time has come whether or not
// those before have arrived.
func (f *flips) run(ctx context.Context, conn *bus.Conn, p *progress) error {
	index := map[*byte]int{} // of the messages on their way, by their bytes
	publisher := conn.NewPublisher(bus.PublisherOptions{Settled: func(m bus.Message, ack bus.Ack, err error) {
		f.mu.Lock()
		defer f.mu.Unlock()
		if err != nil {
			f.first = errors.Join(f.first, err)
			return
		}
		f.bySeq[ack.Seq] = index[&m.Data[0]]
		delete(index, &m.Data[0])
	}})
	defer publisher.Close()
	timer := time.NewTimer(0)
	defer timer.Stop()
	gap := time.Second / time.Duration(f.rate)
	start := time.Now()
	for k := range f.all {
		n := 1 + k/f.queues
		m, err := facts.Queue(f.from+k%f.queues).Sample(n, n%2 == 1 && !f.still)
		if err != nil {
			return err
		}
		f.mu.Lock()
		index[&m.Data[0]] = k
		f.mu.Unlock()
		due := start.Add(time.Duration(k) * gap)
		timer.Reset(time.Until(due))
		select {
		case <-timer.C:
		case <-ctx.Done():
			return ctx.Err()
		}
		f.all[k].published = time.Now()
		f.late = max(f.late, f.all[k].published.Sub(due))
		if err := publisher.Publish(ctx, m); err != nil {
			return err
		}
		p.done(float64(k), float64(len(f.all)))
	}
	if err := publisher.Flush(ctx); err != nil {
		return err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.first
}

// judge finds out when each was where, from what NATS holds and what arrived:
// the notifier's streams name the message that caused an alert, and the alert
// that a webhook is about.
func (f *flips) judge(ctx context.Context, w *world) error {
	if err := w.readAll(ctx, bus.EventsStream, func(d bus.Delivery) error {
		if k, ok := f.bySeq[d.Seq]; ok {
			f.all[k].stored = d.Time
		}
		return nil
	}); err != nil {
		return err
	}
	changes := map[change]int{}
	if err := w.readAll(ctx, bus.AlertsStream, func(d bus.Delivery) error {
		var batch alertv1.TransitionBatch
		if err := proto.Unmarshal(d.Data, &batch); err != nil {
			return fmt.Errorf("read ALERTS: %w", err)
		}
		for _, t := range batch.GetTransitions() {
			if k, ok := f.bySeq[t.GetCause().GetSequence()]; ok {
				f.all[k].accepted = d.Time
				changes[change{t.GetAlert().GetId(), t.GetKind() == alertv1.TransitionKind_TRANSITION_KIND_FIRING}] = k
			}
		}
		return nil
	}); err != nil {
		return err
	}
	if err := w.readAll(ctx, bus.DeliveriesStream, func(d bus.Delivery) error {
		var batch deliveryv1.Batch
		if err := proto.Unmarshal(d.Data, &batch); err != nil {
			return fmt.Errorf("read DELIVERIES: %w", err)
		}
		for _, r := range batch.GetRecords() {
			for _, m := range r.GetIntended().GetMentions() {
				if k, ok := changes[change{m.GetAlertId(), m.GetState() == alertv1.AlertState_ALERT_STATE_FIRING}]; ok {
					f.all[k].intended = d.Time
				}
			}
		}
		return nil
	}); err != nil {
		return err
	}
	return f.receive(w.hook.Arrivals(), changes)
}

// change is what happened to an alert.
type change struct {
	alert  string
	firing bool
}

// receive notes what arrived. changes are the flips by what they did.
func (f *flips) receive(arrivals []hook.Arrival, changes map[change]int) error {
	for _, a := range arrivals {
		told, err := a.Read()
		if err != nil {
			return err
		}
		for _, t := range told {
			k, ok := changes[change{t.ID, t.Status == "firing"}]
			switch {
			case !ok:
				f.invented++
			case !f.all[k].arrived.IsZero():
				f.again++
			default:
				f.all[k].arrived = a.At
			}
		}
	}
	for c, k := range changes {
		end, ended := changes[change{c.alert, false}]
		f.all[k].overtaken = c.firing && f.all[k].arrived.IsZero() && ended && !f.all[end].arrived.IsZero()
	}
	return nil
}

// readAll reads a stream as it is now.
func (w *world) readAll(ctx context.Context, stream string, take func(bus.Delivery) error) error {
	s, err := w.conn.StreamState(ctx, stream)
	if err != nil || s.Messages == 0 {
		return err
	}
	enough := errors.New("enough")
	err = w.conn.Read(ctx, bus.ReadOptions{Stream: stream}, func(d bus.Delivery) error {
		if err := take(d); err != nil {
			return err
		}
		if d.Seq >= s.LastSeq {
			return enough
		}
		return nil
	})
	if errors.Is(err, enough) {
		return nil
	}
	return err
}

// lost counts the facts whose webhook did not arrive, and overtaken those that
// were told together with their end.
func (f *flips) lost() (lost, overtaken int) {
	for i := range f.all {
		switch {
		case !f.all[i].arrived.IsZero():
		case f.all[i].overtaken:
			overtaken++
		default:
			lost++
		}
	}
	return lost, overtaken
}

// times returns how long each took from its publishing to its arrival, but those
// of the beginning.
func (f *flips) times() []time.Duration {
	return f.between(func(x flip) time.Time { return x.published }, func(x flip) time.Time { return x.arrived })
}

func (f *flips) between(from, to func(flip) time.Time) []time.Duration {
	var times []time.Duration
	for _, x := range f.all[min(f.warm, len(f.all)):] {
		if !from(x).IsZero() && !to(x).IsZero() {
			times = append(times, to(x).Sub(from(x)))
		}
	}
	return times
}

// stage is a part of the path.
type stage struct {
	name  string
	times []time.Duration
}

// stages returns how long each part of the path took.
func (f *flips) stages() []stage {
	published := func(x flip) time.Time { return x.published }
	stored := func(x flip) time.Time { return x.stored }
	accepted := func(x flip) time.Time { return x.accepted }
	intended := func(x flip) time.Time { return x.intended }
	arrived := func(x flip) time.Time { return x.arrived }
	return []stage{
		{"published to stored", f.between(published, stored)},
		{"stored to accepted by the notifier", f.between(stored, accepted)},
		{"accepted to intent stored", f.between(accepted, intended)},
		{"intent stored to arrived", f.between(intended, arrived)},
	}
}
