package rulefile

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/common/model"
	"go.yaml.in/yaml/v3"

	"github.com/tocsin-dev/tocsin/services/alerter/internal/nearest"
)

// maxFileBytes bounds one rule file: two thousand rules of 500 bytes.
const maxFileBytes = 1 << 20

// parser gathers the mistakes of all files.
type parser struct {
	name     string
	src      []byte
	mistakes []*MistakeError
}

// yamlLine finds the line in the text of the YAML reader's errors.
var yamlLine = regexp.MustCompile(`line (\d+): `)

// file reads one file and returns the groups that could be read.
func (p *parser) file(name string, src []byte) []Group {
	p.name, p.src = name, src
	if len(src) > maxFileBytes {
		p.mistakes = append(p.mistakes, &MistakeError{Position{name, 1, 1}, fmt.Sprintf("the file has %d bytes; at most %d are read", len(src), maxFileBytes)})
		return nil
	}
	dec := yaml.NewDecoder(bytes.NewReader(src))
	var doc yaml.Node
	if err := dec.Decode(&doc); errors.Is(err, io.EOF) {
		p.mistakes = append(p.mistakes, &MistakeError{Position{name, 1, 1}, "the file is empty; expected `groups:`"})
		return nil
	} else if err != nil {
		p.yamlMistake(err)
		return nil
	}
	var more yaml.Node
	if err := dec.Decode(&more); err == nil {
		p.wrong(&more, "a second document; a rule file has one")
	} else if !errors.Is(err, io.EOF) {
		p.yamlMistake(err)
	}
	if doc.Kind != yaml.DocumentNode || len(doc.Content) == 0 {
		return nil
	}
	return p.groups(doc.Content[0])
}

func (p *parser) yamlMistake(err error) {
	line, text := 1, strings.TrimPrefix(err.Error(), "yaml: ")
	if m := yamlLine.FindStringSubmatchIndex(text); m != nil {
		line, _ = strconv.Atoi(text[m[2]:m[3]]) // the pattern has digits only
		text = text[:m[0]] + text[m[1]:]
		if strings.HasPrefix(text, "did not find expected") {
			line++ // the reader counts from 0 in complaints about structure
		}
	}
	p.mistakes = append(p.mistakes, &MistakeError{Position{p.name, line, 1}, "not YAML: " + text})
}

// wrong notes a mistake at a node.
func (p *parser) wrong(n *yaml.Node, format string, args ...any) {
	p.mistakes = append(p.mistakes, &MistakeError{p.at(n), fmt.Sprintf(format, args...)})
}

func (p *parser) at(n *yaml.Node) Position { return Position{p.name, n.Line, n.Column} }

func (p *parser) groups(root *yaml.Node) []Group {
	var groups []Group
	keys := p.mapping(root, "a rule file", "groups")
	list, ok := keys["groups"]
	if !ok {
		if root.Kind == yaml.MappingNode {
			p.wrong(root, "`groups` is missing")
		}
		return nil
	}
	for _, n := range p.sequence(list, "groups") {
		groups = append(groups, p.group(n))
	}
	return groups
}

func (p *parser) group(n *yaml.Node) Group {
	g := Group{File: p.name}
	keys := p.mapping(n, "a group", "name", "rules")
	if keys == nil {
		return g
	}
	g.Name, _ = p.required(n, keys, "name", "a group")
	list, ok := keys["rules"]
	if !ok {
		p.wrong(n, "`rules` is missing in the group")
		return g
	}
	for _, rn := range p.sequence(list, "rules") {
		before := len(p.mistakes)
		r := p.rule(g.Name, rn)
		r.wrong = len(p.mistakes) > before
		g.Rules = append(g.Rules, r)
	}
	return g
}

func (p *parser) rule(group string, n *yaml.Node) Rule {
	r := Rule{Group: group, Source: p.at(n), annotationsAt: map[string]Position{}}
	keys := p.mapping(n, "a rule", "alert", "on", "expr", "for", "keep_firing_for", "until", "times", "no_data", "flapping", "mode", "labels", "annotations", "runbook")
	if keys == nil {
		return r
	}
	var at *yaml.Node
	if r.Alert, at = p.required(n, keys, "alert", "a rule"); at != nil && !model.LabelValue(r.Alert).IsValid() {
		p.wrong(at, "`alert` is not valid UTF-8")
	}
	r.On = p.on(n, keys)
	if r.Expr, at = p.required(n, keys, "expr", "a rule"); at != nil {
		r.exprAt = newScalarText(p.name, p.src, at)
	}
	if at = keys["until"]; at != nil {
		if r.Until = strings.TrimSpace(p.scalar(at, "until")); r.Until == "" {
			p.wrong(at, "`until` is empty; leave it out when the alert is to end with its condition")
		}
		r.untilAt = newScalarText(p.name, p.src, at)
	}
	r.For = p.duration(keys, "for")
	r.KeepFiringFor = p.duration(keys, "keep_firing_for")
	r.Times = p.times(keys)
	r.NoData = choice(p, keys, "no_data", NoDataKeep, NoDataFire, NoDataResolve)
	r.Flapping = p.flapping(keys)
	r.Mode = choice(p, keys, "mode", ModeNormal, ModeObserve)
	r.Labels = p.texts(keys["labels"], "labels", p.checkLabel)
	r.Annotations = p.texts(keys["annotations"], "annotations", func(key, value *yaml.Node, name, text string) {
		r.annotationsAt[name] = p.at(value)
		p.checkAnnotation(key, value, name, text)
	})
	if at = keys["runbook"]; at != nil {
		if _, twice := r.Annotations["runbook"]; twice {
			p.wrong(at, "`runbook` stands also in annotations")
		}
		text := p.scalar(at, "runbook")
		p.checkAnnotation(at, at, "runbook", text)
		if r.Annotations == nil {
			r.Annotations = map[string]string{}
		}
		r.Annotations["runbook"], r.annotationsAt["runbook"] = text, p.at(at)
	}
	return r
}

func (p *parser) on(rule *yaml.Node, keys map[string]*yaml.Node) On {
	text, at := p.required(rule, keys, "on", "a rule")
	if at == nil {
		return ""
	}
	names := make([]string, 0, len(Ons()))
	for _, on := range Ons() {
		if string(on) == text {
			return on
		}
		names = append(names, string(on))
	}
	p.wrong(at, "`on: %s` is nothing that rules are evaluated on; expected %s%s", text, oneOf(names), nearest.Hint(text, names))
	return ""
}

// duration reads an optional duration in Prometheus's notation.
func (p *parser) duration(keys map[string]*yaml.Node, key string) time.Duration {
	n := keys[key]
	if n == nil {
		return 0
	}
	text := p.scalar(n, key)
	d, err := ParseDuration(text)
	if err != nil {
		p.wrong(n, "`%s`: %v", key, err)
	}
	return d
}

// ParseDuration reads a duration as Prometheus writes it: 5m, 1h30m, 2d, 0. Its
// error says what was expected.
func ParseDuration(text string) (time.Duration, error) {
	if text == "" {
		return 0, errors.New("the duration is empty; write for example 5m, 1h30m or 2d")
	}
	d, err := model.ParseDuration(text)
	if err != nil {
		return 0, fmt.Errorf("%q is no duration; write for example 5m, 1h30m or 2d", text)
	}
	return time.Duration(d), nil
}

// required reads a text that must be there; the node is nil if it is not.
func (p *parser) required(parent *yaml.Node, keys map[string]*yaml.Node, key, of string) (string, *yaml.Node) {
	n, ok := keys[key]
	if !ok {
		p.wrong(parent, "`%s` is missing in %s", key, of)
		return "", nil
	}
	if resolve(n).Kind != yaml.ScalarNode {
		p.scalar(n, key)
		return "", nil
	}
	text := strings.TrimSpace(resolve(n).Value)
	if text == "" || resolve(n).Tag == "!!null" {
		p.wrong(n, "`%s` is empty", key)
		return "", nil
	}
	return text, resolve(n)
}

// scalar reads a single value as text.
func (p *parser) scalar(n *yaml.Node, key string) string {
	n = resolve(n)
	switch {
	case n.Kind != yaml.ScalarNode:
		p.wrong(n, "`%s` is a %s; expected a single value", key, kindName(n))
		return ""
	case n.Tag == "!!null":
		p.wrong(n, "`%s` has no value", key)
		return ""
	}
	return n.Value
}

// texts reads a map of names to texts, checking each pair.
func (p *parser) texts(n *yaml.Node, of string, check func(key, value *yaml.Node, name, text string)) map[string]string {
	if n == nil {
		return nil
	}
	n = resolve(n)
	if n.Kind != yaml.MappingNode {
		p.wrong(n, "`%s` is a %s; expected names and values", of, kindName(n))
		return nil
	}
	all := map[string]string{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		key, value := n.Content[i], n.Content[i+1]
		name := resolve(key).Value
		if _, twice := all[name]; twice {
			p.wrong(key, "`%s` stands twice in %s", name, of)
			continue
		}
		text := p.scalar(value, name)
		check(key, resolve(value), name, text)
		all[name] = text
	}
	if len(all) == 0 {
		return nil
	}
	return all
}

// mapping returns the values of a mapping by key and notes keys that are not
// known or stand twice. It returns nil if n is no mapping.
func (p *parser) mapping(n *yaml.Node, what string, known ...string) map[string]*yaml.Node {
	n = resolve(n)
	if n.Kind != yaml.MappingNode {
		p.wrong(n, "%s is a %s; expected the keys %s", what, kindName(n), oneOf(known))
		return nil
	}
	values := make(map[string]*yaml.Node, len(n.Content)/2)
	for i := 0; i+1 < len(n.Content); i += 2 {
		key := n.Content[i]
		name := resolve(key).Value
		if !slices.Contains(known, name) {
			p.wrong(key, "`%s` is no key of %s%s", name, what, hint(name, known))
			continue
		}
		if _, twice := values[name]; twice {
			p.wrong(key, "`%s` stands twice in %s", name, what)
			continue
		}
		values[name] = n.Content[i+1]
	}
	return values
}

func (p *parser) sequence(n *yaml.Node, key string) []*yaml.Node {
	n = resolve(n)
	if n.Kind != yaml.SequenceNode {
		p.wrong(n, "`%s` is a %s; expected a list", key, kindName(n))
		return nil
	}
	return n.Content
}

// hint helps with a key that is not known: Prometheus's own keys that mean
// something else here, or the key that was probably meant.
func hint(name string, known []string) string {
	switch name {
	case "record":
		return "; only alerting rules exist"
	case "interval", "limit", "query_offset", "evaluation_interval":
		return "; rules are evaluated on each fact about their target"
	}
	return nearest.Hint(name, known)
}

func oneOf(words []string) string {
	if len(words) == 1 {
		return words[0]
	}
	return strings.Join(words[:len(words)-1], ", ") + " or " + words[len(words)-1]
}

// resolve follows an alias to what it stands for.
func resolve(n *yaml.Node) *yaml.Node {
	for n.Kind == yaml.AliasNode {
		n = n.Alias
	}
	return n
}

func kindName(n *yaml.Node) string {
	switch n.Kind {
	case yaml.MappingNode:
		return "map"
	case yaml.SequenceNode:
		return "list"
	default:
		return "single value"
	}
}
