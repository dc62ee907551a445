package alerter_test

import (
	"fmt"
	"io"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/tocsin-dev/tocsin/internal/bus"
	"github.com/tocsin-dev/tocsin/internal/rpc"
	alertv1 "github.com/tocsin-dev/tocsin/proto/gen/tocsin/alert/v1"
	rulev1 "github.com/tocsin-dev/tocsin/proto/gen/tocsin/rule/v1"
)

// backtest asks the alerter for one and returns its firings and its summary.
func (r *running) backtest(req *rulev1.BacktestRequest) (firings []*rulev1.BacktestFiring, summary *rulev1.BacktestSummary, err error) {
	r.t.Helper()
	conn, err := rpc.Dial(r.address.GRPC, rpc.DialOptions{})
	if err != nil {
		r.t.Fatal(err)
	}
	defer conn.Close()
	stream, err := rulev1.NewRuleServiceClient(conn).Backtest(r.t.Context(), req)
	if err != nil {
		return nil, nil, err
	}
	for {
		part, err := stream.Recv()
		switch {
		case err == io.EOF: //nolint:errorlint // gRPC returns it as it is
			return firings, summary, nil
		case err != nil:
			return nil, nil, err
		case part.GetFiring() != nil:
			firings = append(firings, part.GetFiring())
		case part.GetSummary() != nil:
			summary = part.GetSummary()
		}
	}
}

func TestABacktestTellsWhatTheNotifierWasTold(t *testing.T) {
	w := newWorld(t)
	a := w.start().await(64).inForce()
	for i := range 400 {
		w.queue(fmt.Sprint("e", i%7), int64(i*i%23))
	}
	before, err := w.conn.StreamState(t.Context(), bus.EventsStream)
	if err != nil {
		t.Fatal(err)
	}
	firings, summary, err := a.backtest(&rulev1.BacktestRequest{})
	if err != nil {
		t.Fatal(err)
	}
	if len(firings) < 20 {
		t.Errorf("only %d firings", len(firings))
	}
	// The notifier is told later at most, and of nothing else.
	eventually(t, "the notifier is told what the backtest tells", func() error {
		told := map[string]*alertv1.Alert{}
		for i := range 7 {
			for _, tr := range w.notifier.told(fmt.Sprint("e", i)) {
				told[tr.GetAlert().GetId()] = tr.GetAlert()
			}
		}
		if len(told) != len(firings) {
			return fmt.Errorf("%d alerts were told, the backtest tells %d", len(told), len(firings))
		}
		for _, f := range firings {
			was, is := told[f.GetAlert().GetId()], f.GetAlert()
			if !was.GetFiredAt().AsTime().Equal(is.GetFiredAt().AsTime()) || !was.GetResolvedAt().AsTime().Equal(is.GetResolvedAt().AsTime()) || was.GetFingerprint() != is.GetFingerprint() {
				return fmt.Errorf("the backtest tells %v, the notifier was told %v", is, was)
			}
		}
		return nil
	})
	if summary.GetTargets() != 7 || summary.GetEvents() < 400 {
		t.Errorf("summary: %v", summary)
	}
	after, err := w.conn.StreamState(t.Context(), bus.EventsStream)
	if err != nil || after.FirstSeq != before.FirstSeq {
		t.Errorf("the log begins at %d, began at %d: %v", after.FirstSeq, before.FirstSeq, err)
	}
	_, _, err = a.backtest(&rulev1.BacktestRequest{Files: []*rulev1.RuleFile{{Name: "r.yaml", Text: []byte("groups: [{name: g, rules: [{alert: A, on: endpoint, expr: jobs.in_que > 1}]}]")}}})
	if status.Code(err) != codes.InvalidArgument || !strings.Contains(err.Error(), "did you mean `jobs.in_queue`?") {
		t.Errorf("wrong rules: %v", err)
	}
}
