package rulefile

import (
	"fmt"
	"strconv"
	"time"

	"github.com/prometheus/common/model"
	"go.yaml.in/yaml/v3"
)

const (
	// leastFlaps is the least number of changes that may be too many: an alert that
	// comes back once has three.
	leastFlaps = 3
	// mostFlaps bounds the instants that are kept for a rule and a target: 400 bytes.
	mostFlaps = 50
	// shortestFlap and longestFlap bound the time in which they are counted.
	shortestFlap = time.Minute
	longestFlap  = 24 * time.Hour
)

// Flapping says how often an alert may fire and resolve before it is told that it
// flaps, and nothing more until it is calm. The zero value sets no bound.
type Flapping struct {
	// Window is the time in which changes are counted, and for how long there must
	// be none before the alert is calm.
	Window time.Duration
	// Transitions is from how many on it flaps.
	Transitions int
}

// String writes it for people; empty for the zero value.
func (f Flapping) String() string {
	if f.Transitions == 0 {
		return ""
	}
	return fmt.Sprintf("%d in %s", f.Transitions, model.Duration(f.Window))
}

// flapping reads the optional key `flapping`.
func (p *parser) flapping(keys map[string]*yaml.Node) Flapping {
	n := keys["flapping"]
	if n == nil {
		return Flapping{}
	}
	inner := p.mapping(n, "flapping", "window", "transitions")
	if inner == nil {
		return Flapping{}
	}
	var f Flapping
	before := len(p.mistakes)
	if _, at := p.required(n, inner, "window", "flapping"); at != nil {
		if f.Window = p.duration(inner, "window"); len(p.mistakes) == before && (f.Window < shortestFlap || f.Window > longestFlap) {
			p.wrong(at, "`window`: %s is not between %s and %s", model.Duration(f.Window), model.Duration(shortestFlap), model.Duration(longestFlap))
		}
	}
	if text, at := p.required(n, inner, "transitions", "flapping"); at != nil {
		var err error
		if f.Transitions, err = strconv.Atoi(text); err != nil || f.Transitions < leastFlaps || f.Transitions > mostFlaps {
			p.wrong(at, "`transitions`: %s is no whole number between %d and %d", text, leastFlaps, mostFlaps)
		}
	}
	if len(p.mistakes) > before {
		return Flapping{}
	}
	return f
}
