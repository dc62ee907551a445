package proc_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/tocsin-dev/tocsin/internal/proc"
	"github.com/tocsin-dev/tocsin/internal/secret"
)

// section has a field of each shape that services use.
type section struct {
	Address   string            `yaml:"http_address"`
	Token     secret.String     `yaml:"token"`
	Insecure  bool              `yaml:"insecure"`
	PollEvery time.Duration     `yaml:"poll_every"`
	Workers   int               `yaml:"workers"`
	Bytes     uint64            `yaml:"max_bytes"`
	Ratio     float64           `yaml:"ratio"`
	Names     []string          `yaml:"names"`
	Steps     []time.Duration   `yaml:"steps"`
	Labels    map[string]string `yaml:"labels"`
	Limit     *int              `yaml:"limit"`
	Match     *regexp.Regexp    `yaml:"match"`
	Nested    nested            `yaml:"nested"`
	Inline    inlined           `yaml:",inline"`
	Hidden    string            `yaml:"-"`
	Any       any               `yaml:"any"`
	Untagged  int
	private   int //nolint:unused // shows that unexported fields are passed over
}

type nested struct {
	Deep  deeper `yaml:"deep"`
	Width int    `yaml:"width"`
}

type deeper struct {
	Depth int `yaml:"depth"`
}

type inlined struct {
	Extra string `yaml:"extra"`
}

func (s section) Validate() error {
	var mistakes []error
	if s.PollEvery < time.Second {
		mistakes = append(mistakes, fmt.Errorf("poll_every: %v is below the minimum of 1s", s.PollEvery))
	}
	if s.Nested.Deep.Depth > 9 {
		mistakes = append(mistakes, errors.New("nested.deep.depth: above 9"))
	}
	return errors.Join(mistakes...)
}

type pattern struct {
	Match  *regexp.Regexp    `yaml:"match"`
	Labels map[string]string `yaml:"labels"`
}

type patterns []pattern

func (p patterns) Validate() error {
	var mistakes []error
	for i := range p {
		if p[i].Match == nil {
			mistakes = append(mistakes, fmt.Errorf("[%d].match: missing", i))
		}
		if p[i].Labels["bad"] != "" {
			mistakes = append(mistakes, fmt.Errorf("[%d].labels.bad: not allowed", i))
		}
	}
	if len(p) > 1 {
		mistakes = append(mistakes, errors.New("more than one: choose"))
	}
	return errors.Join(mistakes...)
}

func defaults() section {
	return section{Address: "127.0.0.1:8083", PollEvery: 15 * time.Second, Workers: 4, Names: []string{"default"}, Nested: nested{Width: 3}}
}

// load writes text to a file called tocsin.yaml and loads it.
func load(t *testing.T, text string, environ ...string) (section, patterns, error) {
	t.Helper()
	t.Chdir(t.TempDir())
	if err := os.WriteFile("tocsin.yaml", []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	s, targets := defaults(), patterns(nil)
	err := proc.Load("tocsin.yaml", environ, map[string]any{"collector": &s, "targets": &targets})
	return s, targets, err
}

func TestLoadReadsEveryShape(t *testing.T) {
	got, targets, err := load(t, `
collector:
  http_address: 127.0.0.1:1
  token: 12345
  insecure: true
  poll_every: 1m30s
  workers: -7
  max_bytes: 18446744073709551615
  ratio: 0.25
  names: [a, 'b', 3]
  steps: [1s, 7d]
  labels: {team: ml, level: 2, on: yes}
  limit: 0
  match: ^prod-
  nested: {deep: {depth: 2}}
  extra: &x more
  any: {k: [1]}
  untagged: 5
targets:
  - match: ^(?P<team>\w+)-
    labels: {env: prod}
  - labels: {env: *x, bad: 1}
alerter:
  whatever: another process reads it
log: {level: debug}
`)
	mistakes := "tocsin.yaml:20:3: targets: more than one: choose\ntocsin.yaml:22:5: targets[1].match: missing\ntocsin.yaml:22:28: targets[1].labels.bad: not allowed"
	if err == nil || err.Error() != mistakes {
		t.Errorf("error is\n%v\nwant\n%s", err, mistakes)
	}
	limit := 0
	want := section{
		Address: "127.0.0.1:1", Token: "12345", Insecure: true, PollEvery: 90 * time.Second, Workers: -7, Bytes: 1<<64 - 1, Ratio: 0.25,
		Names: []string{"a", "b", "3"}, Steps: []time.Duration{time.Second, 7 * 24 * time.Hour},
		Labels: map[string]string{"team": "ml", "level": "2", "on": "yes"}, Limit: &limit, Match: regexp.MustCompile("^prod-"),
		Nested: nested{Deep: deeper{Depth: 2}, Width: 3}, Inline: inlined{Extra: "more"}, Any: map[string]any{"k": []any{1}}, Untagged: 5,
	}
	compare := cmp.Options{cmp.AllowUnexported(section{}), cmp.Comparer(func(a, b *regexp.Regexp) bool { return fmt.Sprint(a) == fmt.Sprint(b) })}
	if diff := cmp.Diff(want, got, compare); diff != "" {
		t.Errorf("section (-want +got):\n%s", diff)
	}
	if len(targets) != 2 || targets[0].Match.String() != `^(?P<team>\w+)-` || targets[1].Labels["env"] != "more" {
		t.Errorf("targets are %+v", targets)
	}
}

func TestLoadKeepsDefaults(t *testing.T) {
	for name, text := range map[string]string{
		"an empty file":                        "",
		"a comment":                            "# nothing yet\n",
		"a section without keys":               "collector:\n",
		"a key without a value":                "collector:\n  http_address:\n  names: ~\n  limit: null\n",
		"another process's section alone":      "notifier: {x: 1}\n",
		"a nested section without keys":        "collector: {nested: {deep: }}\n",
		"a document with its mark and nothing": "---\n",
	} {
		got, _, err := load(t, text)
		if err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if diff := cmp.Diff(defaults(), got, cmp.AllowUnexported(section{})); diff != "" {
			t.Errorf("%s changes the defaults (-want +got):\n%s", name, diff)
		}
	}
	s := defaults()
	if err := proc.Load("", nil, map[string]any{"collector": &s}); err != nil {
		t.Errorf("no file at all: %v", err)
	}
}

func TestLoadReportsEveryMistakeAtOnce(t *testing.T) {
	_, _, err := load(t, `colector: {}
collector:
  pol_every: 15s
  poll_every: soon
  workers: 1.5
  max_bytes: -1
  ratio: .nan
  insecure: "true"
  names: one
  steps: [1s, 2]
  labels: [a]
  match: '('
  http_address: [a]
  nested:
    deep: {depth: x, dept: 1}
    <<: {width: 1}
  workers: 2
  zzzzzz: 1
targets:
  - {match: a, lables: {}}
  - 7
`, "TOCSIN_COLLECTOR_RATIO=much", "TOCSIN_COLLECTOR_POLL_EVERY=1ms")
	want := `tocsin.yaml:1:1: colector: unknown key; did you mean collector?
tocsin.yaml:3:3: collector.pol_every: unknown key; did you mean poll_every?
tocsin.yaml:4:15: collector.poll_every: "soon" is not a duration such as 15s, 1m30s or 7d
tocsin.yaml:5:12: collector.workers: want a whole number, not "1.5"
tocsin.yaml:6:14: collector.max_bytes: want a whole number from 0 up, not "-1"
tocsin.yaml:7:10: collector.ratio: want a number, not ".nan"
tocsin.yaml:8:13: collector.insecure: want true or false, not a text
tocsin.yaml:9:10: collector.names: want a list, not "one"
tocsin.yaml:10:15: collector.steps[1]: "2" is not a duration such as 15s, 1m30s or 7d
tocsin.yaml:11:11: collector.labels: want keys with values, not a list
tocsin.yaml:12:10: collector.match: error parsing regexp: missing closing ): ` + "`(`" + `
tocsin.yaml:13:17: collector.http_address: want a text, not a list
tocsin.yaml:15:19: collector.nested.deep.depth: want a whole number, not "x"
tocsin.yaml:15:22: collector.nested.deep.dept: unknown key; did you mean depth?
tocsin.yaml:16:5: collector.nested: merge keys (<<) are not supported
tocsin.yaml:17:3: collector.workers: given twice, first in line 5
tocsin.yaml:18:3: collector.zzzzzz: unknown key
tocsin.yaml:20:3: targets: more than one: choose
tocsin.yaml:20:16: targets[0].lables: unknown key; did you mean labels?
tocsin.yaml:21:5: targets[1]: want keys with values, not "7"
TOCSIN_COLLECTOR_RATIO: collector.ratio: want a number, not "much"
TOCSIN_COLLECTOR_POLL_EVERY: collector.poll_every: 1ms is below the minimum of 1s`
	if diff := cmp.Diff(strings.Split(want, "\n"), strings.Split(fmt.Sprint(err), "\n")); diff != "" {
		t.Errorf("mistakes (-want +got):\n%s", diff)
	}
	if !proc.IsUsage(err) {
		t.Error("the mistakes are not marked as those of usage")
	}
}

func TestLoadPlacesWhatValidateFinds(t *testing.T) {
	_, _, err := load(t, "collector:\n  poll_every: 10ms\n  nested: {deep: {depth: 10}}\n")
	want := "tocsin.yaml:2:15: collector.poll_every: 10ms is below the minimum of 1s\n" +
		"tocsin.yaml:3:26: collector.nested.deep.depth: above 9"
	if err == nil || err.Error() != want {
		t.Errorf("got\n%v\nwant\n%s", err, want)
	}
	s := defaults()
	s.PollEvery = 0
	err = proc.Load("", nil, map[string]any{"collector": &s})
	if err == nil || err.Error() != "collector.poll_every: 0s is below the minimum of 1s" {
		t.Errorf("a default that is wrong is reported as %v", err)
	}
}

// What sections name is checked in the same round, with whatever mistakes.
func TestChecksTellTheirMistakesBesideTheOthers(t *testing.T) {
	t.Chdir(t.TempDir())
	text := "collector:\n  poll_every: 1ms\n  http_address: routes.yml\n  workers: many\n"
	if err := os.WriteFile("tocsin.yaml", []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	s := defaults()
	checks := []func() error{
		func() error {
			return errors.Join(
				fmt.Errorf("read the file of a section: %w", errors.Join(errors.New("collector.http_address: no such file"), errors.New(s.Address+":3:5: wrong"))),
				errors.New("collector.workers: 4 are too few"), // follows from what could not be read
				errors.New("collector.token_file: no such file"),
				errors.New("collector.poll_every: 1ms is below the minimum of 1s"), // Validate says so too
				errors.New("no key: set it"))
		},
		func() error { return nil },
	}
	err := proc.Load("tocsin.yaml", []string{"TOCSIN_COLLECTOR_MAX_BYTES=x"}, map[string]any{"collector": &s}, checks...)
	want := `tocsin.yaml:2:3: collector.token_file: no such file
tocsin.yaml:2:15: collector.poll_every: 1ms is below the minimum of 1s
tocsin.yaml:4:12: collector.workers: want a whole number, not "many"
TOCSIN_COLLECTOR_MAX_BYTES: collector.max_bytes: want a whole number from 0 up, not "x"
read the file of a section: collector.http_address: no such file
routes.yml:3:5: wrong
no key: set it`
	if diff := cmp.Diff(strings.Split(want, "\n"), strings.Split(fmt.Sprint(err), "\n")); diff != "" || !proc.IsUsage(err) {
		t.Errorf("mistakes (-want +got):\n%s", diff)
	}
	s = defaults()
	if err := proc.Load("", nil, map[string]any{"collector": &s}, func() error { return errors.New("the check: failed") }); !proc.IsUsage(err) || err.Error() != "the check: failed" {
		t.Errorf("without a file: %v", err)
	}
}

func TestAnUnreadableFileIsToldBesideTheVariables(t *testing.T) {
	_, _, err := load(t, "collector: [\n", "TOCSIN_COLLECTOR_WORKERS=x", "TOCSIN_COLLECTOR_POLL_EVERY=1ms")
	want := "tocsin.yaml:2: not YAML: did not find expected node content\n" +
		`TOCSIN_COLLECTOR_WORKERS: collector.workers: want a whole number, not "x"`
	if err == nil || err.Error() != want {
		t.Errorf("got\n%v\nwant\n%s", err, want)
	}
}

func TestLoadOfWhatIsNoConfiguration(t *testing.T) {
	for name, test := range map[string]struct{ text, want string }{
		"broken YAML":    {"collector: [\n", "tocsin.yaml:2: not YAML: did not find"},
		"broken at once": {"}", "tocsin.yaml:1: not YAML: did not find"},
		"an odd tab":     {"log:\n  level: info\n\tformat: text\n", "tocsin.yaml:2: not YAML: found a tab"},
		"two documents":  {"log: {}\n---\nlog: {}\n", "tocsin.yaml:2:1: only one YAML document"},
		"broken later":   {"log: {}\n---\n[\n", "tocsin.yaml:4: not YAML: did not find"},
		"a list on top":  {"- a\n", "tocsin.yaml:1:1: want keys with values, not a list"},
		"a text on top":  {"hello\n", `tocsin.yaml:1:1: want keys with values, not "hello"`},
		"a key of keys":  {"collector:\n  {a: b}: c\n", "a key must be a word"},
		"binary":         {"\x00\x01\x02", "tocsin.yaml: not YAML: control characters"},
		"a secret shown": {"collector: {insecure: rpa_ABCDEF}\n", `want true or false, not "rpa_REDACTED"`},
	} {
		_, _, err := load(t, test.text)
		if err == nil || !strings.Contains(err.Error(), test.want) || !proc.IsUsage(err) {
			t.Errorf("%s: %v", name, err)
		}
	}
	dir := t.TempDir()
	large := filepath.Join(dir, "large")
	if err := os.WriteFile(large, make([]byte, 4<<20+1), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{dir + "/none", dir, large} {
		if err := proc.Load(path, nil, map[string]any{}); !proc.IsUsage(err) {
			t.Errorf("%s: %v", path, err)
		}
	}
	if err := proc.Load("", nil, map[string]any{"colector": &section{}}); err == nil || proc.IsUsage(err) {
		t.Errorf("a section that does not exist in code: %v", err)
	}
}

func TestVariablesOverrideTheFile(t *testing.T) {
	got, _, err := load(t, "collector: {workers: 1, names: [x], limit: 7, nested: {width: 5}}\n",
		"TOCSIN_COLLECTOR_HTTP_ADDRESS=a=b", "TOCSIN_COLLECTOR_TOKEN=t", "TOCSIN_COLLECTOR_INSECURE=true",
		"TOCSIN_COLLECTOR_POLL_EVERY=2d", "TOCSIN_COLLECTOR_WORKERS=1", "TOCSIN_COLLECTOR_WORKERS=9",
		"TOCSIN_COLLECTOR_NAMES=a, b,,c", "TOCSIN_COLLECTOR_STEPS=", "TOCSIN_COLLECTOR_NESTED_DEEP_DEPTH=8",
		"TOCSIN_COLLECTOR_EXTRA=e", "TOCSIN_COLLECTOR_LIMIT=3", "TOCSIN_COLLECTOR_MATCH=^x$", "TOCSIN_COLLECTOR_UNTAGGED=6",
		"TOCSIN_COLLECTOR_PORT_80_TCP=tcp://10.0.0.1:80", "TOCSIN_ALERTER_WORKERS=x", "COLLECTOR_WORKERS=3", "malformed")
	if err != nil {
		t.Fatal(err)
	}
	limit := 3
	want := section{
		Address: "a=b", Token: "t", Insecure: true, PollEvery: 48 * time.Hour, Workers: 9, Names: []string{"a", "b", "c"}, Steps: []time.Duration{},
		Nested: nested{Deep: deeper{Depth: 8}, Width: 5}, Inline: inlined{Extra: "e"}, Limit: &limit, Match: regexp.MustCompile("^x$"), Untagged: 6,
	}
	compare := cmp.Options{cmp.AllowUnexported(section{}), cmp.Comparer(func(a, b *regexp.Regexp) bool { return fmt.Sprint(a) == fmt.Sprint(b) })}
	if diff := cmp.Diff(want, got, compare); diff != "" {
		t.Errorf("section (-want +got):\n%s", diff)
	}
}

func TestVariablesThatCannotBeSet(t *testing.T) {
	for variable, want := range map[string]string{
		"TOCSIN_COLLECTOR_LABELS=a":    "TOCSIN_COLLECTOR_LABELS: collector.labels: cannot be set by a variable, only in the file",
		"TOCSIN_TARGETS=a":             "TOCSIN_TARGETS: targets: cannot be set by a variable, only in the file",
		"TOCSIN_COLLECTOR_ANY=a":       "TOCSIN_COLLECTOR_ANY: collector.any: cannot be set by a variable, only in the file",
		"TOCSIN_COLLECTOR_STEPS=1s,x":  `TOCSIN_COLLECTOR_STEPS: collector.steps: "x" is not a duration such as 15s, 1m30s or 7d`,
		"TOCSIN_COLLECTOR_LIMIT=x":     `TOCSIN_COLLECTOR_LIMIT: collector.limit: want a whole number, not "x"`,
		"TOCSIN_COLLECTOR_INSECURE=1":  `TOCSIN_COLLECTOR_INSECURE: collector.insecure: want true or false, not "1"`,
		"TOCSIN_COLLECTOR_MATCH=[":     "TOCSIN_COLLECTOR_MATCH: collector.match: error parsing regexp: missing closing ]: `[`",
		"TOCSIN_COLLECTOR_WORKERS=":    `TOCSIN_COLLECTOR_WORKERS: collector.workers: want a whole number, not ""`,
		"TOCSIN_COLLECTOR_MAX_BYTES=-": `TOCSIN_COLLECTOR_MAX_BYTES: collector.max_bytes: want a whole number from 0 up, not "-"`,
	} {
		if _, _, err := load(t, "", variable); err == nil || err.Error() != want {
			t.Errorf("%s: %v", variable, err)
		}
	}
}

func FuzzLoadNeverPanics(f *testing.F) {
	f.Add("collector: {labels: {a: b}}", "1")
	f.Add("a: &a [*a]\ncollector: {any: *a}", "x")
	f.Add("collector: &c {nested: *c}", ",")
	f.Add("collector: {? [a] : b}", "")
	f.Add("targets: [{match: !!binary aGk=}]", "7d")
	path := filepath.Join(f.TempDir(), "c.yaml")
	f.Fuzz(func(t *testing.T, text, variable string) {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		s, targets := defaults(), patterns(nil)
		environ := []string{"TOCSIN_COLLECTOR_STEPS=" + variable, "TOCSIN_COLLECTOR_WORKERS=" + variable}
		err := proc.Load(path, environ, map[string]any{"collector": &s, "targets": &targets})
		if err != nil && !proc.IsUsage(err) {
			t.Errorf("a mistake in the file is not one of usage: %v", err)
		}
	})
}

func TestParseDuration(t *testing.T) {
	const day = 24 * time.Hour
	for text, want := range map[string]time.Duration{
		"15s": 15 * time.Second, "1m30s": 90 * time.Second, "250ms": 250 * time.Millisecond, "1.5h": 90 * time.Minute, "0": 0, "0s": 0,
		"7d": 7 * day, "1w": 7 * day, "1y": 365 * day, "1y2w3d4h": 382*day + 4*time.Hour, "0d": 0, "-5s": -5 * time.Second, "292y": 292 * 365 * day,
	} {
		if got, err := proc.ParseDuration(text); err != nil || got != want {
			t.Errorf("%q: %v, %v, want %v", text, got, err, want)
		}
	}
	for _, text := range []string{"", "5", "d", "s", "1d1w", "1.5d", "-1d", "1d-1h", "1d 1h", "1 d", "7D", "x", "1d\n", "999999y", "293y", "292y999999h", "1s1d"} {
		if got, err := proc.ParseDuration(text); err == nil {
			t.Errorf("%q was read as %v", text, got)
		}
	}
}
