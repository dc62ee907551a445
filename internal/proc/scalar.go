package proc

import (
	"encoding"
	"errors"
	"fmt"
	"math"
	"reflect"
	"strconv"
	"strings"

	"github.com/tocsin-dev/tocsin/internal/event"
)

// field is a key of a section and where its value goes.
type field struct {
	key   string
	value reflect.Value
}

// fieldsOf returns the keys of a struct, those of inlined structs included.
func fieldsOf(v reflect.Value) []field {
	var fields []field
	for i := range v.NumField() {
		f := v.Type().Field(i)
		key, options, _ := strings.Cut(f.Tag.Get("yaml"), ",")
		switch {
		case !f.IsExported() || key == "-":
		case strings.Contains(options, "inline"):
			fields = append(fields, fieldsOf(v.Field(i))...)
		case key == "":
			fields = append(fields, field{strings.ToLower(f.Name), v.Field(i)})
		default:
			fields = append(fields, field{key, v.Field(i)})
		}
	}
	return fields
}

// setText sets v from the text of a scalar, in the file or in a variable. What
// is none of the usual types is left to other.
func setText(v reflect.Value, text string, other func(into any) error) error {
	if into, ok := reflect.TypeAssert[encoding.TextUnmarshaler](v.Addr()); ok {
		return into.UnmarshalText([]byte(text))
	}
	if v.Type() == durationType {
		duration, err := ParseDuration(text)
		if err != nil {
			return err
		}
		v.Set(reflect.ValueOf(duration))
		return nil
	}
	switch v.Kind() {
	case reflect.String:
		v.SetString(text)
		return nil
	case reflect.Bool:
		if text != "true" && text != "false" {
			return mismatch(v, text)
		}
		v.SetBool(text == "true")
		return nil
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		n, err := strconv.ParseInt(text, 10, v.Type().Bits())
		if err != nil {
			return mismatch(v, text)
		}
		v.SetInt(n)
		return nil
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		n, err := strconv.ParseUint(text, 10, v.Type().Bits())
		if err != nil {
			return mismatch(v, text)
		}
		v.SetUint(n)
		return nil
	case reflect.Float32, reflect.Float64:
		x, err := strconv.ParseFloat(text, v.Type().Bits())
		if err != nil || math.IsNaN(x) || math.IsInf(x, 0) {
			return mismatch(v, text)
		}
		v.SetFloat(x)
		return nil
	case reflect.Interface:
		return other(v.Addr().Interface())
	default:
		return fmt.Errorf("want %s, not %q", typeName(v.Type()), event.Redact(text))
	}
}

func mismatch(v reflect.Value, text string) error {
	return fmt.Errorf("want %s, not %q", typeName(v.Type()), event.Redact(text))
}

// typeName says what a value must be, in the operator's words.
func typeName(t reflect.Type) string {
	switch {
	case t == durationType:
		return "a duration such as 15s or 7d"
	case reflect.PointerTo(t).Implements(textUnmarshalerType):
		return "a text"
	}
	switch t.Kind() {
	case reflect.Bool:
		return "true or false"
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		return "a whole number"
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		return "a whole number from 0 up"
	case reflect.Float32, reflect.Float64:
		return "a number"
	case reflect.String:
		return "a text"
	case reflect.Slice, reflect.Array:
		return "a list"
	case reflect.Map, reflect.Struct:
		return "keys with values"
	default:
		return t.String()
	}
}

// parseEnviron returns the variables of "KEY=value" pairs; the last one wins.
func parseEnviron(environ []string) map[string]string {
	env := make(map[string]string, len(environ))
	for _, pair := range environ {
		if key, value, ok := strings.Cut(pair, "="); ok {
			env[key] = value
		}
	}
	return env
}

// variableOf returns the name of the variable that sets a key.
func variableOf(name string) string {
	return "TOCSIN_" + strings.ToUpper(strings.NewReplacer(".", "_", "-", "_").Replace(name))
}

// override sets v and what is below it from the variables that name it.
func (d *decoder) override(env map[string]string, name string, v reflect.Value) {
	variable := variableOf(name)
	switch {
	case v.Kind() == reflect.Pointer && !ownDecoding(v.Type()):
		fresh := reflect.New(v.Type().Elem())
		if !v.IsNil() {
			fresh.Elem().Set(v.Elem())
		}
		before := len(d.places) + len(d.mistakes)
		d.override(env, name, fresh.Elem())
		if len(d.places)+len(d.mistakes) > before || !v.IsNil() {
			v.Set(fresh)
		}
		return
	case v.Kind() == reflect.Struct && !ownDecoding(v.Type()):
		for _, f := range fieldsOf(v) {
			d.override(env, join(name, f.key), f.value)
		}
		return
	}
	text, set := env[variable]
	if !set {
		return
	}
	at := place{variable: variable}
	d.places[name] = at
	delete(d.unread, name) // what the file says does not count
	if err := setVariable(v, text); err != nil {
		d.unread[name] = true
		d.add(at, name+": "+err.Error())
	}
}

var errNoVariable = errors.New("cannot be set by a variable, only in the file")

// setVariable sets v from a variable's text: a scalar, or a list of scalars
// separated by commas. An empty text is an empty list.
func setVariable(v reflect.Value, text string) error {
	refuse := func(any) error { return errNoVariable }
	if ownDecoding(v.Type()) && !reflect.PointerTo(v.Type()).Implements(textUnmarshalerType) || v.Kind() == reflect.Map {
		return errNoVariable
	}
	if v.Kind() != reflect.Slice || ownDecoding(v.Type()) {
		return setText(v, text, refuse)
	}
	if kind := v.Type().Elem().Kind(); kind == reflect.Struct && !ownDecoding(v.Type().Elem()) || kind == reflect.Map || kind == reflect.Slice {
		return errNoVariable
	}
	items := reflect.MakeSlice(v.Type(), 0, strings.Count(text, ",")+1)
	for part := range strings.SplitSeq(text, ",") {
		part = strings.TrimSpace(part)
		if part == "" {
			continue
		}
		item := reflect.New(v.Type().Elem()).Elem()
		if err := setText(item, part, refuse); err != nil {
			return err
		}
		items = reflect.Append(items, item)
	}
	v.Set(items)
	return nil
}

// DidYouMean returns "; did you mean x?" with the one of known that a word was
// likely meant to be, or nothing.
func DidYouMean(word string, known []string) string {
	if meant := nearest(word, known); meant != "" {
		return "; did you mean " + meant + "?"
	}
	return ""
}

// nearest returns the known name at most two edits from name, the first of the
// nearest, or "" when there is none.
func nearest(name string, known []string) string {
	const maxEdits = 2
	best, meant := maxEdits+1, ""
	for _, k := range known {
		if n := edits(name, k); n < best {
			best, meant = n, k
		}
	}
	return meant
}

// edits returns how many letters must be inserted, removed or replaced to turn a into b.
func edits(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := diagonal
			if a[i] != b[j] {
				cost = 1 + min(diagonal, row[j], row[j+1])
			}
			diagonal, row[j+1] = row[j+1], cost
		}
	}
	return row[len(b)]
}
