package backtest

import (
	"cmp"
	"slices"
	"strings"
	"time"

	"github.com/tocsin-dev/tocsin/internal/bus"
	"github.com/tocsin-dev/tocsin/internal/event"
	eventv1 "github.com/tocsin-dev/tocsin/proto/gen/tocsin/event/v1"
	rulev1 "github.com/tocsin-dev/tocsin/proto/gen/tocsin/rule/v1"
	"github.com/tocsin-dev/tocsin/services/alerter/internal/engine"
	"github.com/tocsin-dev/tocsin/services/alerter/internal/eventlog"
	"github.com/tocsin-dev/tocsin/services/alerter/internal/firing"
)

const (
	// tidyEvery is after how many messages of a partition what only a store would need
	// is forgotten: as many as the alerter commits at once at most.
	tidyEvery = 20_000
	// noLog is the name of the log where nobody says one.
	noLog = "backtest"
)

// passing stands for the activation of a rule set: time passes, and the rules that
// are tried stay in force.
var passing = &eventv1.Event{Fact: &eventv1.Event_Tick{Tick: &eventv1.Tick{}}}

// fold is the state of all partitions by one or two sets of rules. What belongs to
// one partition is touched by one goroutine at a time.
type fold struct {
	sides []*side
	lots  [event.Partitions]lot
}

// side is the fold by one set of rules.
type side struct {
	program    *engine.Program
	shelf      *firing.Shelf
	partitions [event.Partitions]*engine.Partition
	books      [event.Partitions]*firing.Book
}

// lot is what is counted of a partition.
type lot struct {
	applied  uint64
	problems map[problemKey]*rulev1.BacktestProblem
}

type problemKey struct {
	kind engine.ProblemKind
	rule string
}

func newFold(o *Options, from time.Time) *fold {
	f := &fold{sides: []*side{newSide(o, o.Rules, from)}}
	if o.Against != nil {
		f.sides = append(f.sides, newSide(o, *o.Against, from))
	}
	return f
}

func newSide(o *Options, rules Rules, from time.Time) *side {
	s := &side{program: rules.program, shelf: firing.NewShelf(o.MaxFirings)}
	for i := range s.partitions {
		s.partitions[i] = engine.NewPartition(i, cmp.Or(o.LogID, noLog), o.Speed)
		s.partitions[i].Begin(rules.program)
		s.books[i] = firing.NewBook(from, s.shelf)
	}
	return s
}

// all lists the books.
func (s *side) all() []*firing.Book { return s.books[:] }

// apply plays a message of a partition: it is decoded once for all sets of rules.
// The fold does not change events.
func (f *fold) apply(partition int, d bus.Delivery) {
	m := eventlog.Message(d)
	if m.Event.GetRuleSetActivated() != nil {
		m.Event = passing
	}
	l := &f.lots[partition]
	l.applied++
	for i, s := range f.sides {
		// Its one error is about rule sets that are not loaded, and none is asked for.
		result, _ := s.partitions[partition].Step(m, s.find)
		if len(result.Changes) > 0 {
			s.books[partition].Changed(result.Changes)
		}
		if i == 0 && len(result.Problems) > 0 {
			l.note(result.Problems)
		}
	}
	if l.applied%tidyEvery == 0 {
		for _, s := range f.sides {
			s.partitions[partition].DropDelta()
			s.books[partition].Tidy(d.Time)
		}
	}
}

// find is the rule set whatever is asked for.
func (s *side) find(string) *engine.Program { return s.program }

// note counts problems by kind and rule.
func (l *lot) note(problems []engine.Problem) {
	if l.problems == nil {
		l.problems = map[problemKey]*rulev1.BacktestProblem{}
	}
	for _, p := range problems {
		key := problemKey{p.Kind, p.Rule}
		known := l.problems[key]
		if known == nil {
			if len(l.problems) >= maxProblems {
				continue
			}
			known = &rulev1.BacktestProblem{Kind: string(p.Kind), Rule: p.Rule, Detail: p.Detail}
			l.problems[key] = known
		}
		known.Count++
	}
}

// problems lists what went wrong in all partitions, most often first.
func (f *fold) problems() []*rulev1.BacktestProblem {
	sum := map[problemKey]*rulev1.BacktestProblem{}
	for i := range f.lots {
		for key, p := range f.lots[i].problems {
			if known := sum[key]; known != nil {
				known.Count += p.GetCount()
				continue
			}
			sum[key] = p
		}
	}
	all := make([]*rulev1.BacktestProblem, 0, len(sum))
	for _, p := range sum {
		all = append(all, p)
	}
	slices.SortFunc(all, func(a, b *rulev1.BacktestProblem) int {
		return cmp.Or(cmp.Compare(b.GetCount(), a.GetCount()), strings.Compare(a.GetKind(), b.GetKind()), strings.Compare(a.GetRule(), b.GetRule()))
	})
	return all[:min(len(all), maxProblems)]
}

// targets counts the targets that are known. Nobody may fold meanwhile.
func (f *fold) targets() int {
	n := 0
	for _, p := range f.sides[0].partitions {
		n += p.TargetCount()
	}
	return n
}
