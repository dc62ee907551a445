package engine

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	alertv1 "github.com/tocsin-dev/tocsin/proto/gen/tocsin/alert/v1"
)

func TestAColdRebuildIsComparedWithWhatWasTold(t *testing.T) {
	program := compile(t, "groups: [{name: g, rules: [{alert: Queue, on: endpoint, expr: jobs.in_queue > 1}]}]")
	s := newStory(t, program)
	s.queue(time.Second, "both", 9)
	onlyHere := s.queue(time.Second, "here", 9)
	s.send(time.Second, tick())

	both := func() *alertv1.Alert {
		for a := range s.p.Alerts() {
			if a.GetTarget().GetId() == "both" {
				return a
			}
		}
		return nil
	}
	known := proto.CloneOf(both())
	known.Id, known.ActiveAt, known.FiredAt = "told long ago", timestamppb.New(epoch.Add(-time.Hour)), timestamppb.New(epoch.Add(-time.Hour))
	gone := proto.CloneOf(known)
	gone.Id, gone.Fingerprint = "only there", "0123456789abcdef"
	resolved := proto.CloneOf(gone)
	resolved.Fingerprint, resolved.State = "fedcba9876543210", alertv1.AlertState_ALERT_STATE_RESOLVED

	s.p.Delta()
	got := s.p.Reconcile([]*alertv1.Alert{known, gone, resolved}, s.at)
	if diff := cmp.Diff([]string{"firing Queue", "resolved Queue: state rebuilt"}, told(StepResult{Transitions: got})); diff != "" {
		t.Fatal(diff)
	}
	if id := got[0].GetAlert().GetId(); id != onlyHere.Transitions[0].GetAlert().GetId() {
		t.Errorf("told of %s", id)
	}
	if a := got[1].GetAlert(); a.GetId() != "only there" || !a.GetResolvedAt().AsTime().Equal(s.at) {
		t.Errorf("resolved %v", a)
	}
	if got[0].GetCause().GetSequence() != s.seq || got[1].GetCause().GetIndex() <= got[0].GetCause().GetIndex() || got[0].GetId() == got[1].GetId() {
		t.Errorf("causes %v and %v", got[0].GetCause(), got[1].GetCause())
	}
	if a := both(); a.GetId() != "told long ago" || !a.GetFiredAt().AsTime().Equal(epoch.Add(-time.Hour)) {
		t.Errorf("the alert that is in both is %v", a)
	}
	d := s.p.Delta()
	if len(d.Active) != 2 || d.Active["told long ago"] == nil {
		t.Errorf("%d records change; want the old id deleted and the told one written", len(d.Active))
	}
	if more := s.p.Reconcile([]*alertv1.Alert{both(), onlyHere.Transitions[0].GetAlert()}, s.at); len(more) != 0 {
		t.Errorf("a second time: %v", more)
	}
	r := s.queue(time.Minute, "both", 0)
	if len(r.Transitions) != 1 || r.Transitions[0].GetAlert().GetId() != "told long ago" {
		t.Errorf("then it resolves as %v", r.Transitions)
	}
}
