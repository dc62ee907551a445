// Package intake takes alert transitions and stores them.
//
// A batch is one message on its partition's subject, written only if it follows
// the message that was read before it. The last cause in a partition's last
// message is the partition's watermark. So each transition is stored once and in
// order, whoever sends it how often, and a sender that was overtaken is refused
// what others have stored. Nothing is answered before it is stored.
package intake

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"regexp"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/protobuf/proto"

	"github.com/tocsin-dev/tocsin/internal/bus"
	"github.com/tocsin-dev/tocsin/internal/fault"
	"github.com/tocsin-dev/tocsin/internal/proc"
	alertv1 "github.com/tocsin-dev/tocsin/proto/gen/tocsin/alert/v1"
	notifyv1 "github.com/tocsin-dev/tocsin/proto/gen/tocsin/notify/v1"
	"github.com/tocsin-dev/tocsin/services/notifier/internal/cause"
)

const (
	// Partitions is the number of partitions of alerts, for the life of the
	// stream.
	Partitions = 64
	// maxTransitions and maxBatch bound one batch, hence one message of ALERTS;
	// JetStream takes 1 MiB.
	maxTransitions = 500
	maxBatch       = 512 << 10
	// maxID bounds an alert's id, in bytes: a message names up to 500, in a
	// record that has 1 MiB with its body of 240 KiB. Ours have some 40.
	maxID = 256
	// maxTries bounds how often a batch is tried against other writers before
	// its sender is told to look for itself.
	maxTries = 5
	// inFlightWait is the pause while another write to the subject settles.
	inFlightWait = 20 * time.Millisecond
	// storeLimit bounds one call, so that a sender without a deadline does not
	// hang while NATS is away.
	storeLimit = 10 * time.Second
	// searchLimit bounds the search for a watermark within it: some 100,000
	// messages are read a second.
	searchLimit = 5 * time.Second
	// searchAhead bounds the messages that the search holds in memory: 64 of up to
	// 512 KiB are 32 MiB.
	searchAhead = 64
)

// SubjectOf returns the subject of a partition in ALERTS.
func SubjectOf(partition int) string { return "tocsin.alert." + strconv.Itoa(partition) }

// Log is the part of the bus that intake needs.
type Log interface {
	// PublishExpecting stores data if the subject's last sequence is as given.
	PublishExpecting(ctx context.Context, subject string, lastSubjectSeq uint64, data []byte) (uint64, error)
	// Last returns the newest message of a subject.
	Last(ctx context.Context, stream, subject string) (bus.Delivery, bool, error)
	// Read calls handle for each message.
	Read(ctx context.Context, o bus.ReadOptions, handle func(bus.Delivery) error) error
}

// Metrics count what comes in.
type Metrics struct{ received, stored, conflicts, unreadable, refused prometheus.Counter }

// RefuseWatch counts a watch that was one too many.
func (m *Metrics) RefuseWatch() { m.refused.Inc() }

// NewMetrics registers the metrics of intake on reg.
func NewMetrics(reg prometheus.Registerer) *Metrics {
	counter := func(name, help string) prometheus.Counter {
		return proc.Register(reg, prometheus.NewCounter(prometheus.CounterOpts{Name: name, Help: help}))
	}
	return &Metrics{
		unreadable: counter("tocsin_notifier_unreadable_watermarks_total", "Times that the last message of a partition could not be read, so that transitions may be stored twice."),
		received:   counter("tocsin_notifier_transitions_received_total", "Alert transitions that alerters sent, repeats included."),
		stored:     counter("tocsin_notifier_transitions_stored_total", "Alert transitions that were new and are stored."),
		refused:    counter("tocsin_notifier_watches_refused_total", "Watches of alerts that were refused because too many were open."),
		conflicts:  counter("tocsin_notifier_store_conflicts_total", "Writes that were refused because another writer came first, or whose outcome was unknown."),
	}
}

// Intake stores batches. It is safe for concurrent use.
type Intake struct {
	log        Log
	lines      *slog.Logger
	metrics    *Metrics
	partitions [Partitions]partition
}

// partition is what is believed of one partition. The belief is a hint: a wrong
// one is refused by the log, and then read anew.
type partition struct {
	busy      chan struct{} // holds a token while a call uses the rest
	known     bool
	last      uint64 // sequence of the subject's last message
	watermark *alertv1.Cause
}

// New returns an intake on the log, which writes to lines what is wrong with it.
func New(log Log, metrics *Metrics, lines *slog.Logger) *Intake {
	in := &Intake{log: log, metrics: metrics, lines: lines}
	for i := range in.partitions {
		in.partitions[i].busy = make(chan struct{}, 1)
	}
	return in
}

// Notify stores what is new of a batch. The errors are those that
// NotifierService names.
func (in *Intake) Notify(ctx context.Context, req *notifyv1.NotifyRequest) (*notifyv1.NotifyResponse, error) {
	if err := check(req); err != nil {
		return nil, err
	}
	in.metrics.received.Add(float64(len(req.GetTransitions())))
	var resp *notifyv1.NotifyResponse
	err := in.with(ctx, req.GetPartition(), func(ctx context.Context, p *partition) (err error) {
		resp, err = in.store(ctx, int(req.GetPartition()), p, req.GetTransitions())
		return err
	})
	return resp, err
}

// Watermark tells the newest cause that is stored for a partition.
func (in *Intake) Watermark(ctx context.Context, req *notifyv1.WatermarkRequest) (*notifyv1.WatermarkResponse, error) {
	newest, _, err := in.Stored(ctx, req.GetPartition())
	if err != nil {
		return nil, err
	}
	return &notifyv1.WatermarkResponse{Watermark: newest}, nil
}

// Stored returns the newest cause that is stored for a partition, nil when there
// is none, and the sequence of its message. It always reads.
func (in *Intake) Stored(ctx context.Context, number uint32) (newest *alertv1.Cause, seq uint64, err error) {
	if number >= Partitions {
		return nil, 0, fault.Newf(fault.Invalid, "partition %d is not below %d", number, Partitions)
	}
	err = in.with(ctx, number, func(ctx context.Context, p *partition) error {
		err := in.read(ctx, int(number), p)
		newest, seq = p.watermark, p.last
		return err
	})
	return newest, seq, err
}

// with runs f alone on a partition, bounded in time. An end of the bound, unlike
// one of the caller's, means that the store cannot be reached.
func (in *Intake) with(ctx context.Context, number uint32, f func(context.Context, *partition) error) error {
	p := &in.partitions[number]
	bounded, cancel := context.WithTimeout(ctx, storeLimit)
	defer cancel()
	select {
	case p.busy <- struct{}{}:
	case <-bounded.Done():
		return unavailable(ctx, bounded.Err())
	}
	defer func() { <-p.busy }()
	return unavailable(ctx, f(bounded, p))
}

// unavailable gives errors of the bus the kind that makes senders try again.
func unavailable(caller context.Context, err error) error {
	switch {
	case err == nil, caller.Err() != nil:
		return err
	case fault.Of(err) == fault.Internal, fault.Of(err) == fault.Timeout:
		return fault.Wrap(fault.Unavailable, err)
	}
	return err
}

// store writes what is above the watermark.
func (in *Intake) store(ctx context.Context, number int, p *partition, batch []*alertv1.Transition) (*notifyv1.NotifyResponse, error) {
	fresh := -1 // how many were new when the watermark was first known
	for tries := 0; tries < maxTries; {
		if !p.known {
			if err := in.read(ctx, number, p); err != nil {
				return nil, err
			}
		}
		rest := above(batch, p.watermark)
		if fresh < 0 {
			fresh = len(rest)
		}
		if len(rest) == 0 {
			return in.answer(p, fresh), nil
		}
		err := in.write(ctx, number, p, rest)
		switch {
		case err == nil:
			return in.answer(p, fresh), nil
		case errors.Is(err, bus.ErrWriteInFlight):
			if err := pause(ctx, inFlightWait); err != nil {
				return nil, fmt.Errorf("store %d transitions: %w", len(rest), err)
			}
		case errors.Is(err, bus.ErrWrongSequence), errors.Is(err, bus.ErrUnknownOutcome):
			tries++
		case errors.Is(err, bus.ErrTooLarge):
			return nil, fault.Wrap(fault.TooLarge, err)
		default:
			return nil, fault.Wrap(fault.Unavailable, err)
		}
		in.metrics.conflicts.Inc()
		p.known = false
	}
	return nil, fault.Newf(fault.Conflict, "partition %d: another owner writes; read the watermark", number)
}

func (in *Intake) answer(p *partition, stored int) *notifyv1.NotifyResponse {
	in.metrics.stored.Add(float64(stored))
	return &notifyv1.NotifyResponse{Watermark: p.watermark, Stored: uint32(stored)}
}

func (in *Intake) write(ctx context.Context, number int, p *partition, batch []*alertv1.Transition) error {
	data, err := proto.Marshal(&alertv1.TransitionBatch{Transitions: batch})
	if err != nil {
		return fmt.Errorf("encode transitions: %w", err)
	}
	seq, err := in.log.PublishExpecting(ctx, SubjectOf(number), p.last, data)
	if err != nil {
		p.known = false
		return fmt.Errorf("store %d transitions: %w", len(batch), err)
	}
	p.last, p.watermark = seq, batch[len(batch)-1].GetCause()
	return nil
}

// read learns the watermark from the log.
func (in *Intake) read(ctx context.Context, number int, p *partition) error {
	p.known = false
	d, found, err := in.log.Last(ctx, bus.AlertsStream, SubjectOf(number))
	if err != nil {
		return fmt.Errorf("read watermark: %w", err)
	}
	p.last, p.watermark = 0, nil
	if found {
		p.last = d.Seq
		var readable bool
		p.watermark, readable = causeOf(d)
		if !readable {
			in.metrics.unreadable.Inc()
			p.watermark = in.search(ctx, number, d.Seq)
			in.lines.ErrorContext(ctx, "the last message of a partition cannot be read; what it held may be stored again",
				"subject", SubjectOf(number), "seq", d.Seq, "watermark", p.watermark)
		}
	}
	p.known = true
	return nil
}

// causeOf returns the last cause in a message, and false when it cannot be read.
func causeOf(d bus.Delivery) (*alertv1.Cause, bool) {
	var b alertv1.TransitionBatch
	if err := proto.Unmarshal(d.Data, &b); err != nil || len(b.GetTransitions()) == 0 {
		return nil, false
	}
	return b.GetTransitions()[len(b.GetTransitions())-1].GetCause(), true
}

// search returns the last cause below the message last that can be read, or nil.
// It may return an earlier one when it takes too long: a watermark that is too
// low lets an alert be told a second time, and loses none.
func (in *Intake) search(ctx context.Context, number int, last uint64) *alertv1.Cause {
	ctx, cancel := context.WithTimeout(ctx, searchLimit)
	defer cancel()
	var newest *alertv1.Cause
	done := errors.New("done")
	err := in.log.Read(ctx, bus.ReadOptions{Stream: bus.AlertsStream, Filter: SubjectOf(number), Prefetch: searchAhead}, func(d bus.Delivery) error {
		if d.Seq >= last {
			return done
		}
		if c, readable := causeOf(d); readable {
			newest = c
		}
		return nil
	})
	if !errors.Is(err, done) {
		in.lines.WarnContext(ctx, "not all of a partition was searched for its watermark", "subject", SubjectOf(number), "err", err)
	}
	return newest
}

// above returns the transitions of a batch whose causes are above the watermark.
func above(batch []*alertv1.Transition, watermark *alertv1.Cause) []*alertv1.Transition {
	for i, tr := range batch {
		if watermark == nil || cause.Compare(tr.GetCause(), watermark) > 0 {
			return batch[i:]
		}
	}
	return nil
}

// check returns every mistake of a request that makes it senseless.
func check(req *notifyv1.NotifyRequest) error {
	batch := req.GetTransitions()
	if req.GetPartition() >= Partitions {
		return fault.Newf(fault.Invalid, "partition %d is not below %d", req.GetPartition(), Partitions)
	}
	if len(batch) == 0 || len(batch) > maxTransitions {
		return fault.Newf(fault.Invalid, "%d transitions, want 1 to %d", len(batch), maxTransitions)
	}
	if size := proto.Size(&alertv1.TransitionBatch{Transitions: batch}); size > maxBatch {
		return fault.Newf(fault.Invalid, "%d bytes of transitions, want at most %d", size, maxBatch)
	}
	for i, tr := range batch {
		if err := checkTransition(tr); err != nil {
			return fault.Newf(fault.Invalid, "transitions[%d]: %w", i, err)
		}
		if i > 0 && cause.Compare(batch[i-1].GetCause(), tr.GetCause()) >= 0 {
			return fault.Newf(fault.Invalid, "transitions[%d]: its cause is not above the one before", i)
		}
	}
	return nil
}

// logID is how alerters name their logs, so that the names sort by age. Any other
// name may sort above all of theirs, and what they send would be dropped for good.
var logID = regexp.MustCompile(`^[0-9]{12}-[0-9]{19}$`)

func checkTransition(tr *alertv1.Transition) error {
	switch {
	case tr.GetCause().GetLogId() == "":
		return errors.New("cause.log_id is missing")
	case !logID.MatchString(tr.GetCause().GetLogId()):
		return errors.New("cause.log_id is not 12 digits of a generation, - and 19 digits of a creation")
	case tr.GetAlert().GetId() == "":
		return errors.New("alert.id is missing")
	case len(tr.GetAlert().GetId()) > maxID:
		return fmt.Errorf("alert.id has %d bytes, want at most %d", len(tr.GetAlert().GetId()), maxID)
	}
	switch tr.GetKind() {
	case alertv1.TransitionKind_TRANSITION_KIND_FIRING,
		alertv1.TransitionKind_TRANSITION_KIND_RESOLVED,
		alertv1.TransitionKind_TRANSITION_KIND_RENEWED:
		return nil
	}
	return fmt.Errorf("kind %s is not known", tr.GetKind())
}

func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-time.After(d):
		return nil
	}
}
