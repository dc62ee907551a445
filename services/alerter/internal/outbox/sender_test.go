package outbox

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	alertv1 "github.com/tocsin-dev/tocsin/proto/gen/tocsin/alert/v1"
	notifyv1 "github.com/tocsin-dev/tocsin/proto/gen/tocsin/notify/v1"
)

// store is a notifier: it stores each transition once, in order, and answers
// calls with what fail says.
type store struct {
	mu     sync.Mutex
	stored []string
	mark   *alertv1.Cause
	calls  int
	fail   func(call int) error // before anything is stored
	lose   func(call int) error // after it is stored
	refuse func([]*alertv1.Transition) error
}

// has returns what is stored while a sender may run.
func (s *store) has() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.stored)
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
	if s.refuse != nil {
		if err := s.refuse(in.GetTransitions()); err != nil {
			return nil, err
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
	}{
		"everything arrives in order":                           {&store{}, all},
		"a notifier that is away costs delay only":              {&store{fail: unavailable(20)}, all},
		"what an owner before sent is not sent again":           {&store{mark: cause("a", 2, 0)}, all[2:]},
		"a lost answer stores nothing twice":                    {&store{lose: unavailable(3)}, all},
		"an owner that was overtaken reads the watermark again": {&store{fail: func(call int) error { return map[int]error{2: status.Error(codes.Aborted, "")}[call] }}, all},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx, cancel := context.WithCancel(t.Context())
				q := NewQueue("a", []*alertv1.Transition{transition(1, 0), transition(2, 0)}, nil)
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
			})
		})
	}
}

// TestWhatAYoungerLogHidesIsSentWhenThatIsGone has a notifier that takes all that
// is sent for repeats, since somebody gave it an alert of a log of the future.
func TestWhatAYoungerLogHidesIsSentWhenThatIsGone(t *testing.T) {
	for name, known := range map[string]bool{"at first": false, "later": true} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx, cancel := context.WithCancel(t.Context())
				notifier := &store{}
				future := func(mark *alertv1.Cause) {
					notifier.mu.Lock()
					defer notifier.mu.Unlock()
					notifier.mark = mark
				}
				q := NewQueue("a", nil, nil)
				s := NewSender(notifier, slog.New(slog.DiscardHandler), nil)
				done := make(chan error, 1)
				if !known {
					future(cause("z", 1, 0))
				}
				go func() { done <- s.Run(ctx, 7, "me", q) }()
				time.Sleep(time.Minute)
				future(cause("z", 1, 0))
				q.Push([]*alertv1.Transition{transition(1, 0), transition(2, 0)})
				time.Sleep(time.Hour)
				if n, stored := q.Len(), notifier.has(); n != 2 || len(stored) > 0 {
					t.Errorf("%d transitions wait and %v are stored, want 2 and none", n, stored)
				}
				future(nil)
				time.Sleep(time.Minute)
				if diff := cmp.Diff([]string{"1.0", "2.0"}, notifier.has()); diff != "" {
					t.Errorf("stored (-want +got):\n%s", diff)
				}
				cancel()
				<-done
			})
		})
	}
}

// slow is a notifier that takes a second for each call, and counts them.
type slow struct {
	store
	now, most int
}

func (s *slow) Notify(ctx context.Context, in *notifyv1.NotifyRequest, opts ...grpc.CallOption) (*notifyv1.NotifyResponse, error) {
	s.mu.Lock()
	s.now++
	s.most = max(s.most, s.now)
	s.mu.Unlock()
	time.Sleep(time.Second)
	s.mu.Lock()
	s.now--
	s.mu.Unlock()
	return &notifyv1.NotifyResponse{Watermark: in.GetTransitions()[len(in.GetTransitions())-1].GetCause()}, nil
}

func TestFewBatchesAreOnTheirWayAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const partitions = 64
		ctx, cancel := context.WithCancel(t.Context())
		notifier := &slow{}
		s := NewSender(notifier, slog.New(slog.DiscardHandler), nil)
		queues := make([]*Queue, partitions)
		var senders sync.WaitGroup
		for p := range queues {
			queues[p] = NewQueue("a", []*alertv1.Transition{transition(uint64(p+1), 0)}, nil)
			senders.Go(func() { _ = s.Run(ctx, p, "me", queues[p]) })
		}
		time.Sleep(partitions / callsAtOnce * time.Second)
		synctest.Wait()
		for p, q := range queues {
			if n := q.Len(); n != 0 {
				t.Errorf("%d transitions of partition %d still wait", n, p)
			}
		}
		if notifier.most != callsAtOnce {
			t.Errorf("%d calls were in flight at once, want %d", notifier.most, callsAtOnce)
		}
		cancel()
		senders.Wait()
	})
}
