package notifier_test

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/tocsin-dev/tocsin/internal/bus"
	"github.com/tocsin-dev/tocsin/internal/servertest"
)

func TestASlowReceiverDoesNotDelayTheOthers(t *testing.T) {
	nats, slow, quick, s := servertest.NATS(t), newHook(t), newHook(t), &story{}
	release := make(chan struct{})
	slow.answers(func(_ int, _ http.ResponseWriter, r *http.Request) {
		select {
		case <-release:
		case <-r.Context().Done():
		}
	})
	t.Cleanup(func() { close(release) })
	p := start(t, nats.URL(), routes(fmt.Sprintf("  tocsin_configs:\n  - {url: '%s', timeout: 1m}\n  - {url: '%s'}\n", slow.URL, quick.URL)))
	for i := range 100 {
		p.notify(t, s.fire(fmt.Sprint(i)))
	}
	quick.until(t, 100) // while the slow one hangs
	if n := len(slow.messages()); n > 16 {
		t.Errorf("%d requests hang at the slow receiver, want at most 16", n)
	}
}

func TestHostileReceivers(t *testing.T) {
	elsewhere := newHook(t)
	for _, c := range []struct {
		name   string
		answer func(n int, w http.ResponseWriter, r *http.Request)
		want   string // in the log
	}{
		{"a redirect is a failure", func(_ int, w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, elsewhere.URL, http.StatusTemporaryRedirect)
		}, `"status":307`},
		{"an answer of 100 MB is cut off", func(_ int, w http.ResponseWriter, _ *http.Request) {
			chunk := make([]byte, 1<<20)
			for range 100 {
				if _, err := w.Write(chunk); err != nil {
					return
				}
			}
		}, `"result":"told"`},
		{"410 ends it", func(_ int, w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusGone) }, `"result":"dead"`},
		{"400 is tried again", func(_ int, w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusBadRequest) }, `"result":"failed"`},
		{"429 is waited out", func(_ int, w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Retry-After", "3600")
			w.WriteHeader(http.StatusTooManyRequests)
		}, `"retry_in":3600`},
	} {
		t.Run(c.name, func(t *testing.T) {
			nats, h, s := servertest.NATS(t), newHook(t), &story{}
			h.answers(c.answer)
			p := start(t, nats.URL(), standardTo(h))
			p.notify(t, s.fire("a"))
			p.waitLog(t, c.want)
		})
	}
	if n := len(elsewhere.messages()); n != 0 {
		t.Errorf("%d requests followed the redirect", n)
	}
}

func TestALargeAlertStopsNobody(t *testing.T) {
	nats, h, s := servertest.NATS(t), newHook(t), &story{}
	for _, format := range []string{"  webhook_configs:\n", "  tocsin_configs:\n"} {
		p := start(t, nats.URL(), routes(format+"  - url: "+h.URL+"\n"))
		before := len(h.messages())
		// JSON makes six bytes of each of these, four times over.
		p.notify(t, s.fire("big", "text", strings.Repeat("\x01", 400_000)), s.fire("small"))
		p.notify(t, s.resolve("big"), s.resolve("small"))
		h.wait(t, "both alerts and their ends", func(all []message) bool {
			over := 0
			for _, m := range all[before:] {
				if strings.Contains(m.Body, `"status":"resolved"`) {
					over++
				}
			}
			return over >= 2
		})
		p.stop(t)
	}
}

func TestMetadataAddressesAreRefused(t *testing.T) {
	nats, s := servertest.NATS(t), &story{}
	p := start(t, nats.URL(), routes("  webhook_configs:\n  - url: http://169.254.169.254/latest/meta-data/\n"))
	p.notify(t, s.fire("a"))
	p.waitLog(t, "not allowed")
}

func (p *process) waitLog(t *testing.T, text string) {
	t.Helper()
	deadline := time.Now().Add(patience)
	for !strings.Contains(p.log.String(), text) {
		if time.Now().After(deadline) {
			t.Fatalf("the log lacks %q", text)
		}
		<-time.After(5 * time.Millisecond)
	}
}

func TestNoSecretIsShown(t *testing.T) {
	const canary = "canary-0123456789"
	nats, h, s := servertest.NATS(t), newHook(t), &story{}
	h.answers(func(_ int, w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(http.StatusForbidden)
		fmt.Fprintf(w, "denied: %s %s", r.URL, r.Header.Get("Authorization"))
	})
	p := start(t, nats.URL(), routes(fmt.Sprintf(`  tocsin_configs:
  - {url: '%s/%s?key=%s', secret: whsec_Y2FuYXJ5LWNhbmFyeS1jYW5hcnktY2FuYXJ5}
  webhook_configs:
  - url: http://user:%s@127.0.0.1:1/%s
  - url: %s/hook
    http_config: {authorization: {credentials: %s}}
`, h.URL, canary, canary, canary, canary, h.URL, canary)))
	p.notify(t, s.fire("a"))
	h.until(t, 2)
	p.waitLog(t, "connection refused")
	resp, err := http.Get("http://" + p.addresses.HTTP + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	metrics, _ := io.ReadAll(resp.Body)
	p.stop(t)
	for where, text := range map[string]string{"log": p.log.String(), "metrics": string(metrics)} {
		for _, secret := range []string{canary, "Y2FuYXJ5"} {
			if strings.Contains(text, secret) {
				t.Errorf("the %s shows a secret", where)
			}
		}
	}
	conn := nats.Conn(t)
	done := errors.New("read all")
	err = conn.Read(t.Context(), bus.ReadOptions{Stream: bus.DeliveriesStream}, func(d bus.Delivery) error {
		if strings.Contains(string(d.Data), canary) {
			t.Errorf("journal message %d holds a secret", d.Seq)
		}
		if d.Pending == 0 {
			return done
		}
		return nil
	})
	if !errors.Is(err, done) {
		t.Fatal(err)
	}
}
