package settings

import (
	"encoding/base64"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/tocsin-dev/tocsin/services/notifier/internal/route"
)

const goodSecret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"

func parse(t *testing.T, text string) *Settings {
	t.Helper()
	s, err := Parse("routes.yml", []byte(text), t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestTheDefaultFileIsValid(t *testing.T) {
	s, err := Default()
	if err != nil {
		t.Fatal(err)
	}
	if s.Sends() {
		t.Error("the default file sends")
	}
	table := route.NewTable(s.Route, s.Receivers())
	got := table.Destinations(map[string]string{"alertname": "A", "account": "x"})
	if len(got) != 1 || !strings.HasPrefix(got[0].Lane.Integration, "tocsin/") || got[0].Timing.GroupWait != 0 || len(got[0].GroupLabels) != 2 {
		t.Errorf("destinations %+v", got)
	}
}

// The default inhibitions name only rules that exist, and a cause inhibits no
// rule that the rule pack does not list below it.
func TestTheDefaultInhibitionsNameRulesOfThePack(t *testing.T) {
	known := map[string]bool{}
	files, err := filepath.Glob(filepath.Join("..", "..", "..", "..", "rules", "*.yaml"))
	if err != nil || len(files) < 5 {
		t.Fatalf("the files of the pack are %v, %v", files, err)
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.SplitSeq(string(text), "\n") {
			if _, name, ok := strings.Cut(line, "- alert: "); ok {
				known[strings.TrimSpace(name)] = true
			}
		}
	}
	s, err := Default()
	if err != nil {
		t.Fatal(err)
	}
	for _, rule := range s.InhibitRules {
		for _, m := range append(rule.SourceMatchers, rule.TargetMatchers...) {
			for name := range strings.SplitSeq(m.Value, "|") {
				if !known[name] {
					t.Errorf("%q is no rule of the pack", name)
				}
			}
		}
	}
}

func TestParse(t *testing.T) {
	s := parse(t, `
global:
  http_config: {proxy_url: "http://proxy:3128"}
route: {receiver: ops}
receivers:
- name: ops
  tocsin_configs: # ours, in the middle
  - url: https://user:pass@example.com/a
    secret: `+goodSecret+`
    timeout: 3s
  - url: http://10.0.0.1/b
    format: simple
    send_resolved: false
    http_config:
      basic_auth: {username: u, password: p}
  webhook_configs:
  - url: https://example.com/c
    max_alerts: 7
- tocsin_configs:
  - format: print
  name: printer
- name: nobody
`)
	type row struct {
		Receiver, Name, Format, URL string
		Signed, SendResolved        bool
		MaxAlerts                   int
		Timeout                     time.Duration
		HTTP                        bool
	}
	var got []row
	for _, in := range s.Integrations {
		url, err := in.Endpoint.URL()
		if err != nil {
			t.Error(err)
		}
		got = append(got, row{in.Receiver, in.Name, in.Format, url, in.Key.Set(), in.SendResolved, in.MaxAlerts, in.Timeout, in.HTTP != nil})
	}
	want := []row{
		{"ops", nameOf("webhook", FormatAlertmanager, "https://example.com/c", ""), "alertmanager", "https://example.com/c", false, true, 7, 0, true},
		{"ops", nameOf("tocsin", FormatStandard, "https://user:pass@example.com/a", ""), "standard", "https://user:pass@example.com/a", true, true, 0, 3 * time.Second, false},
		{"ops", nameOf("tocsin", FormatSimple, "http://10.0.0.1/b", ""), "simple", "http://10.0.0.1/b", false, false, 0, 0, true},
		{"printer", nameOf("tocsin", FormatPrint, "", ""), "print", "", false, true, 0, 0, false},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if got := s.Integrations[0].HTTP.ProxyURL.String(); got != "http://proxy:3128" {
		t.Errorf("proxy %q, want the global one", got)
	}
	if !s.Sends() || len(s.Hash) != 16 {
		t.Errorf("sends %t, hash %q", s.Sends(), s.Hash)
	}
}

func TestIntegrationsKeepTheirNamesWhenTheFileChangesAroundThem(t *testing.T) {
	entries := func(lists ...string) map[string]string {
		t.Helper()
		urls := map[string]string{}
		for _, in := range parse(t, "route: {receiver: ops}\nreceivers:\n- name: ops\n"+strings.Join(lists, "")).Integrations {
			url, err := in.Endpoint.URL()
			if err != nil {
				t.Fatal(err)
			}
			if urls[in.Name] != "" {
				t.Errorf("two integrations are called %s", in.Name)
			}
			if strings.Contains(in.Name, "canary") {
				t.Errorf("the name %s shows the URL", in.Name)
			}
			urls[in.Name] = url
		}
		return urls
	}
	before := entries("  webhook_configs:\n  - url: https://example.com/canary\n",
		"  tocsin_configs:\n  - {url: https://example.com/canary}\n  - {url: https://example.com/canary, format: simple}\n")
	after := entries("  webhook_configs:\n  - url: https://example.com/new\n  - url: https://example.com/canary\n  - url: https://example.com/canary\n",
		"  tocsin_configs:\n  - {url: https://example.com/other}\n  - {url: https://example.com/canary, format: simple}\n  - {url: https://example.com/canary}\n")
	if len(before) != 3 || len(after) != 6 {
		t.Fatalf("%d and %d names", len(before), len(after))
	}
	for name, url := range before {
		if after[name] != url {
			t.Errorf("%s was %s and is %q", name, url, after[name])
		}
	}
}

func TestMatchersAreReadAsAlertmanagerReadsThem(t *testing.T) {
	s := parse(t, `
route:
  receiver: ops
  routes:
  - {matchers: ['"Σ.label"="x"', 'team=~web|api', '{env="prod"}'], receiver: ops}
receivers:
- name: ops
  tocsin_configs: [{format: print}]
`)
	table := route.NewTable(s.Route, s.Receivers())
	got := table.Destinations(map[string]string{"Σ.label": "x", "team": "api", "env": "prod"})
	if len(got) != 1 || !strings.Contains(got[0].Lane.GroupKey, "Σ.label") {
		t.Errorf("destinations %+v, want those of the inner route", got)
	}
}

func TestFilesOfSecretsBeginAtTheFile(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	write("url", "https://example.com/secret-path\n")
	write("key", goodSecret+"\n")
	s, err := Load(write("routes.yml", `
route: {receiver: ops}
receivers:
- name: ops
  webhook_configs: [{url_file: url}]
  tocsin_configs: [{url_file: url, secret_file: key}]
`))
	if err != nil {
		t.Fatal(err)
	}
	for _, in := range s.Integrations {
		if url, err := in.Endpoint.URL(); err != nil || url != "https://example.com/secret-path" {
			t.Errorf("%s: %q, %v", in.Name, url, err)
		}
	}
	write("url", "https://example.com/rotated")
	if url, _ := s.Integrations[0].Endpoint.URL(); url != "https://example.com/rotated" {
		t.Errorf("after a change of the file the URL is %q", url)
	}
	if shown := fmt.Sprintf("%+v %#v", s.Integrations, s.Integrations); strings.Contains(shown, "MfKQ9r8G") {
		t.Errorf("the key prints: %s", shown)
	}
	if _, err := Load(filepath.Join(dir, "missing.yml")); err == nil {
		t.Error("a missing file is no error")
	}
}

func TestSettingsShowNoSecret(t *testing.T) {
	s := parse(t, `
route: {receiver: ops}
receivers:
- name: ops
  webhook_configs: [{url: 'https://user:canary@example.com/canary'}]
  tocsin_configs:
  - url: https://example.com/canary
    secret: `+goodSecret+`
    http_config: {authorization: {credentials: canary}}
`)
	for _, shown := range []string{
		fmt.Sprintf("%v", s.Integrations), fmt.Sprintf("%+v", s.Integrations), fmt.Sprintf("%#v", s.Integrations),
		fmt.Sprintf("%s %q %x", s.Integrations[0].Endpoint, s.Integrations[0].Endpoint, s.Integrations[0].Endpoint),
	} {
		for _, secret := range []string{"canary", "MfKQ9r8G", "63616e617279"} {
			if strings.Contains(shown, secret) {
				t.Errorf("a secret prints: %s", shown)
			}
		}
	}
}

func TestMistakesAreReportedAtOnceWithTheirLines(t *testing.T) {
	short := "whsec_" + base64.StdEncoding.EncodeToString([]byte("short-canary"))
	text := `route:
  receiver: ops
  mute_time_intervals: [night]
receivers:
- name: ops
  slack_configs:
  - channel: '#ops'
    api_url: https://hooks.slack.com/services/x
  webhook_configs:
  - url: 'https://example.com/{{ .GroupLabels.x }}'
    payload: {}
  tocsin_configs:
  - url: ftp://canary.example.com
    secret: ` + short + `
    format: xml
    retries: 3
  - secret: whsec_
    timeout: forever
    send_resolved: maybe
    http_config: {nope: 1}
  - just a string
  - url: https://example.com
    url: https://example.com
    secret: a
    secret_file: b
  - format: print
    url: https://example.com
tracing: {}
`
	_, err := Parse("routes.yml", []byte(text), ".")
	if err == nil {
		t.Fatal("no error")
	}
	if strings.Contains(err.Error(), "canary") {
		t.Errorf("the error shows what is secret:\n%v", err)
	}
	want := strings.TrimSpace(`
routes.yml:3:3: mute_time_intervals is not supported yet: remove it; the alerts of this route are told at all times then
routes.yml:6:3: receiver "ops": slack_configs is not supported yet: use webhook_configs or tocsin_configs
routes.yml:10:5: receiver "ops": a template in url is not supported yet: write the URL itself, with a receiver for each
routes.yml:11:5: receiver "ops": payload is not supported yet: remove it, or use tocsin_configs with format: simple
routes.yml:13:10: receiver "ops": tocsin_configs[0]: url: not an http or https URL
routes.yml:14:13: receiver "ops": tocsin_configs[0]: secret: a signing secret holds 24 to 64 bytes, this one 12
routes.yml:15:13: receiver "ops": tocsin_configs[0]: format: "xml" is none of standard, simple, print
routes.yml:16:5: receiver "ops": tocsin_configs[0]: unknown key "retries"
routes.yml:17:5: receiver "ops": tocsin_configs[1]: give one of url and url_file
routes.yml:17:13: receiver "ops": tocsin_configs[1]: secret: a signing secret holds 24 to 64 bytes, this one 0
routes.yml:18:14: receiver "ops": tocsin_configs[1]: timeout: "forever" is not a duration up to 2m0s
routes.yml:19:20: receiver "ops": tocsin_configs[1]: send_resolved: "maybe" is not true or false
routes.yml:20:19: receiver "ops": tocsin_configs[1]: http_config: unknown key "nope"
routes.yml:21:5: receiver "ops": tocsin_configs[2] is not a mapping
routes.yml:23:5: receiver "ops": tocsin_configs[3]: url is set twice
routes.yml:24:13: receiver "ops": tocsin_configs[3]: give one of secret and secret_file
routes.yml:26:5: receiver "ops": tocsin_configs[4]: format print sends nowhere: remove url and url_file
routes.yml:28:1: tracing is not supported yet: remove it`)
	if diff := cmp.Diff(strings.Split(want, "\n"), strings.Split(err.Error(), "\n")); diff != "" {
		t.Errorf("mistakes (-want +got):\n%s", diff)
	}
}

func TestAlertmanagersOwnMistakesKeepTheirLines(t *testing.T) {
	for _, c := range []struct{ name, text, want string }{
		{"an unknown key after ours", `route: {receiver: ops}
receivers:
- name: ops
  tocsin_configs:
  - url: https://example.com
    http_config:
      proxy_url: http://x:1

  # a comment
  - url: https://example.com
unknown_key: 1
`, `routes.yml:11:1: unknown key "unknown_key"`},
		{"an unknown key beside ours", `route: {receiver: ops}
receivers:
- tocsin_configs:
  - url: >-
      https://
      example.com
  nome: ops
`, `routes.yml:7:3: receiver "": unknown key "nome"; did you mean name?`},
		{"a receiver that is missing", "route: {receiver: ops}\nreceivers: []\n", `routes.yml:1:19: route: there is no receiver "ops"`},
		{"an empty file", "", "routes.yml:1:1: there is no route"},
		{"no YAML", "\t{", "routes.yml: not YAML: found character"},
		{"flow style", "route: {receiver: ops}\nreceivers: [{name: ops, tocsin_configs: [{format: print}]}]\n", "routes.yml:2:25: write a receiver with tocsin_configs in block style"},
		{"not a list", "route: {receiver: ops}\nreceivers:\n- name: ops\n  tocsin_configs: {}\n", `routes.yml:4:19: receiver "ops": tocsin_configs is not a list`},
		{"a URL that cannot be parsed", "route: {receiver: ops}\nreceivers:\n- name: ops\n  webhook_configs: [{url: 'http://x/canary\"%zz'}]\n", `routes.yml:4:27: receiver "ops": webhook_configs[0]: url: invalid URL: invalid URL escape`},
		{"a bad URL", "route: {receiver: ops}\nreceivers:\n- name: ops\n  webhook_configs: [{url: 'ftp://x'}]\n", `routes.yml:4:27: receiver "ops": webhook_configs[0]: url: invalid URL: unsupported scheme`},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := Parse("routes.yml", []byte(c.text), ".")
			if err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "canary") {
				t.Errorf("error %v, want %q", err, c.want)
			}
		})
	}
}

func TestWhatIsOursIsCutOutInEveryStyle(t *testing.T) {
	for name, list := range map[string]string{
		"a list as deep as its key": "\n  - url: https://example.com\n    format: simple",
		"a deeper list":             "\n      - url: https://example.com\n        format: simple",
		"a flow list":               " [{url: 'https://example.com', format: simple}]",
		"a flow list over lines":    " [\n    {url: 'https://example.com',\n format: simple}\n  ]",
		"a folded text":             "\n  - format: simple\n    url: >-\n      https://example.com",
	} {
		t.Run(name, func(t *testing.T) {
			text := "route: {receiver: ops}\nreceivers:\n- name: ops\n  tocsin_configs:" + list +
				"\n  webhook_configs:\n  - url: https://example.com/w\n"
			s := parse(t, text)
			if len(s.Integrations) != 2 || s.Integrations[1].Format != FormatSimple {
				t.Errorf("integrations %+v", s.Integrations)
			}
		})
	}
}
