// Package pack tries the default rule pack on simulated time: each rule fires,
// holds, resolves, and keeps quiet in the nights that only look like it.
package pack

import (
	"testing"
	"time"

	alertv1 "github.com/tocsin-dev/tocsin/proto/gen/tocsin/alert/v1"
	"github.com/tocsin-dev/tocsin/rules"
	"github.com/tocsin-dev/tocsin/services/alerter/rulefile"
	"github.com/tocsin-dev/tocsin/services/alerter/ruletest"
)

const (
	// step is how finely the stories let time pass: the distance of two polls.
	step = ruletest.HealthInterval
	// moment keeps what changes apart from the poll before it, which is made at
	// full steps: two samples of one instant count as one.
	moment = time.Millisecond
)

// pack reads the default rules with the targets that the stories name.
func pack(t testing.TB) *rulefile.Set {
	t.Helper()
	set, err := rulefile.Parse(rules.Default(), []rulefile.TargetPattern{
		{Match: "^prod-", Kind: "pod", Labels: map[string]string{"expect": "running"}},
		{Match: "^(?P<team>[a-z]+)-", Kind: "endpoint"},
		{Match: "-patient$", Kind: "endpoint", Overrides: map[string]float64{
			"queue_high": 5000, "queue_backlog": 5000, "failure_share": 0.5, "failure_share_severe": 0.5, "job_stuck_s": 7200,
		}},
		{Match: "-modest$", Kind: "endpoint", Overrides: map[string]float64{"slo": 0.9}},
		{Match: "-promised$", Kind: "endpoint", Overrides: map[string]float64{"slo": 0.99, "slo_delay_s": 60}},
	})
	if err != nil {
		t.Fatalf("read the default rules:\n%v", err)
	}
	return set
}

// world is an account in which one rule is watched.
type world struct {
	*ruletest.Harness
	t    *testing.T
	rule string
	// lives are the endpoints whose samples change, and how.
	lives []*life
	// told is how many transitions were looked at.
	told int
}

// life is an endpoint whose sample changes from poll to poll.
type life struct {
	name   string
	sample ruletest.Sample
	change func(*ruletest.Sample)
	// next is when it changes.
	next time.Time
}

func newWorld(t *testing.T, rule string) *world {
	t.Helper()
	return &world{Harness: ruletest.New(t, pack(t)), t: t, rule: rule}
}

// endpoint adds a queue endpoint whose polls give s from now on.
func (w *world) endpoint(name string, workersMax int64, s ruletest.Sample) {
	w.t.Helper()
	w.Discover(ruletest.Endpoint(name), ruletest.QueueSpec(workersMax))
	w.becomes(name, s)
}

// becomes says what an endpoint's polls give from now on.
func (w *world) becomes(name string, s ruletest.Sample) { w.t.Helper(); w.changing(name, s, nil) }

// changing says what an endpoint's polls give, and what changes before each.
func (w *world) changing(name string, s ruletest.Sample, change func(*ruletest.Sample)) {
	w.t.Helper()
	l := w.life(name)
	l.sample, l.change = s, change
	w.Advance(moment)
	w.send(l)
}

func (w *world) life(name string) *life {
	for _, l := range w.lives {
		if l.name == name {
			return l
		}
	}
	l := &life{name: name}
	w.lives = append(w.lives, l)
	return l
}

// polled says what the account's rounds give from now on.
func (w *world) polled(p ruletest.Polls) {
	w.t.Helper()
	w.Advance(moment)
	w.Polled(p)
}

// pod says what a pod's polls give from now on.
func (w *world) pod(name string, s ruletest.PodSample) {
	w.t.Helper()
	w.Advance(moment)
	w.Pod(name, s)
}

// pass lets time pass. Samples that change do so a moment before the old ones
// would be repeated.
func (w *world) pass(d time.Duration) {
	w.t.Helper()
	for end := w.Now().Add(d); ; {
		next := end
		for _, l := range w.lives {
			if l.change != nil && l.next.Before(next) {
				next = l.next
			}
		}
		w.Advance(next.Sub(w.Now()))
		if next.Equal(end) {
			return
		}
		for _, l := range w.lives {
			if l.change != nil && !l.next.After(next) {
				l.change(&l.sample)
				w.send(l)
			}
		}
	}
}

// send polls an endpoint now.
func (w *world) send(l *life) {
	w.t.Helper()
	l.next = w.Now().Add(step - moment)
	w.Health(l.name, l.sample)
}

// news returns the transitions of the watched rule since the last call.
func (w *world) news() []*alertv1.Transition {
	all := w.Transitions()
	var news []*alertv1.Transition
	for _, tr := range all[w.told:] {
		if tr.GetAlert().GetRule() == w.rule {
			news = append(news, tr)
		}
	}
	w.told = len(all)
	return news
}

// comesAfter fails the test unless the watched rule's next transition is of a
// kind and comes after d, or up to a poll later.
func (w *world) comesAfter(kind alertv1.TransitionKind, d time.Duration) *alertv1.Alert {
	w.t.Helper()
	const blur = time.Second // what the moments add up to
	start := w.Now()
	for w.Now().Sub(start) < d+2*step {
		for _, tr := range w.news() {
			took := tr.GetAt().AsTime().Sub(start)
			if tr.GetKind() != kind || took < d-blur || took > d+step+blur {
				w.t.Fatalf("%s: %s after %s, want %s after %s", w.rule, tr.GetKind(), took, kind, d)
			}
			return tr.GetAlert()
		}
		w.pass(step)
	}
	w.t.Fatalf("%s: no transition within %s, want %s after %s; pending: %v", w.rule, w.Now().Sub(start), kind, d, names(w.Pending()))
	return nil
}

// firesAfter lets time pass until the rule fires, which must come after d.
func (w *world) firesAfter(d time.Duration) *alertv1.Alert {
	w.t.Helper()
	return w.comesAfter(alertv1.TransitionKind_TRANSITION_KIND_FIRING, d)
}

// resolvesAfter lets time pass until the alert resolves, which must come after d.
func (w *world) resolvesAfter(d time.Duration) *alertv1.Alert {
	w.t.Helper()
	return w.comesAfter(alertv1.TransitionKind_TRANSITION_KIND_RESOLVED, d)
}

// stays lets d pass. Nothing may be told of the rule, nor have been told since
// the last look.
func (w *world) stays(d time.Duration) {
	w.t.Helper()
	w.pass(d)
	for _, tr := range w.news() {
		w.t.Errorf("%s: %s at %s, want nothing: %s", w.rule, tr.GetKind(), tr.GetAt().AsTime().Format("15:04:05"), summary(tr.GetAlert()))
	}
}

// pends lets d pass, after which the rule must be pending and not have fired.
func (w *world) pends(d time.Duration) {
	w.t.Helper()
	w.stays(d)
	for _, a := range w.Pending() {
		if a.GetRule() == w.rule {
			return
		}
	}
	w.t.Errorf("%s is not pending; pending: %v", w.rule, names(w.Pending()))
}

// quiet lets d pass in which nothing may be told of the rule and nobody paged.
func (w *world) quiet(d time.Duration) {
	w.t.Helper()
	w.stays(d)
	for _, tr := range w.Transitions() {
		if a := tr.GetAlert(); a.GetLabels()["severity"] == "critical" {
			w.t.Errorf("a page: %s at %s: %s", a.GetRule(), tr.GetAt().AsTime().Format("15:04:05"), summary(a))
		}
	}
}

func summary(a *alertv1.Alert) string { return a.GetAnnotations()["summary"] }

func names(alerts []*alertv1.Alert) []string {
	var all []string
	for _, a := range alerts {
		all = append(all, a.GetRule())
	}
	return all
}
