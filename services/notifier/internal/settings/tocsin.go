package settings

import (
	"fmt"
	"strconv"
	"time"

	commoncfg "github.com/prometheus/common/config"
	"github.com/prometheus/common/model"
	"go.yaml.in/yaml/v3"

	"github.com/tocsin-dev/tocsin/internal/proc"
	"github.com/tocsin-dev/tocsin/internal/secret"
	"github.com/tocsin-dev/tocsin/services/notifier/internal/sign"
)

// maxTimeout bounds what a file may ask for: longer answers hold a slot that
// other messages need.
const maxTimeout = 2 * time.Minute

// tocsin reads a list of tocsin_configs.
func (r *reader) tocsin(receiver string, list *yaml.Node) []Integration {
	if list.Kind != yaml.SequenceNode {
		r.mistake(list, "receiver %q: tocsin_configs is not a list", receiver)
		return nil
	}
	var all []Integration
	for i, n := range list.Content {
		if n.Kind != yaml.MappingNode {
			r.mistake(n, "receiver %q: tocsin_configs[%d] is not a mapping", receiver, i)
			continue
		}
		e := entry{reader: r, node: n, where: fmt.Sprintf("receiver %q: tocsin_configs[%d]", receiver, i)}
		e.in = Integration{Receiver: receiver, Format: FormatStandard, SendResolved: true}
		e.read()
		all = append(all, e.in)
	}
	return all
}

// entry reads one of tocsin_configs.
type entry struct {
	*reader
	node  *yaml.Node
	where string
	in    Integration

	url, urlFile, secret, secretFile *yaml.Node
}

func (e *entry) complain(at *yaml.Node, format string, args ...any) {
	e.mistake(at, "%s: %s", e.where, fmt.Sprintf(format, args...))
}

func (e *entry) read() {
	seen := map[string]bool{}
	for _, p := range pairs(e.node) {
		if seen[p.key.Value] {
			e.complain(p.key, "%s is set twice", p.key.Value)
		}
		seen[p.key.Value] = true
		e.key(p)
	}
	e.endpoint()
	e.signing()
	e.in.Place = e.place(e.node)
	e.in.Name = nameOf("tocsin", e.in.Format, text(e.url), text(e.urlFile))
}

// text returns the value of a node, which may be nil.
func text(n *yaml.Node) string {
	if n == nil {
		return ""
	}
	return n.Value
}

func (e *entry) key(p pair) {
	switch p.key.Value {
	case "url":
		e.url = p.value
	case "url_file":
		e.urlFile = p.value
	case "secret":
		e.secret = p.value
	case "secret_file":
		e.secretFile = p.value
	case "format":
		switch p.value.Value {
		case FormatStandard, FormatSimple, FormatPrint:
			e.in.Format = p.value.Value
		default:
			e.complain(p.value, "format: %q is none of standard, simple, print", p.value.Value)
		}
	case "send_resolved":
		b, err := strconv.ParseBool(p.value.Value)
		if err != nil || p.value.Tag != "!!bool" {
			e.complain(p.value, "send_resolved: %q is not true or false", p.value.Value)
		}
		e.in.SendResolved = b
	case "timeout":
		d, err := model.ParseDuration(p.value.Value)
		if err != nil || time.Duration(d) <= 0 || time.Duration(d) > maxTimeout {
			e.complain(p.value, "timeout: %q is not a duration up to %v", p.value.Value, maxTimeout)
		}
		e.in.Timeout = time.Duration(d)
	case "http_config":
		e.http(p)
	default:
		e.complain(p.key, "unknown key %q%s", p.key.Value, proc.DidYouMean(p.key.Value, tocsinKeys))
	}
}

// tocsinKeys are the keys of tocsin_configs.
var tocsinKeys = []string{"url", "url_file", "secret", "secret_file", "format", "send_resolved", "timeout", "http_config"}

// http reads an http_config with Prometheus's own package.
func (e *entry) http(p pair) {
	text, err := yaml.Marshal(p.value)
	if err != nil {
		e.complain(p.key, "http_config cannot be read")
		return
	}
	conf, err := commoncfg.LoadHTTPConfig(string(text))
	if err != nil {
		known := len(e.mistakes)
		if check[commoncfg.HTTPClientConfig](e.reader, p.value, e.where+": http_config: "); len(e.mistakes) == known {
			e.complain(p.key, "http_config: %s", harmless(err.Error()))
		}
		return
	}
	e.anchor(conf)
	e.in.HTTP = conf
}

func (e *entry) endpoint() {
	switch {
	case e.in.Format == FormatPrint && (e.url != nil || e.urlFile != nil):
		e.complain(e.node, "format print sends nowhere: remove url and url_file")
	case e.in.Format == FormatPrint:
	case (e.url == nil) == (e.urlFile == nil):
		e.complain(e.node, "give one of url and url_file")
	case e.url != nil:
		e.in.Endpoint.url = secret.String(e.url.Value)
		if err := checkURL(e.url.Value); err != nil {
			e.complain(e.url, "url: %v", err)
		}
	default:
		e.in.Endpoint.file = e.path(e.urlFile.Value)
		if _, err := e.in.Endpoint.URL(); err != nil {
			e.complain(e.urlFile, "url_file: %v", err)
		}
	}
}

// signing reads the key. A secret that is written down but empty is a mistake
// and not the wish to sign nothing.
func (e *entry) signing() {
	var (
		at  = e.secret
		key secret.String
		err error
	)
	switch {
	case e.secret != nil && e.secretFile != nil:
		e.complain(e.secret, "give one of secret and secret_file")
		return
	case e.secret != nil:
		key = secret.String(e.secret.Value)
	case e.secretFile != nil:
		at = e.secretFile
		key, err = secret.FromFile(e.path(e.secretFile.Value))
	default:
		return
	}
	if err == nil {
		e.in.Key, err = sign.ParseKey(key)
	}
	if err != nil {
		e.complain(at, "secret: %v", err)
	}
}
