package event

import (
	"regexp"
	"strings"
	"unicode/utf8"
)

// redacted takes the place of what is hidden. It is made of letters, so that
// redacting twice changes nothing.
const redacted = "REDACTED"

// maxRedact bounds the text that is searched for secrets, in bytes. What a fact
// or a log line keeps is far shorter; the rest is cut off before the search.
const maxRedact = 64 << 10

// hiding are the shapes of secrets, most specific first. Each keeps what tells a
// reader what stood there. Too much hidden costs a word in an error message,
// too little costs a key, so in doubt they hide.
var hiding = []struct {
	shape *regexp.Regexp
	with  string
}{
	// RunPod's keys, wherever they stand.
	{regexp.MustCompile(`(?i)(rpa_)[a-z0-9]+`), "${1}" + redacted},
	{regexp.MustCompile(`(?i)(rm_)[a-z0-9]{12,}`), "${1}" + redacted},
	// Keys of those whose services jobs call most: Hugging Face, OpenAI, GitHub, AWS, Slack.
	{regexp.MustCompile(`\b(hf_|sk-|gh[oprsu]_|github_pat_|xox[a-z]-|AKIA)[A-Za-z0-9_-]{10,}`), "${1}" + redacted},
	// JSON Web Tokens.
	{regexp.MustCompile(`\beyJ[A-Za-z0-9_-]{6,}\.[A-Za-z0-9_-]+(?:\.[A-Za-z0-9_-]*)?`), redacted},
	// The path of an incoming webhook is its secret.
	{regexp.MustCompile(`(?i)(hooks\.slack\.com/services/|discord(?:app)?\.com/api/webhooks/|/webhook/)[^\s"'<>?#]+`), "${1}" + redacted},
	// User and password of a URL, up to the last @ before the path.
	{regexp.MustCompile(`([A-Za-z][A-Za-z0-9+.-]*://)[^\s/?#"'<>]*@`), "${1}" + redacted + "@"},
	// Authorization headers, with or without their name.
	{regexp.MustCompile(`(?i)\b((?:bearer[\s:=]+)+)[A-Za-z0-9._~+/=-]+`), "${1}" + redacted},
	{regexp.MustCompile(`(?i)(authorization["']?\s*[:=]\s*["']?)(?:[a-z]+[ \t]+)?[^\s"',;]+`), "${1}" + redacted},
	{regexp.MustCompile(`(?i)\b(basic\s+)[A-Za-z0-9+/]{8,}={0,2}`), "${1}" + redacted},
	// Names that say what their value is: api_key=..., "password": "...", x-api-key: ...
	{regexp.MustCompile(`(?i)((?:api[_-]?key|access[_-]?key(?:[_-]?id)?|secret(?:[_-]?(?:access)?[_-]?key)?|private[_-]?key|password|passwd|pwd|credentials?)["']?\s*[=:]\s*["']?)[^\s"'&,;)}]+`), "${1}" + redacted},
	{regexp.MustCompile(`(?i)((?:token|signature|sig|session[_-]?id)["']?(?:=["']?|["']\s*:\s*["']))[^\s"'&,;)}]+`), "${1}" + redacted},
	// Long opaque values in a query string, whatever their name.
	{regexp.MustCompile(`([?&][^=&\s]{1,64}=)[A-Za-z0-9_.~%+/-]{32,}`), "${1}" + redacted},
}

// Redact returns text with keys, tokens, passwords and the userinfo of URLs
// hidden, and valid as UTF-8, which the wire demands. Text beyond 64 KiB is cut
// off.
func Redact(text string) string {
	if len(text) > maxRedact {
		text = text[:maxRedact]
	}
	text = strings.ToValidUTF8(text, "\uFFFD")
	for _, h := range hiding {
		text = h.shape.ReplaceAllString(text, h.with)
	}
	return text
}

// RedactTo returns what Redact returns, cut to at most limit bytes between two
// characters. Redact first, cut after: half a key would not be recognised.
func RedactTo(text string, limit int) string {
	text = Redact(text)
	if len(text) <= limit {
		return text
	}
	for limit > 0 && !utf8.RuneStart(text[limit]) {
		limit--
	}
	return text[:max(limit, 0)]
}
