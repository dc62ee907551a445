package rulefile

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
	"text/template"
	tree "text/template/parse"
	"time"
)

// maxRendered bounds a rendered annotation: a chat message holds about 4 KiB.
const maxRendered = 4 << 10

// NoValue is what a template prints for a part of an expression without value.
const NoValue = "no value"

// Template is an annotation's text with its holes.
type Template struct {
	tmpl *template.Template
}

// TemplateData is what a template can use: {{ $labels.team }}, {{ $value }},
// {{ .Name }}, {{ .Message }} and {{ .Value "jobs.in_queue" }}.
type TemplateData struct {
	// Labels of the alert.
	Labels map[string]string
	// Name is the target's name now.
	Name string
	// First is the first number among the parts of the expression, or NoValue.
	First any
	// Message is the newest error message on rules over jobs.
	Message string
	// Parts are the values of the parts of the expression, as the rule writes
	// them. A template that asks for anything else fails, unless Parts is nil.
	Parts map[string]any
	// Field finds the value of a field of the target that is no part of the
	// expression. Nil finds none.
	Field func(name string) (any, bool)
}

// Value returns the value of a part of the expression or of a field: a number,
// a text, a truth value or NoValue. Without an argument it is First.
func (d TemplateData) Value(part ...string) (any, error) {
	switch {
	case len(part) > 1:
		return nil, errors.New("Value takes one part of the expression or one field")
	case len(part) == 0:
		return d.First, nil
	case d.Parts == nil:
		return 0.0, nil
	}
	if v, ok := d.Parts[part[0]]; ok {
		return v, nil
	}
	if d.Field != nil {
		if v, ok := d.Field(part[0]); ok {
			return v, nil
		}
	}
	return nil, fmt.Errorf("%q is neither a field nor a part of the expression, which has %s", part[0], strings.Join(sortedKeys(d.Parts), ", "))
}

// Values is Value of one part, for those who read it as a table of values.
func (d TemplateData) Values(part string) (any, error) { return d.Value(part) }

// sampleData stands in for an alert when a template is tried.
func sampleData() TemplateData {
	return TemplateData{Labels: map[string]string{}, Name: "name", First: 0.0, Message: "message"}
}

// prelude gives templates the variables that Prometheus's have. It stays on
// the line of the text, so that lines count right.
const prelude = `{{ $labels := .Labels }}{{ $value := .First }}`

// functions are what templates can call beside the built-in ones.
var functions = template.FuncMap{
	"humanize":           humanize,
	"humanizeDuration":   humanizeDuration,
	"humanizePercentage": humanizePercentage,
	"toUpper":            strings.ToUpper,
	"toLower":            strings.ToLower,
}

// ParseTemplate reads the text of an annotation.
func ParseTemplate(name, text string) (*Template, error) {
	t, err := template.New(name).Funcs(functions).Option("missingkey=zero").Parse(prelude + text)
	if err != nil {
		return nil, errors.New(plainTemplateError(err))
	}
	return &Template{tmpl: t}, nil
}

// Render fills the holes. Texts longer than 4 KiB are refused.
func (t *Template) Render(d TemplateData) (string, error) {
	var out bounded
	if err := t.tmpl.Execute(&out, d); err != nil {
		return "", errors.New(plainTemplateError(err))
	}
	return strings.ToValidUTF8(out.String(), "?"), nil
}

// LabelNames lists the labels that the template writes by name, sorted:
// {{ $labels.env }}, {{ .Labels.env }} and {{ index $labels "env" }}.
func (t *Template) LabelNames() []string {
	names := map[string]bool{}
	labelNames(t.tmpl.Root, names)
	return sortedKeys(names)
}

// labelNames notes the labels that a node and what is below it write.
func labelNames(node tree.Node, names map[string]bool) {
	switch n := node.(type) {
	case *tree.ListNode:
		if n == nil {
			return // an absent {{ else }}
		}
		for _, child := range n.Nodes {
			labelNames(child, names)
		}
	case *tree.ActionNode:
		labelNames(n.Pipe, names)
	case *tree.IfNode:
		branchLabels(&n.BranchNode, names)
	case *tree.WithNode:
		branchLabels(&n.BranchNode, names)
	case *tree.RangeNode:
		branchLabels(&n.BranchNode, names)
	case *tree.PipeNode:
		if n == nil {
			return
		}
		for _, command := range n.Cmds {
			commandLabels(command, names)
		}
	case *tree.FieldNode:
		if len(n.Ident) == 2 && n.Ident[0] == "Labels" {
			names[n.Ident[1]] = true
		}
	case *tree.VariableNode:
		if len(n.Ident) == 2 && n.Ident[0] == "$labels" {
			names[n.Ident[1]] = true
		}
	default:
	}
}

func branchLabels(n *tree.BranchNode, names map[string]bool) {
	labelNames(n.Pipe, names)
	labelNames(n.List, names)
	labelNames(n.ElseList, names)
}

// commandLabels notes the labels of a command's words, and of index by a text.
func commandLabels(n *tree.CommandNode, names map[string]bool) {
	for _, word := range n.Args {
		labelNames(word, names)
	}
	if len(n.Args) != 3 || n.Args[0].String() != "index" {
		return
	}
	if of := n.Args[1].String(); of != "$labels" && of != ".Labels" {
		return
	}
	if name, ok := n.Args[2].(*tree.StringNode); ok {
		names[name.Text] = true
	}
}

// plainTemplateError drops the reader's own prefix, whose columns count the prelude.
func plainTemplateError(err error) string {
	text := strings.TrimPrefix(err.Error(), "template: ")
	if i := strings.Index(text, ": "); i >= 0 {
		text = text[i+2:]
	}
	return text
}

// bounded is a buffer that refuses to grow over maxRendered.
type bounded struct{ bytes.Buffer }

// Write appends p or says that the text is too long.
func (b *bounded) Write(p []byte) (int, error) {
	if b.Len()+len(p) > maxRendered {
		return 0, fmt.Errorf("the text is longer than %d bytes", maxRendered)
	}
	return b.Buffer.Write(p)
}

// number reads what a template hands to a function; what is no number is
// passed on as it is.
func number(v any) (float64, bool) {
	switch v := v.(type) {
	case float64:
		return v, true
	case int:
		return float64(v), true
	case string:
		f, err := strconv.ParseFloat(v, 64)
		return f, err == nil
	default:
		return 0, false
	}
}

// humanize writes a number with few digits and a metric prefix: 12.3k.
func humanize(v any) string {
	f, ok := number(v)
	if !ok {
		return fmt.Sprint(v)
	}
	for _, p := range []struct {
		from   float64
		suffix string
	}{{1e12, "T"}, {1e9, "G"}, {1e6, "M"}, {1e3, "k"}} {
		if math.Abs(f) >= p.from {
			return short(f/p.from) + p.suffix
		}
	}
	return short(f)
}

// humanizePercentage writes a share as percent: 0.051 is 5.1%.
func humanizePercentage(v any) string {
	f, ok := number(v)
	if !ok {
		return fmt.Sprint(v)
	}
	return short(f*100) + "%"
}

// humanizeDuration writes seconds as people do: 1h 5m.
func humanizeDuration(v any) string {
	f, ok := number(v)
	if !ok || math.IsNaN(f) || math.Abs(f) > 1e9 {
		return fmt.Sprint(v)
	}
	if math.Abs(f) < 60 {
		return short(f) + "s"
	}
	sign := ""
	if f < 0 {
		sign, f = "-", -f
	}
	d := time.Duration(f) * time.Second
	days, hours, minutes, seconds := d/(24*time.Hour), d/time.Hour%24, d/time.Minute%60, d/time.Second%60
	switch {
	case days > 0:
		return fmt.Sprintf("%s%dd %dh", sign, days, hours)
	case hours > 0:
		return fmt.Sprintf("%s%dh %dm", sign, hours, minutes)
	default:
		return fmt.Sprintf("%s%dm %ds", sign, minutes, seconds)
	}
}

// short writes a number with at most four digits.
func short(f float64) string { return strconv.FormatFloat(f, 'g', 4, 64) }
