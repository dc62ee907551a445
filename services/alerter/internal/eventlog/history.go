package eventlog

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/tocsin-dev/tocsin/internal/bus"
)

const (
	// fullAt is the part of the log's limit from which history is given up:
	// publishing is refused at 1, and 20 % of 10 GiB are hours of events.
	fullAt = 0.8
	// giveUp is the part of the messages that one purge removes: enough that a
	// purge is rare, and not so much that a week turns into a day at once.
	giveUp = 0.125
	// historyEvery is how often the size is looked at. At 5,000 events of 250
	// bytes a second the log grows by 40 MB in between.
	historyEvery = 30 * time.Second
)

// Purger is the part of the bus that removes history.
type Purger interface {
	// StreamState returns what a stream holds now.
	StreamState(ctx context.Context, name string) (bus.StreamState, error)
	// PurgeBefore removes the messages below seq.
	PurgeBefore(ctx context.Context, stream string, seq uint64) error
}

// History keeps the log from becoming full: before publishing would be
// refused, it removes the oldest messages that no partition needs.
type History struct {
	bus        Purger
	older      func(ctx context.Context) (map[int]uint64, error)
	partitions int
	log        *slog.Logger
	purged     prometheus.Counter
	blocked    prometheus.Counter
}

// NewHistory returns a History. older gives the sequence of each partition's
// older snapshot; a partition that is missing there needs all there is.
func NewHistory(b Purger, partitions int, older func(ctx context.Context) (map[int]uint64, error),
	log *slog.Logger, r prometheus.Registerer,
) *History {
	h := &History{
		bus: b, older: older, partitions: partitions, log: log,
		purged: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "tocsin_alerter_history_purged_messages_total",
			Help: "Messages of the event log that were removed before their time, because it was 80 % full.",
		}),
		blocked: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "tocsin_alerter_history_purge_blocked_total",
			Help: "Times that the event log was 80 % full and a partition still needed all of it.",
		}),
	}
	if r != nil {
		r.MustRegister(h.purged, h.blocked)
	}
	return h
}

// Run looks at the log's size until ctx ends, and returns ctx's error.
func (h *History) Run(ctx context.Context) error {
	tick := time.NewTicker(historyEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
		if err := h.Trim(ctx); err != nil && ctx.Err() == nil {
			h.log.LogAttrs(ctx, slog.LevelWarn, "event history not trimmed; will try again", slog.Any("err", err))
		}
	}
}

// Trim removes the oldest messages if the log is nearly full.
func (h *History) Trim(ctx context.Context) error {
	state, err := h.bus.StreamState(ctx, Stream)
	if err != nil {
		return fmt.Errorf("look at the log's size: %w", err)
	}
	if state.MaxBytes <= 0 || float64(state.Bytes) < fullAt*float64(state.MaxBytes) {
		return nil
	}
	older, err := h.older(ctx)
	if err != nil {
		return fmt.Errorf("find what history is needed: %w", err)
	}
	before := purgeBefore(state, older, h.partitions)
	if before <= state.FirstSeq {
		h.blocked.Inc()
		h.log.LogAttrs(ctx, slog.LevelWarn, "event log is nearly full, and all of it is needed until more snapshots are taken",
			slog.Uint64("bytes", state.Bytes), slog.Int64("max_bytes", state.MaxBytes))
		return nil
	}
	if err := h.bus.PurgeBefore(ctx, Stream, before); err != nil {
		return fmt.Errorf("purge history: %w", err)
	}
	h.purged.Add(float64(before - state.FirstSeq))
	h.log.LogAttrs(ctx, slog.LevelInfo, "oldest event history removed", slog.Uint64("before_seq", before),
		slog.Uint64("messages", before-state.FirstSeq), slog.Uint64("bytes", state.Bytes), slog.Int64("max_bytes", state.MaxBytes))
	return nil
}

// purgeBefore returns the first sequence to keep: an eighth of the messages
// goes, but none that follows the older snapshot of any partition.
func purgeBefore(state bus.StreamState, older map[int]uint64, partitions int) uint64 {
	if len(older) < partitions {
		return 0
	}
	before := state.FirstSeq + uint64(giveUp*float64(state.Messages))
	for _, seq := range older {
		// The message at seq stays, since a state is checked against it.
		before = min(before, seq)
	}
	return before
}
