package secret_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"

	"github.com/tocsin-dev/tocsin/internal/secret"
)

const hidden = "hunter2-and-more"

type config struct {
	Name  string        `json:"name" yaml:"name"`
	Token secret.String `json:"token" yaml:"token"`
}

func TestNoWayOfPrintingShowsTheSecret(t *testing.T) {
	c := config{Name: "alerter", Token: hidden}
	shown := map[string]string{}
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d", "%t", "%c", "%10s", "%-30v"} {
		shown["the config with "+verb] = fmt.Sprintf(verb, c)
		shown["a pointer to it with "+verb] = fmt.Sprintf(verb, &c)
		shown["the secret with "+verb] = fmt.Sprintf(verb, c.Token)
		shown["a map with "+verb] = fmt.Sprintf(verb, map[string]secret.String{"a": hidden})
		shown["a list with "+verb] = fmt.Sprintf(verb, []secret.String{hidden})
	}
	shown["an error"] = fmt.Errorf("call with %s: %w", c.Token, errors.New("refused")).Error()
	asJSON, err := json.Marshal(c)
	if err != nil {
		t.Fatal(err)
	}
	shown["JSON"] = string(asJSON)
	asYAML, err := yaml.Marshal(c)
	if err != nil {
		t.Fatal(err)
	}
	shown["YAML"] = string(asYAML)
	var log bytes.Buffer
	slog.New(slog.NewJSONHandler(&log, nil)).Info("x", slog.Any("config", c), slog.Any("token", c.Token))
	slog.New(slog.NewTextHandler(&log, nil)).Info("x", slog.Any("config", c), slog.Any("token", c.Token))
	shown["slog"] = log.String()

	for how, text := range shown {
		for _, form := range []string{hidden, fmt.Sprintf("%x", hidden), fmt.Sprintf("%X", hidden)} {
			if strings.Contains(text, form) {
				t.Errorf("%s shows it: %s", how, text)
			}
		}
	}
	if got := fmt.Sprintf("%v", c); got != "{alerter [redacted]}" {
		t.Errorf("a set secret reads %s, want a placeholder that says so", got)
	}
	if got := fmt.Sprintf("%v", config{Name: "alerter"}); got != "{alerter }" {
		t.Errorf("a secret that is not set reads %s, want nothing", got)
	}
	if got := fmt.Sprintf("%#v %q", c.Token, c.Token); got != `"[redacted]" "[redacted]"` {
		t.Errorf("quoted it reads %s", got)
	}
}

func TestEqual(t *testing.T) {
	for name, test := range map[string]struct {
		secret    secret.String
		candidate string
		want      bool
	}{
		"the same text is equal":                      {hidden, hidden, true},
		"another text is not":                         {hidden, "hunter3-and-more", false},
		"a prefix is not":                             {hidden, "hunter2", false},
		"nothing is not":                              {hidden, "", false},
		"a secret that is not set equals nothing":     {"", "", false},
		"a secret that is not set equals no text too": {"", hidden, false},
	} {
		if got := test.secret.Equal(test.candidate); got != test.want {
			t.Errorf("%s: got %v", name, got)
		}
	}
}

func TestResolve(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	good, blank, large := write("good", "  "+hidden+"\r\n"), write("blank", " \n\n"), write("large", strings.Repeat("x", 64<<10+1))
	for name, test := range map[string]struct {
		value secret.String
		file  string
		want  string
		err   string
	}{
		"neither is no secret and no error":               {},
		"the value alone is taken as it is":               {value: " v ", want: " v "},
		"the file alone is read without white space":      {file: good, want: hidden},
		"both are a mistake that names both":              {value: "v", file: good, err: "collector.token: set here and by collector.token_file: keep one of them"},
		"an empty file is a mistake":                      {file: blank, err: "collector.token_file: read secret: " + blank + " is empty"},
		"a file too large to be a secret is a mistake":    {file: large, err: "collector.token_file: read secret: " + large + " is larger than 65536 bytes"},
		"a file that is not there is a mistake":           {file: dir + "/none", err: "collector.token_file: read secret: open " + dir + "/none: no such file or directory"},
		"a directory in place of the file is one as well": {file: dir, err: "collector.token_file: read secret: read " + dir + ": is a directory"},
	} {
		got, err := secret.Resolve("collector.token", test.value, test.file)
		if got.Reveal() != test.want {
			t.Errorf("%s: got %q, want %q", name, got.Reveal(), test.want)
		}
		if (err == nil) != (test.err == "") || err != nil && err.Error() != test.err {
			t.Errorf("%s: error %v, want %q", name, err, test.err)
		}
	}
	if _, err := secret.FromFile(dir + "/none"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a missing file gives %v, want fs.ErrNotExist in its chain", err)
	}
}
