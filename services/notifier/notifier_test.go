package notifier_test

import (
	"context"
	"encoding/json"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/alertmanager/notify/webhook"
	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"

	"github.com/tocsin-dev/tocsin/internal/bus"
	"github.com/tocsin-dev/tocsin/internal/servertest"
	"github.com/tocsin-dev/tocsin/services/notifier"
)

func TestAnAlertReachesItsReceiverOnceAndSoDoesItsEnd(t *testing.T) {
	nats, h, s := servertest.NATS(t), newHook(t), &story{}
	p := start(t, nats.URL(), standardTo(h))
	fire := s.fire("a")
	p.notify(t, fire)
	p.notify(t, fire) // a repeat of the alerter's
	h.until(t, 1)
	p.notify(t, s.resolve("a"))
	got := h.until(t, 2)
	if diff := cmp.Diff([]map[string]string{{"a": "firing"}, {"a": "resolved"}}, []map[string]string{states(t, got[0]), states(t, got[1])}); diff != "" {
		t.Error(diff)
	}
	p.stop(t)
	if got := h.messages(); len(got) != 2 {
		t.Errorf("%d messages, want 2: %s", len(got), show(got))
	}
}

func TestAnAlertIsStoredBeforeNotifyAnswers(t *testing.T) {
	nats, s := servertest.NATS(t), &story{}
	p := start(t, nats.URL(), "")
	resp := p.notify(t, s.fire("a"), s.fire("b"))
	if resp.GetStored() != 2 || resp.GetWatermark().GetSequence() != 2 {
		t.Errorf("answer %v, want 2 stored up to cause 2", resp)
	}
	nats.Stop() // as a crash does
	nats.Start(t)
	d, ok, err := nats.Conn(t).Last(t.Context(), bus.AlertsStream, "tocsin.alert.7")
	if err != nil || !ok || d.Seq != 1 {
		t.Errorf("last message %v, %t, %v: want the batch", d.Seq, ok, err)
	}
}

func TestAttemptsCarryTheSameIDAndBytesUntilOneSucceeds(t *testing.T) {
	nats, h, s := servertest.NATS(t), newHook(t), &story{}
	h.answers(func(n int, w http.ResponseWriter, _ *http.Request) {
		if n < 3 {
			w.WriteHeader(http.StatusInternalServerError)
		}
	})
	const key = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
	p := start(t, nats.URL(), routes("  tocsin_configs:\n  - {url: '"+h.URL+"', secret: "+key+"}\n"))
	p.notify(t, s.fire("a"))
	got := h.until(t, 3)
	verifier, err := standardwebhooks.NewWebhook(key)
	if err != nil {
		t.Fatal(err)
	}
	for i, m := range got {
		if m.ID != got[0].ID || m.Body != got[0].Body || m.ID == "" {
			t.Errorf("attempt %d is %s with %s, want %s with %s", i+1, m.ID, m.Body, got[0].ID, got[0].Body)
		}
		if err := verifier.Verify([]byte(m.Body), m.Header); err != nil {
			t.Errorf("attempt %d: %v", i+1, err)
		}
	}
	if got[0].Header.Get("webhook-timestamp") == got[2].Header.Get("webhook-timestamp") {
		t.Error("the timestamp was not renewed over six seconds of attempts")
	}
}

func TestARestartLosesNothingAndRepeatsNothing(t *testing.T) {
	nats, h, s := servertest.NATS(t), newHook(t), &story{}
	p := start(t, nats.URL(), standardTo(h))
	p.notify(t, s.fire("told"))
	h.until(t, 1)
	journaled(t, nats, 16+2) // one fence for each shard, the message and its result

	h.answers(func(_ int, w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusServiceUnavailable) })
	p.notify(t, s.fire("pending"))
	first := h.until(t, 2)[1]
	p.notify(t, s.fire("brief"))
	h.until(t, 3)
	p.notify(t, s.resolve("brief"))
	p.stop(t)
	h.answers(nil)
	before := len(h.messages())
	p = start(t, nats.URL(), standardTo(h))

	got := h.wait(t, "pending told as firing and brief as resolved", func(all []message) bool {
		heard := heardIn(t, all[before:])
		return heard["pending"] == "firing" && heard["brief"] == "resolved"
	})
	for _, m := range got[before:] {
		switch heard := states(t, m); {
		case heard["told"] != "":
			t.Errorf("an alert was told again after the restart: %s", m.Body)
		case heard["pending"] != "" && (m.ID != first.ID || m.Body != first.Body):
			t.Errorf("the pending message changed from %s %s to %s %s", first.ID, first.Body, m.ID, m.Body)
		}
	}
	p.notify(t, s.resolve("told"), s.resolve("pending"))
	h.wait(t, "the ends", func(all []message) bool {
		heard := heardIn(t, all)
		return heard["told"] == "resolved" && heard["pending"] == "resolved"
	})
}

func TestACrashLosesNothing(t *testing.T) {
	nats, h, s := servertest.NATS(t), newHook(t), &story{}
	proxy := servertest.NewProxy(t, nats.Addr())
	p := start(t, "nats://"+proxy.Addr(), standardTo(h))
	p.notify(t, s.fire("a"))
	h.until(t, 1)
	journaled(t, nats, 16+2) // one fence for each shard, the message of a and its result
	h.answers(func(_ int, w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusBadGateway) })
	p.notify(t, s.fire("b"))
	h.until(t, 2)
	proxy.Cut() // nothing of what follows in that process is stored
	p.cancel()
	h.answers(nil)
	next := start(t, nats.URL(), standardTo(h)) // waits for the lease to lapse
	got := h.wait(t, "b told after the crash", func(all []message) bool {
		last := all[len(all)-1]
		return last.Status == 200 && states(t, last)["b"] == "firing"
	})
	for _, m := range got[1:] {
		if states(t, m)["a"] != "" {
			t.Errorf("a was told again: %s", m.Body)
		}
		if m.ID != got[1].ID || m.Body != got[1].Body {
			t.Errorf("the message of b changed: %s", show(got))
		}
	}
	next.notify(t, s.resolve("a"), s.resolve("b"))
	h.wait(t, "the ends of a and b", func(all []message) bool {
		heard := heardIn(t, all)
		return heard["a"] == "resolved" && heard["b"] == "resolved"
	})
}

func TestLostSnapshotsAndAgedAlertsDoNotMakeItSpeak(t *testing.T) {
	nats, h, s := servertest.NATS(t), newHook(t), &story{}
	p := start(t, nats.URL(), standardTo(h))
	p.notify(t, s.fire("a"))
	p.notify(t, s.fire("b"))
	p.notify(t, s.resolve("b"))
	h.wait(t, "the end of b", func(all []message) bool { return heardIn(t, all)["b"] == "resolved" })
	p.stop(t)
	before := len(h.messages())
	conn := nats.Conn(t)

	objects, err := conn.Objects(t.Context(), bus.DeliverySnapshotsBucket)
	if err != nil {
		t.Fatal(err)
	}
	names, err := objects.List(t.Context(), "")
	if err != nil || len(names) == 0 {
		t.Fatalf("snapshots %v, %v", names, err)
	}
	for _, name := range names {
		if err := objects.Delete(t.Context(), name); err != nil {
			t.Fatal(err)
		}
	}
	p = start(t, nats.URL(), standardTo(h)) // from the journal alone
	if got := active(t, p, 7); len(got) != 1 || got[0] != "a" {
		t.Errorf("alerts %v fire, want a", got)
	}
	p.stop(t)

	if err := conn.PurgeBefore(t.Context(), bus.AlertsStream, 100); err != nil {
		t.Fatal(err)
	}
	p = start(t, nats.URL(), standardTo(h)) // from the snapshot alone
	p.notify(t, s.resolve("a"))
	got := h.until(t, before+1)
	if len(got) != before+1 || states(t, got[before])["a"] != "resolved" {
		t.Errorf("got %s, want the end of a and nothing else", show(got[before:]))
	}
}

func TestAStandbyTakesOver(t *testing.T) {
	nats, h, s := servertest.NATS(t), newHook(t), &story{}
	first := start(t, nats.URL(), standardTo(h))
	second, ready := launch(t, nats.URL(), standardTo(h))
	first.notify(t, s.fire("a"))
	h.until(t, 1)
	first.stop(t)
	select {
	case second.addresses = <-ready:
	case <-time.After(patience):
		t.Fatal("the standby does not lead")
	}
	second.client = dial(t, second.addresses.GRPC, "")
	second.notify(t, s.resolve("a"))
	got := h.until(t, 2)
	if is := states(t, got[1])["a"]; is != "resolved" || len(got) != 2 {
		t.Errorf("got %s, want the end of a", show(got))
	}
}

func TestInhibitedAlertsAreNotTold(t *testing.T) {
	nats, h, s := servertest.NATS(t), newHook(t), &story{}
	p := start(t, nats.URL(), standardTo(h)+`
inhibit_rules:
- {source_matchers: ['kind="cause"'], target_matchers: ['kind="symptom"'], equal: [endpoint_id]}
`)
	p.notify(t,
		s.fire("cause", "kind", "cause", "endpoint_id", "ep1"),
		s.fire("symptom", "kind", "symptom", "endpoint_id", "ep1"),
		s.fire("other", "kind", "symptom", "endpoint_id", "ep2"))
	got := h.until(t, 2)
	p.notify(t, s.resolve("symptom", "kind", "symptom", "endpoint_id", "ep1"), s.resolve("other", "kind", "symptom", "endpoint_id", "ep2"))
	got = append(got[:0], h.until(t, 3)...)
	for _, m := range got {
		if states(t, m)["symptom"] != "" {
			t.Errorf("the inhibited alert was told: %s", m.Body)
		}
	}
}

func TestAlertmanagersPayloadArrives(t *testing.T) {
	nats, h, s := servertest.NATS(t), newHook(t), &story{}
	p := start(t, nats.URL(), routes("  webhook_configs:\n  - url: "+h.URL+"\n"))
	p.notify(t, s.fire("a", "severity", "critical"))
	got := h.until(t, 1)[0]
	var m webhook.Message
	if err := json.Unmarshal([]byte(got.Body), &m); err != nil {
		t.Fatal(err)
	}
	if m.Version != "4" || m.Receiver != "ops" || m.Status != "firing" || len(m.Alerts) != 1 || m.Alerts[0].Labels["id"] != "a" ||
		m.ExternalURL != "http://"+p.addresses.HTTP || m.NotificationReason != "first notification" {
		t.Errorf("message %+v", m)
	}
	if got.ID == "" || !strings.HasSuffix(got.Body, "}\n") || got.Header.Get("Content-Type") != "application/json" {
		t.Errorf("request %+v", got)
	}
}

func TestTheSimpleFormatArrives(t *testing.T) {
	nats, h, s := servertest.NATS(t), newHook(t), &story{}
	p := start(t, nats.URL(), routes("  tocsin_configs:\n  - {url: '"+h.URL+"', format: simple}\n"))
	p.notify(t, s.fire("a", "severity", "warning"))
	var body map[string]any
	if err := json.Unmarshal([]byte(h.until(t, 1)[0].Body), &body); err != nil {
		t.Fatal(err)
	}
	at, ok := body["timestamp"].(float64)
	if !ok || time.Since(time.Unix(int64(at), 0)) > time.Minute || at != float64(int64(at)) {
		t.Errorf("timestamp %v, want Unix seconds as a number", body["timestamp"])
	}
	delete(body, "timestamp")
	want := map[string]any{"title": "[FIRING] Rule", "message": "something about a", "severity": "warning"}
	if diff := cmp.Diff(want, body); diff != "" {
		t.Error(diff)
	}
}

func TestWithoutAReceiverAlertsArePrinted(t *testing.T) {
	nats, s := servertest.NATS(t), &story{}
	lines := make(chan string, 10)
	p := start(t, nats.URL(), "", func(o *notifier.Options) { o.Print = func(line string) { lines <- line } })
	if !strings.Contains(p.log.String(), "no receiver is configured") {
		t.Error("the log does not say that no receiver is configured")
	}
	p.notify(t, s.fire("a"), s.resolve("a"), s.fire("b", "severity", "critical"))
	heard := ""
	for range 2 {
		select {
		case line := <-lines:
			heard += line + "\n"
		case <-time.After(patience):
			t.Fatalf("printed %q, want two lines", heard)
		}
	}
	for _, want := range []string{" RESOLVED [none] Rule: something about a (after ", " FIRING [critical] Rule: something about b"} {
		if !strings.Contains(heard, want) {
			t.Errorf("printed %q, which lacks %q", heard, want)
		}
	}
}

func TestOneGroupTellsItsAlertsTogether(t *testing.T) {
	nats, h, s := servertest.NATS(t), newHook(t), &story{}
	p := start(t, nats.URL(), `
route: {receiver: ops, group_by: [team], group_wait: 10ms, group_interval: 10ms}
receivers:
- name: ops
  tocsin_configs:
  - url: `+h.URL+"\n")
	p.notify(t, s.fire("a", "team", "x"), s.fire("b", "team", "x"), s.fire("c", "team", "y"))
	got := h.until(t, 2)
	sizes := map[int]bool{len(states(t, got[0])): true, len(states(t, got[1])): true}
	if !sizes[1] || !sizes[2] {
		t.Errorf("got %s, want one message of two alerts and one of one", show(got))
	}
}

func TestTheNotifierOutlivesNATS(t *testing.T) {
	nats, h, s := servertest.NATS(t), newHook(t), &story{}
	p := start(t, nats.URL(), standardTo(h))
	p.notify(t, s.fire("a"))
	h.until(t, 1)
	nats.Restart(t)
	deadline := time.Now().Add(patience)
	end := s.resolve("a")
	for {
		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
		err := notifyOnce(ctx, p, end)
		cancel()
		if err == nil {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("notify after the restart of NATS: %v", err)
		}
	}
	if got := h.until(t, 2); states(t, got[1])["a"] != "resolved" {
		t.Errorf("got %s", show(got))
	}
}

func TestAlertsOutOfReachOfReceiversAreStillListed(t *testing.T) {
	nats, s := servertest.NATS(t), &story{}
	p := start(t, nats.URL(), "route: {receiver: nobody}\nreceivers: [{name: nobody}]\n")
	p.notify(t, s.fire("b"), s.fire("a"), s.fire("c"), s.resolve("b"))
	if diff := cmp.Diff([]string{"a", "c"}, active(t, p, 7)); diff != "" {
		t.Error(diff)
	}
	if got := active(t, p, 8); len(got) != 0 {
		t.Errorf("partition 8 lists %v", got)
	}
	p.stop(t)
	p = start(t, nats.URL(), "route: {receiver: nobody}\nreceivers: [{name: nobody}]\n")
	if diff := cmp.Diff([]string{"a", "c"}, active(t, p, 7)); diff != "" {
		t.Errorf("after a restart:\n%s", diff)
	}
}
