package main

import (
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/tocsin-dev/tocsin/cmd/tocsin/internal/cli"
	rulev1 "github.com/tocsin-dev/tocsin/proto/gen/tocsin/rule/v1"
)

const (
	// barWidth is how many characters wide a bar is: with its figures it fits into 80.
	barWidth = 30
	// lineEvery is how often progress is a line where nobody watches it: a log of a
	// minute has ten.
	lineEvery = 5 * time.Second
)

// progress tells how far a backtest is: as a bar on a terminal, in a line now and
// then elsewhere, or not at all.
type progress struct {
	w        io.Writer
	quiet    bool
	terminal bool
	began    time.Time
	told     time.Time
}

func newProgress(w io.Writer, quiet bool) *progress {
	now := time.Now()
	return &progress{w: w, quiet: quiet, terminal: cli.IsTerminal(w), began: now, told: now}
}

// show tells progress.
func (p *progress) show(at *rulev1.BacktestProgress) {
	switch {
	case p.quiet:
	case p.terminal:
		fmt.Fprintf(p.w, "\r%s\x1b[K", bar(at, time.Since(p.began)))
	case time.Since(p.told) >= lineEvery:
		p.told = time.Now()
		fmt.Fprintln(p.w, bar(at, time.Since(p.began)))
	}
}

// bar writes a bar and the figures beside it. A log grows and shrinks meanwhile, so
// what there is to read is about right.
func bar(at *rulev1.BacktestProgress, passed time.Duration) string {
	part := min(float64(at.GetRead())/float64(max(at.GetTotal(), 1)), 1)
	full := int(part * barWidth)
	return fmt.Sprintf("[%s%s] %3.0f %%  %s events/s  %s", strings.Repeat("=", full), strings.Repeat(" ", barWidth-full),
		100*part, thousands(rate(at.GetRead(), passed)), at.GetAt().AsTime().Local().Format("2006-01-02 15:04"))
}

// end removes the bar, and says how fast it was if it came to its end.
func (p *progress) end(s *rulev1.BacktestSummary) {
	if p.quiet {
		return
	}
	if p.terminal {
		fmt.Fprint(p.w, "\r\x1b[K")
	}
	if s != nil {
		passed := time.Since(p.began)
		fmt.Fprintf(p.w, "%s events in %.1f s: %s events/s\n", thousands(s.GetEvents()), passed.Seconds(), thousands(rate(s.GetEvents(), passed)))
	}
}

func rate(n uint64, d time.Duration) uint64 {
	return uint64(float64(n) / max(d.Seconds(), time.Millisecond.Seconds()))
}

// thousands writes a number in groups of three digits.
func thousands(n uint64) string {
	digits := fmt.Sprint(n)
	var b strings.Builder
	for i, c := range digits {
		if i > 0 && (len(digits)-i)%3 == 0 {
			b.WriteByte(',')
		}
		b.WriteRune(c)
	}
	return b.String()
}
