package drive

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/tocsin-dev/tocsin/internal/event"
	alertv1 "github.com/tocsin-dev/tocsin/proto/gen/tocsin/alert/v1"
	eventv1 "github.com/tocsin-dev/tocsin/proto/gen/tocsin/event/v1"
	"github.com/tocsin-dev/tocsin/services/alerter/internal/engine"
	"github.com/tocsin-dev/tocsin/services/alerter/internal/state"
	"github.com/tocsin-dev/tocsin/services/alerter/rulefile"
)

// activation is a message that brings a rule set into force.
func activation(hash string) *eventv1.Event {
	return &eventv1.Event{
		Source: eventv1.Source_SOURCE_TOCSIN,
		Fact:   &eventv1.Event_RuleSetActivated{RuleSetActivated: &eventv1.RuleSetActivated{Hash: hash}},
	}
}

// partition is the state of the partition of an endpoint on which jobs wait,
// under a rule that fires after ten minutes of that.
func partition(t *testing.T, speed float64, jobs int64) *engine.Partition {
	t.Helper()
	part, _ := partitionAndRules(t, speed, jobs)
	return part
}

func partitionAndRules(t *testing.T, speed float64, jobs int64) (*engine.Partition, engine.Programs) {
	t.Helper()
	set, err := rulefile.Parse(map[string][]byte{"a.yaml": []byte(`
groups:
  - name: g
    rules:
      - {alert: A, on: endpoint, expr: jobs.in_queue > 5, for: 10m}
`)}, nil)
	if err != nil {
		t.Fatal(err)
	}
	program, err := engine.Compile(set)
	if err != nil {
		t.Fatal(err)
	}
	target := &eventv1.Target{Account: "a", Kind: eventv1.TargetKind_TARGET_KIND_ENDPOINT, Id: "e"}
	programs := func(string) *engine.Program { return program }
	part := engine.NewPartition(event.Partition(event.Token(target)), "log", speed)
	for i, e := range []*eventv1.Event{activation(set.Hash), {
		Target: target, Source: eventv1.Source_SOURCE_POLL,
		Fact: &eventv1.Event_HealthSampled{HealthSampled: &eventv1.HealthSampled{
			PollSlotMs: 1000, Interval: durationpb.New(15 * time.Second), Jobs: &eventv1.JobCounts{InQueue: new(jobs)},
		}},
	}} {
		m := engine.Message{Seq: uint64(i + 1), Time: time.Unix(int64(i), 0), Event: e}
		if _, err := part.Step(m, programs); err != nil {
			t.Fatal(err)
		}
	}
	return part, programs
}

func TestTickDue(t *testing.T) {
	began := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	at := func(d time.Duration) time.Time { return began.Add(d) }
	for name, c := range map[string]struct {
		speed       float64
		jobs        int64
		loaded      bool // and nothing was applied since
		lastMessage time.Duration
		lastTick    time.Duration // 0 = none yet
		want        time.Duration
	}{
		"a new owner asks for the first at once":                      {1, 20, true, 0, 0, settleTime},
		"a new owner asks at once whatever it knows":                  {1, 0, true, 0, 0, settleTime},
		"a new owner whose tick does not come asks again":             {1, 0, true, 0, 3 * time.Second, 3250 * time.Millisecond},
		"without a deadline there is one a minute after a message":    {1, 0, false, 5 * time.Second, 3 * time.Second, 65 * time.Second},
		"a deadline beyond a minute is approached in steps":           {1, 20, false, 5 * time.Second, 3 * time.Second, 65 * time.Second},
		"a faster time makes the minute shorter":                      {60, 0, false, 5 * time.Second, 3 * time.Second, 6 * time.Second},
		"a near deadline is met":                                      {20, 20, false, 5 * time.Second, 3 * time.Second, 8 * time.Second},
		"two ticks are never nearer than a quarter of a second":       {300, 20, false, 5 * time.Second, 5 * time.Second, 5250 * time.Millisecond},
		"none comes before the log can be known to be caught up with": {300, 20, false, 0, 100 * time.Millisecond, settleTime},
	} {
		t.Run(name, func(t *testing.T) {
			s := &session{
				d:    &Driver{Options: Options{Speed: c.speed}},
				part: partition(t, c.speed, c.jobs), began: began, lastMessage: at(c.lastMessage), stepped: !c.loaded,
			}
			if c.lastTick > 0 {
				s.lastTick = at(c.lastTick)
			}
			if got := s.tickDue().Sub(began); got != c.want {
				t.Errorf("due after %v, want %v", got, c.want)
			}
		})
	}
}

// TestALoadedPartitionTicksForItsDeadline follows a partition that was stored
// with an alert half-way through its ten minutes: it knows of that only after a
// message, so it asks for one at once, and then for the next in time.
func TestALoadedPartitionTicksForItsDeadline(t *testing.T) {
	viaSnapshot := func(t *testing.T, part *engine.Partition) *engine.Partition {
		t.Helper()
		fold, err := part.Snapshot()
		if err != nil {
			t.Fatal(err)
		}
		loaded, err := engine.Restore(fold, 20)
		if err != nil {
			t.Fatal(err)
		}
		return loaded
	}
	viaRedis := func(t *testing.T, part *engine.Partition) *engine.Partition {
		t.Helper()
		delta := part.Delta()
		loaded, err := engine.Load(delta.Head, delta.Targets, delta.Active, 20)
		if err != nil {
			t.Fatal(err)
		}
		return loaded
	}
	for name, load := range map[string]func(*testing.T, *engine.Partition) *engine.Partition{
		"from a snapshot": viaSnapshot, "from Redis": viaRedis,
	} {
		t.Run(name, func(t *testing.T) {
			stored, programs := partitionAndRules(t, 20, 20)
			began := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
			s := &session{
				d: &Driver{Options: Options{Speed: 20}}, part: load(t, stored), began: began, lastMessage: began,
			}
			if got := s.tickDue().Sub(began); got != settleTime {
				t.Errorf("the first tick is due after %v, want %v", got, settleTime)
			}
			// The tick comes a second after the last message: 20 s of the rules' time.
			tick := engine.Message{Seq: 3, Time: time.Unix(2, 0), Event: &eventv1.Event{Fact: &eventv1.Event_Tick{Tick: &eventv1.Tick{}}}}
			if _, err := s.part.Step(tick, programs); err != nil {
				t.Fatal(err)
			}
			s.stepped, s.lastMessage, s.lastTick = true, began.Add(settleTime), began.Add(settleTime)
			left, ok := s.part.Deadline()
			if want := 29 * time.Second; !ok || left != want {
				t.Fatalf("the alert is due in %v, %v; want %v", left, ok, want)
			}
			if got, want := s.tickDue().Sub(s.lastMessage), tickIdle/20; got != want {
				t.Errorf("the next tick is due after %v, want %v: a step on the way to the deadline", got, want)
			}
		})
	}
}

func TestGraceOutlivesTheContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		grace, done := withGrace(ctx, time.Second)
		defer done()
		time.Sleep(time.Hour)
		if grace.Err() != nil {
			t.Fatal("it ended before the context")
		}
		cancel()
		time.Sleep(999 * time.Millisecond)
		if grace.Err() != nil {
			t.Error("it ended with the context")
		}
		time.Sleep(2 * time.Millisecond)
		if grace.Err() == nil {
			t.Error("it goes on after the grace")
		}
		ended, undo := withGrace(ctx, time.Hour)
		undo()
		synctest.Wait()
		if ended.Err() == nil {
			t.Error("undoing it does not end it")
		}
	})
}

func TestReasonsAndKindsHaveShortNames(t *testing.T) {
	reasons := map[string]error{
		"not_owner":   fmt.Errorf("commit: %w", state.ErrNotOwner),
		"state_lost":  fmt.Errorf("commit: %w", state.ErrLost),
		"log_changed": errLogChanged,
		"gap":         errGap,
		"error":       errors.New("anything else"),
	}
	for want, err := range reasons {
		if got := reason(err); got != want {
			t.Errorf("reason of %v is %q, want %q", err, got, want)
		}
	}
	var got []string
	for k := range alertv1.TransitionKind_name {
		got = append(got, kindName(alertv1.TransitionKind(k)))
	}
	seen := map[string]bool{}
	for _, name := range got {
		if seen[name] {
			t.Errorf("two kinds are called %q", name)
		}
		seen[name] = true
	}
}

func TestFewOfManyAttemptsAreLogged(t *testing.T) {
	var logged []int
	for n := 1; n <= 20; n++ {
		if worthALine(n) {
			logged = append(logged, n)
		}
	}
	if diff := cmp.Diff([]int{1, 2, 4, 8, 16}, logged); diff != "" {
		t.Errorf("logged attempts (-want +got):\n%s", diff)
	}
}
