package query

import (
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	alertv1 "github.com/tocsin-dev/tocsin/proto/gen/tocsin/alert/v1"
	queryv1 "github.com/tocsin-dev/tocsin/proto/gen/tocsin/query/v1"
	"github.com/tocsin-dev/tocsin/services/alerter/internal/engine"
	"github.com/tocsin-dev/tocsin/services/alerter/internal/rule"
	"github.com/tocsin-dev/tocsin/services/alerter/rulefile"
)

var noon = time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)

// storyOf tells a firing alert of a rule.
func storyOf(x engine.Explanation, lack *alertv1.NoData) string {
	x.Alert = &alertv1.Alert{
		Rule: "A", State: firing, ActiveAt: timestamppb.New(noon), FiredAt: timestamppb.New(noon), Flapping: !x.LastFired.IsZero(),
	}
	return strings.Join(story(&queryv1.ExplainAlertResponse{
		Alert: x.Alert, Rule: &queryv1.Rule{}, Condition: holds(x.Cond), Judged: holds(x.Judged), Now: &alertv1.Evidence{NoData: lack},
		Left: durationpb.New(x.Left), At: timestamppb.New(noon.Add(time.Hour)),
	}, &x), "\n")
}

func TestAStoryTellsWhatTheRuleMakesOfAMissingValue(t *testing.T) {
	left := &alertv1.NoData{Reason: alertv1.NoDataReason_NO_DATA_REASON_LEFT_OUT, Parts: []string{"jobs.in_queue"}}
	away := &alertv1.NoData{Reason: alertv1.NoDataReason_NO_DATA_REASON_UNREACHABLE, Parts: []string{"jobs.in_queue"}}
	often := rulefile.Times{Least: 2, Of: 3, Bucket: time.Minute}
	const gone, stays = "the source answers and leaves something out (jobs.in_queue)", "so that the alert stays as it was"
	for name, c := range map[string]struct {
		x     engine.Explanation
		lack  *alertv1.NoData
		want  string
		never string
	}{
		"kept": {
			engine.Explanation{Rule: &rulefile.Rule{}},
			left,
			"Its condition has no value now, " + stays + ": " + gone + ".", "no_data",
		},
		"fires by it": {
			engine.Explanation{Rule: &rulefile.Rule{NoData: rulefile.NoDataFire}, Judged: rule.Yes, Decided: true},
			left,
			"Its condition has no value now: " + gone + ". Its rule takes that for a reason to fire (no_data: fire).", stays,
		},
		"ends by it": {
			engine.Explanation{Rule: &rulefile.Rule{NoData: rulefile.NoDataResolve}, Judged: rule.No, Decided: true},
			left,
			"Its condition has no value now: " + gone + ". Its rule takes that for its end (no_data: resolve).", stays,
		},
		"not heard of, whatever the rule says": {
			engine.Explanation{Rule: &rulefile.Rule{NoData: rulefile.NoDataFire}},
			away,
			"Its condition has no value now, " + stays + ": nothing is heard of the target (jobs.in_queue).", "no_data",
		},
		"a rule that fails": {
			engine.Explanation{Rule: &rulefile.Rule{}}, nil, "Its condition has no value now, " + stays + ".", "(",
		},
		"no value, and counted all the same": {
			engine.Explanation{Rule: &rulefile.Rule{Times: often}, Judged: rule.Yes},
			away,
			"Its condition has no value now: nothing is heard of the target (jobs.in_queue).\nIt held often enough to count as holding (times: 2 of 3 x 1m).", stays,
		},
		"does not hold, and counted all the same": {
			engine.Explanation{Rule: &rulefile.Rule{Times: often}, Cond: rule.No, Judged: rule.Yes},
			nil,
			"Its condition does not hold now.\nIt held often enough to count as holding (times: 2 of 3 x 1m).", stays,
		},
		"its clear condition is missing": {
			engine.Explanation{Rule: &rulefile.Rule{}, Cond: rule.No, Judged: rule.No},
			left,
			"Its condition does not hold now.\nIts clear condition has no value now, " + stays + ": " + gone + ".", "no_data",
		},
		"its clear condition is missing, by which it fires on": {
			engine.Explanation{Rule: &rulefile.Rule{NoData: rulefile.NoDataFire}, Cond: rule.No, Judged: rule.No, Decided: true},
			left,
			"Its clear condition has no value now: " + gone + ". Its rule takes that for a reason to fire (no_data: fire).", stays,
		},
	} {
		t.Run(name, func(t *testing.T) {
			_, got, _ := strings.Cut(storyOf(c.x, c.lack), "before.\n")
			if !strings.Contains(got, c.want) || strings.Contains(got, c.never) {
				t.Errorf("it tells\n%s\nwant %q, and no %q", got, c.want, c.never)
			}
		})
	}
}

func TestAStoryTellsWhenAnAlertThatFlapsLastFired(t *testing.T) {
	got := storyOf(engine.Explanation{Rule: &rulefile.Rule{}, LastFired: noon.Add(40 * time.Minute)}, nil)
	if !strings.Contains(got, "last fired at 2026-11-23 12:40:00 UTC, and is told as one notice since 2026-11-23 12:00:00 UTC") {
		t.Errorf("it tells\n%s", got)
	}
}
