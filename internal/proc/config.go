package proc

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"reflect"
	"regexp"
	"slices"
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
// Unknown keys, keys given twice, values of the wrong type and what a section's
// Validate finds are all reported at once, one line each, with file, line and
// column or the variable's name. The error is one of usage.
func Load(path string, environ []string, sections map[string]any) error {
	d := decoder{file: path, places: map[string]string{}}
	for _, name := range slices.Sorted(maps.Keys(sections)) {
		if !slices.Contains(sectionNames, name) {
			return fmt.Errorf("load config: %q is not a section", name)
		}
	}
	if path != "" {
		if err := d.readFile(path, sections); err != nil {
			return Usage(fmt.Errorf("read config: %w", err))
		}
	}
	env := parseEnviron(environ)
	for _, name := range slices.Sorted(maps.Keys(sections)) {
		d.override(env, name, reflect.ValueOf(sections[name]).Elem())
	}
	for _, name := range slices.Sorted(maps.Keys(sections)) {
		if v, ok := sections[name].(Validator); ok {
			d.report(name, v.Validate())
		}
	}
	return Usage(errors.Join(d.mistakes...))
}

// decoder collects the mistakes of one configuration.
type decoder struct {
	file     string
	mistakes []error
	places   map[string]string // where each key was set, by its dotted name
}

// readFile decodes the file's sections. The error it returns is one that makes
// the rest unreadable; all others are collected.
func (d *decoder) readFile(path string, sections map[string]any) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }() // only read
	text, err := io.ReadAll(io.LimitReader(f, maxConfigSize+1))
	if err != nil {
		return err
	}
	if len(text) > maxConfigSize {
		return fmt.Errorf("%s is larger than %d bytes", path, maxConfigSize)
	}
	docs := yaml.NewDecoder(bytes.NewReader(text))
	var doc, more yaml.Node
	if err := docs.Decode(&doc); errors.Is(err, io.EOF) {
		return nil
	} else if err != nil {
		return fmt.Errorf("%s: %s", path, strings.TrimPrefix(err.Error(), "yaml: "))
	}
	if err := docs.Decode(&more); !errors.Is(err, io.EOF) {
		return fmt.Errorf("%s: only one YAML document may be in the file", path)
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

// mistake records a mistake at a place in the file.
func (d *decoder) mistake(at *yaml.Node, name, format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	if name != "" {
		text = name + ": " + text
	}
	d.mistakes = append(d.mistakes, fmt.Errorf("%s: %s", d.position(at), text))
}

func (d *decoder) position(at *yaml.Node) string {
	return fmt.Sprintf("%s:%d:%d", d.file, at.Line, at.Column)
}

// unknown records a key that nothing reads, with the one that was likely meant.
func (d *decoder) unknown(key *yaml.Node, parent string, known []string) {
	if meant := nearest(key.Value, known); meant != "" {
		d.mistake(key, join(parent, key.Value), "unknown key; did you mean %s?", meant)
		return
	}
	d.mistake(key, join(parent, key.Value), "unknown key")
}

// report records what a section's Validate found, each with the place of the key
// that it names.
func (d *decoder) report(section string, err error) {
	if err == nil {
		return
	}
	for line := range strings.SplitSeq(err.Error(), "\n") {
		name, text := section, line
		if key, rest, ok := strings.Cut(line, ": "); ok && keyPath.MatchString(key) {
			name, text = join(section, key), rest
		}
		text = name + ": " + text
		if place := d.placeOf(name); place != "" {
			text = place + ": " + text
		}
		d.mistakes = append(d.mistakes, errors.New(text))
	}
}

// placeOf returns where a key was set, or for one that was not, where the nearest
// part around it begins.
func (d *decoder) placeOf(name string) string {
	for {
		if place := d.places[name]; place != "" {
			return place
		}
		i := strings.LastIndexAny(name, ".[")
		if i < 0 {
			return ""
		}
		name = name[:i]
	}
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
