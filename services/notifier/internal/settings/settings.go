// Package settings reads the file that names routes and receivers. It is
// Alertmanager's own format, read by Alertmanager's own package, with one more
// list in each receiver: tocsin_configs.
//
// A mistake is reported with its file and line, all that can be found at once;
// what this release cannot do is refused by name rather than ignored.
package settings

import (
	"bytes"
	"crypto/sha256"
	_ "embed"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/alertmanager/config"
	amcommon "github.com/prometheus/alertmanager/config/common"
	"github.com/prometheus/alertmanager/featurecontrol"
	"github.com/prometheus/alertmanager/matcher/compat"
	"github.com/prometheus/alertmanager/notify/webhook"
	commoncfg "github.com/prometheus/common/config"
	"go.yaml.in/yaml/v3"

	"github.com/tocsin-dev/tocsin/internal/proc"
	"github.com/tocsin-dev/tocsin/internal/secret"
	"github.com/tocsin-dev/tocsin/services/notifier/internal/route"
	"github.com/tocsin-dev/tocsin/services/notifier/internal/sign"
)

// defaults are the routes where there is no file: every alert is printed, and
// the inhibitions are those that the default rules are written for.
//
//go:embed default.yml
var defaults []byte

// maxFile bounds the file, in bytes. The largest that people show are some
// hundred KiB.
const maxFile = 4 << 20

// Formats of messages.
const (
	// FormatAlertmanager is Alertmanager's webhook payload, version 4.
	FormatAlertmanager = "alertmanager"
	// FormatStandard is the body that Standard Webhooks recommends.
	FormatStandard = "standard"
	// FormatSimple is one object with title, message, severity and timestamp.
	FormatSimple = "simple"
	// FormatPrint prints a line for each alert instead of sending.
	FormatPrint = "print"
)

// Integration is one way to reach a receiver.
type Integration struct {
	// Receiver is the receiver's name.
	Receiver string
	// Place is where it stands, as file:line:column.
	Place string
	// Name is unique within the receiver and stays with the destination when the
	// file changes around it, e.g. "webhook/3f2a90c1".
	Name string
	// Format is one of the formats above.
	Format string
	// Endpoint is where to send to; it may change while the process runs when it
	// is kept in a file.
	Endpoint Endpoint
	// Key signs the messages. Not set means that they are not signed.
	Key sign.Key
	// SendResolved says whether the receiver hears that alerts are over.
	SendResolved bool
	// MaxAlerts bounds the alerts in one message. 0 means no bound.
	MaxAlerts int
	// Timeout bounds an attempt. 0 means the default.
	Timeout time.Duration
	// HTTP is how to connect. Nil means the defaults.
	HTTP *commoncfg.HTTPClientConfig
}

// Endpoint is a URL, or a file that holds one.
type Endpoint struct {
	url  secret.String
	file string
}

// Format keeps the URL from printing: fmt does not ask the type of a field that
// is not exported how to show it.
func (e Endpoint) Format(f fmt.State, _ rune) {
	if e.file != "" {
		_, _ = fmt.Fprintf(f, "the URL in %s", e.file)
		return
	}
	_, _ = fmt.Fprint(f, e.url)
}

// URL returns the URL; a file is read anew each time. Its errors do not show
// the URL.
func (e Endpoint) URL() (string, error) {
	if e.file == "" {
		return e.url.Reveal(), nil
	}
	s, err := secret.FromFile(e.file)
	if err != nil {
		return "", err
	}
	return s.Reveal(), checkURL(s.Reveal())
}

// Settings are what a file says.
type Settings struct {
	// Hash names the content of the file.
	Hash string
	// Route is the route tree as Alertmanager reads it.
	Route *config.Route
	// InhibitRules are the inhibition rules.
	InhibitRules []amcommon.InhibitRule
	// Integrations are all ways to reach someone, in the order of the file.
	Integrations []Integration
}

// Default returns the routes where there is no file.
func Default() (*Settings, error) { return Parse("default.yml", defaults, ".") }

// Load reads the file at path.
func Load(path string) (*Settings, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, fmt.Errorf("read routes: %w", err)
	}
	if info.Size() > maxFile {
		return nil, fmt.Errorf("read routes: %s is larger than %d bytes", path, maxFile)
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read routes: %w", err)
	}
	return Parse(path, text, filepath.Dir(path))
}

// likeAlertmanager makes Alertmanager's packages read matchers as Alertmanager
// itself does unless told otherwise: UTF-8 first, the classic syntax if that
// fails. Their own default is classic only, and they keep it per process.
var likeAlertmanager = sync.OnceFunc(func() {
	compat.InitFromFlags(slog.New(slog.DiscardHandler), featurecontrol.NoopFlags{})
})

// Parse reads the text of a file called name, whose relative paths begin at dir.
// It returns every mistake, one line each, with the name and the line.
func Parse(name string, text []byte, dir string) (*Settings, error) {
	likeAlertmanager()
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", name, err)
	}
	var doc yaml.Node
	if err := yaml.Unmarshal(text, &doc); err != nil {
		return nil, proc.NotYAML(name, err)
	}
	r := &reader{
		name: name, dir: dir, lines: bytes.Split(text, []byte("\n")),
		own: map[string][]Integration{}, webhooks: map[string][]*yaml.Node{}, seen: map[*yaml.Node]bool{},
	}
	root := &yaml.Node{Kind: yaml.MappingNode, Line: 1, Column: 1} // of an empty file
	if len(doc.Content) > 0 {
		root = doc.Content[0]
	}
	r.root = root
	r.document(root)
	conf, err := config.Load(string(bytes.Join(r.lines, []byte("\n"))))
	if err != nil {
		known := len(r.mistakes)
		if r.alertmanager(root); len(r.mistakes) == known && !r.uncut {
			r.mistakes = append(r.mistakes, located(err)...)
		}
		return nil, r.err()
	}
	sum := sha256.Sum256(text)
	s := &Settings{Hash: hex.EncodeToString(sum[:8]), Route: conf.Route, InhibitRules: conf.InhibitRules}
	for _, receiver := range conf.Receivers {
		first := len(s.Integrations)
		for i, w := range receiver.WebhookConfigs {
			s.Integrations = append(s.Integrations, r.webhook(receiver.Name, i, w))
		}
		s.Integrations = append(s.Integrations, r.own[receiver.Name]...)
		numberTwins(s.Integrations[first:])
	}
	if err := r.err(); err != nil {
		return nil, err
	}
	return s, nil
}

// nameOf returns the name of an integration: its kind and a hash of what it
// sends in which form to where. A pending message names its integration, and an
// entry inserted above must not send it elsewhere. The hash has 32 bits, of which
// nobody learns a secret in a URL.
func nameOf(kind, format, url, file string) string {
	sum := sha256.Sum256(fmt.Appendf(nil, "%q %q %q %q", kind, format, url, file))
	return kind + "/" + hex.EncodeToString(sum[:4])
}

// numberTwins gives those that have the name of one before them a number: the
// same destination is named twice.
func numberTwins(list []Integration) {
	seen := map[string]int{}
	for i := range list {
		name := list[i].Name
		seen[name]++
		if n := seen[name]; n > 1 {
			list[i].Name = fmt.Sprintf("%s/%d", name, n)
		}
	}
}

// Receivers returns the integrations of each receiver as package route wants
// them.
func (s *Settings) Receivers() map[string][]route.Integration {
	all := map[string][]route.Integration{}
	for _, in := range s.Integrations {
		all[in.Receiver] = append(all[in.Receiver], route.Integration{
			Name: in.Name, SendResolved: in.SendResolved, MaxAlerts: in.MaxAlerts,
		})
	}
	return all
}

// Sends reports whether anyone is told by other means than printing.
func (s *Settings) Sends() bool {
	return slices.ContainsFunc(s.Integrations, func(in Integration) bool { return in.Format != FormatPrint })
}

// webhook takes the i-th of Alertmanager's webhook_configs of a receiver over.
// Alertmanager ends longer attempts with the group's interval, hence the bound.
func (r *reader) webhook(receiver string, i int, w *webhook.WebhookConfig) Integration {
	at := r.root // where a merge brings it
	if nodes := r.webhooks[receiver]; i < len(nodes) {
		at = nodes[i]
	}
	in := Integration{
		Receiver: receiver, Name: nameOf("webhook", FormatAlertmanager, string(w.URL), w.URLFile), Format: FormatAlertmanager,
		Place: r.place(at), SendResolved: w.SendResolved(), MaxAlerts: int(min(w.MaxAlerts, 1<<31-1)),
		Timeout: min(w.Timeout, maxTimeout), HTTP: w.HTTPConfig,
	}
	r.anchor(w.HTTPConfig)
	if w.URLFile != "" {
		in.Endpoint.file = r.path(w.URLFile)
		return in
	}
	in.Endpoint.url = secret.String(w.URL)
	if err := checkURL(string(w.URL)); err != nil { // "<secret>", which Alertmanager itself shows
		r.mistake(at, "receiver %q: webhook_configs[%d]: url: %v", receiver, i, err)
	}
	return in
}

// anchor makes the relative paths of an http_config begin at the file's folder.
// Doing it twice changes nothing, since they are absolute then.
func (r *reader) anchor(c *commoncfg.HTTPClientConfig) { c.SetDirectory(r.dir) }

func (r *reader) path(p string) string {
	if filepath.IsAbs(p) {
		return p
	}
	return filepath.Join(r.dir, p)
}

func checkURL(text string) error {
	u, err := url.Parse(text)
	if err != nil || u.Host == "" || (u.Scheme != "http" && u.Scheme != "https") {
		return errors.New("not an http or https URL")
	}
	return nil
}

// lineOf finds where Alertmanager's reader says that something is wrong.
var lineOf = regexp.MustCompile(`^\s*line (\d+): (.*)$`)

// quotedURL is how net/url quotes what it cannot parse, which may be a secret.
var quotedURL = regexp.MustCompile(`parse "(?:[^"\\]|\\.)*": `)

// located returns the complaints of Alertmanager's reader with the lines that it
// tells.
func located(err error) []mistake {
	var list []mistake
	for line := range strings.SplitSeq(err.Error(), "\n") {
		line = strings.TrimPrefix(line, "yaml: ")
		if line == "unmarshal errors:" {
			continue
		}
		m := mistake{text: harmless(line)}
		if found := lineOf.FindStringSubmatch(line); found != nil {
			m.line, _ = strconv.Atoi(found[1]) // the pattern has digits only
			m.text = harmless(found[2])
		}
		list = append(list, m)
	}
	return list
}
