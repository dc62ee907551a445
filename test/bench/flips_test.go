package main

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/tocsin-dev/tocsin/test/bench/internal/hook"
)

func TestWhatDidNotArriveIsLostAndTheWarmUpDoesNotCount(t *testing.T) {
	f := newFlips(2, time.Second, 2*time.Second)
	if len(f.all) != 6 || f.warm != 2 || f.queues != 4 {
		t.Fatalf("%d flips of %d queues, %d of them to warm up; want 6 of 4, and 2", len(f.all), f.queues, f.warm)
	}
	begin := time.Unix(1_800_000_000, 0)
	for i := range f.all {
		f.all[i].published = begin.Add(time.Duration(i) * time.Second)
		f.all[i].stored = f.all[i].published.Add(time.Millisecond)
		f.all[i].accepted = f.all[i].stored.Add(2 * time.Millisecond)
		f.all[i].intended = f.all[i].accepted.Add(3 * time.Millisecond)
		if i != 1 && i != 4 {
			f.all[i].arrived = f.all[i].intended.Add(time.Duration(i) * time.Millisecond)
		}
	}
	if lost, overtaken := f.lost(); lost != 2 || overtaken != 0 {
		t.Errorf("%d are lost and %d were overtaken, want 2 and 0: one of the warm-up too", lost, overtaken)
	}
	ms := func(n ...int) []time.Duration {
		var all []time.Duration
		for _, x := range n {
			all = append(all, time.Duration(x)*time.Millisecond)
		}
		return all
	}
	if diff := cmp.Diff(ms(8, 9, 11), f.times()); diff != "" {
		t.Errorf("times (-want +got):\n%s", diff)
	}
	want := [][]time.Duration{ms(1, 1, 1, 1), ms(2, 2, 2, 2), ms(3, 3, 3, 3), ms(2, 3, 5)}
	for i, stage := range f.stages() {
		if diff := cmp.Diff(want[i], stage.times); diff != "" {
			t.Errorf("%s (-want +got):\n%s", stage.name, diff)
		}
	}
}

func TestAnAlertThatIsToldOnlyWhenItIsOverIsNotLost(t *testing.T) {
	f := newFlips(6, 0, time.Second)
	changes := map[change]int{
		{"a", true}: 0, {"a", false}: 1, // told once
		{"b", true}: 2, {"b", false}: 3, // told of nothing
		{"c", true}: 4, {"c", false}: 5, // told of both
	}
	arrival := func(id, status string) hook.Arrival {
		return hook.Arrival{At: time.Unix(1, 0), Body: []byte(`{"data":{"alerts":[{"id":"` + id + `","status":"` + status + `"}]}}`)}
	}
	err := f.receive([]hook.Arrival{
		arrival("a", "resolved"), arrival("c", "firing"), arrival("c", "firing"), arrival("c", "resolved"), arrival("d", "firing"),
	}, changes)
	if err != nil {
		t.Fatal(err)
	}
	lost, overtaken := f.lost()
	if lost != 2 || overtaken != 1 || f.again != 1 || f.invented != 1 {
		t.Errorf("%d lost, %d overtaken, %d told again, %d invented; want 2, 1, 1 and 1", lost, overtaken, f.again, f.invented)
	}
}

func TestTallyFindsWhatIsLostAndWhatIsInvented(t *testing.T) {
	arrival := func(id, status string) hook.Arrival {
		return hook.Arrival{Body: []byte(`{"data":{"alerts":[{"id":"` + id + `","status":"` + status + `"}]}}`)}
	}
	lost, invented, err := tally([]hook.Arrival{
		arrival(alertID(0), "firing"), arrival(alertID(0), "firing"), arrival(alertID(2), "resolved"), arrival("x", "firing"),
	}, 3)
	if err != nil || lost != 2 || invented != 2 {
		t.Errorf("%d lost and %d invented, %v; want 2 and 2: nobody told 1, and 2 only as resolved", lost, invented, err)
	}
}
