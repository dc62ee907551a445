package report

import (
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
)

// Table writes the figures for people: the goal beside each figure, and beside
// both what the parts below give by themselves.
func (r *Report) Table(w io.Writer) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "what\tmeasured\tgoal\t\traw limit, same run")
	heading := ""
	for _, f := range r.Figures {
		if h := f.Benchmark + ", " + f.Setting; h != heading {
			heading = h
			fmt.Fprintf(t, "%s\t\t\t\t\n", h)
		}
		fmt.Fprintf(t, "  %s\t%s\t%s\t%s\t%s\n", f.Name, amount(f.Value, f.Unit), goal(f), verdict(f), raw(f))
		if f.Note != "" {
			fmt.Fprintf(t, "    (%s)\t\t\t\t\n", f.Note)
		}
	}
	if err := t.Flush(); err != nil {
		return fmt.Errorf("write the table: %w", err)
	}
	for _, l := range r.Loads {
		if l.Average != nil && l.Others != nil {
			fmt.Fprintf(w, "%s: others used %.0f %% of the processors meanwhile; load of the machine before it %.2f\n",
				l.Benchmark, 100**l.Others, *l.Average)
		}
	}
	return nil
}

func goal(f Figure) string {
	switch {
	case f.Goal == nil:
		return ""
	case f.Unit == Count:
		return amount(*f.Goal, f.Unit)
	case MoreIsBetter(f.Unit):
		return ">= " + amount(*f.Goal, f.Unit)
	default:
		return "<= " + amount(*f.Goal, f.Unit)
	}
}

func verdict(f Figure) string {
	switch {
	case f.Goal == nil:
		return ""
	case f.Met():
		return "met"
	case f.Unit == Count:
		return "WRONG"
	default:
		return "missed"
	}
}

func raw(f Figure) string {
	if f.Raw == nil {
		return ""
	}
	return amount(*f.Raw, f.Unit) + " " + f.RawName
}

// amount writes a value with its unit, in as many digits as mean something.
func amount(v float64, unit string) string {
	switch unit {
	case PerSecond:
		return thousands(v) + "/s"
	case Ratio:
		return fmt.Sprintf("%.2f", v)
	case Cores:
		return fmt.Sprintf("%.2f cores", v)
	case Count:
		return thousands(v)
	case MiB, KiB, Milliseconds, Seconds, Microseconds:
		digits := 1
		if v < 10 {
			digits = 2
		}
		return fmt.Sprintf("%.*f %s", digits, v, unit)
	default:
		return fmt.Sprintf("%g %s", v, unit)
	}
}

// thousands writes a whole number with its thousands set apart.
func thousands(v float64) string {
	digits := fmt.Sprintf("%.0f", v)
	sign := ""
	if strings.HasPrefix(digits, "-") {
		sign, digits = "-", digits[1:]
	}
	for i := len(digits) - 3; i > 0; i -= 3 {
		digits = digits[:i] + "," + digits[i:]
	}
	return sign + digits
}
