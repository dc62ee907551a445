package rulesuite

import (
	"fmt"
	"maps"
	"slices"
	"time"

	alertv1 "github.com/tocsin-dev/tocsin/proto/gen/tocsin/alert/v1"
	eventv1 "github.com/tocsin-dev/tocsin/proto/gen/tocsin/event/v1"
	"github.com/tocsin-dev/tocsin/services/alerter/internal/engine"
	"github.com/tocsin-dev/tocsin/services/alerter/internal/player"
)

// tickInterval is how often time passes without anything else, as in a partition
// in which something waits.
const tickInterval = 5 * time.Second

// maxRepetitions bounds those of one event: one a minute for a week.
const maxRepetitions = 7 * 24 * 60

// Suite is a file of tests with the rules that they try.
type Suite struct {
	file    *File
	program *engine.Program
}

// New compiles the rules of a file of tests, content by file name. Its error joins
// every mistake of the rules as a *rulefile.MistakeError.
func New(file *File, rules map[string][]byte) (*Suite, error) {
	program, err := engine.CompileFiles(rules, file.Targets)
	if err != nil {
		return nil, err
	}
	return &Suite{file: file, program: program}, nil
}

// Rules lists the rules that are tried, as group/name, in their order.
func (s *Suite) Rules() []string {
	var all []string
	for _, r := range s.program.Set().Rules() {
		if name := ruleName(r.Group, r.Alert); !slices.Contains(all, name) {
			all = append(all, name)
		}
	}
	return all
}

func ruleName(group, alert string) string { return group + "/" + alert }

// Tests lists the tests in the order of the file.
func (s *Suite) Tests() []*Test {
	all := make([]*Test, len(s.file.Tests))
	for i := range s.file.Tests {
		all[i] = &s.file.Tests[i]
	}
	return all
}

// Result is what came of a test.
type Result struct {
	// Failures are the expectations that were not met, in their order.
	Failures []Failure
	// Fired and Resolved are the rules that did, as group/name.
	Fired, Resolved map[string]bool
}

// Failure is an expectation that was not met.
type Failure struct {
	// Line of the expectation in its file.
	Line int
	// At is its instant.
	At time.Duration
	// Differences say what was wanted and what was found, one line each.
	Differences []string
	// Want and Got are the alerts as YAML, with the parts that the expectation names.
	Want, Got string
}

// Run plays a test. Its error says that a rule failed or that an event could not be
// used.
func (s *Suite) Run(t *Test) (Result, error) {
	p, err := player.New(s.program)
	if err != nil {
		return Result{}, err
	}
	r := &run{Player: p, test: t, interval: defaultInterval, result: Result{Fired: map[string]bool{}, Resolved: map[string]bool{}}}
	for _, i := range []duration{s.file.Interval, t.Interval} {
		if i > 0 {
			r.interval = time.Duration(i)
		}
	}
	if err := r.play(); err != nil {
		return r.result, fmt.Errorf("at %v: %w", r.Elapsed(), err)
	}
	for _, told := range p.Transitions() {
		name := ruleName(told.GetAlert().GetGroup(), told.GetAlert().GetRule())
		switch told.GetKind() {
		case alertv1.TransitionKind_TRANSITION_KIND_FIRING:
			r.result.Fired[name] = true
		case alertv1.TransitionKind_TRANSITION_KIND_RESOLVED:
			r.result.Resolved[name] = true
		default:
		}
	}
	return r.result, nil
}

// run is a test that is being played.
type run struct {
	*player.Player
	test     *Test
	interval time.Duration
	sources  []*source
	asleep   time.Duration // nothing is published before this instant
	result   Result
}

// play plays the test to its last expectation.
func (r *run) play() error {
	var events []occurrence
	for _, o := range r.test.Events {
		events = append(events, o.repeated()...)
	}
	slices.SortStableFunc(events, func(a, b occurrence) int { return int(a.At - b.At) })
	expect := slices.Clone(r.test.Expect)
	slices.SortStableFunc(expect, func(a, b expectation) int { return int(a.At - b.At) })
	if err := r.discover(); err != nil {
		return err
	}
	for {
		if err := r.instant(&events); err != nil {
			return err
		}
		for len(expect) > 0 && time.Duration(expect[0].At) <= r.Elapsed() {
			r.compare(&expect[0])
			expect = expect[1:]
		}
		if len(expect) == 0 {
			return nil
		}
		r.Wait(r.next(events, expect) - r.Elapsed())
	}
}

// repeated lists an event and its repetitions.
func (o occurrence) repeated() []occurrence {
	all := []occurrence{o}
	for n := 2; o.Every > 0; n++ {
		next := o
		next.At += o.Every * duration(n-1)
		if next.At > o.Until {
			break
		}
		if o.Job != nil {
			j := *o.Job
			j.ID = fmt.Sprintf("%s-%d", j.ID, n)
			next.Job = &j
		}
		all = append(all, next)
	}
	return all
}

// next returns the next instant at which something happens or is looked at.
func (r *run) next(events []occurrence, expect []expectation) time.Duration {
	now := r.Elapsed()
	next := min(now.Truncate(tickInterval)+tickInterval, now.Truncate(r.interval)+r.interval, time.Duration(expect[0].At))
	if len(events) > 0 {
		next = min(next, time.Duration(events[0].At))
	}
	return max(next, now)
}

// instant plays what happens now: polls, then events, then time itself.
func (r *run) instant(events *[]occurrence) error {
	now, quiet := r.Elapsed(), true
	if now >= r.asleep && now%r.interval == 0 {
		for _, s := range r.sources {
			e := s.sample(int(now/r.interval), r.Now(), r.interval)
			if e == nil || s.gone {
				continue
			}
			quiet = false
			if err := r.Play(e); err != nil {
				return err
			}
		}
	}
	for len(*events) > 0 && time.Duration((*events)[0].At) <= now {
		quiet = false
		if err := r.happen(&(*events)[0]); err != nil {
			return err
		}
		*events = (*events)[1:]
	}
	if quiet && now >= r.asleep {
		return r.Tick()
	}
	return nil
}

// discover tells of the targets of the test.
func (r *run) discover() error {
	add := func(kind eventv1.TargetKind, id, name string, spec *eventv1.TargetSpec, s *source) error {
		if name == "" {
			name = id
		}
		s.target = &eventv1.Target{Account: accountID, Kind: kind, Id: id, Name: name}
		r.sources = append(r.sources, s)
		if spec == nil {
			return nil
		}
		return r.Play(&eventv1.Event{Target: s.target, Source: eventv1.Source_SOURCE_POLL, Fact: &eventv1.Event_TargetDiscovered{
			TargetDiscovered: &eventv1.TargetDiscovered{Spec: spec},
		}})
	}
	for _, id := range slices.Sorted(maps.Keys(r.test.Endpoints)) {
		e := r.test.Endpoints[id]
		err := add(eventv1.TargetKind_TARGET_KIND_ENDPOINT, id, e.Name, e.Settings.spec(), &source{series: e.Series, fill: healthSample})
		if err != nil {
			return err
		}
	}
	for _, id := range slices.Sorted(maps.Keys(r.test.Pods)) {
		p := r.test.Pods[id]
		spec := &eventv1.TargetSpec{Kind: &eventv1.TargetSpec_Pod{Pod: &eventv1.PodSpec{GpuType: p.GPUType, GpuCount: p.GPUs}}}
		err := add(eventv1.TargetKind_TARGET_KIND_POD, id, p.Name, spec, &source{series: p.Series, fill: podSample})
		if err != nil {
			return err
		}
	}
	return add(eventv1.TargetKind_TARGET_KIND_ACCOUNT, accountID, "", nil, &source{series: r.test.Account.Series, fill: accountSample})
}

// happen plays an event.
func (r *run) happen(o *occurrence) error {
	e := &eventv1.Event{Target: r.target(o), Source: eventv1.Source_SOURCE_POLL}
	switch {
	case o.Sleep > 0:
		r.asleep = r.Elapsed() + time.Duration(o.Sleep)
		return nil
	case o.CollectorStarted:
		e.Target, e.Source = nil, eventv1.Source_SOURCE_TOCSIN
		e.Fact = &eventv1.Event_CollectorStarted{CollectorStarted: &eventv1.CollectorStarted{}}
	case o.Job != nil:
		e.Fact = &eventv1.Event_JobTransitioned{JobTransitioned: o.Job.transition()}
	case o.Settings != nil:
		e.Fact = &eventv1.Event_TargetChanged{TargetChanged: &eventv1.TargetChanged{Spec: o.Settings.spec()}}
	case o.InventoryShrunk != nil:
		e.Target, e.Source = r.account(), eventv1.Source_SOURCE_TOCSIN
		e.Fact = &eventv1.Event_InventoryShrunk{InventoryShrunk: &eventv1.InventoryShrunk{
			Known: o.InventoryShrunk.Known, Vanished: o.InventoryShrunk.Vanished, Over: o.InventoryShrunk.Over,
		}}
	case o.Removed:
		for _, s := range r.sources {
			s.gone = s.gone || s.target == e.GetTarget()
		}
		e.Source = eventv1.Source_SOURCE_TOCSIN
		e.Fact = &eventv1.Event_TargetRemoved{TargetRemoved: &eventv1.TargetRemoved{}}
	}
	return r.Play(e)
}

// account returns the account, which is discovered last.
func (r *run) account() *eventv1.Target { return r.sources[len(r.sources)-1].target }

// target finds what an event is about.
func (r *run) target(o *occurrence) *eventv1.Target {
	kind, id := eventv1.TargetKind_TARGET_KIND_ENDPOINT, o.Endpoint
	if o.Pod != "" {
		kind, id = eventv1.TargetKind_TARGET_KIND_POD, o.Pod
	}
	for _, s := range r.sources {
		if s.target.GetKind() == kind && s.target.GetId() == id {
			return s.target
		}
	}
	return nil
}
