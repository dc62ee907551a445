package runpod

import (
	"bytes"
	"regexp"
	"strings"
	"unicode"
	"unicode/utf8"
)

const redacted = "[redacted]"

// maxScanBytes bounds the text that is searched for secrets, so that an answer
// cannot cost more than a few milliseconds. It is 64 times what is kept.
const maxScanBytes = 64 << 10

// secretPatterns find what must never leave this package in a text. The order
// matters: a bearer token goes before the name-and-value pattern can take its
// first word for the value.
var secretPatterns = []struct {
	pattern *regexp.Regexp
	instead string
}{
	{regexp.MustCompile(`(?i)\bbearer[\s:]+[^\s"',;]+`), "Bearer " + redacted},
	{regexp.MustCompile(`(?i)rpa_[a-z0-9]+|\brm_[a-z0-9]{8,}`), redacted},
	{regexp.MustCompile(`\b(?:hf_|sk-|ghp_|github_pat_|xox[a-z]-|AKIA)[A-Za-z0-9_-]{12,}`), redacted},
	{regexp.MustCompile(`(?i)([a-z][a-z0-9+.-]*://)[^\s/@"']*@`), "${1}" + redacted + "@"},
	{regexp.MustCompile(`(?i)\b(api[_-]?key|access[_-]?key|secret[_-]?key|secret|password|passwd|authorization|token)(["']?\s*[:=]\s*["']?)([^\s"',;&}\[]+)`), "${1}${2}" + redacted},
	{regexp.MustCompile(`[A-Za-z0-9._%+-]+@[A-Za-z0-9-]+\.[A-Za-z0-9.-]*[A-Za-z]`), "[e-mail]"},
}

// minKeyBytes is the length from which a key is searched for as it is. A key of
// RunPod has more than 40 bytes; a shorter one than this is a part of ordinary
// words, and only what surrounds it can tell.
const minKeyBytes = 8

// tells reports whether text holds the key itself, which need not have a shape
// that a pattern knows.
func tells(text []byte, key string) bool {
	return len(key) >= minKeyBytes && bytes.Contains(text, []byte(key))
}

// hide returns text with the key redacted.
func hide(text []byte, key string) []byte {
	if !tells(text, key) {
		return text
	}
	return bytes.ReplaceAll(text, []byte(key), []byte(redacted))
}

// cleanText makes text fit to be shown and stored: secrets redacted, then white
// space and line ends to single blanks, what does not print left out, cut to
// limit bytes at the end of a character.
func cleanText(text string, limit int) string {
	if len(text) > maxScanBytes {
		text = cut(text, maxScanBytes)
	}
	for _, s := range secretPatterns {
		text = s.pattern.ReplaceAllString(text, s.instead)
	}
	var b strings.Builder
	blank := false
	for _, r := range text {
		switch {
		case unicode.IsSpace(r):
			blank = b.Len() > 0
			continue
		case !unicode.IsPrint(r) || r == utf8.RuneError:
			continue
		}
		if blank {
			b.WriteByte(' ')
			blank = false
		}
		b.WriteRune(r)
		if b.Len() > limit {
			break
		}
	}
	return strings.TrimSpace(cut(b.String(), limit))
}

// cut shortens text to at most limit bytes without splitting a character.
func cut(text string, limit int) string {
	if len(text) <= limit {
		return text
	}
	for limit > 0 && !utf8.RuneStart(text[limit]) {
		limit--
	}
	return text[:limit]
}
