package trial

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/tocsin-dev/tocsin/internal/bus"
	"github.com/tocsin-dev/tocsin/internal/fault"
	rulev1 "github.com/tocsin-dev/tocsin/proto/gen/tocsin/rule/v1"
	"github.com/tocsin-dev/tocsin/services/alerter/internal/engine"
)

// caller is a caller who reads, or never does.
type caller struct {
	grpc.ServerStream
	ctx  context.Context
	deaf bool
}

func (c *caller) Context() context.Context { return c.ctx }

func (c *caller) Send(*rulev1.BacktestResponse) error {
	if c.deaf {
		<-c.ctx.Done()
	}
	return nil
}

func handler(t *testing.T, connect func(context.Context) (*bus.Conn, error)) *Handler {
	t.Helper()
	program, err := engine.CompileFiles(map[string][]byte{"own.yaml": []byte("groups: [{name: g, rules: [{alert: A, on: endpoint, expr: jobs.in_queue > 1}]}]")}, nil)
	if err != nil {
		t.Fatal(err)
	}
	return New(Options{
		Connect: connect, LogID: func() string { return "log" }, Configured: func() *engine.Program { return program },
		Speed: 1, Log: slog.New(slog.DiscardHandler), Registerer: prometheus.NewRegistry(),
	})
}

func TestOneRunsAtATime(t *testing.T) {
	connecting, away := make(chan struct{}), errors.New("away")
	h := handler(t, func(ctx context.Context) (*bus.Conn, error) {
		connecting <- struct{}{}
		<-ctx.Done()
		return nil, away
	})
	ctx, cancel := context.WithCancel(t.Context())
	first := make(chan error, 1)
	go func() { first <- h.Backtest(&rulev1.BacktestRequest{}, &caller{ctx: ctx}) }()
	<-connecting
	err := h.Backtest(&rulev1.BacktestRequest{}, &caller{ctx: t.Context()})
	if !errors.Is(err, fault.Exhausted) || !strings.Contains(err.Error(), "wait for its end") {
		t.Errorf("the second: %v", err)
	}
	cancel()
	if err := <-first; !errors.Is(err, away) || !errors.Is(err, fault.Unavailable) {
		t.Errorf("the first: %v", err)
	}
	ctx, cancel = context.WithCancel(t.Context())
	go func() { <-connecting; cancel() }()
	if err := h.Backtest(&rulev1.BacktestRequest{}, &caller{ctx: ctx}); !errors.Is(err, away) {
		t.Errorf("the third, after both: %v", err)
	}
	if refused, failed := testutil.ToFloat64(h.results.WithLabelValues("refused")), testutil.ToFloat64(h.results.WithLabelValues("failed")); refused != 1 || failed != 2 {
		t.Errorf("%v refused, %v failed; want 1 and 2", refused, failed)
	}
}

func TestWhatIsWrongIsRefusedWhole(t *testing.T) {
	h := handler(t, func(context.Context) (*bus.Conn, error) {
		t.Error("it went on")
		return nil, errors.New("unused")
	})
	file := func(name, expr string) *rulev1.RuleFile {
		return &rulev1.RuleFile{Name: name, Text: []byte("groups: [{name: g, rules: [{alert: A, on: endpoint, expr: " + expr + "}]}]")}
	}
	for name, c := range map[string]struct {
		req  *rulev1.BacktestRequest
		kind error
		want []string
	}{
		"wrong rules of both": {
			&rulev1.BacktestRequest{Files: []*rulev1.RuleFile{file("new.yaml", "jobs.in_que > 1")}, Against: []*rulev1.RuleFile{file("old.yaml", "jobs.faild > 1")}},
			fault.Invalid,
			[]string{"new.yaml:1:", "did you mean `jobs.in_queue`?", "old.yaml:1:", "did you mean `jobs.failed`?"},
		},
		"too much": {
			&rulev1.BacktestRequest{Files: []*rulev1.RuleFile{{Name: "big.yaml", Text: make([]byte, maxRules)}}, Against: []*rulev1.RuleFile{{Text: []byte("x")}}},
			fault.TooLarge,
			[]string{"1048577 bytes"},
		},
		"a negative time": {&rulev1.BacktestRequest{Since: durationpb.New(-1)}, fault.Invalid, []string{"since"}},
		"a wrong pattern": {
			&rulev1.BacktestRequest{Targets: []*rulev1.TargetPattern{{Match: "("}}}, fault.Invalid, []string{"targets"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			err := h.Backtest(c.req, &caller{ctx: t.Context()})
			if !errors.Is(err, c.kind) {
				t.Fatalf("%v, want %v", err, c.kind)
			}
			for _, want := range c.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("no %q in %v", want, err)
				}
			}
		})
	}
}

func TestWhatIsHeldBesideTheLiveStateIsBounded(t *testing.T) {
	h := handler(t, nil)
	for _, req := range []*rulev1.BacktestRequest{
		{}, {Against: []*rulev1.RuleFile{{Name: "old.yaml", Text: []byte("groups: [{name: g, rules: [{alert: A, on: endpoint, expr: jobs.in_queue > 2}]}]")}}},
	} {
		if o, err := h.options(req); err != nil || o.MaxTargets != maxTargets || o.MaxConditions != maxConditions {
			t.Errorf("%v: %d targets and %d conditions, %v", req, o.MaxTargets, o.MaxConditions, err)
		}
	}
}

func TestADeafCallerHoldsNothingUpForEver(t *testing.T) {
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(errLong)
	if err := send(ctx, &caller{ctx: t.Context(), deaf: true}, &rulev1.BacktestResponse{}); !errors.Is(err, fault.Timeout) {
		t.Errorf("%v, want that it took too long", err)
	}
}
