package engine

import (
	"math/rand/v2"
	"testing"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	eventv1 "github.com/tocsin-dev/tocsin/proto/gen/tocsin/event/v1"
)

// populate sets some fields of a message and of its parts at random, and now and
// then one of a newer release.
func populate(r *rand.Rand, m protoreflect.Message) {
	fields := m.Descriptor().Fields()
	for i := range fields.Len() {
		switch f := fields.Get(i); {
		case r.IntN(4) == 0:
		case f.Kind() == protoreflect.MessageKind:
			populate(r, m.Mutable(f).Message())
		case f.Kind() == protoreflect.Int64Kind:
			m.Set(f, protoreflect.ValueOfInt64(r.Int64N(9)))
		case f.Kind() == protoreflect.Int32Kind:
			m.Set(f, protoreflect.ValueOfInt32(r.Int32N(9)))
		default:
			panic("a field of a new kind: " + string(f.FullName()))
		}
	}
	if r.IntN(30) == 0 {
		m.SetUnknown(protowire.AppendVarint(protowire.AppendTag(nil, 500, protowire.VarintType), 7))
	}
}

// overwrite changes every number of a sample where it stands.
func overwrite(s *eventv1.HealthSampled) {
	s.PollSlotMs = -1
	if s.Interval != nil {
		s.Interval.Seconds, s.Interval.Nanos = -1, -1
	}
	var counts []*int64
	if j := s.Jobs; j != nil {
		counts = append(counts, j.Completed, j.Failed, j.Retried, j.InProgress, j.InQueue)
	}
	if w := s.Workers; w != nil {
		counts = append(counts, w.Idle, w.Ready, w.Running, w.Initializing, w.Throttled, w.Unhealthy)
	}
	for _, n := range counts {
		if n != nil {
			*n = -1
		}
	}
}

func TestASampleThatIsKeptIsACopy(t *testing.T) {
	r := rand.New(rand.NewPCG(8, 9))
	var kept *eventv1.HealthSampled
	reused := 0
	for range 5000 {
		s := new(eventv1.HealthSampled)
		populate(r, s.ProtoReflect())
		want, before := proto.CloneOf(s), kept
		kept = keepHealth(kept, s)
		if kept == before {
			reused++
		}
		overwrite(s) // whoever sent it may use it for something else
		if !proto.Equal(kept, want) {
			t.Fatalf("kept %v of %v", kept, want)
		}
	}
	if reused < 1000 {
		t.Errorf("memory was used again %d times in 5000", reused)
	}
}
