package backtest_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/tocsin-dev/tocsin/internal/bus"
	"github.com/tocsin-dev/tocsin/internal/event"
	eventv1 "github.com/tocsin-dev/tocsin/proto/gen/tocsin/event/v1"
	rulev1 "github.com/tocsin-dev/tocsin/proto/gen/tocsin/rule/v1"
	"github.com/tocsin-dev/tocsin/services/alerter/backtest"
)

// epoch is when the logs of tests begin.
var epoch = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// recorded is an event log in memory, whose messages have the instants that a test
// wants.
type recorded struct {
	messages []bus.Delivery
	at       time.Time
	// onRead, if set, is asked before each message; its error ends the read.
	onRead func(d bus.Delivery) error
}

// add stores an event now, on its own partition.
func (r *recorded) add(e *eventv1.Event) {
	subject := event.PartitionSubject(0, event.Kind(e))
	if e.GetTarget() != nil {
		token := event.Token(e.GetTarget())
		subject = fmt.Sprintf("%s.%d.%s.%s", event.Root, event.Partition(token), event.Kind(e), token)
	}
	data, err := proto.Marshal(e)
	if err != nil {
		panic(err)
	}
	r.store(subject, data)
}

func (r *recorded) store(subject string, data []byte) {
	r.messages = append(r.messages, bus.Delivery{Subject: subject, Data: data, Seq: uint64(len(r.messages) + 1), Time: r.at})
}

// ticks lets time pass in all partitions.
func (r *recorded) ticks() {
	for p := range event.Partitions {
		data, err := proto.Marshal(tick())
		if err != nil {
			panic(err)
		}
		r.store(event.PartitionSubject(p, event.KindTick), data)
	}
}

func (r *recorded) StreamState(context.Context, string) (bus.StreamState, error) {
	if len(r.messages) == 0 {
		return bus.StreamState{FirstSeq: 1}, nil
	}
	return bus.StreamState{FirstSeq: r.messages[0].Seq, LastSeq: r.messages[len(r.messages)-1].Seq, Messages: uint64(len(r.messages))}, nil
}

func (r *recorded) Last(context.Context, string, string) (bus.Delivery, bool, error) {
	if len(r.messages) == 0 {
		return bus.Delivery{}, false, nil
	}
	return r.messages[len(r.messages)-1], true, nil
}

func (r *recorded) At(_ context.Context, _ string, seq uint64) (bus.Delivery, bool, error) {
	for _, d := range r.messages {
		if d.Seq == seq {
			return d, true, nil
		}
	}
	return bus.Delivery{}, false, nil
}

func (r *recorded) Read(ctx context.Context, _ bus.ReadOptions, handle func(bus.Delivery) error) error {
	for i, d := range r.messages {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if r.onRead != nil {
			if err := r.onRead(d); err != nil {
				return err
			}
		}
		d.Pending = uint64(len(r.messages) - i - 1)
		if err := handle(d); err != nil {
			return err
		}
	}
	return errors.New("the end was not noticed")
}

func tick() *eventv1.Event { return &eventv1.Event{Fact: &eventv1.Event_Tick{Tick: &eventv1.Tick{}}} }

// queue is a sample of an endpoint with so many jobs waiting, at an instant.
func queue(id string, jobs int64, at time.Time) *eventv1.Event {
	return &eventv1.Event{
		Target: &eventv1.Target{Account: "acme", Kind: eventv1.TargetKind_TARGET_KIND_ENDPOINT, Id: id, Name: id},
		Source: eventv1.Source_SOURCE_POLL,
		Fact: &eventv1.Event_HealthSampled{HealthSampled: &eventv1.HealthSampled{
			PollSlotMs: at.UnixMilli(), Interval: durationpb.New(15 * time.Second), Jobs: &eventv1.JobCounts{InQueue: new(jobs)},
		}},
	}
}

// play adds samples of an endpoint, one every 15 s, and ticks.
func (r *recorded) play(id string, queues ...int64) {
	for _, jobs := range queues {
		r.add(queue(id, jobs, r.at))
		r.at = r.at.Add(15 * time.Second)
		r.ticks()
	}
}

// compile compiles rules and ends the test if they are wrong.
func compile(t testing.TB, rules string) backtest.Rules {
	t.Helper()
	r, err := backtest.Compile(map[string][]byte{"rules.yaml": []byte(rules)}, nil)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// told is what a backtest told.
type told struct {
	progress     int
	firings, old []*rulev1.BacktestFiring
	summary      *rulev1.BacktestSummary
}

func (w *told) take(part *rulev1.BacktestResponse) error {
	switch f := part.GetFiring(); {
	case part.GetProgress() != nil:
		w.progress++
	case f.GetOld():
		w.old = append(w.old, f)
	case f != nil:
		w.firings = append(w.firings, f)
	default:
		w.summary = part.GetSummary()
	}
	return nil
}

// run runs a backtest and ends the test if it fails.
func run(t testing.TB, o backtest.Options) *told {
	t.Helper()
	var w told
	if err := backtest.Run(t.Context(), o, w.take); err != nil {
		t.Fatal(err)
	}
	return &w
}

// lines writes firings as "rule target start end worst", in minutes since epoch.
func lines(firings []*rulev1.BacktestFiring) []string {
	var all []string
	for _, f := range firings {
		a := f.GetAlert()
		end := "still"
		if a.GetResolvedAt() != nil {
			end = a.GetResolvedAt().AsTime().Sub(epoch).String()
		}
		worst := "-"
		if f.GetWorst() != nil {
			worst = fmt.Sprint(f.GetWorst().GetNumber())
		}
		all = append(all, fmt.Sprint(a.GetRule(), " ", a.GetTarget().GetId(), " ", a.GetFiredAt().AsTime().Sub(epoch), " ", end, " ", worst))
	}
	return all
}
