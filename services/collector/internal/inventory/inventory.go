// Package inventory decides from successful lists of RunPod which targets an
// account has. A target is discovered once, however often the collector starts;
// it is removed only after three lists without it and an answer of RunPod that
// it does not exist; and when a large part of an account vanishes at once,
// nothing is removed, because a broken list is likelier than that.
//
// It is pure: it reads no clock, and asks nobody. It is not safe for concurrent
// use.
package inventory

import (
	"cmp"
	"maps"
	"slices"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/tocsin-dev/tocsin/internal/event"
	eventv1 "github.com/tocsin-dev/tocsin/proto/gen/tocsin/event/v1"
)

const (
	// missesToRemove is the number of successful lists in a row that must lack
	// a target.
	missesToRemove = 3
	// shrinkShare is the part of all targets, one in so many, above which a
	// loss is doubted: 20 %.
	shrinkShare = 5
	// shrinkLeast is the number of targets below which no loss is doubted; a
	// person who deletes two of three pods is no incident.
	shrinkLeast = 3
	// Patience is how long targets are kept after a loss that is doubted. Then a
	// person had a day to look, and RunPod is asked about each of them.
	Patience = 24 * time.Hour
	// Retell is the time after which an unchanged target is told again as
	// changed. The event log keeps 7 days: two chances before it forgets.
	Retell = 3 * 24 * time.Hour
	// removedMemory is how long a removal is remembered. It exceeds the 40
	// minutes for which the bus drops a second discovery as a duplicate.
	removedMemory = time.Hour
)

// Key names a target within its account.
type Key struct {
	Kind eventv1.TargetKind
	ID   string
}

// Target is what is known of a target.
type Target struct {
	Key
	// Name is RunPod's name as last seen.
	Name string
	// Spec are its settings as last seen, never nil.
	Spec *eventv1.TargetSpec
}

// Polled reports whether the target gives samples: queue endpoints and pods do.
func (t Target) Polled() bool {
	if t.Kind != eventv1.TargetKind_TARGET_KIND_ENDPOINT {
		return true
	}
	return t.Spec.GetEndpoint().GetType() == eventv1.EndpointType_ENDPOINT_TYPE_QUEUE
}

type entry struct {
	Target
	last        string    // id of the last event about it
	misses      int       // successful lists in a row without it
	missedSince time.Time // when the first of them was read
	told        time.Time // when the log was last told of it
}

type removal struct {
	id   string
	at   time.Time
	gone *entry // nil for what the log told
}

// Inventory is the set of targets of one account.
//
// It remembers the ids of removals, because the id of a discovery names what
// went before it: a target that comes back is news.
type Inventory struct {
	account string
	most    int
	targets map[Key]*entry
	removed map[Key]removal
	heard   map[eventv1.TargetKind]bool // kinds that were listed since the start
	shrunk  bool                        // a doubted loss was told and is not over
}

// New returns the inventory of an account of which nothing is known. It takes in
// no target beyond most; what the log knows is kept nevertheless, so that a bound
// that is lowered loses nobody.
func New(account string, most int) *Inventory {
	return &Inventory{
		account: account,
		most:    most,
		targets: map[Key]*entry{},
		removed: map[Key]removal{},
		heard:   map[eventv1.TargetKind]bool{},
	}
}

// Replay takes an event of the log, at being when it was stored. Events of other
// accounts and kinds change nothing.
func (v *Inventory) Replay(e *eventv1.Event, at time.Time) {
	target := e.GetTarget()
	if target.GetAccount() != v.account {
		return
	}
	key := Key{Kind: target.GetKind(), ID: target.GetId()}
	var spec *eventv1.TargetSpec
	switch fact := e.GetFact().(type) {
	case *eventv1.Event_TargetDiscovered:
		spec = fact.TargetDiscovered.GetSpec()
	case *eventv1.Event_TargetChanged:
		spec = fact.TargetChanged.GetSpec()
	case *eventv1.Event_TargetRemoved:
		delete(v.targets, key)
		v.removed[key] = removal{id: e.GetId(), at: at}
		return
	case *eventv1.Event_InventoryShrunk:
		v.shrunk = !fact.InventoryShrunk.GetOver()
		return
	}
	if spec != nil {
		v.targets[key] = &entry{Target: Target{Key: key, Name: target.GetName(), Spec: spec}, last: e.GetId(), told: at}
		delete(v.removed, key)
	}
}

// Outcome is what a list, or an answer about one target, changed.
type Outcome struct {
	// Events are to be published in this order. They lack occurred_at.
	Events []*eventv1.Event
	// Added are the targets that are new or whose settings changed.
	Added []Target
	// Removed are the targets that are gone.
	Removed []Key
	// Refused is the number of targets that are listed and not taken in, because the
	// inventory is full.
	Refused int
	// Doubtful are targets of which RunPod is to be asked whether they exist,
	// those missed longest first; the answer goes to [Inventory.Answered].
	Doubtful []Key
}

// List takes a successful list of all targets of a kind, read at now. Its order
// of events is that of the list, then by id.
func (v *Inventory) List(kind eventv1.TargetKind, list []Seen, now time.Time) Outcome {
	var out Outcome
	v.heard[kind] = true
	maps.DeleteFunc(v.removed, func(_ Key, r removal) bool { return now.Sub(r.at) > removedMemory })
	listed := make(map[string]bool, len(list))
	for _, s := range list {
		listed[s.ID] = true
		v.see(&out, Key{Kind: kind, ID: s.ID}, s, now)
	}
	for key, e := range v.targets {
		if key.Kind != kind || listed[key.ID] {
			continue
		}
		if e.misses++; e.misses == 1 {
			e.missedSince = now
		}
	}
	v.weigh(&out)
	out.Doubtful = v.doubtful(kind, now)
	return out
}

// see takes one listed target.
func (v *Inventory) see(out *Outcome, key Key, s Seen, now time.Time) {
	old, known := v.targets[key]
	switch {
	case s.Spec == nil && !known: // nothing can be said of it
		return
	case !known && len(v.targets) >= v.most:
		out.Refused++
		return
	case s.Spec == nil:
		s.Name, s.Spec = old.Name, old.Spec
	}
	target := Target{Key: key, Name: s.Name, Spec: s.Spec}
	if !known {
		e := v.event(target)
		e.Id = event.DiscoveryID(e.Target, s.Spec, v.removed[key].id)
		v.targets[key] = &entry{Target: target, last: e.Id, told: now}
		e.Fact = &eventv1.Event_TargetDiscovered{TargetDiscovered: &eventv1.TargetDiscovered{Spec: s.Spec}}
		out.Events = append(out.Events, e)
		out.Added = append(out.Added, target)
		return
	}
	old.misses = 0
	changed := old.Name != s.Name || !proto.Equal(old.Spec, s.Spec)
	if !changed && now.Sub(old.told) < Retell {
		return
	}
	e := v.event(target)
	e.Id = event.ChangeID(e.Target, s.Spec, old.last)
	old.Target, old.last, old.told = target, e.Id, now
	e.Fact = &eventv1.Event_TargetChanged{TargetChanged: &eventv1.TargetChanged{Spec: s.Spec}}
	out.Events = append(out.Events, e)
	if changed {
		out.Added = append(out.Added, target)
	}
}

// weigh tells when too much is missing, and when that is over. It cannot be over
// before every kind was listed again after a start.
func (v *Inventory) weigh(out *Outcome) {
	known, missing, unheard := len(v.targets), 0, 0
	for _, e := range v.targets {
		switch {
		case e.misses > 0:
			missing++
		case !v.heard[e.Kind]:
			unheard++
		}
	}
	shrunk := missing >= shrinkLeast && missing*shrinkShare > known
	if shrunk == v.shrunk || !shrunk && unheard > 0 {
		return
	}
	v.shrunk = shrunk
	out.Events = append(out.Events, &eventv1.Event{
		Target: AccountTarget(v.account),
		Source: eventv1.Source_SOURCE_TOCSIN,
		Fact: &eventv1.Event_InventoryShrunk{InventoryShrunk: &eventv1.InventoryShrunk{
			Known: int64(known), Vanished: int64(missing), Over: !shrunk,
		}},
	})
}

// doubtful returns the targets of a kind that may be gone.
func (v *Inventory) doubtful(kind eventv1.TargetKind, now time.Time) []Key {
	var missing []*entry
	for _, e := range v.targets {
		if e.Kind == kind && e.misses >= missesToRemove && !v.doubted(e, now) {
			missing = append(missing, e)
		}
	}
	slices.SortFunc(missing, func(a, b *entry) int {
		return cmp.Or(a.missedSince.Compare(b.missedSince), cmp.Compare(a.ID, b.ID))
	})
	var keys []Key
	for _, e := range missing {
		keys = append(keys, e.Key)
	}
	return keys
}

// doubted reports whether e is kept because too much vanished with it.
func (v *Inventory) doubted(e *entry, now time.Time) bool {
	return v.shrunk && now.Sub(e.missedSince) < Patience
}

// Untold takes back an event that could not be told, so that the next list tells
// it: what was found or changed is told as changed, what was gone is there until it
// is doubted again.
func (v *Inventory) Untold(e *eventv1.Event) {
	key := Key{Kind: e.GetTarget().GetKind(), ID: e.GetTarget().GetId()}
	known := v.targets[key]
	switch fact := e.GetFact().(type) {
	case *eventv1.Event_InventoryShrunk:
		v.shrunk = fact.InventoryShrunk.GetOver()
	case *eventv1.Event_TargetRemoved:
		if was := v.removed[key].gone; was != nil && known == nil {
			v.targets[key] = was
			delete(v.removed, key)
		}
	default:
		if known != nil {
			known.told = time.Time{}
		}
	}
}

// Answered takes RunPod's answer, read at now, about a doubtful target. One that
// exists after all is doubted again after three more lists without it.
func (v *Inventory) Answered(key Key, exists bool, now time.Time) Outcome {
	var out Outcome
	e, known := v.targets[key]
	switch {
	case !known || e.misses < missesToRemove: // listed again meanwhile
		return out
	case exists:
		e.misses = 0
	case v.doubted(e, now): // a large loss was seen since the question
		return out
	default:
		delete(v.targets, key)
		gone := v.event(e.Target)
		gone.Id = event.RemovalID(gone.Target, e.last)
		v.removed[key] = removal{id: gone.Id, at: now, gone: e}
		gone.Fact = &eventv1.Event_TargetRemoved{TargetRemoved: &eventv1.TargetRemoved{}}
		out.Events = append(out.Events, gone)
		out.Removed = append(out.Removed, key)
	}
	v.weigh(&out)
	return out
}

// Len returns the number of targets.
func (v *Inventory) Len() int { return len(v.targets) }

// Most returns the number of targets beyond which none is taken in.
func (v *Inventory) Most() int { return v.most }

// Target returns what is known of a target.
func (v *Inventory) Target(key Key) (Target, bool) {
	e, ok := v.targets[key]
	if !ok {
		return Target{}, false
	}
	return e.Target, true
}

// Targets returns all targets, by kind and id.
func (v *Inventory) Targets() []Target {
	all := make([]Target, 0, len(v.targets))
	for _, e := range v.targets {
		all = append(all, e.Target)
	}
	slices.SortFunc(all, func(a, b Target) int {
		return cmp.Or(cmp.Compare(a.Kind, b.Kind), cmp.Compare(a.ID, b.ID))
	})
	return all
}

// AccountTarget returns the target that facts about a whole account are about.
func AccountTarget(account string) *eventv1.Target {
	return &eventv1.Target{Account: account, Kind: eventv1.TargetKind_TARGET_KIND_ACCOUNT, Id: account, Name: account}
}

func (v *Inventory) event(t Target) *eventv1.Event {
	return &eventv1.Event{
		Target: &eventv1.Target{Account: v.account, Kind: t.Kind, Id: t.ID, Name: t.Name},
		Source: eventv1.Source_SOURCE_POLL,
	}
}
