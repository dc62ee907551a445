package foreign

import (
	"net/http"
	"strings"
	"testing"

	"github.com/tocsin-dev/tocsin/test/internal/process"
)

// TestAKeyThatIsRefusedAtTheStart starts with a key that RunPod does not know,
// or that may not read, in whatever words RunPod says so.
func TestAKeyThatIsRefusedAtTheStart(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		answer http.HandlerFunc
		want   []string
		not    string
	}{
		"401 as a problem":          {says(401, `{"title":"Unauthorized","status":401,"detail":"key `+apiKey+` is not valid"}`, "Content-Type", "application/problem+json"), []string{"401", "key"}, "403"},
		"401 as a page":             {says(401, "<html>"+apiKey+"</html>", "Content-Type", "text/html"), []string{"401", "key"}, "403"},
		"401 without a word":        {says(401, ""), []string{"401", "key"}, "403"},
		"403 as a problem":          {says(403, `{"title":"Forbidden","status":403,"detail":"missing scope"}`), []string{"403", "read access"}, "401"},
		"403 as a text that tells":  {says(403, "Bearer "+apiKey+" lacks a scope"), []string{"403", "read access"}, "401"},
		"403 without a body at all": {says(403, ""), []string{"403", "read access"}, "401"},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, 1000)
			w.rest.misbehave(test.answer)
			code, stdout, stderr := process.Once(t, nil, "up", "--config", w.config, "--data", w.data)
			if code != 2 {
				t.Errorf("it ended with code %d, want 2", code)
			}
			last := lastLine(stderr)
			for _, want := range test.want {
				if !strings.Contains(last, want) {
					t.Errorf("its last line does not say %q: %s", want, last)
				}
			}
			if strings.Contains(last, test.not) {
				t.Errorf("its last line speaks of %s: %s", test.not, last)
			}
			w.searchForSecrets(t, stdout+stderr)
		})
	}
}

// TestAKeyThatMayReadOnlyAPart starts with a key that may not list pods: the
// endpoints are watched all the same.
func TestAKeyThatMayReadOnlyAPart(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 1000)
	w.rest.misbehave(func(rw http.ResponseWriter, req *http.Request) {
		if strings.HasSuffix(req.URL.Path, "/pods") {
			problem(rw, http.StatusForbidden, "missing scope")
			return
		}
		says(200, `{"endpoints":[{"id":"seen","name":"seen","type":"QUEUE"}]}`)(rw, req)
	})
	s := w.up(t)
	if line := s.WaitFor(0, "403", "pods"); strings.Contains(line, apiKey) {
		t.Errorf("the key is printed: %s", line)
	}
	query := reflectOn(t, s.query, queryToken)
	eventually(t, "the endpoint is watched", func() string {
		return unequal(field(query.targets(t, "TARGET_KIND_ENDPOINT")["seen"], "jobs.in_queue"), "0")
	})
	if code := s.Stop(); code != 0 {
		t.Errorf("it ended with code %d, want 0", code)
	}
}

func lastLine(text string) string {
	lines := strings.Split(strings.TrimSpace(text), "\n")
	return lines[len(lines)-1]
}
