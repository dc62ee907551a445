package proc_test

import (
	"bytes"
	"strings"
	"testing"

	"github.com/tocsin-dev/tocsin/internal/proc"
)

func TestParseFlags(t *testing.T) {
	for name, test := range map[string]struct {
		args  []string
		want  proc.Flags
		run   bool
		usage bool
		says  string
	}{
		"nothing runs with the defaults":    {nil, proc.Flags{}, true, false, ""},
		"a file and insecure":               {[]string{"--config", "a.yaml", "--insecure"}, proc.Flags{Config: "a.yaml", Insecure: true}, true, false, ""},
		"the version is printed":            {[]string{"--version"}, proc.Flags{}, false, false, "thing "},
		"help runs nothing":                 {[]string{"--help"}, proc.Flags{}, false, false, "Usage:\n  thing [flags] "},
		"an unknown flag is a mistake":      {[]string{"--fast"}, proc.Flags{}, false, true, ""},
		"a stray argument is a mistake":     {[]string{"up"}, proc.Flags{}, false, true, ""},
		"a health check takes the flags":    {[]string{"healthcheck", "--config", "a.yaml"}, proc.Flags{Config: "a.yaml", Healthcheck: true}, true, false, ""},
		"a health check after a flag":       {[]string{"--insecure", "healthcheck"}, proc.Flags{}, false, true, ""},
		"a flag without value is a mistake": {[]string{"--config"}, proc.Flags{}, false, true, ""},
	} {
		t.Run(name, func(t *testing.T) {
			var out bytes.Buffer
			got, run, err := proc.ParseFlags("thing", test.args, &out)
			if run != test.run || proc.IsUsage(err) != test.usage || err != nil && !test.usage {
				t.Fatalf("run %t, error %v; want run %t, usage %t", run, err, test.run, test.usage)
			}
			if run && got != test.want {
				t.Errorf("got %+v, want %+v", got, test.want)
			}
			if len(test.args) > 0 && test.args[0] == "--help" {
				for _, want := range []string{"thing healthcheck [flags]", "-config file", "-insecure"} {
					if !strings.Contains(out.String(), want) {
						t.Errorf("the help does not say %q:\n%s", want, out.String())
					}
				}
			}
			if !strings.HasPrefix(out.String(), test.says) {
				t.Errorf("printed %q, want %q", out.String(), test.says)
			}
		})
	}
}
