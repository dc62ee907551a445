package notifier_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"sync"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/tocsin-dev/tocsin/internal/bus"
	"github.com/tocsin-dev/tocsin/internal/rpc"
	"github.com/tocsin-dev/tocsin/internal/secret"
	"github.com/tocsin-dev/tocsin/internal/servertest"
	alertv1 "github.com/tocsin-dev/tocsin/proto/gen/tocsin/alert/v1"
	notifyv1 "github.com/tocsin-dev/tocsin/proto/gen/tocsin/notify/v1"
	"github.com/tocsin-dev/tocsin/services/notifier"
)

// patience bounds every wait of these tests; what they wait for takes
// milliseconds unless the machine is busy.
const patience = 20 * time.Second

// process is a notifier that runs in the test.
type process struct {
	addresses notifier.Addresses
	client    notifyv1.NotifierServiceClient
	log       *safeBuffer
	cancel    context.CancelFunc
	done      chan error
}

// start runs a notifier and waits until it leads.
func start(t testing.TB, url, config string, change ...func(*notifier.Options)) *process {
	t.Helper()
	p, ready := launch(t, url, config, change...)
	select {
	case p.addresses = <-ready:
	case err := <-p.done:
		t.Fatalf("the notifier ended: %v\n%s", err, p.log)
	case <-time.After(patience):
		t.Fatalf("the notifier does not lead:\n%s", p.log)
	}
	p.client = dial(t, p.addresses.GRPC, "")
	return p
}

// launch runs a notifier without waiting.
func launch(t testing.TB, url, config string, change ...func(*notifier.Options)) (*process, <-chan notifier.Addresses) {
	t.Helper()
	ready := make(chan notifier.Addresses, 1)
	p := &process{log: &safeBuffer{}, done: make(chan error, 1)}
	o := notifier.DefaultOptions()
	o.NATS.URL = url
	o.GRPCAddress, o.HTTPAddress = "127.0.0.1:0", "127.0.0.1:0"
	if config != "" {
		o.Config = []byte(config)
	}
	o.Log = slog.New(slog.NewJSONHandler(p.log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	o.Ready = func(a notifier.Addresses) { ready <- a }
	for _, f := range change {
		f(&o)
	}
	var ctx context.Context
	ctx, p.cancel = context.WithCancel(context.Background())
	go func() {
		p.done <- notifier.Run(ctx, o)
		close(p.done)
	}()
	t.Cleanup(func() {
		p.cancel()
		<-p.done
		if t.Failed() {
			t.Logf("log:\n%s", p.log)
		}
	})
	return p, ready
}

// stop ends the notifier as Ctrl-C does.
func (p *process) stop(t *testing.T) {
	t.Helper()
	p.cancel()
	select {
	case err := <-p.done:
		if err != nil {
			t.Fatalf("the notifier ended with %v", err)
		}
	case <-time.After(patience):
		t.Fatal("the notifier does not stop")
	}
}

func dial(t testing.TB, address, token string) notifyv1.NotifierServiceClient {
	t.Helper()
	conn, err := rpc.Dial(address, rpc.DialOptions{Token: secret.String(token)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return notifyv1.NewNotifierServiceClient(conn)
}

// safeBuffer is a log that is read while it is written.
type safeBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer // guarded by mu
}

func (s *safeBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *safeBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

// message is a request that a hook got.
type message struct {
	ID     string
	Header http.Header
	Body   string
	Status int // what was answered
}

// hook is a receiver. Its answer decides what it answers.
type hook struct {
	*httptest.Server
	mu     sync.Mutex
	got    []message                                           // guarded by mu
	answer func(n int, w http.ResponseWriter, r *http.Request) // guarded by mu; n counts requests from 1
	news   chan struct{}
}

func newHook(t *testing.T) *hook {
	t.Helper()
	h := &hook{news: make(chan struct{}, 1)}
	h.Server = httptest.NewServer(http.HandlerFunc(h.serve))
	t.Cleanup(h.Close)
	return h
}

func (h *hook) serve(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	h.mu.Lock()
	h.got = append(h.got, message{ID: r.Header.Get("webhook-id"), Header: r.Header, Body: string(body)})
	n, answer := len(h.got), h.answer
	h.mu.Unlock()
	rec := &statusWriter{ResponseWriter: w, status: 200}
	if answer != nil {
		answer(n, rec, r)
	}
	h.mu.Lock()
	h.got[n-1].Status = rec.status
	h.mu.Unlock()
	select {
	case h.news <- struct{}{}:
	default:
	}
}

type statusWriter struct {
	http.ResponseWriter
	status int
}

func (s *statusWriter) WriteHeader(status int) {
	s.status = status
	s.ResponseWriter.WriteHeader(status)
}

func (s *statusWriter) Unwrap() http.ResponseWriter { return s.ResponseWriter }

func (h *hook) answers(f func(n int, w http.ResponseWriter, r *http.Request)) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.answer = f
}

func (h *hook) messages() []message {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.Clone(h.got)
}

// wait returns the requests once enough says so.
func (h *hook) wait(t *testing.T, what string, enough func([]message) bool) []message {
	t.Helper()
	deadline := time.After(patience)
	for {
		if got := h.messages(); enough(got) {
			return got
		}
		select {
		case <-h.news:
		case <-deadline:
			t.Fatalf("%s: not within %v; got %s", what, patience, show(h.messages()))
		}
	}
}

// until returns the requests once n of them were answered.
func (h *hook) until(t *testing.T, n int) []message {
	t.Helper()
	return h.wait(t, fmt.Sprint(n, " messages"), func(got []message) bool {
		return len(got) >= n && !slices.ContainsFunc(got[:n], func(m message) bool { return m.Status == 0 })
	})
}

func show(ms []message) string {
	var b bytes.Buffer
	for _, m := range ms {
		fmt.Fprintf(&b, "\n%d %s %s", m.Status, m.ID, m.Body)
	}
	return b.String()
}

// states returns what a message in the standard format says of each alert.
func states(t *testing.T, m message) map[string]string {
	t.Helper()
	var body struct {
		Data struct {
			Alerts []struct{ ID, Status string }
		}
	}
	if err := json.Unmarshal([]byte(m.Body), &body); err != nil {
		t.Fatalf("%v in %s", err, m.Body)
	}
	all := map[string]string{}
	for _, a := range body.Data.Alerts {
		all[a.ID] = a.Status
	}
	return all
}

// journaled waits until the journal holds n messages.
func journaled(t *testing.T, nats *servertest.NATSServer, n uint64) {
	t.Helper()
	conn := nats.Conn(t)
	deadline := time.Now().Add(patience)
	for {
		state, err := conn.StreamState(t.Context(), bus.DeliveriesStream)
		if err != nil {
			t.Fatal(err)
		}
		if state.LastSeq >= n {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("the journal holds %d messages, want %d", state.LastSeq, n)
		}
		<-time.After(5 * time.Millisecond)
	}
}

// heardIn returns what the messages say of each alert in the end.
func heardIn(t *testing.T, ms []message) map[string]string {
	t.Helper()
	all := map[string]string{}
	for _, m := range ms {
		maps.Copy(all, states(t, m))
	}
	return all
}

// story writes transitions of one log, with rising causes.
type story struct{ seq uint64 }

func (s *story) transition(id string, kind alertv1.TransitionKind, labels ...string) *alertv1.Transition {
	s.seq++
	a := &alertv1.Alert{
		Id: id, Fingerprint: "00000000000000" + id, Rule: "Rule", State: alertv1.AlertState_ALERT_STATE_FIRING,
		Labels:      map[string]string{"alertname": "Rule", "id": id},
		Annotations: map[string]string{"summary": "something about " + id},
		FiredAt:     timestamppb.Now(),
	}
	for i := 0; i+1 < len(labels); i += 2 {
		a.Labels[labels[i]] = labels[i+1]
	}
	if kind == alertv1.TransitionKind_TRANSITION_KIND_RESOLVED {
		a.State, a.ResolvedAt = alertv1.AlertState_ALERT_STATE_RESOLVED, timestamppb.Now()
	}
	return &alertv1.Transition{
		Id: fmt.Sprint(id, kind, s.seq), Kind: kind, At: timestamppb.Now(), Alert: a,
		Cause: &alertv1.Cause{LogId: "001795611034-1795611034328212615", Sequence: s.seq},
	}
}

func (s *story) fire(id string, labels ...string) *alertv1.Transition {
	return s.transition(id, alertv1.TransitionKind_TRANSITION_KIND_FIRING, labels...)
}

func (s *story) resolve(id string, labels ...string) *alertv1.Transition {
	return s.transition(id, alertv1.TransitionKind_TRANSITION_KIND_RESOLVED, labels...)
}

// notify stores transitions in partition 7.
func (p *process) notify(t *testing.T, transitions ...*alertv1.Transition) *notifyv1.NotifyResponse {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	resp, err := p.client.Notify(ctx, &notifyv1.NotifyRequest{Partition: 7, Transitions: transitions})
	if err != nil {
		t.Fatalf("notify: %v", err)
	}
	return resp
}

// routes tells every alert on its own, at once, to the receivers below.
func routes(receivers string) string {
	return `
route: {receiver: ops, group_by: ['...'], group_wait: 0s, group_interval: 10ms, repeat_interval: 4h}
receivers:
- name: ops
` + receivers
}

func standardTo(h *hook) string {
	return routes("  tocsin_configs:\n  - url: " + h.URL + "\n")
}
