package alerter_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	alertv1 "github.com/tocsin-dev/tocsin/proto/gen/tocsin/alert/v1"
	eventv1 "github.com/tocsin-dev/tocsin/proto/gen/tocsin/event/v1"
	queryv1 "github.com/tocsin-dev/tocsin/proto/gen/tocsin/query/v1"
)

// numbers are the numeric values of a list by name.
func numbers(values []*alertv1.Value) map[string]float64 {
	all := map[string]float64{}
	for _, v := range values {
		all[v.GetName()] = v.GetNumber()
	}
	return all
}

// tells fails the test unless a story has a line with each of these.
func tells(t *testing.T, x *queryv1.ExplainAlertResponse, want ...string) {
	t.Helper()
	for _, w := range want {
		if !strings.Contains(strings.Join(x.GetStory(), "\n"), w) {
			t.Errorf("nothing tells %q:\n%s", w, strings.Join(x.GetStory(), "\n"))
		}
	}
}

func TestAnAlertIsExplained(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	r := w.start().await(64).inForce()
	q := r.query()
	w.queue("b1", 20) // QueueHigh fires, QueueLong is pending
	alert := w.notifier.await("b1", "f")[0].GetAlert()
	w.queue("b1", 212)
	w.queue("b1", 30)
	var x *queryv1.ExplainAlertResponse
	explain := func(id string) func() error {
		return func() (err error) {
			if x, err = q.ExplainAlert(t.Context(), &queryv1.ExplainAlertRequest{Id: id}); err != nil {
				return err
			}
			if n := numbers(x.GetNow().GetValues())["jobs.in_queue"]; n != 30 {
				return fmt.Errorf("%v jobs wait now, want 30", n)
			}
			return nil
		}
	}
	for name, key := range map[string]string{"id": alert.GetId(), "the beginning of the id": alert.GetId()[:12], "fingerprint": alert.GetFingerprint()} {
		t.Run("by "+name, func(t *testing.T) {
			eventually(t, "the newest sample counts", explain(key))
			if x.GetAlert().GetId() != alert.GetId() || x.GetRule().GetName() != "QueueHigh" || x.GetCondition() != queryv1.Holds_HOLDS_YES {
				t.Errorf("it explains %v of %v, condition %v", x.GetAlert(), x.GetRule(), x.GetCondition())
			}
			if n := numbers(x.GetAlert().GetEvidence().GetValues())["jobs.in_queue"]; n != 20 {
				t.Errorf("%v jobs waited when it fired, want 20", n)
			}
			if worst := x.GetAlert().GetEvidence().GetWorst(); len(worst) != 1 || worst[0].GetNumber() != 212 {
				t.Errorf("worst %v, want 212", worst)
			}
			if c := x.GetDiagnosis().GetCause(); c != alertv1.DiagnosisCause_DIAGNOSIS_CAUSE_NOT_TAKEN {
				t.Errorf("cause %v; a worker idles beside the queue", c)
			}
			if len(x.GetNow().GetSeries()) != 1 || x.GetAt() == nil || x.GetFreshness().GetAppliedSequence() == 0 {
				t.Errorf("series %v at %v, freshness %v", x.GetNow().GetSeries(), x.GetAt(), x.GetFreshness())
			}
			tells(t, x, "QueueHigh on the endpoint name of b1 (b1) of account acme has been firing for", "It says: 20 jobs wait",
				"The worst so far: jobs.in_queue 212 at", "Its condition holds now.", "It resolves when its condition does not hold any more.")
		})
	}

	// Another replica answers from what is committed, also after a restart.
	r.stop()
	r = w.start().await(64)
	q = r.query()
	eventually(t, "the restarted alerter knows it", explain(alert.GetId()))
	if worst := x.GetAlert().GetEvidence().GetWorst(); len(worst) != 1 || worst[0].GetNumber() != 212 {
		t.Errorf("worst after a restart %v, want 212", worst)
	}

	list, err := q.ListAlerts(t.Context(), &queryv1.ListAlertsRequest{States: []alertv1.AlertState{pending}})
	if err != nil || len(list.GetAlerts()) != 1 {
		t.Fatalf("pending alerts %v, %v; want one", list.GetAlerts(), err)
	}
	waits, err := q.ExplainAlert(t.Context(), &queryv1.ExplainAlertRequest{Id: list.GetAlerts()[0].GetId()})
	if err != nil {
		t.Fatal(err)
	}
	if left := waits.GetLeft().AsDuration(); left <= 0 || left > time.Hour {
		t.Errorf("it waits for %v more, want up to an hour", left)
	}
	tells(t, waits, "QueueLong on the endpoint name of b1 (b1) of account acme is pending", "(for: 1h)")

	w.queue("b1", 0)
	w.notifier.await("b1", "fr")
	over, err := q.ExplainAlert(t.Context(), &queryv1.ExplainAlertRequest{Id: alert.GetId()})
	if err != nil {
		t.Fatalf("an alert that just resolved: %v", err)
	}
	e := over.GetAlert().GetEvidence()
	if !over.GetRemembered() || over.GetNow() != nil || e.GetDuration() == nil || numbers(e.GetValuesAtFiring())["jobs.in_queue"] != 20 ||
		e.GetDiagnosis() == nil || over.GetRule().GetName() != "QueueHigh" {
		t.Errorf("what is remembered is %v", over)
	}
	tells(t, over, "resolved at", "Nothing of it is kept in the state", "The worst so far: jobs.in_queue 212")

	r.stop()
	q = w.start().await(64).query()
	_, err = q.ExplainAlert(t.Context(), &queryv1.ExplainAlertRequest{Id: alert.GetId()})
	if status.Code(err) != codes.NotFound || !strings.Contains(err.Error(), "Of resolved ones an alerter remembers") {
		t.Errorf("an alert that nobody remembers: %v, want NOT_FOUND that says so", err)
	}
}

func TestATargetIsDiagnosed(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	q := w.start().await(64).inForce().query()
	w.queue("calm", 0)
	w.queue("busy", 20)
	w.notifier.await("busy", "f")
	for name, key := range map[string]string{"id": "busy", "name": "name of busy"} {
		t.Run("by "+name, func(t *testing.T) {
			x, err := q.Diagnose(t.Context(), &queryv1.DiagnoseRequest{Target: key})
			if err != nil {
				t.Fatal(err)
			}
			if x.GetTarget().GetTarget().GetId() != "busy" || x.GetDiagnosis().GetCause() != alertv1.DiagnosisCause_DIAGNOSIS_CAUSE_NOT_TAKEN {
				t.Errorf("%v of %v", x.GetDiagnosis(), x.GetTarget().GetTarget())
			}
			if got := names(x.GetAlerts()); len(got) != 2 || got[0] != "QueueHigh/busy/firing" {
				t.Errorf("alerts %v, want QueueHigh and QueueLong", got)
			}
			if len(x.GetSeries()) == 0 || x.GetAlerts()[0].GetEvidence().GetSeries() != nil || x.GetAt() == nil {
				t.Errorf("series %v at %v", x.GetSeries(), x.GetAt())
			}
		})
	}
	eventually(t, "a target without alerts is diagnosed", func() error {
		x, err := q.Diagnose(t.Context(), &queryv1.DiagnoseRequest{Target: "calm", Kind: eventv1.TargetKind_TARGET_KIND_ENDPOINT, Account: "acme"})
		if err != nil {
			return err
		}
		// RunPod did not say how many workers run.
		if x.GetDiagnosis().GetCause() != alertv1.DiagnosisCause_DIAGNOSIS_CAUSE_UNKNOWN || len(x.GetAlerts()) > 0 {
			return fmt.Errorf("%v with the alerts %v", x.GetDiagnosis(), x.GetAlerts())
		}
		return nil
	})
	for _, c := range []struct {
		in   *queryv1.DiagnoseRequest
		code codes.Code
		want string
	}{
		{&queryv1.DiagnoseRequest{Target: "bussy"}, codes.NotFound, "did you mean `busy`?"},
		{&queryv1.DiagnoseRequest{Target: "name of calmm"}, codes.NotFound, "did you mean `name of calm`?"},
		{&queryv1.DiagnoseRequest{Target: "busy", Kind: eventv1.TargetKind_TARGET_KIND_POD}, codes.NotFound, "no endpoint, pod or account"},
		{&queryv1.DiagnoseRequest{}, codes.InvalidArgument, "target: it is empty"},
		{&queryv1.DiagnoseRequest{Target: "busy", Kind: 99}, codes.InvalidArgument, "kind"},
	} {
		if _, err := q.Diagnose(t.Context(), c.in); status.Code(err) != c.code || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%v: %v, want %v with %q", c.in, err, c.code, c.want)
		}
	}
	if _, err := q.ExplainAlert(t.Context(), &queryv1.ExplainAlertRequest{}); status.Code(err) != codes.InvalidArgument {
		t.Errorf("an explanation of nothing: %v, want INVALID_ARGUMENT", err)
	}
}
