package courier

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/tocsin-dev/tocsin/services/notifier/internal/delivery"
	"github.com/tocsin-dev/tocsin/services/notifier/internal/route"
	"github.com/tocsin-dev/tocsin/services/notifier/internal/send"
	"github.com/tocsin-dev/tocsin/services/notifier/internal/settings"
)

func TestOutcome(t *testing.T) {
	cut := errors.New("no whole answer within 10s")
	for _, c := range []struct {
		name   string
		answer send.Answer
		want   delivery.Outcome
	}{
		{"200", send.Answer{Status: 200, Excerpt: "ok"}, delivery.Outcome{Told: true, Status: 200}},
		{"204", send.Answer{Status: 204}, delivery.Outcome{Told: true, Status: 204}},
		{"a 2xx whose body does not end is a 2xx", send.Answer{Status: 200, Err: cut}, delivery.Outcome{Told: true, Status: 200}},
		{"no answer", send.Answer{Err: cut}, delivery.Outcome{Error: "no whole answer within 10s"}},
		{"a redirect", send.Answer{Status: 302}, delivery.Outcome{Status: 302, Error: "answered 302 Found"}},
		{"410 is the end", send.Answer{Status: 410}, delivery.Outcome{Status: 410, Gone: true, Error: "answered 410 Gone"}},
		{
			"429 holds all messages",
			send.Answer{Status: 429, RetryAfter: time.Minute, Excerpt: "slow down"},
			delivery.Outcome{Status: 429, Throttled: true, RetryAfter: time.Minute, Error: "answered 429 Too Many Requests: slow down"},
		},
		{"503 too", send.Answer{Status: 503}, delivery.Outcome{Status: 503, Throttled: true, Error: "answered 503 Service Unavailable"}},
		{"504 too", send.Answer{Status: 504, RetryAfter: time.Second}, delivery.Outcome{Status: 504, Throttled: true, RetryAfter: time.Second, Error: "answered 504 Gateway Timeout"}},
		{"500 only its own", send.Answer{Status: 500, RetryAfter: time.Second}, delivery.Outcome{Status: 500, RetryAfter: time.Second, Error: "answered 500 Internal Server Error"}},
		{"a status nobody knows", send.Answer{Status: 799}, delivery.Outcome{Status: 799, Error: "answered 799"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			if diff := cmp.Diff(c.want, outcome(c.answer)); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestPrintedLinesAreHandedOutOneByOne(t *testing.T) {
	var lines []string
	s, err := NewSender([]settings.Integration{{Receiver: "r", Name: "tocsin/0", Format: settings.FormatPrint}}, "Tocsin/test",
		func(line string) { lines = append(lines, line) })
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	r := s.attempt(t.Context(), always, delivery.Attempt{
		Lane: route.Lane{Receiver: "r", Integration: "tocsin/0"}, Body: delivery.Body{Bytes: []byte("one\ntwo\n")},
	})
	if !r.outcome.Told || !slices.Equal(lines, []string{"one", "two"}) {
		t.Errorf("outcome %+v, lines %q", r.outcome, lines)
	}
}

func always() bool { return true }

func TestWhoDoesNotLeadSendsNothing(t *testing.T) {
	hook := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { t.Error("a request was sent") }))
	defer hook.Close()
	never := func() bool { return false }
	s := senderTo(t, hook.URL)
	for way := range s.ways {
		r := s.attempt(t.Context(), never, delivery.Attempt{Lane: route.Lane{Receiver: way[0], Integration: way[1]}})
		if !r.outcome.Canceled || r.outcome.Told {
			t.Errorf("outcome %+v, want canceled", r.outcome)
		}
	}
	p, err := NewSender([]settings.Integration{{Receiver: "r", Name: "p", Format: settings.FormatPrint}}, "Tocsin/test",
		func(line string) { t.Errorf("printed %q", line) })
	if err != nil {
		t.Fatal(err)
	}
	r := p.attempt(t.Context(), never, delivery.Attempt{Lane: route.Lane{Receiver: "r", Integration: "p"}, Body: delivery.Body{Bytes: []byte("x\n")}})
	if !r.outcome.Canceled || r.outcome.Told {
		t.Errorf("outcome %+v, want canceled", r.outcome)
	}
}

func TestAnAttemptThatWeEndIsNobodysFault(t *testing.T) {
	entered := make(chan struct{})
	hang := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		close(entered)
		<-r.Context().Done()
	}))
	defer hang.Close()
	s := senderTo(t, hang.URL)
	ctx, cancel := context.WithCancelCause(t.Context())
	go func() {
		<-entered
		cancel(errStopping)
	}()
	r := s.attempt(ctx, always, delivery.Attempt{Lane: route.Lane{Receiver: "ops", Integration: onlyWay(s)}})
	if !r.outcome.Canceled || r.outcome.Error != errStopping.Error() {
		t.Errorf("outcome %+v, want canceled because the notifier stops", r.outcome)
	}
	hang.CloseClientConnections()
}

// onlyWay returns the name of the one integration.
func onlyWay(s *Sender) string {
	for way := range s.ways {
		return way[1]
	}
	return ""
}

func senderTo(t *testing.T, url string) *Sender {
	t.Helper()
	conf, err := settings.Parse("test.yml", []byte("route: {receiver: ops}\nreceivers:\n- name: ops\n  webhook_configs:\n  - url: "+url+"\n"), ".")
	if err != nil {
		t.Fatal(err)
	}
	s, err := NewSender(conf.Integrations, "Tocsin/test", nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return s
}
