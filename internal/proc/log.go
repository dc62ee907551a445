package proc

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"strings"

	"github.com/tocsin-dev/tocsin/internal/event"
)

// LogConfig is the section "log" of the configuration.
type LogConfig struct {
	// Level is the least level that is written: debug, info, warn or error.
	Level string `yaml:"level"`
	// Format is json, or text for people.
	Format string `yaml:"format"`
}

// DefaultLogConfig returns JSON from the level info up.
func DefaultLogConfig() LogConfig { return LogConfig{Level: "info", Format: "json"} }

var (
	logLevels  = []string{"debug", "info", "warn", "error"}
	logFormats = []string{"json", "text"}
)

// Validate reports values that are none of those listed.
func (c LogConfig) Validate() error {
	var mistakes []error
	if !slices.Contains(logLevels, c.Level) {
		mistakes = append(mistakes, fmt.Errorf("level: %q is none of %s", c.Level, strings.Join(logLevels, ", ")))
	}
	if !slices.Contains(logFormats, c.Format) {
		mistakes = append(mistakes, fmt.Errorf("format: %q is none of %s", c.Format, strings.Join(logFormats, ", ")))
	}
	return errors.Join(mistakes...)
}

// Logger returns a logger that writes to w as the section says. Texts and errors
// are redacted on their way, since an error may quote a URL with a key in it.
// The error is what Validate of the section finds.
func Logger(w io.Writer, c LogConfig) (*slog.Logger, error) {
	if err := c.Validate(); err != nil {
		return nil, fmt.Errorf("make logger: %w", err)
	}
	var level slog.Level
	if err := level.UnmarshalText([]byte(c.Level)); err != nil {
		return nil, fmt.Errorf("make logger: %w", err)
	}
	options := &slog.HandlerOptions{Level: level, ReplaceAttr: redactAttr}
	if c.Format == "text" {
		return slog.New(slog.NewTextHandler(w, options)), nil
	}
	return slog.New(slog.NewJSONHandler(w, options)), nil
}

// redactAttr hides keys in texts and errors, and writes durations with their unit.
func redactAttr(_ []string, a slog.Attr) slog.Attr {
	switch a.Value.Kind() {
	case slog.KindDuration:
		// JSON would show nanoseconds without saying so.
		a.Value = slog.StringValue(a.Value.Duration().String())
	case slog.KindString:
		a.Value = slog.StringValue(event.Redact(a.Value.String()))
	case slog.KindAny:
		switch v := a.Value.Any().(type) {
		case error:
			a.Value = slog.StringValue(event.Redact(v.Error()))
		case fmt.Stringer:
			a.Value = slog.StringValue(event.Redact(v.String()))
		}
	}
	return a
}
