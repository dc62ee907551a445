package event

import (
	"math"
	"math/rand/v2"
	"testing"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	eventv1 "github.com/tocsin-dev/tocsin/proto/gen/tocsin/event/v1"
)

// populate sets some fields of a message and of its parts at random, those of a
// number below limit only.
func populate(r *rand.Rand, m protoreflect.Message, limit protoreflect.FieldNumber) {
	fields := m.Descriptor().Fields()
	for i := range fields.Len() {
		f := fields.Get(i)
		if f.Number() >= limit || r.IntN(4) == 0 {
			continue
		}
		numbers := []int64{0, 1, -1, 127, 128, 300, math.MaxInt32, math.MinInt32, math.MaxInt64, math.MinInt64}
		n := numbers[r.IntN(len(numbers))]
		switch f.Kind() {
		case protoreflect.MessageKind:
			populate(r, m.Mutable(f).Message(), 100)
		case protoreflect.StringKind:
			m.Set(f, protoreflect.ValueOfString([]string{"", "a", "endpoint-ä", "0123456789"}[r.IntN(4)]))
		case protoreflect.EnumKind:
			m.Set(f, protoreflect.ValueOfEnum(protoreflect.EnumNumber(int32(n))))
		case protoreflect.Int64Kind:
			m.Set(f, protoreflect.ValueOfInt64(n))
		case protoreflect.Int32Kind:
			m.Set(f, protoreflect.ValueOfInt32(int32(n)))
		default:
			panic("a field of a new kind: " + string(f.FullName()))
		}
	}
}

// sameAsLibrary fails the test where decodeSample reads a message as another than
// the library does. It says whether it read it at all.
func sameAsLibrary(t *testing.T, data []byte) bool {
	t.Helper()
	got := decodeSample(data)
	if got == nil {
		return false
	}
	want := new(eventv1.Event)
	if err := proto.Unmarshal(data, want); err != nil {
		t.Fatalf("%x is read and the library says %v", data, err)
	}
	if !proto.Equal(got, want) {
		t.Fatalf("%x is read as %v, and by the library as %v", data, got, want)
	}
	return true
}

func TestASampleIsReadAsTheLibraryReadsIt(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	for range 5000 {
		e := new(eventv1.Event)
		populate(r, e.ProtoReflect(), 10)
		h := new(eventv1.HealthSampled)
		populate(r, h.ProtoReflect(), 100)
		e.Fact = &eventv1.Event_HealthSampled{HealthSampled: h}
		data, err := proto.Marshal(e)
		if err != nil {
			t.Fatal(err)
		}
		// A field that a later release adds to these messages must be read here too:
		// one that is not makes each sample that has it as slow as before.
		if !sameAsLibrary(t, data) {
			t.Fatalf("%v is left to the library", e)
		}
		for range 10 {
			broken := append([]byte(nil), data...)
			broken[r.IntN(len(broken))] = byte(r.Uint32())
			sameAsLibrary(t, broken[:len(broken)-r.IntN(2)])
		}
	}
}

func TestOtherFactsAreLeftToTheLibrary(t *testing.T) {
	for _, e := range []*eventv1.Event{
		{},
		{Fact: &eventv1.Event_Tick{Tick: &eventv1.Tick{}}},
		{Id: "x", Fact: &eventv1.Event_JobRegistered{JobRegistered: &eventv1.JobRegistered{JobId: "j"}}},
	} {
		data, err := proto.Marshal(e)
		if err != nil {
			t.Fatal(err)
		}
		if decodeSample(data) != nil {
			t.Errorf("%v is read as a sample", e)
		}
	}
}

func FuzzASampleIsReadAsTheLibraryReadsIt(f *testing.F) {
	r := rand.New(rand.NewPCG(5, 6))
	for range 20 {
		h := new(eventv1.HealthSampled)
		populate(r, h.ProtoReflect(), 100)
		e := &eventv1.Event{Fact: &eventv1.Event_HealthSampled{HealthSampled: h}}
		populate(r, e.ProtoReflect(), 10)
		data, err := proto.Marshal(e)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	f.Fuzz(func(t *testing.T, data []byte) { sameAsLibrary(t, data) })
}
