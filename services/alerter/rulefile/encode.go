package rulefile

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
)

// encodingFormat is the version of Encode's output.
const encodingFormat = 1

// encoded is a set as it is stored.
type encoded struct {
	Format  int               `json:"format"`
	Files   map[string]string `json:"files"`
	Targets []TargetPattern   `json:"targets,omitempty"`
	Mode    Mode              `json:"mode,omitempty"`
	Observe []string          `json:"observe,omitempty"`
}

// Encode returns the set's sources, from which Decode makes the same set.
func (s *Set) Encode() []byte {
	e := encoded{Format: encodingFormat, Files: make(map[string]string, len(s.Files)), Targets: s.Targets, Mode: s.Mode, Observe: s.Observe}
	for name, content := range s.Files {
		e.Files[name] = string(content)
	}
	return mustJSON(e)
}

// Decode reads what Encode wrote. Its error says that the bytes are something
// else, of a newer format, or no longer valid rules.
func Decode(data []byte) (*Set, error) {
	var e encoded
	if err := json.Unmarshal(data, &e); err != nil {
		return nil, fmt.Errorf("decode rule set: %w", err)
	}
	if e.Format != encodingFormat {
		return nil, fmt.Errorf("decode rule set: format %d is not %d", e.Format, encodingFormat)
	}
	files := make(map[string][]byte, len(e.Files))
	for name, content := range e.Files {
		files[name] = []byte(content)
	}
	set, err := Parse(files, e.Targets)
	if err != nil {
		return nil, fmt.Errorf("decode rule set: %w", err)
	}
	if len(e.Observe) > 0 {
		set = set.WithObserved(e.Observe)
	}
	switch e.Mode {
	case ModeNormal:
		return set, nil
	case ModeObserve:
		return set.WithMode(e.Mode), nil
	default:
		return nil, fmt.Errorf("decode rule set: mode %q is not known", e.Mode)
	}
}

// canonicalRule is what a rule does, without where it stands. The order of
// rules belongs to it, since it orders what happens at one instant.
type canonicalRule struct {
	Group, Alert  string
	On            On
	Expr, Until   string
	For           int64
	KeepFiringFor int64
	Labels        map[string]string
	Annotations   map[string]string

	// What was added later is left out where a rule does not use it, so that its
	// hash stays and no upgrade brings the same rules into force again.
	Times  string `json:",omitempty"`
	NoData NoData `json:",omitempty"`
	Mode   Mode   `json:",omitempty"`

	Flapping string `json:",omitempty"`
}

// hash names the behaviour of a set.
func hash(s *Set) string {
	canonical := struct {
		Rules   []canonicalRule
		Targets []TargetPattern
		Mode    Mode     `json:",omitempty"`
		Observe []string `json:",omitempty"`
	}{Targets: s.Targets, Mode: s.Mode, Observe: s.Observe}
	for _, r := range s.Rules() {
		canonical.Rules = append(canonical.Rules, canonicalRule{
			Group: r.Group, Alert: r.Alert, On: r.On, Expr: r.Expr, Until: r.Until,
			For: int64(r.For), KeepFiringFor: int64(r.KeepFiringFor),
			Labels: r.Labels, Annotations: r.Annotations, Times: r.Times.String(), NoData: r.NoData, Mode: r.Mode, Flapping: r.Flapping.String(),
		})
	}
	sum := sha256.Sum256(mustJSON(canonical))
	return hex.EncodeToString(sum[:])
}

// mustJSON encodes a value that consists of strings, numbers and maps of them,
// which cannot fail but for a number that is not finite; those are refused
// when target patterns are checked.
func mustJSON(v any) []byte {
	data, err := json.Marshal(v)
	if err != nil {
		panic(fmt.Sprintf("rulefile: encode: %v", err))
	}
	return data
}
