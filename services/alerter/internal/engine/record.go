package engine

import (
	"slices"
	"time"

	eventv1 "github.com/tocsin-dev/tocsin/proto/gen/tocsin/event/v1"
	"github.com/tocsin-dev/tocsin/services/alerter/internal/expr"
	"github.com/tocsin-dev/tocsin/services/alerter/internal/window"
)

const (
	// fingerprintsFor is how long a fingerprint of failures counts as known.
	fingerprintsFor = 48 * time.Hour
	// maxFingerprints bounds the known fingerprints of a category.
	maxFingerprints = 64
	// maxSampleJobs is how many job ids an alert shows of a group of failures.
	maxSampleJobs = 5
	// categories is how many categories of failures there are.
	categories = 6
)

// equip gives a target what the program needs of it: empty series and timers.
func (p *Partition) equip(t *target) {
	if p.program != nil && t.live() {
		t.series = make([]window.Series, len(p.program.recorded[t.target.GetKind()]))
	}
	p.watch(t)
}

// watch sets a target's own timers: those of rules that the passing of time
// alone may decide, or that of its memory once it is removed.
func (p *Partition) watch(t *target) {
	p.strip(t)
	if !t.live() {
		t.watches = append(t.watches, newTimer(t, nil, ""))
	} else if p.program != nil {
		for _, c := range p.program.group(t.target.GetKind()).rules {
			if len(c.absences) > 0 {
				t.watches = append(t.watches, newTimer(t, c, ""))
			}
		}
	}
	for _, w := range t.watches {
		p.schedule(w, p.nowMs())
	}
}

// strip takes a target's own timers away.
func (p *Partition) strip(t *target) {
	for _, w := range t.watches {
		w.done = true
		p.schedule(w, p.nowMs())
	}
	t.watches = nil
}

// record notes in a target's series what the facts of some sources say now.
func (p *Partition) record(t *target, sources facts) {
	now := p.nowMs()
	for i, r := range p.recordedOf(t) {
		switch {
		case r.detail == hourly:
			p.sumUp(t, &t.series[i], r)
		case r.source&sources == 0 && r.source != 0:
		case r.cond == nil && ownCounter(r.field) && !t.series[i].Empty():
			// What is counted one by one is added when it happens.
			p.prune(&t.series[i], r)
		default:
			p.put(t, &t.series[i], r, p.about(t, nil, now))
		}
	}
	if sources&(factsOfSample|factsOfSpec) != 0 {
		for _, f := range t.failures {
			p.recordFailures(t, f, now)
		}
	}
}

// recordedOf lists what is recorded of a target.
func (p *Partition) recordedOf(t *target) []recorded {
	if p.program == nil || !t.live() {
		return nil
	}
	return p.program.recorded[t.target.GetKind()]
}

// failuresRecorded lists what is recorded of a category of failures.
func (p *Program) failuresRecorded() []recorded {
	if p == nil {
		return nil
	}
	return p.failures
}

// recordCounters notes what a late sample says of counters.
func (p *Partition) recordCounters(t *target) {
	for i, r := range p.recordedOf(t) {
		if r.cond == nil && r.source == factsOfSample && expr.FieldOf(r.field).Kind == expr.Counter && r.detail != hourly {
			if c := t.counter(r.field); c != nil {
				p.set(t, &t.series[i], r, p.clock.bus(), c.total, t.holds())
			}
		}
	}
}

// put notes what one recorded course is now, and forgets what no window needs.
func (p *Partition) put(t *target, s *window.Series, r recorded, about subject) {
	value, known := 0.0, false
	if r.cond == nil {
		value, known = about.number(r.field)
	} else {
		p.cache.begin(p, r.group, about)
		switch result, _ := r.cond.EvalIn(&p.workspace, &p.cache); result {
		case expr.True:
			value, known = 1, true
		case expr.False:
			known = true
		}
	}
	if known {
		p.set(t, s, r, about.bus, value, about.until(r.source))
	} else {
		p.bounded(t, r, s.SetUnknown(about.bus))
	}
	p.prune(s, r)
}

// set notes a value in a course, in as much detail as is kept of it.
func (p *Partition) set(t *target, s *window.Series, r recorded, at int64, value float64, until int64) {
	p.bounded(t, r, s.Set(at, value, until))
	if r.detail == coarse {
		s.Thin(coarseGrain.Milliseconds(), p.calendar(at)-at)
	}
}

// prune forgets what no window needs of a course.
func (p *Partition) prune(s *window.Series, r recorded) {
	s.Prune(p.clock.bus() - r.length)
}

// bounded notes that a series had too many points.
func (p *Partition) bounded(t *target, r recorded, dropped int) {
	if dropped > 0 {
		p.problem(TooManyPoints, "", t.token, "%s changes too often for a window of %s", r.key, time.Duration(r.length)*time.Millisecond)
	}
}

// recordFailures notes the conditions that are recorded of a category. The
// course of the failures themselves is added to when they happen.
func (p *Partition) recordFailures(t *target, f *failures, now int64) {
	for i, r := range p.program.failuresRecorded() {
		s := &f.series[i]
		if r.cond != nil {
			p.put(t, s, r, p.about(t, f, now))
		} else {
			p.prune(s, r)
		}
	}
}

// jobRegistered takes in that a job is to be followed, which was told some
// milliseconds ago.
func (p *Partition) jobRegistered(t *target, f *eventv1.JobRegistered, held int64) {
	p.follow(t)
	if t.jobs.register(f.GetJobId(), p.clock.engineAt(p.clock.bus()-held)) {
		p.jobsChanged(t)
	}
}

// jobMoved takes in that a job entered a state, which was seen some
// milliseconds ago.
func (p *Partition) jobMoved(t *target, f *eventv1.JobTransitioned, held int64) {
	p.follow(t)
	at := p.clock.bus() - held
	from, moved := t.jobs.move(f.GetJobId(), f.GetAttempt(), f.GetState(), p.clock.engineAt(at))
	if !moved {
		return
	}
	if f.DelayMs != nil && rank(from) < rank(eventv1.JobState_JOB_STATE_IN_PROGRESS) && rank(f.GetState()) >= rank(eventv1.JobState_JOB_STATE_IN_PROGRESS) {
		t.jobs.waited(p.nowMs(), f.GetDelayMs())
	}
	switch f.GetState() {
	case eventv1.JobState_JOB_STATE_LOST:
		p.countOne(t, expr.TrackedLost, at)
	case eventv1.JobState_JOB_STATE_FAILED, eventv1.JobState_JOB_STATE_TIMED_OUT:
		p.jobFailed(t, f, at)
	}
	p.jobsChanged(t)
}

// follow makes a target one whose jobs are followed.
func (p *Partition) follow(t *target) {
	if t.jobs == nil {
		t.jobs = newJobTable()
	}
	t.tracked = true
}

// jobsChanged notes what followed jobs are now and judges the endpoint.
func (p *Partition) jobsChanged(t *target) {
	p.record(t, factsOfJobs)
	p.tidy(t)
	p.touchJobs(t)
	p.judge(t)
}

// countOne counts a fact about a job at its own instant of the bus's time.
func (p *Partition) countOne(t *target, field expr.FieldID, at int64) {
	c := t.counter(field)
	if c == nil {
		t.counters = append(t.counters, counter{field: field})
		c = t.counter(field)
	}
	c.total++
	for i, r := range p.recordedOf(t) {
		if r.field == field && r.cond == nil && r.detail == exact {
			p.addAt(t, &t.series[i], r, at)
		}
	}
}

// jobFailed counts a failed job in its category, at an instant of the bus's time.
func (p *Partition) jobFailed(t *target, m *eventv1.JobTransitioned, at int64) {
	category := categoryName(m)
	if category == "validation" {
		p.countOne(t, expr.TrackedInvalid, at)
	}
	f := t.failuresOf(category, p.program)
	f.total++
	f.last = p.nowMs()
	f.jobIDs = append([]string{m.GetJobId()}, f.jobIDs[:min(len(f.jobIDs), maxSampleJobs-1)]...)
	if text := m.GetError().GetMessage(); text != "" {
		f.message = text
	}
	if print := m.GetError().GetFingerprint(); print != "" {
		f.fingerprint = print
		f.meet(print, p.nowMs())
	}
	for i, r := range p.program.failuresRecorded() {
		if r.cond == nil {
			p.addAt(t, &f.series[i], r, at)
		}
	}
	p.recordFailures(t, f, p.nowMs())
}

// addAt raises the course of a counter of our own from the instant of a fact
// on. It was 0 when the target was first seen, which the bus's time, being ahead
// of engine time, has later than this.
func (p *Partition) addAt(t *target, s *window.Series, r recorded, at int64) {
	if s.Empty() {
		s.Set(min(t.firstSeen, at)-1, 0, window.Forever)
	}
	p.bounded(t, r, s.AddAt(at, 1))
}

// categoryName is the short name of a failure's category, one of as many as
// categories says. A time limit without an error is one of its own kind.
func categoryName(m *eventv1.JobTransitioned) string {
	switch m.GetError().GetCategory() {
	case eventv1.JobErrorCategory_JOB_ERROR_CATEGORY_VALIDATION:
		return "validation"
	case eventv1.JobErrorCategory_JOB_ERROR_CATEGORY_TIMEOUT:
		return "timeout"
	case eventv1.JobErrorCategory_JOB_ERROR_CATEGORY_OOM:
		return "oom"
	case eventv1.JobErrorCategory_JOB_ERROR_CATEGORY_CRASH:
		return "crash"
	case eventv1.JobErrorCategory_JOB_ERROR_CATEGORY_HANDLER:
		return "handler"
	}
	if m.GetState() == eventv1.JobState_JOB_STATE_TIMED_OUT {
		return "timeout"
	}
	return "unknown"
}

// meet notes that a fingerprint was met, and whether it was unknown.
func (f *failures) meet(fingerprint string, now int64) {
	kept, known := f.seen[:0], false
	for _, s := range f.seen {
		switch {
		case s.fingerprint == fingerprint:
			known = now-s.at <= fingerprintsFor.Milliseconds()
		case now-s.at <= fingerprintsFor.Milliseconds():
			kept = append(kept, s)
		}
	}
	if !known {
		f.novel = now
	}
	f.seen = append(kept, seen{fingerprint, now})
	if over := len(f.seen) - maxFingerprints; over > 0 {
		f.seen = append(f.seen[:0], f.seen[over:]...)
	}
}

// forgotten says which jobs are forgotten: by engine time, when the youngest of
// them entered its state. How long a job is remembered is how long RunPod and the
// log do, and they forget in a gap too.
func (p *Partition) forgotten() (ended, open int64) {
	bus := p.clock.bus()
	return p.clock.engineAt(bus - endedFor.Milliseconds()), p.clock.engineAt(bus - openFor.Milliseconds())
}

// tidy forgets jobs and failures that are too old to matter.
func (p *Partition) tidy(t *target) {
	if t.jobs != nil {
		before := len(t.jobs.byID)
		if over := t.jobs.prune(p.forgotten()); over > 0 {
			p.problem(TooManyJobs, "", t.token, "%d jobs were forgotten", over)
		}
		if len(t.jobs.byID) != before {
			p.touchJobs(t)
		}
	}
	kept := t.failures[:0]
	for _, f := range t.failures {
		if p.nowMs()-f.last <= fingerprintsFor.Milliseconds() || t.hasAlertOn(f.category) {
			kept = append(kept, f)
		}
	}
	clear(t.failures[len(kept):])
	t.failures = kept
}

// hasAlertOn says that an alert is about a category, or may come to be.
func (t *target) hasAlertOn(category string) bool {
	for _, a := range t.alerts {
		if a.category == category {
			return true
		}
	}
	return slices.ContainsFunc(t.tallies, func(y *tally) bool { return y.category == category })
}
