package fault

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/tocsin-dev/tocsin/internal/bus"
	"github.com/tocsin-dev/tocsin/internal/event"
	"github.com/tocsin-dev/tocsin/internal/rpc"
	alertv1 "github.com/tocsin-dev/tocsin/proto/gen/tocsin/alert/v1"
	eventv1 "github.com/tocsin-dev/tocsin/proto/gen/tocsin/event/v1"
	queryv1 "github.com/tocsin-dev/tocsin/proto/gen/tocsin/query/v1"
	"github.com/tocsin-dev/tocsin/test/fault/model"
	"github.com/tocsin-dev/tocsin/test/fault/plan"
	"github.com/tocsin-dev/tocsin/test/fault/wire"
	"github.com/tocsin-dev/tocsin/test/internal/ledger"
)

// incident is what ALERTS holds of an alert.
type incident struct {
	*alertv1.Alert
	over bool
}

// incidents returns what ALERTS holds of each alert, by its id.
func (b *books) incidents() map[string]incident {
	all := map[string]incident{}
	for _, tr := range b.told {
		all[tr.GetAlert().GetId()] = incident{tr.GetAlert(), tr.GetKind() == alertv1.TransitionKind_TRANSITION_KIND_RESOLVED}
	}
	return all
}

// open returns what fires by ALERTS: the id of each alert.
func (b *books) open() map[model.Key]string {
	all := map[model.Key]string{}
	for _, tr := range b.told {
		k, id := keyOf(tr.GetAlert()), tr.GetAlert().GetId()
		switch {
		case tr.GetKind() != alertv1.TransitionKind_TRANSITION_KIND_RESOLVED:
			all[k] = id
		case all[k] == id:
			delete(all, k)
		}
	}
	return all
}

// lookLimit bounds one look at all accounts.
const lookLimit = 30 * time.Second

// look compares all accounts. What is missing may still come; what is wrong stays
// so.
func (r *run) look(ctx context.Context) (missing, wrong []string) {
	ctx, cancel := context.WithTimeout(ctx, lookLimit)
	defer cancel()
	// First what was received, then what it must come from.
	received := map[string][]ledger.Entry{}
	for name, l := range r.stack.Ledgers {
		received[name] = l.All()
	}
	if err := r.books.read(ctx); err != nil {
		if ctx.Err() == nil {
			return nil, []string{"the streams cannot be read: " + err.Error()}
		}
		return []string{err.Error()}, nil
	}
	missing, wrong = r.books.differences(r.exempt, r.plan.Lossy())
	for _, name := range plan.Receivers {
		if r.plan.Loses(bus.AlertsStream) {
			missing = append(missing, compareLeft(name, r.books.incidents(), received[name])...)
			continue
		}
		lacks, invented := compare(name, r.books.incidents(), received[name])
		missing, wrong = append(missing, lacks...), append(wrong, invented...)
	}
	missing = append(missing, r.ending()...)
	for _, name := range []string{plan.Alerter1, plan.Alerter2} {
		missing = append(missing, r.active(ctx, name, received)...)
	}
	if !r.plan.Lossy() {
		missing = append(missing, r.jobs()...)
	}
	slices.Sort(missing)
	slices.Sort(wrong)
	return missing, wrong
}

// compare compares what a receiver was told with what ALERTS holds.
func compare(receiver string, incidents map[string]incident, entries []ledger.Entry) (missing, wrong []string) {
	byName := map[string]incident{}
	for id, in := range incidents {
		if receiver == plan.Grouped {
			id = ledger.Incident(in.GetFingerprint(), in.GetFiredAt().AsTime())
		}
		byName[id] = in
	}
	last := map[string]ledger.Alert{}
	for id, states := range ledger.Told(entries) {
		for _, a := range states {
			if a.Sequence >= last[id].Sequence {
				last[id] = a
			}
		}
	}
	for id, in := range byName {
		want := "firing"
		if in.over {
			want = "resolved"
		}
		if got, told := last[id]; !told || got.Status != want {
			missing = append(missing, fmt.Sprintf("%s was not told that %s (%v) is %s; told last: %q", receiver, id, keyOf(in.Alert), want, got.Status))
		}
	}
	for _, e := range entries {
		for _, a := range e.Alerts {
			if _, known := byName[a.ID]; !known {
				wrong = append(wrong, fmt.Sprintf("%s was told of an invented alert: %s %v", receiver, a.ID, a.Labels))
			}
		}
	}
	return missing, wrong
}

// compareLeft is compare where a part of ALERTS and of what is known of deliveries
// was lost. What a receiver was told that lay only there, nobody knows: it may
// have been told of the end of an alert that goes on, and is not told that again;
// and of alerts that nobody knows any more it is not told the end. All else holds,
// by the labels of alerts and in the order in which they were told.
func compareLeft(receiver string, incidents map[string]incident, entries []ledger.Entry) (missing []string) {
	open := map[model.Key]string{}
	known := map[string]bool{}
	for id, in := range incidents {
		if receiver == plan.Grouped {
			id = ledger.Incident(in.GetFingerprint(), in.GetFiredAt().AsTime())
		}
		known[id] = true
		if !in.over {
			open[keyOf(in.Alert)] = id
		}
	}
	last := map[model.Key]ledger.Alert{}
	ended := map[string]bool{} // by id
	for _, e := range entries {
		for _, a := range e.Alerts {
			if e.Told {
				last[model.Key{Rule: a.Labels["alertname"], Endpoint: a.Labels["endpoint_id"]}] = a
				ended[a.ID] = ended[a.ID] || a.Status == "resolved"
			}
		}
	}
	for k, id := range open {
		if last[k].Status != "firing" && !ended[id] {
			missing = append(missing, fmt.Sprintf("%s was not told that %v fires as %s; told last: %q of %s", receiver, k, id, last[k].Status, last[k].ID))
		}
	}
	for k, a := range last {
		if open[k] == "" && a.Status == "firing" && known[a.ID] {
			missing = append(missing, fmt.Sprintf("%s was not told that %v, told as %s, is over", receiver, k, a.ID))
		}
	}
	return missing
}

// ending compares what fires by the model with how the account is in the end.
func (r *run) ending() (missing []string) {
	firing := r.books.model.Firing()
	check := func(rule, endpoint string, want bool) {
		if k := (model.Key{Rule: rule, Endpoint: endpoint}); firing[k] != want {
			missing = append(missing, fmt.Sprintf("in the end %v of %s must fire: %v", rule, endpoint, want))
		}
	}
	for endpoint, jobs := range r.held {
		check("Waiting", endpoint, jobs > model.Above)
		check("Overdue", endpoint, jobs > model.Above)
		if jobs == 0 || jobs > model.Above { // in between it depends on what was
			check("Latched", endpoint, jobs > 0)
		}
	}
	return missing
}

// active compares what an alerter says fires with what does by the model and by
// ALERTS. Where ALERTS was lost, the notifier still knows what receivers were told:
// an alert that they were told of goes on as the one that it was, one of which they
// were told the end is over, and nobody is told again.
func (r *run) active(ctx context.Context, alerter string, received map[string][]ledger.Entry) (missing []string) {
	conn, err := rpc.Dial(r.stack.Dial(alerter), rpc.DialOptions{})
	if err != nil {
		return []string{err.Error()}
	}
	defer func() { _ = conn.Close() }()
	answer, err := queryv1.NewQueryServiceClient(conn).ListAlerts(ctx, &queryv1.ListAlertsRequest{
		PageSize: 1000, States: []alertv1.AlertState{alertv1.AlertState_ALERT_STATE_FIRING},
	})
	if err != nil {
		return []string{fmt.Sprintf("%s does not say what fires: %v", alerter, err)}
	}
	got := map[model.Key]string{}
	for _, a := range answer.GetAlerts() {
		got[keyOf(a)] = a.GetId()
	}
	want, firing := r.books.open(), r.books.model.Firing()
	left := r.plan.Loses(bus.AlertsStream)
	for k, id := range want {
		over := left && lastWord(received, k, "resolved")
		if !firing[k] && !over {
			missing = append(missing, fmt.Sprintf("%s of %v is not over in ALERTS", id, k))
		}
	}
	for k := range firing {
		if left && got[k] != "" && r.exempt == math.MaxUint64 && lastWord(received, k, "firing") {
			continue
		}
		if got[k] == "" || got[k] != want[k] {
			missing = append(missing, fmt.Sprintf("%s says of %v, which fires as %q: %q", alerter, k, want[k], got[k]))
		}
	}
	for k, id := range got {
		if !firing[k] {
			missing = append(missing, fmt.Sprintf("%s says that %v fires as %s, and it does not", alerter, k, id))
		}
	}
	return missing
}

// lastWord tells whether the last that each receiver was told of an alert is this.
func lastWord(received map[string][]ledger.Entry, k model.Key, status string) bool {
	for _, entries := range received {
		last := ""
		for _, e := range entries {
			for _, a := range e.Alerts {
				if e.Told && k == (model.Key{Rule: a.Labels["alertname"], Endpoint: a.Labels["endpoint_id"]}) {
					last = a.Status
				}
			}
		}
		if last != status {
			return false
		}
	}
	return true
}

// jobs looks for the facts of the jobs that were acknowledged, and of those that
// were not registered but told by RunPod.
func (r *run) jobs() (missing []string) {
	registered, ended := map[string]int{}, map[string]int{}
	for _, f := range r.books.facts {
		if j := f.Event.GetJobRegistered(); j != nil {
			registered[j.GetJobId()]++
		}
		if j := f.Event.GetJobTransitioned(); j.GetState() == eventv1.JobState_JOB_STATE_COMPLETED {
			ended[j.GetJobId()]++
		}
	}
	acked := r.client.acked()
	if len(acked) < len(r.plan.Jobs) {
		missing = append(missing, fmt.Sprintf("%d of %d registrations are acknowledged", len(acked), len(r.plan.Jobs)))
	}
	for _, j := range acked {
		// One that is repeated after the end of the job was seen is another fact, of
		// another attempt; its id says so, and audit sees that no id is there twice.
		if n := registered[j.ID]; n < 1 || n > r.client.times(j.ID) {
			missing = append(missing, fmt.Sprintf("the acknowledged registration of %s, asked for %d times, is in EVENTS %d times", j.ID, r.client.times(j.ID), n))
		}
		if ended[j.ID] != 1 {
			missing = append(missing, fmt.Sprintf("the end of %s is in EVENTS %d times", j.ID, ended[j.ID]))
		}
	}
	return missing
}

// halfLost is what an alerter says of a state in Redis that lost a part. It would
// be loaded from a snapshot, and nothing else would tell.
const halfLost = "Redis lost a part of a state"

// audit checks what must hold of everything that came, when it has settled.
func (r *run) audit() (wrong []string) {
	wrong = append(wrong, r.wrong...)
	for _, name := range plan.Receivers {
		entries := r.stack.Ledgers[name].All()
		found := ledger.Repeats(entries)
		if after := entries[r.before[name]:]; !r.plan.Lossy() || r.before[name] > 0 {
			found = append(found, ledger.Order(after, !r.plan.Has(func(f plan.Fault) bool { return holdsUp(f, name) }))...)
			found = append(found, ledger.Names(after)...)
			if r.plan.Lossy() {
				_, invented := compare(name, r.books.incidents(), after)
				found = append(found, invented...)
			}
		}
		for _, w := range found {
			wrong = append(wrong, name+": "+w)
		}
	}
	wrong = append(wrong, r.acknowledged()...)
	for _, name := range []string{plan.Alerter1, plan.Alerter2} {
		if strings.Contains(r.stack.Printed(name), halfLost) {
			wrong = append(wrong, name+" found a state in Redis of which a part was gone; faults take all or nothing")
		}
	}
	names := map[string]uint64{}
	samples := map[string]fact{}
	for _, f := range r.books.facts {
		if id := f.Event.GetId(); id != "" {
			if first := names[id]; first != 0 {
				wrong = append(wrong, fmt.Sprintf("messages %d and %d of EVENTS are the same fact %s", first, f.Seq, id))
			}
			names[id] = f.Seq
		}
		if err := r.sample(f, samples); err != nil {
			wrong = append(wrong, fmt.Sprintf("message %d of EVENTS: %v", f.Seq, err))
		}
	}
	return wrong
}

// acknowledged compares what NATS said on the wire that it stores with what it
// holds.
func (r *run) acknowledged() (wrong []string) {
	ctx, cancel := context.WithTimeout(r.t.Context(), patience)
	defer cancel()
	acked := r.stack.Wire.Acknowledged()
	if len(acked) == 0 {
		return []string{"nobody was heard to publish anything"}
	}
	if err := r.books.read(ctx); err != nil {
		return []string{"the streams cannot be read again: " + err.Error()}
	}
	return wire.Compare(acked, r.books.stored, r.stack.Wire.Published())
}

// holdsUp tells the faults that can hold up a request to a receiver until after a
// later one.
func holdsUp(f plan.Fault, receiver string) bool {
	switch f.Kind {
	case plan.Pause:
		return f.Who == plan.Notifier1 || f.Who == plan.Notifier2
	case plan.Stall:
		return f.Who == plan.To(plan.Notifiers, receiver)
	}
	return false
}

// sample checks that a sample says what RunPod answered, and that one which is
// there again says the same.
func (r *run) sample(f fact, seen map[string]fact) error {
	s := f.Event.GetHealthSampled()
	if s == nil {
		return nil
	}
	endpoint := f.Event.GetTarget().GetId()
	level, given := r.stack.Account.Given(endpoint, s.GetJobs().GetCompleted())
	if !given || level != s.GetJobs().GetInQueue() {
		return fmt.Errorf("%s never answered %v", endpoint, s.GetJobs())
	}
	key := fmt.Sprint(event.Token(f.Event.GetTarget()), " ", s.GetJobs().GetCompleted())
	if first, again := seen[key]; again && !proto.Equal(first.Event.GetHealthSampled(), s) {
		return errors.New("an answer became two samples")
	}
	seen[key] = f
	return nil
}
