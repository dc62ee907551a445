// Package spark draws the course of a number in one line of a terminal.
package spark

import (
	"math"
	"strings"
)

// bars are the heights, lowest first.
var bars = []rune("▁▂▃▄▅▆▇█")

// none stands where there was no value.
const none = '·'

// Point is one value of a course. It holds until the next.
type Point struct {
	// Ago is how long before the end it began, in seconds.
	Ago float64
	// Value is the value, nothing unless Known.
	Value float64
	// Known says that there was one.
	Known bool
}

// Line is a course that was drawn.
type Line struct {
	// Text has one character for each part of the time, the newest last.
	Text string
	// Min, Max and Last are the least, the greatest and the newest value.
	Min, Max, Last float64
	// Known is false when there was never a value.
	Known bool
	// LastKnown is false when there is none at the end.
	LastKnown bool
}

// Draw draws points, oldest first, in a number of characters. A character shows the
// greatest value of its part of the time, so that no peak is lost.
func Draw(points []Point, width int) Line {
	l := Line{Min: math.Inf(1), Max: math.Inf(-1)}
	for _, p := range points {
		if p.Known {
			l.Known = true
			l.Min, l.Max = min(l.Min, p.Value), max(l.Max, p.Value)
		}
	}
	if len(points) == 0 || !l.Known || width < 1 {
		return Line{Text: strings.Repeat(string(none), max(width, 0))}
	}
	newest := points[len(points)-1]
	l.Last, l.LastKnown = newest.Value, newest.Known
	tops := make([]float64, width)
	for i := range tops {
		tops[i] = math.Inf(-1)
	}
	length := points[0].Ago
	for i, p := range points {
		until := 0.0
		if i+1 < len(points) {
			until = points[i+1].Ago
		}
		if !p.Known {
			continue
		}
		first, last := column(p.Ago, length, width), column(until, length, width)
		if until > 0 && last > first && onEdge(until, length, width) {
			last-- // it ends where that column begins
		}
		for c := first; c <= last; c++ {
			tops[c] = max(tops[c], p.Value)
		}
	}
	l.Text = l.draw(tops)
	return l
}

// column is the column of an instant.
func column(ago, length float64, width int) int {
	if length <= 0 {
		return width - 1
	}
	return min(width-1, max(0, int((length-ago)/length*float64(width))))
}

// onEdge says that a column begins at an instant.
func onEdge(ago, length float64, width int) bool {
	at := (length - ago) / length * float64(width)
	return at == math.Trunc(at)
}

func (l Line) draw(tops []float64) string {
	var b strings.Builder
	for _, top := range tops {
		switch {
		case math.IsInf(top, -1):
			b.WriteRune(none)
		case l.Max == l.Min:
			b.WriteRune(bars[0])
		default:
			height := (top - l.Min) / (l.Max - l.Min) * float64(len(bars)-1)
			b.WriteRune(bars[min(len(bars)-1, int(math.Round(height)))])
		}
	}
	return b.String()
}
