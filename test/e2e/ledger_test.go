package e2e

import (
	"testing"
	"time"

	"github.com/tocsin-dev/tocsin/test/internal/ledger"
	"github.com/tocsin-dev/tocsin/test/internal/process"
)

// waitFor waits until what a receiver was sent as a whole satisfies a condition.
func waitFor(t *testing.T, l *ledger.Ledger, what string, holds func([]ledger.Entry) bool) {
	t.Helper()
	deadline := time.After(process.Patience)
	for {
		entries, changed := l.Changed()
		if holds(entries) {
			return
		}
		select {
		case <-changed:
		case <-deadline:
			t.Fatalf("not within %v: %s; received: %s", process.Patience, what, ledger.Summary(entries))
		}
	}
}

// check verifies what holds at any time: repeats are equal to the byte, no
// state goes backwards, and an alert keeps its start.
func check(t *testing.T, entries []ledger.Entry) {
	t.Helper()
	for _, wrong := range append(ledger.Repeats(entries), ledger.Order(entries, true)...) {
		t.Error(wrong)
	}
}
