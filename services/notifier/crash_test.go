package notifier_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/tocsin-dev/tocsin/internal/servertest"
	alertv1 "github.com/tocsin-dev/tocsin/proto/gen/tocsin/alert/v1"
	notifyv1 "github.com/tocsin-dev/tocsin/proto/gen/tocsin/notify/v1"
)

// sender is an alerter in small: it sends each transition until some notifier
// has stored it.
type sender struct {
	mu     sync.Mutex
	client notifyv1.NotifierServiceClient // guarded by mu; the notifier that leads
}

func (s *sender) use(c notifyv1.NotifierServiceClient) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.client = c
}

func (s *sender) send(ctx context.Context, t *testing.T, tr *alertv1.Transition) {
	for ctx.Err() == nil {
		s.mu.Lock()
		client := s.client
		s.mu.Unlock()
		once, cancel := context.WithTimeout(ctx, 2*time.Second)
		_, err := client.Notify(once, &notifyv1.NotifyRequest{Partition: 7, Transitions: []*alertv1.Transition{tr}})
		cancel()
		if err == nil {
			return
		}
		select {
		case <-ctx.Done():
		case <-time.After(20 * time.Millisecond):
		}
	}
	t.Error("a transition was not taken in time")
}

// Notifiers crash one after the other under load, while the receiver fails in
// every way. An independent ledger then holds every alert, told to its end.
func TestCrashesUnderLoadLoseAndInventNothing(t *testing.T) {
	if testing.Short() {
		t.Skip("three crashes wait three seconds each for the lease to lapse")
	}
	nats, h, s := servertest.NATS(t), newHook(t), &story{}
	rng := rand.New(rand.NewPCG(3, 4))
	h.answers(func(_ int, w http.ResponseWriter, _ *http.Request) {
		switch h.roll(rng, 10) { // the request counts as heard in any case
		case 0, 1, 2:
			w.WriteHeader(http.StatusInternalServerError)
		case 3:
			if conn, _, err := http.NewResponseController(w).Hijack(); err == nil {
				_ = conn.Close()
			}
		}
	})
	ctx, cancel := context.WithTimeout(t.Context(), 3*patience)
	defer cancel()
	out := &sender{}
	begin := func() (*process, *servertest.Proxy) {
		proxy := servertest.NewProxy(t, nats.Addr())
		p := start(t, "nats://"+proxy.Addr(), standardTo(h))
		out.use(p.client)
		return p, proxy
	}
	p, proxy := begin()
	const alerts = 120
	var load sync.WaitGroup
	load.Go(func() {
		for i := range alerts {
			id := fmt.Sprint(i)
			out.send(ctx, t, s.fire(id))
			if i >= 10 {
				out.send(ctx, t, s.resolve(fmt.Sprint(i-10)))
			}
		}
		for i := alerts - 10; i < alerts; i++ {
			out.send(ctx, t, s.resolve(fmt.Sprint(i)))
		}
	})
	for crash := range 3 {
		h.until(t, 15*(crash+1))
		proxy.Cut() // nothing of what follows in that process is stored
		p.cancel()
		p, proxy = begin()
	}
	load.Wait()
	h.wait(t, "the end of every alert", func(all []message) bool {
		heard := heardIn(t, all)
		over := 0
		for _, is := range heard {
			if is == "resolved" {
				over++
			}
		}
		return over == alerts && len(heard) == alerts
	})
	bodies := map[string]string{}
	for _, m := range h.messages() {
		if body, known := bodies[m.ID]; known && body != m.Body {
			t.Errorf("message %s came with two bodies:\n%s\n%s", m.ID, body, m.Body)
		}
		bodies[m.ID] = m.Body
	}
	over := map[string]bool{}
	for _, m := range h.messages() {
		for id, is := range states(t, m) {
			if over[id] && is == "firing" {
				t.Errorf("alert %s was told as firing after its end: %s", id, m.Body)
			}
			over[id] = over[id] || is == "resolved"
		}
	}
}

// roll returns a number below n; handlers run at the same time.
func (h *hook) roll(rng *rand.Rand, n int) int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return rng.IntN(n)
}
