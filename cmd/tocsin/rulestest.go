package main

import (
	"context"
	"encoding/xml"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/aymanbagabas/go-udiff"

	"github.com/tocsin-dev/tocsin/cmd/tocsin/internal/cli"
	"github.com/tocsin-dev/tocsin/internal/proc"
	"github.com/tocsin-dev/tocsin/rules"
	"github.com/tocsin-dev/tocsin/services/alerter/rulesuite"
)

// rulesTestCommand plays files of tests of rules.
type rulesTestCommand struct {
	Files []string `arg:"" help:"Files of tests, or patterns such as tests/*.yaml."`
	Only  string   `name:"run" help:"Play only the tests whose name matches this regular expression." placeholder:"RE2"`
	JUnit string   `name:"junit" help:"Write the results also as JUnit XML." type:"path" placeholder:"FILE"`
	Diff  bool     `help:"Show what was wanted and what was found as a difference."`
}

// Run plays the tests and prints what failed, a line for each file, and which
// rules were never seen to fire.
func (c *rulesTestCommand) Run(ctx context.Context, t cli.Terminal) error {
	only, err := regexp.Compile(c.Only)
	if err != nil {
		return proc.Usage(fmt.Errorf("--run: %w", err))
	}
	files, err := readAll(c.Files)
	if err != nil {
		return proc.Usage(err)
	}
	p := &rulesPlay{ctx: ctx, t: t, only: only, diff: c.Diff}
	for _, name := range slices.Sorted(maps.Keys(files)) {
		if err := p.file(name, files[name]); err != nil {
			return err
		}
	}
	if c.JUnit != "" {
		if err := p.report.write(c.JUnit); err != nil {
			return fmt.Errorf("write %s: %w", c.JUnit, err)
		}
	}
	switch {
	case p.played == 0 && len(p.wrong) == 0:
		return proc.Usage(fmt.Errorf("no test's name matches %q", c.Only))
	case len(p.wrong) > 0:
		return proc.Usage(errors.Join(p.wrong...))
	case p.failed > 0:
		return fmt.Errorf("%s of %d failed", count(p.failed, "test"), p.played)
	}
	return nil
}

// readAll returns the content of the files that patterns name.
func readAll(patterns []string) (map[string][]byte, error) {
	files := map[string][]byte{}
	var errs []error
	for _, pattern := range patterns {
		found, err := readPattern(pattern)
		errs = append(errs, err)
		maps.Copy(files, found)
	}
	return files, errors.Join(errs...)
}

// rulesPlay is the state of a run over files.
type rulesPlay struct {
	ctx            context.Context
	t              cli.Terminal
	only           *regexp.Regexp
	diff           bool
	played, failed int
	wrong          []error // files that could not be played
	report         junitReport
}

// file plays one file. Its error says that the run was stopped.
func (p *rulesPlay) file(name string, src []byte) error {
	suite, err := loadSuite(name, src)
	if err != nil {
		p.wrong = append(p.wrong, err)
		return nil
	}
	cases := junitSuite{Name: name}
	fired := map[string]bool{}
	failed := 0
	for _, test := range suite.Tests() {
		if !p.only.MatchString(test.Name) {
			continue
		}
		if p.ctx.Err() != nil {
			return p.ctx.Err()
		}
		start := time.Now()
		result, err := suite.Run(test)
		maps.Copy(fired, result.Fired)
		of := junitCase{Name: test.Name, Class: name, Seconds: time.Since(start).Seconds()}
		if text := p.failure(name, test.Name, result, err); text != "" {
			failed++
			of.Failure = &junitFailure{Message: "expectations were not met", Text: text}
			cases.Failures++
		}
		cases.Cases = append(cases.Cases, of)
	}
	cases.Tests = len(cases.Cases)
	p.report.Suites = append(p.report.Suites, cases)
	p.played, p.failed = p.played+cases.Tests, p.failed+failed
	if cases.Tests > 0 {
		p.summary(name, suite, cases.Tests, failed, fired)
	}
	return nil
}

// loadSuite reads a file of tests and the rules that it names.
func loadSuite(name string, src []byte) (*rulesuite.Suite, error) {
	file, err := rulesuite.Parse(name, src)
	if err != nil {
		return nil, err
	}
	tried := rules.Default()
	if len(file.RuleFiles) > 0 {
		patterns := make([]string, len(file.RuleFiles))
		for i, pattern := range file.RuleFiles {
			patterns[i] = pattern
			if !filepath.IsAbs(pattern) {
				patterns[i] = filepath.Join(filepath.Dir(name), pattern)
			}
		}
		if tried, err = readAll(patterns); err != nil {
			return nil, fmt.Errorf("%s: rule_files: %w", name, err)
		}
	}
	return rulesuite.New(file, tried)
}

// failure prints what failed in a test and returns it as a text, or nothing.
func (p *rulesPlay) failure(file, name string, result rulesuite.Result, err error) string {
	var b strings.Builder
	if err != nil {
		fmt.Fprintf(&b, "  %s: %v\n", file, err)
	}
	for _, f := range result.Failures {
		fmt.Fprintf(&b, "  %s:%d: at %v\n", file, f.Line, f.At)
		for _, line := range f.Differences {
			fmt.Fprintf(&b, "    %s\n", line)
		}
		if p.diff {
			for line := range strings.Lines(udiff.Unified("wanted", "found", f.Want, f.Got)) {
				fmt.Fprintf(&b, "    %s", line)
			}
		}
	}
	if b.Len() > 0 {
		fmt.Fprintf(p.t.Out, "%s %s\n%s", paint(p.t, red, "FAIL"), name, b.String())
	}
	return b.String()
}

// summary prints the line of a file, and the rules that nothing made fire.
func (p *rulesPlay) summary(name string, suite *rulesuite.Suite, tests, failed int, fired map[string]bool) {
	state := paint(p.t, green, "ok")
	if failed > 0 {
		state = paint(p.t, red, "FAIL")
	}
	all := suite.Rules()
	var never []string
	for _, rule := range all {
		if !fired[rule] {
			never = append(never, rule)
		}
	}
	fmt.Fprintf(p.t.Out, "%s %s: %s, %d failed; %d of %s fired\n", state, name, count(tests, "test"), failed, len(all)-len(never), count(len(all), "rule"))
	if len(never) > 0 {
		fmt.Fprintf(p.t.Out, "  never fired: %s\n", strings.Join(never, ", "))
	}
}

// green is the colour of what is as wanted.
const green = "32"

// The elements of JUnit's XML, as CI systems read it.
type (
	junitReport struct {
		XMLName xml.Name     `xml:"testsuites"`
		Suites  []junitSuite `xml:"testsuite"`
	}
	junitSuite struct {
		Name     string      `xml:"name,attr"`
		Tests    int         `xml:"tests,attr"`
		Failures int         `xml:"failures,attr"`
		Cases    []junitCase `xml:"testcase"`
	}
	junitCase struct {
		Name    string        `xml:"name,attr"`
		Class   string        `xml:"classname,attr"`
		Seconds float64       `xml:"time,attr"`
		Failure *junitFailure `xml:"failure"`
	}
	junitFailure struct {
		Message string `xml:"message,attr"`
		Text    string `xml:",chardata"`
	}
)

func (r *junitReport) write(path string) error {
	text, err := xml.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(path, append([]byte(xml.Header), append(text, '\n')...), 0o644)
}
