package stack

import (
	"context"
	"errors"
	"net"
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/tocsin-dev/tocsin/internal/servertest"
)

const (
	// lookEvery and lookLimit are how often notifiers are asked whether they lead,
	// and how long they have to answer.
	lookEvery = 100 * time.Millisecond
	lookLimit = 500 * time.Millisecond
)

// balancer stands for what leads to the notifier that leads, as the load
// balancers of clusters do: it asks their readiness, and closes the connections
// to one that is not ready any more.
type balancer struct {
	health  []string // where readiness is asked
	targets []string
	client  http.Client

	mu      sync.Mutex
	present string // guarded by mu; empty while none is ready
}

func newBalancer(t testing.TB, health, targets []string) *balancer {
	t.Helper()
	b := &balancer{health: health, targets: targets, client: http.Client{Timeout: lookLimit}}
	t.Cleanup(b.client.CloseIdleConnections)
	return b
}

// dial connects to the notifier that leads.
func (b *balancer) dial() (net.Conn, error) {
	b.mu.Lock()
	target := b.present
	b.mu.Unlock()
	if target == "" {
		return nil, errors.New("no notifier is ready")
	}
	return net.Dial("tcp", target)
}

// watch looks until the test ends which notifier leads.
func (b *balancer) watch(t testing.TB, links ...*servertest.Proxy) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	t.Cleanup(func() { cancel(); <-done })
	go func() {
		defer close(done)
		tick := time.NewTicker(lookEvery)
		defer tick.Stop()
		for {
			if b.look(ctx) {
				for _, l := range links {
					l.Reset()
				}
			}
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
			}
		}
	}()
}

// look asks all, and reports whether another one leads.
func (b *balancer) look(ctx context.Context) (changed bool) {
	ready := make([]bool, len(b.health))
	var asking sync.WaitGroup
	for i, address := range b.health {
		asking.Go(func() { ready[i] = b.ready(ctx, address) })
	}
	asking.Wait()
	present := ""
	for i, ok := range ready {
		if ok {
			present = b.targets[i]
		}
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	changed = present != b.present
	b.present = present
	return changed
}

func (b *balancer) ready(ctx context.Context, address string) bool {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+address+"/readyz", nil)
	if err != nil {
		return false
	}
	resp, err := b.client.Do(req)
	if err != nil {
		return false
	}
	_ = resp.Body.Close()
	return resp.StatusCode == http.StatusOK
}
