package alerter_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	alertv1 "github.com/tocsin-dev/tocsin/proto/gen/tocsin/alert/v1"
	eventv1 "github.com/tocsin-dev/tocsin/proto/gen/tocsin/event/v1"
	queryv1 "github.com/tocsin-dev/tocsin/proto/gen/tocsin/query/v1"
)

const (
	pending = alertv1.AlertState_ALERT_STATE_PENDING
	firing  = alertv1.AlertState_ALERT_STATE_FIRING
)

// asked is a world with three busy endpoints, one with a long queue and a quiet
// one, and a client of the alerter that judges them.
func asked(t *testing.T) (*world, queryv1.QueryServiceClient) {
	t.Helper()
	w := newWorld(t)
	r := w.start().await(64).inForce()
	for _, id := range []string{"b1", "b2", "b3"} {
		w.queue(id, 20) // QueueHigh fires, QueueLong is pending
	}
	w.queue("long", 7) // QueueLong is pending
	w.queue("quiet", 0)
	q := r.query()
	eventually(t, "everything is known", func() error {
		out, err := q.ListTargets(t.Context(), &queryv1.ListTargetsRequest{})
		if err != nil {
			return err
		}
		if n := len(out.GetTargets()); n != 5 {
			return fmt.Errorf("%d targets, want 5", n)
		}
		if f := out.GetFreshness(); f.GetLag() == nil || f.GetLag().AsDuration() > 0 {
			return fmt.Errorf("freshness %v", f)
		}
		return nil
	})
	return w, q
}

// names lists alerts as rule/endpoint/state.
func names(alerts []*alertv1.Alert) []string {
	list := []string{}
	for _, a := range alerts {
		state := strings.ToLower(strings.TrimPrefix(a.GetState().String(), "ALERT_STATE_"))
		list = append(list, fmt.Sprintf("%s/%s/%s", a.GetRule(), a.GetTarget().GetId(), state))
	}
	slices.Sort(list)
	return list
}

func TestListAlerts(t *testing.T) {
	_, q := asked(t)
	for name, c := range map[string]struct {
		in   *queryv1.ListAlertsRequest
		want []string
	}{
		"all that are pending or firing": {
			&queryv1.ListAlertsRequest{},
			[]string{
				"QueueHigh/b1/firing", "QueueHigh/b2/firing", "QueueHigh/b3/firing",
				"QueueLong/b1/pending", "QueueLong/b2/pending", "QueueLong/b3/pending", "QueueLong/long/pending",
			},
		},
		"by state": {
			&queryv1.ListAlertsRequest{States: []alertv1.AlertState{firing}},
			[]string{"QueueHigh/b1/firing", "QueueHigh/b2/firing", "QueueHigh/b3/firing"},
		},
		"by matchers, which must all hold": {
			&queryv1.ListAlertsRequest{Matchers: []string{`endpoint_id=~"b[12]"`, `alertname!="QueueHigh"`}},
			[]string{"QueueLong/b1/pending", "QueueLong/b2/pending"},
		},
		"nothing that matches": {
			&queryv1.ListAlertsRequest{Matchers: []string{`team="nobody"`}},
			[]string{},
		},
	} {
		t.Run(name, func(t *testing.T) {
			out, err := q.ListAlerts(t.Context(), c.in)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(c.want, names(out.GetAlerts())); diff != "" {
				t.Errorf("alerts (-want +got):\n%s", diff)
			}
			if f := out.GetFreshness(); f.GetAppliedSequence() == 0 || f.GetLag() == nil {
				t.Errorf("freshness %v, want a sequence and a lag", f)
			}
			if out.GetNextPageToken() != "" {
				t.Error("one page has a next one")
			}
		})
	}
}

func TestPagesAreStable(t *testing.T) {
	w, q := asked(t)
	t.Run("alerts", func(t *testing.T) {
		in := &queryv1.ListAlertsRequest{PageSize: 2}
		var got []*alertv1.Alert
		for page := 0; ; page++ {
			out, err := q.ListAlerts(t.Context(), in)
			if err != nil {
				t.Fatal(err)
			}
			got = append(got, out.GetAlerts()...)
			if in.PageToken = out.GetNextPageToken(); in.GetPageToken() == "" {
				break
			}
			if len(out.GetAlerts()) != 2 {
				t.Errorf("page %d holds %d alerts, want 2", page, len(out.GetAlerts()))
			}
			if page == 0 {
				w.queue("a-new-one", 20) // what comes and goes meanwhile repeats nothing
				w.notifier.await("a-new-one", "f")
			}
		}
		if !slices.IsSortedFunc(got, func(a, b *alertv1.Alert) int { return strings.Compare(a.GetId(), b.GetId()) }) {
			t.Error("the alerts are not sorted by id")
		}
		count := map[string]int{}
		for _, n := range names(got) {
			count[n]++
		}
		for _, n := range []string{"QueueHigh/b1/firing", "QueueLong/long/pending", "QueueLong/b3/pending"} {
			if count[n] != 1 {
				t.Errorf("%s came %d times", n, count[n])
			}
		}
	})
	t.Run("targets", func(t *testing.T) {
		in := &queryv1.ListTargetsRequest{PageSize: 2, Kind: eventv1.TargetKind_TARGET_KIND_ENDPOINT, Account: "acme"}
		var got []string
		for {
			out, err := q.ListTargets(t.Context(), in)
			if err != nil {
				t.Fatal(err)
			}
			for _, s := range out.GetTargets() {
				got = append(got, s.GetTarget().GetId())
			}
			if in.PageToken = out.GetNextPageToken(); in.GetPageToken() == "" {
				break
			}
		}
		if diff := cmp.Diff([]string{"a-new-one", "b1", "b2", "b3", "long", "quiet"}, got); diff != "" {
			t.Errorf("targets (-want +got):\n%s", diff)
		}
	})
}

func TestGetAlert(t *testing.T) {
	w, q := asked(t)
	alert := w.notifier.await("b1", "f")[0].GetAlert()
	for name, key := range map[string]string{"by id": alert.GetId(), "by fingerprint": alert.GetFingerprint()} {
		out, err := q.GetAlert(t.Context(), &queryv1.GetAlertRequest{Id: key})
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if out.GetAlert().GetId() != alert.GetId() || out.GetAlert().GetState() != firing {
			t.Errorf("%s: got %v", name, out.GetAlert())
		}
	}
	w.queue("b1", 0)
	w.notifier.await("b1", "fr")
	_, err := q.GetAlert(t.Context(), &queryv1.GetAlertRequest{Id: alert.GetId()})
	if status.Code(err) != codes.NotFound {
		t.Errorf("an alert that is over: %v, want NOT_FOUND", err)
	}
}

func TestGetTarget(t *testing.T) {
	_, q := asked(t)
	for name, account := range map[string]string{"in its account": "acme", "in the only account that has it": ""} {
		out, err := q.GetTarget(t.Context(), &queryv1.GetTargetRequest{
			Account: account, Kind: eventv1.TargetKind_TARGET_KIND_ENDPOINT, Id: "b1",
		})
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		values := map[string]string{}
		for _, v := range out.GetTarget().GetValues() {
			values[v.GetName()] = v.GetValue()
		}
		if values["jobs.in_queue"] != "20" {
			t.Errorf("%s: values %v, want 20 jobs in the queue", name, values)
		}
		if n := len(out.GetTarget().GetAlertIds()); n != 2 {
			t.Errorf("%s: %d alerts, want 2", name, n)
		}
		if out.GetFreshness().GetAppliedSequence() == 0 {
			t.Errorf("%s: freshness is missing", name)
		}
	}
}

func TestListRules(t *testing.T) {
	_, q := asked(t)
	out, err := q.ListRules(t.Context(), &queryv1.ListRulesRequest{})
	if err != nil {
		t.Fatal(err)
	}
	if out.GetRuleSetHash() == "" || len(out.GetRules()) != 2 {
		t.Fatalf("rule set %q with %d rules, want one of 2", out.GetRuleSetHash(), len(out.GetRules()))
	}
	high, long := out.GetRules()[0], out.GetRules()[1]
	if high.GetName() != "QueueHigh" || high.GetFiring() != 3 || high.GetPending() != 0 {
		t.Errorf("first rule %v, want QueueHigh with 3 firing", high)
	}
	if long.GetName() != "QueueLong" || long.GetFiring() != 0 || long.GetPending() != 4 || long.GetFor().AsDuration() != time.Hour {
		t.Errorf("second rule %v, want QueueLong with 4 pending, for 1h", long)
	}
	if high.GetExpr() != "jobs.in_queue > 10" || !strings.HasPrefix(high.GetSource(), "test.yaml:") {
		t.Errorf("expression %q from %q", high.GetExpr(), high.GetSource())
	}
}

func TestBadRequestsSayWhatIsWrong(t *testing.T) {
	_, q := asked(t)
	page, err := q.ListAlerts(t.Context(), &queryv1.ListAlertsRequest{PageSize: 1})
	if err != nil {
		t.Fatal(err)
	}
	endpointKind := eventv1.TargetKind_TARGET_KIND_ENDPOINT
	for name, c := range map[string]struct {
		call func(ctx context.Context) error
		code codes.Code
		text string
	}{
		"a matcher that cannot be read": {func(ctx context.Context) error {
			_, err := q.ListAlerts(ctx, &queryv1.ListAlertsRequest{Matchers: []string{"severity"}})
			return err
		}, codes.InvalidArgument, "no operator"},
		"too many matchers": {func(ctx context.Context) error {
			_, err := q.ListAlerts(ctx, &queryv1.ListAlertsRequest{Matchers: make([]string, 33)})
			return err
		}, codes.InvalidArgument, "matchers: 33"},
		"a state that is not kept": {func(ctx context.Context) error {
			_, err := q.ListAlerts(ctx, &queryv1.ListAlertsRequest{States: []alertv1.AlertState{alertv1.AlertState_ALERT_STATE_RESOLVED}})
			return err
		}, codes.InvalidArgument, "states"},
		"a page that is too large": {func(ctx context.Context) error {
			_, err := q.ListAlerts(ctx, &queryv1.ListAlertsRequest{PageSize: 1001})
			return err
		}, codes.InvalidArgument, "page_size"},
		"a token that was made up": {func(ctx context.Context) error {
			_, err := q.ListTargets(ctx, &queryv1.ListTargetsRequest{PageToken: "next, please"})
			return err
		}, codes.InvalidArgument, "page_token"},
		"a token of another question": {func(ctx context.Context) error {
			_, err := q.ListAlerts(ctx, &queryv1.ListAlertsRequest{PageToken: page.GetNextPageToken(), Matchers: []string{"a=b"}})
			return err
		}, codes.InvalidArgument, "other filters"},
		"an alert without a name": {func(ctx context.Context) error {
			_, err := q.GetAlert(ctx, &queryv1.GetAlertRequest{})
			return err
		}, codes.InvalidArgument, "id"},
		"an alert that is not there": {func(ctx context.Context) error {
			_, err := q.GetAlert(ctx, &queryv1.GetAlertRequest{Id: "nothing"})
			return err
		}, codes.NotFound, "nothing"},
		"a target without a kind": {func(ctx context.Context) error {
			_, err := q.GetTarget(ctx, &queryv1.GetTargetRequest{Id: "b1"})
			return err
		}, codes.InvalidArgument, "kind"},
		"a target without an id": {func(ctx context.Context) error {
			_, err := q.GetTarget(ctx, &queryv1.GetTargetRequest{Kind: endpointKind})
			return err
		}, codes.InvalidArgument, "id"},
		"a target that is not there": {func(ctx context.Context) error {
			_, err := q.GetTarget(ctx, &queryv1.GetTargetRequest{Kind: endpointKind, Id: "nothing", Account: "acme"})
			return err
		}, codes.NotFound, "nothing"},
		"a target that no account has": {func(ctx context.Context) error {
			_, err := q.GetTarget(ctx, &queryv1.GetTargetRequest{Kind: endpointKind, Id: "nothing"})
			return err
		}, codes.NotFound, "nothing"},
		"a kind that does not exist": {func(ctx context.Context) error {
			_, err := q.ListTargets(ctx, &queryv1.ListTargetsRequest{Kind: 99})
			return err
		}, codes.InvalidArgument, "kind"},
		"a watch with a wrong matcher": {func(ctx context.Context) error {
			stream, err := q.WatchAlerts(ctx, &queryv1.WatchAlertsRequest{Matchers: []string{`a=~"("`}})
			if err != nil {
				return err
			}
			_, err = stream.Recv()
			return err
		}, codes.InvalidArgument, "matcher"},
	} {
		t.Run(name, func(t *testing.T) {
			err := c.call(t.Context())
			if status.Code(err) != c.code || !strings.Contains(err.Error(), c.text) {
				t.Errorf("got %v, want %v with %q", err, c.code, c.text)
			}
		})
	}
}

func TestAStateThatCannotBeReadIsUnavailable(t *testing.T) {
	w, q := asked(t)
	w.redis.Stop(t)
	_, err := q.ListAlerts(t.Context(), &queryv1.ListAlertsRequest{})
	if status.Code(err) != codes.Unavailable {
		t.Errorf("got %v, want UNAVAILABLE", err)
	}
	if strings.Contains(err.Error(), w.redis.Addr()) {
		t.Errorf("the error tells where Redis is: %v", err)
	}
}

// TestWatchAlertsOnEveryReplica watches on two replicas: each brings what
// happens in its own partitions and in those of the other.
func TestWatchAlertsOnEveryReplica(t *testing.T) {
	w := newWorld(t)
	a := w.start().await(64).inForce()
	b := w.start().await(32)
	a.await(32)
	const endpoints = 8
	for i := range endpoints {
		w.queue(fmt.Sprint("e", i), 20)
	}
	for i := range endpoints {
		w.notifier.await(fmt.Sprint("e", i), "f")
	}
	watch := func(r *running) func() (*queryv1.WatchAlertsResponse, error) {
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		t.Cleanup(cancel)
		stream, err := r.query().WatchAlerts(ctx, &queryv1.WatchAlertsRequest{Matchers: []string{"alertname=QueueHigh"}})
		if err != nil {
			t.Fatal(err)
		}
		return stream.Recv
	}
	receivers := []func() (*queryv1.WatchAlertsResponse, error){watch(a), watch(b)}
	for _, recv := range receivers {
		for range endpoints {
			got, err := recv()
			if err != nil {
				t.Fatal(err)
			}
			if !got.GetInitial() || got.GetAlert().GetState() != firing {
				t.Errorf("at the beginning came %v", got)
			}
		}
	}
	for i := range endpoints {
		w.queue(fmt.Sprint("e", i), 0)
	}
	for _, recv := range receivers {
		over := map[string]bool{}
		for len(over) < endpoints {
			got, err := recv()
			if err != nil {
				t.Fatalf("%d of %d are over: %v", len(over), endpoints, err)
			}
			if got.GetInitial() || got.GetAlert().GetState() != alertv1.AlertState_ALERT_STATE_RESOLVED {
				t.Errorf("after the beginning came %v", got)
			}
			if over[got.GetAlert().GetId()] {
				t.Errorf("%s is over twice", got.GetAlert().GetId())
			}
			over[got.GetAlert().GetId()] = true
		}
	}
	a.stop()
	if _, err := receivers[0](); err == nil || errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a watch of an alerter that stopped: %v", err)
	}
}
