package intake

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"google.golang.org/protobuf/proto"

	"github.com/tocsin-dev/tocsin/internal/bus"
	"github.com/tocsin-dev/tocsin/internal/fault"
	"github.com/tocsin-dev/tocsin/internal/servertest"
	alertv1 "github.com/tocsin-dev/tocsin/proto/gen/tocsin/alert/v1"
	notifyv1 "github.com/tocsin-dev/tocsin/proto/gen/tocsin/notify/v1"
)

// memory is one subject of a log, with the compare-and-set of JetStream. Each
// publish first meets the next of the troubles.
type memory struct {
	mu       sync.Mutex
	messages [][]*alertv1.Transition // guarded by mu
	troubles []func(m *memory, store func()) error
	lastErr  error
	reads    int
}

func (m *memory) PublishExpecting(_ context.Context, _ string, last uint64, data []byte) (uint64, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	var b alertv1.TransitionBatch
	if err := proto.Unmarshal(data, &b); err != nil {
		return 0, err
	}
	store := func() { m.messages = append(m.messages, b.GetTransitions()) }
	if len(m.troubles) > 0 {
		trouble := m.troubles[0]
		m.troubles = m.troubles[1:]
		if err := trouble(m, store); err != nil {
			return 0, fmt.Errorf("publish: %w", err)
		}
	}
	if last != uint64(len(m.messages)) {
		return 0, fmt.Errorf("publish: %w", bus.ErrWrongSequence)
	}
	store()
	return uint64(len(m.messages)), nil
}

func (m *memory) Last(context.Context, string, string) (bus.Delivery, bool, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.reads++
	if m.lastErr != nil {
		return bus.Delivery{}, false, m.lastErr
	}
	if len(m.messages) == 0 {
		return bus.Delivery{}, false, nil
	}
	data, err := proto.Marshal(&alertv1.TransitionBatch{Transitions: m.messages[len(m.messages)-1]})
	return bus.Delivery{Seq: uint64(len(m.messages)), Data: data}, true, err
}

func (m *memory) Read(context.Context, bus.ReadOptions, func(bus.Delivery) error) error {
	return errors.New("nothing asks for this")
}

func (m *memory) causes() []uint64 {
	var all []uint64
	for _, batch := range m.messages {
		for _, tr := range batch {
			all = append(all, tr.GetCause().GetSequence())
		}
	}
	return all
}

func at(logID string, seq uint64, index uint32) *alertv1.Transition {
	return &alertv1.Transition{
		Kind:  alertv1.TransitionKind_TRANSITION_KIND_FIRING,
		Alert: &alertv1.Alert{Id: fmt.Sprint(logID, seq, index)},
		Cause: &alertv1.Cause{LogId: strings.ReplaceAll(logID, "log", theLog), Sequence: seq, Index: index},
	}
}

// theLog is the name of the log that the tests call "log".
const theLog = "001795611034-1795611034328212615"

func batch(seqs ...uint64) *notifyv1.NotifyRequest {
	req := &notifyv1.NotifyRequest{Partition: 3}
	for _, seq := range seqs {
		req.Transitions = append(req.Transitions, at("log", seq, 0))
	}
	return req
}

func newIntake(log Log) *Intake {
	return New(log, NewMetrics(prometheus.NewRegistry()), slog.New(slog.DiscardHandler))
}

func TestEachTransitionIsStoredOnceAndInOrder(t *testing.T) {
	lost := func(*memory, func()) error { return bus.ErrUnknownOutcome }
	answerLost := func(_ *memory, store func()) error { store(); return bus.ErrUnknownOutcome }
	inFlight := func(*memory, func()) error { return bus.ErrWriteInFlight }
	other := func(seqs ...uint64) func(*memory, func()) error {
		return func(m *memory, _ func()) error {
			m.messages = append(m.messages, batch(seqs...).GetTransitions())
			return nil
		}
	}
	for _, c := range []struct {
		name     string
		troubles []func(*memory, func()) error
		batches  [][]uint64
		want     []uint64
		stored   []uint32
	}{
		{"one batch after the other", nil, [][]uint64{{1, 2}, {3}}, []uint64{1, 2, 3}, []uint32{2, 1}},
		{"a batch sent twice", nil, [][]uint64{{1, 2}, {1, 2}}, []uint64{1, 2}, []uint32{2, 0}},
		{"a batch that overlaps", nil, [][]uint64{{1, 2}, {2, 3}}, []uint64{1, 2, 3}, []uint32{2, 1}},
		{"a write that got lost", []func(*memory, func()) error{lost}, [][]uint64{{1, 2}}, []uint64{1, 2}, []uint32{2}},
		{"an answer that got lost", []func(*memory, func()) error{answerLost}, [][]uint64{{1, 2}, {3}}, []uint64{1, 2, 3}, []uint32{2, 1}},
		{"writes in flight", []func(*memory, func()) error{inFlight, inFlight, inFlight, inFlight, inFlight, inFlight, inFlight}, [][]uint64{{1}}, []uint64{1}, []uint32{1}},
		{"another writer came first with a part", []func(*memory, func()) error{other(1)}, [][]uint64{{1, 2}}, []uint64{1, 2}, []uint32{2}},
		{"a stalled owner finds everything stored", []func(*memory, func()) error{other(1, 2, 3)}, [][]uint64{{1, 2}}, []uint64{1, 2, 3}, []uint32{2}},
	} {
		t.Run(c.name, func(t *testing.T) {
			m := &memory{troubles: c.troubles}
			in := newIntake(m)
			for i, seqs := range c.batches {
				resp, err := in.Notify(t.Context(), batch(seqs...))
				if err != nil {
					t.Fatal(err)
				}
				if resp.GetStored() != c.stored[i] {
					t.Errorf("batch %d: %d stored, want %d", i, resp.GetStored(), c.stored[i])
				}
				if want := c.want[len(c.want)-1]; i == len(c.batches)-1 && resp.GetWatermark().GetSequence() != want {
					t.Errorf("watermark %v, want %d", resp.GetWatermark(), want)
				}
			}
			if got := m.causes(); !slices.Equal(got, c.want) {
				t.Errorf("stored causes %v, want %v", got, c.want)
			}
		})
	}
}

func TestABusySubjectIsAConflict(t *testing.T) {
	next := uint64(100)
	m := &memory{}
	for range 10 {
		m.troubles = append(m.troubles, func(m *memory, _ func()) error {
			m.messages = append(m.messages, []*alertv1.Transition{at("000000000001-0000000000000000001", next, 0)})
			next++
			return nil
		})
	}
	_, err := newIntake(m).Notify(t.Context(), batch(1))
	if fault.Of(err) != fault.Conflict {
		t.Errorf("error %v, want a conflict", err)
	}
}

func TestAStoreThatIsAwayIsUnavailable(t *testing.T) {
	m := &memory{lastErr: errors.New("no responders")}
	in := newIntake(m)
	if _, err := in.Notify(t.Context(), batch(1)); fault.Of(err) != fault.Unavailable {
		t.Errorf("notify: %v, want unavailable", err)
	}
	if _, err := in.Watermark(t.Context(), &notifyv1.WatermarkRequest{Partition: 3}); fault.Of(err) != fault.Unavailable {
		t.Errorf("watermark: %v, want unavailable", err)
	}
	m.lastErr = nil
	m.troubles = []func(*memory, func()) error{func(*memory, func()) error { return bus.ErrStreamFull }}
	if _, err := in.Notify(t.Context(), batch(1)); fault.Of(err) != fault.Unavailable {
		t.Errorf("a full stream: %v, want unavailable", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := in.Notify(ctx, batch(1)); err == nil {
		if m.reads == 0 {
			t.Error("nothing was asked")
		}
	} else if fault.Of(err) != fault.Canceled && fault.Of(err) != fault.Unavailable {
		t.Errorf("a caller who left: %v", err)
	}
}

func TestTheWatermarkIsReadOnceWhileNobodyElseWrites(t *testing.T) {
	m := &memory{}
	in := newIntake(m)
	for seq := range uint64(10) {
		if _, err := in.Notify(t.Context(), batch(seq+1)); err != nil {
			t.Fatal(err)
		}
	}
	if m.reads != 1 {
		t.Errorf("%d reads, want 1", m.reads)
	}
}

func TestSenselessBatchesAreRefused(t *testing.T) {
	big := at("log", 1, 0)
	big.Alert.Annotations = map[string]string{"summary": strings.Repeat("x", maxBatch)}
	many := &notifyv1.NotifyRequest{}
	for i := range uint64(501) {
		many.Transitions = append(many.Transitions, at("log", i+1, 0))
	}
	noCause, noAlert, noKind := at("", 1, 0), at("log", 1, 0), at("log", 1, 0)
	noAlert.Alert = nil
	noKind.Kind = 0
	one := func(tr *alertv1.Transition) *notifyv1.NotifyRequest {
		return &notifyv1.NotifyRequest{Transitions: []*alertv1.Transition{tr}}
	}
	for _, c := range []struct {
		name string
		req  *notifyv1.NotifyRequest
		want string
	}{
		{"no such partition", &notifyv1.NotifyRequest{Partition: 64, Transitions: batch(1).GetTransitions()}, "partition 64 is not below 64"},
		{"nothing", &notifyv1.NotifyRequest{}, "0 transitions, want 1 to 500"},
		{"too many", many, "501 transitions, want 1 to 500"},
		{"too large", one(big), "want at most 524288"},
		{"out of order", batch(2, 1), "transitions[1]: its cause is not above the one before"},
		{"the same cause twice", batch(2, 2), "transitions[1]: its cause is not above the one before"},
		{"no cause", one(noCause), "transitions[0]: cause.log_id is missing"},
		{"a cause that sorts above all others", one(at("zz", 1, 0)), "transitions[0]: cause.log_id is not 12 digits"},
		{"a longer one", one(at(theLog+"0", 1, 0)), "transitions[0]: cause.log_id is not 12 digits"},
		{"no alert", one(noAlert), "transitions[0]: alert.id is missing"},
		{"no kind", one(noKind), "transitions[0]: kind TRANSITION_KIND_UNSPECIFIED is not known"},
		{"a hole in the list", one(nil), "transitions[0]: cause.log_id is missing"},
	} {
		t.Run(c.name, func(t *testing.T) {
			m := &memory{}
			_, err := newIntake(m).Notify(t.Context(), c.req)
			if fault.Of(err) != fault.Invalid || !strings.Contains(err.Error(), c.want) || m.reads != 0 {
				t.Errorf("error %v after %d reads, want %q", err, m.reads, c.want)
			}
		})
	}
	many.Transitions = many.GetTransitions()[:500]
	if _, err := newIntake(&memory{}).Notify(t.Context(), many); err != nil {
		t.Errorf("500 transitions: %v", err)
	}
}

// Several senders with the same transitions, on a real server: each is stored
// once, in order.
func TestManySendersOnRealJetStream(t *testing.T) {
	conn := servertest.NATS(t).Conn(t)
	if _, err := conn.EnsureStream(t.Context(), bus.Alerts()); err != nil {
		t.Fatal(err)
	}
	metrics := NewMetrics(prometheus.NewRegistry())
	var senders sync.WaitGroup
	for range 4 {
		in := New(conn, metrics, slog.New(slog.DiscardHandler)) // each with beliefs of its own
		senders.Go(func() {
			for seq := uint64(1); seq <= 40; seq += 2 {
				for {
					_, err := in.Notify(t.Context(), batch(seq, seq+1))
					if err == nil {
						break
					}
					if fault.Of(err) != fault.Conflict {
						t.Errorf("notify: %v", err)
						return
					}
				}
			}
		})
	}
	senders.Wait()
	var got []uint64
	done := errors.New("read all")
	err := conn.Read(t.Context(), bus.ReadOptions{Stream: bus.AlertsStream}, func(d bus.Delivery) error {
		var b alertv1.TransitionBatch
		if err := proto.Unmarshal(d.Data, &b); err != nil {
			return err
		}
		for _, tr := range b.GetTransitions() {
			got = append(got, tr.GetCause().GetSequence())
		}
		if d.Pending == 0 {
			return done
		}
		return nil
	})
	if !errors.Is(err, done) {
		t.Fatal(err)
	}
	if len(got) != 40 || !slices.IsSorted(got) || len(slices.Compact(slices.Clone(got))) != 40 {
		t.Errorf("stored %v, want 1 to 40", got)
	}
	if n := testutil.ToFloat64(metrics.received); n < 160 {
		t.Errorf("%v transitions received, want at least 160", n)
	}
}

func TestALastMessageThatCannotBeReadBlocksNothing(t *testing.T) {
	for _, c := range []struct {
		name   string
		before []uint64 // stored before it
		want   uint64   // the watermark then
		stored uint32   // of the transitions 1 to 4
	}{
		{"after others", []uint64{1, 2}, 2, 2},
		{"alone", nil, 0, 4},
	} {
		t.Run(c.name, func(t *testing.T) {
			conn := servertest.NATS(t).Conn(t)
			if _, err := conn.EnsureStream(t.Context(), bus.Alerts()); err != nil {
				t.Fatal(err)
			}
			for _, seq := range c.before {
				if _, err := newIntake(conn).Notify(t.Context(), batch(seq)); err != nil {
					t.Fatal(err)
				}
			}
			if _, err := conn.Publish(t.Context(), bus.Message{Subject: SubjectOf(3), Data: []byte("\xff not a batch")}); err != nil {
				t.Fatal(err)
			}
			in := newIntake(conn)
			mark, err := in.Watermark(t.Context(), &notifyv1.WatermarkRequest{Partition: 3})
			if err != nil || mark.GetWatermark().GetSequence() != c.want {
				t.Errorf("watermark %v, %v: want %d", mark.GetWatermark(), err, c.want)
			}
			resp, err := in.Notify(t.Context(), batch(1, 2, 3, 4))
			if err != nil || resp.GetStored() != c.stored || resp.GetWatermark().GetSequence() != 4 {
				t.Errorf("answer %v, %v: want %d stored", resp, err, c.stored)
			}
			if n := testutil.ToFloat64(in.metrics.unreadable); n == 0 {
				t.Error("it was not counted")
			}
		})
	}
}
