package runpod

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"regexp"
	"strings"

	"github.com/tocsin-dev/tocsin/internal/event"
)

// Category groups job failures by what to do about them. Its values are stable:
// they are labels of alerts and metrics.
type Category string

// The categories of job failure.
const (
	// Validation means that the job's input was refused.
	Validation Category = "validation"
	// TimedOut means that the job exceeded its execution timeout.
	TimedOut Category = "timeout"
	// OutOfMemory means that the GPU or the worker ran out of memory.
	OutOfMemory Category = "oom"
	// Crash means that the worker died or never reported.
	Crash Category = "crash"
	// HandlerError means that the user's handler raised or returned an error.
	HandlerError Category = "handler"
	// Unknown means that the error does not say.
	Unknown Category = "unknown"
)

const (
	// maxMessageBytes bounds a message: a sentence or two in an alert.
	maxMessageBytes = 512
	// maxTypeBytes bounds the name of an error type.
	maxTypeBytes = 128
	// maxFrameBytes bounds a traceback frame: a path, a line and a function.
	maxFrameBytes = 256
	// maxScanBytes bounds the text that is searched for signs and frames, so that
	// an answer cannot cost more than a few milliseconds.
	maxScanBytes = 64 << 10
)

// Failure says why a job failed. All of its text is redacted, printable, in one
// line and bounded.
type Failure struct {
	// Category is never empty.
	Category Category
	// Type is the exception's type, such as "torch.cuda.OutOfMemoryError"; ""
	// when the error does not name one.
	Type string
	// Message is what the error says, at most 512 bytes.
	Message string
	// Frame is the innermost traceback frame as "file:line in function", ""
	// when there is no traceback. It holds no source line.
	Frame string
}

// Fingerprint returns a short hash that is equal for failures of one cause: of
// category, type and frame, and, where there is no frame, of the message with
// its numbers and identifiers left out.
func (f Failure) Fingerprint() string {
	cause := f.Frame
	if cause == "" {
		cause = normalise(f.Message)
	}
	sum := sha256.Sum256([]byte(string(f.Category) + "\x00" + f.Type + "\x00" + cause))
	return hex.EncodeToString(sum[:6]) // 48 bits: 1 % chance of a clash at 2 million causes
}

// variable finds the parts of a message that differ between jobs: hexadecimal
// identifiers of 8 digits or more, and numbers.
var variable = regexp.MustCompile(`(?i)\b(?:0x)?[0-9a-f]{8,}\b|[0-9]+`)

func normalise(message string) string { return variable.ReplaceAllString(message, "#") }

// ParseFailure reads the error of a job that ended in status. RunPod sends plain
// text, a string that holds the JSON of the handler library, or, where a handler
// returned {"error": ...}, any JSON at all; rawError may be empty. It never
// fails: an error that says nothing is of category [Unknown].
func ParseFailure(status string, rawError json.RawMessage) Failure {
	e := parseError(rawError)
	f := Failure{
		Type:    event.Line(typeName(e.kind), maxTypeBytes),
		Message: event.Line(e.message, maxMessageBytes),
		Frame:   lastFrame(e.trace),
	}
	f.Category = categorise(status, e)
	return f
}

// jobError is the error of a job taken apart, raw.
type jobError struct {
	kind       string // the exception's type
	message    string
	trace      string
	structured bool // only a handler can have sent it
}

func parseError(raw json.RawMessage) jobError {
	if len(raw) == 0 || string(raw) == "null" {
		return jobError{}
	}
	var text string
	if json.Unmarshal(raw, &text) != nil {
		return parseValue(raw)
	}
	// The handler library sends its JSON inside of a string: parse twice. A long one
	// may have been cut while it was read.
	if inner := []byte(strings.TrimSpace(text)); bytes.HasPrefix(inner, []byte("{")) {
		if e, ok := parseObject(inner); ok {
			return e
		}
		if json.Valid(inner) {
			return parseValue(inner)
		}
	}
	// Generator handlers send "handler: <message> traceback: <traceback>".
	if message, trace, ok := strings.Cut(text, "traceback: "); ok && strings.HasPrefix(text, "handler: ") {
		return jobError{message: strings.TrimPrefix(message, "handler: "), trace: trace, structured: true}
	}
	e := jobError{message: text}
	if before, trace, ok := strings.Cut(text, "Traceback (most recent call last)"); ok {
		e.kind, e.message = lastException(trace)
		e.trace, e.structured = trace, true
		if e.message == "" {
			e.message = before
		}
	}
	return e
}

// errorNames are the members in which errors tell their parts, those of the handler
// library first.
var errorNames = map[string]func(*jobError) *string{
	"error_type":      func(e *jobError) *string { return &e.kind },
	"type":            func(e *jobError) *string { return &e.kind },
	"error_message":   func(e *jobError) *string { return &e.message },
	"message":         func(e *jobError) *string { return &e.message },
	"error":           func(e *jobError) *string { return &e.message },
	"detail":          func(e *jobError) *string { return &e.message },
	"error_traceback": func(e *jobError) *string { return &e.trace },
	"traceback":       func(e *jobError) *string { return &e.trace },
}

// parseObject reads the parts of an error that is a JSON object, or the beginning
// of one that was cut. It reports false when it holds none of them. Members that
// are no strings stay out.
func parseObject(raw []byte) (jobError, bool) {
	found := map[string]string{}
	dec := json.NewDecoder(bytes.NewReader(raw))
	if open(dec, '{', "") != nil {
		return jobError{}, false
	}
	for dec.More() {
		name, err := dec.Token()
		if err != nil {
			break
		}
		var value perhaps[string]
		if dec.Decode(&value) != nil {
			break
		}
		if name, _ := name.(string); errorNames[name] != nil && value.value != "" {
			found[name] = value.value
		}
	}
	e := jobError{structured: true}
	for _, name := range []string{"error_type", "type", "error_message", "message", "error", "detail", "error_traceback", "traceback"} {
		if to := errorNames[name](&e); *to == "" {
			*to = found[name]
		}
	}
	return e, e.kind != "" || e.message != ""
}

// parseValue reads an error that is JSON other than a string.
func parseValue(raw json.RawMessage) jobError {
	if e, ok := parseObject(raw); ok {
		return e
	}
	return jobError{message: withoutPayload(raw), structured: true}
}

// payloads are the members that hold what a job was given or gave, wherever a
// handler puts them.
var payloads = map[string]bool{"input": true, "output": true, "env": true}

// withoutPayload renders an error of no known shape, without what must not be told.
func withoutPayload(raw json.RawMessage) string {
	if len(raw) > maxScanBytes {
		return fmt.Sprintf("%d bytes of JSON that say neither type nor message", len(raw))
	}
	dec := json.NewDecoder(bytes.NewReader(raw))
	dec.UseNumber()
	var value any
	if dec.Decode(&value) != nil {
		return ""
	}
	var kept bytes.Buffer
	enc := json.NewEncoder(&kept)
	enc.SetEscapeHTML(false)
	if enc.Encode(strip(value)) != nil {
		return ""
	}
	return kept.String()
}

// strip takes the payloads out of a JSON value.
func strip(value any) any {
	switch v := value.(type) {
	case map[string]any:
		for name := range v {
			if payloads[strings.ToLower(name)] {
				delete(v, name)
				continue
			}
			v[name] = strip(v[name])
		}
	case []any:
		for i := range v {
			v[i] = strip(v[i])
		}
	}
	return value
}

// typeName undoes Python's str(type(e)): <class 'ValueError'> is ValueError.
func typeName(kind string) string {
	kind = strings.TrimSpace(kind)
	if inner, ok := strings.CutPrefix(kind, "<class '"); ok {
		return strings.TrimSuffix(inner, "'>")
	}
	return kind
}

// framePattern matches the head of one frame of a Python traceback. The source
// line that follows it is not captured: it may hold literals.
var framePattern = regexp.MustCompile(`File "([^"\n]{1,400})", line ([0-9]{1,9}), in ([^\s]{1,200})`)

// lastFrame returns the innermost frame of a traceback.
func lastFrame(trace string) string {
	if len(trace) > maxScanBytes { // the innermost frame is at the end
		trace = strings.ToValidUTF8(trace[len(trace)-maxScanBytes:], "")
	}
	all := framePattern.FindAllStringSubmatch(trace, -1)
	if len(all) == 0 {
		return ""
	}
	m := all[len(all)-1]
	return event.Line(m[1]+":"+m[2]+" in "+m[3], maxFrameBytes)
}

var exceptionLine = regexp.MustCompile(`(?m)^([A-Za-z_][\w.]*)(?:: (.*))?$`)

// lastException returns type and message of the line that ends a traceback.
func lastException(trace string) (kind, message string) {
	if len(trace) > maxScanBytes {
		trace = strings.ToValidUTF8(trace[len(trace)-maxScanBytes:], "")
	}
	all := exceptionLine.FindAllStringSubmatch(trace, -1)
	if len(all) == 0 {
		return "", ""
	}
	m := all[len(all)-1]
	return m[1], m[2]
}

// signs lists what tells a category from the error's type and message. The first
// match wins, so that the specific go before the general.
var signs = []struct {
	pattern  *regexp.Regexp
	category Category
}{
	{regexp.MustCompile(`(?i)executionTimeout exceeded|execution timed? ?out|exceeded (?:the )?execution ?timeout`), TimedOut},
	{regexp.MustCompile(`(?i)job timed out after [0-9]+ retr`), Crash},
	{regexp.MustCompile(`(?i)out[ _-]?of[ _-]?memory|cudaErrorMemoryAllocation|CUBLAS_STATUS_ALLOC_FAILED|\bOOM(?:[- ]?killed)?\b|\bMemoryError\b|cannot allocate memory|exit(?:ed)?(?: with)?(?: exit)?(?: code|status)? 137\b`), OutOfMemory},
	{regexp.MustCompile(`(?i)Job has missing field|missing (?:required )?(?:field|input|parameter|key|argument)|\bValidationError\b|\bInputError\b|field required|(?:field|input|parameter|property|argument)\b.{0,60}\bis (?:a )?required|\bis a required property|invalid input`), Validation},
	{regexp.MustCompile(`(?i)worker (?:exited|died|crashed|was killed)|segmentation fault|SIG(?:KILL|SEGV|ABRT)|exit(?:ed)? (?:with )?(?:exit )?(?:code|status) [1-9]`), Crash},
}

func categorise(status string, e jobError) Category {
	if status == string(JobTimedOut) {
		return TimedOut
	}
	text := typeName(start(e.kind)) + " " + start(e.message)
	for _, s := range signs {
		if s.pattern.MatchString(text) {
			return s.category
		}
	}
	if e.structured || e.kind != "" {
		return HandlerError
	}
	return Unknown
}

// start returns the part of text that is searched.
func start(text string) string { return text[:min(len(text), maxScanBytes)] }
