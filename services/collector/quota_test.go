package collector

import (
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/tocsin-dev/tocsin/services/collector/runpod"
)

func TestTheQuotaShowsWhatIsKnown(t *testing.T) {
	soon, over := time.Now().Add(time.Hour), time.Now().Add(-time.Second)
	r := prometheus.NewPedanticRegistry()
	r.MustRegister(quota{windows: func() []runpod.Window {
		return []runpod.Window{
			{Name: "minute", Quota: 60, Remaining: 59, ResetAt: over},
			{Name: "hour", Quota: 3000, Remaining: 0, ResetAt: soon},
			{Name: "day", Remaining: -1, ResetAt: soon},
		}
	}})
	want := `
		# HELP tocsin_collector_quota_left_calls Calls of RunPod's REST API that the account has left in the window, whoever uses them.
		# TYPE tocsin_collector_quota_left_calls gauge
		tocsin_collector_quota_left_calls{window="hour"} 0
		# HELP tocsin_collector_quota_limit_calls Calls of RunPod's REST API that the window allows.
		# TYPE tocsin_collector_quota_limit_calls gauge
		tocsin_collector_quota_limit_calls{window="hour"} 3000
		tocsin_collector_quota_limit_calls{window="minute"} 60
	`
	if err := testutil.GatherAndCompare(r, strings.NewReader(want)); err != nil {
		t.Error(err)
	}
}
