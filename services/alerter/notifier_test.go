package alerter_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/tocsin-dev/tocsin/internal/event"
	alertv1 "github.com/tocsin-dev/tocsin/proto/gen/tocsin/alert/v1"
	notifyv1 "github.com/tocsin-dev/tocsin/proto/gen/tocsin/notify/v1"
)

// notifier is a NotifierService that keeps everything in memory. It stores each
// transition once, in order, and can be told to fail.
type notifier struct {
	notifyv1.UnimplementedNotifierServiceServer
	t       *testing.T
	address string

	mu     sync.Mutex
	stored map[uint32][]*alertv1.Transition // guarded by mu; by partition
	calls  int                              // guarded by mu
	deaf   int                              // guarded by mu; a partition that is not taken, -1 = none
	fail   func(call int) error             // guarded by mu; before a batch is stored
	lose   func(call int) error             // guarded by mu; after it is stored
}

func newNotifier(t *testing.T) *notifier {
	t.Helper()
	n := &notifier{t: t, stored: map[uint32][]*alertv1.Transition{}, deaf: -1}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	n.address = ln.Addr().String()
	server := grpc.NewServer()
	notifyv1.RegisterNotifierServiceServer(server, n)
	served := make(chan error, 1)
	go func() { served <- server.Serve(ln) }()
	t.Cleanup(func() {
		server.Stop()
		if err := <-served; err != nil && !errors.Is(err, grpc.ErrServerStopped) {
			t.Error(err)
		}
	})
	return n
}

// ignore makes the notifier refuse what comes from a partition; -1 ends that.
func (n *notifier) ignore(partition int) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.deaf = partition
}

// fault makes calls fail before or after they took effect.
func (n *notifier) fault(fail, lose func(call int) error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.calls, n.fail, n.lose = 0, fail, lose
}

func (n *notifier) watermark(p uint32) *alertv1.Cause {
	if s := n.stored[p]; len(s) > 0 {
		return s[len(s)-1].GetCause()
	}
	return nil
}

func above(a, b *alertv1.Cause) bool {
	if b == nil {
		return true
	}
	if a.GetLogId() != b.GetLogId() {
		return a.GetLogId() > b.GetLogId()
	}
	if a.GetSequence() != b.GetSequence() {
		return a.GetSequence() > b.GetSequence()
	}
	return a.GetIndex() > b.GetIndex()
}

func (n *notifier) Notify(_ context.Context, in *notifyv1.NotifyRequest) (*notifyv1.NotifyResponse, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.calls++
	if n.fail != nil {
		if err := n.fail(n.calls); err != nil {
			return nil, err
		}
	}
	p := in.GetPartition()
	if int(p) == n.deaf {
		return nil, status.Error(codes.Unavailable, "deaf to this partition")
	}
	var last *alertv1.Cause
	var fresh []*alertv1.Transition
	for _, t := range in.GetTransitions() {
		if !above(t.GetCause(), last) || event.Partition(event.Token(t.GetAlert().GetTarget())) != int(p) {
			n.t.Errorf("a batch of partition %d is out of order or place: %v after %v", p, t.GetCause(), last)
			return nil, status.Error(codes.InvalidArgument, "out of order")
		}
		last = t.GetCause()
		if above(t.GetCause(), n.watermark(p)) {
			fresh = append(fresh, t)
		}
	}
	n.stored[p] = append(n.stored[p], fresh...)
	if n.lose != nil {
		if err := n.lose(n.calls); err != nil {
			return nil, err
		}
	}
	return &notifyv1.NotifyResponse{Watermark: n.watermark(p), Stored: uint32(len(fresh))}, nil
}

func (n *notifier) Watermark(_ context.Context, in *notifyv1.WatermarkRequest) (*notifyv1.WatermarkResponse, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	return &notifyv1.WatermarkResponse{Watermark: n.watermark(in.GetPartition())}, nil
}

// forge stores something that no alerter sent, the end of an alert that nobody
// knows, and returns what removes it.
func (n *notifier) forge(partition int, c *alertv1.Cause) (remove func()) {
	n.mu.Lock()
	defer n.mu.Unlock()
	p := uint32(partition)
	n.stored[p] = append(n.stored[p], &alertv1.Transition{
		Id: "forged", Kind: alertv1.TransitionKind_TRANSITION_KIND_RESOLVED, Cause: c, Alert: &alertv1.Alert{Id: "forged"},
	})
	return func() {
		n.mu.Lock()
		defer n.mu.Unlock()
		n.stored[p] = slices.DeleteFunc(n.stored[p], func(t *alertv1.Transition) bool { return t.GetId() == "forged" })
	}
}

func (n *notifier) ListActive(_ context.Context, in *notifyv1.ListActiveRequest) (*notifyv1.ListActiveResponse, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	active := map[string]*alertv1.Alert{}
	for _, t := range n.stored[in.GetPartition()] {
		if t.GetKind() == alertv1.TransitionKind_TRANSITION_KIND_RESOLVED {
			delete(active, t.GetAlert().GetId())
		} else {
			active[t.GetAlert().GetId()] = t.GetAlert()
		}
	}
	out := &notifyv1.ListActiveResponse{}
	for _, a := range active {
		out.Alerts = append(out.Alerts, a)
	}
	return out, nil
}

// told returns what was stored about an endpoint, in order.
func (n *notifier) told(id string) []*alertv1.Transition {
	n.mu.Lock()
	defer n.mu.Unlock()
	var told []*alertv1.Transition
	for _, t := range n.stored[uint32(event.Partition(event.Token(endpoint(id))))] {
		if t.GetAlert().GetTarget().GetId() == id {
			told = append(told, t)
		}
	}
	return told
}

// kinds are the kinds of what was stored about an endpoint, as letters: f for
// firing, r for resolved.
func (n *notifier) kinds(id string) string {
	var b strings.Builder
	for _, t := range n.told(id) {
		switch t.GetKind() {
		case alertv1.TransitionKind_TRANSITION_KIND_FIRING:
			b.WriteByte('f')
		case alertv1.TransitionKind_TRANSITION_KIND_RESOLVED:
			b.WriteByte('r')
		default:
			b.WriteByte('?')
		}
	}
	return b.String()
}

// await waits until these kinds were stored about an endpoint.
func (n *notifier) await(id, kinds string) []*alertv1.Transition {
	n.t.Helper()
	eventually(n.t, "what was told about "+id, func() error {
		if got := n.kinds(id); got != kinds {
			return fmt.Errorf("%q, want %q", got, kinds)
		}
		return nil
	})
	return n.told(id)
}
