// Package secret holds text that must not be shown: keys, tokens, passwords.
//
// A [String] prints as a placeholder through fmt, slog, JSON and YAML, whatever
// the verb, so that a whole configuration can be logged. Only Reveal gives the
// text. The promise has two gaps that Go leaves open: fmt calls no methods on
// unexported struct fields, so keep secrets in exported fields of what is
// printed, and none for the verb %p, which go vet refuses.
package secret

import (
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"strings"
)

// placeholder is shown in place of every secret, so that the length is hidden too.
const placeholder = "[redacted]"

// maxFileSize bounds what is read from a secret's file. Keys and tokens have
// some hundred bytes and PEM bundles a few KiB; 64 KiB refuses a wrong path to
// something large before it is in memory.
const maxFileSize = 64 << 10

// String is a secret text that does not print. Its zero value means "not set".
type String string

// Reveal returns the secret text. Call it only where the bytes leave the process.
func (s String) Reveal() string { return string(s) }

// Set reports whether there is a secret at all.
func (s String) Set() bool { return s != "" }

// Equal reports whether candidate is the secret, in a time that does not depend
// on how much of it is right. A secret that is not set equals nothing.
func (s String) Equal(candidate string) bool {
	want, have := sha256.Sum256([]byte(s)), sha256.Sum256([]byte(candidate))
	return subtle.ConstantTimeCompare(want[:], have[:]) == 1 && s.Set()
}

// String returns the placeholder, or nothing when the secret is not set.
func (s String) String() string {
	if !s.Set() {
		return ""
	}
	return placeholder
}

// GoString returns what String returns, quoted, for the verb %#v.
func (s String) GoString() string { return fmt.Sprintf("%q", s.String()) }

// Format writes the placeholder for every verb; without it a wrong verb such as
// %d would show the text in fmt's complaint.
func (s String) Format(f fmt.State, verb rune) {
	text := s.String()
	if verb == 'q' || f.Flag('#') {
		text = s.GoString()
	}
	_, _ = io.WriteString(f, text)
}

// LogValue returns the placeholder to slog.
func (s String) LogValue() slog.Value { return slog.StringValue(s.String()) }

// MarshalText returns the placeholder to JSON and other encoders. It never fails.
func (s String) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// FromFile reads a secret from the file at path, without the white space around
// it. It returns an error when the file cannot be read, is empty, or is larger
// than 64 KiB.
func FromFile(path string) (String, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", fmt.Errorf("read secret: %w", err)
	}
	defer func() { _ = f.Close() }() // only read
	text, err := io.ReadAll(io.LimitReader(f, maxFileSize+1))
	if err != nil {
		return "", fmt.Errorf("read secret: %w", err)
	}
	if len(text) > maxFileSize {
		return "", fmt.Errorf("read secret: %s is larger than %d bytes", path, maxFileSize)
	}
	s := String(strings.TrimSpace(string(text)))
	if !s.Set() {
		return "", fmt.Errorf("read secret: %s is empty", path)
	}
	return s, nil
}

// Resolve returns the secret of the setting called name, from value or from
// file, whichever is set; neither is no error and no secret. It returns an
// error that starts with the setting's name when both are set or the file
// cannot be used.
func Resolve(name string, value String, file string) (String, error) {
	switch {
	case file == "":
		return value, nil
	case value.Set():
		return "", fmt.Errorf("%s: %w", name, errors.New("set here and by "+name+"_file: keep one of them"))
	}
	s, err := FromFile(file)
	if err != nil {
		return "", fmt.Errorf("%s_file: %w", name, err)
	}
	return s, nil
}
