package fault

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/tocsin-dev/tocsin/internal/bus"
	"github.com/tocsin-dev/tocsin/internal/event"
	alertv1 "github.com/tocsin-dev/tocsin/proto/gen/tocsin/alert/v1"
	"github.com/tocsin-dev/tocsin/test/fault/model"
	"github.com/tocsin-dev/tocsin/test/fault/wire"
)

// books are what the streams hold, read by a connection of the test's own.
type books struct {
	conn *bus.Conn

	model  *model.Model
	events uint64                // the last message of EVENTS that was read
	want   map[model.Change]int  // by the model, how often
	facts  []fact                // what EVENTS holds, in order
	alerts uint64                // the last message of ALERTS that was read
	told   []*alertv1.Transition // what ALERTS holds, in order

	deliveries uint64        // the last message of DELIVERIES that was read
	stored     []wire.Stored // what all three streams hold
}

// fact is a message of EVENTS.
type fact struct {
	model.Message
	subject string
}

// openBooks connects to NATS.
func openBooks(t *testing.T, url string) *books {
	t.Helper()
	conn, err := bus.Connect(t.Context(), bus.Options{URL: url, Name: "fault-books"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(conn.Close)
	return &books{conn: conn, model: model.New(), want: map[model.Change]int{}}
}

// read takes in what was stored since the last time: first EVENTS, then ALERTS and
// DELIVERIES, which are then at least as far.
func (b *books) read(ctx context.Context) error {
	err := b.rest(ctx, bus.EventsStream, &b.events, func(d bus.Delivery) error {
		e, err := event.Unmarshal(d.Data)
		if err != nil {
			return fmt.Errorf("message %d of EVENTS: %w", d.Seq, err)
		}
		address, ok := event.ParseSubject(d.Subject)
		if !ok {
			return fmt.Errorf("message %d of EVENTS has the subject %s", d.Seq, d.Subject)
		}
		m := model.Message{Seq: d.Seq, Time: d.Time, Partition: address.Partition, Event: e}
		b.facts = append(b.facts, fact{m, d.Subject})
		changes, err := b.model.Apply(m)
		for _, c := range changes {
			b.want[c]++
		}
		return err
	})
	if err != nil {
		return err
	}
	err = b.rest(ctx, bus.AlertsStream, &b.alerts, func(d bus.Delivery) error {
		var batch alertv1.TransitionBatch
		if err := proto.Unmarshal(d.Data, &batch); err != nil {
			return fmt.Errorf("message %d of ALERTS: %w", d.Seq, err)
		}
		b.told = append(b.told, batch.GetTransitions()...)
		return nil
	})
	if err != nil {
		return err
	}
	return b.rest(ctx, bus.DeliveriesStream, &b.deliveries, func(bus.Delivery) error { return nil })
}

// note keeps what the account of the wire is compared with.
func (b *books) note(stream string, d bus.Delivery) {
	subject := d.Subject
	if a, ok := event.ParseSubject(subject); ok && a.Token != event.All {
		subject = event.Root + "." + a.Kind + "." + a.Token // the stream has added the partition
	}
	b.stored = append(b.stored, wire.Stored{
		Message: wire.Message{Subject: subject, ID: d.ID, Sum: sha256.Sum256(d.Data)},
		Place:   wire.Place{Stream: stream, Seq: d.Seq},
	})
}

// changeOf returns what the model calls a transition.
func changeOf(tr *alertv1.Transition) model.Change {
	return model.Change{
		Key:    keyOf(tr.GetAlert()),
		Seq:    tr.GetCause().GetSequence(),
		Firing: tr.GetKind() == alertv1.TransitionKind_TRANSITION_KIND_FIRING,
	}
}

func keyOf(a *alertv1.Alert) model.Key {
	return model.Key{Rule: a.GetLabels()["alertname"], Endpoint: a.GetLabels()["endpoint_id"]}
}

// rest reads a stream from after *last to its end.
func (b *books) rest(ctx context.Context, stream string, last *uint64, handle func(bus.Delivery) error) error {
	state, err := b.conn.StreamState(ctx, stream)
	if err != nil || state.LastSeq <= *last {
		return err
	}
	done := errors.New("done")
	err = b.conn.Read(ctx, bus.ReadOptions{Stream: stream, From: *last + 1}, func(d bus.Delivery) error {
		if d.Seq != *last+1 {
			return fmt.Errorf("%s goes on with %d after %d", stream, d.Seq, *last)
		}
		if err := handle(d); err != nil {
			return err
		}
		b.note(stream, d)
		if *last = d.Seq; d.Seq >= state.LastSeq {
			return done
		}
		return nil
	})
	if errors.Is(err, done) {
		return nil
	}
	return err
}

// differences compares what EVENTS must have led to after a message with what
// ALERTS holds of it. Of what is missing, more may come; what is invented or
// doubled is wrong for good. What came of a log that is no more is neither: it was
// right as long as that log was there.
func (b *books) differences(after uint64, lossy bool) (missing, wrong []string) {
	got := map[model.Change]int{}
	for _, tr := range b.told {
		switch c := changeOf(tr); {
		case b.caused(tr):
			got[c]++
		case !lossy:
			wrong = append(wrong, "of a message that was never in EVENTS: "+c.String())
		}
	}
	for c, n := range b.want {
		if c.Seq > after && got[c] < n {
			missing = append(missing, "not in ALERTS: "+c.String())
		}
	}
	for c, n := range got {
		switch want := b.want[c]; {
		case c.Seq <= after:
		case want == 0 && c.Seq <= b.events:
			wrong = append(wrong, "invented in ALERTS: "+c.String())
		case want > 0 && n > want:
			wrong = append(wrong, "in ALERTS "+strconv.Itoa(n)+" times: "+c.String())
		}
	}
	return missing, wrong
}

// caused tells whether the message that caused a transition is the one of EVENTS
// that has its sequence. One that was not read yet is taken for it.
func (b *books) caused(tr *alertv1.Transition) bool {
	seq := tr.GetCause().GetSequence()
	if seq > uint64(len(b.facts)) {
		return true
	}
	return seq > 0 && b.facts[seq-1].Time.Equal(tr.GetCause().GetStoredAt().AsTime())
}

// list joins lines, bounded.
func list(lines []string) string {
	const most = 40
	if len(lines) > most {
		lines = append(lines[:most:most], fmt.Sprintf("... and %d more", len(lines)-most))
	}
	return "\n  " + strings.Join(lines, "\n  ")
}
