package foreign

import (
	"bytes"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus/testutil/promlint"
	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"

	"github.com/tocsin-dev/tocsin/test/internal/process"
)

// client gives up before a test does.
var client = &http.Client{Timeout: process.Patience}

// scrape is what a /metrics page says.
type scrape struct {
	text     string
	families map[string]*dto.MetricFamily
}

// get makes a request with a bearer token, if there is one, and returns the
// answer.
func get(t *testing.T, url, token string) (status int, header http.Header, body string) {
	t.Helper()
	return send(t, http.MethodGet, url, "", map[string]string{"Authorization": "Bearer " + token})
}

// send makes a request and returns the answer. Headers that are empty or end in
// "Bearer " are left out.
func send(t *testing.T, method, url, body string, headers map[string]string) (status int, header http.Header, answer string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	for name, value := range headers {
		if value != "" && value != "Bearer " {
			req.Header.Set(name, value)
		}
	}
	resp, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, resp.Header, string(text)
}

// scrapeOf reads a /metrics page as Prometheus does.
func scrapeOf(t *testing.T, base, token string) scrape {
	t.Helper()
	if !strings.Contains(base, "://") {
		base = "http://" + base
	}
	status, _, page := get(t, base+"/metrics", token)
	if status != http.StatusOK {
		t.Fatalf("GET %s/metrics: %d\n%s", base, status, page)
	}
	parser := expfmt.NewTextParser(model.UTF8Validation)
	families, err := parser.TextToMetricFamilies(strings.NewReader(page))
	if err != nil {
		t.Fatalf("%s/metrics is no metrics page: %v", base, err)
	}
	return scrape{text: page, families: families}
}

// lint reports what Prometheus's own linter finds. The issue itself asks for the
// name runpod_gpu_utilization_percent, and percent is what RunPod gives.
func (s scrape) lint(t *testing.T) {
	t.Helper()
	problems, err := promlint.New(bytes.NewReader([]byte(s.text))).Lint()
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range problems {
		if strings.HasPrefix(p.Metric, "runpod_") && strings.HasSuffix(p.Metric, "_percent") {
			continue
		}
		t.Errorf("metric %s: %s", p.Metric, p.Text)
	}
}

// value returns the sum of the series of a family that have all the labels, given
// as pairs, and how many there are. Of a histogram it is the count.
func (s scrape) value(name string, labels ...string) (sum float64, series int) {
	for _, m := range s.families[name].GetMetric() {
		if !labelled(m, labels) {
			continue
		}
		series++
		sum += m.GetCounter().GetValue() + m.GetGauge().GetValue() + m.GetUntyped().GetValue() + float64(m.GetHistogram().GetSampleCount())
	}
	return sum, series
}

func labelled(m *dto.Metric, labels []string) bool {
	for i := 0; i < len(labels); i += 2 {
		if !slices.ContainsFunc(m.GetLabel(), func(l *dto.LabelPair) bool {
			return l.GetName() == labels[i] && l.GetValue() == labels[i+1]
		}) {
			return false
		}
	}
	return true
}
