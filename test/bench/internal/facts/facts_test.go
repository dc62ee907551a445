package facts_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/tocsin-dev/tocsin/internal/bus"
	"github.com/tocsin-dev/tocsin/internal/event"
	"github.com/tocsin-dev/tocsin/test/bench/internal/facts"
)

// round returns a round of a fleet.
func round(t *testing.T, f facts.Fleet, n int) []bus.Message {
	t.Helper()
	var all []bus.Message
	for i := range f.Targets {
		var err error
		if all, err = f.Round(all, i, n); err != nil {
			t.Fatal(err)
		}
	}
	return all
}

func TestARoundIsWhatAnAlerterReads(t *testing.T) {
	fleet := facts.Fleet{Targets: 80}
	messages := round(t, fleet, 3)
	if got, want := len(messages), fleet.Events(); got != want || want != 100 {
		t.Errorf("a round of 80 targets makes %d facts and says %d, want 100", got, want)
	}
	kinds, ids := map[string]int{}, map[string]bool{}
	for _, m := range messages {
		e, err := event.Unmarshal(m.Data)
		if err != nil {
			t.Fatal(err)
		}
		if want := event.Subject(event.Kind(e), e.GetTarget()); m.Subject != want {
			t.Errorf("published to %s, want %s", m.Subject, want)
		}
		if m.ID != "" && ids[m.ID] {
			t.Errorf("the id %s names two facts: the second would be dropped", m.ID)
		}
		ids[m.ID] = true
		kinds[event.Kind(e)]++
	}
	want := map[string]int{event.KindHealthSampled: 60, event.KindGpuSampled: 20, event.KindJobTransitioned: 20}
	if diff := cmp.Diff(want, kinds); diff != "" {
		t.Errorf("facts by kind (-want +got):\n%s", diff)
	}
}

func TestTheSameFleetGivesTheSameFacts(t *testing.T) {
	fleet := facts.Fleet{Targets: 16}
	if diff := cmp.Diff(round(t, fleet, 5), round(t, fleet, 5)); diff != "" {
		t.Errorf("another run gives other facts:\n%s", diff)
	}
}

func TestASampleIsNewerThanTheOneBefore(t *testing.T) {
	slot := func(n int) int64 {
		m, err := facts.Queue(1).Sample(n, false)
		if err != nil {
			t.Fatal(err)
		}
		e, err := event.Unmarshal(m.Data)
		if err != nil {
			t.Fatal(err)
		}
		return e.GetHealthSampled().GetPollSlotMs()
	}
	if slot(1) <= slot(0) || slot(2) <= slot(1) {
		t.Errorf("the slots of three samples are %d, %d, %d: the fold would take them for repetitions", slot(0), slot(1), slot(2))
	}
}
