// Package receiver is the webhook receiver of the demo and of "tocsin receive":
// it takes Tocsin's own deliveries over HTTP, checks their signatures with the
// reference library of Standard Webhooks, and prints one line for each alert, or
// each delivery as it came.
package receiver

import (
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"time"
	"unicode"

	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"
)

// maxBody bounds a delivery: Standard Webhooks advises 20 kB, and a group of
// many alerts may be larger.
const maxBody = 1 << 20

// secretBytes is the length of the keys that NewSecret makes; Standard Webhooks
// asks for 24 to 64.
const secretBytes = 32

// maxSeen bounds the ids that are remembered to tell repeats: at about 60
// bytes an id it is 6 MB, days of a demo.
const maxSeen = 100_000

// NewSecret returns a new signing key in the form whsec_...
func NewSecret() string {
	key := make([]byte, secretBytes)
	rand.Read(key) // never fails
	return "whsec_" + base64.StdEncoding.EncodeToString(key)
}

// Options say what a receiver does with what it is sent.
type Options struct {
	// Out is where it is printed.
	Out io.Writer
	// Secret is the whsec_ text that the sender signs with.
	Secret string
	// Colour makes the lines of alerts coloured.
	Colour bool
	// JSON prints each delivery, repeats too, as one line of JSON.
	JSON bool
}

// Receiver is an http.Handler that prints the alerts it is sent.
type Receiver struct {
	verify *standardwebhooks.Webhook
	opts   Options

	mu   sync.Mutex      // guards opts.Out too
	seen map[string]bool // guarded by mu
}

// New returns a receiver. It returns an error when the secret is none.
func New(o Options) (*Receiver, error) {
	verify, err := standardwebhooks.NewWebhook(o.Secret)
	if err != nil {
		return nil, fmt.Errorf("read the signing secret: %w", err)
	}
	return &Receiver{verify: verify, opts: o, seen: map[string]bool{}}, nil
}

// Line is what is printed of a delivery with Options.JSON.
type Line struct {
	// ID is the delivery's webhook-id.
	ID string `json:"webhook_id"`
	// Repeat is true when a delivery of this id was printed before.
	Repeat bool `json:"repeat"`
	// Body is what was sent.
	Body json.RawMessage `json:"body"`
}

// delivery is the part of a delivery that is printed.
type delivery struct {
	Type string `json:"type"`
	Data struct {
		Alerts []alert `json:"alerts"`
	} `json:"data"`
}

type alert struct {
	Status      string            `json:"status"`
	Labels      map[string]string `json:"labels"`
	Annotations map[string]string `json:"annotations"`
	StartsAt    time.Time         `json:"startsAt"`
	EndsAt      time.Time         `json:"endsAt"`
	Worst       []struct {
		Name   string  `json:"name"`
		Number float64 `json:"number"`
	} `json:"worst"`
}

// ServeHTTP answers 401 to what is not signed, 400 to what cannot be read, and
// 200 to the rest, repeats included: those are answered and not printed again.
func (r *Receiver) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	body, err := io.ReadAll(http.MaxBytesReader(w, req.Body, maxBody))
	if err != nil {
		http.Error(w, "the body is too large", http.StatusRequestEntityTooLarge)
		return
	}
	if err := r.verify.Verify(body, req.Header); err != nil {
		http.Error(w, "the signature does not hold", http.StatusUnauthorized)
		return
	}
	var d delivery
	if err := json.Unmarshal(body, &d); err != nil {
		http.Error(w, "the body is not JSON", http.StatusBadRequest)
		return
	}
	if err := r.print(req.Header.Get("webhook-id"), d, body); err != nil {
		// What could not be written was not received: the sender will try again.
		http.Error(w, "it cannot be printed", http.StatusInternalServerError)
	}
}

func (r *Receiver) print(id string, d delivery, body []byte) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	repeat := r.seen[id]
	if r.opts.JSON {
		line, err := json.Marshal(Line{ID: id, Repeat: repeat, Body: body})
		if err != nil {
			return err
		}
		if _, err := fmt.Fprintf(r.opts.Out, "%s\n", line); err != nil {
			return err
		}
	}
	if !repeat && !r.opts.JSON {
		for _, a := range d.Data.Alerts {
			if _, err := fmt.Fprintln(r.opts.Out, r.line(a)); err != nil {
				return err
			}
		}
	}
	if len(r.seen) >= maxSeen {
		clear(r.seen)
	}
	r.seen[id] = true
	return nil
}

// The colours of the terminal.
const (
	red    = "\x1b[31;1m"
	yellow = "\x1b[33m"
	blue   = "\x1b[36m"
	green  = "\x1b[32m"
	dim    = "\x1b[2m"
	plain  = "\x1b[0m"
)

func (r *Receiver) line(a alert) string {
	at, word, colour := a.StartsAt, "FIRING", yellow
	switch a.Labels["severity"] {
	case "critical":
		colour = red
	case "info":
		colour = blue
	}
	detail := a.Annotations["summary"]
	if a.Status == "resolved" {
		at, word, colour = a.EndsAt, "RESOLVED", green
		lasted := a.EndsAt.Sub(a.StartsAt).Round(time.Second).String()
		if len(a.Worst) > 0 { // the first is what the rule is about
			lasted += fmt.Sprintf(", worst %s %.4g", a.Worst[0].Name, a.Worst[0].Number)
		}
		detail = fmt.Sprintf("after %s: %s", lasted, detail)
	}
	start, end, faint := colour, plain, dim
	if !r.opts.Colour {
		start, end, faint = "", "", ""
	}
	return fmt.Sprintf("%s%s%s %s%-8s %-8s %-18s%s %s",
		faint, at.Local().Format(time.TimeOnly), end,
		start, word, oneLine(a.Labels["severity"]), oneLine(a.Labels["alertname"]), end, oneLine(detail))
}

// oneLine keeps a text that came from outside from moving the cursor or
// starting a line of its own.
func oneLine(text string) string {
	return strings.Map(func(c rune) rune {
		if !unicode.IsPrint(c) {
			return ' '
		}
		return c
	}, text)
}
