package alerter_test

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/tocsin-dev/tocsin/internal/bus"
	"github.com/tocsin-dev/tocsin/internal/event"
	"github.com/tocsin-dev/tocsin/internal/proc"
	"github.com/tocsin-dev/tocsin/services/alerter"
)

// TestTimeGoesOnWithoutFacts has an alert wait for its `for` while nothing is
// published about anything: the alerter's own ticks must fire it.
func TestTimeGoesOnWithoutFacts(t *testing.T) {
	w := newWorld(t)
	w.rules = strings.Replace(testRules, "for: 1h", "for: 2s", 1)
	r := w.start().await(64).inForce()
	began := time.Now()
	w.queue("one", 7)
	w.notifier.await("one", "f")
	if took := time.Since(began); took < 2*time.Second {
		t.Errorf("it fired after %v, want 2s at least", took)
	}
	if n := r.metric("tocsin_alerter_ticks_published_total"); n < 1 || n > 64+20 {
		t.Errorf("%v ticks were published", n)
	}
}

// TestTimeGoesOnAfterARestart has an alert wait for its `for` over a restart,
// with nothing published about anything before or after it.
func TestTimeGoesOnAfterARestart(t *testing.T) {
	for name, lose := range map[string]func(w *world){
		"with Redis as it was": func(*world) {},
		"with Redis flushed":   func(w *world) { w.redis.FlushAll(w.t) },
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.rules = strings.Replace(testRules, "for: 1h", "for: 2s", 1)
			first := w.start().await(64).inForce()
			began := time.Now()
			w.queue("one", 7)
			q := first.query()
			eventually(t, "the alert is pending", func() error {
				out, err := q.ListAlerts(t.Context(), nil)
				if err == nil && len(out.GetAlerts()) != 1 {
					err = fmt.Errorf("%d alerts", len(out.GetAlerts()))
				}
				return err
			})
			first.stop()
			lose(w)
			w.start()
			w.notifier.await("one", "f")
			if took := time.Since(began); took < 2*time.Second {
				t.Errorf("it fired after %v, want 2s at least", took)
			}
		})
	}
}

// TestSpeedRunsRulesFaster runs a minute in 3 s, as the demo does: a machine that
// stands still for 1.5 s more makes no gap of it.
func TestSpeedRunsRulesFaster(t *testing.T) {
	w := newWorld(t)
	w.rules = strings.Replace(testRules, "for: 1h", "for: 1m", 1)
	w.start(func(o *alerter.Options) { o.Speed = 20 }).await(64).inForce()
	w.queue("one", 7)
	w.notifier.await("one", "f")
}

// TestTheOutboxSurvivesItsNotifier keeps the notifier away during changes, a
// restart and the loss of Redis.
func TestTheOutboxSurvivesItsNotifier(t *testing.T) {
	w := newWorld(t)
	away := func(int) error { return status.Error(codes.Unavailable, "away") }
	first := w.start().await(64).inForce()
	w.notifier.fault(away, nil)
	var want strings.Builder
	for i := range 10 {
		w.queue("one", int64(20*((i+1)%2)))
		want.WriteByte("fr"[i%2])
	}
	eventually(t, "the outbox fills", func() error {
		if n := first.metric("tocsin_alerter_outbox_depth"); n != 10 {
			return fmt.Errorf("%v wait, want 10", n)
		}
		return nil
	})
	first.stop()
	second := w.start().await(64)
	eventually(t, "the outbox is loaded", func() error {
		if n := second.metric("tocsin_alerter_outbox_depth"); n != 10 {
			return fmt.Errorf("%v wait, want 10", n)
		}
		return nil
	})
	second.stop()
	w.redis.FlushAll(t)
	third := w.start().await(64)
	if n := third.metric("tocsin_alerter_loads_total", "snapshot"); n < 64 {
		t.Errorf("%v partitions were loaded from snapshots, want 64", n)
	}
	w.notifier.fault(nil, nil)
	wantOrder(t, w.notifier.await("one", want.String()))
}

// TestALogThatIsGoneBeginsAnew deletes the event log under a running alerter,
// and nobody else creates it.
func TestALogThatIsGoneBeginsAnew(t *testing.T) {
	w := newWorld(t)
	w.start().await(64).inForce()
	w.queue("one", 20)
	w.notifier.await("one", "f")
	w.nats.Call(t, "STREAM.DELETE."+bus.EventsStream, "")
	w.notifier.await("one", "fr")
	w.queue("two", 20)
	w.notifier.await("two", "f")
}

// TestAnotherLogIsNoticedWhileItRuns deletes the event log under a running
// alerter. What fires by the notifier's records and is not in the new log is
// over; what comes after is judged as ever.
func TestAnotherLogIsNoticedWhileItRuns(t *testing.T) {
	w := newWorld(t)
	r := w.start(func(o *alerter.Options) { o.SnapshotInterval = time.Second }).await(64).inForce()
	for range 20 {
		w.queue("one", 20)
	}
	old := w.notifier.await("one", "f")[0]
	w.nats.Call(t, "STREAM.DELETE."+bus.EventsStream, "")
	if _, err := w.conn.EnsureStream(t.Context(), bus.Events(0)); err != nil {
		t.Fatal(err)
	}
	over := w.notifier.await("one", "fr")[1]
	if over.GetAlert().GetId() != old.GetAlert().GetId() || over.GetAlert().GetResolveReason() != "state rebuilt" {
		t.Errorf("%s is over because of %q", over.GetAlert().GetId(), over.GetAlert().GetResolveReason())
	}
	if over.GetCause().GetLogId() <= old.GetCause().GetLogId() {
		t.Errorf("the new log %s does not sort after the old one %s", over.GetCause().GetLogId(), old.GetCause().GetLogId())
	}
	if n := r.metric("tocsin_alerter_reloads_total", "log_changed"); n < 1 {
		t.Error("no partition noticed that the log is another one")
	}
	w.queue("two", 20)
	two := w.notifier.await("two", "f")[0]
	r.stop()

	// The old log's snapshots reach further, and push out none of the new one's.
	w.redis.FlushAll(t)
	again := w.start().await(64)
	if n := again.metric("tocsin_alerter_loads_total", "snapshot"); n < 64 {
		t.Errorf("%v partitions were loaded from snapshots of the new log, want 64", n)
	}
	w.queue("two", 0)
	if over := w.notifier.await("two", "fr")[1]; over.GetAlert().GetId() != two.GetAlert().GetId() {
		t.Errorf("alert %s became %s", two.GetAlert().GetId(), over.GetAlert().GetId())
	}
}

// TestWhatOnePartitionLostAllLookFor empties Redis. Only one partition has anything
// to commit; the others, which would not until their ticks, load anew with it.
func TestWhatOnePartitionLostAllLookFor(t *testing.T) {
	w := newWorld(t)
	r := w.start().await(64).inForce()
	w.redis.FlushAll(t)
	w.queue("one", 20)
	w.notifier.await("one", "f")
	eventually(t, "all partitions noticed", func() error {
		if n := r.metric("tocsin_alerter_reloads_total", "state_lost"); n != 64 {
			return fmt.Errorf("%v of 64 noticed", n)
		}
		return nil
	})
}

// TestPoisonStopsNothing publishes what no release can decode.
func TestPoisonStopsNothing(t *testing.T) {
	w := newWorld(t)
	r := w.start().await(64).inForce()
	for _, data := range [][]byte{nil, []byte("\xff\xff\xff"), bytes.Repeat([]byte("x"), 100<<10)} {
		_, err := w.conn.Publish(t.Context(), bus.Message{Subject: event.Subject(event.KindHealthSampled, endpoint("one")), Data: data})
		if err != nil {
			t.Fatal(err)
		}
	}
	w.queue("one", 20)
	w.notifier.await("one", "f")
	if n := r.metric("tocsin_alerter_rule_problems_total", "undecodable_event"); n != 3 {
		t.Errorf("%v undecodable events are counted, want 3", n)
	}
}

// TestStoresThatAreAwayAreWaitedFor restarts NATS and pauses Redis under load.
func TestStoresThatAreAwayAreWaitedFor(t *testing.T) {
	w := newWorld(t)
	w.start().await(64).inForce()
	w.queue("one", 20)
	w.notifier.await("one", "f")
	w.nats.Restart(t)
	w.queue("one", 0)
	w.notifier.await("one", "fr")
	w.redis.Pause(t)
	w.queue("one", 20)
	w.redis.Resume(t)
	w.notifier.await("one", "frf")
	w.redis.Stop(t)
	w.queue("one", 0)
	w.redis.Start(t) // empty: nothing was on disk
	wantOrder(t, w.notifier.await("one", "frfr"))
}

func TestNewRulesComeIntoForceInPlace(t *testing.T) {
	w := newWorld(t)
	w.start().await(64).inForce().stop()
	w.rules = strings.Replace(testRules, "> 10", "> 100", 1)
	r := w.start().await(64)
	q := r.query()
	eventually(t, "the new rules are in force", func() error {
		w.queue("probe", 0)
		out, err := q.ListRules(t.Context(), nil)
		if err != nil {
			return err
		}
		if len(out.GetRules()) == 0 || out.GetRules()[0].GetExpr() != "jobs.in_queue > 100" {
			return fmt.Errorf("in force is %v", out.GetRules())
		}
		return nil
	})
	w.queue("one", 20)
	w.queue("one", 200)
	w.notifier.await("one", "f")
}

func TestMistakesAreToldAllAtOnce(t *testing.T) {
	o := alerter.DefaultOptions()
	o.GRPCAddress, o.HTTPAddress = "0.0.0.0:0", "nowhere"
	o.Rules = []string{"testdata/no-such-file-*.yaml"}
	o.RuleFiles = map[string][]byte{"bad.yaml": []byte("groups:\n  - name: g\n    rules:\n      - alert: A\n        on: endpoint\n        expr: jobs.in_queue >\n      - alert: B\n        on: nothing\n        expr: 1 > 0\n")}
	err := alerter.Run(t.Context(), o)
	if !proc.IsUsage(err) {
		t.Fatalf("got %v, want a mistake in the configuration", err)
	}
	for _, want := range []string{"grpc_address", "http_address", "no-such-file", "bad.yaml:6", "bad.yaml:8"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("the error does not name %q:\n%v", want, err)
		}
	}
}

func TestPortsTellHealthAndAskForTheToken(t *testing.T) {
	w := newWorld(t)
	r := w.start(func(o *alerter.Options) { o.Token = "letmein" }).await(64)
	get := func(path, token string) (int, string) {
		t.Helper()
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+r.address.HTTP+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		if token != "" {
			req.Header.Set("Authorization", "Bearer "+token)
		}
		res, err := new(http.Client).Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		body, err := io.ReadAll(res.Body)
		if err != nil {
			t.Fatal(err)
		}
		return res.StatusCode, string(body)
	}
	if code, body := get("/healthz", ""); code != http.StatusOK {
		t.Errorf("/healthz: %d %s", code, body)
	}
	eventually(t, "it is ready", func() error { // a check has 800 ms
		if code, body := get("/readyz", ""); code != http.StatusOK {
			return fmt.Errorf("/readyz: %d %s", code, body)
		}
		return nil
	})
	if code, _ := get("/metrics", ""); code != http.StatusUnauthorized {
		t.Errorf("/metrics without the token: %d", code)
	}
	_, body := get("/metrics", "letmein")
	for _, name := range []string{
		"tocsin_alerter_events_applied_total", "tocsin_alerter_lag_messages", "tocsin_alerter_transitions_total",
		"tocsin_alerter_commits_total", "tocsin_alerter_commit_failures_total", "tocsin_alerter_outbox_depth",
		"tocsin_alerter_ticks_published_total", "tocsin_alerter_snapshots_saved_total", "tocsin_alerter_loads_total",
		"tocsin_alerter_partitions_owned", "tocsin_alerter_fold_seconds_total",
	} {
		if !strings.Contains(body, name) {
			t.Errorf("/metrics lacks %s", name)
		}
	}
	if _, err := r.query().ListRules(t.Context(), nil); status.Code(err) != codes.Unauthenticated {
		t.Errorf("a question without the token: %v", err)
	}
	r.serves("SERVING")
	w.redis.Stop(t)
	r.serves("NOT_SERVING")
	if code, body := get("/readyz", ""); code != http.StatusServiceUnavailable || !strings.Contains(body, "redis") {
		t.Errorf("/readyz without Redis: %d %s", code, body)
	}
	if code, _ := get("/healthz", ""); code != http.StatusOK {
		t.Errorf("/healthz without Redis: %d", code)
	}
}

// TestASnapshotThatIsDamagedGivesWayToTheOlder breaks the newest snapshot of
// each partition.
func TestASnapshotThatIsDamagedGivesWayToTheOlder(t *testing.T) {
	w := newWorld(t)
	w.start().await(64).inForce().stop()
	first := w.start().await(64)
	w.queue("one", 20)
	before := w.notifier.await("one", "f")[0]
	first.stop()
	objects, err := w.conn.Objects(t.Context(), bus.SnapshotsBucket)
	if err != nil {
		t.Fatal(err)
	}
	names, err := objects.List(t.Context(), fmt.Sprintf("p%02d/", event.Partition(event.Token(endpoint("one")))))
	if err != nil || len(names) < 2 {
		t.Fatalf("snapshots %v, %v; want two", names, err)
	}
	rubbish, err := base64.StdEncoding.DecodeString("AAAA")
	if err != nil {
		t.Fatal(err)
	}
	if err := objects.Put(t.Context(), names[len(names)-1], rubbish); err != nil {
		t.Fatal(err)
	}
	w.redis.FlushAll(t)
	second := w.start().await(64)
	w.queue("one", 0)
	after := w.notifier.await("one", "fr")[1]
	if after.GetAlert().GetId() != before.GetAlert().GetId() {
		t.Errorf("alert %s became %s", before.GetAlert().GetId(), after.GetAlert().GetId())
	}
	if n := second.metric("tocsin_alerter_unreadable_states_total", "snapshot"); n < 1 {
		t.Errorf("%v unreadable snapshots are counted, want 1", n)
	}
}

// TestAFullOutboxStopsItsPartitionAlone makes one partition's transitions pile
// up until its outbox is full.
func TestAFullOutboxStopsItsPartitionAlone(t *testing.T) {
	const capacity = 10_000
	w := newWorld(t)
	r := w.start().await(64).inForce()
	stuck := event.Partition(event.Token(endpoint("stuck")))
	free := "free"
	for n := 0; event.Partition(event.Token(endpoint(free))) == stuck; n++ {
		free = fmt.Sprint("free", n)
	}
	w.notifier.ignore(stuck)
	var want strings.Builder
	for i := range capacity + 1000 {
		w.queue("stuck", int64(20*((i+1)%2)))
		want.WriteByte("fr"[i%2])
	}
	depth := func() float64 { return r.metric("tocsin_alerter_outbox_depth", fmt.Sprint(stuck)) }
	for filled := 0.0; filled < capacity; { // patience is for the next of them, not for all
		eventually(t, "the outbox fills", func() error {
			if n := depth(); n > filled {
				filled = n
				return nil
			}
			return fmt.Errorf("%v wait", filled)
		})
	}
	eventually(t, "the outbox is full", func() error {
		if n := r.metric("tocsin_alerter_outbox_full_total"); n < 1 || depth() != capacity {
			return fmt.Errorf("%v times full, %v wait", n, depth())
		}
		return nil
	})
	w.queue(free, 20)
	w.notifier.await(free, "f")
	if depth() != capacity {
		t.Errorf("%v transitions wait while the notifier is deaf, want %d", depth(), capacity)
	}
	w.notifier.ignore(-1)
	wantOrder(t, w.notifier.await("stuck", want.String()))
}
