package rulesuite

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const queueRules = `
groups:
  - name: g
    rules:
      - alert: Waiting
        on: endpoint
        expr: jobs.in_queue > 10
        for: 1m
        labels: {severity: warning}
        annotations: {summary: '{{ .Name }}: {{ .Value "jobs.in_queue" }}'}
      - alert: Silent
        on: endpoint
        expr: absent('3m')
        labels: {severity: warning}
      - alert: OutOfMemory
        on: job
        expr: job.category == 'oom' && increase(job.failed, '5m') >= 2
        labels: {severity: warning}
      - alert: Expensive
        on: pod
        expr: pod.status == 'RUNNING' && pod.cost_per_hour > 2
        labels: {severity: info}
      - alert: Rejected
        on: account
        expr: polls.unauthorized > 0 && polls.ok == 0
        labels: {severity: critical}
      - {alert: Shrunk, on: account, expr: inventory.shrunk}
`

// play plays the one test of a file and returns the differences, each with its line.
func play(t *testing.T, text string) []string {
	t.Helper()
	file, err := Parse("tests.yaml", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	suite, err := New(file, map[string][]byte{"rules.yaml": []byte(queueRules)})
	if err != nil {
		t.Fatal(err)
	}
	var all []string
	for _, test := range suite.Tests() {
		result, err := suite.Run(test)
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range result.Failures {
			all = append(all, f.Differences...)
		}
	}
	return all
}

func TestAStoryComesOutAsItIsExpected(t *testing.T) {
	for name, text := range map[string]string{
		"a condition that must hold for a while": `
tests:
- name: t
  endpoints: {a: {name: prod-a, series: {jobs.in_queue: '0x3 20x7 0x4'}}}
  expect:
  - {at: 1m, firing: [], pending: [{alert: Waiting}]}
  - {at: 1m45s, firing: [], pending: [{alert: Waiting, target: a}]}
  - {at: 2m, pending: [], firing: [{alert: Waiting, labels: {severity: warning, endpoint_id: a}, annotations: {summary: 'prod-a: 20'}, evidence: {jobs.in_queue: 20}}]}
  - {at: 3m, firing: []}
`,
		"silence after the last value, and none where one series is a constant": `
tests:
- name: t
  endpoints: {a: {series: {jobs.in_queue: '0x3'}}, b: {series: {jobs.in_queue: 0}}}
  expect:
  - {at: 3m, firing: []}
  - {at: 5m, firing: [{alert: Silent, target: a}]}
`,
		"missing samples": `
tests:
- name: t
  endpoints: {a: {series: {jobs.in_queue: '0x3 _x20 0x20', jobs.failed: 0}}}
  expect:
  - {at: 4m30s, firing: [{alert: Silent}]}
  - {at: 6m15s, firing: []}
`,
		"a field that is left out keeps what waits waiting": `
tests:
- name: t
  endpoints: {a: {series: {jobs.in_queue: '20x2 stale 20x20', jobs.failed: '0x30'}}}
  expect:
  - {at: 50s, pending: [{alert: Waiting}]}
`,
		"jobs": `
tests:
- name: t
  endpoints: {a: {series: {jobs.in_queue: 0}}}
  events:
  - {at: 1m, endpoint: a, job: {id: j1, state: FAILED, category: oom, error: CUDA out of memory}}
  - {at: 2m, endpoint: a, job: {id: j2, state: failed, category: oom, type: OutOfMemoryError}}
  expect:
  - {at: 1m30s, firing: []}
  - {at: 2m, firing: [{alert: OutOfMemory, labels: {category: oom}}]}
  - {at: 10m, firing: []}
`,
		"pods, which may be removed": `
interval: 30s
tests:
- name: t
  pods: {p: {gpus: 1, series: {pod.status: 'EXITEDx2 RUNNINGx20', pod.cost_per_hour: 2.5, gpu.util_percent: 0}}}
  events: [{at: 4m, pod: p, removed: true}]
  expect:
  - {at: 1m, firing: []}
  - {at: 2m, firing: [{alert: Expensive, target: p}]}
  - {at: 4m, firing: []}
`,
		"the account": `
tests:
- name: t
  account: {series: {polls.ok: '5x3 0x3', polls.unauthorized: '0x3 5x3'}}
  expect:
  - {at: 30s, firing: []}
  - {at: 1m15s, firing: [{alert: Rejected, target: default}]}
`,
		"a night in which nothing runs": `
tests:
- name: t
  endpoints: {a: {series: {jobs.in_queue: 20}}}
  events: [{at: 30s, sleep: 8h}, {at: 8h30s, collector_started: true}]
  expect:
  - {at: 8h30s, firing: []}
  - {at: 8h2m, firing: [{alert: Waiting}]}
`,
		"polls that fail bring no sample": `
tests:
- name: t
  endpoints: {a: {series: {jobs.in_queue: '0x3 failx40'}}}
  expect:
  - {at: 3m, firing: []}
  - {at: 5m, firing: [{alert: Silent}]}
`,
		"an inventory that shrinks and comes back": `
tests:
- name: t
  account: {series: {polls.ok: 5}}
  events:
  - {at: 1m, inventory_shrunk: {known: 60, vanished: 30}}
  - {at: 5m, inventory_shrunk: {over: true}}
  expect:
  - {at: 2m, firing: [{alert: Shrunk, evidence: {inventory.shrunk: true}}]}
  - {at: 6m, firing: []}
`,
	} {
		t.Run(name, func(t *testing.T) {
			for _, d := range play(t, text) {
				t.Error(d)
			}
		})
	}
}

func TestWhatIsNotAsExpectedIsTold(t *testing.T) {
	got := play(t, `
tests:
- name: t
  endpoints: {a: {series: {jobs.in_queue: 20}}, b: {series: {jobs.in_queue: 30}}}
  expect:
  - at: 2m
    firing:
    - {alert: Waiting, target: a, labels: {severity: critical}, annotations: {summary: 'b: 30', runbook: x}, evidence: {jobs.in_queue: 21}}
    - {alert: Silent}
    pending: [{alert: Waiting}]
`)
	want := []string{
		`Waiting on a: label severity: want "critical", got "warning"`,
		`Waiting on a: annotation runbook: want "x", there is none`,
		`Waiting on a: annotation summary: want "b: 30", got "a: 20"`,
		`Waiting on a: evidence jobs.in_queue: want "21", got "20"`,
		"Silent is not firing",
		"Waiting on b is firing, which was not expected",
		"Waiting is not pending",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestCoverage(t *testing.T) {
	file, err := Parse("t.yaml", []byte("tests: [{name: t, endpoints: {a: {series: {jobs.in_queue: '20x8 0x8'}}}, expect: [{at: 4m, firing: []}]}]"))
	if err != nil {
		t.Fatal(err)
	}
	suite, err := New(file, map[string][]byte{"rules.yaml": []byte(queueRules)})
	if err != nil {
		t.Fatal(err)
	}
	result, err := suite.Run(suite.Tests()[0])
	if err != nil || len(result.Failures) > 0 {
		t.Fatal(result, err)
	}
	if !result.Fired["g/Waiting"] || !result.Resolved["g/Waiting"] || len(result.Fired) != 1 || len(suite.Rules()) != 6 {
		t.Errorf("fired %v, resolved %v, of %v", result.Fired, result.Resolved, suite.Rules())
	}
}

func TestEveryMistakeOfAFileIsTold(t *testing.T) {
	_, err := Parse("t.yaml", []byte(`interval: 15 s
tests:
- name: a
  endponts: {}
  expect:
  - {at: 1m, fring: []}
- name: b
  endpoints: {x: {series: {jobs.in_queue: '1x99999'}}}
`))
	want := strings.Join([]string{
		"t.yaml:1: \"15 s\" is no duration; write for example 5m, 1h30m or 2d",
		"t.yaml:4: `endponts` is no key here",
		"t.yaml:6: `fring` is no key here",
		`t.yaml:8: "1x99999": more than 20000 values`,
	}, "\n")
	if err == nil {
		t.Fatal("taken")
	}
	if diff := cmp.Diff(want, err.Error()); diff != "" {
		t.Error(diff)
	}
	_, err = Parse("t.yaml", []byte(`tests:
- name: a
  endpoints: {x: {settings: {type: que}, series: {jobs.in_que: 1, jobs.failed: high, workers.idle: 0}}}
  pods: {p: {series: {pod.status: 5}}}
  events:
  - {at: 1m, endpoint: y, job: {id: j, state: DONE, category: omm}}
  - {at: 1m, pod: p}
  - {at: 1m, settings: {workers_max: 0}}
  - {at: 2m, every: 1m, until: 1m, endpoint: x, removed: true}
  - {at: 2m, every: 1s, until: 100h, endpoint: x, removed: true}
  expect:
  - {at: 9000h}
  - {at: 1m, firing: [{target: x}]}
- name: a
`))
	if err == nil {
		t.Fatal("taken")
	}
	for _, want := range []string{
		"t.yaml:2: endpoint x: the type `que` is neither queue nor load_balancer",
		"t.yaml:2: endpoint x: `jobs.in_que` is no field that polls bring; did you mean `jobs.in_queue`?",
		"t.yaml:2: endpoint x: jobs.failed: `high` is no number",
		"t.yaml:2: pod p: pod.status: 5 is no text such as RUNNING",
		"t.yaml:6: the test has no endpoint `y`; did you mean `x`?",
		"t.yaml:6: the job's state `DONE` is none of IN_QUEUE, ",
		"t.yaml:6: the job's category `omm` is none of validation, timeout, oom, ",
		"t.yaml:7: an event is one of job, settings, removed, inventory_shrunk, collector_started and sleep; this is 0 of them",
		"t.yaml:8: whose settings? add `endpoint`",
		"t.yaml:9: an event that is repeated has both `every` and, after `at`, `until`",
		"t.yaml:10: the event is repeated 359880 times; at most 10080 are played",
		"t.yaml:12: nothing is expected",
		"t.yaml:12: `at: 9000h0m0s` is not between 0 and 192h0m0s",
		"t.yaml:13: an alert is expected without its name",
		"t.yaml:14: the test `a` stands twice, first at line 2",
		"t.yaml:14: the test `a` expects nothing",
		"t.yaml:14: the test `a` has no endpoints, pods or account",
	} {
		if !strings.Contains(err.Error()+"\n", want) {
			t.Errorf("no %q in\n%v", want, err)
		}
	}
}

func TestAnEmptyItemIsTold(t *testing.T) {
	for text, want := range map[string]string{
		"tests:\n-": "t.yaml:2: an item of `tests` is empty",
		"tests:\n- name: a\n  expect:\n  - {at: 1m, firing: []}\n  -\n":  "t.yaml:5: an item of `expect` is empty",
		"tests:\n- name: a\n  events:\n  - &e ~\n  - *e\n  expect: []\n": "t.yaml:4: an item of `events` is empty",
	} {
		if _, err := Parse("t.yaml", []byte(text)); err == nil || err.Error() != want {
			t.Errorf("%q: %v, want %q", text, err, want)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte("tests: [{name: t, endpoints: {a: {series: {jobs.in_queue: '20x8 0x8'}}}, expect: [{at: 4m, firing: []}]}]"))
	f.Add([]byte("tests: [*a]\n"))
	f.Add([]byte("tests:\n- &a {name: t, events: [*a]}\n"))
	f.Fuzz(func(t *testing.T, src []byte) {
		if len(src) > 2000 {
			return
		}
		file, err := Parse("t.yaml", src)
		if err == nil && len(file.Tests) == 0 {
			t.Error("no tests and no mistake")
		}
	})
}
