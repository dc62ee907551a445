package event

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"strconv"

	"google.golang.org/protobuf/proto"

	eventv1 "github.com/tocsin-dev/tocsin/proto/gen/tocsin/event/v1"
)

// idSize is the length of an id in bytes before hexadecimal. 128 bits keep the
// chance that two of a billion facts share a name below 1e-20, at 32 bytes a
// message.
const idSize = 16

// JobFactID returns the id of the fact that a job entered a state in an attempt
// (counted from 1). All who see the same transition name it the same.
func JobFactID(endpointToken, jobID string, attempt int32, state eventv1.JobState) string {
	return id("job", endpointToken, jobID, strconv.Itoa(int(attempt)), strconv.Itoa(int(state)))
}

// RegistrationID returns the id of the fact that a job is to be followed. after is
// the attempt that was seen to end before, 0 for none: to ask for a job again, which
// was sent to be tried again, is another fact.
func RegistrationID(endpointToken, jobID string, after int32) string {
	parts := []string{"registration", endpointToken, jobID}
	if after > 0 {
		parts = append(parts, strconv.Itoa(int(after)))
	}
	return id(parts...)
}

// DiscoveryID returns the id of the fact that a target was seen for the first
// time. previous is the id of the last inventory fact (discovery, change or
// removal) about the target, "" when there was none: without it a target that
// comes back as it was would look like a repetition, and be dropped.
func DiscoveryID(target *eventv1.Target, spec *eventv1.TargetSpec, previous string) string {
	return id("discovery", Token(target), target.GetName(), specHash(spec), previous)
}

// ChangeID returns the id of the fact that a target's settings or name became
// these. previous is as in DiscoveryID: a setting that is turned there and back
// is two facts.
func ChangeID(target *eventv1.Target, spec *eventv1.TargetSpec, previous string) string {
	return id("change", Token(target), target.GetName(), specHash(spec), previous)
}

// RemovalID returns the id of the fact that a target is gone. previous is as in
// DiscoveryID.
func RemovalID(target *eventv1.Target, previous string) string {
	return id("removal", Token(target), previous)
}

// specHash returns a hash of a target's settings. Equal settings hash equally
// within one release; across releases the worst is one repeated discovery.
func specHash(spec *eventv1.TargetSpec) string {
	data, err := proto.MarshalOptions{Deterministic: true}.Marshal(spec)
	if err != nil {
		// Only text that is not UTF-8 gets here, and Marshal refuses its event too.
		return "unencodable"
	}
	sum := sha256.Sum256(data)
	return string(sum[:])
}

// id hashes its parts, each with its length before it, so that no two lists of
// parts run together to the same bytes.
func id(parts ...string) string {
	var b []byte
	for _, part := range parts {
		b = binary.AppendUvarint(b, uint64(len(part)))
		b = append(b, part...)
	}
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:idSize])
}
