package spark_test

import (
	"testing"

	"github.com/tocsin-dev/tocsin/cmd/tocsin/internal/spark"
)

func TestDraw(t *testing.T) {
	at := func(ago, value float64) spark.Point { return spark.Point{Ago: ago, Value: value, Known: true} }
	gap := func(ago float64) spark.Point { return spark.Point{Ago: ago} }
	for _, c := range []struct {
		name      string
		points    []spark.Point
		width     int
		want      string
		min, max  float64
		last      float64
		lastKnown bool
	}{
		{"nothing", nil, 4, "····", 0, 0, 0, false},
		{"never a value", []spark.Point{gap(60)}, 4, "····", 0, 0, 0, false},
		{"one value", []spark.Point{at(60, 5)}, 4, "▁▁▁▁", 5, 5, 5, true},
		{"a rise", []spark.Point{at(80, 0), at(70, 1), at(60, 2), at(50, 3), at(40, 4), at(30, 5), at(20, 6), at(10, 7)}, 8, "▁▂▃▄▅▆▇█", 0, 7, 7, true},
		{"a value holds until the next", []spark.Point{at(40, 0), at(10, 7)}, 4, "▁▁▁█", 0, 7, 7, true},
		{"a short peak is not lost", []spark.Point{at(400, 0), at(390, 7), at(380, 0)}, 4, "█▁▁▁", 0, 7, 0, true},
		{"a gap", []spark.Point{at(40, 1), gap(30), at(10, 3)}, 4, "▁··█", 1, 3, 3, true},
		{"nothing at the end", []spark.Point{at(40, 1), at(30, 3), gap(20)}, 4, "▁█··", 1, 3, 0, false},
		{"a single instant", []spark.Point{at(0, 3)}, 3, "··▁", 3, 3, 3, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := spark.Draw(c.points, c.width)
			if got.Text != c.want {
				t.Errorf("drew %q, want %q", got.Text, c.want)
			}
			if got.Known && (got.Min != c.min || got.Max != c.max || got.LastKnown != c.lastKnown || got.LastKnown && got.Last != c.last) {
				t.Errorf("got %+v, want min %v, max %v, last %v", got, c.min, c.max, c.last)
			}
		})
	}
}
