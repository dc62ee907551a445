package rulefile

import (
	"go.yaml.in/yaml/v3"

	"github.com/tocsin-dev/tocsin/services/alerter/internal/nearest"
)

// NoData says what becomes of an alert while its condition has no value because
// the source answers and leaves something out. That the source cannot be reached
// is no answer: then alerts stay as they are.
type NoData string

// What can become of it.
const (
	// NoDataKeep leaves it as it is.
	NoDataKeep NoData = ""
	// NoDataFire takes the condition for one that holds.
	NoDataFire NoData = "fire"
	// NoDataResolve takes the alert for one that is over.
	NoDataResolve NoData = "resolve"
)

// String writes it as files do.
func (n NoData) String() string {
	if n == NoDataKeep {
		return words["no_data"]
	}
	return string(n)
}

// Mode says whether people are told of alerts.
type Mode string

// The modes.
const (
	// ModeNormal tells people of alerts.
	ModeNormal Mode = ""
	// ModeObserve evaluates rules and shows their alerts, and tells nobody.
	ModeObserve Mode = "observe"
)

// words are what files write for values that are empty, being the default.
var words = map[string]string{"no_data": "keep", "mode": "normal"}

// choice reads an optional key that has one of a few values, the first of which is
// the default.
func choice[T ~string](p *parser, keys map[string]*yaml.Node, key string, values ...T) T {
	n := keys[key]
	if n == nil {
		return values[0]
	}
	before := len(p.mistakes)
	text := p.scalar(n, key)
	if len(p.mistakes) > before {
		return values[0]
	}
	names := make([]string, len(values))
	for i, v := range values {
		if names[i] = string(v); v == "" {
			names[i] = words[key]
		}
		if names[i] == text {
			return v
		}
	}
	p.wrong(n, "`%s: %s` means nothing; expected %s%s", key, text, oneOf(names), nearest.Hint(text, names))
	return values[0]
}
