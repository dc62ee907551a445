package engine

import (
	"time"

	"google.golang.org/protobuf/proto"

	alertv1 "github.com/tocsin-dev/tocsin/proto/gen/tocsin/alert/v1"
	queryv1 "github.com/tocsin-dev/tocsin/proto/gen/tocsin/query/v1"
	"github.com/tocsin-dev/tocsin/services/alerter/internal/diagnosis"
	"github.com/tocsin-dev/tocsin/services/alerter/internal/expr"
	"github.com/tocsin-dev/tocsin/services/alerter/internal/rule"
	"github.com/tocsin-dev/tocsin/services/alerter/rulefile"
)

// shownSeries is how much of the courses a picture of a target shows.
const shownSeries = 15 * time.Minute

// Stored is what was committed of one target and its alerts.
type Stored struct {
	// Token is the target's.
	Token string
	// Head is the partition's head.
	Head []byte
	// Targets are the values under the keys that TargetKeys names, as far as there are.
	Targets map[string][]byte
	// Active are stored alerts by id; those of other targets are left out.
	Active map[string][]byte
	// At is the timestamp of the last message that is applied.
	At time.Time
}

// TargetKeys names the keys of Delta.Targets under which a target may stand.
func TargetKeys(token string) []string {
	return []string{token, token + goneSuffix, token + jobsSuffix}
}

// Inspection is one target as it was committed, judged for somebody who asks.
// Nothing that is done with it changes a state.
type Inspection struct{ p *Partition }

// Inspect reads what was committed of a target, with the rules in force then.
func Inspect(s Stored, program *Program, speed float64) (*Inspection, error) {
	active := map[string][]byte{}
	for id, data := range s.Active {
		r, err := decodeRecord(data)
		if err != nil {
			return nil, err
		}
		if r.GetToken() == s.Token {
			active[id] = data
		}
	}
	p, err := Load(s.Head, s.Targets, active, speed)
	if err != nil {
		return nil, err
	}
	p.step = step{message: Message{Seq: p.applied, Time: s.At}}
	p.attach(program)
	return &Inspection{p}, nil
}

// Explanation is what there is to say of an alert.
type Explanation struct {
	// Alert is the alert, with the evidence of its last change.
	Alert *alertv1.Alert
	// Rule is its rule as it is now.
	Rule *rulefile.Rule
	// Cond and Until are what is known of its conditions now; Until means nothing
	// without a clear condition.
	Cond, Until rule.Truth
	// Judged is what its rule takes Cond for: the same, but where its no_data decides
	// what a missing value means, or its times count.
	Judged rule.Truth
	// Decided says that its no_data decides what the missing value means that Now names.
	Decided bool
	// Now is what it would be judged on now, and why one of its conditions has no value,
	// if so.
	Now *alertv1.Evidence
	// UntilValues are the values of the parts of its clear condition now.
	UntilValues []*alertv1.Value
	// Diagnosis is what is probably wrong now.
	Diagnosis *alertv1.Diagnosis
	// Clearing says that its end came, and keep_firing_for runs.
	Clearing bool
	// LastFired is when it last began to fire: of one that flaps later than what people
	// are told, which is when the notice began. Zero if it never did.
	LastFired time.Time
	// Frozen says that its wait stands still, because nobody knows enough.
	Frozen bool
	// Left is how long it waits still: for its `for`, for its keep_firing_for, or, if
	// it flaps, for calm. Zero where it waits for nothing.
	Left time.Duration
}

// Alert explains an alert; false if it is not there.
func (i *Inspection) Alert(id string) (*Explanation, bool) {
	p := i.p
	a := p.byID[id]
	if a == nil || a.rule == nil {
		return nil, false
	}
	now := p.nowMs()
	p.cache.begin(p, a.rule.group, p.about(a.target, a.target.category(a.category), now))
	x := &Explanation{
		Alert: proto.CloneOf(a.told), Rule: a.rule.rule, Now: p.evidence(a, now), Diagnosis: p.diagnose(a.target, a.category, now),
		Clearing: a.state.Clearing, Frozen: a.state.Frozen,
	}
	x.Now.NoData = nil // that was of its last step
	var failed, unclear error
	x.Cond, failed = p.truth(a.rule.cond)
	if a.rule.until != nil {
		x.Until, unclear = p.truth(a.rule.until)
		x.UntilValues = p.partsOf(a.rule, a.rule.until)
	}
	if failed == nil && (unclear == nil || a.state.Phase != rule.Firing) { // a rule that fails has told so, and its alert is as it was
		v := p.weigh(a.target, a.rule, a, x.Cond, x.Until)
		x.Judged, x.Decided, x.Now.NoData = p.counted(a.target, a.rule, a.category, v.cond, now), v.decided, v.lack
	}
	switch {
	case a.hold != nil:
		x.LastFired = a.hold.fired.AsTime()
	case a.told.GetFiredAt() != nil:
		x.LastFired = a.told.GetFiredAt().AsTime()
	}
	x.Left = p.left(a, now)
	return x, true
}

// left is how long an alert waits still, in the time of the world.
func (p *Partition) left(a *alert, now int64) time.Duration {
	wait, since, held := int64(0), int64(0), a.state.Held
	frozen := a.state.Frozen
	switch {
	case a.hold != nil:
		wait, since, frozen, held = a.rule.flapping.Window, a.hold.calm.Since, a.hold.calm.Frozen, a.hold.calm.Held
	case a.state.Phase == rule.Pending:
		wait, since = a.rule.timing.For, a.state.Active
	case a.state.Clearing:
		wait, since = a.rule.timing.Keep, a.state.Cleared
	default:
		return 0
	}
	if !frozen {
		held = now - since
	}
	left := time.Duration(max(0, wait-held)) * time.Millisecond
	if p.speed != 1 {
		left = time.Duration(float64(left) / p.speed)
	}
	return left
}

// Picture is what there is to say of a target.
type Picture struct {
	// Status is the target with its latest values.
	Status *queryv1.TargetStatus
	// Diagnosis is what is probably wrong now.
	Diagnosis *alertv1.Diagnosis
	// Series are the recent courses that a diagnosis looks at, as far as they are kept.
	Series []*alertv1.Series
	// ErrorGroups are the failed jobs of the last hour by category, most first.
	ErrorGroups []*alertv1.ErrorGroup
}

// Target describes the target that was read; false if it is not there.
func (i *Inspection) Target() (*Picture, bool) {
	for _, t := range i.p.sortedTargets() {
		return i.p.picture(t), true
	}
	return nil, false
}

func (p *Partition) picture(t *target) *Picture {
	now := p.nowMs()
	bus := p.clock.busAt(now)
	pic := &Picture{Status: t.status(alertIDs(t)), Diagnosis: p.diagnose(t, "", now), ErrorGroups: p.groups(t, "", failuresWindow.Milliseconds(), now)}
	courses := diagnosis.Courses(t.target.GetKind())
	for _, c := range courses {
		id, _ := expr.FieldByName(c.Field)
		width := min(c.Width, shownSeries).Milliseconds()
		if s := p.courseOf(t, nil, id, bus, width, min(maxPoints, allPoints/len(courses))); s != nil {
			pic.Series = append(pic.Series, s)
		}
	}
	return pic
}

// Diagnose says what is probably wrong with a target now; nil if it is not there.
func (p *Partition) Diagnose(token string) *alertv1.Diagnosis {
	t := p.targets[token]
	if t == nil || p.program == nil {
		return nil
	}
	return p.diagnose(t, "", p.nowMs())
}

// partsOf returns the values of the parts of a condition, as the cache has them.
func (p *Partition) partsOf(c *compiled, e *expr.Expr) []*alertv1.Value {
	var all []*alertv1.Value
	for _, id := range e.Parts() {
		v := p.cache.Slot(id)
		value := &alertv1.Value{Name: c.group.slots[id].Text, Value: v.String()}
		if v.Kind == expr.Gauge {
			value.Number = &v.Number
		}
		all = append(all, value)
	}
	return all
}
