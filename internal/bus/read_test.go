package bus_test

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"strconv"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/tocsin-dev/tocsin/internal/bus"
)

func TestReadStartsWhereItIsTold(t *testing.T) {
	_, c := open(t, stream())
	publish(t, c, "test.a", 3) // 1 to 3
	publish(t, c, "test.b", 3) // 4 to 6
	third, _, err := c.At(patient(t), "TEST", 3)
	if err != nil {
		t.Fatal(err)
	}
	if err := c.PurgeBefore(patient(t), "TEST", 2); err != nil {
		t.Fatal(err)
	}
	tests := map[string]struct {
		from bus.ReadOptions
		want []uint64
	}{
		"at the oldest kept by default":         {bus.ReadOptions{}, []uint64{2, 3, 4, 5, 6}},
		"at a sequence":                         {bus.ReadOptions{From: 5}, []uint64{5, 6}},
		"at the oldest kept after a sequence":   {bus.ReadOptions{From: 1}, []uint64{2, 3, 4, 5, 6}},
		"at a time":                             {bus.ReadOptions{FromTime: third.Time}, []uint64{3, 4, 5, 6}},
		"at the sequence when there is a time":  {bus.ReadOptions{From: 6, FromTime: third.Time}, []uint64{6}},
		"with a filter":                         {bus.ReadOptions{Filter: "test.b"}, []uint64{4, 5, 6}},
		"with a filter and before its messages": {bus.ReadOptions{Filter: "test.*", From: 4}, []uint64{4, 5, 6}},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			test.from.Stream = "TEST"
			var got []uint64
			for i, d := range readAll(t, c, test.from) {
				got = append(got, d.Seq)
				if want := uint64(len(test.want) - 1 - i); d.Pending != want {
					t.Errorf("message %d says that %d follow, want %d", d.Seq, d.Pending, want)
				}
			}
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Errorf("sequences (-want +got):\n%s", diff)
			}
		})
	}
}

func TestReadDeliversWhatWasPublished(t *testing.T) {
	_, c := open(t, stream())
	if _, err := c.Publish(patient(t), bus.Message{Subject: "test.a", ID: "x", Data: []byte("one")}); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Publish(patient(t), bus.Message{Subject: "test.b"}); err != nil {
		t.Fatal(err)
	}
	for _, d := range readAll(t, c, bus.ReadOptions{Stream: "TEST"}) {
		stored, ok, err := c.At(patient(t), "TEST", d.Seq)
		if err != nil || !ok {
			t.Fatal(ok, err)
		}
		d.Pending = 0
		if diff := cmp.Diff(fmt.Sprintf("%+v", stored), fmt.Sprintf("%+v", d)); diff != "" {
			t.Errorf("the read differs from what is stored (-stored +read):\n%s", diff)
		}
	}
}

func TestReadOutlivesRestartsWithoutLossOrRepetition(t *testing.T) {
	t.Parallel()
	s, c := open(t, stream())
	const messages, restarts = 3000, 3
	published := make(chan error, 1)
	ctx := patient(t)
	reached := make(chan struct{}) // the reader is at a restart
	resume := make(chan struct{})
	go func() {
		p := c.NewPublisher(bus.PublisherOptions{})
		defer p.Close()
		for i := range messages {
			m := bus.Message{Subject: fmt.Sprintf("test.%d", i%7), ID: strconv.Itoa(i), Data: fmt.Append(nil, i)}
			if err := p.Publish(ctx, m); err != nil {
				published <- err
				return
			}
		}
		published <- p.Flush(ctx)
	}()
	go func() {
		for range restarts {
			<-reached
			s.Stop()
			resume <- struct{}{} // the reader goes on with a server that is away
			s.Start(t)
		}
	}()

	enough := errors.New("enough")
	seen := map[string]uint64{}
	next := uint64(1)
	err := c.Read(ctx, bus.ReadOptions{Stream: "TEST"}, func(d bus.Delivery) error {
		if d.Seq != next {
			t.Errorf("sequence %d came, want %d", d.Seq, next)
		}
		next = d.Seq + 1
		if first, again := seen[d.ID]; again {
			t.Errorf("%s came at %d and at %d", d.ID, first, d.Seq)
		}
		seen[d.ID] = d.Seq
		if d.Seq%(messages/(restarts+1)) == 0 && d.Seq < messages {
			reached <- struct{}{}
			<-resume
		}
		if len(seen) == messages {
			return enough
		}
		return nil
	})
	if !errors.Is(err, enough) {
		t.Fatalf("read ended with %v after %d of %d messages", err, len(seen), messages)
	}
	if err := <-published; err != nil {
		t.Error(err)
	}
}

// TestReadOutlivesARestartWhileItBegins restarts the server at other moments of a
// read's beginning: its consumer may be gone before it is first used.
func TestReadOutlivesARestartWhileItBegins(t *testing.T) {
	t.Parallel()
	s, c := open(t, stream())
	publish(t, c, "test.a", 1)
	first, _, err := c.At(patient(t), "TEST", 1)
	if err != nil {
		t.Fatal(err)
	}
	for i := range 12 {
		ctx, enough := patient(t), errors.New("enough")
		ended := make(chan error, 1)
		o := bus.ReadOptions{Stream: "TEST", From: uint64(i) + 2, Known: []bus.Mark{{Seq: 1, Time: first.Time}}}
		s.Stop()
		go func() { ended <- c.Read(ctx, o, func(bus.Delivery) error { return enough }) }()
		s.Start(t) // the read begins as soon as the connection is back
		for !c.Connected() {
			runtime.Gosched()
		}
		timer := time.NewTimer(time.Duration(i) * 100 * time.Microsecond)
		<-timer.C
		s.Restart(t)
		publish(t, c, fmt.Sprint("test.", i), 1)
		if err := <-ended; !errors.Is(err, enough) {
			t.Errorf("%d: the read ended with %v", i, err)
		}
	}
}

func TestReadWaitsForNewMessagesAndCallsIdleMeanwhile(t *testing.T) {
	t.Parallel()
	_, c := open(t, stream())
	ctx := patient(t)
	idle := make(chan struct{}, 100)
	got := make(chan string, 10)
	ended := make(chan error, 1)
	readCtx, stop := context.WithCancel(ctx)
	go func() {
		ended <- c.Read(readCtx, bus.ReadOptions{Stream: "TEST", Idle: func() { idle <- struct{}{} }}, func(d bus.Delivery) error {
			got <- d.ID
			return nil
		})
	}()
	for n := range 2 {
		<-idle
		m := bus.Message{Subject: "test.a", ID: strconv.Itoa(n)}
		if _, err := c.Publish(ctx, m); err != nil {
			t.Fatal(err)
		}
		if id := <-got; id != m.ID {
			t.Errorf("%s arrived, want %s", id, m.ID)
		}
	}
	stop()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Errorf("the read ended with %v, want the context's end", err)
	}
}

func TestReadReturnsTheHandlersErrorAndStops(t *testing.T) {
	_, c := open(t, stream())
	publish(t, c, "test.a", 5)
	broken := errors.New("broken")
	var calls int
	err := c.Read(patient(t), bus.ReadOptions{Stream: "TEST"}, func(bus.Delivery) error {
		calls++
		if calls == 2 {
			return broken
		}
		return nil
	})
	if err != broken { //nolint:errorlint // it must come back as it is
		t.Errorf("read returned %v, want the handler's own error", err)
	}
	if calls != 2 {
		t.Errorf("the handler was called %d times, want 2", calls)
	}
}

func TestReadCallsNoHandlerAfterItsContextEnded(t *testing.T) {
	_, c := open(t, stream())
	publish(t, c, "test.a", 50)
	ctx, cancel := context.WithCancel(patient(t))
	var calls int
	err := c.Read(ctx, bus.ReadOptions{Stream: "TEST"}, func(bus.Delivery) error {
		calls++
		cancel()
		return nil
	})
	if !errors.Is(err, context.Canceled) || calls != 1 {
		t.Errorf("%d calls and %v, want one call and the context's end", calls, err)
	}
}

func TestReadShowsRemovedMessagesAsAHole(t *testing.T) {
	_, c := open(t, stream())
	publish(t, c, "test.a", 10)
	enough := errors.New("enough")
	var got []uint64
	err := c.Read(patient(t), bus.ReadOptions{Stream: "TEST", From: 3}, func(d bus.Delivery) error {
		got = append(got, d.Seq)
		if d.Seq == 10 {
			return enough
		}
		return nil
	})
	if !errors.Is(err, enough) {
		t.Fatal(err)
	}
	if err := c.PurgeBefore(patient(t), "TEST", 8); err != nil {
		t.Fatal(err)
	}
	after := readAll(t, c, bus.ReadOptions{Stream: "TEST", From: 3})
	if len(got) != 8 || len(after) != 3 || after[0].Seq != 8 {
		t.Errorf("before: %v, after a purge the first is %d of %d", got, after[0].Seq, len(after))
	}
}

func TestReadRefusesAStreamThatIsMissingOrAnother(t *testing.T) {
	s, c := open(t, stream())
	err := c.Read(patient(t), bus.ReadOptions{Stream: "NONE"}, func(bus.Delivery) error { return nil })
	if !errors.Is(err, bus.ErrStreamNotFound) {
		t.Errorf("no stream gives %v, want ErrStreamNotFound", err)
	}

	publish(t, c, "test.a", 1)
	raw := rawJetStream(t, s)
	ctx := patient(t)
	err = c.Read(ctx, bus.ReadOptions{Stream: "TEST"}, func(bus.Delivery) error {
		if err := raw.DeleteStream(ctx, "TEST"); err != nil {
			t.Fatal(err)
		}
		if _, err := c.EnsureStream(ctx, stream()); err != nil {
			t.Fatal(err)
		}
		return nil
	})
	if !errors.Is(err, bus.ErrStreamReplaced) {
		t.Errorf("a stream created anew gives %v, want ErrStreamReplaced", err)
	}
}

func TestReadLeavesNoConsumerBehind(t *testing.T) {
	s, c := open(t, stream())
	publish(t, c, "test.a", 1)
	for range 3 {
		readAll(t, c, bus.ReadOptions{Stream: "TEST"})
	}
	raw, err := rawJetStream(t, s).Stream(patient(t), "TEST")
	if err != nil {
		t.Fatal(err)
	}
	if n := raw.CachedInfo().State.Consumers; n != 0 {
		t.Errorf("%d consumers are left on the server", n)
	}
}
