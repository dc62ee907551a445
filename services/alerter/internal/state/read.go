package state

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"

	"github.com/redis/go-redis/v9"
	"google.golang.org/protobuf/proto"

	"github.com/tocsin-dev/tocsin/internal/event"
	alertv1 "github.com/tocsin-dev/tocsin/proto/gen/tocsin/alert/v1"
	statev1 "github.com/tocsin-dev/tocsin/proto/gen/tocsin/state/v1"
)

// Saved is what Redis held of a partition at one instant.
type Saved struct {
	// Head is the head as it lay there; nil when there was none.
	Head []byte
	// Stored is the decoded head; nil when there was none, it could not be read,
	// or some of what belongs to it is gone.
	Stored *statev1.StoredHead
	// Newer is true when a later version of this package wrote the head.
	Newer bool
	// Targets are the stored targets by token.
	Targets map[string][]byte
	// Active are the stored pending and firing alerts by id.
	Active map[string][]byte
	// Outbox are the transitions not trimmed yet, in the order of causes.
	Outbox []*alertv1.Transition
}

// Read reads all of a partition at one instant. It tries once.
func (s *Store) Read(ctx context.Context, partition int) (*Saved, error) {
	ctx, cancel := context.WithTimeout(ctx, attemptTimeout)
	defer cancel()
	k := keysOf(partition)
	tx := s.redis.TxPipeline()
	head := tx.Get(ctx, k.head)
	targets := tx.HGetAll(ctx, k.targets)
	active := tx.HGetAll(ctx, k.active)
	outbox := tx.LRange(ctx, k.outbox, 0, -1)
	if err := exec(ctx, tx); err != nil {
		return nil, fmt.Errorf("read partition %d: %w", partition, err)
	}
	saved := &Saved{Targets: byteMap(targets.Val()), Active: byteMap(active.Val())}
	if raw, err := head.Bytes(); err == nil {
		saved.Head = raw
		saved.Stored, saved.Newer = decodeHead(raw)
	}
	for _, raw := range outbox.Val() {
		t := new(alertv1.Transition)
		if err := proto.Unmarshal([]byte(raw), t); err != nil {
			saved.Stored = nil // not ours, or damaged: as good as absent
			break
		}
		saved.Outbox = append(saved.Outbox, t)
	}
	if h := saved.Stored; h != nil && !complete(h, saved) {
		s.metrics.incomplete.Inc()
		s.log.LogAttrs(ctx, slog.LevelError, "Redis lost a part of a state; it is as good as absent",
			slog.Int("partition", partition), slog.Uint64("targets", h.GetTargets()), slog.Int("targets_found", len(saved.Targets)),
			slog.Uint64("alerts", h.GetActive()), slog.Int("alerts_found", len(saved.Active)),
			slog.Uint64("outbox", h.GetOutbox()), slog.Int("outbox_found", len(saved.Outbox)))
		saved.Stored = nil
	}
	return saved, nil
}

// complete tells whether all that a head counts is there: an eviction, or an
// operator, can take one key and leave the others.
func complete(h *statev1.StoredHead, s *Saved) bool {
	return h.GetTargets() == uint64(len(s.Targets)) && h.GetActive() == uint64(len(s.Active)) &&
		h.GetOutbox() == uint64(len(s.Outbox))
}

// exec runs queued commands. A key that is absent is no error.
func exec(ctx context.Context, pipe redis.Pipeliner) error {
	cmds, err := pipe.Exec(ctx)
	for _, cmd := range cmds {
		if failed := cmd.Err(); failed != nil && !errors.Is(failed, redis.Nil) {
			return failed
		}
	}
	if errors.Is(err, redis.Nil) {
		return nil
	}
	return err
}

// head reads a head; nil when there is none.
func (s *Store) head(ctx context.Context, key string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, attemptTimeout)
	defer cancel()
	head, err := s.redis.Get(ctx, key).Bytes()
	if errors.Is(err, redis.Nil) {
		return nil, nil
	}
	return head, err
}

// decodeHead returns nil for what is not a head of this version, and whether a
// later version wrote it.
func decodeHead(raw []byte) (head *statev1.StoredHead, newer bool) {
	head = new(statev1.StoredHead)
	if err := proto.Unmarshal(raw, head); err != nil || head.GetFormat() != Format {
		return nil, err == nil && head.GetFormat() > Format
	}
	return head, false
}

// Alerts are the active alerts of a partition.
type Alerts struct {
	// Partition is their partition.
	Partition int
	// Head is the partition's head; nil when Redis has none that can be read.
	Head *statev1.StoredHead
	// Active are the pending and firing alerts by id, at Head or later.
	Active map[string][]byte
}

// Alerts reads the active alerts of partitions, in the order given.
func (s *Store) Alerts(ctx context.Context, partitions []int) ([]Alerts, error) {
	ctx, cancel := context.WithTimeout(ctx, attemptTimeout)
	defer cancel()
	heads := make([]*redis.StringCmd, len(partitions))
	active := make([]*redis.MapStringStringCmd, len(partitions))
	pipe := s.redis.Pipeline()
	for i, p := range partitions {
		k := keysOf(p)
		heads[i], active[i] = pipe.Get(ctx, k.head), pipe.HGetAll(ctx, k.active)
	}
	if err := exec(ctx, pipe); err != nil {
		return nil, fmt.Errorf("read alerts: %w", err)
	}
	alerts := make([]Alerts, len(partitions))
	for i, p := range partitions {
		alerts[i] = Alerts{Partition: p, Head: headOf(heads[i]), Active: byteMap(active[i].Val())}
	}
	return alerts, nil
}

// Part reads what belongs to one target, at one instant: the head of its partition,
// the values under some keys, and the active alerts of the whole partition. The
// outbox is left out.
func (s *Store) Part(ctx context.Context, token string, keys []string) (*Saved, error) {
	ctx, cancel := context.WithTimeout(ctx, attemptTimeout)
	defer cancel()
	k := keysOf(event.Partition(token))
	tx := s.redis.TxPipeline()
	head, active := tx.Get(ctx, k.head), tx.HGetAll(ctx, k.active)
	values := make([]*redis.StringCmd, len(keys))
	for i, key := range keys {
		values[i] = tx.HGet(ctx, k.targets, key)
	}
	if err := exec(ctx, tx); err != nil {
		return nil, fmt.Errorf("read target %s: %w", token, err)
	}
	part := &Saved{Targets: map[string][]byte{}, Active: byteMap(active.Val())}
	if raw, err := head.Bytes(); err == nil {
		part.Head = raw
		part.Stored, part.Newer = decodeHead(raw)
	}
	for i, cmd := range values {
		if raw, err := cmd.Bytes(); err == nil {
			part.Targets[keys[i]] = raw
		}
	}
	return part, nil
}

// Alert reads the stored alert with an id, in whatever partition it is. It is
// nil when there is none.
func (s *Store) Alert(ctx context.Context, id string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, attemptTimeout)
	defer cancel()
	cmds := make([]*redis.StringCmd, event.Partitions)
	pipe := s.redis.Pipeline()
	for p := range cmds {
		cmds[p] = pipe.HGet(ctx, keysOf(p).active, id)
	}
	if err := exec(ctx, pipe); err != nil {
		return nil, fmt.Errorf("read alert %s: %w", id, err)
	}
	for _, cmd := range cmds {
		if raw, err := cmd.Bytes(); err == nil {
			return raw, nil
		}
	}
	return nil, nil
}

// Heads reads the heads of all partitions, by partition. An entry is nil when
// Redis has none that can be read.
func (s *Store) Heads(ctx context.Context) ([]*statev1.StoredHead, error) {
	ctx, cancel := context.WithTimeout(ctx, attemptTimeout)
	defer cancel()
	cmds := make([]*redis.StringCmd, event.Partitions)
	pipe := s.redis.Pipeline()
	for p := range cmds {
		cmds[p] = pipe.Get(ctx, keysOf(p).head)
	}
	if err := exec(ctx, pipe); err != nil {
		return nil, fmt.Errorf("read heads: %w", err)
	}
	heads := make([]*statev1.StoredHead, event.Partitions)
	for p, cmd := range cmds {
		heads[p] = headOf(cmd)
	}
	return heads, nil
}

// Tokens lists the tokens of all stored targets, sorted.
func (s *Store) Tokens(ctx context.Context) ([]string, error) {
	ctx, cancel := context.WithTimeout(ctx, attemptTimeout)
	defer cancel()
	cmds := make([]*redis.StringSliceCmd, event.Partitions)
	pipe := s.redis.Pipeline()
	for p := range cmds {
		cmds[p] = pipe.HKeys(ctx, keysOf(p).targets)
	}
	if err := exec(ctx, pipe); err != nil {
		return nil, fmt.Errorf("list targets: %w", err)
	}
	var tokens []string
	for _, cmd := range cmds {
		tokens = append(tokens, cmd.Val()...)
	}
	slices.Sort(tokens)
	return tokens, nil
}

// Targets reads the stored targets of these tokens. A target that is not
// stored is missing in the result.
func (s *Store) Targets(ctx context.Context, tokens []string) (map[string][]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, attemptTimeout)
	defer cancel()
	cmds := make([]*redis.StringCmd, len(tokens))
	pipe := s.redis.Pipeline()
	for i, token := range tokens {
		cmds[i] = pipe.HGet(ctx, keysOf(event.Partition(token)).targets, token)
	}
	if err := exec(ctx, pipe); err != nil {
		return nil, fmt.Errorf("read targets: %w", err)
	}
	targets := make(map[string][]byte, len(tokens))
	for i, cmd := range cmds {
		if raw, err := cmd.Bytes(); err == nil {
			targets[tokens[i]] = raw
		}
	}
	return targets, nil
}

func headOf(cmd *redis.StringCmd) *statev1.StoredHead {
	raw, err := cmd.Bytes()
	if err != nil {
		return nil
	}
	head, _ := decodeHead(raw)
	return head
}

func byteMap(m map[string]string) map[string][]byte {
	bytes := make(map[string][]byte, len(m))
	for k, v := range m {
		bytes[k] = []byte(v)
	}
	return bytes
}
