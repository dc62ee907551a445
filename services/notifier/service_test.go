package notifier_test

import (
	"context"
	"io"
	"net/http"
	"regexp"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/tocsin-dev/tocsin/internal/proc"
	"github.com/tocsin-dev/tocsin/internal/servertest"
	alertv1 "github.com/tocsin-dev/tocsin/proto/gen/tocsin/alert/v1"
	notifyv1 "github.com/tocsin-dev/tocsin/proto/gen/tocsin/notify/v1"
	"github.com/tocsin-dev/tocsin/services/notifier"
)

func notifyOnce(ctx context.Context, p *process, transitions ...*alertv1.Transition) error {
	_, err := p.client.Notify(ctx, &notifyv1.NotifyRequest{Partition: 7, Transitions: transitions})
	return err
}

func active(t *testing.T, p *process, partition uint32) []string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	resp, err := p.client.ListActive(ctx, &notifyv1.ListActiveRequest{Partition: partition})
	if err != nil {
		t.Fatal(err)
	}
	var ids []string
	for _, a := range resp.GetAlerts() {
		ids = append(ids, a.GetId())
	}
	return ids
}

func TestWatchAlertsGoesOnAfterItsToken(t *testing.T) {
	nats, s := servertest.NATS(t), &story{}
	p := start(t, nats.URL(), "")
	p.notify(t, s.fire("before"))
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	stream, err := p.client.WatchAlerts(ctx, &notifyv1.WatchAlertsRequest{Matchers: []string{`severity="critical"`}})
	if err != nil {
		t.Fatal(err)
	}
	// The watch begins when the server says so; until then alerts may be missed.
	var first *notifyv1.WatchAlertsResponse
	heard := make(chan *notifyv1.WatchAlertsResponse, 1)
	go func() {
		r, err := stream.Recv()
		if err == nil {
			heard <- r
		}
	}()
	for first == nil {
		p.notify(t, s.fire("info", "severity", "info"), s.fire("crit", "severity", "critical"), s.resolve("crit", "severity", "critical"))
		select {
		case first = <-heard:
		case <-time.After(100 * time.Millisecond):
		case <-ctx.Done():
			t.Fatal("nothing was heard")
		}
	}
	if got := first.GetTransition(); got.GetAlert().GetId() != "crit" || got.GetKind() != alertv1.TransitionKind_TRANSITION_KIND_FIRING {
		t.Fatalf("heard %v first, want the firing of crit", got)
	}
	again, err := p.client.WatchAlerts(ctx, &notifyv1.WatchAlertsRequest{ResumeToken: first.GetResumeToken()})
	if err != nil {
		t.Fatal(err)
	}
	r, err := again.Recv()
	if err != nil {
		t.Fatal(err)
	}
	if got := r.GetTransition(); got.GetAlert().GetId() != "crit" || got.GetKind() != alertv1.TransitionKind_TRANSITION_KIND_RESOLVED {
		t.Errorf("after the token came %v, want the end of crit from the same message", got)
	}
}

func TestWrongCallsAreRefused(t *testing.T) {
	nats, s := servertest.NATS(t), &story{}
	p := start(t, nats.URL(), "")
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	_, err := p.client.Notify(ctx, &notifyv1.NotifyRequest{Partition: 64, Transitions: []*alertv1.Transition{s.fire("a")}})
	if status.Code(err) != codes.InvalidArgument {
		t.Errorf("partition 64: %v", err)
	}
	if err := notifyOnce(ctx, p); status.Code(err) != codes.InvalidArgument {
		t.Errorf("an empty batch: %v", err)
	}
	for _, req := range []*notifyv1.WatchAlertsRequest{
		{Matchers: []string{"bad{"}}, {ResumeToken: "x"}, {ResumeToken: "1-1-0"},
	} {
		stream, err := p.client.WatchAlerts(ctx, req)
		if err == nil {
			_, err = stream.Recv()
		}
		if status.Code(err) != codes.InvalidArgument {
			t.Errorf("%v: %v", req, err)
		}
	}
}

func TestTooManyWatchesAreRefused(t *testing.T) {
	p := start(t, servertest.NATS(t).URL(), "")
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	ended := make(chan error, 101)
	for range cap(ended) {
		stream, err := p.client.WatchAlerts(ctx, &notifyv1.WatchAlertsRequest{})
		if err != nil {
			t.Fatal(err)
		}
		go func() {
			_, err := stream.Recv()
			ended <- err
		}()
	}
	if err := <-ended; status.Code(err) != codes.ResourceExhausted || !strings.Contains(err.Error(), "100 watches") {
		t.Errorf("one of 101 watches ended with %v", err)
	}
	if _, text := get(t, "http://"+p.addresses.HTTP+"/metrics"); !strings.Contains(text, "tocsin_notifier_watches_refused_total 1\n") {
		t.Error("it was not counted")
	}
}

func TestAStandbyAnswersUnavailable(t *testing.T) {
	nats, s := servertest.NATS(t), &story{}
	first := start(t, nats.URL(), "")
	second, _ := launch(t, nats.URL(), "")
	second.waitLog(t, "standing by: another notifier leads")
	address := func(key string) string {
		t.Helper()
		_, rest, _ := strings.Cut(second.log.String(), `"`+key+`":"`)
		address, _, ok := strings.Cut(rest, `"`)
		if !ok {
			t.Fatalf("the log does not tell the %s", key)
		}
		return address
	}
	grpcAddress, httpAddress := address("grpc_address"), address("http_address")
	second.client = dial(t, grpcAddress, "")
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if err := notifyOnce(ctx, second, s.fire("a")); status.Code(err) != codes.Unavailable {
		t.Errorf("a standby answers %v", err)
	}
	if code, body := get(t, "http://"+httpAddress+"/readyz"); code != http.StatusServiceUnavailable || !strings.Contains(body, "stands by") {
		t.Errorf("readyz of a standby: %d %s", code, body)
	}
	if code, _ := get(t, "http://"+first.addresses.HTTP+"/readyz"); code != http.StatusOK {
		t.Errorf("readyz of the leader: %d", code)
	}
}

func TestThePortsAskForTheToken(t *testing.T) {
	nats, s := servertest.NATS(t), &story{}
	p := start(t, nats.URL(), "", func(o *notifier.Options) { o.Token = "open-sesame" })
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if err := notifyOnce(ctx, p, s.fire("a")); status.Code(err) != codes.Unauthenticated {
		t.Errorf("without a token: %v", err)
	}
	p.client = dial(t, p.addresses.GRPC, "open-sesame")
	p.notify(t, s.fire("a"))
	if code, _ := get(t, "http://"+p.addresses.HTTP+"/metrics"); code != http.StatusUnauthorized {
		t.Errorf("metrics without a token: %d", code)
	}
	if code, _ := get(t, "http://"+p.addresses.HTTP+"/healthz"); code != http.StatusOK {
		t.Errorf("healthz without a token: %d", code)
	}
}

func TestMetricsCount(t *testing.T) {
	nats, h, s := servertest.NATS(t), newHook(t), &story{}
	p := start(t, nats.URL(), standardTo(h))
	fire := s.fire("a")
	p.notify(t, fire)
	p.notify(t, fire)
	h.until(t, 1)
	p.waitLog(t, `"result":"told"`)
	// The name ends with a hash of the receiver's address, which has another port
	// in each run.
	hash := regexp.MustCompile(`integration="tocsin/[0-9a-f]{8}"`)
	deadline := time.Now().Add(patience)
	for _, want := range []string{
		"tocsin_notifier_leader 1",
		"tocsin_notifier_transitions_received_total 2",
		"tocsin_notifier_transitions_stored_total 1",
		`tocsin_notifier_messages_total{integration="tocsin/HASH",receiver="ops",result="told"} 1`,
		`tocsin_notifier_attempts_total{answer="2xx",integration="tocsin/HASH",receiver="ops"} 1`,
		`tocsin_notifier_pending_messages{integration="tocsin/HASH",receiver="ops"} 0`,
		`tocsin_notifier_told_seconds_count{integration="tocsin/HASH",receiver="ops"} 1`,
		"tocsin_notifier_applied_sequence 1",
		"tocsin_notifier_journal_trimmed_messages_total 0",
		"tocsin_notifier_journal_trim_blocked_total 0",
	} {
		for { // some are counted a moment after the line of the attempt is written
			_, text := get(t, "http://"+p.addresses.HTTP+"/metrics")
			if strings.Contains(hash.ReplaceAllString(text, `integration="tocsin/HASH"`), want+"\n") {
				break
			}
			if time.Now().After(deadline) {
				t.Fatalf("the metrics lack %s:\n%s", want, text)
			}
			<-time.After(5 * time.Millisecond)
		}
	}
	if _, text := get(t, "http://"+p.addresses.HTTP+"/metrics"); !strings.Contains(text, "\ntocsin_notifier_journal_bytes ") {
		t.Error("the metrics lack the journal's size")
	}
}

func TestWrongOptionsAreUsageErrors(t *testing.T) {
	for name, change := range map[string]func(*notifier.Options){
		"an open port without a token": func(o *notifier.Options) { o.GRPCAddress = "0.0.0.0:0" },
		"routes that are wrong":        func(o *notifier.Options) { o.Config = []byte("route: {receiver: x}") },
		"two sources of routes":        func(o *notifier.Options) { o.Config, o.ConfigFile = []byte("x"), "y" },
		"a file that is not there":     func(o *notifier.Options) { o.Config, o.ConfigFile = nil, "/does/not/exist.yml" },
	} {
		t.Run(name, func(t *testing.T) {
			o := notifier.DefaultOptions()
			o.GRPCAddress, o.HTTPAddress = "127.0.0.1:0", "127.0.0.1:0"
			change(&o)
			if err := notifier.Run(t.Context(), o); !proc.IsUsage(err) {
				t.Errorf("error %v, want one of usage", err)
			}
		})
	}
}

func get(t *testing.T, url string) (int, string) {
	t.Helper()
	resp, err := http.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, _ := io.ReadAll(resp.Body)
	return resp.StatusCode, string(body)
}
