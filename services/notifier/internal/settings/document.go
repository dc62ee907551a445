package settings

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/prometheus/alertmanager/config"
	"go.yaml.in/yaml/v3"
)

// reader reads one file. It takes tocsin_configs out of the lines, which
// Alertmanager's reader gets afterwards, and keeps the number of lines.
type reader struct {
	name     string
	dir      string
	root     *yaml.Node
	lines    [][]byte
	own      map[string][]Integration // of tocsin_configs, by receiver
	webhooks map[string][]*yaml.Node  // of webhook_configs, by receiver
	names    map[string]bool          // of receivers, while mistakes are looked for
	seen     map[*yaml.Node]bool      // routes
	uncut    bool                     // something that Alertmanager does not read is left in the lines
	mistakes []mistake
}

// mistake is something wrong, and where.
type mistake struct {
	line, column int // 0 where it is not known
	text         string
}

func (r *reader) mistake(at *yaml.Node, format string, args ...any) {
	r.mistakes = append(r.mistakes, mistake{at.Line, at.Column, fmt.Sprintf(format, args...)})
}

// place returns a node's place in the file.
func (r *reader) place(n *yaml.Node) string { return fmt.Sprintf("%s:%d:%d", r.name, n.Line, n.Column) }

// err returns the mistakes in the order of the file, or nil.
func (r *reader) err() error {
	slices.SortStableFunc(r.mistakes, func(a, b mistake) int {
		return cmp.Or(cmp.Compare(a.line, b.line), cmp.Compare(a.column, b.column))
	})
	var errs []error
	for _, m := range r.mistakes {
		place := r.name
		if m.line > 0 {
			place += fmt.Sprintf(":%d", m.line)
		}
		if m.column > 0 {
			place += fmt.Sprintf(":%d", m.column)
		}
		errs = append(errs, fmt.Errorf("%s: %s", place, m.text))
	}
	return errors.Join(errs...)
}

// pair is a key of a mapping and its value.
type pair struct{ key, value *yaml.Node }

// pairs returns the keys of a mapping in their order; nothing for other nodes,
// of which Alertmanager's reader complains.
func pairs(n *yaml.Node) []pair {
	if n.Kind == yaml.AliasNode {
		n = n.Alias
	}
	if n.Kind != yaml.MappingNode {
		return nil
	}
	list := make([]pair, 0, len(n.Content)/2)
	for i := 0; i+1 < len(n.Content); i += 2 {
		list = append(list, pair{n.Content[i], n.Content[i+1]})
	}
	return list
}

// items returns the items of a list; nothing for other nodes or none.
func items(n *yaml.Node) []*yaml.Node {
	if n == nil {
		return nil
	}
	if n.Kind == yaml.AliasNode {
		n = n.Alias
	}
	if n.Kind != yaml.SequenceNode {
		return nil
	}
	return n.Content
}

// document walks through the file for what is ours and for what this release
// does not do.
func (r *reader) document(root *yaml.Node) {
	for i, p := range pairs(root) {
		switch p.key.Value {
		case "receivers":
			for _, receiver := range items(p.value) {
				r.receiver(receiver)
			}
		case "route":
			r.route(p.value)
		case "tracing", "event_recorder":
			r.mistake(p.key, "%s is not supported yet: remove it", p.key.Value)
			r.cut(root, i)
		}
	}
}

// route looks at each route once: aliases can make a route its own child, and a few
// lines a tree without end.
func (r *reader) route(n *yaml.Node) {
	if n.Kind == yaml.AliasNode {
		n = n.Alias
	}
	if r.seen[n] {
		return
	}
	r.seen[n] = true
	for i, p := range pairs(n) {
		switch p.key.Value {
		case "mute_time_intervals", "active_time_intervals":
			if len(items(p.value)) > 0 {
				r.mistake(p.key, "%s is not supported yet: remove it; the alerts of this route are told at all times then", p.key.Value)
				r.cut(n, i)
			}
		case "labels":
			for _, label := range pairs(p.value) {
				if strings.Contains(label.value.Value, "{{") {
					r.mistake(label.key, "templates in labels of a route are not supported yet: write the text itself")
				}
			}
		case "routes":
			for _, child := range items(p.value) {
				r.route(child)
			}
		}
	}
}

func (r *reader) receiver(n *yaml.Node) {
	name := nameIn(n)
	for i, p := range pairs(n) {
		switch key := p.key.Value; {
		case key == "tocsin_configs":
			r.own[name] = r.tocsin(name, p.value)
			if !r.cut(n, i) {
				r.mistake(p.key, "write a receiver with tocsin_configs in block style, one key per line")
			}
		case p.key.Tag == "!!merge":
			for _, m := range append(items(p.value), p.value) {
				if slices.ContainsFunc(pairs(m), func(q pair) bool { return q.key.Value == "tocsin_configs" }) {
					r.mistake(p.key, "receiver %q: tocsin_configs cannot come through a merge (<<): write them out", name)
				}
			}
		case key == "webhook_configs":
			r.webhooks[name] = items(p.value)
			for _, w := range items(p.value) {
				r.webhookNode(name, w)
			}
		case slices.Contains(keysOf[config.Receiver](), key) && len(items(p.value)) > 0:
			r.mistake(p.key, "receiver %q: %s is not supported yet: use webhook_configs or tocsin_configs", name, key)
			r.cut(n, i)
		}
	}
}

// nameIn returns the name of a receiver, or nothing.
func nameIn(receiver *yaml.Node) string {
	for _, p := range pairs(receiver) {
		if p.key.Value == "name" {
			return p.value.Value
		}
	}
	return ""
}

// webhookNode refuses what Alertmanager's webhook can do and ours cannot yet.
func (r *reader) webhookNode(receiver string, n *yaml.Node) {
	for _, p := range pairs(n) {
		switch {
		case p.key.Value == "payload":
			r.mistake(p.key, "receiver %q: payload is not supported yet: remove it, or use tocsin_configs with format: simple", receiver)
		case p.key.Value == "timeout":
			if d, err := time.ParseDuration(p.value.Value); err == nil && d < 0 {
				r.mistake(p.value, "receiver %q: timeout: %v is negative", receiver, d)
			}
		case p.key.Value == "url_file" && p.value.Value != "":
			if _, err := (Endpoint{file: r.path(p.value.Value)}).URL(); err != nil {
				r.mistake(p.value, "receiver %q: url_file: %v", receiver, err)
			}
		case p.key.Value == "url" && strings.Contains(p.value.Value, "{{"):
			r.mistake(p.key, "receiver %q: a template in url is not supported yet: write the URL itself, with a receiver for each", receiver)
		}
	}
}

// cut blanks the i-th key of a mapping and its value in the lines. The dash of a
// list item that begins with the key stays. It returns false, and does nothing,
// where others may stand on the same lines.
func (r *reader) cut(mapping *yaml.Node, i int) bool {
	p := pairs(mapping)[i]
	if mapping.Kind == yaml.AliasNode || mapping.Style&yaml.FlowStyle != 0 {
		r.uncut = true
		return false
	}
	first, last := p.key.Line-1, lastLine(p.value)-1
	for last+1 < len(r.lines) && r.belongs(r.lines[last+1], p.key.Column) {
		last++
	}
	for line := first; line <= last && line < len(r.lines); line++ {
		keep := 0
		if line == first {
			keep = min(p.key.Column-1, len(r.lines[line]))
		}
		blank := bytes.Repeat([]byte(" "), keep)
		copy(blank, r.lines[line][:keep])
		r.lines[line] = bytes.TrimRight(blank, " ")
	}
	return true
}

// belongs reports whether a line after the last node goes on with it: it is
// indented deeper than the key in the given column, or only closes a bracket.
func (r *reader) belongs(line []byte, column int) bool {
	text := bytes.TrimLeft(line, " ")
	if len(bytes.TrimSpace(text)) == 0 {
		return false
	}
	indent := len(line) - len(text)
	return indent > column-1 || text[0] == ']' || text[0] == '}'
}

// lastLine returns the line on which the last node within n begins.
func lastLine(n *yaml.Node) int {
	last := n.Line
	for _, child := range n.Content {
		last = max(last, lastLine(child))
	}
	return last
}
