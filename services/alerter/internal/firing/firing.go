// Package firing makes firings out of the changes of alerts that the fold tells:
// each with its start, its end and its worst value, and for each rule how often
// and for how long it fired. Rules that only observe count like others: what they
// would do is what one asks.
package firing

import (
	"iter"
	"time"

	alertv1 "github.com/tocsin-dev/tocsin/proto/gen/tocsin/alert/v1"
	rulev1 "github.com/tocsin-dev/tocsin/proto/gen/tocsin/rule/v1"
	"github.com/tocsin-dev/tocsin/services/alerter/internal/expr"
)

// flapWithin is how soon after its end an alert that fires again flaps: a person
// who was told that it is over has hardly turned away.
const flapWithin = 10 * time.Minute

// Rule names a rule as people do: rules of one group and name are told as one,
// whatever their labels.
type Rule struct{ Group, Name string }

// Tally is what came of one rule.
type Tally struct {
	// Firings is how many there were within the time that counts, and Still how many
	// of them had no end.
	Firings, Still uint64
	// Total is for how long it fired within that time, all alerts added.
	Total time.Duration
	// Shortest is the shortest one that began and ended within that time, 0 without.
	Shortest time.Duration
	// Flaps is how often an alert fired again within 10 minutes of its end.
	Flaps uint64
}

// add adds another tally of the same rule.
func (t *Tally) add(o *Tally) {
	t.Firings, t.Still, t.Flaps, t.Total = t.Firings+o.Firings, t.Still+o.Still, t.Flaps+o.Flaps, t.Total+o.Total
	t.shorter(o.Shortest)
}

// shorter takes in the length of a firing; 0 is none.
func (t *Tally) shorter(d time.Duration) {
	if d > 0 && (t.Shortest == 0 || d < t.Shortest) {
		t.Shortest = d
	}
}

// Sum adds what came of the same rules in several books.
func Sum(books []*Book) map[Rule]*Tally {
	sum := map[Rule]*Tally{}
	for _, b := range books {
		for rule, t := range b.tallies {
			if sum[rule] == nil {
				sum[rule] = &Tally{}
			}
			sum[rule].add(t)
		}
	}
	return sum
}

// Book follows the alerts of one partition. It is not safe for concurrent use.
type Book struct {
	from    time.Time
	shelf   *Shelf
	open    map[string]*running  // by the alert's id
	ended   map[string]time.Time // when alerts last ended, by fingerprint
	tallies map[Rule]*Tally
}

// running is a firing without an end so far.
type running struct {
	*rulev1.BacktestFiring
	// start is when it begins to count. The notice of an alert that flaps counts until
	// it is over, and what fires still is told as a new alert then: that fires since
	// before, and counts from there on.
	start time.Time
}

// NewBook returns a book in which firings count that end after from; it puts them
// on a shelf.
func NewBook(from time.Time, shelf *Shelf) *Book {
	return &Book{
		from: from, shelf: shelf,
		open: map[string]*running{}, ended: map[string]time.Time{}, tallies: map[Rule]*Tally{},
	}
}

// Changed takes in alerts that changed, in the order of the fold.
func (b *Book) Changed(alerts []*alertv1.Alert) {
	for _, a := range alerts {
		f := b.open[a.GetId()]
		switch {
		case a.GetState() == alertv1.AlertState_ALERT_STATE_FIRING:
			if f == nil {
				f = b.begin(a)
				b.open[a.GetId()] = f
			}
			take(f.BacktestFiring, a)
		case f != nil && a.GetState() == alertv1.AlertState_ALERT_STATE_RESOLVED:
			take(f.BacktestFiring, a)
			delete(b.open, a.GetId())
			b.over(f)
		}
	}
}

// begin opens a firing, and counts it if it begins soon after the end of the one
// before.
func (b *Book) begin(a *alertv1.Alert) *running {
	at := a.GetFiredAt().AsTime()
	f := &running{&rulev1.BacktestFiring{BeganBefore: at.Before(b.from)}, at}
	switch end, ok := b.ended[a.GetFingerprint()]; {
	case ok && at.Before(end):
		f.start = end
	case ok && !at.Before(b.from) && at.Sub(end) < flapWithin:
		b.tally(a).Flaps++
	}
	return f
}

// take notes how an alert stands, without what nobody looks at later: ten thousand
// courses of fields are most of what they would weigh.
func take(f *rulev1.BacktestFiring, a *alertv1.Alert) {
	f.Worst = worst(f.GetWorst(), a.GetEvidence())
	a.Evidence = nil
	if summary, ok := a.GetAnnotations()[summaryName]; ok {
		a.Annotations = map[string]string{summaryName: summary}
	} else {
		a.Annotations = nil
	}
	f.Alert = a
}

// worst returns the worst that an alert's evidence tells of the first value that its
// condition compares, which is what the rule is about, or what was known before if
// it tells none.
func worst(before *alertv1.Value, e *alertv1.Evidence) *alertv1.Value {
	if len(e.GetWorst()) == 0 {
		return before
	}
	x := e.GetWorst()[0]
	return &alertv1.Value{Name: x.GetName(), Value: expr.Num(x.GetNumber()).String(), Number: new(x.GetNumber())}
}

// summaryName is the annotation that is kept.
const summaryName = "summary"

// over counts a firing that has ended, if it did so in the time that counts.
func (b *Book) over(f *running) {
	a := f.GetAlert()
	end := a.GetResolvedAt().AsTime()
	b.ended[a.GetFingerprint()] = end
	if !end.After(b.from) {
		return
	}
	t := b.tally(a)
	t.Firings++
	t.Total += end.Sub(b.within(f.start))
	if !f.GetBeganBefore() {
		t.shorter(end.Sub(f.start))
	}
	b.shelf.put(f.BacktestFiring)
}

// Close counts what fires still at the end of the log. The partition's active alerts
// are asked for how bad it is by then, which alone is no change. Nothing may follow.
func (b *Book) Close(end time.Time, active iter.Seq[*alertv1.Alert]) {
	for a := range active {
		if f := b.open[a.GetId()]; f != nil {
			f.Worst = worst(f.GetWorst(), a.GetEvidence())
		}
	}
	for _, f := range b.open {
		t := b.tally(f.GetAlert())
		t.Firings++
		t.Still++
		t.Total += max(end.Sub(b.within(f.start)), 0)
		b.shelf.put(f.BacktestFiring)
	}
	clear(b.open)
}

// Tidy forgets ends that are too long ago to matter at an instant.
func (b *Book) Tidy(now time.Time) {
	for fingerprint, end := range b.ended {
		if now.Sub(end) >= flapWithin {
			delete(b.ended, fingerprint)
		}
	}
}

// within returns an instant, or the beginning of the time that counts if that is
// later.
func (b *Book) within(at time.Time) time.Time {
	if at.After(b.from) {
		return at
	}
	return b.from
}

func (b *Book) tally(a *alertv1.Alert) *Tally {
	rule := Rule{a.GetGroup(), a.GetRule()}
	t := b.tallies[rule]
	if t == nil {
		t = &Tally{}
		b.tallies[rule] = t
	}
	return t
}
