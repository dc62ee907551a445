package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/tocsin-dev/tocsin/cmd/tocsin/internal/cli"
	"github.com/tocsin-dev/tocsin/internal/bus"
	"github.com/tocsin-dev/tocsin/internal/event"
	eventv1 "github.com/tocsin-dev/tocsin/proto/gen/tocsin/event/v1"
	rulev1 "github.com/tocsin-dev/tocsin/proto/gen/tocsin/rule/v1"
	"github.com/tocsin-dev/tocsin/services/alerter/backtest"
	"github.com/tocsin-dev/tocsin/services/notifier"
	"github.com/tocsin-dev/tocsin/services/notifier/forecast"
)

// dated is an event log in memory whose messages have the instants of a story.
type dated []bus.Delivery

func (l dated) StreamState(context.Context, string) (bus.StreamState, error) {
	return bus.StreamState{FirstSeq: 1, LastSeq: uint64(len(l))}, nil
}

func (l dated) Last(context.Context, string, string) (bus.Delivery, bool, error) {
	return l[len(l)-1], true, nil
}

func (l dated) At(_ context.Context, _ string, seq uint64) (bus.Delivery, bool, error) {
	return l[seq-1], true, nil
}

func (l dated) Read(_ context.Context, _ bus.ReadOptions, handle func(bus.Delivery) error) error {
	for i, d := range l {
		d.Pending = uint64(len(l) - i - 1)
		if err := handle(d); err != nil {
			return err
		}
	}
	return errors.New("the end was not noticed")
}

// morning is the story of the rules page: six hours of two endpoints, polled every 15
// s, one of which has a long queue once and the other one twice.
func morning(t *testing.T) dated {
	t.Helper()
	var log dated
	begin := time.Date(2026, 11, 24, 6, 0, 0, 0, time.UTC)
	waiting := func(id string, minute int) int64 {
		switch {
		case id == "img7x2k9q4m" && minute >= 70 && minute < 95:
			return int64(150 + 4*(minute-70))
		case id == "llm3n5t6r8g" && minute >= 120 && minute < 140:
			return 80
		case id == "llm3n5t6r8g" && minute >= 350:
			return 130
		}
		return 3
	}
	for at := begin; at.Before(begin.Add(6 * time.Hour)); at = at.Add(15 * time.Second) {
		for _, id := range []string{"img7x2k9q4m", "llm3n5t6r8g"} {
			e := &eventv1.Event{
				Target: &eventv1.Target{Account: "default", Kind: eventv1.TargetKind_TARGET_KIND_ENDPOINT, Id: id}, Source: eventv1.Source_SOURCE_POLL,
				Fact: &eventv1.Event_HealthSampled{HealthSampled: &eventv1.HealthSampled{
					PollSlotMs: at.UnixMilli(), Interval: durationpb.New(15 * time.Second),
					Jobs: &eventv1.JobCounts{InQueue: new(waiting(id, int(at.Sub(begin).Minutes())))},
				}},
			}
			data, err := event.Marshal(e)
			if err != nil {
				t.Fatal(err)
			}
			token := event.Token(e.GetTarget())
			log = append(log, bus.Delivery{
				Subject: fmt.Sprintf("%s.%d.%s.%s", event.Root, event.Partition(token), event.KindHealthSampled, token),
				Data:    data, Seq: uint64(len(log) + 1), Time: at,
			})
		}
	}
	return log
}

func TestTheBacktestOfTheRulesPageIsReal(t *testing.T) {
	local := time.Local //nolint:gosmopolitan // what people read is in their time
	time.Local = time.UTC
	t.Cleanup(func() { time.Local = local })
	page, err := os.ReadFile(filepath.Join("..", "..", "docs", "rules.md"))
	if err != nil {
		t.Fatal(err)
	}
	_, text, _ := strings.Cut(string(page), "```yaml\n")
	text, _, _ = strings.Cut(text, "```")
	compile := func(text string) backtest.Rules {
		rules, err := backtest.Compile(map[string][]byte{"my-rules.yaml": []byte(text)}, nil)
		if err != nil {
			t.Fatal(err)
		}
		return rules
	}
	old := compile(strings.ReplaceAll(text, "threshold('queue_high', 100)", "threshold('queue_high', 50)"))
	r := record{since: 5 * time.Hour, compared: true}
	err = backtest.Run(t.Context(), backtest.Options{Log: morning(t), Rules: compile(text), Against: &old, Since: r.since},
		func(part *rulev1.BacktestResponse) error { r.take(part); return nil })
	if err != nil {
		t.Fatal(err)
	}
	routes, err := forecast.Default()
	if err != nil {
		t.Fatal(err)
	}
	if err := r.forecast(routes, notifier.DefaultConfig().InhibitionHold); err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	if err := r.print(cli.Terminal{Out: &out}); err != nil {
		t.Fatal(err)
	}
	var want strings.Builder
	for line := range strings.Lines(out.String()) {
		if line = strings.TrimRight(line, " \n"); line != "" {
			line = "    " + line
		}
		want.WriteString(line + "\n")
	}
	if !strings.Contains(string(page), want.String()) {
		t.Errorf("docs/rules.md does not show what comes of its story:\n%s", want.String())
	}
}
