package query

import (
	"fmt"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	alertv1 "github.com/tocsin-dev/tocsin/proto/gen/tocsin/alert/v1"
)

func TestAnAlertIsNamedByItsIDItsBeginningOrItsFingerprint(t *testing.T) {
	var alerts []*alertv1.Alert
	for i, id := range []string{"aa11", "aa22", "bb33", "aa"} {
		alerts = append(alerts, &alertv1.Alert{Id: id, Fingerprint: fmt.Sprint("f", i), Rule: "R" + id})
	}
	for word, want := range map[string]string{"aa11": "aa11", "aa": "aa", "b": "bb33", "f1": "aa22", "x": "", "aa3": ""} {
		got, err := choose(alerts, word)
		if err != nil || got.GetId() != want {
			t.Errorf("%q names %v, %v; want %q", word, got, err, want)
		}
	}
	_, err := choose(alerts, "a")
	if err == nil || !strings.Contains(err.Error(), `3 alerts begin with "a": aa11 (Raa11 on `) {
		t.Errorf("a beginning of three: %v", err)
	}
}

func TestResolvedAlertsAreRememberedForAWhile(t *testing.T) {
	v := NewView(nil, nil)
	for i := range maxOver + 10 {
		v.Changed(i%7, []*alertv1.Alert{{Id: fmt.Sprint(i), State: firing}})
		v.Changed(i%7, []*alertv1.Alert{{Id: fmt.Sprint(i), State: resolved}})
	}
	all := v.resolved()
	if len(all) != maxOver || all[0].GetId() != fmt.Sprint(maxOver+9) || all[maxOver-1].GetId() != "10" {
		t.Errorf("%d are remembered, from %v to %v", len(all), all[0].GetId(), all[len(all)-1].GetId())
	}
}

func TestThatAnAlertBecameWorseIsNoNews(t *testing.T) {
	a := &alertv1.Alert{Id: "a", State: firing, Evidence: &alertv1.Evidence{Expression: "x > 1", Worst: []*alertv1.Extreme{{Name: "x", Number: 5}}}}
	worse := proto.CloneOf(a)
	worse.Evidence.Worst[0].Number = 9
	other := proto.CloneOf(worse)
	other.State = pending
	lacking := proto.CloneOf(worse)
	lacking.Evidence.NoData = &alertv1.NoData{}
	for name, c := range map[string]struct {
		b    *alertv1.Alert
		same bool
	}{"itself": {proto.CloneOf(a), true}, "worse": {worse, true}, "in another state": {other, false}, "without data": {lacking, false}, "without evidence": {&alertv1.Alert{Id: "a", State: firing}, false}} {
		if sameNews(a, c.b) != c.same {
			t.Errorf("%s: same news %v, want %v", name, !c.same, c.same)
		}
	}
}
