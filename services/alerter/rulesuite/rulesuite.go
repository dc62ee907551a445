// Package rulesuite tries rules by files of tests: what happens to endpoints, pods
// and the account, written as series and events, and which alerts must come of it.
// It plays them through the very fold that runs in the alerter. It reads no clock
// and opens nothing.
package rulesuite

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"regexp"
	"strconv"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/tocsin-dev/tocsin/services/alerter/rulefile"
)

const (
	// maxFileBytes bounds a file of tests: a thousand tests of 4 KiB.
	maxFileBytes = 4 << 20
	// maxLength bounds a test: more than the 7 days that the event log keeps.
	maxLength = 8 * 24 * time.Hour
	// defaultInterval is the collector's own for endpoints.
	defaultInterval = 15 * time.Second
)

// File is a file of tests.
type File struct {
	// RuleFiles are patterns of rule files, relative to this file. Empty means the
	// default pack.
	RuleFiles []string `yaml:"rule_files"`
	// Targets are patterns as in the configuration.
	Targets rulefile.TargetPatterns `yaml:"targets"`
	// Interval is the distance of two values of a series, unless the test says
	// otherwise; 15 s if absent.
	Interval duration `yaml:"interval"`
	// Tests in the order of the file.
	Tests []Test `yaml:"tests"`

	name string
}

// Test is one story and what must come of it.
type Test struct {
	// Name says what is tried.
	Name string `yaml:"name"`
	// Interval is the distance of two values of a series.
	Interval duration `yaml:"interval"`
	// Endpoints and Pods by their ids.
	Endpoints map[string]endpoint `yaml:"endpoints"`
	Pods      map[string]pod      `yaml:"pods"`
	// Account is the account of all targets.
	Account account `yaml:"account"`
	// Events are what happens beside the series.
	Events []occurrence `yaml:"events"`
	// Expect is what must be the case at certain instants.
	Expect []expectation `yaml:"expect"`

	line int
}

// endpoint is a serverless endpoint of a test.
type endpoint struct {
	Name     string            `yaml:"name"`
	Settings settings          `yaml:"settings"`
	Series   map[string]series `yaml:"series"`
}

// settings are those of an endpoint.
type settings struct {
	Type             string   `yaml:"type"`
	WorkersMin       *int64   `yaml:"workers_min"`
	WorkersMax       *int64   `yaml:"workers_max"`
	ExecutionTimeout duration `yaml:"execution_timeout"`
	IdleTimeout      duration `yaml:"idle_timeout"`
}

// pod is a pod of a test.
type pod struct {
	Name    string            `yaml:"name"`
	GPUs    int64             `yaml:"gpus"`
	GPUType string            `yaml:"gpu_type"`
	Series  map[string]series `yaml:"series"`
}

// account is the account of a test.
type account struct {
	Series map[string]series `yaml:"series"`
}

// occurrence is something that happens at an instant.
type occurrence struct {
	At duration `yaml:"at"`
	// Every and Until repeat it; jobs get ids of their own, -2, -3 and so on.
	Every    duration `yaml:"every"`
	Until    duration `yaml:"until"`
	Endpoint string   `yaml:"endpoint"`
	Pod      string   `yaml:"pod"`
	// What happens is one of these.
	Job              *job      `yaml:"job"`
	Settings         *settings `yaml:"settings"`
	Removed          bool      `yaml:"removed"`
	InventoryShrunk  *shrunk   `yaml:"inventory_shrunk"`
	CollectorStarted bool      `yaml:"collector_started"`
	Sleep            duration  `yaml:"sleep"`

	line int
}

// shrunk says that too large a part of the inventory vanished at once, or, with
// over, that it is whole again.
type shrunk struct {
	Known    int64 `yaml:"known"`
	Vanished int64 `yaml:"vanished"`
	Over     bool  `yaml:"over"`
}

// job is a change of a job.
type job struct {
	ID          string   `yaml:"id"`
	State       string   `yaml:"state"`
	Attempt     int32    `yaml:"attempt"`
	Category    string   `yaml:"category"`
	Error       string   `yaml:"error"`
	Type        string   `yaml:"type"`
	Fingerprint string   `yaml:"fingerprint"`
	Worker      string   `yaml:"worker"`
	Delay       duration `yaml:"delay"`
	Execution   duration `yaml:"execution"`
}

// expectation is what must be the case at an instant. A list that is absent is not
// looked at; an empty one means that there must be none.
type expectation struct {
	At duration `yaml:"at"`
	// Alert looks at the alerts of one name only.
	Alert   string   `yaml:"alert"`
	Firing  []wanted `yaml:"firing"`
	Pending []wanted `yaml:"pending"`

	line int
}

// wanted is an alert that must be there. What is named is compared.
type wanted struct {
	Alert       string            `yaml:"alert"`
	Target      string            `yaml:"target"`
	Labels      map[string]string `yaml:"labels"`
	Annotations map[string]string `yaml:"annotations"`
	Evidence    map[string]string `yaml:"evidence"`
}

// duration is written as in rules: 90s, 5m, 1h30m.
type duration time.Duration

// UnmarshalYAML reads a duration.
func (d *duration) UnmarshalYAML(n *yaml.Node) error {
	if n.Value == "0" {
		*d = 0
		return nil
	}
	parsed, err := rulefile.ParseDuration(n.Value)
	if err != nil {
		return lineError(n, "%v", err)
	}
	*d = duration(parsed)
	return nil
}

// Parse reads a file of tests. Its error joins every mistake, each as
// "file:line: what was expected".
func Parse(name string, src []byte) (*File, error) {
	if len(src) > maxFileBytes {
		return nil, fmt.Errorf("%s:1: the file has %d bytes; at most %d are read", name, len(src), maxFileBytes)
	}
	f := &File{name: name}
	dec := yaml.NewDecoder(bytes.NewReader(src))
	dec.KnownFields(true)
	if err := dec.Decode(f); errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("%s:1: the file is empty; expected `tests:`", name)
	} else if err != nil {
		return nil, plain(name, err)
	}
	if err := f.locate(src); err != nil {
		return nil, plain(name, err)
	}
	if err := f.check(); err != nil {
		return nil, err
	}
	return f, nil
}

// locate notes at which lines tests, events and expectations begin, which is where
// messages point to.
func (f *File) locate(src []byte) error {
	var doc yaml.Node
	if err := yaml.Unmarshal(src, &doc); err != nil {
		return err
	}
	tests, err := items(doc.Content[0], "tests", len(f.Tests))
	if err != nil {
		return err
	}
	for i, test := range tests {
		t := &f.Tests[i]
		t.line = test.Line
		events, errEvents := items(test, "events", len(t.Events))
		expect, errExpect := items(test, "expect", len(t.Expect))
		if err := errors.Join(errEvents, errExpect); err != nil {
			return err
		}
		for k, n := range events {
			t.Events[k].line = n.Line
		}
		for k, n := range expect {
			t.Expect[k].line = n.Line
		}
	}
	return nil
}

// items lists what stands below a key of a mapping, of which the YAML reader read
// so many: it passes over items that are empty.
func items(n *yaml.Node, key string, read int) ([]*yaml.Node, error) {
	n = resolve(n)
	for i := 0; i+1 < len(n.Content); i += 2 {
		if n.Content[i].Value != key {
			continue
		}
		list := resolve(n.Content[i+1]).Content
		for _, item := range list {
			if resolve(item).ShortTag() == "!!null" {
				return nil, lineError(item, "an item of `%s` is empty", key)
			}
		}
		if len(list) != read {
			return nil, lineError(n.Content[i+1], "`%s` is no list", key)
		}
		return list, nil
	}
	return nil, nil
}

// resolve follows an alias.
func resolve(n *yaml.Node) *yaml.Node {
	for n.Kind == yaml.AliasNode {
		n = n.Alias
	}
	return n
}

var (
	yamlLine     = regexp.MustCompile(`line (\d+): `)
	unknownField = regexp.MustCompile(`field (\S+) not found in type \S+`)
)

// plain writes the YAML reader's complaints with the file's name first.
func plain(name string, err error) error {
	texts := []string{err.Error()}
	if several, ok := errors.AsType[*yaml.TypeError](err); ok {
		texts = several.Errors
	}
	var errs []error
	for _, text := range texts {
		line := 1
		if m := yamlLine.FindStringSubmatchIndex(text); m != nil {
			line, _ = strconv.Atoi(text[m[2]:m[3]]) // the pattern has digits only
			text = text[:m[0]] + text[m[1]:]
		}
		text = unknownField.ReplaceAllString(text, "`$1` is no key here")
		errs = append(errs, fmt.Errorf("%s:%d: %s", name, line, text))
	}
	return errors.Join(errs...)
}
