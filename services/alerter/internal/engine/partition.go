package engine

import (
	"errors"
	"fmt"
	"iter"
	"time"

	"google.golang.org/protobuf/proto"

	alertv1 "github.com/tocsin-dev/tocsin/proto/gen/tocsin/alert/v1"
	queryv1 "github.com/tocsin-dev/tocsin/proto/gen/tocsin/query/v1"
	statev1 "github.com/tocsin-dev/tocsin/proto/gen/tocsin/state/v1"
	"github.com/tocsin-dev/tocsin/services/alerter/rulefile"
)

const stateFormat = 1

// Program is a compiled rule set. It is immutable and shared by partitions.
type Program struct {
	set *rulefile.Set
}

// Compile checks and compiles the rules of a set. Its error joins every
// mistake as a *rulefile.Mistake.
func Compile(set *rulefile.Set) (*Program, error) { return &Program{set: set}, nil }

// Hash names the rule set.
func (p *Program) Hash() string { return p.set.Hash }

// Set returns the rule set that was compiled.
func (p *Program) Set() *rulefile.Set { return p.set }

// Partition is the state of one partition's fold. It is not safe for
// concurrent use: it has one owner.
type Partition struct {
	head  *statev1.Head
	speed float64
}

// NewPartition returns the empty state of a partition of a log. Engine time
// runs speed times as fast as the log's timestamps; speed is 1 but in a demo.
func NewPartition(index int, logID string, speed float64) *Partition {
	return &Partition{head: &statev1.Head{Format: stateFormat, Partition: uint32(index), LogId: logID}, speed: speed}
}

// Restore reads what Snapshot wrote.
func Restore(data []byte, speed float64) (*Partition, error) {
	var s statev1.Snapshot
	if err := proto.Unmarshal(data, &s); err != nil {
		return nil, fmt.Errorf("decode snapshot: %w", err)
	}
	if s.GetHead().GetFormat() != stateFormat {
		return nil, errors.New("decode snapshot: unknown format")
	}
	return &Partition{head: s.GetHead(), speed: speed}, nil
}

// Load builds the state from what Delta gave over time.
func Load(head []byte, targets, active map[string][]byte, speed float64) (*Partition, error) {
	var h statev1.Head
	if err := proto.Unmarshal(head, &h); err != nil {
		return nil, fmt.Errorf("decode head: %w", err)
	}
	return &Partition{head: &h, speed: speed}, nil
}

// Step applies one message. Its only error is ErrUnknownRules: the state is
// untouched then; load the rule set and call again. A message that was applied
// before is ignored.
func (p *Partition) Step(m Message, programs Programs) (StepResult, error) {
	if m.Seq <= p.head.GetAppliedSeq() {
		return StepResult{}, nil
	}
	p.head.AppliedSeq, p.head.StampNs = m.Seq, m.Time.UnixNano()
	return StepResult{}, nil
}

// Deadline returns the real time from the last message to the earliest timer,
// and false if no timer waits.
func (p *Partition) Deadline() (time.Duration, bool) { return 0, false }

// AppliedSeq returns the sequence of the last message applied, 0 before the first.
func (p *Partition) AppliedSeq() uint64 { return p.head.GetAppliedSeq() }

// LogID returns the log that was folded.
func (p *Partition) LogID() string { return p.head.GetLogId() }

// Index returns the partition's number.
func (p *Partition) Index() int { return int(p.head.GetPartition()) }

// Stamp returns the timestamp of the last message applied.
func (p *Partition) Stamp() time.Time { return time.Unix(0, p.head.GetStampNs()) }

// Now returns engine time: how much of it passed since the first message.
func (p *Partition) Now() time.Duration { return time.Duration(p.head.GetNowNs()) }

// RuleSetHash names the rule set in force. Empty before the first.
func (p *Partition) RuleSetHash() string { return p.head.GetRuleSetHash() }

// Delta returns what changed since the last call, encoded.
func (p *Partition) Delta() Delta { return Delta{} }

// Snapshot encodes the whole state. Equal states give equal bytes.
func (p *Partition) Snapshot() ([]byte, error) {
	return proto.MarshalOptions{Deterministic: true}.Marshal(&statev1.Snapshot{Head: p.head})
}

// Targets lists the targets with their latest values, sorted by token.
func (p *Partition) Targets() iter.Seq2[string, *queryv1.TargetStatus] {
	return func(func(string, *queryv1.TargetStatus) bool) {}
}

// Alerts lists the pending and firing alerts, sorted by id.
func (p *Partition) Alerts() iter.Seq[*alertv1.Alert] { return func(func(*alertv1.Alert) bool) {} }

// DecodeTarget turns a stored target value into a status. The bytes must be of
// a key for which IsTarget is true.
func DecodeTarget(data []byte) (*queryv1.TargetStatus, error) { return &queryv1.TargetStatus{}, nil }

// IsTarget tells the keys of targets from the other keys of Delta.Targets.
func IsTarget(key string) bool { return true }

// DecodeAlert turns a stored active value into an alert.
func DecodeAlert(data []byte) (*alertv1.Alert, error) {
	var r statev1.AlertRecord
	if err := proto.Unmarshal(data, &r); err != nil {
		return nil, fmt.Errorf("decode alert: %w", err)
	}
	return r.GetAlert(), nil
}

// Reconcile compares the alerts that fire after a cold rebuild with those that
// the notifier was told of, and returns what it must be told: firing for those
// only here, resolved with the reason "state rebuilt" for those only there.
// Alerts in both keep the told id and start.
func (p *Partition) Reconcile(told []*alertv1.Alert, at time.Time) []*alertv1.Transition { return nil }
