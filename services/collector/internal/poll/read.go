package poll

import (
	"context"
	"fmt"
	"time"

	eventv1 "github.com/tocsin-dev/tocsin/proto/gen/tocsin/event/v1"
	"github.com/tocsin-dev/tocsin/services/collector/internal/inventory"
	"github.com/tocsin-dev/tocsin/services/collector/runpod"
)

const (
	endpointKind = eventv1.TargetKind_TARGET_KIND_ENDPOINT
	podKind      = eventv1.TargetKind_TARGET_KIND_POD
)

// maxDoubts bounds the targets of which RunPod is asked whether they exist after
// one list, so that a large loss does not eat the account's quota.
const maxDoubts = 20

// settle counts a poll and returns its failure, nil when it worked. A poll that
// was cut short by the end of the process counts as neither. Polls of one endpoint
// name it.
func (a *Account) settle(kind, endpoint string, began time.Time, err error) (failure *Failure, counted bool) {
	f, failed := FailureOf(err)
	if err != nil && !failed {
		return nil, false
	}
	a.opts.Metrics.Observe(kind, began, f, failed)
	a.opts.Log.Debug("polled", "kind", kind, "endpoint_id", endpoint, "took", time.Since(began), "err", err)
	if failed {
		a.round.Failed(f)
		return &f, true
	}
	a.round.OK()
	return nil, true
}

// pollHealth reads one endpoint's health.
func (a *Account) pollHealth(ctx context.Context, id string, slot time.Time) *Failure {
	a.mu.Lock()
	target, known := a.inventory.Target(inventory.Key{Kind: endpointKind, ID: id})
	endpoint := runpod.Endpoint{ID: id, Type: runpod.Queue, HealthURL: a.listed[id]}
	a.mu.Unlock()
	if !known || !target.Polled() {
		return nil
	}
	began := time.Now()
	health, err := a.opts.API.Health(ctx, endpoint)
	read := time.Now()
	failure, counted := a.settle("health", id, began, err)
	if !counted {
		return nil
	}
	about := a.about(target)
	e := healthSampled(about, health, slot, a.opts.Health)
	if failure != nil {
		e = failure.Event(about, eventv1.PollKind_POLL_KIND_HEALTH, slot)
	}
	a.tell(id, failure, e, read)
	return failure
}

// tell publishes what a poll of an endpoint gave, unless the endpoint was removed
// while it was asked: nothing may follow its removal.
func (a *Account) tell(id string, failure *Failure, e *eventv1.Event, read time.Time) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if _, known := a.inventory.Target(inventory.Key{Kind: endpointKind, ID: id}); !known {
		return
	}
	a.note(id, failure)
	a.opts.Publish(e, read)
}

// pollEndpoints reads the list of endpoints.
func (a *Account) pollEndpoints(ctx context.Context, slot time.Time) *Failure {
	began := time.Now()
	list, err := a.opts.API.Endpoints(ctx)
	read := time.Now()
	failure, counted := a.settle("endpoints", "", began, err)
	if !counted {
		return nil
	}
	if failure != nil {
		a.listFailed(failure, eventv1.PollKind_POLL_KIND_ENDPOINTS, slot, read)
		return failure
	}
	seen := seenOf(list, inventory.FromEndpoint)
	a.mu.Lock()
	out := a.inventory.List(endpointKind, seen, read)
	for _, e := range list.Items {
		if _, watched := a.inventory.Target(inventory.Key{Kind: endpointKind, ID: e.ID}); watched {
			a.listed[e.ID] = e.HealthURL
		}
	}
	a.mu.Unlock()
	a.apply(out, read)
	a.unreadable(eventv1.PollKind_POLL_KIND_ENDPOINTS, list.Unreadable, len(seen), slot, read)
	a.refused(eventv1.PollKind_POLL_KIND_ENDPOINTS, out.Refused, len(seen), slot, read)
	a.ask(ctx, out.Doubtful)
	return nil
}

// pollPods reads the list of pods, which holds a sample of each.
func (a *Account) pollPods(ctx context.Context, slot time.Time) *Failure {
	began := time.Now()
	list, err := a.opts.API.Pods(ctx)
	read := time.Now()
	failure, counted := a.settle("pods", "", began, err)
	if !counted {
		return nil
	}
	a.mu.Lock()
	a.podsFail = failure != nil
	a.mu.Unlock()
	if failure != nil {
		a.listFailed(failure, eventv1.PollKind_POLL_KIND_PODS, slot, read)
		return failure
	}
	seen := seenOf(list, inventory.FromPod)
	unread := make(map[string]bool, len(list.Unreadable))
	for _, u := range list.Unreadable {
		unread[u.ID] = true
	}
	a.mu.Lock()
	a.unread = unread
	out := a.inventory.List(podKind, seen, read)
	a.mu.Unlock()
	a.apply(out, read)
	a.unreadable(eventv1.PollKind_POLL_KIND_PODS, list.Unreadable, len(seen), slot, read)
	a.refused(eventv1.PollKind_POLL_KIND_PODS, out.Refused, len(seen), slot, read)
	for i, p := range list.Items {
		if _, watched := a.Target(inventory.Key{Kind: podKind, ID: p.ID}); !watched {
			continue
		}
		about := &eventv1.Target{Account: a.opts.Account, Kind: podKind, Id: p.ID, Name: seen[i].Name}
		a.opts.Publish(gpuSampled(about, p, slot, a.opts.Pods), read)
	}
	a.ask(ctx, out.Doubtful)
	return nil
}

// seenOf returns a list as the inventory takes it, first what could be read.
func seenOf[T any](list runpod.List[T], from func(T) inventory.Seen) []inventory.Seen {
	seen := make([]inventory.Seen, 0, len(list.Items)+len(list.Unreadable))
	for _, item := range list.Items {
		seen = append(seen, from(item))
	}
	for _, u := range list.Unreadable {
		seen = append(seen, inventory.Seen{ID: u.ID})
	}
	return seen
}

// unreadable tells of the entries of a list that could not be read, as a failure
// about the account: the list as a whole worked.
func (a *Account) unreadable(kind eventv1.PollKind, entries []runpod.Unreadable, of int, slot, read time.Time) {
	if len(entries) == 0 {
		return
	}
	a.opts.Metrics.unreadable.WithLabelValues(nameOf(kind)).Add(float64(len(entries)))
	err := &runpod.Error{
		Op: "list " + nameOf(kind), Kind: runpod.Malformed, Status: 200,
		Detail: fmt.Sprintf("%d of %d cannot be read and stay as they were known: %s", len(entries), of, entries[0].Detail),
	}
	if f, failed := FailureOf(err); failed {
		a.listFailed(&f, kind, slot, read)
	}
}

// refused tells of targets that are listed and not watched, because as many are
// watched as are allowed.
func (a *Account) refused(kind eventv1.PollKind, n, of int, slot, read time.Time) {
	if n == 0 {
		return
	}
	a.opts.Metrics.refused.WithLabelValues(nameOf(kind)).Add(float64(n))
	err := &runpod.Error{
		Op: "list " + nameOf(kind), Kind: runpod.TooLarge, Status: 200,
		Detail: fmt.Sprintf("%d of %d are not watched: %d targets are, which is collector.max_targets; raise it and start the collector anew", n, of, a.inventory.Most()),
	}
	if f, failed := FailureOf(err); failed {
		a.listFailed(&f, kind, slot, read)
	}
}

// nameOf returns the name of a list in metrics and sentences.
func nameOf(kind eventv1.PollKind) string {
	if kind == eventv1.PollKind_POLL_KIND_PODS {
		return "pods"
	}
	return "endpoints"
}

// listFailed publishes the failure of a list, which is about the account.
func (a *Account) listFailed(f *Failure, kind eventv1.PollKind, slot, read time.Time) {
	a.opts.Log.Warn("list not read", "kind", kind.String(), "reason", f.Name, "status", f.Status, "detail", f.Detail)
	a.opts.Publish(f.Event(inventory.AccountTarget(a.opts.Account), kind, slot), read)
}

// Publish publishes what others found out about a target, such as the ends of its
// jobs, unless it was removed meanwhile. It returns false when there is no room.
func (a *Account) Publish(e *eventv1.Event, read time.Time) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	if _, known := a.inventory.Target(inventory.Key{Kind: e.GetTarget().GetKind(), ID: e.GetTarget().GetId()}); !known {
		return true // nothing may follow its removal
	}
	return a.opts.Publish(e, read)
}

// ask asks RunPod of each doubtful target whether it exists. An answer but yes and
// no leaves that target for the next list; one that is not about it leaves the rest
// as well.
func (a *Account) ask(ctx context.Context, doubtful []inventory.Key) {
	for _, key := range doubtful[:min(len(doubtful), maxDoubts)] {
		began := time.Now()
		err := a.exists(ctx, key)
		f, failed := FailureOf(err)
		if err != nil && !failed {
			return
		}
		a.opts.Metrics.Observe("check", began, f, failed)
		switch {
		case failed && f.General():
			return
		case failed && !f.Gone():
			continue
		}
		read := time.Now()
		a.mu.Lock()
		out := a.inventory.Answered(key, !failed, read)
		a.mu.Unlock()
		a.apply(out, read)
	}
}

func (a *Account) exists(ctx context.Context, key inventory.Key) error {
	if key.Kind == podKind {
		_, err := a.opts.API.Pod(ctx, key.ID)
		return err
	}
	_, err := a.opts.API.Endpoint(ctx, key.ID)
	return err
}

// apply publishes what the inventory decided and begins and ends schedules.
func (a *Account) apply(out inventory.Outcome, read time.Time) {
	for _, e := range out.Events {
		if !a.opts.Publish(e, read) {
			a.untold(&out, e)
		}
		if shrunk := e.GetInventoryShrunk(); shrunk != nil {
			a.opts.Log.Warn("inventory shrunk", "known", shrunk.GetKnown(), "vanished", shrunk.GetVanished(), "over", shrunk.GetOver())
		}
	}
	for _, target := range out.Added {
		a.schedule(target)
		a.opts.Changed(target)
	}
	for _, key := range out.Removed {
		a.forget(key)
		a.opts.Removed(key)
	}
	if len(out.Added)+len(out.Removed) > 0 {
		a.opts.Log.Info("inventory changed", "changed", len(out.Added), "removed", len(out.Removed))
	}
}

// untold takes back what found no room on its way to the log.
func (a *Account) untold(out *inventory.Outcome, e *eventv1.Event) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.inventory.Untold(e)
	if e.GetTargetRemoved() != nil {
		out.Removed = nil // an answer about a target removes that one alone
	}
}

func (a *Account) forget(key inventory.Key) {
	if key.Kind != endpointKind {
		return
	}
	schedule := endpointPrefix + key.ID
	a.queue.Remove(schedule)
	a.mu.Lock()
	defer a.mu.Unlock()
	delete(a.listed, key.ID)
	delete(a.health, key.ID)
	delete(a.failures, schedule)
	delete(a.wishes, schedule)
}

func (a *Account) about(t inventory.Target) *eventv1.Target {
	return &eventv1.Target{Account: a.opts.Account, Kind: t.Kind, Id: t.ID, Name: t.Name}
}
