package delivery

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/testing/protocmp"
	"google.golang.org/protobuf/types/known/durationpb"

	alertv1 "github.com/tocsin-dev/tocsin/proto/gen/tocsin/alert/v1"
)

func TestAllOfAnAlertIsKeptButItsSeries(t *testing.T) {
	said := &alertv1.Alert{
		Id: "a", Labels: map[string]string{"alertname": "A"}, Flapping: true,
		Evidence: &alertv1.Evidence{
			Expression: "x > 5", Values: []*alertv1.Value{{Name: "x", Value: "no value"}},
			Series: []*alertv1.Series{{Field: "x"}},
			NoData: &alertv1.NoData{Reason: alertv1.NoDataReason_NO_DATA_REASON_LEFT_OUT, Parts: []string{"x"}},
			Worst:  []*alertv1.Extreme{{Name: "x", Number: 9}}, ValuesAtFiring: []*alertv1.Value{{Name: "x", Value: "6"}},
			Duration: durationpb.New(time.Minute),
		},
	}
	want := proto.CloneOf(said)
	want.State, want.Evidence.Series = firing, nil
	if diff := cmp.Diff(want, kept(said, nil, firing), protocmp.Transform()); diff != "" {
		t.Error(diff)
	}
}
