package event_test

import (
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/tocsin-dev/tocsin/internal/event"
)

func TestRedact(t *testing.T) {
	for name, test := range map[string]struct{ text, want string }{
		"a RunPod key":                           {"key rpa_ABC123DEF is bad", "key rpa_REDACTED is bad"},
		"a RunPod key inside a word":             {"xrpa_ABC123", "xrpa_REDACTED"},
		"a RunPod key in quotes":                 {`{"k":"rpa_ABC"}`, `{"k":"rpa_REDACTED"}`},
		"a key of the older kind":                {"rm_0123456789ABCDEF!", "rm_REDACTED!"},
		"a word that only begins like one":       {"rm_tmp and rpa_", "rm_tmp and rpa_"},
		"a bearer token":                         {"Authorization: Bearer xxx", "Authorization: REDACTED"},
		"a bearer token without its header":      {"sent bearer abc.def-ghi= to them", "sent bearer REDACTED to them"},
		"basic credentials":                      {"Basic dXNlcjpwdw==", "Basic REDACTED"},
		"an authorization header in JSON":        {`"authorization": "abc"`, `"authorization": "REDACTED"`},
		"user and password of a URL":             {"get https://user:pw@host/p?q=1", "get https://REDACTED@host/p?q=1"},
		"a user alone":                           {"nats://tok@127.0.0.1:4222", "nats://REDACTED@127.0.0.1:4222"},
		"a password with an @ in it":             {"https://u:p@ss@host/", "https://REDACTED@host/"},
		"an @ in the path is no userinfo":        {"https://host/a@b", "https://host/a@b"},
		"two URLs on a line":                     {"http://a:b@c http://d:e@f", "http://REDACTED@c http://REDACTED@f"},
		"a key in a query string":                {"GET /v2/x?api_key=abc&x=1", "GET /v2/x?api_key=REDACTED&x=1"},
		"a long opaque value by any name":        {"/x?sess=0123456789abcdef0123456789abcdef&y=2", "/x?sess=REDACTED&y=2"},
		"a short value by another name stays":    {"/x?page=2&size=100", "/x?page=2&size=100"},
		"a token in a query string":              {"/x?token=abc", "/x?token=REDACTED"},
		"a counter of tokens stays":              {"max_tokens=512 exceeds 256, tokens: 7", "max_tokens=512 exceeds 256, tokens: 7"},
		"a syntax error about a token stays":     {"unexpected token: <", "unexpected token: <"},
		"a password in JSON":                     {`{"password": "p w", "x": 1}`, `{"password": "REDACTED w", "x": 1}`},
		"a token in JSON":                        {`{"access_token":"abc"}`, `{"access_token":"REDACTED"}`},
		"an environment variable":                {"RUNPOD_API_KEY=abc", "RUNPOD_API_KEY=REDACTED"},
		"a secret access key":                    {"AWS_SECRET_ACCESS_KEY=wJalr/XUtn", "AWS_SECRET_ACCESS_KEY=REDACTED"},
		"a Hugging Face token":                   {"login hf_abcdefghijklmnop failed", "login hf_REDACTED failed"},
		"an OpenAI key":                          {"sk-proj-abcdefghijkl", "sk-REDACTED"},
		"an AWS key id":                          {"AKIAIOSFODNN7EXAMPLE", "AKIAREDACTED"},
		"a JSON Web Token":                       {"jwt eyJhbGciOiJI.eyJzdWIiOiIx.c2ln", "jwt REDACTED"},
		"the path of a Slack webhook":            {"post https://hooks.slack.com/services/T0/B0/xyz: EOF", "post https://hooks.slack.com/services/REDACTED EOF"},
		"the path of our own webhook":            {"POST /webhook/abc123 404", "POST /webhook/REDACTED 404"},
		"a sentence without a secret stays":      {"CUDA out of memory. Tried to allocate 2.00 GiB", "CUDA out of memory. Tried to allocate 2.00 GiB"},
		"a traceback stays":                      {`File "/app/handler.py", line 12, in run`, `File "/app/handler.py", line 12, in run`},
		"bytes that are no UTF-8 become a mark":  {"a\xffb", "a\uFFFDb"},
		"nothing":                                {"", ""},
		"other alphabets stay":                   {"ошибка 失败", "ошибка 失败"},
		"a mail address in a sentence stays":     {"ask ops@example.com", "ask ops@example.com"},
		"a digest of an image stays":             {"sha256:0123456789abcdef0123456789abcdef", "sha256:0123456789abcdef0123456789abcdef"},
		"a job's id in a path stays":             {"/v2/abc/status/6f1b-u1", "/v2/abc/status/6f1b-u1"},
		"an api key in a header of another name": {"x-api-key: abc", "x-api-key: REDACTED"},
	} {
		t.Run(name, func(t *testing.T) {
			got := event.Redact(test.text)
			if got != test.want {
				t.Errorf("Redact(%q)\n got %q\nwant %q", test.text, got, test.want)
			}
			if again := event.Redact(got); again != got {
				t.Errorf("redacting twice changes %q to %q", got, again)
			}
		})
	}
}

func FuzzRedactHidesKeysWhereverTheyStand(f *testing.F) {
	f.Add("status 401 for ", " at 12:00")
	f.Add("https://", "@host")
	f.Add(`{"api_key":"`, `"}`)
	f.Add("Bearer ", "\x00")
	f.Add("?a=", "&b=rpa_")
	f.Add("hf_", "/webhook/")
	const body = "Zq7Wv3Kx9Lm2Np5Rt8Ys1"
	shapes := []string{"rpa_" + body, "rm_" + body, "https://user:" + body + "@host", " Bearer " + body, "?api_key=" + body + "&"}
	f.Fuzz(func(t *testing.T, before, after string) {
		if strings.Contains(before+after, body) || len(before) > 1000 {
			return // the fuzzer wrote the body itself, or pushed it near the cut
		}
		for _, shape := range shapes {
			got := event.Redact(before + shape + after)
			if strings.Contains(got, body) {
				t.Errorf("%q shows the key: %q", before+shape+after, got)
			}
			if !utf8.ValidString(got) {
				t.Errorf("%q is no UTF-8", got)
			}
		}
	})
}

func TestRedactToCutsBetweenCharacters(t *testing.T) {
	for name, test := range map[string]struct {
		text  string
		limit int
		want  string
	}{
		"a short text stays":                         {"abc", 3, "abc"},
		"a long text is cut":                         {"abcd", 3, "abc"},
		"a character is not cut in two":              {"aü€", 5, "aü"},
		"no room for the first character is nothing": {"€", 2, ""},
		"a limit of 0 is nothing":                    {"abc", 0, ""},
		"half a key is not left over":                {"x rpa_0123456789", 8, "x rpa_RE"},
	} {
		if got := event.RedactTo(test.text, test.limit); got != test.want {
			t.Errorf("%s: got %q, want %q", name, got, test.want)
		}
	}
}

func TestRedactOfAHugeTextIsBounded(t *testing.T) {
	huge := strings.Repeat("a rpa_secret ", 2<<20/13) + "rpa_late"
	got := event.Redact(huge)
	if len(got) > 128<<10 || strings.Contains(got, "secret") || strings.Contains(got, "late") {
		t.Errorf("%d bytes are left, or a key", len(got))
	}
}
