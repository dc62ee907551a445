package foreign

import (
	"bytes"
	"encoding/base64"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"github.com/klauspost/compress/zstd"
)

// secrets are what must not be found anywhere.
var secrets = []string{apiKey, ingestToken, queryToken, hookSecret, envCanary, inputCanary, outputCanary, errorCanary, userCanary}

// searchForSecrets looks for secrets in what Tocsin printed, in what it sent,
// in each further text, and in every file of its data directory.
func (w *world) searchForSecrets(t *testing.T, printed string, further ...string) {
	t.Helper()
	search(t, "what it printed", []byte(printed))
	search(t, "what it sent", []byte(w.receiver.all()))
	for _, text := range further {
		search(t, "what it served", []byte(text))
	}
	files, unpacked := 0, 0
	err := filepath.WalkDir(w.data, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		raw, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		files++
		search(t, path, raw)
		for _, plain := range unpack(t, raw) {
			unpacked++
			search(t, path+", unpacked", plain)
		}
		return nil
	})
	if err != nil || files == 0 {
		t.Fatalf("%d files read in %s: %v", files, w.data, err)
	}
	t.Logf("searched %d files and %d compressed parts of them", files, unpacked)
}

func search(t *testing.T, where string, text []byte) {
	t.Helper()
	for _, secret := range secrets {
		for _, form := range []string{secret, base64.StdEncoding.EncodeToString([]byte(secret))} {
			if i := bytes.Index(text, []byte(form)); i >= 0 {
				t.Errorf("%s holds the secret %q: ...%q...", where, secret, text[max(i-80, 0):min(i+len(form)+40, len(text))])
			}
		}
	}
}

// unpack finds zstd frames, as snapshots have them, and returns what is in them.
func unpack(t *testing.T, raw []byte) [][]byte {
	t.Helper()
	magic := []byte{0x28, 0xb5, 0x2f, 0xfd}
	var all [][]byte
	for {
		i := bytes.Index(raw, magic)
		if i < 0 {
			return all
		}
		raw = raw[i:]
		decoder, err := zstd.NewReader(bytes.NewReader(raw), zstd.WithDecoderConcurrency(1))
		if err != nil {
			t.Fatal(err)
		}
		var plain bytes.Buffer
		_, _ = decoder.WriteTo(&plain) // ends with an error where the frame ends and other bytes follow
		decoder.Close()
		all = append(all, plain.Bytes())
		raw = raw[len(magic):]
	}
}
