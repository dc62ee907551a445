package cli

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"
)

func TestColoursAreForTerminals(t *testing.T) {
	if showsColours(&bytes.Buffer{}) {
		t.Error("a buffer shows colours")
	}
	f, err := os.Create(filepath.Join(t.TempDir(), "out"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if showsColours(f) {
		t.Error("a file shows colours")
	}
}
