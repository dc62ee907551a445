package rulesuite

import (
	"fmt"
	"strings"
	"testing"
)

// written writes values so that they can be compared with a text.
func written(values []value) string {
	var all []string
	for _, v := range values {
		switch v.kind {
		case nothing:
			all = append(all, "_")
		case stale:
			all = append(all, "stale")
		case failed:
			all = append(all, "fail")
		case text:
			all = append(all, v.text)
		case number:
			all = append(all, fmt.Sprint(v.number))
		}
	}
	return strings.Join(all, " ")
}

func TestSeriesAreWrittenAsPromtoolReadsThem(t *testing.T) {
	for _, c := range []struct{ notation, want string }{
		{"5", "5"},
		{"5x3", "5 5 5 5"},
		{"5x0", "5"},
		{"1+2x3", "1 3 5 7"},
		{"9-3x3", "9 6 3 0"},
		{"-2+1x2", "-2 -1 0"},
		{"1-1x2", "1 0 -1"},
		{"-1-1x1", "-1 -2"},
		{"0.5+0.25x2", "0.5 0.75 1"},
		{"1e3+1e-1x1", "1000 1000.1"},
		{"_", "_"},
		{"_x2", "_ _"},
		{"5x1 _x2 stale 7", "5 5 _ _ stale 7"},
		{"fail failx2", "fail fail fail"},
		{"RUNNINGx1 EXITED", "RUNNING RUNNING EXITED"},
		{"true false", "1 0"},
	} {
		got, err := parseSeries(c.notation)
		if err != nil || written(got) != c.want {
			t.Errorf("%s: %q, %v; want %q", c.notation, written(got), err, c.want)
		}
	}
	for _, notation := range []string{"", "   ", "1x20000", "stalex2", "1x19999 1x19999"} {
		if got, err := parseSeries(notation); err == nil {
			t.Errorf("%q is taken as %d values", notation, len(got))
		}
	}
}

func FuzzSeries(f *testing.F) {
	for _, s := range []string{"5x3 60x6 _x2 stale", "1+2x3", "-1-1x1", "x", "1x", "+x1", "1e+5x1"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, notation string) {
		values, err := parseSeries(notation)
		if err == nil && (len(values) == 0 || len(values) > maxValues) {
			t.Errorf("%d values", len(values))
		}
	})
}
