package settings

import (
	"bytes"
	"errors"
	"fmt"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/prometheus/alertmanager/config"
	amcommon "github.com/prometheus/alertmanager/config/common"
	"github.com/prometheus/alertmanager/notify/webhook"
	commoncfg "github.com/prometheus/common/config"
	"go.yaml.in/yaml/v3"

	"github.com/tocsin-dev/tocsin/internal/event"
	"github.com/tocsin-dev/tocsin/internal/proc"
)

// alertmanager looks for what Alertmanager's reader complained of. That reader
// ends at its first complaint and seldom says where; here it gets the file key by
// key, so that every mistake is found with its place.
func (r *reader) alertmanager(root *yaml.Node) {
	if hasAlias(root) {
		return // a piece would lack what it stands for
	}
	if root.Kind != yaml.MappingNode {
		r.mistake(root, "want keys with values such as route and receivers")
		return
	}
	r.names = map[string]bool{}
	sections := map[string]*yaml.Node{}
	r.eachKey(root, "", keysOf[config.Config](), func(p pair) { sections[p.key.Value] = p.value })
	for _, receiver := range items(sections["receivers"]) {
		r.checkReceiver(receiver)
	}
	if route := sections["route"]; route != nil {
		r.checkRoute(route, true)
	} else {
		r.mistake(root, "there is no route: name at least the receiver of all alerts, route: {receiver: ...}")
	}
	for i, rule := range items(sections["inhibit_rules"]) {
		r.checkInhibitRule(rule, fmt.Sprintf("inhibit_rules[%d]: ", i))
	}
	if global := sections["global"]; global != nil {
		r.eachKey(global, "global: ", keysOf[config.GlobalConfig](), func(p pair) { checkKey[config.GlobalConfig](r, p, "global: ") })
	}
	if templates := sections["templates"]; templates != nil {
		check[[]string](r, templates, "templates: ")
	}
	for _, key := range []string{"time_intervals", "mute_time_intervals"} {
		for i, interval := range items(sections[key]) {
			check[config.TimeInterval](r, interval, fmt.Sprintf("%s[%d]: ", key, i))
		}
	}
}

func (r *reader) checkReceiver(n *yaml.Node) {
	name := nameIn(n)
	where := fmt.Sprintf("receiver %q: ", name)
	switch {
	case name == "" && n.Kind == yaml.MappingNode:
		r.mistake(n, "a receiver has no name")
	case name != "" && r.names[name]:
		r.mistake(n, "%sthe name stands twice", where)
	}
	r.names[name] = true
	r.eachKey(n, where, append(keysOf[config.Receiver](), "tocsin_configs"), func(p pair) {
		switch key := p.key.Value; {
		case key == "webhook_configs":
			for i, w := range items(p.value) {
				r.checkWebhook(w, fmt.Sprintf("%swebhook_configs[%d]: ", where, i))
			}
		case key == "labels" && name != "":
			checkKey[config.Receiver](r, p, where, pairOf("name", name))
		}
	})
}

func (r *reader) checkWebhook(n *yaml.Node, where string) {
	given := map[string]bool{}
	r.eachKey(n, where, keysOf[webhook.WebhookConfig](), func(p pair) {
		given[p.key.Value] = p.value.Value != ""
		switch p.key.Value {
		case "payload": // refused already
		case "url", "url_file":
			checkKey[webhook.WebhookConfig](r, p, where)
		case "http_config":
			check[commoncfg.HTTPClientConfig](r, p.value, where+"http_config: ")
		default:
			checkKey[webhook.WebhookConfig](r, p, where, pairOf("url", "http://localhost"))
		}
	})
	if n.Kind == yaml.MappingNode && given["url"] == given["url_file"] {
		r.mistake(n, "%sgive one of url and url_file", where)
	}
}

func (r *reader) checkRoute(n *yaml.Node, root bool) {
	receiver := false
	r.eachKey(n, "route: ", keysOf[config.Route](), func(p pair) {
		switch key := p.key.Value; {
		case key == "routes":
			for _, child := range items(p.value) {
				r.checkRoute(child, false)
			}
		case root && slices.Contains([]string{"matchers", "match", "match_re", "continue"}, key):
			r.mistake(p.key, "route: the first route takes all alerts: %s belongs into one of its routes", key)
		case key == "matchers":
			r.checkMatchers(p, "route: ")
		case key == "receiver":
			receiver = p.value.Value != ""
			if receiver && !r.names[p.value.Value] {
				r.mistake(p.value, "route: there is no receiver %q", p.value.Value)
			}
		case key == "mute_time_intervals", key == "active_time_intervals": // refused already
		default:
			checkKey[config.Route](r, p, "route: ")
		}
	})
	if root && !receiver && n.Kind == yaml.MappingNode {
		r.mistake(n, "route: the first route needs a receiver")
	}
}

func (r *reader) checkInhibitRule(n *yaml.Node, where string) {
	r.eachKey(n, where, keysOf[amcommon.InhibitRule](), func(p pair) {
		if key := p.key.Value; key == "source_matchers" || key == "target_matchers" {
			r.checkMatchers(p, where)
			return
		}
		checkKey[amcommon.InhibitRule](r, p, where)
	})
}

// checkMatchers checks each of a list of matchers.
func (r *reader) checkMatchers(p pair, where string) {
	if p.value.Kind != yaml.SequenceNode {
		check[amcommon.Matchers](r, p.value, where+p.key.Value+": ")
		return
	}
	for _, m := range p.value.Content {
		list := &yaml.Node{Kind: yaml.SequenceNode, Content: []*yaml.Node{m}, Line: m.Line, Column: m.Column}
		check[amcommon.Matchers](r, list, where+p.key.Value+": ")
	}
}

// eachKey calls do for the keys of a mapping that are known; others and those given
// twice are mistakes.
func (r *reader) eachKey(n *yaml.Node, where string, known []string, do func(pair)) {
	if n.Kind != yaml.MappingNode {
		r.mistake(n, "%swant keys with values", where)
		return
	}
	seen := map[string]bool{}
	for _, p := range pairs(n) {
		key := p.key.Value
		switch {
		case !slices.Contains(known, key):
			r.mistake(p.key, "%sunknown key %q%s", where, key, proc.DidYouMean(key, known))
		case seen[key]:
			r.mistake(p.key, "%s%s is given twice", where, key)
		default:
			do(p)
		}
		seen[key] = true
	}
}

// checkKey reads a mapping of one key, and what must stand beside it, as a T.
func checkKey[T any](r *reader, p pair, where string, beside ...pair) {
	n := &yaml.Node{Kind: yaml.MappingNode, Tag: "!!map", Line: p.value.Line, Column: p.value.Column}
	for _, q := range append(beside, p) {
		n.Content = append(n.Content, q.key, q.value)
	}
	check[T](r, n, where+p.key.Value+": ")
}

func pairOf(key, value string) pair {
	text := func(s string) *yaml.Node { return &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!str", Value: s} }
	return pair{text(key), text(value)}
}

// check reads a node as a T as Alertmanager does, and notes its complaints.
func check[T any](r *reader, n *yaml.Node, where string) {
	text, err := yaml.Marshal(block(n))
	if err != nil {
		r.mistake(n, "%scannot be read", where)
		return
	}
	dec := yaml.NewDecoder(bytes.NewReader(text))
	dec.KnownFields(true)
	err = dec.Decode(new(T))
	if err == nil {
		return
	}
	wrong, several := errors.AsType[*yaml.TypeError](err)
	if !several {
		r.mistake(n, "%s%s", where, harmless(err.Error()))
		return
	}
	var copied yaml.Node
	if err := yaml.Unmarshal(text, &copied); err != nil {
		r.mistake(n, "%s%s", where, harmless(wrong.Error()))
		return
	}
	for _, line := range wrong.Errors {
		at := n
		if m := lineOf.FindStringSubmatch(line); m != nil {
			number, _ := strconv.Atoi(m[1]) // the pattern has digits only
			line = m[2]
			at = original(n, copied.Content[0], number, line, n)
		}
		r.mistake(at, "%s%s", where, harmless(line))
	}
}

// harmless takes out of a complaint what may be secret, and the names of Go's types.
func harmless(text string) string {
	text = strings.TrimPrefix(text, "yaml: ")
	text = quotedURL.ReplaceAllString(text, "")
	if m := noField.FindStringSubmatch(text); m != nil {
		text = fmt.Sprintf("unknown key %q", m[1])
	}
	return event.Redact(text)
}

// noField is how the YAML reader says that a key is not known.
var noField = regexp.MustCompile(`^field (\S+) not found in type \S+$`)

// original returns the node in n that is on the given line of its copy: the key
// that the complaint names, else the last one of the line.
func original(n, copied *yaml.Node, line int, complaint string, found *yaml.Node) *yaml.Node {
	if copied.Line == line && copied.Kind == yaml.ScalarNode && n.Line > 0 {
		found = n
	}
	for i := range min(len(n.Content), len(copied.Content)) {
		before := found
		found = original(n.Content[i], copied.Content[i], line, complaint, found)
		m := noField.FindStringSubmatch(complaint)
		if m != nil && found != before && found == n.Content[i] && found.Value == m[1] {
			return found
		}
	}
	return found
}

// block returns a copy of a node in block style, where each key has a line.
func block(n *yaml.Node) *yaml.Node {
	c := *n
	c.Style &^= yaml.FlowStyle
	c.HeadComment, c.LineComment, c.FootComment = "", "", ""
	c.Content = make([]*yaml.Node, len(n.Content))
	for i, child := range n.Content {
		c.Content[i] = block(child)
	}
	return &c
}

func hasAlias(n *yaml.Node) bool {
	return n.Kind == yaml.AliasNode || slices.ContainsFunc(n.Content, hasAlias)
}

// keysOf returns the keys that a struct reads.
func keysOf[T any]() []string { return keysOfType(reflect.TypeFor[T]()) }

func keysOfType(t reflect.Type) []string {
	var keys []string
	for f := range t.Fields() {
		key, options, _ := strings.Cut(f.Tag.Get("yaml"), ",")
		switch {
		case strings.Contains(options, "inline"):
			keys = append(keys, keysOfType(f.Type)...)
		case f.IsExported() && key != "-" && key != "":
			keys = append(keys, key)
		}
	}
	return keys
}
