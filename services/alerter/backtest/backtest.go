// Package backtest plays the recorded events of the event log through rules, by the
// very fold that runs in the alerter, and tells what would have fired.
//
// It changes nothing: it reads the log by a consumer of its own that the server
// forgets, publishes nothing, and knows no Redis. The rules that it tries are in
// force from the oldest event on, whatever the log says of rule sets; all else is
// played as recorded, ticks too, so that time passes as it did.
//
// Everything that the log still has is played, also what was recorded before the
// time that is asked about: windows, waits, latches of `until` and what is known of
// targets are then as they were in the alerter, as far as the log reaches back. Only
// firings that end within the time that was asked about are told.
package backtest

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/tocsin-dev/tocsin/internal/bus"
	"github.com/tocsin-dev/tocsin/internal/event"
	"github.com/tocsin-dev/tocsin/internal/fault"
	rulev1 "github.com/tocsin-dev/tocsin/proto/gen/tocsin/rule/v1"
	"github.com/tocsin-dev/tocsin/services/alerter/internal/engine"
	"github.com/tocsin-dev/tocsin/services/alerter/internal/firing"
	"github.com/tocsin-dev/tocsin/services/alerter/rulefile"
)

const (
	// maxFirings is how many firings of one set of rules are told one by one, the
	// earliest; all are counted. At about 1 KiB each they are 10 MiB.
	maxFirings = 10_000
	// maxProblems bounds the kinds of problems that are told: a rule that always fails
	// is one of them.
	maxProblems = 50
	// precision is by how much an instant of engine time, which has milliseconds, may
	// lie before that of its message.
	precision = time.Millisecond
	// progressEvery is how often progress is told.
	progressEvery = 500 * time.Millisecond
)

// Log is the part of the bus that reads the event log.
type Log interface {
	// StreamState returns what a stream holds now.
	StreamState(ctx context.Context, name string) (bus.StreamState, error)
	// Last returns the newest message of a subject; ok is false when there is none.
	Last(ctx context.Context, stream, subject string) (d bus.Delivery, ok bool, err error)
	// At returns the message with a sequence; ok is false when there is none.
	At(ctx context.Context, stream string, seq uint64) (d bus.Delivery, ok bool, err error)
	// Read calls handle for each message in order, until handle returns an error,
	// which it returns.
	Read(ctx context.Context, o bus.ReadOptions, handle func(bus.Delivery) error) error
}

// Rules are compiled rules.
type Rules struct{ program *engine.Program }

// Compile compiles rules, content by file name. Its error joins every mistake as a
// *rulefile.MistakeError.
func Compile(files map[string][]byte, targets []rulefile.TargetPattern) (Rules, error) {
	program, err := engine.CompileFiles(files, targets)
	return Rules{program}, err
}

// Compiled are rules that were compiled before.
func Compiled(program *engine.Program) Rules { return Rules{program} }

// Options say what to play.
type Options struct {
	// Log is where events are recorded.
	Log Log
	// LogID names the log in the ids of alerts, which are those that the alerter
	// gives if it is the alerter's. Empty stands for a name of no log.
	LogID string
	// Rules are the ones to try.
	Rules Rules
	// Against are rules to compare with; nil compares with nothing.
	Against *Rules
	// Since is how far back from the newest event firings count. 0 means all.
	Since time.Duration
	// Speed is how many times faster than the log's timestamps the rules run; 0
	// stands for 1, which it is but in a demo.
	Speed float64
	// Workers is how many goroutines fold; 0 stands for one on each processor. With
	// 1 the reader folds by itself.
	Workers int
	// Gentle makes it give way where there is one processor only: it rests for as
	// long as it worked.
	Gentle bool
	// MaxFirings bounds the firings that are told one by one, for each set of rules;
	// 0 stands for 10,000.
	MaxFirings int
	// MaxTargets bounds the targets that are held in memory, about 2 KiB each and 10
	// KiB at most, for each set of rules; 0 leaves it to the fold's own bound, which
	// is 20,000 for each of 64 partitions.
	MaxTargets int
	// MaxConditions bounds the courses of conditions that are held in memory, one for
	// each count_true and target, and for each category of failed jobs, 24 KiB each at
	// most, for all sets of rules together; 0 is no bound.
	MaxConditions int
}

// Run plays the log up to what is its newest message now, and calls tell with the
// progress, then with each firing, then with the summary. It returns tell's first
// error as it is, ctx's error, or one of a kind: [fault.NotFound] when nothing is
// recorded, [fault.Exhausted] when there are too many targets or courses of
// conditions, [fault.Conflict] when the log was cut or replaced meanwhile.
func Run(ctx context.Context, o Options, tell func(*rulev1.BacktestResponse) error) error {
	if o.Workers == 0 {
		o.Workers = runtime.GOMAXPROCS(0)
	}
	if o.Speed == 0 {
		o.Speed = 1
	}
	if o.MaxFirings == 0 {
		o.MaxFirings = maxFirings
	}
	s, err := look(ctx, &o)
	if err != nil {
		return err
	}
	f := newFold(&o, s.counts)
	done, err := read(ctx, &o, s, f, tell)
	if err != nil {
		return err
	}
	summary := &rulev1.BacktestSummary{
		From: timestamppb.New(s.from), To: timestamppb.New(s.newest.Time), Oldest: timestamppb.New(s.oldest.Time),
		Events: done.events, Gone: done.gone, Problems: f.problems(), Targets: uint64(f.targets()),
	}
	if done.strays > 0 {
		summary.Problems = append(summary.Problems, &rulev1.BacktestProblem{
			Kind: string(engine.UndecodableEvent), Detail: "a message whose subject names no partition", Count: done.strays,
		})
	}
	return conclude(f, s.newest.Time, summary, tell)
}

// conclude tells the firings and the summary.
func conclude(f *fold, end time.Time, summary *rulev1.BacktestSummary, tell func(*rulev1.BacktestResponse) error) error {
	var told [][]*rulev1.BacktestFiring
	for i, side := range f.sides {
		for i, b := range side.books {
			b.Close(end, side.partitions[i].Alerts())
		}
		firings, leftOut := side.shelf.Firings()
		told = append(told, firings)
		summary.FiringsLeftOut += leftOut
		summary.Rules = append(summary.Rules, side.table(i > 0)...)
	}
	if len(told) > 1 {
		summary.Comparisons = firing.Compare(told[0], told[1], end)
	}
	for _, firings := range told {
		for _, one := range firings {
			if err := tell(&rulev1.BacktestResponse{Part: &rulev1.BacktestResponse_Firing{Firing: one}}); err != nil {
				return err
			}
		}
	}
	return tell(&rulev1.BacktestResponse{Part: &rulev1.BacktestResponse_Summary{Summary: summary}})
}

// table lists what came of each rule, in the order of the files.
func (s *side) table(old bool) []*rulev1.BacktestRule {
	sum := firing.Sum(s.all())
	var rows []*rulev1.BacktestRule
	seen := map[firing.Rule]bool{}
	for _, r := range s.program.Set().Rules() {
		rule := firing.Rule{Group: r.Group, Name: r.Alert}
		if seen[rule] {
			continue // the same with other labels: told as one
		}
		seen[rule] = true
		row := &rulev1.BacktestRule{Group: r.Group, Rule: r.Alert, Old: old, Firing: durationpb.New(0)}
		if t := sum[rule]; t != nil {
			row.Firings, row.StillFiring, row.Flaps, row.Firing = t.Firings, t.Still, t.Flaps, durationpb.New(t.Total)
			if t.Shortest > 0 {
				row.Shortest = durationpb.New(t.Shortest)
			}
		}
		rows = append(rows, row)
	}
	return rows
}

// span is the part of the log that is played.
type span struct {
	oldest, newest bus.Delivery
	from           time.Time // the beginning of the time in which firings count
	counts         time.Time // firings count that end after it
}

// look finds what there is to play.
func look(ctx context.Context, o *Options) (span, error) {
	state, err := o.Log.StreamState(ctx, bus.EventsStream)
	if errors.Is(err, bus.ErrStreamNotFound) {
		return span{}, fault.Newf(fault.NotFound, "there is no event log (stream %s) on this server: nothing was recorded", bus.EventsStream)
	}
	if err != nil {
		return span{}, fmt.Errorf("look at the event log: %w", err)
	}
	var s span
	var ok bool
	if s.newest, ok, err = o.Log.Last(ctx, bus.EventsStream, event.Root+".>"); err != nil {
		return span{}, fmt.Errorf("find the newest event: %w", err)
	}
	if !ok {
		return span{}, fault.New(fault.NotFound, "the event log is empty: nothing was recorded yet, or everything is older than it keeps (7 days)")
	}
	s.oldest, ok, err = o.Log.At(ctx, bus.EventsStream, state.FirstSeq)
	if err != nil {
		return span{}, fmt.Errorf("find the oldest event: %w", err)
	}
	if !ok {
		s.oldest = bus.Delivery{Seq: state.FirstSeq, Time: s.newest.Time} // it went meanwhile; read tells better
	}
	s.from = s.oldest.Time
	s.counts = s.from.Add(-precision)
	if since := s.newest.Time.Add(-o.Since); o.Since > 0 && since.After(s.from) {
		s.from, s.counts = since, since
	}
	return s, nil
}
