package firing

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/testing/protocmp"
	"google.golang.org/protobuf/types/known/timestamppb"

	alertv1 "github.com/tocsin-dev/tocsin/proto/gen/tocsin/alert/v1"
	eventv1 "github.com/tocsin-dev/tocsin/proto/gen/tocsin/event/v1"
	rulev1 "github.com/tocsin-dev/tocsin/proto/gen/tocsin/rule/v1"
)

// bad is the evidence of an alert whose condition compares two values.
func bad(first, second float64) *alertv1.Evidence {
	return &alertv1.Evidence{
		Values: []*alertv1.Value{{Name: "jobs.in_queue", Value: "1", Number: new(1.0)}},
		Worst:  []*alertv1.Extreme{{Name: "jobs.in_queue", Number: first}, {Name: "workers.idle", Lowest: true, Number: second}},
	}
}

func TestTheWorstIsThatOfTheFirstValueThatIsCompared(t *testing.T) {
	before := &alertv1.Value{Name: "jobs.in_queue", Value: "7", Number: new(7.0)}
	for name, c := range map[string]struct {
		before *alertv1.Value
		e      *alertv1.Evidence
		want   *alertv1.Value
	}{
		"nothing is compared":             {nil, &alertv1.Evidence{Expression: "text == 'a'", Values: []*alertv1.Value{{Name: "text", Value: "a"}}}, nil},
		"there is no evidence":            {before, nil, before},
		"it tells none any more":          {before, &alertv1.Evidence{Expression: "jobs.in_queue > 1"}, before},
		"the first is known":              {nil, bad(212.5, 0), &alertv1.Value{Name: "jobs.in_queue", Value: "212.5", Number: new(212.5)}},
		"it became worse":                 {before, bad(2e6, 0), &alertv1.Value{Name: "jobs.in_queue", Value: "2000000", Number: new(2e6)}},
		"zero is a value":                 {nil, bad(0, 3), &alertv1.Value{Name: "jobs.in_queue", Value: "0", Number: new(0.0)}},
		"what is worst is the evidence's": {before, bad(3, 0), &alertv1.Value{Name: "jobs.in_queue", Value: "3", Number: new(3.0)}},
	} {
		t.Run(name, func(t *testing.T) {
			if diff := cmp.Diff(c.want, worst(c.before, c.e), protocmp.Transform()); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestWhatFiresStillShowsTheWorstUpToTheEnd(t *testing.T) {
	at := time.Unix(0, 0)
	alert := func(id string, state alertv1.AlertState, e *alertv1.Evidence) *alertv1.Alert {
		return &alertv1.Alert{Id: id, Rule: id, State: state, FiredAt: timestamppb.New(at), Evidence: e}
	}
	const pending, firing, resolved = alertv1.AlertState_ALERT_STATE_PENDING, alertv1.AlertState_ALERT_STATE_FIRING, alertv1.AlertState_ALERT_STATE_RESOLVED
	over := alert("over", resolved, bad(9, 0))
	over.ResolvedAt = timestamppb.New(at.Add(time.Minute))
	shelf := NewShelf(10)
	b := NewBook(at.Add(-time.Second), shelf)
	b.Changed([]*alertv1.Alert{
		alert("over", firing, bad(5, 0)), alert("still", firing, bad(5, 0)), alert("unheard", firing, bad(6, 0)), alert("waits", pending, bad(5, 0)), over,
	})
	b.Close(at.Add(time.Hour), slices.Values([]*alertv1.Alert{
		alert("still", firing, bad(7, 0)), alert("unheard", firing, &alertv1.Evidence{}), alert("waits", pending, bad(8, 0)),
	}))
	var got []string
	firings, _ := shelf.Firings()
	for _, f := range firings {
		got = append(got, f.GetAlert().GetId()+" "+f.GetWorst().GetValue())
	}
	if want := []string{"over 9", "still 7", "unheard 6"}; !slices.Equal(got, want) {
		t.Errorf("the worst are %q, want %q", got, want)
	}
}

func TestWhatFollowsANoticeOfFlappingCountsFromItsEnd(t *testing.T) {
	at := func(minute int) *timestamppb.Timestamp {
		return timestamppb.New(time.Unix(0, 0).Add(time.Duration(minute) * time.Minute))
	}
	alert := func(id string, from, to int) *alertv1.Alert {
		a := &alertv1.Alert{Id: id, Fingerprint: "f", Rule: "A", State: alertv1.AlertState_ALERT_STATE_FIRING, Flapping: id == "notice", FiredAt: at(from)}
		if to > 0 {
			a.State, a.ResolvedAt = alertv1.AlertState_ALERT_STATE_RESOLVED, at(to)
		}
		return a
	}
	for name, c := range map[string]struct {
		since int
		still bool
		want  Tally
	}{
		// The notice is over after 30 minutes, what fires since the 20th is told then, and
		// fires until the 35th; 5 minutes later it fires for a minute.
		"all of it":                     {0, false, Tally{Firings: 3, Total: 31 * time.Minute, Shortest: time.Minute, Flaps: 1}},
		"the notice began before":       {15, false, Tally{Firings: 3, Total: 21 * time.Minute, Shortest: time.Minute, Flaps: 1}},
		"both began before":             {25, false, Tally{Firings: 3, Total: 11 * time.Minute, Shortest: time.Minute, Flaps: 1}},
		"the notice was over before":    {32, false, Tally{Firings: 2, Total: 4 * time.Minute, Shortest: time.Minute, Flaps: 1}},
		"what follows it fires still":   {0, true, Tally{Firings: 2, Still: 1, Total: 55 * time.Minute, Shortest: 25 * time.Minute}},
		"and began before, as did that": {25, true, Tally{Firings: 2, Still: 1, Total: 35 * time.Minute}},
	} {
		t.Run(name, func(t *testing.T) {
			b := NewBook(at(c.since).AsTime(), NewShelf(10))
			b.Changed([]*alertv1.Alert{alert("notice", 5, 0)})
			b.Changed([]*alertv1.Alert{alert("notice", 5, 30), alert("fresh", 20, 0)})
			if !c.still {
				b.Changed([]*alertv1.Alert{alert("fresh", 20, 35), alert("later", 40, 0), alert("later", 40, 41)})
			}
			b.Close(at(60).AsTime(), slices.Values([]*alertv1.Alert{}))
			if got := *b.tally(alert("", 0, 0)); got != c.want {
				t.Errorf("%+v, want %+v", got, c.want)
			}
		})
	}
}

// one is a firing of a rule on a target between two minutes; 0 is no end.
func one(rule, id string, from, to int) *rulev1.BacktestFiring {
	at := func(minute int) *timestamppb.Timestamp {
		return timestamppb.New(time.Unix(0, 0).Add(time.Duration(minute) * time.Minute))
	}
	a := &alertv1.Alert{Rule: rule, Target: &eventv1.Target{Id: id}, FiredAt: at(from)}
	if to > 0 {
		a.ResolvedAt = at(to)
	}
	return &rulev1.BacktestFiring{Alert: a}
}

func TestCompare(t *testing.T) {
	fresh := []*rulev1.BacktestFiring{
		one("A", "x", 1, 5), one("A", "x", 10, 15), one("A", "x", 20, 25), one("A", "x", 30, 35), one("A", "x", 40, 45), one("A", "x", 50, 0),
		one("Same", "x", 1, 5), one("Same", "x", 9, 9), one("Instant", "x", 9, 9), one("New", "x", 1, 2),
	}
	old := []*rulev1.BacktestFiring{
		one("A", "x", 1, 5), one("A", "x", 10, 12), one("A", "x", 20, 29), one("A", "x", 31, 36), one("A", "x", 46, 47), one("A", "x", 50, 55), one("A", "y", 1, 5),
		one("Same", "x", 1, 5), one("Same", "x", 9, 9), one("Instant", "x", 10, 10),
	}
	got := Compare(fresh, old, time.Unix(0, 0).Add(time.Hour))
	want := []string{
		"A: only new 1, only old 2, longer 2, shorter 1, moved 1, same 1",
		"Instant: only new 1, only old 1, longer 0, shorter 0, moved 0, same 0",
		"New: only new 1, only old 0, longer 0, shorter 0, moved 0, same 0",
	}
	if len(got) != len(want) {
		t.Fatalf("%v, want %d rules", got, len(want))
	}
	for i, c := range got {
		text := fmt.Sprintf("%s: only new %d, only old %d, longer %d, shorter %d, moved %d, same %d",
			c.GetRule(), c.GetOnlyNew(), c.GetOnlyOld(), c.GetLonger(), c.GetShorter(), c.GetMoved(), c.GetSame())
		if text != want[i] {
			t.Errorf("%s, want %s", text, want[i])
		}
	}
	if old[1].GetOutcome() != rulev1.BacktestOutcome_BACKTEST_OUTCOME_SHORTER || !old[1].GetOld() {
		t.Errorf("the old one that is shorter is %v", old[1])
	}
}
