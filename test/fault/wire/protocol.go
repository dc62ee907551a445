package wire

import (
	"bytes"
	"strconv"
	"strings"
)

// handler gets one operation of NATS's protocol: its name, its arguments without
// the lengths, and what follows its line. The bytes are only valid during the call.
type handler func(op string, args []string, header, body []byte)

// stream is one direction of a connection: bytes that are no whole operation yet.
type stream struct{ rest []byte }

// take cuts what came into operations.
func (s *stream) take(data []byte, handle handler) {
	s.rest = append(s.rest, data...)
	done := 0
	for {
		n := next(s.rest[done:], handle)
		if n == 0 {
			break
		}
		done += n
	}
	s.rest = append(s.rest[:0], s.rest[done:]...)
}

// lengths are the operations that a body follows, and how many of their arguments
// at the end are lengths: that of the body, or those of the header and of both.
var lengths = map[string]int{"PUB": 1, "MSG": 1, "HPUB": 2, "HMSG": 2}

const newline = "\r\n"

// next handles the first operation and returns its length, or 0 when not all of it
// came.
func next(data []byte, handle handler) int {
	end := bytes.Index(data, []byte(newline))
	if end < 0 {
		return 0
	}
	begin := end + len(newline)
	op, args := split(string(data[:end]))
	sizes := lengths[op]
	if sizes == 0 || len(args) < sizes {
		return begin
	}
	first, err := strconv.Atoi(args[len(args)-sizes])
	last, err2 := strconv.Atoi(args[len(args)-1])
	if err != nil || err2 != nil || first < 0 || first > last {
		return begin // not what a client or server says
	}
	header := 0
	if sizes == 2 {
		header = first
	}
	if len(data) < begin+last+len(newline) {
		return 0
	}
	handle(op, args[:len(args)-sizes], data[begin:begin+header], data[begin+header:begin+last])
	return begin + last + len(newline)
}

// split returns the name of an operation, which may be in any case, and its
// arguments.
func split(line string) (op string, args []string) {
	fields := strings.Fields(line)
	if len(fields) == 0 {
		return "", nil
	}
	return strings.ToUpper(fields[0]), fields[1:]
}

// headerOf returns the value of a header, or nothing.
func headerOf(header []byte, name string) string {
	for line := range strings.SplitSeq(string(header), newline) {
		if key, value, ok := strings.Cut(line, ":"); ok && strings.EqualFold(strings.TrimSpace(key), name) {
			return strings.TrimSpace(value)
		}
	}
	return ""
}
