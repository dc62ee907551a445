package report

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"text/tabwriter"
)

// Compare writes the figures of r beside those of an earlier run, and what is
// in only one of them. Runs on other machines or with other sizes say little
// about each other: what differs there is told first.
func (r *Report) Compare(w io.Writer, before *Report) error {
	for _, line := range differences(before, r) {
		fmt.Fprintln(w, line)
	}
	old := map[[3]string]Figure{}
	for _, f := range before.Figures {
		old[f.key()] = f
	}
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintf(t, "what\t%s\t%s\tchange\t\n", before.At.Format("2006-01-02 15:04"), r.At.Format("2006-01-02 15:04"))
	heading := ""
	row := func(f Figure, cells string) {
		if h := f.Benchmark + ", " + f.Setting; h != heading {
			heading = h
			fmt.Fprintf(t, "%s\t\t\t\t\n", h)
		}
		fmt.Fprintf(t, "  %s\t%s\n", f.Name, cells)
	}
	for _, f := range r.Figures {
		was, ok := old[f.key()]
		delete(old, f.key())
		if !ok {
			row(f, fmt.Sprintf("-\t%s\t\t", amount(f.Value, f.Unit)))
			continue
		}
		row(f, fmt.Sprintf("%s\t%s\t%s\t%s", amount(was.Value, was.Unit), amount(f.Value, f.Unit), change(was, f), direction(was, f)))
	}
	for _, f := range before.Figures {
		if _, only := old[f.key()]; only {
			row(f, fmt.Sprintf("%s\t-\t\t", amount(f.Value, f.Unit)))
		}
	}
	if err := t.Flush(); err != nil {
		return fmt.Errorf("write the comparison: %w", err)
	}
	return nil
}

func change(was, is Figure) string {
	switch {
	case was.Unit != is.Unit:
		return ""
	case was.Value == 0:
		return amount(is.Value-was.Value, is.Unit)
	}
	return fmt.Sprintf("%+.1f %%", 100*(is.Value-was.Value)/was.Value)
}

func direction(was, is Figure) string {
	switch {
	case was.Unit != is.Unit || was.Value == is.Value:
		return ""
	case (is.Value > was.Value) == MoreIsBetter(is.Unit):
		return "better"
	default:
		return "worse"
	}
}

// differences says what of two runs was not the same but the code.
func differences(before, after *Report) []string {
	var lines []string
	differ := func(name string, was, is any) {
		if was != is {
			lines = append(lines, fmt.Sprintf("note: %s was %v and is %v", name, was, is))
		}
	}
	b, a := before.Machine, after.Machine
	differ("the number of processors", b.CPUs, a.CPUs)
	differ("the system", b.OS+"/"+b.Arch, a.OS+"/"+a.Arch)
	differ("the Go release", b.Go, a.Go)
	differ("the NATS server", b.NATS, a.NATS)
	differ("the Redis server", b.Redis, a.Redis)
	settings := maps.Clone(before.Settings)
	if settings == nil {
		settings = map[string]string{}
	}
	maps.Copy(settings, after.Settings)
	for _, name := range slices.Sorted(maps.Keys(settings)) {
		differ("-"+name, before.Settings[name], after.Settings[name])
	}
	return lines
}
