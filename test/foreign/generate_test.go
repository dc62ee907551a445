package foreign

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/getkin/kin-openapi/openapi3"
)

// specPath is RunPod's own OpenAPI file, which is not part of this repository:
// it may lie in a folder beside it.
var specPath = filepath.Join("..", "..", "..", "shared", "runpod", "openapi-v2.json")

// loadSpec reads RunPod's file, or a description of the same answers written by
// hand where it is not at hand.
func loadSpec(t *testing.T) *openapi3.T {
	t.Helper()
	text, err := os.ReadFile(specPath)
	if errors.Is(err, fs.ErrNotExist) {
		t.Logf("%s is not here: answers are made from the description in subset_test.go", specPath)
		text, err = []byte(subset), nil
	}
	if err != nil {
		t.Fatal(err)
	}
	spec, err := openapi3.NewLoader().LoadFromData(text)
	if err != nil {
		t.Fatal(err)
	}
	return spec
}

// generator makes random values that a schema allows.
type generator struct {
	spec   *openapi3.T
	random *rand.Rand
	made   int
}

// shape is an object's members, put together from all parts of its schema.
type shape struct {
	members  map[string]*openapi3.SchemaRef
	required map[string]bool
	closed   bool // no other members are allowed
}

func (s *shape) add(schema *openapi3.Schema) {
	maps.Copy(s.members, schema.Properties)
	for _, name := range schema.Required {
		s.required[name] = true
	}
	if has := schema.AdditionalProperties.Has; has != nil && !*has {
		s.closed = true
	}
	for _, part := range schema.AllOf {
		s.add(part.Value)
	}
}

// value makes a value of a schema.
func (g *generator) value(schema *openapi3.Schema) any {
	switch {
	case len(schema.Enum) > 0:
		return schema.Enum[g.random.IntN(len(schema.Enum))]
	case len(schema.OneOf) > 0:
		return g.value(schema.OneOf[g.random.IntN(len(schema.OneOf))].Value)
	case len(schema.AnyOf) > 0:
		return g.value(schema.AnyOf[g.random.IntN(len(schema.AnyOf))].Value)
	}
	whole := &shape{members: map[string]*openapi3.SchemaRef{}, required: map[string]bool{}}
	whole.add(schema)
	if len(whole.members) > 0 {
		return g.object(whole)
	}
	if len(schema.AllOf) == 1 {
		return g.value(schema.AllOf[0].Value)
	}
	types := schema.Type.Slice()
	if len(types) == 0 {
		return g.text()
	}
	switch types[g.random.IntN(len(types))] {
	case "null":
		return nil
	case "boolean":
		return g.random.IntN(2) == 0
	case "integer":
		return g.integer(schema)
	case "number":
		return g.number(schema)
	case "array":
		return g.array(schema)
	case "object":
		if values := schema.AdditionalProperties.Schema; values != nil {
			return map[string]any{"KEY_" + g.word(): g.value(values.Value), "SECRET": envCanary}
		}
		return map[string]any{}
	default:
		return g.string(schema)
	}
}

func (g *generator) object(s *shape) map[string]any {
	o := map[string]any{}
	for _, name := range slices.Sorted(maps.Keys(s.members)) { // the same from the same seed
		if s.required[name] || g.random.IntN(3) > 0 {
			o[name] = g.value(s.members[name].Value)
		}
	}
	if !s.closed && g.random.IntN(3) == 0 {
		o["x"+g.word()] = []any{g.text(), g.random.Float64(), nil, map[string]any{"deep": []any{}}}
	}
	return o
}

func (g *generator) array(schema *openapi3.Schema) []any {
	n := int(schema.MinItems) + g.random.IntN(4)
	if schema.MaxItems != nil {
		n = min(n, int(*schema.MaxItems))
	}
	a := make([]any, n)
	for i := range a {
		a[i] = g.value(schema.Items.Value)
	}
	return a
}

// integer makes whole numbers up to and beyond what 64 bits hold, and in each
// way in which JSON writes them.
func (g *generator) integer(schema *openapi3.Schema) any {
	least, most := schema.Min, schema.Max
	n := g.random.Int64N(100)
	switch g.random.IntN(8) {
	case 0:
		n = 0
	case 1:
		n = 1 << (g.random.IntN(22) + 31) // up to 2^52
	case 2:
		if least == nil {
			n = -n
		}
	}
	if most != nil {
		n %= int64(*most) + 1
	}
	if least != nil {
		n = max(n, int64(*least))
	}
	switch g.random.IntN(12) {
	case 0:
		return json.Number(fmt.Sprintf("%d.0", n))
	case 1:
		return json.Number(fmt.Sprintf("%de0", n))
	case 2:
		if most == nil && g.random.IntN(4) == 0 {
			return json.Number("100000000000000000000000")
		}
	}
	return json.Number(fmt.Sprint(n))
}

func (g *generator) number(schema *openapi3.Schema) any {
	n := [...]float64{0, 0.44, 4, 1e-12, 3.3e38, g.random.Float64() * 100}[g.random.IntN(6)]
	if schema.Min != nil {
		n = max(n, *schema.Min)
	}
	return n
}

func (g *generator) string(schema *openapi3.Schema) string {
	switch schema.Format {
	case "date-time":
		at := time.Unix(g.random.Int64N(4e9), g.random.Int64N(1e9)).In(time.FixedZone("", (g.random.IntN(49)-24)*1800))
		return [...]string{
			at.Format(time.RFC3339), at.Format(time.RFC3339Nano), at.UTC().Format(time.RFC3339), "2016-12-31T23:59:60Z",
		}[g.random.IntN(4)]
	case "uri":
		return "https://example.com/" + g.word() + "?x=" + envCanary
	}
	if schema.Pattern != "" || schema.MinLength > 0 {
		return "a" + g.word()
	}
	return g.text()
}

// text makes texts as people and attackers write them.
func (g *generator) text() string {
	switch g.random.IntN(10) {
	case 0:
		return ""
	case 1:
		return "Größe 模型 🔥 " + g.word()
	case 2:
		return "line\nbreak\ttab \x00 nul \u202e " + g.word()
	case 3:
		return `"quoted" \back {label="x"} {{ .Name }} <b>` + g.word()
	case 4:
		return strings.Repeat("long ", 400) + g.word()
	default:
		return g.word() + "-" + g.word()
	}
}

func (g *generator) word() string {
	g.made++
	const letters = "abcdefghijkmnpqrstuvwxyz23456789"
	b := make([]byte, 6)
	for i := range b {
		b[i] = letters[g.random.IntN(len(letters))]
	}
	return fmt.Sprintf("%s%d", b, g.made)
}

// inventory makes n entries of a schema with ids of their own, and checks that
// the schema allows them.
func (g *generator) inventory(t *testing.T, schema string, n int) []map[string]any {
	t.Helper()
	ref := g.spec.Components.Schemas[schema]
	if ref == nil {
		t.Fatalf("the OpenAPI file describes no %s", schema)
	}
	all := make([]map[string]any, 0, n)
	for i := range n {
		one, ok := g.value(ref.Value).(map[string]any)
		if !ok {
			t.Fatalf("%s is no object", schema)
		}
		one["id"] = [...]string{"", "ep_", "a-b_", "Ünï.~ "}[i%4] + g.word()
		all = append(all, one)
	}
	for _, one := range all {
		raw, err := json.Marshal(one)
		if err != nil {
			t.Fatal(err)
		}
		var plain any
		if err := json.Unmarshal(raw, &plain); err != nil {
			t.Fatal(err)
		}
		if err := ref.Value.VisitJSON(plain, openapi3.MultiErrors()); err != nil {
			t.Fatalf("the generator made what %s does not allow:\n%s\n%v", schema, raw, err)
		}
	}
	return all
}
