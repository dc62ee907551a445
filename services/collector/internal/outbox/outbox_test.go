package outbox_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/tocsin-dev/tocsin/internal/event"
	eventv1 "github.com/tocsin-dev/tocsin/proto/gen/tocsin/event/v1"
	"github.com/tocsin-dev/tocsin/services/collector/internal/outbox"
)

var (
	errAway     = errors.New("away")
	errHopeless = errors.New("hopeless")
)

// bench is a box and the log that it stores in.
type bench struct {
	*outbox.Box
	registry *prometheus.Registry
	stop     func()

	mu     sync.Mutex
	away   error            // guarded by mu: what the log answers
	stored []*eventv1.Event // guarded by mu
	ids    []string         // guarded by mu
}

func run(t *testing.T, change ...func(*outbox.Options)) *bench {
	t.Helper()
	b := &bench{registry: prometheus.NewRegistry()}
	o := outbox.Options{
		Store: b.store, Hopeless: func(err error) bool { return errors.Is(err, errHopeless) },
		MaxFacts: 10, MaxSamples: 10, Registerer: b.registry, Log: slog.New(slog.DiscardHandler),
	}
	for _, c := range change {
		c(&o)
	}
	b.Box = outbox.New(o)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() { b.Run(ctx); close(ended) }()
	b.stop = func() { cancel(); <-ended }
	t.Cleanup(b.stop)
	return b
}

func (b *bench) store(_ context.Context, subject, id string, data []byte) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.away != nil {
		return b.away
	}
	e, err := event.Unmarshal(data)
	if err != nil {
		return err
	}
	if want := event.Subject(event.Kind(e), e.GetTarget()); subject != want {
		return fmt.Errorf("subject is %s, want %s", subject, want)
	}
	b.stored, b.ids = append(b.stored, e), append(b.ids, id)
	return nil
}

func (b *bench) set(away error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.away = away
}

// all returns what is stored.
func (b *bench) all() []*eventv1.Event {
	synctest.Wait()
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.Clone(b.stored)
}

func target(id string) *eventv1.Target {
	return &eventv1.Target{Account: "default", Kind: eventv1.TargetKind_TARGET_KIND_ENDPOINT, Id: id}
}

func sample(id string, slot int64) *eventv1.Event {
	return &eventv1.Event{Target: target(id), Fact: &eventv1.Event_HealthSampled{HealthSampled: &eventv1.HealthSampled{PollSlotMs: slot}}}
}

func fact(endpoint, job string) *eventv1.Event {
	return &eventv1.Event{
		Id: "id of " + job, Target: target(endpoint),
		Fact: &eventv1.Event_JobTransitioned{JobTransitioned: &eventv1.JobTransitioned{JobId: job}},
	}
}

func TestWhatIsAddedIsStoredAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := run(t)
		read := time.Now()
		b.Add(fact("ep", "j"), read)
		got := b.all()
		if len(got) != 1 || !got[0].GetOccurredAt().AsTime().Equal(read) || got[0].GetHeld() != nil || b.ids[0] != "id of j" {
			t.Errorf("stored %v under %v", got, b.ids)
		}
	})
}

func TestAnOutageKeepsFactsInOrderAndTheLatestSamples(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := run(t)
		b.set(errAway)
		for i := range 6 {
			b.Add(sample("ep", int64(i+1)), time.Now())
			b.Add(fact("ep", fmt.Sprint("j", i)), time.Now())
			time.Sleep(10 * time.Second)
		}
		b.Add(sample("other", 7), time.Now())
		b.set(nil)
		time.Sleep(time.Second)
		var got []string
		for _, e := range b.all() {
			switch {
			case e.GetHealthSampled() != nil:
				got = append(got, fmt.Sprintf("%s sample %d", e.GetTarget().GetId(), e.GetHealthSampled().GetPollSlotMs()))
			default:
				got = append(got, e.GetJobTransitioned().GetJobId())
				i := e.GetJobTransitioned().GetJobId()[1] - '0'
				if want := time.Duration(6-i) * 10 * time.Second; (e.GetHeld().AsDuration() - want).Abs() > 500*time.Millisecond {
					t.Errorf("%v was held %v, want %v", e.GetJobTransitioned().GetJobId(), e.GetHeld().AsDuration(), want)
				}
			}
		}
		slices.SortStableFunc(got, func(a, b string) int { // other targets have their own order
			return strings.Compare(fmt.Sprint(strings.HasPrefix(a, "other")), fmt.Sprint(strings.HasPrefix(b, "other")))
		})
		want := []string{"ep sample 6", "j0", "j1", "j2", "j3", "j4", "j5", "other sample 7"}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("stored (-want +got):\n%s", diff)
		}
		if b.Len() != 0 {
			t.Errorf("%d events are left", b.Len())
		}
	})
}

func TestRoomIsBoundedAndWhatHasNoneIsCounted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := run(t)
		b.set(errAway)
		accepted := map[bool]int{}
		for i := range 15 {
			accepted[b.Add(fact("ep", fmt.Sprint(i)), time.Now())]++
		}
		if accepted[true] != 10 || accepted[false] != 5 {
			t.Errorf("of 15 job facts %v were accepted, want 10", accepted)
		}
		removed := &eventv1.Event{Target: target("ep"), Fact: &eventv1.Event_TargetRemoved{TargetRemoved: &eventv1.TargetRemoved{}}}
		if !b.Add(removed, time.Now()) {
			t.Error("job facts left no room for the inventory")
		}
		for i := range 15 {
			b.Add(sample(fmt.Sprint("ep", i), 1), time.Now())
		}
		want := `
			# HELP tocsin_collector_events_dropped_total Events that had no room in the outbox or that the event log can never store.
			# TYPE tocsin_collector_events_dropped_total counter
			tocsin_collector_events_dropped_total{kind="health_sampled"} 5
			tocsin_collector_events_dropped_total{kind="job_transitioned"} 5
		`
		if err := testutil.GatherAndCompare(b.registry, strings.NewReader(want), "tocsin_collector_events_dropped_total"); err != nil {
			t.Error(err)
		}
		b.set(nil)
		time.Sleep(time.Second)
		if got := len(b.all()); got != 21 {
			t.Errorf("%d events stored of the 21 that had room", got)
		}
	})
}

func TestWhatCanNeverBeStoredHoldsNothingUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := run(t)
		b.set(errHopeless)
		b.Add(fact("ep", "refused"), time.Now())
		b.all()
		b.set(nil)
		b.Add(&eventv1.Event{Target: target("ep")}, time.Now()) // it has no fact
		b.Add(fact("ep", "good"), time.Now())
		if got := b.all(); len(got) != 1 || got[0].GetJobTransitioned().GetJobId() != "good" {
			t.Errorf("stored %v", got)
		}
	})
}

func TestAStopStoresWhatWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := run(t)
		b.set(errAway)
		b.Add(fact("ep", "j"), time.Now())
		time.Sleep(100 * time.Millisecond)
		b.set(nil)
		b.stop()
		if got := b.all(); len(got) != 1 {
			t.Errorf("stored %v", got)
		}
	})
}

func TestAStopDoesNotWaitForALogThatIsAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := run(t)
		b.set(errAway)
		b.Add(fact("ep", "j"), time.Now())
		began := time.Now()
		b.stop()
		if took := time.Since(began); took > 2*time.Second {
			t.Errorf("the stop took %v", took)
		}
		if b.Len() != 1 {
			t.Errorf("%d events are left", b.Len())
		}
	})
}

func TestWhoSettlesWaitsForTheFactsOfATargetUntilTheyAreStored(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := run(t)
		if !b.Settle(t.Context(), target("ep")) {
			t.Error("nothing waits, and that took too long")
		}
		b.set(errAway)
		b.Add(fact("ep", "j1"), time.Now())
		b.Add(fact("ep", "j2"), time.Now())
		b.Add(sample("ep", 1), time.Now())
		short, cancel := context.WithTimeout(t.Context(), 3*time.Second)
		defer cancel()
		if b.Settle(short, target("ep")) {
			t.Error("settled while the log is away")
		}
		settled := make(chan bool)
		for range 2 {
			go func() { settled <- b.Settle(t.Context(), target("ep")) }()
		}
		b.set(nil)
		for range 2 {
			if !<-settled {
				t.Error("not settled although the log is back")
			}
		}
		stored := 0
		for _, e := range b.all() {
			if e.GetJobTransitioned() != nil {
				stored++
			}
		}
		if stored != 2 {
			t.Errorf("%d facts are stored, want 2", stored)
		}
	})
}
