package rulesuite

import (
	"fmt"
	"math"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

// maxValues bounds a series: 48 h at 15 s are 11,520 values.
const maxValues = 20_000

// value is one value of a series.
type value struct {
	kind   valueKind
	number float64
	text   string
}

type valueKind int

const (
	// nothing means that the field is left out; a target of which all is left out
	// is not sampled at all.
	nothing valueKind = iota
	// stale means that the field is left out of a sample that comes.
	stale
	// failed means that the target's poll fails.
	failed
	// number and text are values.
	number
	text
)

// series is the course of a field, one value for each interval.
type series struct {
	values []value
	// constant means that its one value holds for as long as the test goes.
	constant bool
}

// at returns the value at a step, and whether the series has one there.
func (s series) at(step int) (value, bool) {
	if s.constant {
		return s.values[0], true
	}
	if step >= len(s.values) {
		return value{}, false
	}
	return s.values[step], true
}

// UnmarshalYAML reads a number or a truth, which holds throughout, or a course in
// promtool's notation.
func (s *series) UnmarshalYAML(n *yaml.Node) error {
	if n.Kind != yaml.ScalarNode {
		return lineError(n, "expected a number, or a course such as '0x3 5+1x20 _x2 stale'")
	}
	if n.Tag == "!!int" || n.Tag == "!!float" || n.Tag == "!!bool" {
		v, err := scalar(n.Value)
		if err != nil {
			return lineError(n, "%v", err)
		}
		s.values, s.constant = []value{v}, true
		return nil
	}
	var err error
	if s.values, err = parseSeries(n.Value); err != nil {
		return lineError(n, "%v", err)
	}
	return nil
}

// lineError is a mistake in the form in which the YAML reader tells its own.
func lineError(n *yaml.Node, format string, args ...any) error {
	return &yaml.TypeError{Errors: []string{fmt.Sprintf("line %d: %s", n.Line, fmt.Sprintf(format, args...))}}
}

// parseSeries reads promtool's notation: `a`, `axn` (a, and n times more), `a+bxn`
// and `a-bxn` (n more, each b above or below the one before), `_` and `_xn` (nothing,
// n times), `stale`; and ours: `fail` and `failxn` (the poll fails), and texts.
func parseSeries(notation string) ([]value, error) {
	var all []value
	for word := range strings.FieldsSeq(notation) {
		more, err := expand(word)
		if err != nil {
			return nil, fmt.Errorf("%q: %w", word, err)
		}
		if all = append(all, more...); len(all) > maxValues {
			return nil, fmt.Errorf("more than %d values", maxValues)
		}
	}
	if len(all) == 0 {
		return nil, fmt.Errorf("it is empty; expected values such as '0x3 5+1x20'")
	}
	return all, nil
}

// expand reads one word of the notation.
func expand(word string) ([]value, error) {
	head, times, repeated := cutTimes(word)
	if times >= maxValues {
		return nil, fmt.Errorf("more than %d values", maxValues)
	}
	switch head {
	case "_":
		return repeat(value{kind: nothing}, max(times, 1)), nil
	case "fail":
		return repeat(value{kind: failed}, max(times, 1)), nil
	case "stale":
		if repeated {
			return nil, fmt.Errorf("stale stands alone")
		}
		return []value{{kind: stale}}, nil
	}
	first, step, err := cutStep(head)
	if err != nil {
		if repeated {
			// A text that ends like a repetition is told apart by its head being one.
			return repeat(value{kind: text, text: head}, times+1), nil
		}
		return []value{{kind: text, text: word}}, nil
	}
	values := make([]value, 0, times+1)
	for i := range times + 1 {
		values = append(values, value{kind: number, number: first + float64(i)*step})
	}
	return values, nil
}

// cutTimes splits `headxn`.
func cutTimes(word string) (head string, times int, repeated bool) {
	i := strings.LastIndexByte(word, 'x')
	if i <= 0 {
		return word, 0, false
	}
	times, err := strconv.Atoi(word[i+1:])
	if err != nil || times < 0 {
		return word, 0, false
	}
	return word[:i], times, true
}

// cutStep splits `a+b` and `a-b`; the step of `a` is 0.
func cutStep(head string) (first, step float64, err error) {
	if v, err := scalar(head); err == nil {
		return v.number, 0, nil
	}
	for i := len(head) - 1; i > 0; i-- {
		if head[i] != '+' && head[i] != '-' || head[i-1] == 'e' || head[i-1] == 'E' {
			continue
		}
		from, errFrom := scalar(head[:i])
		by, errBy := scalar(head[i+1:])
		if errFrom != nil || errBy != nil {
			break
		}
		if head[i] == '-' {
			by.number = -by.number
		}
		return from.number, by.number, nil
	}
	return 0, 0, fmt.Errorf("expected a number, such as 5, 5x3, 5+1x20 or 9-1x9")
}

// scalar reads a number, or a truth as 1 or 0.
func scalar(s string) (value, error) {
	switch s {
	case "true":
		return value{kind: number, number: 1}, nil
	case "false":
		return value{kind: number, number: 0}, nil
	}
	f, err := strconv.ParseFloat(s, 64)
	if err != nil || math.IsNaN(f) || math.IsInf(f, 0) {
		return value{}, fmt.Errorf("%q is no finite number", s)
	}
	return value{kind: number, number: f}, nil
}

func repeat(v value, n int) []value {
	all := make([]value, n)
	for i := range all {
		all[i] = v
	}
	return all
}
