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

	alertv1 "github.com/tocsin-dev/tocsin/proto/gen/tocsin/alert/v1"
	notifyv1 "github.com/tocsin-dev/tocsin/proto/gen/tocsin/notify/v1"
)

const (
	// callTimeout bounds one call. The notifier answers after one write to
	// JetStream, milliseconds; 10 s is its worst moment, a change of leader.
	callTimeout = 10 * time.Second
	// firstWait and longestWait bound the pause after a failed call. The longest
	// is what a returned notifier may wait for its first alert.
	firstWait   = 50 * time.Millisecond
	longestWait = 2 * time.Second
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
	client  Client
	log     *slog.Logger
	sent    prometheus.Counter
	refused prometheus.Counter
	errors  *prometheus.CounterVec
	said    atomic.Int64 // when a failed call was last logged, Unix nanoseconds
}

// NewSender returns a Sender whose metrics are on r.
func NewSender(client Client, log *slog.Logger, r prometheus.Registerer) *Sender {
	s := &Sender{
		client: client,
		log:    log,
		sent: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "tocsin_alerter_outbox_sent_total",
			Help: "Transitions that the notifier stored.",
		}),
		refused: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "tocsin_alerter_outbox_refused_total",
			Help: "Transitions that the notifier refused for good. Each is an alert that nobody was told of.",
		}),
		errors: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "tocsin_alerter_outbox_errors_total",
			Help: "Calls of the notifier that failed, by gRPC code. They are repeated.",
		}, []string{"code"}),
	}
	if r != nil {
		r.MustRegister(s.sent, s.refused, s.errors)
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
			limit = batchCount
		case codes.Aborted:
			known = false
		case codes.InvalidArgument:
			if len(batch) == 1 {
				s.refused.Inc()
				s.log.LogAttrs(ctx, slog.LevelError, "notifier refused a transition; nobody will be told of it",
					slog.Int("partition", partition), slog.String("transition_id", batch[0].GetId()),
					slog.String("rule", batch[0].GetAlert().GetRule()), slog.Any("err", err))
				q.drop()
				continue
			}
			limit, known = 1, false // find out which one it is
		}
		failures = s.after(ctx, p, "notify", failures, err)
	}
	return ctx.Err()
}

func (s *Sender) watermark(ctx context.Context, partition uint32, q *Queue) error {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	answer, err := s.client.Watermark(ctx, &notifyv1.WatermarkRequest{Partition: partition})
	if err != nil {
		return err
	}
	q.Acknowledge(answer.GetWatermark())
	return nil
}

func (s *Sender) notify(ctx context.Context, partition uint32, token string, q *Queue, batch []*alertv1.Transition) error {
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
	// All of the batch is stored, or was before; the answer may reach further.
	q.Acknowledge(batch[len(batch)-1].GetCause())
	q.Acknowledge(answer.GetWatermark())
	s.sent.Add(float64(answer.GetStored()))
	return nil
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
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-timer.C:
	}
	return failures + 1
}
