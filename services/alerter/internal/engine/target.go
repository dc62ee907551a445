package engine

import (
	"time"

	alertv1 "github.com/tocsin-dev/tocsin/proto/gen/tocsin/alert/v1"
	eventv1 "github.com/tocsin-dev/tocsin/proto/gen/tocsin/event/v1"
	statev1 "github.com/tocsin-dev/tocsin/proto/gen/tocsin/state/v1"
	"github.com/tocsin-dev/tocsin/services/alerter/internal/expr"
	"github.com/tocsin-dev/tocsin/services/alerter/internal/rule"
	"github.com/tocsin-dev/tocsin/services/alerter/internal/window"
)

const (
	// holdIntervals is for how many poll intervals of the bus's time a sample
	// holds: one answer may be lost and one late before a value counts as unknown.
	holdIntervals = 3
	// lateIntervals is for how many poll intervals a sample may have been held
	// and still count as the present.
	lateIntervals = 2
	// absentIntervals is for how many poll intervals a source must be silent
	// before it may count as absent, whatever a rule says.
	absentIntervals = 5
	// usualInterval stands in for an interval that a sample does not tell.
	usualInterval = 15 * time.Second
	// longestInterval bounds what a sample may tell: five of them are no overflow
	// and no absence that nobody lives to see.
	longestInterval = 24 * time.Hour
	// never is an instant that did not come.
	never = -1
)

// target is what the fold knows of one target.
type target struct {
	token  string
	target *eventv1.Target
	spec   *eventv1.TargetSpec
	labels map[string]string
	// overrides are the numbers that rules read with threshold().
	overrides map[string]float64
	firstSeen int64
	gone      int64

	slot     int64
	interval int64
	// sampled is when it was last sampled by engine time, which absences are
	// measured in; sampledBus by the bus's, which values hold in; and sampledAt
	// by the calendar, for people.
	sampled    int64
	sampledBus int64
	sampledAt  int64
	health     *eventv1.HealthSampled
	gpu        *eventv1.GpuSampled
	account    *eventv1.AccountPolled
	inventory  *eventv1.InventoryShrunk
	failure    *eventv1.PollFailed

	counters []counter
	// series are parallel to the program's recorded list of this kind.
	series []window.Series
	// failures are sorted by category.
	failures []*failures
	tracked  bool
	jobs     *jobTable

	// alerts are sorted by rule and category.
	alerts []*alert
	// tallies are sorted by rule and category.
	tallies []*tally
	// restless are sorted by rule and category.
	restless []*restless
	// watches are the timers of rules that the passing of time alone may decide.
	watches []*timer
	// loose are series that were read before the program was known.
	loose []*statev1.Series
	// touched says that its value is among those that must be written.
	touched bool
	// dropped is set when the target is forgotten, for timers that still name it.
	dropped bool
}

// counter is a cumulative counter with its resets evened out: total is what was
// added since first sight.
type counter struct {
	field      expr.FieldID
	raw, total float64
}

// count takes a new reading of a cumulative counter. A fall adds nothing.
func (t *target) count(field expr.FieldID, raw float64) {
	c := t.counter(field)
	if c == nil {
		t.counters = append(t.counters, counter{field: field, raw: raw})
		return
	}
	if raw > c.raw {
		c.total += raw - c.raw
	}
	c.raw = raw
}

// restarted takes a new reading of an uptime: a fall is one restart.
func (t *target) restarted(uptime float64) {
	c := t.counter(expr.PodRestarts)
	if c == nil {
		t.counters = append(t.counters, counter{field: expr.PodRestarts, raw: uptime})
		return
	}
	if uptime < c.raw {
		c.total++
	}
	c.raw = uptime
}

// counter finds a counter, or nil before first sight.
func (t *target) counter(field expr.FieldID) *counter {
	for i := range t.counters {
		if t.counters[i].field == field {
			return &t.counters[i]
		}
	}
	return nil
}

// holds says until when the last sample holds, by the bus's time.
func (t *target) holds() int64 {
	if t.sampled == never {
		return never
	}
	return t.sampledBus + holdIntervals*t.interval
}

// seen is the last sign of life: the last sample or, before any, first sight.
func (t *target) seen() int64 { return max(t.sampled, t.firstSeen) }

// live says that the target was not removed.
func (t *target) live() bool { return t.gone == never }

// alert finds the pending or firing alert of a rule, and the position at which
// it stands or would stand.
func (t *target) alert(c *compiled, category string) (*alert, int) {
	for i, a := range t.alerts {
		switch {
		case a.rule == c && a.category == category:
			return a, i
		case a.rule.order > c.order, a.rule == c && a.category > category:
			return nil, i
		}
	}
	return nil, len(t.alerts)
}

// alert is a pending or firing alert and where its rule stands with it.
type alert struct {
	rule     *compiled
	category string
	target   *target
	state    rule.State
	told     *alertv1.Alert
	// lack is why its condition has no value, nil while it has one.
	lack *alertv1.NoData
	// worst are the worst of the values that its condition compares, as its evidence
	// has them.
	worst []*alertv1.Extreme
	timer *timer
	// hold is nil unless the alert flaps.
	hold *hold
	// key is the rule's key, by which the rule is found after a load.
	key string
}

// failuresOf finds the failures of a category, adding it if new.
func (t *target) failuresOf(category string, program *Program) *failures {
	for i, f := range t.failures {
		if f.category == category {
			return f
		}
		if f.category > category {
			return t.insertFailures(i, category, program)
		}
	}
	return t.insertFailures(len(t.failures), category, program)
}

func (t *target) insertFailures(i int, category string, program *Program) *failures {
	f := &failures{category: category, novel: never, series: make([]window.Series, len(program.failuresRecorded()))}
	t.failures = append(t.failures, nil)
	copy(t.failures[i+1:], t.failures[i:])
	t.failures[i] = f
	return f
}

// failures is what the fold knows of the failed jobs of one category.
type failures struct {
	category    string
	total       int64
	jobIDs      []string
	message     string
	fingerprint string
	last        int64
	novel       int64
	seen        []seen
	series      []window.Series
	loose       []*statev1.Series
}

// seen says when a fingerprint was met last.
type seen struct {
	fingerprint string
	at          int64
}
