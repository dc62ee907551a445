package bus_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/tocsin-dev/tocsin/internal/bus"
	"github.com/tocsin-dev/tocsin/internal/servertest"
)

// bySubject returns the payloads of each subject in the order of the stream.
func bySubject(ds []bus.Delivery) map[string][]string {
	out := map[string][]string{}
	for _, d := range ds {
		out[d.Subject] = append(out[d.Subject], string(d.Data))
	}
	return out
}

func TestPublisherKeepsOrderAndIDsOverRestarts(t *testing.T) {
	t.Parallel()
	s, c := open(t, stream())
	p := c.NewPublisher(bus.PublisherOptions{MaxInFlight: 64})
	defer p.Close()
	const subjects, each, restartEvery = 5, 400, 500
	want := map[string][]string{}
	for i := range subjects * each {
		if i%restartEvery == restartEvery/2 {
			s.Restart(t)
		}
		subject := fmt.Sprintf("test.%d", i%subjects)
		want[subject] = append(want[subject], strconv.Itoa(i))
		m := bus.Message{Subject: subject, ID: strconv.Itoa(i), Data: fmt.Append(nil, i)}
		if err := p.Publish(patient(t), m); err != nil {
			t.Fatal(err)
		}
	}
	if err := p.Flush(patient(t)); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, bySubject(readAll(t, c, bus.ReadOptions{Stream: "TEST"}))); diff != "" {
		t.Errorf("stored (-want +got):\n%s", diff)
	}
}

func TestPublisherWithoutIDsMayRepeatButNeverReorders(t *testing.T) {
	s, c := open(t, stream())
	p := c.NewPublisher(bus.PublisherOptions{})
	defer p.Close()
	want := map[string][]string{}
	for i := range 900 {
		if i%300 == 150 {
			s.Restart(t)
		}
		subject := fmt.Sprintf("test.%d", i%3)
		want[subject] = append(want[subject], strconv.Itoa(i))
		if err := p.Publish(patient(t), bus.Message{Subject: subject, Data: fmt.Append(nil, i)}); err != nil {
			t.Fatal(err)
		}
	}
	if err := p.Flush(patient(t)); err != nil {
		t.Fatal(err)
	}
	got := bySubject(readAll(t, c, bus.ReadOptions{Stream: "TEST"}))
	for subject := range got {
		got[subject] = slices.Compact(got[subject])
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("stored, repetitions removed (-want +got):\n%s", diff)
	}
}

func TestPublisherOrdersByTheCallersQueue(t *testing.T) {
	s, c := open(t, stream())
	target := func(subject string) string { return subject[strings.LastIndexByte(subject, '.')+1:] }
	p := c.NewPublisher(bus.PublisherOptions{OrderBy: target})
	defer p.Close()
	s.Stop() // everything waits, so that the queues alone decide
	for i := range 30 {
		subject := fmt.Sprintf("test.kind%d.target%d", i%3, i%2)
		if err := p.Publish(patient(t), bus.Message{Subject: subject, ID: strconv.Itoa(i), Data: fmt.Append(nil, i)}); err != nil {
			t.Fatal(err)
		}
	}
	s.Start(t)
	if err := p.Flush(patient(t)); err != nil {
		t.Fatal(err)
	}
	last := map[string]int{}
	for _, d := range readAll(t, c, bus.ReadOptions{Stream: "TEST"}) {
		n, err := strconv.Atoi(string(d.Data))
		if err != nil {
			t.Fatal(err)
		}
		if queue := target(d.Subject); n < last[queue] {
			t.Errorf("%s: %d is stored after %d", queue, n, last[queue])
		}
		last[target(d.Subject)] = n
	}
}

func TestPublisherBlocksWhileTheStreamIsFull(t *testing.T) {
	s := servertest.NATS(t)
	reg := prometheus.NewRegistry()
	c := s.Connect(t, bus.Options{Registerer: reg})
	if _, err := c.EnsureStream(patient(t), stream(small)); err != nil {
		t.Fatal(err)
	}
	fill(t, c)

	const inFlight = 4
	var mu sync.Mutex
	settled := map[string]bus.Ack{}
	p := c.NewPublisher(bus.PublisherOptions{MaxInFlight: inFlight, Settled: func(m bus.Message, a bus.Ack, err error) {
		if err != nil {
			t.Errorf("%s was refused: %v", m.ID, err)
		}
		mu.Lock()
		defer mu.Unlock()
		settled[m.ID] = a
	}})
	defer p.Close()
	message := func(i int) bus.Message {
		return bus.Message{Subject: fmt.Sprintf("test.%d", i), ID: fmt.Sprint("m", i), Data: make([]byte, 4<<10)}
	}
	for i := range inFlight {
		if err := p.Publish(patient(t), message(i)); err != nil {
			t.Fatal(err)
		}
	}
	short, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := p.Publish(short, message(99)); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a full publisher says %v, want to wait for the context's end", err)
	}
	if err := p.Flush(short); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("flushing while the stream is full says %v", err)
	}
	if got := metric(t, reg, "tocsin_bus_publisher_in_flight"); got != inFlight {
		t.Errorf("%v messages in flight, want %d", got, inFlight)
	}
	if metric(t, reg, "tocsin_bus_publisher_stalls_total") == 0 {
		t.Error("the stall is not counted")
	}

	if err := c.PurgeBefore(patient(t), "TEST", 10); err != nil {
		t.Fatal(err)
	}
	if err := p.Flush(patient(t)); err != nil {
		t.Fatal(err)
	}
	mu.Lock()
	defer mu.Unlock()
	if len(settled) != inFlight {
		t.Errorf("%d messages were settled, want %d", len(settled), inFlight)
	}
	for id, ack := range settled {
		if d, ok, err := c.At(patient(t), "TEST", ack.Seq); err != nil || !ok || d.ID != id {
			t.Errorf("%s was acknowledged as %d, which holds %q (%v, %v)", id, ack.Seq, d.ID, ok, err)
		}
	}
	if got := metric(t, reg, "tocsin_bus_publisher_in_flight"); got != 0 {
		t.Errorf("%v messages in flight in the end", got)
	}
}

func TestPublisherLetsNoSmallMessageOvertakeALargeOne(t *testing.T) {
	_, c := open(t, stream(small))
	// After this less than a large message fits, and a small one does.
	fill(t, c)
	p := c.NewPublisher(bus.PublisherOptions{})
	defer p.Close()
	for _, m := range []bus.Message{
		{Subject: "test.same", ID: "large", Data: make([]byte, 4<<10)},
		{Subject: "test.same", ID: "small"},
		{Subject: "test.other", ID: "other"},
	} {
		if err := p.Publish(patient(t), m); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, "the other subject's message is stored", func() bool {
		_, ok, err := c.Last(patient(t), "TEST", "test.other")
		return ok && err == nil
	})
	if d, ok, err := c.Last(patient(t), "TEST", "test.same"); ok || err != nil {
		t.Errorf("%s is stored (%v), which is behind a message that does not fit", d.ID, err)
	}
	if err := c.PurgeBefore(patient(t), "TEST", 5); err != nil {
		t.Fatal(err)
	}
	if err := p.Flush(patient(t)); err != nil {
		t.Fatal(err)
	}
	var ids []string
	for _, d := range readAll(t, c, bus.ReadOptions{Stream: "TEST", Filter: "test.same"}) {
		ids = append(ids, d.ID)
	}
	if diff := cmp.Diff([]string{"large", "small"}, ids); diff != "" {
		t.Errorf("order (-want +got):\n%s", diff)
	}
}

func TestPublisherReportsARefusedMessageAndGoesOn(t *testing.T) {
	_, c := open(t, stream())
	type verdict struct {
		id  string
		err error
	}
	verdicts := make(chan verdict, 2)
	p := c.NewPublisher(bus.PublisherOptions{Settled: func(m bus.Message, _ bus.Ack, err error) {
		verdicts <- verdict{m.ID, err}
	}})
	defer p.Close()
	for _, m := range []bus.Message{
		{Subject: "test.a", ID: "large", Data: make([]byte, 2<<20)},
		{Subject: "test.a", ID: "next"},
	} {
		if err := p.Publish(patient(t), m); err != nil {
			t.Fatal(err)
		}
	}
	if v := <-verdicts; v.id != "large" || !errors.Is(v.err, bus.ErrTooLarge) {
		t.Errorf("first verdict %+v, want ErrTooLarge for the large one", v)
	}
	if v := <-verdicts; v.id != "next" || v.err != nil {
		t.Errorf("second verdict %+v, want the next one stored", v)
	}
}

func TestPublisherCloseGivesUpWhatWaits(t *testing.T) {
	s, c := open(t, stream())
	gaveUp := make(chan error, 3)
	p := c.NewPublisher(bus.PublisherOptions{MaxInFlight: 3, Settled: func(_ bus.Message, _ bus.Ack, err error) { gaveUp <- err }})
	s.Stop()
	for i := range 3 {
		if err := p.Publish(patient(t), bus.Message{Subject: "test.a", ID: strconv.Itoa(i)}); err != nil {
			t.Fatal(err)
		}
	}
	blocked := make(chan error, 1)
	ctx := patient(t)
	go func() { blocked <- p.Publish(ctx, bus.Message{Subject: "test.a"}) }()

	p.Close()
	for range 3 {
		if err := <-gaveUp; !errors.Is(err, bus.ErrClosed) {
			t.Errorf("a waiting message is told %v, want ErrClosed", err)
		}
	}
	if err := <-blocked; !errors.Is(err, bus.ErrClosed) {
		t.Errorf("a blocked caller is told %v, want ErrClosed", err)
	}
	if err := p.Flush(ctx); !errors.Is(err, bus.ErrClosed) {
		t.Errorf("flushing a closed publisher says %v, want ErrClosed", err)
	}
	p.Close() // a second time does no harm
}
