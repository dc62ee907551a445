package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"text/tabwriter"

	"google.golang.org/grpc"

	"github.com/tocsin-dev/tocsin/cmd/tocsin/internal/cli"
	"github.com/tocsin-dev/tocsin/internal/proc"
	rulev1 "github.com/tocsin-dev/tocsin/proto/gen/tocsin/rule/v1"
	"github.com/tocsin-dev/tocsin/rules"
	"github.com/tocsin-dev/tocsin/services/alerter"
	"github.com/tocsin-dev/tocsin/services/alerter/rulecheck"
	"github.com/tocsin-dev/tocsin/services/alerter/rulefile"
)

// rulesCommand is what one does with rules before they run.
type rulesCommand struct {
	Check    rulesCheckCommand    `cmd:"" help:"Find the mistakes in files of rules, and what is allowed and hardly meant."`
	Reload   rulesReloadCommand   `cmd:"" help:"Have a running alerter read its rule files anew and bring them into force."`
	Test     rulesTestCommand     `cmd:"" help:"Play files of tests: what happens, and which alerts must come of it."`
	Backtest rulesBacktestCommand `cmd:"" help:"Play the recorded events through rules: what would have fired, and who would have been told."`
	Fields   rulesFieldsCommand   `cmd:"" help:"Print every field and function that expressions can name, with unit and meaning."`
}

// ruleFiles names files of rules, for commands that read some.
type ruleFiles struct {
	Files  []string `arg:"" optional:"" help:"Files of rules, or patterns such as rules/*.yaml; - reads standard input. Without any: those of the configuration, or the default pack."`
	Config string   `help:"Configuration file whose targets and rules count." type:"path" placeholder:"FILE"`

	pack        bool   // the default pack was read
	packVersion string // of the configuration
}

// read returns the content of the files by name, and the patterns of targets.
func (f *ruleFiles) read() (map[string][]byte, rulefile.TargetPatterns, error) {
	var targets rulefile.TargetPatterns
	patterns := f.Files
	if f.Config != "" {
		section := alerter.DefaultConfig()
		if err := proc.Load(f.Config, os.Environ(), map[string]any{"targets": &targets, "alerter": &section}); err != nil {
			return nil, nil, err
		}
		if len(patterns) == 0 {
			patterns = section.Rules
		}
		f.packVersion = section.PackVersion
	}
	if f.pack = len(patterns) == 0; f.pack {
		return rules.Default(), targets, nil
	}
	files := map[string][]byte{}
	var errs []error
	for _, pattern := range patterns {
		found, err := readPattern(pattern)
		if err != nil {
			errs = append(errs, err)
		}
		maps.Copy(files, found)
	}
	return files, targets, proc.Usage(errors.Join(errs...))
}

// readPattern returns the content of the files that a pattern names.
func readPattern(pattern string) (map[string][]byte, error) {
	if pattern == "-" {
		text, err := io.ReadAll(os.Stdin)
		return map[string][]byte{"<stdin>": text}, err
	}
	names, err := filepath.Glob(pattern)
	if err != nil {
		return nil, fmt.Errorf("%q: %w", pattern, err)
	}
	if len(names) == 0 {
		return nil, fmt.Errorf("%q matches no file", pattern)
	}
	files := map[string][]byte{}
	var errs []error
	for _, name := range names {
		text, err := os.ReadFile(name)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		files[name] = text
	}
	return files, errors.Join(errs...)
}

// rulesCheckCommand looks at files of rules.
type rulesCheckCommand struct {
	ruleFiles
	Strict bool `help:"Fail also for warnings."`
}

// Run prints one line for each mistake and each warning, and what there is.
func (c *rulesCheckCommand) Run(t cli.Terminal) error {
	files, targets, err := c.read()
	if err != nil {
		return err
	}
	report, err := rulecheck.Check(files, targets)
	if err != nil {
		return fmt.Errorf("check the rules: %w", err)
	}
	for _, m := range report.Mistakes {
		fmt.Fprintln(t.Out, paint(t, red, m.Position.String()+": ")+m.Text)
	}
	for _, w := range report.Warnings {
		fmt.Fprintln(t.Out, paint(t, yellow, w.Position.String()+": warning: ")+w.Text)
	}
	switch {
	case len(report.Mistakes) > 0:
		return proc.Usage(fmt.Errorf("%s in %s: the alerter would refuse them", count(len(report.Mistakes), "mistake"), count(len(files), "file")))
	case c.Strict && len(report.Warnings) > 0:
		return proc.Usage(fmt.Errorf("%s in %s", count(len(report.Warnings), "warning"), count(len(files), "file")))
	}
	fmt.Fprintf(t.Out, "%s in %s: no mistakes, %s", count(report.Rules, "rule"), count(len(files), "file"), count(len(report.Warnings), "warning"))
	if report.Costliest != "" {
		fmt.Fprintf(t.Out, "; the costliest is %s at %d of %d", report.Costliest, report.Cost, report.MaxCost)
	}
	fmt.Fprintln(t.Out)
	if c.pack {
		c.tellVersion(t)
	}
	return nil
}

// tellVersion says which default pack was checked, and what of it is only observed.
func (c *rulesCheckCommand) tellVersion(t cli.Terminal) {
	line := "default pack, version " + rules.Version
	if later, _ := rules.After(c.packVersion); len(later) > 0 { // its error was a mistake of the configuration
		line += fmt.Sprintf("; those that came after %s are only observed: %s", c.packVersion, strings.Join(later, ", "))
	}
	fmt.Fprintln(t.Out, line)
}

// The colours of mistakes and warnings, as terminals name them.
const (
	red    = "31"
	yellow = "33"
)

// paint colours a text where colours show.
func paint(t cli.Terminal, colour, text string) string {
	if !t.Colour {
		return text
	}
	return "\x1b[" + colour + "m" + text + "\x1b[0m"
}

// count writes a number of things: "1 rule", "no rules", "3 rules".
func count(n int, thing string) string {
	switch n {
	case 0:
		return "no " + thing + "s"
	case 1:
		return "1 " + thing
	default:
		return fmt.Sprintf("%d %ss", n, thing)
	}
}

// rulesReloadCommand asks a running alerter to read its rule files anew.
type rulesReloadCommand struct{ alerterFlags }

// Run prints what is in force then, or why nothing changed.
func (c *rulesReloadCommand) Run(ctx context.Context, t cli.Terminal) error {
	var answer *rulev1.ReloadResponse
	err := c.ask(ctx, func(ctx context.Context, conn *grpc.ClientConn) (err error) {
		answer, err = rulev1.NewRuleServiceClient(conn).Reload(ctx, &rulev1.ReloadRequest{})
		return err
	})
	if err != nil {
		return err
	}
	what := "the files did not change"
	if answer.GetChanged() {
		what = "the files come into force now"
	}
	fmt.Fprintf(t.Out, "%s: %s (rule set %.12s)\n", what, count(int(answer.GetRules()), "rule"), answer.GetRuleSetHash())
	return nil
}

// rulesFieldsCommand prints what expressions can name.
type rulesFieldsCommand struct {
	On       string `arg:"" optional:"" enum:"endpoint,pod,job,account," default:"" help:"Only for rules on this: endpoint, pod, job or account."`
	Markdown bool   `help:"Print the reference page."`
}

// Run prints fields first, then functions.
func (c *rulesFieldsCommand) Run(_ context.Context, t cli.Terminal) error {
	on := rulefile.On(c.On)
	fields, functions := rulecheck.Fields(on), rulecheck.Functions(on)
	if c.Markdown {
		return writeReference(t.Out, fields, functions)
	}
	w := tabwriter.NewWriter(t.Out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "FIELD\tON\tKIND\tUNIT\tMEANING")
	for _, f := range fields {
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\n", f.Name, rulecheck.OnNames(f.On), f.Kind, f.Unit, f.Meaning)
	}
	if err := w.Flush(); err != nil {
		return err
	}
	fmt.Fprintln(t.Out)
	fmt.Fprintln(w, "FUNCTION\tUNIT\tMEANING")
	for _, f := range functions {
		fmt.Fprintf(w, "%s\t%s\t%s\n", f.Name, f.Unit, f.Meaning)
	}
	return w.Flush()
}

// writeReference writes the reference page.
func writeReference(out io.Writer, fields, functions []rulecheck.Entry) error {
	var b strings.Builder
	b.WriteString("# What rules can name\n\n")
	b.WriteString("Written by `tocsin rules fields --markdown` from the table that rules are compiled with.\n\n")
	b.WriteString("A *gauge* rises and falls, a *counter* only rises (a fall is a new beginning), a *text* is compared with a text in\n")
	b.WriteString("quotes, a *truth* stands by itself. A field that RunPod left out has no value: the condition then neither holds nor\n")
	b.WriteString("does not, unless the rest of it decides.\n")
	b.WriteString("\n## Fields\n\n| Field | Rules on | Kind | Unit | Meaning |\n|---|---|---|---|---|\n")
	for _, f := range fields {
		fmt.Fprintf(&b, "| `%s` | %s | %s | %s | %s |\n", f.Name, rulecheck.OnNames(f.On), f.Kind, f.Unit, cell(f.Meaning))
	}
	b.WriteString("\n## Functions\n\nDurations are written in quotes: `'90s'`, `'5m'`, `'1h30m'`.\n\n| Function | Unit | Meaning |\n|---|---|---|\n")
	for _, f := range functions {
		fmt.Fprintf(&b, "| `%s` | %s | %s |\n", f.Name, f.Unit, cell(f.Meaning))
	}
	_, err := io.WriteString(out, b.String())
	return err
}

// cell writes a text into a table of Markdown.
func cell(text string) string { return strings.ReplaceAll(text, "|", `\|`) }
