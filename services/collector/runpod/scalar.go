package runpod

import (
	"bytes"
	"encoding/json"
	"errors"
	"math"
	"reflect"
	"strconv"
	"time"
)

// The scalars of an answer. One figure that cannot be one must not cost the
// whole list that it stands in, so what is of the right JSON type and means
// nothing (a number beyond 64 bits, a leap second) is absent; only what is of
// another type is an error.

// whole is an integer, in each of the ways in which JSON writes one: 3, 3.0 and
// 3e0 are the same. It is nil for null and for what 64 bits cannot hold.
type whole struct{ n *int64 }

// UnmarshalJSON reads a number without a fraction, or null.
func (w *whole) UnmarshalJSON(raw []byte) error {
	if n, err := strconv.ParseInt(string(raw), 10, 64); err == nil {
		w.n = &n
		return nil
	}
	var f figure
	if err := f.UnmarshalJSON(raw); err != nil {
		return err
	}
	switch {
	case f.n == nil || math.Abs(*f.n) >= 1<<63:
		w.n = nil
	case *f.n != math.Trunc(*f.n):
		return &json.UnmarshalTypeError{Value: "number with a fraction", Type: reflect.TypeFor[int64]()}
	default:
		n := int64(*f.n)
		w.n = &n
	}
	return nil
}

// figure is a number, nil for null and for what a double cannot hold.
type figure struct{ n *float64 }

// UnmarshalJSON reads a number or null.
func (f *figure) UnmarshalJSON(raw []byte) error {
	f.n = nil
	if string(raw) == "null" {
		return nil
	}
	n, err := strconv.ParseFloat(string(raw), 64)
	switch {
	case errors.Is(err, strconv.ErrRange):
		return nil
	case err != nil:
		return &json.UnmarshalTypeError{Value: typeOf(raw), Type: reflect.TypeFor[float64]()}
	}
	f.n = &n
	return nil
}

// instant is a date and time, nil for null and for a text that is none.
type instant struct{ at *time.Time }

// UnmarshalJSON reads a text or null.
func (i *instant) UnmarshalJSON(raw []byte) error {
	i.at = nil
	var text *string
	if err := json.Unmarshal(raw, &text); err != nil {
		return &json.UnmarshalTypeError{Value: typeOf(raw), Type: reflect.TypeFor[time.Time]()}
	}
	if text == nil {
		return nil
	}
	if at, err := time.Parse(time.RFC3339Nano, *text); err == nil {
		i.at = &at
	}
	return nil
}

// typeOf names the JSON type of a value.
func typeOf(raw []byte) string {
	switch raw = bytes.TrimSpace(raw); {
	case len(raw) == 0:
		return "value"
	case raw[0] == '"':
		return "string"
	case raw[0] == '{':
		return "object"
	case raw[0] == '[':
		return "array"
	case raw[0] == 't', raw[0] == 'f':
		return "bool"
	default:
		return "number"
	}
}
