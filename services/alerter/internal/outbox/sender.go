package outbox

import (
	"context"
	"log/slog"
	"math/rand/v2"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/tocsin-dev/tocsin/internal/fault"
	alertv1 "github.com/tocsin-dev/tocsin/proto/gen/tocsin/alert/v1"
	notifyv1 "github.com/tocsin-dev/tocsin/proto/gen/tocsin/notify/v1"
)

const (
	// callTimeout bounds one call. The notifier answers after one write to
	// JetStream, milliseconds; 10 s is its worst moment, a change of leader.
	callTimeout = 10 * time.Second
	// callsAtOnce bounds the calls in flight, of all partitions together: 8 batches
	// of 508 KiB are 4 MiB on their way and about 20 in the notifier's memory, and
	// keep its two processors and the one log that it writes them to busy. All 64
	// at once made it lose its lease on a busy machine.
	callsAtOnce = 8
	// firstWait and longestWait bound the pause after a failed call. The longest
	// is what a returned notifier may wait for its first alert.
	firstWait   = 50 * time.Millisecond
	longestWait = 2 * time.Second
	// refusedWait is the pause before a transition that was refused is sent again.
	// A notifier that learned of it is seen at most half a minute late, and one
	// that does not costs 120 calls and lines an hour for each partition.
	refusedWait = 30 * time.Second
	// sayEvery is how often a notifier that is away is worth a line: 64
	// partitions that try every 2 s would write 115,000 in an hour.
	sayEvery = 10 * time.Second
)

// Client is the part of the notifier that a Sender needs.
type Client interface {
	Notify(ctx context.Context, in *notifyv1.NotifyRequest, opts ...grpc.CallOption) (*notifyv1.NotifyResponse, error)
	Watermark(ctx context.Context, in *notifyv1.WatermarkRequest, opts ...grpc.CallOption) (*notifyv1.WatermarkResponse, error)
}

// Sender sends queues to the notifier.
type Sender struct {
	client Client
	log    *slog.Logger
	errors *prometheus.CounterVec
	calls  chan struct{} // has a token for each call in flight
	said   atomic.Int64  // when a failed call was last logged, Unix nanoseconds

	sent, kept, lightened, refused prometheus.Counter
}

// NewSender returns a Sender whose metrics are on r.
func NewSender(client Client, log *slog.Logger, r prometheus.Registerer) *Sender {
	counter := func(name, help string) prometheus.Counter {
		return prometheus.NewCounter(prometheus.CounterOpts{Name: "tocsin_alerter_outbox_" + name, Help: help})
	}
	s := &Sender{
		client:    client,
		log:       log,
		calls:     make(chan struct{}, callsAtOnce),
		sent:      counter("sent_total", "Transitions that the notifier stored."),
		kept:      counter("kept_total", "Times that the notifier refused a transition that is kept and sent again. Its partition waits behind it; a newer notifier may take it."),
		lightened: counter("lightened_total", "Times that a part of the evidence was taken out of a transition that was too large."),
		refused:   counter("refused_total", "Transitions that were given up because they are too large even without evidence. Each is an alert that nobody was told of."),
		errors: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "tocsin_alerter_outbox_errors_total",
			Help: "Calls of the notifier that failed, by gRPC code. They are repeated.",
		}, []string{"code"}),
	}
	if r != nil {
		r.MustRegister(s.sent, s.kept, s.lightened, s.refused, s.errors)
	}
	return s
}

// Run sends what is in q, as owner token of partition, until ctx ends, and
// returns ctx's error.
func (s *Sender) Run(ctx context.Context, partition int, token string, q *Queue) error {
	p := uint32(partition)
	failures, limit, known := 0, batchCount, false
	for ctx.Err() == nil {
		if !known {
			// Whatever was sent by an owner before is stored already.
			err := s.watermark(ctx, p, q)
			known = err == nil
			failures = s.after(ctx, p, "ask for the watermark", failures, err)
			continue
		}
		batch := q.batch(limit)
		if len(batch) == 0 {
			select {
			case <-ctx.Done():
			case <-q.filled:
			}
			continue
		}
		err := s.notify(ctx, p, token, q, batch)
		switch status.Code(err) {
		case codes.OK:
			limit = min(2*limit, batchCount)
		case codes.Aborted:
			known = false
		case codes.InvalidArgument, codes.ResourceExhausted:
			if len(batch) > 1 {
				// It is too large, or one of it is wrong: less of it may do.
				limit, failures = len(batch)/2, 0
			} else if s.settle(ctx, p, q, batch[0], err) {
				failures, known = 0, false
				continue
			}
		}
		failures = s.after(ctx, p, "notify", failures, err)
	}
	return ctx.Err()
}

// settle deals with the refusal of the first transition, which was sent alone,
// and reports whether it did: a notifier that is busy is not its concern.
func (s *Sender) settle(ctx context.Context, partition uint32, q *Queue, t *alertv1.Transition, err error) bool {
	kind := fault.Of(fault.FromGRPC(err))
	tooLarge := sizeAlone(t) > storeBytes
	if kind == fault.Exhausted && !tooLarge {
		return false
	}
	s.errors.WithLabelValues(status.Code(err).String()).Inc()
	attrs := []slog.Attr{
		slog.Uint64("partition", uint64(partition)), slog.String("transition_id", t.GetId()),
		slog.String("rule", t.GetAlert().GetRule()), slog.Int("bytes", sizeAlone(t)), slog.Any("err", err),
	}
	if tooLarge || kind == fault.TooLarge {
		if form, ok := lighter(t); ok {
			s.lightened.Inc()
			s.log.LogAttrs(ctx, slog.LevelWarn, "transition is too large; sending it with less evidence", attrs...)
			q.replace(form)
			return true
		}
	}
	if tooLarge {
		s.refused.Inc()
		s.log.LogAttrs(ctx, slog.LevelError, "transition is too large even without evidence; nobody will be told of it", attrs...)
		q.drop()
		return true
	}
	s.kept.Inc()
	s.log.LogAttrs(ctx, slog.LevelError, "notifier refused a transition; its partition waits, and it is sent again",
		append(attrs, slog.Duration("wait", refusedWait))...)
	pause(ctx, refusedWait)
	return true
}

// sizeAlone returns the size in bytes of a batch of t alone.
func sizeAlone(t *alertv1.Transition) int {
	return proto.Size(&alertv1.TransitionBatch{Transitions: []*alertv1.Transition{t}})
}

// lighter returns t with less evidence: without its series, which are most of
// it, then without any. ok is false when there is nothing left to take.
func lighter(t *alertv1.Transition) (form *alertv1.Transition, ok bool) {
	if t.GetAlert().GetEvidence() == nil {
		return nil, false
	}
	form = proto.CloneOf(t)
	if len(form.GetAlert().GetEvidence().GetSeries()) > 0 {
		form.Alert.Evidence.Series = nil
	} else {
		form.Alert.Evidence = nil
	}
	return form, true
}

func (s *Sender) watermark(ctx context.Context, partition uint32, q *Queue) error {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	answer, err := s.client.Watermark(ctx, &notifyv1.WatermarkRequest{Partition: partition})
	if err != nil {
		return err
	}
	return q.Acknowledge(answer.GetWatermark())
}

func (s *Sender) notify(ctx context.Context, partition uint32, token string, q *Queue, batch []*alertv1.Transition) error {
	select {
	case s.calls <- struct{}{}:
	case <-ctx.Done():
		return ctx.Err()
	}
	defer func() { <-s.calls }()
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	answer, err := s.client.Notify(ctx, &notifyv1.NotifyRequest{
		Partition:   partition,
		OwnerToken:  token,
		Transitions: batch,
	})
	if err != nil {
		return err
	}
	// The answer may reach further than the batch, which is stored, or was before,
	// unless something of a younger log is.
	if err := q.Acknowledge(answer.GetWatermark()); err != nil {
		return err
	}
	s.sent.Add(float64(answer.GetStored()))
	return q.Acknowledge(batch[len(batch)-1].GetCause())
}

// after counts an outcome and, after a failure, waits. It returns the number of
// failures in a row.
func (s *Sender) after(ctx context.Context, partition uint32, doing string, failures int, err error) int {
	if err == nil || ctx.Err() != nil {
		return 0
	}
	s.errors.WithLabelValues(status.Code(err).String()).Inc()
	wait := min(firstWait<<min(failures, 10), longestWait)
	wait = wait/2 + rand.N(wait/2) // so that 64 partitions do not come back at once
	if now, said := time.Now().UnixNano(), s.said.Load(); now-said >= int64(sayEvery) && s.said.CompareAndSwap(said, now) {
		s.log.LogAttrs(ctx, slog.LevelWarn, "notifier did not take transitions; will repeat",
			slog.String("doing", doing), slog.Uint64("partition", uint64(partition)),
			slog.Int("failures", failures+1), slog.Duration("wait", wait), slog.Any("err", err))
	}
	pause(ctx, wait)
	return failures + 1
}

func pause(ctx context.Context, wait time.Duration) {
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-timer.C:
	}
}
