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
		"a password in JSON":                     {`{"password": "p w", "x": 1}`, `{"password": "REDACTED", "x": 1}`},
		"a password with a quote in it":          {`{"password": "p\"w", "x": 1}`, `{"password": "REDACTED", "x": 1}`},
		"a password in JSON within JSON":         {`{"body":"{\"password\": \"p w\", \"x\": 1}"}`, `{"body":"{\"password\": \"REDACTED", \"x\": 1}"}`},
		"a password in what Python prints":       {`{'password': 'p w', 'x': 1}`, `{'password': 'REDACTED', 'x': 1}`},
		"an authorization header within JSON":    {`{\"Authorization\": \"abc\"}`, `{\"Authorization\": \"REDACTED"}`},
		"a token in JSON within JSON":            {`{\"access_token\":\"abc\"}`, `{\"access_token\":\"REDACTED"}`},
		"a number of tokens in JSON stays":       {`{"max_token":512}`, `{"max_token":512}`},
		"a bearer token of any characters":       {"bearer abc!def:ghi, next", "bearer REDACTED, next"},
		"a short key of the older kind":          {"rm_0123456789", "rm_REDACTED"},
		"a word with rm_ in it stays":            {"form_1234567890 perform_it", "form_1234567890 perform_it"},
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

func TestHide(t *testing.T) {
	for name, test := range map[string]struct{ text, secret, want string }{
		"a key of any shape":            {`{"k":"OLDKEY0123"} OLDKEY0123`, "OLDKEY0123", `{"k":"REDACTED"} REDACTED`},
		"a text without it":             {"nothing here", "OLDKEY0123", "nothing here"},
		"a word that is part of others": {"no job in a job", "job", "no job in a job"},
		"no key at all":                 {"abc", "", "abc"},
	} {
		if got := string(event.Hide([]byte(test.text), test.secret)); got != test.want {
			t.Errorf("%s: got %q, want %q", name, got, test.want)
		}
	}
}

func TestLine(t *testing.T) {
	for name, test := range map[string]struct{ text, want string }{
		"lines and tabs become blanks":            {" a\r\n\tb  c\n", "a b c"},
		"what does not print goes away":           {"a\x00\x1b[31mb\u202ec\xff", "a[31mbc"},
		"what does not print within a key":        {"key rpa_AB\u200bCD\x00EF", "key rpa_REDACTED"},
		"an e-mail address":                       {"ask jo.doe+x@example.co.uk now", "ask [e-mail] now"},
		"what is left of a URL's user is no mail": {"get https://me:pw@example.com/x?y", "get https://REDACTED@example.com/x?y"},
		"another URL":                             {"get https://host/x@y", "get https://host/x@y"},
		"other alphabets stay":                    {"ошибка 失败", "ошибка 失败"},
		"a digest stays":                          {"app@sha256:0123abcd", "app@sha256:0123abcd"},
	} {
		if got := event.Line(test.text, 100); got != test.want {
			t.Errorf("%s: %q became %q, want %q", name, test.text, got, test.want)
		}
	}
	if got := event.Line(strings.Repeat("é", 100), 101); got != strings.Repeat("é", 50) {
		t.Errorf("the cut splits a character: %q", got)
	}
	if got := event.Line(strings.Repeat("a b\n", 1<<20), 300); len(got) > 300 {
		t.Errorf("%d bytes are left of 4 MiB", len(got))
	}
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
