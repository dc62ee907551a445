package expr

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/tocsin-dev/tocsin/services/alerter/rulefile"
)

func compiler(t *testing.T, on rulefile.On) *Compiler {
	t.Helper()
	c, err := NewCompiler(on)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestCompileFindsTheParts(t *testing.T) {
	for _, c := range []struct {
		name string
		on   rulefile.On
		text string
		want []string
	}{
		{"a field", rulefile.OnEndpoint, "jobs.in_queue > 5", []string{"jobs.in_queue"}},
		{
			"parts in the order of the text, each once", rulefile.OnEndpoint,
			"jobs.in_queue > 1 && min(jobs.in_queue, '5m') > 0 && rate(jobs.completed,'10m') < jobs.in_queue",
			[]string{"jobs.in_queue", "min(jobs.in_queue, '5m')", "rate(jobs.completed, '10m')"},
		},
		{
			"max of a window and max of two numbers", rulefile.OnEndpoint,
			"max(jobs.in_queue, '3m') > max(50, 10 * workers.max)",
			[]string{"max(jobs.in_queue, '3m')", "workers.max"},
		},
		{"min of a min", rulefile.OnEndpoint, "min(min(jobs.in_queue, '5m'), 3) > 2", []string{"min(jobs.in_queue, '5m')"}},
		{
			"buckets of a condition", rulefile.OnEndpoint, "count_true(workers.unhealthy > 0, '10m', '1m') >= 8",
			[]string{"count_true(workers.unhealthy > 0, '10m', '1m')"},
		},
		{
			"a threshold and a label", rulefile.OnPod, "cpu.util_percent < threshold('cpu', 20) && label('env') != 'dev'",
			[]string{"cpu.util_percent", "threshold('cpu', 20)", "label('env')"},
		},
		{
			"a threshold with a computed default", rulefile.OnEndpoint, "jobs.in_queue > threshold('queue', 20 * workers.max)",
			[]string{"jobs.in_queue", "workers.max"},
		},
		{"absence and presence", rulefile.OnAccount, "absent('2m') || !present(clock.skew_s)", []string{"absent('2m')", "present(clock.skew_s)"}},
		{
			"statistics of a window", rulefile.OnEndpoint,
			"quantile(0.95, jobs.in_queue, '15m') > 3 * stddev(jobs.in_queue, '15m') && predict(jobs.in_queue,'30m','10m') > sum(jobs.in_queue, '5m') && age(jobs.failed) < changes(jobs.failed, '1h')",
			[]string{
				"quantile(0.95, jobs.in_queue, '15m')", "stddev(jobs.in_queue, '15m')", "predict(jobs.in_queue, '30m', '10m')",
				"sum(jobs.in_queue, '5m')", "age(jobs.failed)", "changes(jobs.failed, '1h')",
			},
		},
		{
			"what is usual", rulefile.OnPod, "avg(gpu.util_percent, '1h') < 0.5*baseline(gpu.util_percent,'7d') - 3*baseline_spread(gpu.util_percent,'7d')",
			[]string{"avg(gpu.util_percent, '1h')", "baseline(gpu.util_percent, '7d')", "baseline_spread(gpu.util_percent, '7d')"},
		},
		{
			"the use of a budget", rulefile.OnEndpoint,
			"burn_rate(jobs.failed, jobs.completed + jobs.failed, threshold('slo', 0.99), '1h') > 14.4 && burn_rate(jobs.failed,jobs.completed, 0.9, '5m') > 1",
			[]string{
				"burn_rate(jobs.failed, jobs.completed + jobs.failed, threshold('slo', 0.99), '1h')", "threshold('slo', 0.99)",
				"burn_rate(jobs.failed, jobs.completed, 0.9, '5m')",
			},
		},
		{
			"equal but for a part", rulefile.OnEndpoint, "quantile(0.5, jobs.in_queue, '5m') < quantile(0.9, jobs.in_queue, '5m')",
			[]string{"quantile(0.5, jobs.in_queue, '5m')", "quantile(0.9, jobs.in_queue, '5m')"},
		},
		{"a variable of a list is no part", rulefile.OnEndpoint, "[1, 2].exists(n, n > jobs.in_queue)", []string{"jobs.in_queue"}},
		{
			"fields of the endpoint in a rule over jobs", rulefile.OnJob, "job.failed > 1 && job.category == 'oom' && jobs.failed > 0",
			[]string{"job.failed", "job.category", "jobs.failed"},
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			comp := compiler(t, c.on)
			e, mistakes := comp.Compile(c.text)
			if len(mistakes) > 0 {
				t.Fatal(mistakes)
			}
			var got []string
			for _, id := range e.Parts() {
				got = append(got, comp.Slots()[id].Text)
			}
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestCompileSaysWhatIsWrongAndWhere(t *testing.T) {
	for _, c := range []struct {
		name, text, want string
		at               string // the text at which the mistake stands
	}{
		{"a misspelt field", "jobs.in_que > 5", "`jobs.in_que` is no field of an endpoint; did you mean `jobs.in_queue`?", "jobs.in_que "},
		{"a misspelt field in a window", "avg(jobs.in_que, '5m') > 1", "did you mean `jobs.in_queue`?", "jobs.in_que,"},
		{"a misspelt field on the second line", "jobs.in_queue > 1 &&\n jobs.retired > 1", "did you mean `jobs.retried`?", "jobs.retired"},
		{"a field of something else", "gpu.util_percent < 10", "`gpu.util_percent` is no field of an endpoint; it is one of a pod", "gpu.util"},
		{"a part of a name", "jobs > 1", "`jobs` is no field of an endpoint", "jobs"},
		{"a misspelt function", "true && incresae(jobs.failed, '5m') > 2", "`incresae` is no function; did you mean `increase`?", "incresae"},
		{"a text that a field never has", "endpoint.type == 'QUEUE' && jobs.in_queue > 0", "`endpoint.type` is never 'QUEUE'; expected one of queue, load_balancer", "'QUEUE'"},
		{"a text in a list", "endpoint.type in ['queue', 'lb']", "is never 'lb'", "'lb'"},
		{"no condition", "jobs.in_queue + 1", "gives a number; expected a condition", "jobs"},
		{"a number against a text", "jobs.in_queue > 'x'", "`>` does not apply to a number and a text", "> 'x'"},
		{"a bad duration", "increase(jobs.failed, '5x') > 0", `"5x" is no duration`, "'5x'"},
		{"a window without quotes", "increase(jobs.failed, 5) > 0", "expected a duration in quotes", "5)"},
		{"no window", "avg(jobs.in_queue) > 0", "avg takes a field and a window", "jobs"},
		{"a window over an expression", "avg(workers.idle + workers.ready, '5m') > 0", "avg takes the name of a field", "+ workers"},
		{"increase of a gauge", "increase(jobs.in_queue, '5m') > 0", "`jobs.in_queue` is no counter", "jobs.in_queue"},
		{"the mean of a counter", "avg(jobs.failed, '5m') > 0", "`jobs.failed` is a counter", "jobs.failed"},
		{"a window over a text", "max(endpoint.type, '5m') > 0", "`endpoint.type` is no number", "endpoint.type"},
		{"an absence that cannot be told from an interruption", "absent('90s')", "'90s' is too short; expected at least 2m", "'90s'"},
		{"a window longer than what is kept", "avg(jobs.in_queue, '2d') > 0", "'2d' is too long", "'2d'"},
		{"a baseline of hours", "baseline(jobs.in_queue, '36h') > 1", "'36h' is too short; expected at least 48h", "'36h'"},
		{"a baseline of a part of a day", "baseline(jobs.in_queue, '60h') > 1", "'60h' is no whole number of days", "'60h'"},
		{"a baseline of a month", "baseline(jobs.in_queue, '30d') > 1", "'30d' is too long; at most 168h are kept", "'30d'"},
		{"a baseline without days", "baseline(jobs.in_queue) > 1", "baseline takes a field and a number of days", "jobs.in_queue)"},
		{"has of a field", "has(jobs.in_queue)", "write present(jobs.in_queue)", "has("},
		{"a broken expression", "jobs.in_queue >", "Syntax error", ">"},
		{"buckets that do not fill the window", "count_true(jobs.in_queue > 0, '10m', '3m') > 1", "whole number of buckets", "'3m'"},
		{"a window inside buckets", "count_true(max(jobs.in_queue, '1m') > 0, '10m', '1m') > 1", "names fields", "> 0"},
		{"a line through a counter", "deriv(jobs.failed, '5m') > 0", "`jobs.failed` is a counter", "jobs.failed"},
		{"a part above the whole", "quantile(95, jobs.in_queue, '5m') > 0", "the part of quantile is from 0 to 1, not 95", "95"},
		{"a part that is computed", "quantile(workers.idle, jobs.in_queue, '5m') > 0", "the part as a number", "workers.idle"},
		{"no part", "quantile(jobs.in_queue, '5m') > 0", "quantile takes a part, a field and a window", "jobs.in_queue"},
		{"no look ahead", "predict(jobs.in_queue, '5m') > 0", "predict takes a field, a window and how far to look ahead", "jobs.in_queue"},
		{"a look ahead too far", "predict(jobs.in_queue, '5m', '8d') > 0", "'8d' is too long; at most 168h can be looked ahead", "'8d'"},
		{"a look ahead over too long a window", "predict(jobs.in_queue, '2d', '8h') > 0", "'2d' is too long; at most 24h are kept", "'2d'"},
		{"the age of a text", "age(endpoint.type) > 60", "`endpoint.type` is no number; age needs one", "endpoint.type"},
		{"an age with a window", "age(jobs.in_queue, '5m') > 60", "age takes a field, for example age(", "jobs.in_queue"},
		{"a misspelt quantile", "quantil(0.5, jobs.in_queue, '5m') > 60", "did you mean `quantile`?", "quantil"},
		{"an objective in percent", "burn_rate(jobs.failed, jobs.completed, 99.9, '1h') > 1", "did you mean 0.999?", "99.9"},
		{"an objective that allows nothing", "burn_rate(jobs.failed, jobs.completed, 1, '1h') > 1", "between 0 and 1, for example 0.99, not 1", "1, "},
		{"an objective that is computed", "burn_rate(jobs.failed, jobs.completed, workers.max, '1h') > 1", "a number such as 0.99", "workers.max"},
		{"an override of an objective in percent", "burn_rate(jobs.failed, jobs.completed, threshold('slo', 99), '1h') > 1", "did you mean 0.99?", "threshold"},
		{"a budget of gauges", "burn_rate(jobs.failed, jobs.in_queue + jobs.failed, 0.9, '1h') > 1", "`jobs.in_queue` is no counter; burn_rate takes counters", "jobs.in_queue"},
		{"a budget of a product", "burn_rate(jobs.failed, 2 * jobs.failed, 0.9, '1h') > 1", "burn_rate takes the name of a field", "* jobs"},
		{"no objective", "burn_rate(jobs.failed, jobs.completed, '1h') > 1", "burn_rate takes what is bad, all there is, the objective and a window", "jobs.failed"},
		{"a variable of the inside", "@1 > 2", "Syntax error", "@1"},
		{"too long", strings.Repeat("(", 5000), "at most 4096", "("},
		{"too costly", "[" + strings.Repeat("1,", 60) + "1].all(a, [" + strings.Repeat("1,", 60) + "1].all(b, a*b > jobs.in_queue))", "may cost", "["},
	} {
		t.Run(c.name, func(t *testing.T) {
			e, mistakes := compiler(t, rulefile.OnEndpoint).Compile(c.text)
			if e != nil || len(mistakes) != 1 {
				t.Fatalf("got %v, %v; want one mistake", e, mistakes)
			}
			m := mistakes[0]
			if !strings.Contains(m.Text, c.want) {
				t.Errorf("mistake %q does not say %q", m.Text, c.want)
			}
			if !strings.HasPrefix(c.text[m.Offset:], c.at) {
				t.Errorf("mistake stands at %q, want %q", c.text[m.Offset:], c.at)
			}
		})
	}
}

func TestCompileReportsAllFieldsThatDoNotExist(t *testing.T) {
	_, mistakes := compiler(t, rulefile.OnEndpoint).Compile("jobs.a > 1 && jobs.b > 1 || pod.status == ''")
	if len(mistakes) != 3 {
		t.Errorf("got %v, want three mistakes", mistakes)
	}
}

func TestTheTableIsWhole(t *testing.T) {
	for _, on := range rulefile.Ons() {
		for _, f := range Fields(on) {
			if f.Name == "" || f.Meaning == "" || f.Kind == 0 || len(f.On) == 0 {
				t.Errorf("field %d is incomplete: %+v", f.ID, f)
			}
			if numeric := f.Kind == Gauge || f.Kind == Counter; numeric != (f.Unit != "") {
				t.Errorf("field %s: unit %q does not go with its kind", f.Name, f.Unit)
			}
			if byName[f.Name] != f.ID {
				t.Errorf("the name %s stands twice", f.Name)
			}
		}
	}
}
