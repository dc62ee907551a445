package backtest_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/tocsin-dev/tocsin/internal/bus"
	"github.com/tocsin-dev/tocsin/internal/event"
	"github.com/tocsin-dev/tocsin/internal/fault"
	alertv1 "github.com/tocsin-dev/tocsin/proto/gen/tocsin/alert/v1"
	eventv1 "github.com/tocsin-dev/tocsin/proto/gen/tocsin/event/v1"
	rulev1 "github.com/tocsin-dev/tocsin/proto/gen/tocsin/rule/v1"
	"github.com/tocsin-dev/tocsin/services/alerter/backtest"
	"github.com/tocsin-dev/tocsin/services/alerter/internal/engine"
	"github.com/tocsin-dev/tocsin/services/alerter/internal/player"
)

const newRules = `
groups:
- name: g
  rules:
  - {alert: Long, on: endpoint, expr: jobs.in_queue > 10, for: 30s, annotations: {summary: "{{ $value }} wait", description: much}}
  - {alert: Quiet, on: endpoint, expr: jobs.in_queue > 1000}
  - {alert: Watched, on: endpoint, expr: jobs.in_queue >= 12, mode: observe}
`

const oldRules = `
groups:
- name: before
  rules:
  - {alert: Long, on: endpoint, expr: jobs.in_queue > 10, for: 15s, labels: {severity: warning}}
  - {alert: Short, on: endpoint, expr: jobs.in_queue < 1}
`

// story is a log of two endpoints: a fills up twice, the second time within ten
// minutes, b stays full.
func story() *recorded {
	r := &recorded{at: epoch}
	r.add(&eventv1.Event{Fact: &eventv1.Event_RuleSetActivated{RuleSetActivated: &eventv1.RuleSetActivated{Hash: "another"}}})
	r.play("a", 1, 11, 11, 12, 11, 1, 1, 1, 11, 11, 11, 11, 1)
	r.play("b", 20, 30, 20, 20)
	return r
}

func TestAStoryHasItsFirings(t *testing.T) {
	for _, workers := range []int{1, 2, 64} {
		t.Run(fmt.Sprint(workers, " workers"), func(t *testing.T) {
			w := run(t, backtest.Options{Log: story(), Rules: compile(t, newRules), Against: new(compile(t, oldRules)), Workers: workers})
			want := []string{
				"Long a 45s 1m15s 12", // worst while it waits
				"Watched a 45s 1m0s 12",
				"Long a 2m30s 3m0s 11",
				"Watched b 3m15s still 30", // worst after it fired
				"Long b 3m45s still 30",
			}
			if got := lines(w.firings); !slices.Equal(got, want) {
				t.Errorf("firings:\n%s\nwant:\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
			}
			first := w.firings[0].GetAlert()
			if first.GetEvidence() != nil || len(first.GetAnnotations()) != 1 || first.GetAnnotations()["summary"] != "11 wait" || !w.firings[1].GetAlert().GetObserved() {
				t.Errorf("the first firing is %v, the second %v", first, w.firings[1].GetAlert())
			}
			var table []string
			for _, r := range w.summary.GetRules() {
				table = append(table, fmt.Sprintf("%v %s/%s %d %d %v %v %d", r.GetOld(), r.GetGroup(), r.GetRule(), r.GetFirings(), r.GetStillFiring(), r.GetFiring().AsDuration(), r.GetShortest().AsDuration(), r.GetFlaps()))
			}
			wantTable := []string{
				"false g/Long 3 1 1m30s 30s 1",
				"false g/Quiet 0 0 0s 0s 0",
				"false g/Watched 2 1 1m15s 15s 0",
				"true before/Long 3 1 2m15s 45s 1",
				"true before/Short 0 0 0s 0s 0",
			}
			if !slices.Equal(table, wantTable) {
				t.Errorf("table:\n%s\nwant:\n%s", strings.Join(table, "\n"), strings.Join(wantTable, "\n"))
			}
			differ := fmt.Sprint(w.summary.GetComparisons())
			if len(w.summary.GetComparisons()) != 2 || w.summary.GetComparisons()[0].GetShorter() != 3 || w.summary.GetComparisons()[1].GetOnlyNew() != 2 {
				t.Errorf("differences: %s", differ)
			}
			if s := w.summary; s.GetEvents() != uint64(len(story().messages)) || s.GetTargets() != 2 || len(s.GetProblems()) != 0 || s.GetGone() != 0 || !s.GetFrom().AsTime().Equal(epoch) {
				t.Errorf("summary: %v", s)
			}
		})
	}
}

func TestSinceCutsWhatIsToldAndNotWhatIsPlayed(t *testing.T) {
	log := story()
	w := run(t, backtest.Options{Log: log, Rules: compile(t, newRules), Since: 2 * time.Minute}) // from 2m15s on
	if got, want := lines(w.firings), []string{"Long a 2m30s 3m0s 11", "Watched b 3m15s still 30", "Long b 3m45s still 30"}; !slices.Equal(got, want) {
		t.Errorf("firings %q, want %q", got, want)
	}
	w = run(t, backtest.Options{Log: log, Rules: compile(t, newRules), Since: 90 * time.Second}) // from 2m45s on
	if !w.firings[0].GetBeganBefore() || w.firings[1].GetBeganBefore() {
		t.Errorf("began before: %v, %v", w.firings[0].GetBeganBefore(), w.firings[1].GetBeganBefore())
	}
	if r := w.summary.GetRules()[0]; r.GetFiring().AsDuration() != 45*time.Second || r.GetShortest() != nil {
		t.Errorf("what began before counts from the beginning of the time, and is no shortest: %v", r)
	}
}

func TestNoTimeOfAnAlertThatFlapsCountsTwice(t *testing.T) {
	log := &recorded{at: epoch}
	log.play("a", 0, 20, 0, 20, 0, 20, 0)
	for range 40 {
		log.play("a", 20)
	}
	w := run(t, backtest.Options{Log: log, Rules: compile(t, "groups: [{name: g, rules: [{alert: Flaps, on: endpoint, expr: jobs.in_queue > 10, flapping: {window: 5m, transitions: 4}}]}]")})
	// The notice is over when it has fired for 5 minutes; what is told then fires since.
	want := []string{"Flaps a 15s 30s 20", "Flaps a 45s 1m0s 20", "Flaps a 1m15s 6m45s 20", "Flaps a 1m45s still 20"}
	if got := lines(w.firings); !slices.Equal(got, want) {
		t.Fatalf("firings:\n%s\nwant:\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	end := log.messages[len(log.messages)-1].Time.Sub(epoch)
	row := w.summary.GetRules()[0]
	if total := 30*time.Second + end - 75*time.Second; row.GetFirings() != 4 || row.GetFlaps() != 2 || row.GetFiring().AsDuration() != total {
		t.Errorf("%v, want 4 firings, 2 flaps and %v", row, total)
	}
}

// TestBacktestsEqualTheLiveFold plays random stories by the fold as tests of rules
// and the alerter use it, and compares every transition, ids included.
func TestBacktestsEqualTheLiveFold(t *testing.T) {
	const rules = `
groups:
- name: g
  rules:
  - {alert: Now, on: endpoint, expr: jobs.in_queue > 10}
  - {alert: Waits, on: endpoint, expr: jobs.in_queue > 5, for: 1m, keep_firing_for: 30s}
  - {alert: Latched, on: endpoint, expr: jobs.in_queue > 15, until: "max(jobs.in_queue, '1m') < 3"}
  - {alert: Flaps, on: endpoint, expr: jobs.in_queue > 8, flapping: {window: 5m, transitions: 4}}
  - {alert: Often, on: endpoint, expr: jobs.in_queue > 4, times: 2 of 4 x 30s}
  - {alert: Silent, on: endpoint, expr: absent('2m')}
`
	program, err := engine.CompileFiles(map[string][]byte{"r.yaml": []byte(rules)}, nil)
	if err != nil {
		t.Fatal(err)
	}
	fired := map[string]int{}
	for seed := range uint64(8) {
		r := rand.New(rand.NewPCG(seed, 1))
		p, err := player.New(program)
		if err != nil {
			t.Fatal(err)
		}
		log := &recorded{at: player.Beginning}
		log.add(&eventv1.Event{Fact: &eventv1.Event_RuleSetActivated{RuleSetActivated: &eventv1.RuleSetActivated{Hash: program.Hash()}}})
		log.add(&eventv1.Event{Fact: &eventv1.Event_CollectorStarted{CollectorStarted: &eventv1.CollectorStarted{}}})
		for range 800 {
			p.Wait(time.Duration(r.IntN(10)) * time.Second)
			if r.IntN(150) == 0 {
				p.Wait(time.Hour)
			}
			log.at = p.Now()
			e := tick()
			if r.IntN(3) > 0 {
				e = queue(fmt.Sprint("e", r.IntN(3)), int64(r.IntN(20)), p.Now())
			}
			// A player has all targets in one partition.
			data, err := event.Marshal(e)
			if err != nil {
				t.Fatal(err)
			}
			log.store(event.PartitionSubject(0, "any"), data)
			if err := p.Play(e); err != nil {
				t.Fatal(err)
			}
		}
		got := run(t, backtest.Options{Log: log, LogID: "player", Rules: backtest.Compiled(program)})
		want := map[string]string{}
		for _, tr := range p.Transitions() {
			if tr.GetKind() == alertv1.TransitionKind_TRANSITION_KIND_RENEWED {
				continue
			}
			a := tr.GetAlert()
			want[a.GetId()] = fmt.Sprint(a.GetRule(), a.GetTarget().GetId(), a.GetFiredAt().AsTime(), a.GetResolvedAt().AsTime(), a.GetResolveReason(), a.GetFlapping())
			if tr.GetKind() == alertv1.TransitionKind_TRANSITION_KIND_FIRING {
				fired[a.GetRule()]++
			}
		}
		for _, f := range got.firings {
			a := f.GetAlert()
			is := fmt.Sprint(a.GetRule(), a.GetTarget().GetId(), a.GetFiredAt().AsTime(), a.GetResolvedAt().AsTime(), a.GetResolveReason(), a.GetFlapping())
			if want[a.GetId()] != is {
				t.Fatalf("seed %d: the backtest tells %s, the live fold %s", seed, is, want[a.GetId()])
			}
			delete(want, a.GetId())
		}
		if len(want) > 0 {
			t.Fatalf("seed %d: the backtest lacks %v", seed, want)
		}
	}
	for _, rule := range program.Set().Rules() {
		if fired[rule.Alert] == 0 {
			t.Errorf("no story made %s fire", rule.Alert)
		}
	}
}

func TestWhatCannotBeReadIsCounted(t *testing.T) {
	log := story()
	log.store(event.PartitionSubject(3, "health_sampled"), []byte("garbage"))
	log.store(event.PartitionSubject(3, "health_sampled"), []byte("more garbage"))
	log.store("tocsin.event.strange", nil)
	log.play("a", 1)
	w := run(t, backtest.Options{Log: log, Rules: compile(t, newRules)})
	p := w.summary.GetProblems()
	if len(p) != 2 || p[0].GetKind() != "undecodable_event" || p[0].GetCount() != 2 || p[1].GetCount() != 1 {
		t.Errorf("problems: %v", p)
	}
	if len(w.firings) != 5 {
		t.Errorf("%d firings, want 5 whatever else there is", len(w.firings))
	}
}

func TestHolesAreCounted(t *testing.T) {
	log := story()
	log.messages = slices.Delete(log.messages, 70, 75)
	if w := run(t, backtest.Options{Log: log, Rules: compile(t, newRules)}); w.summary.GetGone() != 5 {
		t.Errorf("%d are gone, want 5", w.summary.GetGone())
	}
	log.messages = log.messages[10:]
	if w := run(t, backtest.Options{Log: log, Rules: compile(t, newRules)}); w.summary.GetGone() != 5 {
		t.Errorf("%d are gone, want 5: what is older than the log is no hole", w.summary.GetGone())
	}
}

func TestEnds(t *testing.T) {
	rules := compile(t, newRules)
	stopped := errors.New("stopped")
	for name, c := range map[string]struct {
		log  *recorded
		o    backtest.Options
		tell error
		want error
	}{
		"nothing recorded": {log: &recorded{}, want: fault.NotFound},
		"the log was cut":  {log: func() *recorded { l := story(); l.onRead = atMessage(100, bus.ErrStreamReplaced); return l }(), want: fault.Conflict},
		"NATS failed":      {log: func() *recorded { l := story(); l.onRead = atMessage(100, bus.ErrClosed); return l }(), want: bus.ErrClosed},
		"nobody listens":   {log: story(), tell: stopped, want: stopped},
	} {
		t.Run(name, func(t *testing.T) {
			c.o.Log, c.o.Rules = c.log, rules
			err := backtest.Run(t.Context(), c.o, func(*rulev1.BacktestResponse) error { return c.tell })
			if !errors.Is(err, c.want) {
				t.Errorf("it ended with %v, want %v", err, c.want)
			}
		})
	}
}

func atMessage(seq uint64, err error) func(bus.Delivery) error {
	return func(d bus.Delivery) error {
		if d.Seq == seq {
			return err
		}
		return nil
	}
}

func TestItEndsWithItsContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	log := story()
	log.onRead = func(d bus.Delivery) error {
		if d.Seq == 200 {
			cancel()
		}
		return nil
	}
	// The log that a message more would be read of says so.
	err := backtest.Run(ctx, backtest.Options{Log: log, Rules: compile(t, newRules)}, func(*rulev1.BacktestResponse) error { return nil })
	if !errors.Is(err, context.Canceled) {
		t.Errorf("it ended with %v", err)
	}
}

func TestTooManyTargetsEndIt(t *testing.T) {
	log := &recorded{at: epoch}
	for i := range 20_000 {
		log.add(queue(fmt.Sprint("e", i), 1, epoch))
	}
	for _, workers := range []int{1, 2} {
		err := backtest.Run(t.Context(), backtest.Options{Log: log, Rules: compile(t, newRules), MaxTargets: 1000, Workers: workers}, func(*rulev1.BacktestResponse) error { return nil })
		if !errors.Is(err, fault.Exhausted) || !strings.Contains(err.Error(), "1000 targets") {
			t.Errorf("it ended with %v", err)
		}
	}
}

func TestTooManyConditionsEndIt(t *testing.T) {
	log := &recorded{at: epoch}
	const endpoints = 100
	for i := range endpoints {
		log.add(queue(fmt.Sprint("e", i), 1, epoch))
	}
	rules := func(conditions int) backtest.Rules {
		var b strings.Builder
		b.WriteString("groups:\n- name: g\n  rules:\n")
		for i := range conditions {
			fmt.Fprintf(&b, "  - {alert: A%d, on: endpoint, expr: \"count_true(jobs.in_queue > %d, '1h', '1m') > 3\"}\n", i, i)
		}
		return compile(t, b.String())
	}
	for _, c := range []struct {
		rules, against, most int
		ends                 bool
	}{
		{20, 0, 20 * endpoints, false},
		{20, 0, 20*endpoints - 1, true},
		{20, 10, 30 * endpoints, false},
		{20, 10, 30*endpoints - 1, true},
		{20, 10, 0, false}, // no bound
	} {
		for _, workers := range []int{1, 2} {
			o := backtest.Options{Log: log, Rules: rules(c.rules), MaxConditions: c.most, Workers: workers}
			if c.against > 0 {
				o.Against = new(rules(c.against))
			}
			err := backtest.Run(t.Context(), o, func(*rulev1.BacktestResponse) error { return nil })
			if !c.ends && err != nil || c.ends && (!errors.Is(err, fault.Exhausted) || !strings.Contains(err.Error(), fmt.Sprint(c.most, " courses of conditions")) || !strings.Contains(err.Error(), "--nats")) {
				t.Errorf("%+v with %d workers: it ended with %v", c, workers, err)
			}
		}
	}
}

func TestOnlyTheEarliestFiringsAreToldAndAllAreCounted(t *testing.T) {
	log := &recorded{at: epoch}
	const most, times = 100, 100/8 + 10
	for i := range 2 * times {
		for e := range 8 {
			log.add(queue(fmt.Sprint("e", e), int64(i%2)*2000, log.at))
		}
		log.at = log.at.Add(15 * time.Second)
	}
	w := run(t, backtest.Options{Log: log, Rules: compile(t, "groups: [{name: g, rules: [{alert: Up, on: endpoint, expr: jobs.in_queue > 1000}]}]"), Workers: 4, MaxFirings: most})
	if len(w.firings) != most || w.summary.GetFiringsLeftOut() != 8*times-most || w.summary.GetRules()[0].GetFirings() != 8*times {
		t.Errorf("%d told, %d left out, %d counted", len(w.firings), w.summary.GetFiringsLeftOut(), w.summary.GetRules()[0].GetFirings())
	}
	if last := w.firings[len(w.firings)-1].GetAlert().GetFiredAt().AsTime(); !last.Before(log.at.Add(-4 * time.Minute)) {
		t.Errorf("the last one told fired at %v: it is not the latest that are left out", last)
	}
}

func TestEventsAreNotChanged(t *testing.T) {
	// Two folds share one decoded event, hence a fold must leave it as it is.
	e := queue("a", 20, epoch)
	before := proto.CloneOf(e)
	program, err := engine.CompileFiles(map[string][]byte{"r.yaml": []byte(newRules)}, nil)
	if err != nil {
		t.Fatal(err)
	}
	p, err := player.New(program)
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Play(e); err != nil {
		t.Fatal(err)
	}
	p.Wait(time.Minute)
	if err := p.Tick(); err != nil || !proto.Equal(e, before) {
		t.Errorf("%v: the event is %v, was %v", err, e, before)
	}
}
