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

// price is a figure that may stand in quotes, as in the example of a pod in the
// description of RunPod's REST API v1.
type price struct{ figure }

// UnmarshalJSON reads a number, a text that is one, or null.
func (p *price) UnmarshalJSON(raw []byte) error {
	var text string
	if len(raw) == 0 || raw[0] != '"' || json.Unmarshal(raw, &text) != nil || !json.Valid([]byte(text)) {
		return p.figure.UnmarshalJSON(raw)
	}
	return p.figure.UnmarshalJSON([]byte(text))
}

// perhaps is a T, or its zero value where the answer holds something else.
type perhaps[T any] struct{ value T }

// UnmarshalJSON reads any value.
func (p *perhaps[T]) UnmarshalJSON(raw []byte) error {
	var value T
	if json.Unmarshal(raw, &value) == nil {
		p.value = value
	}
	return nil
}

// few is a list within an entry.
type few[T any] []T

// maxParts bounds the parts of such a list, which commas divide. RunPod has about
// 40 data centres and 8 GPUs a pod, of two figures each.
const maxParts = 1000

// UnmarshalJSON reads a list or null.
func (f *few[T]) UnmarshalJSON(raw []byte) error {
	if bytes.Count(raw, []byte{','}) >= maxParts {
		return &json.UnmarshalTypeError{Value: "list of too many parts", Type: reflect.TypeFor[[]T]()}
	}
	return json.Unmarshal(raw, (*[]T)(f))
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
