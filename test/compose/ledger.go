package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

// ledger is what the receiver was told, read from its log.
type ledger struct {
	past    []delivery // of receivers that were taken down
	present []delivery
}

// delivery is one line of "receive --json".
type delivery struct {
	ID     string          `json:"webhook_id"`
	Repeat bool            `json:"repeat"`
	Body   json.RawMessage `json:"body"`

	alerts []alert
}

// alert is what a delivery says of one.
type alert struct {
	ID       string            `json:"id"`
	Status   string            `json:"status"`
	Labels   map[string]string `json:"labels"`
	StartsAt time.Time         `json:"startsAt"`
	Sequence uint64            `json:"sequence"`
}

// read takes the whole log of the present receiver.
func (l *ledger) read(log string) error {
	var all []delivery
	lines := bufio.NewScanner(strings.NewReader(log))
	lines.Buffer(nil, 4<<20)
	for lines.Scan() {
		d := delivery{}
		if err := json.Unmarshal(lines.Bytes(), &d); err != nil {
			// The last line of a receiver that was killed may be half a line.
			continue
		}
		var body struct {
			Data struct {
				Alerts []alert `json:"alerts"`
			} `json:"data"`
		}
		if err := json.Unmarshal(d.Body, &body); err != nil {
			return fmt.Errorf("a delivery that is not of the form: %w: %s", err, d.Body)
		}
		d.alerts = body.Data.Alerts
		all = append(all, d)
	}
	l.present = all
	return lines.Err()
}

// turn keeps what was read of a receiver that is gone.
func (l *ledger) turn() { l.past, l.present = l.all(), nil }

func (l *ledger) all() []delivery { return slices.Concat(l.past, l.present) }

func (l *ledger) deliveries() int { return len(l.all()) }

func (l *ledger) repeats() (n int) {
	ids := map[string]bool{}
	for _, d := range l.all() {
		if ids[d.ID] {
			n++
		}
		ids[d.ID] = true
	}
	return n
}

func (l *ledger) alerts() int { return len(l.last()) }

// last is the last thing told of each alert, by its id.
func (l *ledger) last() map[string]alert {
	by := map[string]alert{}
	for _, d := range l.all() {
		for _, a := range d.alerts {
			by[a.ID] = a
		}
	}
	return by
}

// firing returns an alert of a rule that was last told as firing, and of which
// nothing was told before.
func (l *ledger) firing(rule string, known map[string]alert) (alert, bool) {
	for id, a := range l.last() {
		if _, old := known[id]; !old && a.Status == "firing" && a.Labels["alertname"] == rule {
			return a, true
		}
	}
	return alert{}, false
}

// told counts the alerts of a rule.
func (l *ledger) told(rule string) (n int) {
	for _, a := range l.last() {
		if a.Labels["alertname"] == rule {
			n++
		}
	}
	return n
}

// check verifies what holds at any time: a delivery that is repeated is the same
// to the byte, and an alert keeps its start, never goes back, and does not fire
// once it was resolved.
func (l *ledger) check() error {
	var errs []error
	bodies := map[string][]byte{}
	states := map[string]alert{}
	for _, d := range l.all() {
		if d.ID == "" {
			errs = append(errs, fmt.Errorf("a delivery has no webhook-id: %s", d.Body))
		}
		first, seen := bodies[d.ID]
		if seen && !bytes.Equal(first, d.Body) {
			errs = append(errs, fmt.Errorf("delivery %s was repeated with another body:\n%s\n%s", d.ID, first, d.Body))
		}
		bodies[d.ID] = d.Body
		for _, a := range d.alerts {
			last, known := states[a.ID]
			switch {
			case known && a.Sequence < last.Sequence:
				errs = append(errs, fmt.Errorf("alert %s went back from sequence %d to %d", a.ID, last.Sequence, a.Sequence))
			case known && last.Status == "resolved" && a.Status == "firing":
				errs = append(errs, fmt.Errorf("alert %s (%s) was told firing after resolved", a.ID, a.Labels["alertname"]))
			case known && !last.StartsAt.Equal(a.StartsAt):
				errs = append(errs, fmt.Errorf("alert %s began at %v and then at %v", a.ID, last.StartsAt, a.StartsAt))
			}
			states[a.ID] = a
		}
	}
	return errors.Join(errs...)
}
