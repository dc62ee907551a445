package notifier_test

import (
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tocsin-dev/tocsin/internal/servertest"
	alertv1 "github.com/tocsin-dev/tocsin/proto/gen/tocsin/alert/v1"
	notifyv1 "github.com/tocsin-dev/tocsin/proto/gen/tocsin/notify/v1"
	"github.com/tocsin-dev/tocsin/services/notifier"
)

// counter is a receiver that only counts, and says when it has heard enough.
type counter struct {
	heard  atomic.Int64
	enough atomic.Int64
	done   chan struct{}
}

func (c *counter) ServeHTTP(http.ResponseWriter, *http.Request) {
	if c.heard.Add(1) == c.enough.Load() {
		c.done <- struct{}{}
	}
}

// expect sets how many requests from now on are enough.
func (c *counter) expect(n int) { c.enough.Store(c.heard.Load() + int64(n)) }

func startBench(b *testing.B) (*process, *counter) {
	b.Helper()
	c := &counter{done: make(chan struct{}, 1)}
	hook := httptest.NewServer(c)
	b.Cleanup(hook.Close)
	p := start(b, servertest.NATS(b).URL(), routes("  webhook_configs:\n  - url: "+hook.URL+"\n"),
		func(o *notifier.Options) { o.Log = slog.New(slog.DiscardHandler) })
	return p, c
}

// Distinct alerts, from gRPC to the webhook, each in a group of its own.
func BenchmarkAlertsToWebhooks(b *testing.B) {
	p, c := startBench(b)
	s := &story{}
	c.expect(b.N)
	b.ResetTimer()
	for i := 0; i < b.N; i += 500 {
		var batch []*alertv1.Transition
		for j := i; j < min(i+500, b.N); j++ {
			batch = append(batch, s.fire(fmt.Sprint(j)))
		}
		if _, err := p.client.Notify(b.Context(), &notifyv1.NotifyRequest{Partition: 7, Transitions: batch}); err != nil {
			b.Fatal(err)
		}
	}
	<-c.done
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "alerts/s")
}

// One alert at a time, from the call of Notify to the webhook.
func BenchmarkLatency(b *testing.B) {
	p, c := startBench(b)
	s := &story{}
	for i := range b.N {
		c.expect(1)
		if _, err := p.client.Notify(b.Context(), &notifyv1.NotifyRequest{
			Partition: 7, Transitions: []*alertv1.Transition{s.fire(fmt.Sprint(i))},
		}); err != nil {
			b.Fatal(err)
		}
		select {
		case <-c.done:
		case <-time.After(patience):
			b.Fatal("the alert does not arrive")
		}
	}
}
