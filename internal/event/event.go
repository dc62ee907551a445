// Package event builds and reads the envelopes of the event log: the tokens,
// partitions and subjects that targets map to, the ids that name facts, and the
// bytes on the wire. It also redacts keys from text before it enters an event.
//
// Everything here is a pure function of its arguments, the same in every
// process and every release for the life of a stream: a changed partition or id
// would split one target or one fact in two.
package event

import (
	"errors"
	"fmt"

	"google.golang.org/protobuf/proto"

	eventv1 "github.com/tocsin-dev/tocsin/proto/gen/tocsin/event/v1"
)

// MaxSize is the largest encoded event, in bytes. Samples have some hundred
// bytes; the longest texts in a fact are bounded at 512 bytes and a spec's lists
// at tens of names, so 64 KiB is never met in health and bounds what a reader
// must hold for each message.
const MaxSize = 64 << 10

// ErrTooLarge says that an event is larger than MaxSize.
var ErrTooLarge = errors.New("event is larger than 64 KiB")

// The kinds of fact, as they stand in subjects: the snake_case names of the
// envelope's oneof fields.
const (
	KindHealthSampled    = "health_sampled"
	KindGpuSampled       = "gpu_sampled"
	KindJobRegistered    = "job_registered"
	KindJobTransitioned  = "job_transitioned"
	KindPollFailed       = "poll_failed"
	KindAccountPolled    = "account_polled"
	KindTargetDiscovered = "target_discovered"
	KindTargetChanged    = "target_changed"
	KindTargetRemoved    = "target_removed"
	KindInventoryShrunk  = "inventory_shrunk"
	KindCollectorStarted = "collector_started"
	KindTick             = "tick"
	KindRuleSetActivated = "rule_set_activated"
)

var factOneof = (*eventv1.Event)(nil).ProtoReflect().Descriptor().Oneofs().ByName("fact")

// Kind returns the kind of e's fact, or "" when e is nil, has no fact, or has
// one of a newer release.
func Kind(e *eventv1.Event) string {
	if e == nil {
		return ""
	}
	field := e.ProtoReflect().WhichOneof(factOneof)
	if field == nil {
		return ""
	}
	return string(field.Name())
}

// PartitionWide reports whether facts of this kind are about a whole partition
// and hence have no target.
func PartitionWide(kind string) bool {
	switch kind {
	case KindCollectorStarted, KindTick, KindRuleSetActivated:
		return true
	default:
		return false
	}
}

// Marshal encodes e, equal events to equal bytes within one release. It returns
// an error when e has no fact, when the target is missing, incomplete or out of
// place, or when the result is above MaxSize (ErrTooLarge).
func Marshal(e *eventv1.Event) ([]byte, error) {
	if err := check(e); err != nil {
		return nil, fmt.Errorf("encode event: %w", err)
	}
	data, err := proto.MarshalOptions{Deterministic: true}.Marshal(e)
	if err != nil {
		return nil, fmt.Errorf("encode event: %w", err)
	}
	if len(data) > MaxSize {
		return nil, fmt.Errorf("encode event: %d bytes of %s: %w", len(data), Kind(e), ErrTooLarge)
	}
	return data, nil
}

// Unmarshal decodes what Marshal encoded. Fields of newer releases are kept and
// ignored; a fact of a newer release is an error, as are all that Marshal
// refuses.
func Unmarshal(data []byte) (*eventv1.Event, error) {
	if len(data) > MaxSize {
		return nil, fmt.Errorf("decode event: %d bytes: %w", len(data), ErrTooLarge)
	}
	e := new(eventv1.Event)
	if err := proto.Unmarshal(data, e); err != nil {
		return nil, fmt.Errorf("decode event: %w", err)
	}
	if err := check(e); err != nil {
		return nil, fmt.Errorf("decode event: %w", err)
	}
	return e, nil
}

// check says what e lacks to be a fact about something.
func check(e *eventv1.Event) error {
	kind := Kind(e)
	if kind == "" {
		return errors.New("it has no fact that this release knows")
	}
	t := e.GetTarget()
	switch {
	case PartitionWide(kind) && t != nil:
		return fmt.Errorf("%s is about a partition and cannot have a target", kind)
	case PartitionWide(kind):
		return nil
	case t == nil:
		return fmt.Errorf("%s has no target", kind)
	case kindName(t.GetKind()) == "":
		return fmt.Errorf("%s has a target of unknown kind %d", kind, t.GetKind())
	case t.GetAccount() == "":
		return fmt.Errorf("%s has a target without an account", kind)
	case t.GetId() == "":
		return fmt.Errorf("%s has a target without an id", kind)
	}
	return nil
}
