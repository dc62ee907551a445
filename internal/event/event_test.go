package event_test

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/testing/protocmp"

	"github.com/tocsin-dev/tocsin/internal/event"
	eventv1 "github.com/tocsin-dev/tocsin/proto/gen/tocsin/event/v1"
)

var kinds = []string{
	event.KindHealthSampled, event.KindGpuSampled, event.KindJobRegistered, event.KindJobTransitioned, event.KindPollFailed,
	event.KindAccountPolled, event.KindTargetDiscovered, event.KindTargetChanged, event.KindTargetRemoved,
	event.KindInventoryShrunk, event.KindCollectorStarted, event.KindTick, event.KindRuleSetActivated,
}

// facts returns an event with an empty fact for each field of the oneof.
func facts() map[string]*eventv1.Event {
	all := map[string]*eventv1.Event{}
	fields := (*eventv1.Event)(nil).ProtoReflect().Descriptor().Oneofs().ByName("fact").Fields()
	for i := range fields.Len() {
		e := new(eventv1.Event)
		m := e.ProtoReflect()
		m.Set(fields.Get(i), protoreflect.ValueOfMessage(m.NewField(fields.Get(i)).Message()))
		all[string(fields.Get(i).Name())] = e
	}
	return all
}

func TestEveryFactHasItsKind(t *testing.T) {
	all := facts()
	if len(all) != len(kinds) {
		t.Errorf("the envelope has %d facts, the package %d kinds", len(all), len(kinds))
	}
	for name, e := range all {
		if !slices.Contains(kinds, name) {
			t.Errorf("no constant for the fact %s", name)
		}
		if got := event.Kind(e); got != name {
			t.Errorf("Kind of %s is %q", name, got)
		}
	}
	if got := event.Kind(nil) + event.Kind(new(eventv1.Event)); got != "" {
		t.Errorf("an event without a fact is of kind %q", got)
	}
}

func TestMarshalAndUnmarshalRefuseTheSame(t *testing.T) {
	tick := func(t *eventv1.Target) *eventv1.Event {
		return &eventv1.Event{Target: t, Fact: &eventv1.Event_Tick{Tick: &eventv1.Tick{}}}
	}
	removed := func(t *eventv1.Target) *eventv1.Event {
		return &eventv1.Event{Target: t, Fact: &eventv1.Event_TargetRemoved{TargetRemoved: &eventv1.TargetRemoved{}}}
	}
	for name, test := range map[string]struct {
		e   *eventv1.Event
		err string
	}{
		"a fact about a target":             {removed(target("a", pod, "b")), ""},
		"a fact about a partition":          {tick(nil), ""},
		"no fact":                           {&eventv1.Event{Target: target("a", pod, "b")}, "it has no fact that this release knows"},
		"a target where there is none":      {tick(target("a", pod, "b")), "tick is about a partition and cannot have a target"},
		"no target where there must be one": {removed(nil), "target_removed has no target"},
		"a target without an account":       {removed(target("", pod, "b")), "target_removed has a target without an account"},
		"a target without an id":            {removed(target("a", pod, "")), "target_removed has a target without an id"},
		"a target without a kind":           {removed(target("a", 0, "b")), "target_removed has a target of unknown kind 0"},
		"a target of a newer kind":          {removed(target("a", 99, "b")), "target_removed has a target of unknown kind 99"},
	} {
		t.Run(name, func(t *testing.T) {
			data, err := event.Marshal(test.e)
			if test.err == "" {
				if err != nil {
					t.Fatal(err)
				}
				back, err := event.Unmarshal(data)
				if err != nil {
					t.Fatal(err)
				}
				if diff := cmp.Diff(test.e, back, protocmp.Transform()); diff != "" {
					t.Errorf("read back (-want +got):\n%s", diff)
				}
				return
			}
			if err == nil || err.Error() != "encode event: "+test.err {
				t.Errorf("Marshal: %v, want %s", err, test.err)
			}
			data, err = proto.Marshal(test.e)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := event.Unmarshal(data); err == nil || err.Error() != "decode event: "+test.err {
				t.Errorf("Unmarshal: %v, want %s", err, test.err)
			}
		})
	}
	if _, err := event.Marshal(nil); err == nil {
		t.Error("Marshal took nil")
	}
}

func TestSizeIsBoundedBothWays(t *testing.T) {
	failed := func(detail string) *eventv1.Event {
		return &eventv1.Event{
			Target: target("a", pod, "b"),
			Fact:   &eventv1.Event_PollFailed{PollFailed: &eventv1.PollFailed{Detail: detail}},
		}
	}
	small, err := event.Marshal(failed(""))
	if err != nil {
		t.Fatal(err)
	}
	longest := strings.Repeat("x", event.MaxSize-len(small)-8) // 8: the lengths' own bytes
	if _, err := event.Marshal(failed(longest)); err != nil {
		t.Errorf("just below the bound: %v", err)
	}
	if _, err := event.Marshal(failed(longest + "12345678")); !errors.Is(err, event.ErrTooLarge) {
		t.Errorf("above the bound: %v, want ErrTooLarge", err)
	}
	if _, err := event.Unmarshal(make([]byte, event.MaxSize+1)); !errors.Is(err, event.ErrTooLarge) {
		t.Errorf("reading above the bound: %v, want ErrTooLarge", err)
	}
}

func TestUnmarshalOfNewerReleases(t *testing.T) {
	e := &eventv1.Event{Target: target("a", pod, "b"), Fact: &eventv1.Event_TargetRemoved{TargetRemoved: &eventv1.TargetRemoved{}}}
	data, err := event.Marshal(e)
	if err != nil {
		t.Fatal(err)
	}
	newer := protowire.AppendTag(slices.Clone(data), 900, protowire.VarintType)
	newer = protowire.AppendVarint(newer, 7)
	if back, err := event.Unmarshal(newer); err != nil || event.Kind(back) != event.KindTargetRemoved {
		t.Errorf("an unknown field beside a known fact: %v, %v", back, err)
	}
	onlyNew, err := proto.Marshal(&eventv1.Event{Target: target("a", pod, "b")})
	if err != nil {
		t.Fatal(err)
	}
	onlyNew = protowire.AppendTag(onlyNew, 901, protowire.BytesType)
	onlyNew = protowire.AppendBytes(onlyNew, nil)
	if _, err := event.Unmarshal(onlyNew); err == nil {
		t.Error("a fact of a newer release was taken for one that is known")
	}
}

func FuzzUnmarshalNeverPanics(f *testing.F) {
	for _, e := range facts() {
		e.Target = target("a", pod, "b")
		data, err := proto.Marshal(e)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		e, err := event.Unmarshal(data)
		if err != nil {
			return
		}
		if event.Kind(e) == "" {
			t.Error("an event without a kind was let through")
		}
		if e.GetTarget() == nil != event.PartitionWide(event.Kind(e)) {
			t.Errorf("%s with target %v was let through", event.Kind(e), e.GetTarget())
		}
	})
}
