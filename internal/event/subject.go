package event

import (
	"fmt"
	"strconv"
	"strings"

	eventv1 "github.com/tocsin-dev/tocsin/proto/gen/tocsin/event/v1"
)

// Partitions is how many partitions the event log has. It is fixed for the life
// of a stream, since it decides where each target's facts are.
const Partitions = 64

// Root is the first part of every subject of the event log.
const Root = "tocsin.event"

// All stands in place of a target's token in the subjects of facts about a
// whole partition. No target has it, since a target's token has two dashes.
const All = "all"

// FNV-1a with 32 bits, which is what NATS computes for {{partition(n,...)}}.
// hash/fnv would need a conversion and an allocation for each message.
const (
	fnvOffset = 2166136261
	fnvPrime  = 16777619
)

// Partition returns the partition, from 0 to 63, of the target with this token:
// the same one that NATS computes when it stores a fact about it.
func Partition(token string) int {
	hash := uint32(fnvOffset)
	for i := range len(token) {
		hash = (hash ^ uint32(token[i])) * fnvPrime
	}
	return int(hash % Partitions)
}

// Token returns the subject token of a target, "<account>-<kind>-<id>" in the
// alphabet [A-Za-z0-9_-]. Two targets have the same token only when account,
// kind and id are the same: an underscore is doubled, and every other byte
// outside [A-Za-z0-9] becomes an underscore and two hexadecimal digits. A nil
// target has the token All.
func Token(t *eventv1.Target) string {
	b := make([]byte, 0, len(t.GetAccount())+len(t.GetId())+len("-endpoint-"))
	return string(AppendToken(b, t))
}

// AppendToken appends to b what Token returns.
func AppendToken(b []byte, t *eventv1.Target) []byte {
	if t == nil {
		return append(b, All...)
	}
	b = appendEscaped(b, t.GetAccount())
	b = append(b, '-')
	b = append(b, kindName(t.GetKind())...)
	b = append(b, '-')
	return appendEscaped(b, t.GetId())
}

// ParseToken returns the target that Token made a token of, without its name.
// It returns an error for what is no token of a target.
func ParseToken(token string) (*eventv1.Target, error) {
	parts := strings.Split(token, "-")
	if len(parts) != 3 {
		return nil, fmt.Errorf("target token %q does not read account-kind-id", token)
	}
	account, accountOK := unescape(parts[0])
	id, idOK := unescape(parts[2])
	if !accountOK || !idOK {
		return nil, fmt.Errorf("target token %q has a broken escape", token)
	}
	for _, kind := range targetKinds {
		if kindName(kind) == parts[1] {
			return &eventv1.Target{Account: account, Kind: kind, Id: id}, nil
		}
	}
	return nil, fmt.Errorf("target token %q is of unknown kind %q", token, parts[1])
}

var targetKinds = []eventv1.TargetKind{
	eventv1.TargetKind_TARGET_KIND_ENDPOINT,
	eventv1.TargetKind_TARGET_KIND_POD,
	eventv1.TargetKind_TARGET_KIND_ACCOUNT,
}

// kindName returns how a kind of target reads in a token, or "" for one that
// must not be sent.
func kindName(k eventv1.TargetKind) string {
	switch k {
	case eventv1.TargetKind_TARGET_KIND_ENDPOINT:
		return "endpoint"
	case eventv1.TargetKind_TARGET_KIND_POD:
		return "pod"
	case eventv1.TargetKind_TARGET_KIND_ACCOUNT:
		return "account"
	default:
		return ""
	}
}

const hexDigits = "0123456789abcdef"

func plain(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9'
}

func appendEscaped(b []byte, s string) []byte {
	for i := range len(s) {
		switch c := s[i]; {
		case plain(c):
			b = append(b, c)
		case c == '_':
			b = append(b, '_', '_')
		default:
			b = append(b, '_', hexDigits[c>>4], hexDigits[c&0xf])
		}
	}
	return b
}

// unescape undoes appendEscaped. It refuses what appendEscaped never writes, so
// that each text has one spelling only.
func unescape(s string) (text string, ok bool) {
	b := make([]byte, 0, len(s))
	for i := 0; i < len(s); i++ {
		switch {
		case plain(s[i]):
			b = append(b, s[i])
		case s[i] != '_' || i+1 == len(s):
			return "", false
		case s[i+1] == '_':
			b = append(b, '_')
			i++
		case i+2 == len(s):
			return "", false
		default:
			high, low := strings.IndexByte(hexDigits, s[i+1]), strings.IndexByte(hexDigits, s[i+2])
			c := byte(high<<4 | low)
			if high < 0 || low < 0 || plain(c) || c == '_' {
				return "", false
			}
			b = append(b, c)
			i += 2
		}
	}
	return string(b), true
}

// Subject returns the subject to which a producer publishes a fact of this kind
// about a target; NATS stores it under its partition.
func Subject(kind string, target *eventv1.Target) string {
	return Root + "." + kind + "." + Token(target)
}

// StoredSubject returns the subject under which the log keeps a fact of this
// kind about the target with this token.
func StoredSubject(kind, token string) string {
	return Root + "." + strconv.Itoa(Partition(token)) + "." + kind + "." + token
}

// PartitionSubject returns the subject of a fact of this kind about a whole
// partition; it is published and stored under this one name.
func PartitionSubject(partition int, kind string) string {
	return Root + "." + strconv.Itoa(partition) + "." + kind + "." + All
}

// PartitionFilter returns the subject filter that matches all facts of a partition.
func PartitionFilter(partition int) string {
	return Root + "." + strconv.Itoa(partition) + ".*.*"
}

// KindFilter returns the subject filter that matches all stored facts of a kind.
func KindFilter(kind string) string {
	return Root + ".*." + kind + ".*"
}

// Address is what the subject of a stored fact says about it.
type Address struct {
	// Partition is the partition, from 0 to 63.
	Partition int
	// Kind is the kind of the fact.
	Kind string
	// Token is the target's token, or All.
	Token string
}

// ParseSubject reads the subject of a stored fact. It reports false for any
// other subject. It does not allocate, since every reader calls it for every
// message, its own or not.
func ParseSubject(subject string) (Address, bool) {
	rest, ok := strings.CutPrefix(subject, Root+".")
	if !ok {
		return Address{}, false
	}
	number, rest, ok := strings.Cut(rest, ".")
	if !ok {
		return Address{}, false
	}
	kind, token, ok := strings.Cut(rest, ".")
	if !ok || kind == "" || token == "" || strings.Contains(token, ".") {
		return Address{}, false
	}
	partition, ok := parsePartition(number)
	return Address{Partition: partition, Kind: kind, Token: token}, ok
}

// parsePartition reads a partition's number as strconv.Itoa writes it.
func parsePartition(s string) (int, bool) {
	if s == "" || len(s) > 2 || s[0] == '0' && len(s) > 1 {
		return 0, false
	}
	n := 0
	for i := range len(s) {
		if s[i] < '0' || s[i] > '9' {
			return 0, false
		}
		n = n*10 + int(s[i]-'0')
	}
	return n, n < Partitions
}
