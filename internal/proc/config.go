package proc

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

// maxConfigSize bounds the configuration file in bytes. A thousand target
// patterns are some 200 KiB; 4 MiB refuses a wrong path before it is parsed.
const maxConfigSize = 4 << 20

// sectionNames are the sections that a configuration file may have. All
// processes share one file, and each reads its own sections.
var sectionNames = []string{"runpod", "targets", "nats", "redis", "collector", "alerter", "notifier", "log"}

// Validator is what a section implements to check its values. Each mistake
// starts with the name of its key as the operator wrote it, "poll_every: 0s is
// below the minimum of 1s" or, in a section that is a list, "[0].match: ...";
// several are joined with errors.Join. A mistake about the section as a whole
// names no key.
type Validator interface {
	Validate() error
}

// Load reads the sections of a configuration: the file at path, over it the
// variables of environ ("KEY=value"), over the defaults that the values of
// sections hold. Each value is a pointer to a struct with yaml tags, or to a
// slice of such; its key is the section's name. No path means no file.
//
// A variable is called TOCSIN_<SECTION>_<KEY>, nested keys joined by
// underscores; it sets a scalar, or a list of scalars separated by commas.
// Variables that name no key are left alone, since container platforms set some
// of that form by themselves (TOCSIN_COLLECTOR_PORT_80_TCP for a Kubernetes
// service called tocsin-collector).
//
// The checks are called when the sections are read, with whatever mistakes. They
// look at what the sections name, such as files and what these hold. Each mistake
// that they return begins with the dotted name of its key ("notifier.token_file:
// ..."), or with a place of its own ("routes.yml:3:5: ...").
//
// Unknown keys, keys given twice, values of the wrong type, what a section's
// Validate finds and what the checks find are all reported at once, one line each,
// with file, line and column or the variable's name. The error is one of usage.
func Load(path string, environ []string, sections map[string]any, checks ...func() error) error {
	d := decoder{file: path, places: map[string]place{}, unread: map[string]bool{}}
	names := slices.Sorted(maps.Keys(sections))
	for _, name := range names {
		if !slices.Contains(sectionNames, name) {
			return fmt.Errorf("load config: %q is not a section", name)
		}
	}
	var unreadable error
	if path != "" {
		unreadable = d.readFile(path, sections)
	}
	env := parseEnviron(environ)
	for _, name := range names {
		d.override(env, name, reflect.ValueOf(sections[name]).Elem())
	}
	if unreadable != nil {
		// What the values are together cannot be said without the file.
		return Usage(errors.Join(unreadable, d.join()))
	}
	for _, name := range names {
		if v, ok := sections[name].(Validator); ok {
			d.report(name, v.Validate())
		}
	}
	for _, check := range checks {
		d.report("", check())
	}
	return Usage(d.join())
}

// decoder collects the mistakes of one configuration.
type decoder struct {
	file     string
	mistakes []mistake
	places   map[string]place // where each key was set, by its dotted name
	unread   map[string]bool  // keys whose value could not be read, by dotted name
}

// place is where a key was set: a line and column of the file, or a variable.
type place struct {
	line, column int
	variable     string
}

// mistake is one line of the report.
type mistake struct {
	at   place // zero when it has none, or says it itself
	text string
}

// add records a mistake, once.
func (d *decoder) add(at place, text string) {
	switch {
	case at.variable != "":
		text = at.variable + ": " + text
	case at.line > 0:
		text = fmt.Sprintf("%s:%d:%d: %s", d.file, at.line, at.column, text)
	}
	if !slices.ContainsFunc(d.mistakes, func(m mistake) bool { return m.text == text }) {
		d.mistakes = append(d.mistakes, mistake{at, text})
	}
}

// join returns the mistakes: those of the file in its order, then the others.
func (d *decoder) join() error {
	slices.SortStableFunc(d.mistakes, func(a, b mistake) int {
		if (a.at.line > 0) != (b.at.line > 0) {
			return cmp.Compare(b.at.line, a.at.line)
		}
		return cmp.Or(cmp.Compare(a.at.line, b.at.line), cmp.Compare(a.at.column, b.at.column))
	})
	errs := make([]error, len(d.mistakes))
	for i, m := range d.mistakes {
		errs[i] = errors.New(m.text)
	}
	return errors.Join(errs...)
}

// readFile decodes the file's sections. The error it returns is one that makes
// the file unreadable; all others are collected.
func (d *decoder) readFile(path string, sections map[string]any) error {
	f, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("read config: %w", err)
	}
	defer func() { _ = f.Close() }() // only read
	text, err := io.ReadAll(io.LimitReader(f, maxConfigSize+1))
	if err != nil {
		return fmt.Errorf("read config: %w", err)
	}
	if len(text) > maxConfigSize {
		return fmt.Errorf("read config: %s is larger than %d bytes", path, maxConfigSize)
	}
	docs := yaml.NewDecoder(bytes.NewReader(text))
	var doc, more yaml.Node
	if err := docs.Decode(&doc); errors.Is(err, io.EOF) {
		return nil
	} else if err != nil {
		return NotYAML(path, err)
	}
	if err := docs.Decode(&more); err == nil {
		return fmt.Errorf("%s:%d:%d: only one YAML document may be in the file", path, more.Line, more.Column)
	} else if !errors.Is(err, io.EOF) {
		return NotYAML(path, err)
	}
	d.sections(resolve(doc.Content[0]), sections)
	return nil
}

// sections decodes the top level of the file.
func (d *decoder) sections(root *yaml.Node, sections map[string]any) {
	if isNull(root) {
		return
	}
	d.eachKey(root, "", func(key, value *yaml.Node) {
		target, wanted := sections[key.Value]
		switch {
		case wanted:
			d.value(value, reflect.ValueOf(target).Elem(), key.Value)
		case !slices.Contains(sectionNames, key.Value):
			d.unknown(key, "", sectionNames)
		}
	})
}

// yamlLine finds the line in what the YAML reader says.
var yamlLine = regexp.MustCompile(`^line ([0-9]+): `)

// NotYAML returns the error of the YAML reader on the file called name with the
// place in front, as far as the reader tells it.
func NotYAML(name string, err error) error {
	text := strings.TrimPrefix(err.Error(), "yaml: ")
	m := yamlLine.FindStringSubmatch(text)
	switch {
	case m == nil && strings.HasPrefix(text, "did not find expected"):
		return fmt.Errorf("%s:1: not YAML: %s", name, text) // line 0 is not told
	case m == nil:
		return fmt.Errorf("%s: not YAML: %s", name, text)
	}
	line, _ := strconv.Atoi(m[1]) // the pattern has digits only
	text = strings.TrimPrefix(text, m[0])
	if strings.HasPrefix(text, "did not find expected") {
		line++ // the reader counts from 0 in complaints about structure
	}
	return fmt.Errorf("%s:%d: not YAML: %s", name, line, text)
}

// mistake records a mistake at a place in the file.
func (d *decoder) mistake(at *yaml.Node, name, format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	if name != "" {
		text = name + ": " + text
	}
	d.add(placeOf(at), text)
}

// unreadable records a mistake that leaves the key's value at its default.
func (d *decoder) unreadable(at *yaml.Node, name, format string, args ...any) {
	d.unread[name] = true
	d.mistake(at, name, format, args...)
}

func placeOf(at *yaml.Node) place { return place{line: at.Line, column: at.Column} }

// unknown records a key that nothing reads, with the one that was likely meant.
func (d *decoder) unknown(key *yaml.Node, parent string, known []string) {
	d.mistake(key, join(parent, key.Value), "unknown key%s", DidYouMean(key.Value, known))
}

// report records what a section's Validate or, without a section, a check found,
// each with the place of the key that it names. What follows from a value that
// could not be read is left out.
func (d *decoder) report(section string, err error) {
	if err == nil {
		return
	}
	for line := range strings.SplitSeq(err.Error(), "\n") {
		name, text := section, line
		if key, rest, ok := strings.Cut(line, ": "); ok && keyPath.MatchString(key) {
			name, text = join(section, key), rest
		}
		at, unread := d.find(name)
		if unread {
			continue
		}
		if name != "" {
			text = name + ": " + text
		}
		d.add(at, text)
	}
}

// find returns where a key was set, or for one that was not, where the nearest
// part around it begins; and whether it or a part around it could not be read.
func (d *decoder) find(name string) (at place, unread bool) {
	for name != "" {
		if at == (place{}) {
			at = d.places[name]
		}
		unread = unread || d.unread[name]
		name = name[:max(0, strings.LastIndexAny(name, ".["))]
	}
	return at, unread
}

// keyPath is what a mistake begins with when it is about one key, "a.b" or, in a
// section that is a list, "[0].a".
var keyPath = regexp.MustCompile(`^(?:\[[0-9]+\]\.?)?[a-z0-9_]*(?:\.[a-z0-9_]+|\[[0-9]+\])*$`)

// join returns the dotted name of a key below its parent.
func join(parent, key string) string {
	if parent == "" {
		return key
	}
	if strings.HasPrefix(key, "[") {
		return parent + key
	}
	return parent + "." + key
}
