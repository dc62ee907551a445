package proc

import (
	"net/http/httptest"
	"runtime/debug"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
)

func TestMetricsHandlerServesTheBuild(t *testing.T) {
	reg := NewRegistry()
	w := httptest.NewRecorder()
	MetricsHandler(reg).ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), "GET", "/metrics", nil))
	b := ThisBuild()
	want := `tocsin_build_info{goversion="` + b.Go + `",revision="` + b.Revision + `",version="` + b.Version + `"} 1`
	for _, line := range []string{want, "go_goroutines ", "process_open_fds "} {
		if !strings.Contains(w.Body.String(), line) {
			t.Errorf("no %s in\n%s", line, w.Body)
		}
	}
}

func TestBuildOf(t *testing.T) {
	settings := func(pairs ...string) []debug.BuildSetting {
		var s []debug.BuildSetting
		for i := 0; i < len(pairs); i += 2 {
			s = append(s, debug.BuildSetting{Key: pairs[i], Value: pairs[i+1]})
		}
		return s
	}
	for name, test := range map[string]struct {
		info debug.BuildInfo
		want string
	}{
		"a release":           {debug.BuildInfo{GoVersion: "go1.26", Main: debug.Module{Version: "v1.2.3"}, Settings: settings("vcs.revision", "abc", "vcs.modified", "false")}, "v1.2.3 (abc, go1.26)"},
		"a tree with changes": {debug.BuildInfo{GoVersion: "go1.26", Main: debug.Module{Version: "(devel)"}, Settings: settings("vcs.modified", "true", "vcs.revision", "abc")}, "devel (abc-dirty, go1.26)"},
		"nothing recorded":    {debug.BuildInfo{GoVersion: "go1.26"}, "devel (unknown, go1.26)"},
	} {
		if got := buildOf(&test.info).String(); got != test.want {
			t.Errorf("%s: %s", name, got)
		}
	}
}

func TestRegisterSharesOneCollector(t *testing.T) {
	counter := func(help string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Name: "tocsin_x_total", Help: help}, []string{"a"})
	}
	reg := prometheus.NewRegistry()
	first := Register(reg, counter("x"))
	if second := Register(reg, counter("x")); second != first {
		t.Error("two services that share a registry count apart")
	}
	lone := counter("x")
	if got := Register(nil, lone); got != lone {
		t.Error("without a registry another collector came back")
	}
	defer func() {
		if recover() == nil {
			t.Error("a contradiction was taken in silence")
		}
	}()
	Register(reg, counter("another help"))
}
