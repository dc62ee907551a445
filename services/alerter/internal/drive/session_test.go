package drive

import (
	"context"
	"fmt"
	"log/slog"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tocsin-dev/tocsin/internal/bus"
	"github.com/tocsin-dev/tocsin/internal/event"
	alertv1 "github.com/tocsin-dev/tocsin/proto/gen/tocsin/alert/v1"
	eventv1 "github.com/tocsin-dev/tocsin/proto/gen/tocsin/event/v1"
	"github.com/tocsin-dev/tocsin/services/alerter/internal/engine"
	"github.com/tocsin-dev/tocsin/services/alerter/internal/feed"
	"github.com/tocsin-dev/tocsin/services/alerter/internal/outbox"
)

func quietDriver(publish func(context.Context, bus.Message) (bus.Ack, error), f *feed.Feed) *Driver {
	return &Driver{
		Options: Options{Speed: 1, Log: slog.New(slog.DiscardHandler), Publish: publish, Feed: f},
		metrics: newMetrics(nil),
	}
}

// source is an event log of which a test says how it is read.
type source func(ctx context.Context, handle func(bus.Delivery) error) error

func (source) ID() string { return "log" }

func (s source) Read(ctx context.Context, _ feed.Reading, handle func(bus.Delivery) error) error {
	return s(ctx, handle)
}

func (source) Newest(context.Context, int) (uint64, error) { return 0, nil }

func (source) Kept(context.Context) (feed.Kept, error) { return feed.Kept{}, nil }

func TestAPartitionThatStoodStillGoesOnWhenHalfIsSent(t *testing.T) {
	f := feed.New(source(nil), slog.New(slog.DiscardHandler), nil)
	cause := func(n int) *alertv1.Cause { return &alertv1.Cause{LogId: "log", Sequence: uint64(n)} }
	transitions := make([]*alertv1.Transition, outbox.Capacity)
	for i := range transitions {
		transitions[i] = &alertv1.Transition{Id: fmt.Sprint(i + 1), Cause: cause(i + 1)}
	}
	s := &session{d: quietDriver(nil, f), queue: outbox.NewQueue("log", transitions[:outbox.Capacity-1], nil), sub: f.Join(3, "log", bus.Mark{})}
	for _, c := range []struct {
		what string
		do   func()
		want bool
	}{
		{"with room for one", func() {}, false},
		{"full", func() { s.queue.Push(transitions[outbox.Capacity-1:]) }, true},
		{"with one sent", func() { s.queue.Acknowledge(cause(1)) }, true},
		{"with half but one sent", func() { s.queue.Acknowledge(cause(outbox.Capacity/2 - 1)) }, true},
		{"with half sent", func() { s.queue.Acknowledge(cause(outbox.Capacity / 2)) }, false},
	} {
		c.do()
		if got := s.stalled(); got != c.want {
			t.Errorf("%s, it stands still: %v, want %v", c.what, got, c.want)
		}
	}
}

// TestTicksGoOnUnderAnyLoad has far more messages wait for other partitions
// than are read.
func TestTicksGoOnUnderAnyLoad(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		const other = 9
		f := feed.New(source(func(ctx context.Context, handle func(bus.Delivery) error) error {
			if err := handle(bus.Delivery{Subject: event.PartitionSubject(other, event.KindTick), Seq: 1, Pending: 1e6}); err != nil {
				return err
			}
			<-ctx.Done()
			return ctx.Err()
		}), slog.New(slog.DiscardHandler), nil)
		done := make(chan error, 1)
		go func() { done <- f.Run(ctx) }()
		defer func() {
			cancel()
			<-done
		}()
		published := 0
		publish := func(context.Context, bus.Message) (bus.Ack, error) {
			published++
			return bus.Ack{Seq: 1000 * uint64(published)}, nil
		}
		s := &session{d: quietDriver(publish, f), index: 3, sub: f.Join(3, "log", bus.Mark{}), part: engine.NewPartition(3, "log", 1)}
		time.Sleep(time.Second)
		if f.Waiting() == 0 {
			t.Fatal("nothing waits")
		}
		ask := func(what string, want int) {
			t.Helper()
			s.askForTick(ctx, time.Now())
			s.work.Wait()
			if published != want {
				t.Errorf("%s, %d ticks were published, want %d", what, published, want)
			}
		}
		ask("while others wait", 1)
		ask("before the tick comes back", 1)
		tick := engine.Message{Seq: 1000, Time: time.Now(), Event: &eventv1.Event{Fact: &eventv1.Event_Tick{Tick: &eventv1.Tick{}}}}
		if _, err := s.part.Step(tick, func(string) *engine.Program { return nil }); err != nil {
			t.Fatal(err)
		}
		ask("after it came back", 2)
	})
}

func TestAPartitionThatCannotBeLoadedOrStoredIsTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := &Driver{loading: map[int]time.Time{}, storing: map[int]time.Time{}}
		d.setLoading(7, true)
		d.setLoading(8, true)
		time.Sleep(stuckFor)
		d.setLoading(7, true) // again, after another attempt failed
		d.setLoading(8, false)
		d.setLoading(9, true)
		if err := d.Stuck(); err != nil {
			t.Errorf("in time: %v", err)
		}
		time.Sleep(time.Second)
		if err := d.Stuck(); err == nil || err.Error() != "partitions [7] cannot be loaded" {
			t.Errorf("got %v, want partition 7 alone", err)
		}
		d.setLoading(7, false)
		d.setStoring(7, true)
		d.setStoring(7, false)
		d.setStoring(5, true)
		time.Sleep(stuckFor + time.Second)
		want := "partitions [9] cannot be loaded\npartitions [5] cannot be stored: Redis takes no writes"
		if err := d.Stuck(); err == nil || err.Error() != want {
			t.Errorf("got %v, want %q", err, want)
		}
	})
}
