package stack

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/tocsin-dev/tocsin/internal/bus"
	"github.com/tocsin-dev/tocsin/test/fault/plan"
)

// data returns the folder of NATS's data: all of it, or that of a stream.
func (s *Stack) data(part string) string {
	dir := filepath.Join(s.opts.Dir, "nats")
	if part == "" {
		return dir
	}
	return filepath.Join(dir, "jetstream", "$G", "streams", part)
}

// copied is where Copy leaves what it copies.
func (s *Stack) copied() string { return filepath.Join(s.opts.Dir, "nats-copy") }

// streams lists those whose data is meant.
func streams(part string) []string {
	if part == "" {
		return []string{bus.EventsStream, bus.AlertsStream, bus.DeliveriesStream}
	}
	return []string{part}
}

// Copy keeps NATS's data, or that of one stream, as it is on disk at this moment.
func (s *Stack) Copy(part string) {
	s.t.Helper()
	s.Pause(plan.NATS)
	defer s.Resume(plan.NATS)
	s.stopped(plan.NATS)
	s.mark = s.Wire.Mark()
	if err := os.CopyFS(s.copied(), os.DirFS(s.data(part))); err != nil {
		s.t.Fatalf("copy NATS's data: %v", err)
	}
}

// stopped waits until a paused process stands still.
func (s *Stack) stopped(name string) {
	s.t.Helper()
	const limit = 10 * time.Second
	path := fmt.Sprintf("/proc/%d/stat", s.nodes[name].running.PID())
	for deadline := time.Now().Add(limit); ; {
		text, err := os.ReadFile(path)
		if errors.Is(err, os.ErrNotExist) {
			return // there is no /proc; the signal must do
		}
		// "pid (name) state ...": the name may hold anything, a parenthesis too.
		_, rest, ok := strings.Cut(string(text[strings.LastIndexByte(string(text), ')')+1:]), " ")
		if err == nil && ok && strings.HasPrefix(rest, "T") {
			return
		}
		if time.Now().After(deadline) {
			s.t.Fatalf("%s does not stop: %q, %v", name, text, err)
		}
	}
}

// Lose kills NATS and removes its data, or that of one stream.
func (s *Stack) Lose(part string) {
	s.t.Helper()
	s.lose(part, 0)
}

// lose is Lose where what was acknowledged before a mark will come back.
func (s *Stack) lose(part string, mark int) {
	s.t.Helper()
	s.Kill(plan.NATS)
	s.Wire.Lose(streams(part), mark)
	if err := os.RemoveAll(s.data(part)); err != nil {
		s.t.Fatalf("remove NATS's data: %v", err)
	}
}

// Rollback kills NATS, puts what Copy kept in the place of its data, and starts
// it.
func (s *Stack) Rollback(part string) {
	s.t.Helper()
	s.lose(part, s.mark)
	if err := os.Rename(s.copied(), s.data(part)); err != nil {
		s.t.Fatalf("roll NATS's data back: %v", err)
	}
	s.Restart(plan.NATS)
}
