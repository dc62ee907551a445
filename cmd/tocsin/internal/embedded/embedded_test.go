package embedded_test

import (
	"bufio"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/tocsin-dev/tocsin/cmd/tocsin/internal/embedded"
)

func start(t *testing.T, dir string) *embedded.Servers {
	t.Helper()
	s, err := embedded.Start(t.Context(), dir, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatalf("start: %v", err)
	}
	t.Cleanup(s.Close)
	return s
}

func TestASecondProcessOnTheSameDirectoryIsRefused(t *testing.T) {
	dir := t.TempDir()
	first := start(t, dir)
	if _, err := embedded.Start(t.Context(), dir, slog.New(slog.DiscardHandler)); !errors.Is(err, embedded.ErrInUse) {
		t.Fatalf("second start: %v, want ErrInUse", err)
	}
	first.Close()
	start(t, dir)
}

func TestTheSizeOfTheHistoryIsDecidedOnce(t *testing.T) {
	dir := t.TempDir()
	first := start(t, dir)
	if first.HistoryBytes <= 0 || first.HistoryBytes > 10<<30 {
		t.Fatalf("history of %d bytes, want more than 0 and at most 10 GiB", first.HistoryBytes)
	}
	first.Close()
	if err := os.WriteFile(filepath.Join(dir, "history-bytes"), []byte("12345678\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if again := start(t, dir); again.HistoryBytes != 12345678 {
		t.Errorf("history of %d bytes after a restart, want the recorded 12345678", again.HistoryBytes)
	}
}

func TestASizeThatAKilledProcessDidNotWriteIsDecidedAnew(t *testing.T) {
	dir := t.TempDir()
	record := filepath.Join(dir, "history-bytes")
	if err := os.WriteFile(record, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	s := start(t, dir)
	if text, err := os.ReadFile(record); err != nil || s.HistoryBytes <= 0 || string(text) != fmt.Sprintln(s.HistoryBytes) {
		t.Errorf("history of %d bytes, recorded as %q, %v", s.HistoryBytes, text, err)
	}
}

func TestARecordOfTheSizeThatCannotBeReadIsAnError(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "history-bytes"), []byte("lots"), 0o600); err != nil {
		t.Fatal(err)
	}
	if s, err := embedded.Start(t.Context(), dir, slog.New(slog.DiscardHandler)); err == nil {
		s.Close()
		t.Fatal("started with an unreadable record")
	}
}

func TestRedisIsClosedToThoseWithoutThePassword(t *testing.T) {
	s := start(t, t.TempDir())
	conn, err := net.Dial("tcp", s.RedisAddress)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	answers := bufio.NewScanner(conn)
	for _, step := range []struct{ send, want string }{
		{"PING", "-NOAUTH"},
		{"AUTH " + s.RedisPassword, "+OK"},
		{"PING", "+PONG"},
	} {
		words := strings.Fields(step.send)
		frame := fmt.Sprintf("*%d\r\n", len(words))
		for _, word := range words {
			frame += fmt.Sprintf("$%d\r\n%s\r\n", len(word), word)
		}
		if _, err := conn.Write([]byte(frame)); err != nil {
			t.Fatal(err)
		}
		if !answers.Scan() || !strings.HasPrefix(answers.Text(), step.want) {
			t.Fatalf("answer to %q: %q, want %s", words[0], answers.Text(), step.want)
		}
	}
}
