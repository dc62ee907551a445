package notifier

import (
	"fmt"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	alertv1 "github.com/tocsin-dev/tocsin/proto/gen/tocsin/alert/v1"
	notifyv1 "github.com/tocsin-dev/tocsin/proto/gen/tocsin/notify/v1"
)

func TestAListOfManyAlertsFitsIntoAnAnswer(t *testing.T) {
	list := &notifyv1.ListActiveResponse{}
	for i := range 10 {
		list.Alerts = append(list.Alerts, &alertv1.Alert{
			Id: fmt.Sprint(i), Labels: map[string]string{"alertname": "A"},
			Annotations: map[string]string{"summary": strings.Repeat("x", 1000)},
			Evidence:    &alertv1.Evidence{Expression: strings.Repeat("y", 1000)},
		})
	}
	before := proto.CloneOf(list)
	for _, c := range []struct {
		limit           int
		texts, evidence bool
	}{
		{1 << 20, true, true}, {15_000, true, false}, {2000, false, false}, {1, false, false},
	} {
		got, whole := bounded(list, c.limit)
		if whole != c.evidence || len(got.GetAlerts()) != 10 {
			t.Fatalf("%d bytes: %d alerts, whole %t", c.limit, len(got.GetAlerts()), whole)
		}
		for i, a := range got.GetAlerts() {
			if a.GetId() != fmt.Sprint(i) || a.GetLabels()["alertname"] != "A" || a.GetAnnotations() != nil != c.texts || a.GetEvidence() != nil != c.evidence {
				t.Errorf("%d bytes: alert %v", c.limit, a)
			}
		}
		if !proto.Equal(list, before) {
			t.Fatal("the alerts themselves were changed")
		}
	}
}
