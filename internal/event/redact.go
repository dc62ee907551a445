package event

import (
	"bytes"
	"regexp"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"
)

// redacted takes the place of what is hidden. It is made of letters, so that
// redacting twice changes nothing.
const redacted = "REDACTED"

// maxRedact bounds the text that is searched for secrets, in bytes. What a fact
// or a log line keeps is far shorter; the rest is cut off before the search.
const maxRedact = 64 << 10

// minSecret is the length in bytes from which a known secret is searched for as
// it is. RunPod's keys have more than 40; what is shorter than this is a part of
// ordinary words, and only what surrounds it can tell.
const minSecret = 8

// The value that follows a telling name: in quotes it ends with them, blanks
// among it; otherwise with a blank or what separates values. Quotes within a text
// that is itself quoted JSON have backslashes before them.
const (
	quotedValue = `(\\+")[^"]*|(")(?:[^"\\]|\\.)*|(')[^']*`
	anyValue    = quotedValue + `|[^\s"'&,;)}]+`
)

// hiding are the shapes of secrets, most specific first. Each keeps what tells a
// reader what stood there. Too much hidden costs a word in an error message,
// too little costs a key, so in doubt they hide. Nearly all texts hold none of the
// words that a shape needs; to look for these, in lower case, costs a fiftieth of
// the search for the shape.
var hiding = []struct {
	needs []string // of which a text holds one at least
	shape *regexp.Regexp
	with  string
}{
	// RunPod's keys, wherever they stand.
	{[]string{"rpa_"}, regexp.MustCompile(`(?i)(rpa_)[a-z0-9]+`), "${1}" + redacted},
	{[]string{"rm_"}, regexp.MustCompile(`(?i)(\brm_)[a-z0-9]{8,}|(rm_)[a-z0-9]{12,}`), "${1}${2}" + redacted},
	// Keys of those whose services jobs call most: Hugging Face, OpenAI, GitHub, AWS, Slack.
	{
		[]string{"hf_", "sk-", "gh", "xox", "akia"},
		regexp.MustCompile(`\b(hf_|sk-|gh[oprsu]_|github_pat_|xox[a-z]-|AKIA)[A-Za-z0-9_-]{10,}`), "${1}" + redacted,
	},
	// JSON Web Tokens.
	{[]string{"eyj"}, regexp.MustCompile(`\beyJ[A-Za-z0-9_-]{6,}\.[A-Za-z0-9_-]+(?:\.[A-Za-z0-9_-]*)?`), redacted},
	// The path of an incoming webhook is its secret.
	{
		[]string{"hooks.slack.com/", "/webhooks/", "/webhook/"},
		regexp.MustCompile(`(?i)(hooks\.slack\.com/services/|discord(?:app)?\.com/api/webhooks/|/webhook/)[^\s"'<>?#]+`), "${1}" + redacted,
	},
	// User and password of a URL, up to the last @ before the path.
	{[]string{"://"}, regexp.MustCompile(`([A-Za-z][A-Za-z0-9+.-]*://)[^\s/?#"'<>]*@`), "${1}" + redacted + "@"},
	// Authorization headers, with or without their name.
	{[]string{"bearer"}, regexp.MustCompile(`(?i)\b((?:bearer[\s:=]+)+)[^\s"',;]+`), "${1}" + redacted},
	{
		[]string{"authorization"},
		regexp.MustCompile(`(?i)(authorization\\*["']?\s*[:=]\s*\\*["']?)(?:[a-z]+[ \t]+)?[^\s"',;]+`), "${1}" + redacted,
	},
	{[]string{"basic"}, regexp.MustCompile(`(?i)\b(basic\s+)[A-Za-z0-9+/]{8,}={0,2}`), "${1}" + redacted},
	// Names that say what their value is: api_key=..., "password": "...", x-api-key: ...
	{
		[]string{"key", "secret", "passw", "pwd", "credential"},
		regexp.MustCompile(`(?i)((?:api[_-]?key|access[_-]?key(?:[_-]?id)?|secret(?:[_-]?(?:access)?[_-]?key)?|private[_-]?key|password|passwd|pwd|credentials?)\\*["']?\s*[=:]\s*)(?:` + anyValue + `)`),
		"${1}${2}${3}${4}" + redacted,
	},
	// After a colon only in quotes: "unexpected token: <" is no secret.
	{
		[]string{"token", "sig", "session"},
		regexp.MustCompile(`(?i)((?:token|signature|sig|session[_-]?id)\\*["']?=)(?:` + anyValue + `)`), "${1}${2}${3}${4}" + redacted,
	},
	{
		[]string{"token", "sig", "session"},
		regexp.MustCompile(`(?i)((?:token|signature|sig|session[_-]?id)\\*["']\s*:\s*)(?:` + quotedValue + `)`), "${1}${2}${3}${4}" + redacted,
	},
	// Long opaque values in a query string, whatever their name.
	{[]string{"?", "&"}, regexp.MustCompile(`([?&][^=&\s]{1,64}=)[A-Za-z0-9_.~%+/-]{32,}`), "${1}" + redacted},
}

// address is an e-mail address. It is no secret, and names of targets may hold
// one; in what a stranger's error says it is a person's.
var address = regexp.MustCompile(`[A-Za-z0-9._%+-]+@[A-Za-z0-9-]+\.[A-Za-z0-9.-]*[A-Za-z]`)

// Hide returns text with secret hidden wherever it stands. It is for a secret
// that is known, such as the account's own key, which need not have a shape that
// Redact knows.
func Hide(text []byte, secret string) []byte {
	if len(secret) < minSecret || !bytes.Contains(text, []byte(secret)) {
		return text
	}
	return bytes.ReplaceAll(text, []byte(secret), []byte(redacted))
}

// Redact returns text with keys, tokens, passwords and the userinfo of URLs
// hidden, and valid as UTF-8, which the wire demands. Text beyond 64 KiB is cut
// off.
func Redact(text string) string {
	if len(text) > maxRedact {
		text = text[:maxRedact]
	}
	text = strings.ToValidUTF8(text, "\uFFFD")
	words := strings.ToLower(text)
	plain := ascii(text) // other letters may count as one of a word, such as the Kelvin sign as a k
	for _, h := range hiding {
		if plain && !slices.ContainsFunc(h.needs, func(word string) bool { return strings.Contains(words, word) }) {
			continue
		}
		text = h.shape.ReplaceAllString(text, h.with)
	}
	return text
}

func ascii(text string) bool {
	for i := range len(text) {
		if text[i] >= utf8.RuneSelf {
			return false
		}
	}
	return true
}

// RedactTo returns what Redact returns, cut to at most limit bytes between two
// characters. Redact first, cut after: half a key would not be recognised.
func RedactTo(text string, limit int) string {
	return cut(Redact(text), limit)
}

// Line returns text, which a stranger wrote, fit to be shown and stored: what
// Redact hides and e-mail addresses hidden, white space and line ends as single
// blanks, without what does not print, cut to at most limit bytes between two
// characters.
func Line(text string, limit int) string {
	if len(text) > maxRedact {
		text = text[:maxRedact]
	}
	// Before the search: what does not print could stand in the middle of a key.
	text = strings.Join(strings.Fields(strings.Map(printable, text)), " ")
	text = address.ReplaceAllStringFunc(Redact(text), func(found string) string {
		if strings.HasPrefix(found, redacted+"@") { // what is left of a URL's userinfo
			return found
		}
		return "[e-mail]"
	})
	return strings.TrimSpace(cut(text, limit))
}

func printable(r rune) rune {
	if unicode.IsSpace(r) || unicode.IsPrint(r) && r != utf8.RuneError {
		return r
	}
	return -1
}

func cut(text string, limit int) string {
	if len(text) <= limit {
		return text
	}
	for limit > 0 && !utf8.RuneStart(text[limit]) {
		limit--
	}
	return text[:max(limit, 0)]
}
