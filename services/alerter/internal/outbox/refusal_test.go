package outbox

import (
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/tocsin-dev/tocsin/internal/fault"
	alertv1 "github.com/tocsin-dev/tocsin/proto/gen/tocsin/alert/v1"
)

// The notifier's bounds, as NotifyRequest states them.
const (
	takenCount = 500
	takenBytes = 512 << 10
)

// bounded refuses what is above the notifier's bounds.
func bounded(batch []*alertv1.Transition) error { return sized(takenBytes, fault.Invalid)(batch) }

// sized refuses, with an error of a kind, batches above so many bytes.
func sized(limit int, kind fault.Kind) func([]*alertv1.Transition) error {
	return func(batch []*alertv1.Transition) error {
		size := proto.Size(&alertv1.TransitionBatch{Transitions: batch})
		if len(batch) == 0 || len(batch) > takenCount || size > limit {
			return fault.GRPC(fault.Newf(kind, "%d transitions of %d bytes", len(batch), size)).Err()
		}
		return nil
	}
}

// heavy returns a transition with about so many KiB of annotations, of other
// evidence and of series.
func heavy(seq uint64, annotations, evidence, series int) *alertv1.Transition {
	t := transition(seq, 0)
	t.Kind = alertv1.TransitionKind_TRANSITION_KIND_FIRING
	t.Alert = &alertv1.Alert{
		Id: "x", Annotations: map[string]string{"text": strings.Repeat("x", annotations<<10)},
		Evidence: &alertv1.Evidence{Expression: strings.Repeat("x", evidence<<10)},
	}
	for range series {
		// 50 points take 20 bytes each, and the name of the field the rest.
		s := &alertv1.Series{Field: strings.Repeat("x", 24)}
		for n := range 50 {
			s.Points = append(s.Points, &alertv1.Point{SecondsAgo: float64(n + 1), Value: new(float64(n + 1))})
		}
		t.Alert.Evidence.Series = append(t.Alert.Evidence.Series, s)
	}
	return t
}

func TestBatchesAreBounded(t *testing.T) {
	many := make([]*alertv1.Transition, 600)
	for i := range many {
		many[i] = transition(uint64(i+1), 0)
	}
	byText, bySeries := heavy(1, 200, 0, 0), heavy(1, 0, 0, 200)
	for name, c := range map[string]struct {
		waiting []*alertv1.Transition
		want    int
	}{
		"500 transitions at most":       {many, 500},
		"512 KiB at most":               {[]*alertv1.Transition{byText, byText, byText}, 2},
		"evidence is a part of them":    {[]*alertv1.Transition{bySeries, bySeries, bySeries}, 2},
		"one too large one still goes":  {[]*alertv1.Transition{heavy(1, 600, 0, 0), byText}, 1},
		"nothing gives an empty batch":  {nil, 0},
		"the last batch takes the rest": {many[:7], 7},
	} {
		t.Run(name, func(t *testing.T) {
			if got := len(NewQueue("a", c.waiting, nil).batch(batchCount)); got != c.want {
				t.Errorf("batch of %d, want %d", got, c.want)
			}
		})
	}
}

// TestNoBatchIsAboveTheNotifiersBounds sends transitions of all sizes up to the
// bound itself to a notifier that refuses what its contract excludes.
func TestNoBatchIsAboveTheNotifiersBounds(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for name, c := range map[string]struct {
		many uint64
		make func(seq uint64) *alertv1.Transition
	}{
		"as they are in practice": {1200, func(seq uint64) *alertv1.Transition { return heavy(seq, 1, r.IntN(2), r.IntN(3)) }},
		"without anything":        {1200, func(seq uint64) *alertv1.Transition { return transition(seq, 0) }},
		"of all sizes": {60, func(seq uint64) *alertv1.Transition {
			return heavy(seq, r.IntN(100), r.IntN(100), r.IntN(280))
		}},
		"with series and little text": {600, func(seq uint64) *alertv1.Transition { return heavy(seq, 0, 0, r.IntN(20)) }},
		"exactly at the bound": {10, func(seq uint64) *alertv1.Transition {
			t := heavy(seq, 511, 0, 0)
			t.Alert.Group = strings.Repeat("x", takenBytes-sizeAlone(t)-3) // tag and length take 3 bytes
			if size := sizeAlone(t); size != takenBytes {
				panic(size)
			}
			return t
		}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var waiting []*alertv1.Transition
				for seq := range c.many {
					tr := c.make(seq + 1)
					if size := sizeAlone(tr); size > takenBytes {
						t.Fatalf("transition %d of %d bytes cannot be sent", seq, size)
					}
					waiting = append(waiting, tr)
				}
				notifier := &store{refuse: bounded}
				s := sendAll(t, notifier, time.Hour, waiting)
				if n := testutil.CollectAndCount(s.errors); n != 0 {
					t.Errorf("%d kinds of calls were refused, want none", n)
				}
				if diff := cmp.Diff(ids(waiting), notifier.stored); diff != "" {
					t.Errorf("stored (-want +got):\n%s", diff)
				}
			})
		})
	}
}

// sendAll runs a sender for so long on transitions that wait.
func sendAll(t *testing.T, notifier *store, long time.Duration, waiting []*alertv1.Transition) *Sender {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), long)
	defer cancel()
	s := NewSender(notifier, slog.New(slog.DiscardHandler), nil)
	if err := s.Run(ctx, 7, "me", NewQueue("a", waiting, nil)); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Run: %v, want the context's error", err)
	}
	return s
}

// unknownKind is what a notifier that is older than the alerter answers.
func unknownKind(batch []*alertv1.Transition) error {
	if slices.ContainsFunc(batch, func(t *alertv1.Transition) bool { return t.GetId() == "2.0" }) {
		return status.Error(codes.InvalidArgument, "kind 4 is not known")
	}
	return nil
}

func TestARefusedTransitionIsKeptUntilANewerNotifierTakesIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		notifier := &store{refuse: unknownKind}
		ctx, cancel := context.WithCancel(t.Context())
		q := NewQueue("a", []*alertv1.Transition{transition(1, 0), transition(2, 0), transition(3, 0)}, nil)
		s := NewSender(notifier, slog.New(slog.DiscardHandler), nil)
		done := make(chan error, 1)
		go func() { done <- s.Run(ctx, 7, "me", q) }()

		time.Sleep(10 * time.Minute)
		if diff := cmp.Diff([]string{"1.0"}, notifier.has()); diff != "" {
			t.Errorf("stored by the old notifier (-want +got):\n%s", diff)
		}
		if diff := cmp.Diff([]string{"2.0", "3.0"}, ids(q.Waiting())); diff != "" {
			t.Errorf("still waiting (-want +got):\n%s", diff)
		}
		if n := testutil.ToFloat64(s.kept); n != 20 {
			t.Errorf("%v times kept in 10 minutes, want one each 30 s", n)
		}
		notifier.mu.Lock()
		notifier.refuse = nil
		notifier.mu.Unlock()
		time.Sleep(refusedWait + time.Second)
		if diff := cmp.Diff([]string{"1.0", "2.0", "3.0"}, notifier.has()); diff != "" {
			t.Errorf("stored by the new notifier (-want +got):\n%s", diff)
		}
		if n := testutil.ToFloat64(s.refused); n != 0 {
			t.Errorf("%v given up, want none", n)
		}
		cancel()
		<-done
	})
}

func TestTransitionsThatAreTooLarge(t *testing.T) {
	small := func(seq uint64) *alertv1.Transition { return heavy(seq, 1, 0, 0) }
	busy := status.Error(codes.ResourceExhausted, "too many requests")
	type counts struct{ Kept, Lightened, Refused float64 }
	for name, c := range map[string]struct {
		middle *alertv1.Transition
		refuse func([]*alertv1.Transition) error
		want   []string
		counts counts
	}{
		"one that is too large goes without its series": {
			heavy(2, 1, 1, 600), bounded, []string{"1.0", "2.0", "3.0"}, counts{Lightened: 1},
		},
		"one that still is goes without evidence": {
			heavy(2, 1, 600, 600), bounded, []string{"1.0", "2.0", "3.0"}, counts{Lightened: 2},
		},
		"one that still is is given up, and nothing else": {
			heavy(2, 600, 1, 600), bounded, []string{"1.0", "3.0"}, counts{Lightened: 2, Refused: 1},
		},
		"one that gRPC itself finds too large goes without its series": {
			heavy(2, 1, 1, 600),
			func(batch []*alertv1.Transition) error {
				if bounded(batch) != nil {
					return status.Error(codes.ResourceExhausted, "received message larger than max")
				}
				return nil
			},
			[]string{"1.0", "2.0", "3.0"},
			counts{Lightened: 1},
		},
		"one that only this store finds too large goes without its series": {
			heavy(2, 1, 1, 100), sized(64<<10, fault.TooLarge), []string{"1.0", "2.0", "3.0"}, counts{Lightened: 1},
		},
		"one that only this store finds too large even so is kept": {
			heavy(2, 100, 1, 1), sized(64<<10, fault.TooLarge), []string{"1.0"}, counts{Kept: 120, Lightened: 2},
		},
		"one that is refused for another reason keeps its evidence": {
			heavy(2, 1, 1, 100), unknownKind, []string{"1.0"}, counts{Kept: 120},
		},
		"a notifier that is busy refuses nothing": {
			heavy(2, 1, 1, 100), func([]*alertv1.Transition) error { return busy }, nil, counts{},
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				whole := proto.CloneOf(c.middle)
				notifier := &store{refuse: c.refuse}
				s := sendAll(t, notifier, time.Hour, []*alertv1.Transition{small(1), c.middle, small(3)})
				if diff := cmp.Diff(c.want, notifier.stored); diff != "" {
					t.Errorf("stored (-want +got):\n%s", diff)
				}
				count := func(counter prometheus.Counter) float64 { return testutil.ToFloat64(counter) }
				if diff := cmp.Diff(c.counts, counts{count(s.kept), count(s.lightened), count(s.refused)}); diff != "" {
					t.Errorf("counted (-want +got):\n%s", diff)
				}
				if !proto.Equal(whole, c.middle) {
					t.Error("the committed transition itself was changed")
				}
			})
		})
	}
}

// TestABatchThatIsRefusedForItsSizeIsHalved meets a store that takes less than
// the notifier's bound.
func TestABatchThatIsRefusedForItsSizeIsHalved(t *testing.T) {
	for name, kind := range map[string]fault.Kind{
		"by the store":                  fault.TooLarge,
		"by a notifier with less bound": fault.Invalid,
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var waiting []*alertv1.Transition
				for seq := range uint64(1000) {
					waiting = append(waiting, heavy(seq+1, 1, 0, 0))
				}
				notifier := &store{refuse: sized(100<<10, kind)}
				s := sendAll(t, notifier, time.Minute, waiting)
				if diff := cmp.Diff(ids(waiting), notifier.stored); diff != "" {
					t.Errorf("stored (-want +got):\n%s", diff)
				}
				// Batches of about 60 are taken, and each tried after that of 120 not.
				if notifier.calls > 60 {
					t.Errorf("%d calls, want about 35", notifier.calls)
				}
				if n := testutil.ToFloat64(s.lightened) + testutil.ToFloat64(s.kept); n != 0 {
					t.Errorf("%v single transitions were refused, want none", n)
				}
			})
		})
	}
}
