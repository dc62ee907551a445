package outbox

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	alertv1 "github.com/tocsin-dev/tocsin/proto/gen/tocsin/alert/v1"
	notifyv1 "github.com/tocsin-dev/tocsin/proto/gen/tocsin/notify/v1"
)

func cause(log string, seq uint64, n uint32) *alertv1.Cause {
	return &alertv1.Cause{LogId: log, Sequence: seq, Index: n}
}

func transition(seq uint64, n uint32) *alertv1.Transition {
	return &alertv1.Transition{Id: fmt.Sprintf("%d.%d", seq, n), Cause: cause("a", seq, n)}
}

func ids(transitions []*alertv1.Transition) []string {
	got := []string{}
	for _, t := range transitions {
		got = append(got, t.GetId())
	}
	return got
}

func TestCompare(t *testing.T) {
	for name, c := range map[string]struct {
		a, b *alertv1.Cause
		want int
	}{
		"equal causes":                       {cause("a", 1, 2), cause("a", 1, 2), 0},
		"no cause is below any":              {nil, cause("", 0, 0), -1},
		"any is above no cause":              {cause("", 0, 0), nil, 1},
		"no causes are equal":                {nil, nil, 0},
		"an older log is below a newer one":  {cause("a", 9, 9), cause("b", 1, 0), -1},
		"a later message is above":           {cause("a", 10, 0), cause("a", 9, 5), 1},
		"the order within a message decides": {cause("a", 9, 4), cause("a", 9, 5), -1},
	} {
		t.Run(name, func(t *testing.T) {
			if got := Compare(c.a, c.b); got != c.want {
				t.Errorf("Compare = %d, want %d", got, c.want)
			}
		})
	}
}

func TestQueue(t *testing.T) {
	q := NewQueue([]*alertv1.Transition{transition(1, 0), transition(1, 1), transition(2, 0)}, cause("a", 1, 0))
	if diff := cmp.Diff([]string{"1.1", "2.0"}, ids(q.Waiting())); diff != "" {
		t.Errorf("what waits after the load (-want +got):\n%s", diff)
	}
	q.Push([]*alertv1.Transition{transition(3, 0)})
	q.Acknowledge(cause("a", 2, 0))
	q.Acknowledge(cause("a", 1, 1)) // late, changes nothing
	trim, acknowledged := q.Stored()
	if trim != 3 || Compare(acknowledged, cause("a", 2, 0)) != 0 {
		t.Errorf("Stored = %d, %v; want 3 transitions up to 2.0", trim, acknowledged)
	}
	q.Trimmed(3)
	if trim, _ := q.Stored(); trim != 0 {
		t.Errorf("Stored = %d after the trim, want 0", trim)
	}
	replayed := []*alertv1.Transition{transition(1, 1), transition(2, 0), transition(2, 1)}
	if diff := cmp.Diff([]string{"2.1"}, ids(q.Above(replayed))); diff != "" {
		t.Errorf("what is above the watermark (-want +got):\n%s", diff)
	}
}

func TestQueueIsBounded(t *testing.T) {
	q := NewQueue(nil, nil)
	for seq := range uint64(Capacity - 1) {
		q.Push([]*alertv1.Transition{transition(seq+1, 0)})
	}
	if q.Full() {
		t.Error("full one below the capacity")
	}
	q.Push([]*alertv1.Transition{transition(Capacity, 0)})
	if !q.Full() {
		t.Error("not full at the capacity")
	}
	q.Acknowledge(cause("a", 1, 0))
	if q.Full() {
		t.Error("still full after an acknowledgement")
	}
	select {
	case <-q.Drained():
	default:
		t.Error("an acknowledgement does not wake the fold")
	}
}

func TestBatchesAreBounded(t *testing.T) {
	big := transition(1, 0)
	big.Alert = &alertv1.Alert{Annotations: map[string]string{"text": strings.Repeat("x", 200<<10)}}
	many := make([]*alertv1.Transition, 600)
	for i := range many {
		many[i] = transition(uint64(i+1), 0)
	}
	huge := proto.CloneOf(big)
	huge.Alert.Annotations["text"] = strings.Repeat("x", 600<<10)
	for name, c := range map[string]struct {
		waiting []*alertv1.Transition
		want    int
	}{
		"500 transitions at most":       {many, 500},
		"508 KiB at most":               {[]*alertv1.Transition{big, big, big}, 2},
		"one too large one still goes":  {[]*alertv1.Transition{huge, big}, 1},
		"nothing gives an empty batch":  {nil, 0},
		"the last batch takes the rest": {many[:7], 7},
	} {
		t.Run(name, func(t *testing.T) {
			if got := len(NewQueue(c.waiting, nil).batch(batchCount)); got != c.want {
				t.Errorf("batch of %d, want %d", got, c.want)
			}
		})
	}
}

// store is a notifier: it stores each transition once, in order, and answers
// calls with what fail says.
type store struct {
	mu     sync.Mutex
	stored []string
	mark   *alertv1.Cause
	calls  int
	fail   func(call int) error           // before anything is stored
	lose   func(call int) error           // after it is stored
	refuse func(*alertv1.Transition) bool // InvalidArgument
}

func (s *store) Watermark(context.Context, *notifyv1.WatermarkRequest, ...grpc.CallOption) (*notifyv1.WatermarkResponse, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.calls++
	if s.fail != nil {
		if err := s.fail(s.calls); err != nil {
			return nil, err
		}
	}
	return &notifyv1.WatermarkResponse{Watermark: s.mark}, nil
}

func (s *store) Notify(_ context.Context, in *notifyv1.NotifyRequest, _ ...grpc.CallOption) (*notifyv1.NotifyResponse, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.calls++
	if s.fail != nil {
		if err := s.fail(s.calls); err != nil {
			return nil, err
		}
	}
	for _, t := range in.GetTransitions() {
		if s.refuse != nil && s.refuse(t) {
			return nil, status.Error(codes.InvalidArgument, "no")
		}
	}
	var n uint32
	for _, t := range in.GetTransitions() {
		if Compare(t.GetCause(), s.mark) > 0 {
			s.stored, s.mark, n = append(s.stored, t.GetId()), t.GetCause(), n+1
		}
	}
	if s.lose != nil {
		if err := s.lose(s.calls); err != nil {
			return nil, err
		}
	}
	return &notifyv1.NotifyResponse{Watermark: s.mark, Stored: n}, nil
}

func unavailable(until int) func(int) error {
	return func(call int) error {
		if call <= until {
			return status.Error(codes.Unavailable, "away")
		}
		return nil
	}
}

func TestSender(t *testing.T) {
	all := []string{"1.0", "2.0", "3.0", "4.0"}
	for name, c := range map[string]struct {
		notifier *store
		want     []string
		refused  float64
	}{
		"everything arrives in order":                           {&store{}, all, 0},
		"a notifier that is away costs delay only":              {&store{fail: unavailable(20)}, all, 0},
		"what an owner before sent is not sent again":           {&store{mark: cause("a", 2, 0)}, all[2:], 0},
		"a lost answer stores nothing twice":                    {&store{lose: unavailable(3)}, all, 0},
		"an owner that was overtaken reads the watermark again": {&store{fail: func(call int) error { return map[int]error{2: status.Error(codes.Aborted, "")}[call] }}, all, 0},
		"a transition that is refused for good stops no other": {
			&store{refuse: func(t *alertv1.Transition) bool { return t.GetId() == "2.0" }},
			[]string{"1.0", "3.0", "4.0"},
			1,
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx, cancel := context.WithCancel(t.Context())
				q := NewQueue([]*alertv1.Transition{transition(1, 0), transition(2, 0)}, nil)
				s := NewSender(c.notifier, slog.New(slog.DiscardHandler), nil)
				done := make(chan error, 1)
				go func() { done <- s.Run(ctx, 7, "me", q) }()
				q.Push([]*alertv1.Transition{transition(3, 0)})
				time.Sleep(time.Hour) // long enough for every retry
				q.Push([]*alertv1.Transition{transition(4, 0)})
				time.Sleep(time.Hour)
				cancel()
				if err := <-done; !errors.Is(err, context.Canceled) {
					t.Errorf("Run: %v, want the context's error", err)
				}
				if diff := cmp.Diff(c.want, c.notifier.stored); diff != "" {
					t.Errorf("stored (-want +got):\n%s", diff)
				}
				if n := q.Len(); n != 0 {
					t.Errorf("%d transitions still wait", n)
				}
				if got := testutil.ToFloat64(s.refused); got != c.refused {
					t.Errorf("%v refused, want %v", got, c.refused)
				}
			})
		})
	}
}
