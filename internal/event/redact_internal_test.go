package event

import (
	"testing"
	"unicode/utf8"
)

// FuzzNoShapeIsMissedForWantOfItsWords compares what is hidden with what a search
// for every shape hides.
func FuzzNoShapeIsMissedForWantOfItsWords(f *testing.F) {
	f.Add(`{"RUNPOD_API_KEY": "x", 'Pwd': 'y'} Bearer z`)
	f.Add("RPA_x RM_0123456789 eyJabcdefg.h AKIA0123456789 GHP_0123456789 ghp_0123456789 https://u:p@h/?a=0123456789abcdef0123456789abcdef")
	f.Add("Basic dXNlcjpwdw== hooks.slack.com/services/x /Webhook/y sessionid=1 'sig': 'z' xoxb-0123456789")
	f.Add("pa\u017fsword=x to\u212aen=y")
	f.Fuzz(func(t *testing.T, text string) {
		want := text
		if len(want) > maxRedact || !utf8.ValidString(want) {
			return
		}
		for _, h := range hiding {
			want = h.shape.ReplaceAllString(want, h.with)
		}
		if got := Redact(text); got != want {
			t.Errorf("%q became %q, want %q", text, got, want)
		}
	})
}

func BenchmarkRedact(b *testing.B) {
	for name, text := range map[string]string{
		"name":  "team02-prod-00123",
		"image": "runpod/pytorch:1.0.2-cu1281-torch280-ubuntu2404",
		"error": "CUDA out of memory. Tried to allocate 2.50 GiB. GPU 0 has a total capacity of 23.65 GiB",
		"key":   "GET /v2/x?api_key=abc&x=1 refused for rpa_ABCDEF",
	} {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				Redact(text)
			}
		})
	}
}
