package engine

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	statev1 "github.com/tocsin-dev/tocsin/proto/gen/tocsin/state/v1"
)

// often is a rule set with one rule that asks for buckets.
func often(rest string) string {
	return "groups: [{name: g, rules: [{alert: Often, on: endpoint, expr: jobs.in_queue > 5, times: 3 of 5 x 1m" + rest + "}]}]"
}

// TestOftenIsCountedByTime polls one course at two rates: what is told is the same,
// and at the same instants.
func TestOftenIsCountedByTime(t *testing.T) {
	for _, rest := range []string{"", ", for: 90s", ", keep_firing_for: 2m", ", until: jobs.in_queue == 0"} {
		program := compile(t, often(rest))
		r := rand.New(rand.NewPCG(7, 8))
		course := make([]int64, 400) // a value for each 30 s
		for i := range course {
			if course[i] = 9; r.IntN(100) < 70 {
				course[i] = r.Int64N(2)
			}
		}
		run := func(every time.Duration) (lines []string) {
			s := newStory(t, program)
			end := time.Duration(len(course)) * 30 * time.Second
			for at := time.Duration(0); at < end; at += every {
				after := every
				if at == 0 {
					after = 0
				}
				slot := s.at.Add(after).UnixMilli()
				// The interval tells how long a sample holds: as long at both rates.
				e := sampledQueue(endpoint("x"), slot, course[at/(30*time.Second)])
				for i, line := range told(s.send(after, e)) {
					lines = append(lines, fmt.Sprint(line, " ", s.at.Sub(epoch), " ", i))
				}
			}
			return lines
		}
		slow, fast := run(30*time.Second), run(10*time.Second)
		// Timers fire with the next message, which is later where those are rarer.
		if len(slow) < 6 {
			t.Errorf("with%q only %v is told", rest, slow)
		}
		names := func(lines []string) (all []string) {
			for _, l := range lines {
				all = append(all, strings.Join(strings.Fields(l)[:2], " "))
			}
			return all
		}
		if diff := cmp.Diff(names(slow), names(fast)); diff != "" {
			t.Errorf("with%q polled three times as often:\n%s", rest, diff)
		}
	}
}

func TestBucketsGoOnWithTime(t *testing.T) {
	s := newStory(t, compile(t, often("")))
	poll := func(n int64, d time.Duration) (lines []string) {
		for end := s.at.Add(d); s.at.Before(end); {
			for _, line := range told(s.queue(10*time.Second, "x", n)) {
				lines = append(lines, fmt.Sprint(line, " ", s.at.Sub(epoch)))
			}
		}
		return lines
	}
	want := func(got []string, want ...string) {
		t.Helper()
		if diff := cmp.Diff(want, got); diff != "" {
			t.Error(diff)
		}
	}
	want(poll(9, 30*time.Second)) // minute 0
	want(poll(0, 2*time.Minute))
	want(poll(9, 10*time.Second))
	want(poll(0, 20*time.Second)) // minute 2
	want(poll(9, 10*time.Second), "firing Often 3m10s")
	// Minute 0 is out of sight from 5:00 on, and two are too few.
	want(poll(0, 2*time.Minute), "resolved Often 5m0s")
	if y := s.p.targets["a-endpoint-x"]; y == nil || len(y.tallies) != 1 {
		t.Fatalf("the tally is not kept: %v", s.p.targets)
	}
	want(poll(0, 3*time.Minute))
	if y := s.p.targets["a-endpoint-x"].tallies; len(y) != 0 {
		t.Errorf("a tally that says nothing is kept: %+v", y[0].state)
	}
}

// TestSilenceIsNoBucket: what nobody knows neither fires nor resolves.
func TestSilenceIsNoBucket(t *testing.T) {
	s := newStory(t, compile(t, often("")))
	for range 9 {
		s.queue(15*time.Second, "x", 9)
	}
	// It held in minutes 0, 1 and 2.
	if n := len(s.p.byID); n != 1 {
		t.Fatalf("%d alerts, want one", n)
	}
	for range 40 {
		s.want(s.send(15*time.Second, tick()))
	}
	s.want(s.send(8*time.Hour, tick()))
	s.want(s.queue(15*time.Second, "x", 0))
	// Three buckets of five must be known before it is over.
	var lines []string
	for range 16 {
		lines = append(lines, told(s.queue(15*time.Second, "x", 0))...)
	}
	if diff := cmp.Diff([]string{"resolved Often"}, lines); diff != "" {
		t.Error(diff)
	}
}

func TestAnAlertSaysHowOften(t *testing.T) {
	s := newStory(t, compile(t, often("")))
	var last StepResult
	for range 9 {
		if r := s.queue(15*time.Second, "x", 9); len(r.Transitions) > 0 {
			last = r
		}
	}
	if len(last.Transitions) != 1 {
		t.Fatalf("%d transitions, want one", len(last.Transitions))
	}
	values := last.Transitions[0].GetAlert().GetEvidence().GetValues()
	if v := values[len(values)-1]; v.GetName() != "times: 3 of 5 x 1m" || v.GetNumber() != 3 {
		t.Errorf("the evidence ends with %v", v)
	}
}

func TestATallyIsOfItsCondition(t *testing.T) {
	for name, c := range map[string]struct {
		next string
		kept int
	}{
		"another rule beside it": {strings.Replace(often(""), "rules: [", "rules: [{alert: A, on: endpoint, expr: jobs.in_queue > 700}, ", 1), 1},
		"another condition":      {strings.Replace(often(""), "> 5", "> 6", 1), 0},
		"another count":          {strings.Replace(often(""), "3 of 5", "4 of 5", 1), 0},
		"none":                   {strings.Replace(often(""), "times: 3 of 5 x 1m", "for: 1m", 1), 0},
	} {
		t.Run(name, func(t *testing.T) {
			a, b := compile(t, often("")), compile(t, c.next)
			s := newStory(t, a, b)
			s.queue(15*time.Second, "x", 9)
			s.queue(15*time.Second, "x", 0)
			s.send(0, activated(b.Hash()))
			if n := len(s.p.targets["a-endpoint-x"].tallies); n != c.kept {
				t.Errorf("%d tallies are kept, want %d", n, c.kept)
			}
			s.queue(15*time.Second, "x", 0)
		})
	}
}

// TestAStateWithoutTalliesIsRead: one that an older version wrote.
func TestAStateWithoutTalliesIsRead(t *testing.T) {
	s := newStory(t, compile(t, often("")))
	for range 9 {
		s.queue(15*time.Second, "x", 9)
	}
	data, err := s.p.Snapshot()
	if err != nil {
		t.Fatal(err)
	}
	var snap statev1.Snapshot
	decode(t, data, &snap)
	var state statev1.TargetState
	decode(t, snap.GetTargets()[0].GetValue(), &state)
	if len(state.GetTallies()) != 1 {
		t.Fatalf("%d tallies are stored, want one", len(state.GetTallies()))
	}
	state.Tallies = nil
	snap.Targets[0].Value = marshal(&state)
	if s.p, err = Restore(marshal(&snap), 1); err != nil {
		t.Fatal(err)
	}
	// It fires, and how often it held is not known: it stays until that is.
	s.want(s.queue(15*time.Second, "x", 9))
	s.want(s.queue(15*time.Second, "x", 0))
	var lines []string
	for range 24 {
		lines = append(lines, told(s.queue(15*time.Second, "x", 0))...)
	}
	if diff := cmp.Diff([]string{"resolved Often"}, lines); diff != "" {
		t.Error(diff)
	}
}
