package bus

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

// Transform renames subjects as they are stored.
type Transform struct {
	// Source is the pattern of the subjects to rename.
	Source string
	// Destination is the stored form, with JetStream's mapping functions.
	Destination string
}

// StreamConfig says what a stream must be like. Every stream is kept on disk
// under limits (never a work queue), and its acknowledgements are real.
type StreamConfig struct {
	// Name of the stream.
	Name string
	// Subjects that the stream takes.
	Subjects []string
	// Transform renames them; nil stores them as they are.
	Transform *Transform
	// MaxAge is how long messages are kept; 0 means for ever.
	MaxAge time.Duration
	// MaxBytes is the most that the stream may hold; 0 means no limit.
	MaxBytes int64
	// FitBytes makes MaxBytes a wish: at creation it is halved until the server
	// has room for it, and an existing stream keeps its own.
	FitBytes bool
	// DiscardNew refuses new messages when the stream is full; otherwise the
	// oldest leave it.
	DiscardNew bool
	// DuplicateWindow is how long message ids are remembered; 0 leaves it to the
	// server (2 minutes).
	DuplicateWindow time.Duration
	// AtomicPublish allows [Conn.PublishAtomic].
	AtomicPublish bool
}

// minFitBytes ends the halving of FitBytes: a stream below 64 MiB would be
// full within minutes, and saying so is better than creating it.
const minFitBytes = 64 << 20

// StreamState is what a stream holds.
type StreamState struct {
	// Name of the stream.
	Name string
	// Created is when the stream was created, by the server's clock. Another
	// value means another stream.
	Created time.Time
	// FirstSeq and LastSeq are the sequences of the oldest and newest message.
	// LastSeq stays when messages are removed; FirstSeq is LastSeq+1 in an empty
	// stream, hence 1 in a new one.
	FirstSeq, LastSeq uint64
	// Messages and Bytes are what is stored.
	Messages, Bytes uint64
	// MaxBytes is the limit on Bytes; -1 means none.
	MaxBytes int64
}

// EnsureStream creates the stream when it does not exist, exactly with the
// settings of cfg. An existing one that differs gives a *MismatchError that
// names every difference, and is left as it is. Other errors are the server's
// refusal or the end of ctx, until which an unreachable server is asked again.
func (c *Conn) EnsureStream(ctx context.Context, cfg StreamConfig) (StreamState, error) {
	info, err := c.streamInfo(ctx, cfg.Name)
	if errors.Is(err, ErrStreamNotFound) {
		info, err = c.createStream(ctx, cfg)
	}
	if err != nil {
		return StreamState{}, fmt.Errorf("ensure stream %s: %w", cfg.Name, err)
	}
	if diff := differences(info.Config, cfg); len(diff) > 0 {
		return StreamState{}, &MismatchError{Stream: cfg.Name, Settings: diff}
	}
	return stateOf(info), nil
}

// StreamState returns what the stream holds now. It returns an error wrapping
// ErrStreamNotFound when there is no such stream.
func (c *Conn) StreamState(ctx context.Context, name string) (StreamState, error) {
	info, err := c.streamInfo(ctx, name)
	if err != nil {
		return StreamState{}, fmt.Errorf("read state of stream %s: %w", name, err)
	}
	return stateOf(info), nil
}

// Removed returns the sequences between the stream's oldest and newest message
// that it does not hold any more, sorted.
func (c *Conn) Removed(ctx context.Context, name string) ([]uint64, error) {
	var removed []uint64
	err := c.persistFor(ctx, bulkLimit, func(ctx context.Context) error {
		s, err := c.js.Stream(ctx, name)
		if err != nil {
			return err
		}
		info, err := s.Info(ctx, jetstream.WithDeletedDetails(true))
		if err != nil {
			return err
		}
		removed = slices.Sorted(slices.Values(info.State.Deleted))
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("list what was removed from stream %s: %w", name, err)
	}
	return removed, nil
}

// PurgeBefore removes the messages below seq from the stream.
func (c *Conn) PurgeBefore(ctx context.Context, name string, seq uint64) error {
	err := c.persistFor(ctx, bulkLimit, func(ctx context.Context) error {
		s, err := c.js.Stream(ctx, name)
		if err != nil {
			return err
		}
		return s.Purge(ctx, jetstream.WithPurgeSequence(seq))
	})
	if err != nil {
		return fmt.Errorf("purge stream %s below %d: %w", name, seq, err)
	}
	return nil
}

func (c *Conn) streamInfo(ctx context.Context, name string) (*jetstream.StreamInfo, error) {
	var info *jetstream.StreamInfo
	err := c.persist(ctx, func(ctx context.Context) error {
		s, err := c.js.Stream(ctx, name)
		if err != nil {
			return err
		}
		info = s.CachedInfo()
		return nil
	})
	return info, err
}

// createStream creates the stream. When another process was faster, its
// stream is returned, to be compared like any existing one.
func (c *Conn) createStream(ctx context.Context, cfg StreamConfig) (*jetstream.StreamInfo, error) {
	wanted := c.jetstreamConfig(cfg)
	for {
		var info *jetstream.StreamInfo
		err := c.persist(ctx, func(ctx context.Context) error {
			s, err := c.js.CreateStream(ctx, wanted)
			if err != nil {
				return err
			}
			info = s.CachedInfo()
			return nil
		})
		switch {
		case err == nil:
			c.log.Info("stream created", "stream", cfg.Name, "max_bytes", wanted.MaxBytes)
			return info, nil
		case errors.Is(err, jetstream.ErrStreamNameAlreadyInUse):
			return c.streamInfo(ctx, cfg.Name)
		case cfg.FitBytes && noRoom(err) && wanted.MaxBytes/2 >= minFitBytes:
			wanted.MaxBytes /= 2
		default:
			return nil, err
		}
	}
}

// noRoom reports whether the server cannot reserve what a stream may grow to.
func noRoom(err error) bool {
	api := apiError(err)
	return api != nil && (api.ErrorCode == codeStorageExceeded ||
		api.ErrorCode == codeAccountExceeded || api.ErrorCode == codeStreamMaxBytes)
}

func (c *Conn) jetstreamConfig(cfg StreamConfig) jetstream.StreamConfig {
	out := jetstream.StreamConfig{
		Name:               cfg.Name,
		Subjects:           cfg.Subjects,
		Retention:          jetstream.LimitsPolicy,
		Storage:            jetstream.FileStorage,
		MaxAge:             cfg.MaxAge,
		MaxBytes:           bytesLimit(cfg.MaxBytes),
		MaxMsgs:            -1,
		MaxMsgsPerSubject:  -1,
		MaxMsgSize:         -1,
		MaxConsumers:       -1,
		Discard:            discard(cfg.DiscardNew),
		Duplicates:         cfg.DuplicateWindow,
		AllowAtomicPublish: cfg.AtomicPublish,
		Replicas:           c.replicas,
	}
	if cfg.Transform != nil {
		out.SubjectTransform = &jetstream.SubjectTransformConfig{
			Source: cfg.Transform.Source, Destination: cfg.Transform.Destination,
		}
	}
	return out
}

// differences compares what exists with what is needed. Replicas, placement
// and compression are the operator's choice and not compared.
func differences(have jetstream.StreamConfig, cfg StreamConfig) []Setting {
	var diff []Setting
	check := func(name string, have, want any) {
		if h, w := fmt.Sprint(have), fmt.Sprint(want); h != w {
			diff = append(diff, Setting{Name: name, Have: h, Want: w})
		}
	}
	check("subjects", sorted(have.Subjects), sorted(cfg.Subjects))
	check("subject_transform", transformText(have.SubjectTransform), wantedTransform(cfg.Transform))
	check("retention", have.Retention, jetstream.LimitsPolicy)
	check("storage", have.Storage, jetstream.FileStorage)
	check("max_age", have.MaxAge, cfg.MaxAge)
	if !cfg.FitBytes {
		check("max_bytes", bytesLimit(have.MaxBytes), bytesLimit(cfg.MaxBytes))
	}
	check("max_msgs", unlimited(have.MaxMsgs), -1)
	check("max_msgs_per_subject", unlimited(have.MaxMsgsPerSubject), -1)
	check("max_msg_size", unlimited(int64(have.MaxMsgSize)), -1)
	check("discard", have.Discard, discard(cfg.DiscardNew))
	if cfg.DuplicateWindow > 0 {
		check("duplicate_window", have.Duplicates, cfg.DuplicateWindow)
	}
	if cfg.AtomicPublish {
		check("allow_atomic", have.AllowAtomicPublish, true)
	}
	check("no_ack", have.NoAck, false)
	check("sealed", have.Sealed, false)
	check("deny_purge", have.DenyPurge, false)
	check("persist_mode", have.PersistMode, jetstream.DefaultPersistMode)
	check("mirror or sources", have.Mirror != nil || len(have.Sources) > 0, false)
	slices.SortFunc(diff, func(a, b Setting) int { return cmp.Compare(a.Name, b.Name) })
	return diff
}

func sorted(subjects []string) string {
	return strings.Join(slices.Sorted(slices.Values(subjects)), ",")
}

func transformText(t *jetstream.SubjectTransformConfig) string {
	if t == nil {
		return "none"
	}
	return t.Source + " -> " + t.Destination
}

func wantedTransform(t *Transform) string {
	if t == nil {
		return "none"
	}
	return t.Source + " -> " + t.Destination
}

func bytesLimit(n int64) int64 {
	if n <= 0 {
		return -1
	}
	return n
}

// unlimited folds the two ways in which JetStream says "no limit".
func unlimited(n int64) int64 {
	if n == 0 {
		return -1
	}
	return n
}

func discard(refuseNew bool) jetstream.DiscardPolicy {
	if refuseNew {
		return jetstream.DiscardNew
	}
	return jetstream.DiscardOld
}

func stateOf(info *jetstream.StreamInfo) StreamState {
	return StreamState{
		Name:     info.Config.Name,
		Created:  info.Created,
		FirstSeq: max(info.State.FirstSeq, 1),
		LastSeq:  info.State.LastSeq,
		Messages: info.State.Msgs,
		Bytes:    info.State.Bytes,
		MaxBytes: info.Config.MaxBytes,
	}
}
