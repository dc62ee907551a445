package proc_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"log/slog"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/tocsin-dev/tocsin/internal/proc"
	"github.com/tocsin-dev/tocsin/internal/secret"
)

func TestLoggerWritesJSONFromItsLevelUp(t *testing.T) {
	var out bytes.Buffer
	log, err := proc.Logger(&out, proc.LogConfig{Level: "warn", Format: "json"})
	if err != nil {
		t.Fatal(err)
	}
	log.Info("not written")
	log.Warn("delivery attempted", slog.String("receiver", "ops"), slog.Any("err", errors.New("503")), slog.Duration("took", 1500*time.Millisecond))
	var line map[string]any
	if err := json.Unmarshal(out.Bytes(), &line); err != nil {
		t.Fatalf("%v in %s", err, out.String())
	}
	if line["level"] != "WARN" || line["msg"] != "delivery attempted" || line["receiver"] != "ops" || line["err"] != "503" || line["took"] != "1.5s" || line["time"] == nil {
		t.Errorf("line is %v", line)
	}
}

func TestLoggerHidesKeys(t *testing.T) {
	for _, format := range []string{"json", "text"} {
		var out bytes.Buffer
		log, err := proc.Logger(&out, proc.LogConfig{Level: "debug", Format: format})
		if err != nil {
			t.Fatal(err)
		}
		u, err := url.Parse("nats://user:hunter2@host")
		if err != nil {
			t.Fatal(err)
		}
		log.With("where", "https://u:hunter2@host").Info("with rpa_hunter2", "err", errors.New("GET /?api_key=hunter2"),
			"token", secret.String("hunter2"), "url", u, slog.Group("in", "deep", "Bearer hunter2"))
		if text := out.String(); strings.Contains(text, "hunter2") || !strings.Contains(text, "api_key=REDACTED") {
			t.Errorf("%s: %s", format, text)
		}
	}
}

func TestLogConfig(t *testing.T) {
	if err := proc.DefaultLogConfig().Validate(); err != nil {
		t.Errorf("the default: %v", err)
	}
	bad := proc.LogConfig{Level: "loud", Format: "xml"}
	want := `level: "loud" is none of debug, info, warn, error` + "\n" + `format: "xml" is none of json, text`
	if err := bad.Validate(); err == nil || err.Error() != want {
		t.Errorf("got %v", err)
	}
	if _, err := proc.Logger(&bytes.Buffer{}, bad); err == nil {
		t.Error("a logger was made of it")
	}
}
