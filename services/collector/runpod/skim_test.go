package runpod

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/google/go-cmp/cmp"
)

func skimmed(t *testing.T, in string) string {
	t.Helper()
	whole, err := readBody(strings.NewReader(in), call{limit: 1 << 20, skim: true}, 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	// One byte at a time, so that no state is lost between two writes.
	out, err := readBody(iotest.OneByteReader(strings.NewReader(in)), call{limit: 1 << 20, skim: true}, 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(whole, out) {
		t.Errorf("what is read at once is skimmed to %d bytes, what is read byte by byte to %d", len(whole), len(out))
	}
	return string(out)
}

func TestSkimLeavesOutInputAndOutput(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct{ in, want string }{
		"text":                        {`{"output":"a,\"}b","status":"X"}`, `{"output":null,"status":"X"}`},
		"an object within an object":  {`{"a":1,"input":{"output":[{}],"x":"]"},"b":2}`, `{"a":1,"input":null,"b":2}`},
		"at the end":                  {`{"a":1,"output" : [1,2] }`, `{"a":1,"output" :null}`},
		"a number":                    {`{"output":12,"a":1}`, `{"output":null,"a":1}`},
		"only at the top":             {`{"a":{"output":1},"b":["output",1]}`, `{"a":{"output":1},"b":["output",1]}`},
		"a value is no name":          {`{"a":"output","b":1}`, `{"a":"output","b":1}`},
		"a longer name":               {`{"output_of_something":1,"outpu":2}`, `{"output_of_something":1,"outpu":2}`},
		"nothing that is no object":   {`["output",1]`, `["output",1]`},
		"what is not JSON stays such": {`}}{"output":`, `}}{"output":`},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if diff := cmp.Diff(test.want, skimmed(t, test.in)); diff != "" {
				t.Errorf("skimmed (-want +got):\n%s", diff)
			}
		})
	}
}

func TestSkimCutsLongStringsBetweenCharacters(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("a", maxStringBytes)
	for name, test := range map[string]struct{ in, want string }{
		"as long as is kept":             {`{"a":"` + long + `","b":1}`, `{"a":"` + long + `","b":1}`},
		"one more":                       {`{"a":"` + long + `b","b":"c"}`, `{"a":"` + long + `","b":"c"}`},
		"an escape at the cut":           {`{"a":"` + long[1:] + `\"b","b":1}`, `{"a":"` + long[1:] + `\"","b":1}`},
		"an escape of four digits at it": {`{"a":"` + long[1:] + `\u0022b","b":1}`, `{"a":"` + long[1:] + `\u0022","b":1}`},
		"an escape beyond it":            {`{"a":"` + long + `\\\"\u0022","b":1}`, `{"a":"` + long + `","b":1}`},
		"within a list":                  {`{"a":["` + long + `b"],"b":1}`, `{"a":["` + long + `"],"b":1}`},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if got := skimmed(t, test.in); got != test.want {
				t.Errorf("skimmed to %d bytes that end in %q, want %d that end in %q",
					len(got), got[max(len(got)-30, 0):], len(test.want), test.want[max(len(test.want)-30, 0):])
			}
		})
	}
}

func TestReadJob(t *testing.T) {
	t.Parallel()
	const webhook = `{"delayTime":5,"executionTime":7,"id":"j-u1","input":{"prompt":"private"},"output":{"x":1},"status":"COMPLETED","webhook":"https://x/y"}`
	j, err := ReadJob(strings.NewReader(webhook), 1<<20, 1<<20, plain(""))
	if err != nil || j.ID != "j-u1" || j.Status != JobCompleted {
		t.Errorf("job %+v, %v", j, err)
	}
	for name, test := range map[string]struct {
		body string
		max  int64
		want Kind
	}{
		"an empty body":    {"", 100, Malformed},
		"text":             {"hello", 100, Malformed},
		"beyond the bound": {webhook, 20, TooLarge},
	} {
		if _, err := ReadJob(strings.NewReader(test.body), test.max, 1<<20, plain("")); KindOf(err) != test.want {
			t.Errorf("%s: %v, want %s", name, err, test.want)
		}
	}
	if _, err := ReadJob(iotest.ErrReader(bytes.ErrTooLarge), 100, 100, plain("")); KindOf(err) != Network {
		t.Errorf("a broken reader: %v, want %s", err, Network)
	}
}

// FuzzSkim checks that skimming changes nothing but the two members, and never
// makes valid JSON of what is none.
func FuzzSkim(f *testing.F) {
	f.Add([]byte(`{"id":"x","output":{"a":[1,"}"]},"status":"FAILED","input":null}`))
	f.Add([]byte(`{"output":"\\\"","a":"\u0022"}`))
	f.Add([]byte(`[{"output":1}]`))
	f.Fuzz(func(t *testing.T, in []byte) {
		out, err := readBody(bytes.NewReader(in), call{limit: 1 << 20, skim: true}, 1<<20)
		if err != nil {
			t.Fatal(err)
		}
		var before, after map[string]json.RawMessage
		if json.Unmarshal(in, &before) != nil {
			return
		}
		if err := json.Unmarshal(out, &after); err != nil {
			t.Fatalf("%q became %q: %v", in, out, err)
		}
		for name, value := range before {
			if name == "output" || name == "input" {
				continue
			}
			if !bytes.Equal(value, after[name]) {
				t.Errorf("member %q of %q became %q", name, in, after[name])
			}
		}
	})
}

// plain is a secret for tests.
type plain string

func (p plain) Reveal() string { return string(p) }
