// Package match reads matchers as Alertmanager and amtool write them, such as
// severity="critical" or endpoint_id=~"a.*", and applies them to labels.
//
// An absent label counts as an empty one, and regular expressions are anchored
// at both ends, as everywhere in that family.
package match

import (
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"unicode/utf8"
)

// maxPattern bounds a matcher. Go's regular expressions take time linear in
// pattern and text, so 1 KiB is a bound on the work too.
const maxPattern = 1 << 10

// Matcher is one condition on one label.
type Matcher struct {
	name     string
	value    string
	negative bool
	pattern  *regexp.Regexp // nil when the value must be equal
}

// Matchers are conditions that must all hold.
type Matchers []Matcher

// Parse reads matchers, one each. Its error names every one that is wrong.
func Parse(texts []string) (Matchers, error) {
	var ms Matchers
	var errs []error
	for _, text := range texts {
		m, err := parse(text)
		if err != nil {
			errs = append(errs, fmt.Errorf("matcher %q: %w", text, err))
			continue
		}
		ms = append(ms, m)
	}
	return ms, errors.Join(errs...)
}

// Match tells whether all conditions hold for labels.
func (ms Matchers) Match(labels map[string]string) bool {
	for _, m := range ms {
		if !m.match(labels[m.name]) {
			return false
		}
	}
	return true
}

func (m Matcher) match(value string) bool {
	holds := value == m.value
	if m.pattern != nil {
		holds = m.pattern.MatchString(value)
	}
	return holds != m.negative
}

func parse(text string) (Matcher, error) {
	if len(text) > maxPattern {
		return Matcher{}, fmt.Errorf("longer than %d bytes", maxPattern)
	}
	at := strings.IndexAny(text, "=!")
	if at < 0 {
		return Matcher{}, errors.New(`no operator; one of =, !=, =~, !~ is needed`)
	}
	name, err := unquote(text[:at])
	if err != nil {
		return Matcher{}, fmt.Errorf("label: %w", err)
	}
	if name == "" {
		return Matcher{}, errors.New("no label before the operator")
	}
	m := Matcher{name: name}
	rest, isPattern := text[at:], false
	switch {
	case strings.HasPrefix(rest, "=~"):
		isPattern = true
		rest = rest[2:]
	case strings.HasPrefix(rest, "!~"):
		isPattern, m.negative = true, true
		rest = rest[2:]
	case strings.HasPrefix(rest, "!="):
		m.negative = true
		rest = rest[2:]
	case strings.HasPrefix(rest, "="):
		rest = rest[1:]
	default:
		return Matcher{}, errors.New("! must be followed by = or ~")
	}
	if m.value, err = unquote(rest); err != nil {
		return Matcher{}, fmt.Errorf("value: %w", err)
	}
	if isPattern {
		if m.pattern, err = regexp.Compile("^(?s:" + m.value + ")$"); err != nil {
			return Matcher{}, fmt.Errorf("value: %w", err)
		}
	}
	return m, nil
}

// unquote takes the quotes off a text that has them. A text without quotes
// stands for itself.
func unquote(text string) (string, error) {
	text = strings.TrimSpace(text)
	if !strings.ContainsRune(text, '"') {
		if !utf8.ValidString(text) {
			return "", errors.New("not UTF-8")
		}
		return text, nil
	}
	plain, err := strconv.Unquote(text)
	if err != nil || !strings.HasPrefix(text, `"`) {
		return "", fmt.Errorf("%s is not a quoted string", text)
	}
	if !utf8.ValidString(plain) {
		return "", errors.New("not UTF-8")
	}
	return plain, nil
}
