package proc

import (
	"encoding"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/tocsin-dev/tocsin/internal/event"
)

var (
	durationType        = reflect.TypeFor[time.Duration]()
	textUnmarshalerType = reflect.TypeFor[encoding.TextUnmarshaler]()
	yamlUnmarshalerType = reflect.TypeFor[yaml.Unmarshaler]()
)

// value decodes node into v, whose dotted name is name. A null leaves the
// default as it is.
func (d *decoder) value(node *yaml.Node, v reflect.Value, name string) {
	node = resolve(node)
	if isNull(node) {
		return
	}
	d.places[name] = placeOf(node)
	switch {
	case ownDecoding(v.Type()) || v.Type() == durationType:
		d.leaf(node, v, name)
	case v.Kind() == reflect.Pointer:
		fresh := reflect.New(v.Type().Elem())
		if !v.IsNil() {
			fresh.Elem().Set(v.Elem())
		}
		d.value(node, fresh.Elem(), name)
		v.Set(fresh)
	case v.Kind() == reflect.Struct:
		d.structure(node, v, name)
	case v.Kind() == reflect.Slice && v.Type().Elem().Kind() != reflect.Uint8:
		d.list(node, v, name)
	case v.Kind() == reflect.Map:
		d.mapping(node, v, name)
	default:
		d.leaf(node, v, name)
	}
}

// structure decodes a mapping into a struct and refuses keys that it has not.
func (d *decoder) structure(node *yaml.Node, v reflect.Value, name string) {
	fields := fieldsOf(v)
	d.eachKey(node, name, func(key, value *yaml.Node) {
		i := slices.IndexFunc(fields, func(f field) bool { return f.key == key.Value })
		if i < 0 {
			known := make([]string, len(fields))
			for j, f := range fields {
				known[j] = f.key
			}
			d.unknown(key, name, known)
			return
		}
		d.value(value, fields[i].value, join(name, key.Value))
	})
}

// list decodes a sequence; it replaces the default as a whole.
func (d *decoder) list(node *yaml.Node, v reflect.Value, name string) {
	if node.Kind != yaml.SequenceNode {
		d.unreadable(node, name, "want a list, not %s", describe(node))
		return
	}
	items := reflect.MakeSlice(v.Type(), len(node.Content), len(node.Content))
	for i, item := range node.Content {
		d.value(item, items.Index(i), fmt.Sprintf("%s[%d]", name, i))
	}
	v.Set(items)
}

// mapping decodes a mapping with keys of the operator's choice.
func (d *decoder) mapping(node *yaml.Node, v reflect.Value, name string) {
	if v.Type().Key().Kind() != reflect.String {
		d.leaf(node, v, name)
		return
	}
	entries := reflect.MakeMap(v.Type())
	d.eachKey(node, name, func(key, value *yaml.Node) {
		entry := reflect.New(v.Type().Elem()).Elem()
		d.value(value, entry, join(name, key.Value))
		entries.SetMapIndex(reflect.ValueOf(key.Value).Convert(v.Type().Key()), entry)
	})
	v.Set(entries)
}

// eachKey calls do for each key of a mapping once; what is no mapping, merge
// keys and keys given twice are mistakes.
func (d *decoder) eachKey(node *yaml.Node, name string, do func(key, value *yaml.Node)) {
	if node.Kind != yaml.MappingNode {
		d.unreadable(node, name, "want keys with values, not %s", describe(node))
		return
	}
	first := map[string]int{}
	for i := 0; i+1 < len(node.Content); i += 2 {
		key, value := resolve(node.Content[i]), node.Content[i+1]
		line, twice := first[key.Value]
		switch {
		case key.Kind != yaml.ScalarNode:
			d.mistake(key, name, "a key must be a word, not %s", describe(key))
		case key.Tag == "!!merge":
			d.mistake(key, name, "merge keys (<<) are not supported")
		case twice:
			d.mistake(key, join(name, key.Value), "given twice, first in line %d", line)
		default:
			first[key.Value] = key.Line
			do(key, value)
		}
	}
}

// leaf decodes a value that has no keys of ours inside.
func (d *decoder) leaf(node *yaml.Node, v reflect.Value, name string) {
	if node.Kind == yaml.ScalarNode && !reflect.PointerTo(v.Type()).Implements(yamlUnmarshalerType) {
		if err := scalar(node, v); err != nil {
			d.unreadable(node, name, "%v", err)
		}
		return
	}
	if wantsScalar(v.Type()) {
		d.unreadable(node, name, "want %s, not %s", typeName(v.Type()), describe(node))
		return
	}
	fresh := reflect.New(v.Type())
	if err := node.Decode(fresh.Interface()); err != nil {
		d.unreadable(node, name, "%s", strings.ReplaceAll(strings.TrimPrefix(err.Error(), "yaml: "), "\n", " "))
		return
	}
	v.Set(fresh.Elem())
}

// scalar decodes a scalar node. A text may be written without quotes even where
// YAML reads a number or a bool ("account: 42"); a number may not be a text.
func scalar(node *yaml.Node, v reflect.Value) error {
	quoted := node.Style&(yaml.SingleQuotedStyle|yaml.DoubleQuotedStyle) != 0
	if quoted && v.Kind() != reflect.String && v.Type() != durationType && !ownDecoding(v.Type()) && v.Kind() != reflect.Interface {
		return fmt.Errorf("want %s, not a text", typeName(v.Type()))
	}
	return setText(v, node.Value, func(into any) error { return node.Decode(into) })
}

// ownDecoding reports whether values of t decode themselves.
func ownDecoding(t reflect.Type) bool {
	p := reflect.PointerTo(t)
	return p.Implements(textUnmarshalerType) || p.Implements(yamlUnmarshalerType)
}

// wantsScalar reports whether a list or a mapping can never be a t.
func wantsScalar(t reflect.Type) bool {
	switch t.Kind() {
	case reflect.Interface, reflect.Map, reflect.Slice, reflect.Struct, reflect.Array:
		return reflect.PointerTo(t).Implements(textUnmarshalerType) && !reflect.PointerTo(t).Implements(yamlUnmarshalerType)
	default:
		return !reflect.PointerTo(t).Implements(yamlUnmarshalerType)
	}
}

// resolve follows an alias to what it names.
func resolve(node *yaml.Node) *yaml.Node {
	if node.Kind == yaml.AliasNode {
		return node.Alias
	}
	return node
}

func isNull(node *yaml.Node) bool {
	return node.Kind == yaml.ScalarNode && node.Tag == "!!null"
}

// describe says what a node is, to somebody who wrote something else.
func describe(node *yaml.Node) string {
	switch node.Kind {
	case yaml.MappingNode:
		return "keys with values"
	case yaml.SequenceNode:
		return "a list"
	default:
		return fmt.Sprintf("%q", event.Redact(node.Value))
	}
}
