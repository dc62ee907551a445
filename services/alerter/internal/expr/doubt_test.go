package expr

import (
	"slices"
	"strings"
	"testing"

	"github.com/tocsin-dev/tocsin/services/alerter/rulefile"
)

func TestWhatIsHardlyMeantIsDoubted(t *testing.T) {
	for _, c := range []struct {
		name string
		on   rulefile.On
		text string
		want string // what the doubt says; empty for none
	}{
		{"a share where percent are", rulefile.OnPod, "avg(gpu.util_percent, '30m') < 0.05", "did you mean 5?"},
		{"the same, turned around", rulefile.OnPod, "0.05 > gpu.util_percent", "did you mean 5?"},
		{"no use at all", rulefile.OnPod, "avg(gpu.util_percent, '30m') < 5 || gpu.util_percent == 0", ""},
		{"more than a hundred percent", rulefile.OnPod, "memory.util_percent > 100", "never above 100"},
		{"a hundred percent", rulefile.OnPod, "memory.util_percent >= 100", ""},
		{"milliseconds", rulefile.OnEndpoint, "tracked.delay_p95_s > 60000", "60000 are 16h40m; did you mean 60?"},
		{"milliseconds as a threshold", rulefile.OnEndpoint, "tracked.oldest_queued_s > threshold('age', 300000)", "did you mean 300?"},
		{"seconds", rulefile.OnEndpoint, "tracked.delay_p95_s > 600", ""},
		{"a pod of days", rulefile.OnPod, "pod.uptime_s > 604800", ""},
		{"cents", rulefile.OnPod, "pod.cost_per_hour >= 250", "did you mean 2.5 instead of 250?"},
		{"a share of a count", rulefile.OnEndpoint, "jobs.failed > 0.05", "a share is one count divided by another"},
		{"a share", rulefile.OnEndpoint, "increase(jobs.failed, '5m') / increase(jobs.completed, '5m') > 0.05", ""},
		{"a mean below one", rulefile.OnEndpoint, "avg(jobs.in_queue, '5m') < 0.5", ""},
		{"a rate per minute", rulefile.OnEndpoint, "rate(jobs.failed, '5m') > 60", "60 are 3600 a minute"},
		{"a rate", rulefile.OnEndpoint, "rate(jobs.failed, '5m') > 0.1", ""},
		{"more buckets than there are", rulefile.OnEndpoint, "count_true(jobs.in_queue > 0, '10m', '1m') > 10", "counts up to 10 buckets"},
		{"all buckets", rulefile.OnEndpoint, "count_true(jobs.in_queue > 0, '10m', '1m') >= 10", ""},
		{"a doubt within the condition of buckets", rulefile.OnPod, "count_true(gpu.util_percent < 0.05, '10m', '1m') >= 10", "did you mean 5?"},
		{"less than nothing", rulefile.OnEndpoint, "jobs.in_queue > -1", "is never negative"},
		{"a fall", rulefile.OnEndpoint, "delta(jobs.in_queue, '5m') < -10", ""},
		{"a clock that is behind", rulefile.OnAccount, "clock.skew_s < -5", ""},
		{"times with counts", rulefile.OnEndpoint, "tracked.oldest_queued_s > jobs.in_queue", "has seconds and `jobs.in_queue` has jobs"},
		{"counts of two things", rulefile.OnEndpoint, "jobs.in_queue > workers.max", ""},
		{"more seconds than there are", rulefile.OnEndpoint, "count(jobs.in_queue, '10m') < 700", "counts seconds, up to 600 of them, and is compared with 700"},
		{"seconds with a value", rulefile.OnEndpoint, "count(jobs.in_queue, '10m') < 300 || age(jobs.in_queue) > 600", ""},
		{"a part of a percentage", rulefile.OnPod, "quantile(0.95, gpu.util_percent, '30m') < 0.05", "did you mean 5?"},
		{"a spread below one", rulefile.OnEndpoint, "stddev(jobs.in_queue, '30m') < 0.5", ""},
		{"a line below nothing", rulefile.OnEndpoint, "predict(jobs.in_queue, '30m', '1h') < -5", ""},
		{"two times", rulefile.OnEndpoint, "tracked.oldest_queued_s > endpoint.execution_timeout_s", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			comp := compiler(t, c.on)
			e, mistakes := comp.Compile(c.text)
			if len(mistakes) > 0 {
				t.Fatal(mistakes)
			}
			doubts := e.Doubts()
			switch {
			case c.want == "" && len(doubts) > 0:
				t.Errorf("doubted: %v", doubts)
			case c.want != "" && (len(doubts) != 1 || !strings.Contains(doubts[0].Text, c.want)):
				t.Errorf("doubts %v, want one with %q", doubts, c.want)
			}
		})
	}
}

func TestEachFunctionIsInTheTableAndCanBeCalled(t *testing.T) {
	calls := map[string]string{
		"increase": "increase(jobs.failed, '5m') > 0", "rate": "rate(jobs.failed, '5m') > 0", "delta": "delta(jobs.in_queue, '5m') > 0",
		"min": "min(jobs.in_queue, '5m') > 0", "max": "max(jobs.in_queue, '5m') > 0", "avg": "avg(jobs.in_queue, '5m') > 0",
		"last": "last(jobs.in_queue, '5m') > 0", "count_true": "count_true(jobs.in_queue > 0, '5m', '1m') > 0",
		"sum": "sum(jobs.in_queue, '5m') > 0", "stddev": "stddev(jobs.in_queue, '5m') > 0", "zscore": "zscore(jobs.in_queue, '5m') > 0",
		"quantile": "quantile(0.9, jobs.in_queue, '5m') > 0", "deriv": "deriv(jobs.in_queue, '5m') > 0", "predict": "predict(jobs.in_queue, '5m', '1m') > 0",
		"first": "first(jobs.in_queue, '5m') > 0", "count": "count(jobs.in_queue, '5m') > 0", "changes": "changes(jobs.in_queue, '5m') > 0",
		"baseline": "jobs.in_queue > baseline(jobs.in_queue, '7d')", "baseline_spread": "jobs.in_queue > baseline_spread(jobs.in_queue, '7d')",
		"age": "age(jobs.in_queue) > 0", "burn_rate": "burn_rate(jobs.failed, jobs.completed + jobs.failed, 0.99, '1h') > 14.4", "absent": "absent('5m')", "present": "present(jobs.in_queue)", "label": "label('env') == 'prod'", "threshold": "jobs.in_queue > threshold('queue', 1)",
		"contains": "endpoint.type.contains('q')", "startsWith": "endpoint.type.startsWith('q')", "endsWith": "endpoint.type.endsWith('e')",
		"matches": "endpoint.type.matches('^q')", "size": "size(endpoint.type) > 2",
	}
	for _, f := range Functions() {
		text, ok := calls[f.Name]
		if !ok {
			t.Errorf("no call of %s here", f.Name)
		}
		if _, mistakes := compiler(t, rulefile.OnEndpoint).Compile(text); len(mistakes) > 0 {
			t.Errorf("%s: %v", text, mistakes)
		}
		if f.Usage == "" || f.Meaning == "" {
			t.Errorf("%s is not described", f.Name)
		}
		delete(calls, f.Name)
	}
	for name := range calls {
		t.Errorf("%s is not in the table", name)
	}
	for _, f := range windowFns {
		if !slices.Contains(functionNames, f.name) {
			t.Errorf("%s is not in the table", f.name)
		}
	}
}
