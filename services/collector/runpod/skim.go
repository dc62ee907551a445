package runpod

import (
	"bytes"
	"errors"
	"fmt"
	"io"

	"github.com/tocsin-dev/tocsin/internal/event"
)

// ReadJob reads a job as RunPod's status route and completion webhook send it.
// Input and output are passed over while r is read, so they cost no memory. It
// reads at most maxBytes and keeps at most maxKept of them; longer input, like
// input that is not a job, is an error of kind [TooLarge] or [Malformed]. The id
// is empty when r has none. Wherever key stands it is redacted.
func ReadJob(r io.Reader, maxBytes, maxKept int64, key Secret) (Job, error) {
	const op = "decode job"
	body, err := readBody(r, call{limit: maxBytes, skim: true}, maxKept)
	if err != nil {
		kind := Network
		if errors.Is(err, errTooLarge) {
			kind = TooLarge
		}
		return Job{}, &Error{Op: op, Kind: kind, Detail: event.Line(err.Error(), maxDetailBytes), Err: err}
	}
	j, err := decodeJob(event.Hide(body, key.Reveal()))
	if err != nil {
		return Job{}, &Error{Op: op, Kind: Malformed, Detail: event.Line(err.Error(), maxDetailBytes)}
	}
	return j, nil
}

// maxStringBytes bounds what is kept of one string of a job: a handler's error may
// hold megabytes of traceback, and must not cost the news that the job failed.
const maxStringBytes = 256 << 10

// skimmer copies one JSON object to a buffer, writes null in place of the values
// of its members input and output, and cuts long strings. It judges no syntax: what
// it lets through is decoded afterwards, and text that is not JSON stays that way.
type skimmer struct {
	to  *bytes.Buffer
	max int64 // bytes to keep

	depth    int
	inString bool
	escaped  bool
	length   int  // bytes of the string so far
	cut      bool // the rest of the string is left out
	hex      int  // digits that an escape still lacks
	wantKey  bool // the next string of depth 1 is a member name
	inKey    bool
	key      []byte // the current member name of depth 1, without its quotes
	dropping bool   // within a value that is left out
}

// maxKeyBytes is more than the longest member name of interest.
const maxKeyBytes = 16

// Write takes the next bytes of the object.
func (s *skimmer) Write(p []byte) (int, error) {
	for rest := p; len(rest) > 0; {
		n := 1
		switch run := s.plain(rest); {
		case run > 0:
			n = run
			s.takePlain(rest[:n])
		case s.inString:
			s.text(rest[0])
		default:
			s.structure(rest[0])
		}
		rest = rest[n:]
		if int64(s.to.Len()) > s.max {
			return 0, fmt.Errorf("%w: more than %d bytes beside its output", errTooLarge, s.max)
		}
	}
	return len(p), nil
}

// maxRun bounds a look ahead, so that a text of nothing but escapes is not looked
// through again from each of them.
const maxRun = 512

// plain returns how many bytes of a string's content come next, before its end or
// an escape. An output of 20 MB is mostly these.
func (s *skimmer) plain(p []byte) int {
	if !s.inString || s.inKey || s.escaped || s.hex > 0 {
		return 0
	}
	p = p[:min(len(p), maxRun)]
	if end := bytes.IndexByte(p, '"'); end >= 0 {
		p = p[:end]
	}
	if escape := bytes.IndexByte(p, '\\'); escape >= 0 {
		p = p[:escape]
	}
	return len(p)
}

// takePlain takes bytes of a string's content that hold no escape.
func (s *skimmer) takePlain(p []byte) {
	if s.dropping || s.cut {
		return
	}
	kept := max(min(len(p), maxStringBytes-s.length), 0) // an escape may have gone beyond it
	s.to.Write(p[:kept])
	s.length += kept
	s.cut = kept < len(p)
}

// text takes a byte within a string.
func (s *skimmer) text(b byte) {
	whole := !s.escaped && s.hex == 0 // b begins a character or ends the string
	switch {
	case s.escaped:
		s.escaped = false
		if b == 'u' {
			s.hex = 4
		}
	case b == '"':
		s.inString, s.inKey, s.hex = false, false, 0
		s.keep(b)
		return
	case b == '\\':
		s.escaped = true
	case s.hex > 0:
		s.hex--
	}
	if s.inKey && len(s.key) < maxKeyBytes {
		s.key = append(s.key, b)
	}
	if s.cut = s.cut || whole && s.length >= maxStringBytes; s.cut {
		return
	}
	s.length++
	s.keep(b)
}

// structure takes a byte outside of strings.
func (s *skimmer) structure(b byte) {
	switch b {
	case '"':
		s.inString, s.length, s.cut = true, 0, false
		if s.depth == 1 && s.wantKey {
			s.wantKey, s.inKey, s.key = false, true, s.key[:0]
		}
	case '{', '[':
		s.depth++
		s.wantKey = s.wantKey || s.depth == 1
	case '}', ']':
		if s.depth == 1 {
			s.dropping = false
		}
		s.depth--
	case ',':
		if s.depth == 1 {
			s.dropping, s.wantKey = false, true
		}
	}
	s.keep(b)
	if b == ':' && s.depth == 1 && !s.dropping && (string(s.key) == "output" || string(s.key) == "input") {
		s.to.WriteString("null")
		s.dropping = true
	}
}

func (s *skimmer) keep(b byte) {
	if !s.dropping {
		s.to.WriteByte(b)
	}
}
