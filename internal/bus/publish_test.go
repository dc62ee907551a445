package bus_test

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/tocsin-dev/tocsin/internal/bus"
	"github.com/tocsin-dev/tocsin/internal/servertest"
)

// small is a stream that holds 64 KiB and then refuses.
func small(c *bus.StreamConfig) { c.MaxBytes = 64 << 10 }

// fill publishes messages of 4 KiB until the stream is full, and returns how
// many it took.
func fill(t *testing.T, c *bus.Conn) int {
	t.Helper()
	for n := 0; ; n++ {
		_, err := c.PublishExpecting(patient(t), fmt.Sprintf("test.fill%d", n), 0, make([]byte, 4<<10))
		if errors.Is(err, bus.ErrStreamFull) {
			return n
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

func TestPublishStoresAnIDOnce(t *testing.T) {
	_, c := open(t, stream())
	first, err := c.Publish(patient(t), bus.Message{Subject: "test.a", ID: "x", Data: []byte("1")})
	if err != nil {
		t.Fatal(err)
	}
	again, err := c.Publish(patient(t), bus.Message{Subject: "test.b", ID: "x", Data: []byte("2")})
	if err != nil {
		t.Fatal(err)
	}
	if first != (bus.Ack{Seq: 1}) || again != (bus.Ack{Seq: 1, Duplicate: true}) {
		t.Errorf("acknowledged as %+v and %+v", first, again)
	}
	for range 2 {
		if _, err := c.Publish(patient(t), bus.Message{Subject: "test.a"}); err != nil {
			t.Fatal(err)
		}
	}
	if got := len(readAll(t, c, bus.ReadOptions{Stream: "TEST"})); got != 3 {
		t.Errorf("%d messages, want one with the id and two without", got)
	}
}

func TestPublishRefusesForGoodWhatCanNeverBeStored(t *testing.T) {
	_, c := open(t, stream())
	tests := map[string]struct {
		message bus.Message
		want    error
	}{
		"a payload above the server's limit": {bus.Message{Subject: "test.a", Data: make([]byte, 2<<20)}, bus.ErrTooLarge},
		"a subject with a space":             {bus.Message{Subject: "test. a"}, nil},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			ctx := patient(t)
			_, err := c.Publish(ctx, test.message)
			if err == nil || ctx.Err() != nil {
				t.Fatalf("error %v after waiting: %v", err, ctx.Err())
			}
			if test.want != nil && !errors.Is(err, test.want) {
				t.Errorf("error %v, want %v", err, test.want)
			}
		})
	}
}

func TestPublishOutlivesAnOutage(t *testing.T) {
	s := servertest.NATS(t)
	reg := prometheus.NewRegistry()
	c := s.Connect(t, bus.Options{Registerer: reg})
	if _, err := c.EnsureStream(patient(t), stream()); err != nil {
		t.Fatal(err)
	}
	s.Stop()
	stored := make(chan error, 1)
	ctx := patient(t)
	go func() {
		_, err := c.Publish(ctx, bus.Message{Subject: "test.a", ID: "x", Data: []byte("kept")})
		stored <- err
	}()
	eventually(t, "the publish is tried in vain", func() bool {
		return metric(t, reg, "tocsin_bus_publish_retries_total") > 0
	})
	s.Start(t)
	if err := <-stored; err != nil {
		t.Fatal(err)
	}
	if d, ok, err := c.Last(patient(t), "TEST", "test.a"); err != nil || !ok || string(d.Data) != "kept" {
		t.Errorf("stored %q, %v, %v", d.Data, ok, err)
	}
}

func TestPublishRepeatsALostAnswerUnderTheSameID(t *testing.T) {
	s, c := open(t, stream())
	proxy := servertest.NewProxy(t, s.Addr())
	reg := prometheus.NewRegistry()
	behind := s.Connect(t, bus.Options{URL: "nats://" + proxy.Addr(), Registerer: reg})

	proxy.Mute()
	acked := make(chan bus.Ack, 1)
	ctx := patient(t)
	go func() {
		ack, err := behind.Publish(ctx, bus.Message{Subject: "test.a", ID: "x"})
		if err != nil {
			t.Error(err)
		}
		acked <- ack
	}()
	eventually(t, "the message is stored", func() bool {
		_, ok, err := c.Last(ctx, "TEST", "test.a")
		return ok && err == nil
	})
	proxy.Heal()
	if ack := <-acked; ack != (bus.Ack{Seq: 1, Duplicate: true}) {
		t.Errorf("acknowledged as %+v, want a duplicate of 1", ack)
	}
	if got := metric(t, reg, "tocsin_bus_published_total", "result", "duplicate"); got != 1 {
		t.Errorf("%v duplicates counted, want 1", got)
	}
}

func TestPublishWaitsForAFullStreamAndSaysSo(t *testing.T) {
	s := servertest.NATS(t)
	reg := prometheus.NewRegistry()
	c := s.Connect(t, bus.Options{Registerer: reg})
	if _, err := c.EnsureStream(patient(t), stream(small)); err != nil {
		t.Fatal(err)
	}
	if n := fill(t, c); n < 10 {
		t.Fatalf("the stream was full after %d messages", n)
	}
	m := bus.Message{Subject: "test.a", Data: make([]byte, 4<<10)}
	impatient, cancel := context.WithCancel(t.Context())
	defer cancel()
	given := make(chan error, 1)
	go func() {
		_, err := c.Publish(impatient, m)
		given <- err
	}()
	eventually(t, "a retry is counted for the full stream", func() bool {
		return metric(t, reg, "tocsin_bus_publish_retries_total", "reason", "full") > 0
	})
	cancel()
	if err := <-given; !errors.Is(err, context.Canceled) || !errors.Is(err, bus.ErrStreamFull) {
		t.Errorf("error %v does not wrap both the context's end and ErrStreamFull", err)
	}

	stored := make(chan error, 1)
	ctx := patient(t)
	go func() {
		_, err := c.Publish(ctx, m)
		stored <- err
	}()
	if err := c.PurgeBefore(patient(t), "TEST", 5); err != nil {
		t.Fatal(err)
	}
	if err := <-stored; err != nil {
		t.Errorf("after room was made: %v", err)
	}
}

func TestPublishExpectingStoresOnlyAfterTheExpected(t *testing.T) {
	_, c := open(t, stream())
	expect := func(last, want uint64, refusal error) {
		t.Helper()
		seq, err := c.PublishExpecting(patient(t), "test.a", last, nil)
		if seq != want || !errors.Is(err, refusal) {
			t.Errorf("after %d: sequence %d, error %v; want %d, %v", last, seq, err, want, refusal)
		}
	}
	expect(7, 0, bus.ErrWrongSequence)
	expect(0, 1, nil)
	expect(0, 0, bus.ErrWrongSequence)
	publish(t, c, "test.b", 1)
	expect(2, 0, bus.ErrWrongSequence) // 2 is another subject's
	expect(1, 3, nil)
	expect(3, 4, nil)
	if got := len(readAll(t, c, bus.ReadOptions{Stream: "TEST", Filter: "test.a"})); got != 3 {
		t.Errorf("%d messages, want 3", got)
	}
}

func TestPublishExpectingTellsRefusalsFromUnknownOutcomes(t *testing.T) {
	s, c := open(t, stream(small))
	fill(t, c)
	if _, err := c.PublishExpecting(patient(t), "test.a", 0, make([]byte, 4<<10)); !errors.Is(err, bus.ErrStreamFull) || errors.Is(err, bus.ErrUnknownOutcome) {
		t.Errorf("a full stream gives %v, want ErrStreamFull alone", err)
	}
	if _, err := c.PublishExpecting(patient(t), "test.a", 0, make([]byte, 2<<20)); !errors.Is(err, bus.ErrTooLarge) || errors.Is(err, bus.ErrUnknownOutcome) {
		t.Errorf("a large message gives %v, want ErrTooLarge alone", err)
	}
	s.Stop()
	if _, err := c.PublishExpecting(patient(t), "test.a", 0, nil); !errors.Is(err, bus.ErrUnknownOutcome) {
		t.Errorf("a server that is away gives %v, want ErrUnknownOutcome", err)
	}
}

func TestPublishExpectingDoesNotHideThatItMayHaveStored(t *testing.T) {
	s, c := open(t, stream())
	proxy := servertest.NewProxy(t, s.Addr())
	behind := s.Connect(t, bus.Options{URL: "nats://" + proxy.Addr()})

	proxy.Mute()
	outcome := make(chan error, 1)
	ctx := patient(t)
	go func() {
		_, err := behind.PublishExpecting(ctx, "test.a", 0, []byte("stored"))
		outcome <- err
	}()
	eventually(t, "the message is stored", func() bool {
		_, ok, err := c.Last(ctx, "TEST", "test.a")
		return ok && err == nil
	})
	proxy.Heal() // closes the connection, and the answer with it
	if err := <-outcome; !errors.Is(err, bus.ErrUnknownOutcome) {
		t.Errorf("error %v, want ErrUnknownOutcome", err)
	}
	if _, err := behind.PublishExpecting(ctx, "test.a", 0, nil); !errors.Is(err, bus.ErrWrongSequence) && !errors.Is(err, bus.ErrUnknownOutcome) {
		t.Errorf("a blind second attempt gives %v", err)
	}
}

func TestPublishAtomicStoresAllOrNothing(t *testing.T) {
	_, c := open(t, stream())
	batch := func(n int, prefix string) []bus.Message {
		ms := make([]bus.Message, n)
		for i := range ms {
			ms[i] = bus.Message{Subject: fmt.Sprintf("test.%d", i%64), ID: fmt.Sprintf("%s%d", prefix, i), Data: fmt.Append(nil, i)}
		}
		return ms
	}
	stored := func() uint64 {
		t.Helper()
		s, err := c.StreamState(patient(t), "TEST")
		if err != nil {
			t.Fatal(err)
		}
		return s.Messages
	}

	if err := c.PublishAtomic(patient(t), batch(64, "a")); err != nil {
		t.Fatal(err)
	}
	for i, d := range readAll(t, c, bus.ReadOptions{Stream: "TEST"}) {
		if d.Seq != uint64(i+1) || string(d.Data) != fmt.Sprint(i) {
			t.Fatalf("message %d of the batch is %q at %d", i, d.Data, d.Seq)
		}
	}
	if err := c.PublishAtomic(patient(t), batch(64, "a")); !errors.Is(err, bus.ErrDuplicate) {
		t.Errorf("the same batch again gives %v, want ErrDuplicate", err)
	}
	stray := append(batch(3, "b"), bus.Message{Subject: "test.1", ID: "a7"})
	if err := c.PublishAtomic(patient(t), stray); !errors.Is(err, bus.ErrDuplicate) {
		t.Errorf("a batch with one known id gives %v, want ErrDuplicate", err)
	}
	if got := stored(); got != 64 {
		t.Errorf("%d messages, want 64: a refused batch must leave nothing", got)
	}
	if err := c.PublishAtomic(patient(t), batch(bus.MaxAtomic, "c")); err != nil {
		t.Errorf("the largest batch: %v", err)
	}
	if err := c.PublishAtomic(patient(t), batch(bus.MaxAtomic+1, "d")); !errors.Is(err, bus.ErrTooLarge) {
		t.Errorf("one message more gives %v, want ErrTooLarge", err)
	}
	if err := c.PublishAtomic(patient(t), batch(1, "e")); err != nil {
		t.Errorf("a batch of one: %v", err)
	}
	if err := c.PublishAtomic(patient(t), nil); err != nil {
		t.Errorf("an empty batch: %v", err)
	}
	if got := stored(); got != 64+bus.MaxAtomic+1 {
		t.Errorf("%d messages in the end, want %d", got, 64+bus.MaxAtomic+1)
	}
}

func TestPublishAtomicSaysWhenTheOutcomeIsUnknown(t *testing.T) {
	s, c := open(t, stream())
	s.Stop()
	err := c.PublishAtomic(patient(t), []bus.Message{{Subject: "test.a"}, {Subject: "test.b"}})
	if !errors.Is(err, bus.ErrUnknownOutcome) {
		t.Errorf("error %v, want ErrUnknownOutcome", err)
	}
}
