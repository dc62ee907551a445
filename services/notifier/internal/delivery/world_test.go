package delivery

import (
	"encoding/json"
	"fmt"
	"testing"
	"time"

	"github.com/prometheus/alertmanager/config"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	alertv1 "github.com/tocsin-dev/tocsin/proto/gen/tocsin/alert/v1"
	deliveryv1 "github.com/tocsin-dev/tocsin/proto/gen/tocsin/delivery/v1"
	"github.com/tocsin-dev/tocsin/services/notifier/internal/route"
)

// world is what survives a crash of the core: the streams, the snapshot, the
// clock and what receivers heard.
type world struct {
	t       *testing.T
	conf    *config.Config
	ways    map[string][]route.Integration
	hold    time.Duration
	now     time.Time
	core    *Core
	alerts  []AlertMessage
	causes  uint64 // the last sequence in the log of events
	journal [Shards][]*deliveryv1.Batch
	saved   *deliveryv1.Snapshot

	unjournaled []ShardRecord // made by the core and not stored yet
	running     []Attempt
	superseded  int
	cut         int
	left        []Departure
	rebase      bool // the next start finds another stream of alerts
}

// said is what the test's bodies hold.
type said struct {
	ID       string
	Reason   string
	Sequence uint64
	Alerts   map[string]string // by alert id
	Of       map[string]uint64 // sequences, by alert id
	Order    []string
	More     int
}

func render(n Notice) Body {
	s := said{ID: n.ID, Reason: n.Reason, Sequence: n.Sequence, Alerts: map[string]string{}, Of: map[string]uint64{}, More: n.Truncated}
	for _, a := range n.Alerts {
		state := "resolved"
		if a.Firing {
			state = "firing"
		}
		s.Alerts[a.Alert.GetId()], s.Of[a.Alert.GetId()] = state, a.Sequence
		s.Order = append(s.Order, a.Alert.GetId())
	}
	b, err := json.Marshal(s)
	if err != nil {
		panic(err)
	}
	return Body{ContentType: "application/json", Bytes: b}
}

func read(t *testing.T, a Attempt) said {
	t.Helper()
	var s said
	if err := json.Unmarshal(a.Body.Bytes, &s); err != nil {
		t.Fatal(err)
	}
	return s
}

var both = map[string][]route.Integration{"ops": {{Name: "webhook/0", SendResolved: true}}}

func newWorld(t *testing.T, text string, ways map[string][]route.Integration) *world {
	t.Helper()
	conf, err := config.Load(text)
	if err != nil {
		t.Fatal(err)
	}
	w := &world{t: t, conf: conf, ways: ways, now: time.Date(2026, 11, 1, 8, 0, 0, 0, time.UTC)}
	w.start()
	return w
}

// start makes a new core from what survived, as a process does that begins.
func (w *world) start() {
	w.t.Helper()
	w.core = New(Options{
		Table:     route.NewTable(w.conf.Route, w.ways),
		Inhibitor: route.NewInhibitor(w.conf.InhibitRules),
		Render:    render, ConfigHash: "test", Start: w.now, Hold: w.hold,
	})
	w.unjournaled, w.running = nil, nil
	if w.saved != nil {
		if err := w.core.Restore(proto.CloneOf(w.saved)); err != nil {
			w.t.Fatal(err)
		}
	}
	for shard, batches := range w.journal {
		for i, b := range batches {
			w.core.ApplyJournal(shard, uint64(i+1), proto.CloneOf(b).GetRecords())
		}
	}
	if w.rebase {
		w.core.Rebase(w.core.AlertsStored())
		w.rebase = false
	}
	for _, m := range w.alerts {
		if m.Seq > w.core.AlertsSequence() {
			w.core.ApplyAlerts(w.now, m)
		}
	}
	w.left = w.core.GoLive(w.now)
	if w.saved == nil {
		w.save()
	}
}

func (w *world) save() { w.saved = proto.CloneOf(w.core.Snapshot(w.now)) }

// change stores a transition and hands it to the core.
func (w *world) change(id string, kind alertv1.TransitionKind, labels map[string]string) {
	a := &alertv1.Alert{Id: id, Labels: labels, FiredAt: timestamppb.New(w.now)}
	if kind == alertv1.TransitionKind_TRANSITION_KIND_RESOLVED {
		a.ResolvedAt = timestamppb.New(w.now)
	}
	m := AlertMessage{
		Seq: uint64(len(w.alerts) + 1), Stored: w.now,
		Transitions: []*alertv1.Transition{{
			Id: fmt.Sprint(id, kind), Kind: kind, At: timestamppb.New(w.now), Alert: a,
			Cause: &alertv1.Cause{LogId: "log", Sequence: w.caused()},
		}},
	}
	w.alerts = append(w.alerts, m)
	w.core.ApplyAlerts(w.now, m)
}

// caused returns the sequence of the next cause.
func (w *world) caused() uint64 {
	w.causes++
	return w.causes
}

func (w *world) fire(id string, labels map[string]string) {
	w.change(id, alertv1.TransitionKind_TRANSITION_KIND_FIRING, labels)
}

func (w *world) resolve(id string, labels map[string]string) {
	w.change(id, alertv1.TransitionKind_TRANSITION_KIND_RESOLVED, labels)
}

// step lets the core act at the present instant, without storing its records.
func (w *world) step() {
	out := w.core.Step(w.now)
	w.unjournaled = append(w.unjournaled, out.Records...)
	w.running = append(w.running, out.Attempts...)
	w.superseded += len(out.Superseded)
	w.cut += len(out.Cut)
}

// store journals everything that waits, one message per shard.
func (w *world) store() {
	byShard := map[int]*deliveryv1.Batch{}
	for _, r := range w.unjournaled {
		if byShard[r.Shard] == nil {
			byShard[r.Shard] = &deliveryv1.Batch{}
		}
		byShard[r.Shard].Records = append(byShard[r.Shard].Records, r.Record)
	}
	w.unjournaled = nil
	for shard, b := range byShard {
		w.journal[shard] = append(w.journal[shard], proto.CloneOf(b))
		w.core.Journaled(shard, uint64(len(w.journal[shard])), b.GetRecords())
	}
}

// settle lets the core act and its records be stored until it waits for time or
// for attempts to end.
func (w *world) settle() {
	w.step()
	for len(w.unjournaled) > 0 {
		w.store()
		w.step()
	}
}

// wait moves the clock and settles at every deadline on the way.
func (w *world) wait(d time.Duration) {
	end := w.now.Add(d)
	for {
		at, ok := w.core.Deadline()
		if !ok || at.After(end) {
			break
		}
		w.now = later(w.now, at)
		w.settle()
	}
	w.now = end
	w.settle()
}

// attempt settles and returns the one attempt that must be running.
func (w *world) attempt() (Attempt, said) {
	w.t.Helper()
	w.settle()
	if len(w.running) != 1 {
		w.t.Fatalf("%d attempts run, want 1: %+v", len(w.running), w.running)
	}
	a := w.running[0]
	return a, read(w.t, a)
}

// finish ends the one attempt that must be running, and settles.
func (w *world) finish(o Outcome) (Attempt, said) {
	w.t.Helper()
	a, s := w.attempt()
	w.running = nil
	w.core.Finished(a, o, w.now)
	w.settle()
	return a, s
}

// silent checks that nothing is sent for d.
func (w *world) silent(d time.Duration) {
	w.t.Helper()
	w.wait(d)
	if len(w.running) != 0 {
		w.t.Fatalf("an attempt runs, want none: %s", w.running[0].Body.Bytes)
	}
}

var (
	told   = Outcome{Told: true, Status: 200}
	failed = Outcome{Status: 500, Error: "500 Internal Server Error"}
)

// The routes of most tests: one group per alert, told at once.
const single = `
route: {receiver: ops, group_by: ['...'], group_wait: 0s, group_interval: 1s, repeat_interval: 4h}
receivers: [{name: ops}]
`

func name(n string) map[string]string { return map[string]string{"alertname": n} }
