package courier

import (
	"context"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/tocsin-dev/tocsin/internal/bus"
	"github.com/tocsin-dev/tocsin/internal/servertest"
	alertv1 "github.com/tocsin-dev/tocsin/proto/gen/tocsin/alert/v1"
	"github.com/tocsin-dev/tocsin/services/notifier/internal/delivery"
)

// ledger is a receiver that remembers what it was told, and does not take
// messages about the alert "stuck" until it is loosened.
type ledger struct {
	*httptest.Server
	mu    sync.Mutex
	loose bool                // guarded by mu
	told  map[string]string   // guarded by mu; what was told of each alert, in its order
	stuck map[string]struct{} // guarded by mu; the bodies about the alert "stuck"
	news  chan struct{}
}

func newLedger(t *testing.T) *ledger {
	t.Helper()
	l := &ledger{told: map[string]string{}, stuck: map[string]struct{}{}, news: make(chan struct{}, 1)}
	l.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			return // the sender was killed
		}
		_, rest, _ := strings.Cut(string(body), `"status":"`)
		state, _, _ := strings.Cut(rest, `"`)
		_, rest, _ = strings.Cut(rest, `"alertname":"`)
		name, _, _ := strings.Cut(rest, `"`)
		l.mu.Lock()
		defer l.mu.Unlock()
		if name == "stuck" && state == "firing" {
			l.stuck[string(body)] = struct{}{}
		}
		if name == "stuck" && !l.loose {
			w.WriteHeader(http.StatusInternalServerError)
			return
		}
		if !strings.HasSuffix(l.told[name], state) { // a repetition after a kill is none
			l.told[name] += state
		}
		signal(l.news)
	}))
	t.Cleanup(l.Close)
	return l
}

// heard returns what was told of each alert.
func (l *ledger) heard() map[string]string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return maps.Clone(l.told)
}

// await waits until n alerts were told to be in that state.
func (l *ledger) await(t *testing.T, n int, state string) {
	t.Helper()
	deadline := time.After(3 * patience)
	for {
		are := 0
		for _, told := range l.heard() {
			if strings.HasSuffix(told, state) {
				are++
			}
		}
		if are >= n {
			return
		}
		select {
		case <-l.news:
		case <-deadline:
			t.Fatalf("%d alerts are %s, want %d", are, state, n)
		}
	}
}

// lead runs a courier until it is stopped, as a person does, or killed.
func lead(t *testing.T, conn *bus.Conn, url string, limit int64) (c *Courier, stop, kill func()) {
	t.Helper()
	c = unloaded(t, conn, url, func(o *Options) { o.MaxJournalBytes = limit })
	ready := make(chan struct{})
	c.OnReady(func() { close(ready) })
	ctx, cancel := context.WithCancel(context.Background())
	lost, lose := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- c.Run(ctx, lost) }()
	t.Cleanup(func() { cancel(); lose() })
	select {
	case <-ready:
	case err := <-ended:
		t.Fatalf("the courier ended with %v", err)
	case <-time.After(patience):
		t.Fatal("the courier does not lead")
	}
	stop = func() {
		t.Helper()
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("the courier ended with %v", err)
		}
	}
	kill = func() {
		lose()
		<-ended
	}
	return c, stop, kill
}

// TestAJournalBeyondItsLimitLosesNothing journals many times what the journal may
// hold, faster than the minute between two snapshots, while one message cannot be
// delivered. Kills and starts come in between, and everybody hears the end of what
// was told long before what is left of the journal.
func TestAJournalBeyondItsLimitLosesNothing(t *testing.T) {
	const limit, alerts, more = 1 << 20, 150, 30 // of about 9 KiB each
	conn := servertest.NATS(t).Conn(t)
	l := newLedger(t)
	_, _, kill := lead(t, conn, l.URL, limit)
	s := &story{conn: conn}
	s.tell(t, firingKind, "stuck")
	name := func(i int) string { return fmt.Sprint("alert", i) }
	for i := range alerts {
		s.tell(t, firingKind, name(i))
	}
	l.await(t, alerts, "firing")
	kill()

	// Twice an eighth of the limit and more, hence two snapshots: all before them can
	// go then.
	c, stop, _ := lead(t, conn, l.URL, limit)
	for round := 1; round <= 2; round++ {
		for i := range more {
			s.tell(t, firingKind, name(alerts+(round-1)*more+i))
		}
		l.await(t, alerts+round*more, "firing")
	}
	deadline := time.Now().Add(patience)
	for {
		state, err := conn.StreamState(t.Context(), bus.DeliveriesStream)
		if err != nil {
			t.Fatal(err)
		}
		if state.Bytes < limit {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("the journal has %d bytes, want less than %d", state.Bytes, limit)
		}
		<-time.After(5 * time.Millisecond)
	}
	if n := testutil.ToFloat64(c.o.Metrics.trimmed); n == 0 {
		t.Error("nothing was counted as removed")
	}
	stop()

	l.mu.Lock()
	l.loose = true
	l.mu.Unlock()
	const all = alerts + 2*more
	_, stop, _ = lead(t, conn, l.URL, limit)
	for i := range all {
		s.tell(t, resolvedKind, name(i))
	}
	s.tell(t, resolvedKind, "stuck")
	l.await(t, all+1, "resolved")
	stop()
	for name, told := range l.heard() {
		if told != "firingresolved" && (name != "stuck" || told != "resolved") {
			t.Errorf("%s was told as %s", name, told)
		}
	}
	if len(l.stuck) != 1 {
		t.Errorf("what could not be told had %d bodies, want one", len(l.stuck))
	}
}

// TestNothingIsRemovedThatASnapshotLacks fills the journal beyond its limit.
func TestNothingIsRemovedThatASnapshotLacks(t *testing.T) {
	conn := servertest.NATS(t).Conn(t)
	c := loaded(t, conn, "http://127.0.0.1:1", func(o *Options) { o.MaxJournalBytes = 1 << 20 })
	c.core.GoLive(time.Now())
	c.apply(time.Now(), firing(1, "a"))
	c.act()
	helping, dismiss := context.WithTimeout(t.Context(), patience)
	defer dismiss()
	go func() { _ = c.writer.Run(helping) }()
	if err := c.settle(helping); err != nil { // the intent is stored
		t.Fatal(err)
	}
	last := uint64(0)
	for range 12 { // under a subject that is no shard's
		seq, err := conn.PublishExpecting(helping, "tocsin.delivery.filling", last, make([]byte, 100<<10))
		if err != nil {
			t.Fatal(err)
		}
		last = seq
	}
	first := func() uint64 {
		t.Helper()
		state, err := conn.StreamState(helping, bus.DeliveriesStream)
		if err != nil {
			t.Fatal(err)
		}
		return state.FirstSeq
	}
	trim := func() bool {
		t.Helper()
		ok, err := c.trim(helping)
		if err != nil {
			t.Fatal(err)
		}
		return ok
	}
	for snapshots := range 2 {
		if ok := trim(); ok || first() != 1 {
			t.Errorf("with %d snapshots: %t, and the journal begins at %d", snapshots, ok, first())
		}
		if err := c.save(helping); err != nil {
			t.Fatal(err)
		}
	}
	c.deliveriesState.Created = c.deliveriesState.Created.Add(-1)
	if ok := trim(); !ok || first() != 1 {
		t.Errorf("of a stream that the snapshots do not know: %t, and it begins at %d", ok, first())
	}
	c.deliveriesState.Created = c.deliveriesState.Created.Add(1)
	for trim() {
	}
	const intent = delivery.Shards + 1
	if c.saved.Covered() != intent || first() != intent {
		t.Errorf("the snapshots hold what is up to %d, and the journal begins at %d, want %d", c.saved.Covered(), first(), intent)
	}
	if n := testutil.ToFloat64(c.o.Metrics.trimBlocked); n != 3 {
		t.Errorf("it was counted %v times that nothing could be removed, want 3", n)
	}
	if n := testutil.ToFloat64(c.o.Metrics.trimmed); n != intent-1 {
		t.Errorf("%v messages were counted as removed, want %d", n, intent-1)
	}
}

const (
	firingKind   = alertv1.TransitionKind_TRANSITION_KIND_FIRING
	resolvedKind = alertv1.TransitionKind_TRANSITION_KIND_RESOLVED
)

// story stores transitions of alerts of 8 KiB in ALERTS.
type story struct {
	conn *bus.Conn
	seq  uint64
}

func (s *story) tell(t *testing.T, kind alertv1.TransitionKind, id string) {
	t.Helper()
	s.seq++
	a := &alertv1.Alert{
		Id: id, Labels: map[string]string{"alertname": id}, FiredAt: timestamppb.Now(),
		Annotations: map[string]string{"description": strings.Repeat("x", 8<<10)},
	}
	if kind == resolvedKind {
		a.ResolvedAt = timestamppb.Now()
	}
	data, err := proto.Marshal(&alertv1.TransitionBatch{Transitions: []*alertv1.Transition{{
		Id: fmt.Sprint(id, kind), Kind: kind, Cause: &alertv1.Cause{LogId: "log", Sequence: s.seq}, Alert: a,
	}}})
	if err == nil {
		_, err = s.conn.Publish(t.Context(), bus.Message{Subject: "tocsin.alert.7", Data: data})
	}
	if err != nil {
		t.Fatal(err)
	}
}
