package proc

import (
	"errors"
	"net/http"
	"runtime"
	"runtime/debug"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// scrapeTimeout bounds one answer of /metrics: Prometheus gives up after 10 s by
// default.
const scrapeTimeout = 10 * time.Second

// maxScrapes is how many scrapes are answered at once; two Prometheus servers
// and a curious person.
const maxScrapes = 3

// Build says which build of Tocsin a process is.
type Build struct {
	// Version is the module's version, or "devel".
	Version string
	// Revision is the commit, with "-dirty" when the tree had changes, or "unknown".
	Revision string
	// Go is the Go release it was built with.
	Go string
}

// ThisBuild returns what the Go toolchain recorded in this binary.
func ThisBuild() Build {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return Build{Version: "devel", Revision: "unknown", Go: runtime.Version()}
	}
	return buildOf(info)
}

func buildOf(info *debug.BuildInfo) Build {
	b := Build{Version: info.Main.Version, Revision: "unknown", Go: info.GoVersion}
	if b.Version == "" || b.Version == "(devel)" {
		b.Version = "devel"
	}
	dirty := ""
	for _, s := range info.Settings {
		switch {
		case s.Key == "vcs.revision":
			b.Revision = s.Value
		case s.Key == "vcs.modified" && s.Value == "true":
			dirty = "-dirty"
		}
	}
	b.Revision += dirty
	return b
}

// String returns the build in one line for --version.
func (b Build) String() string { return b.Version + " (" + b.Revision + ", " + b.Go + ")" }

// NewRegistry returns a registry of its own with the figures of the Go runtime,
// of the process, and tocsin_build_info.
func NewRegistry() *prometheus.Registry {
	reg := prometheus.NewRegistry()
	b := ThisBuild()
	reg.MustRegister(
		collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name:        "tocsin_build_info",
			Help:        "Constant 1, labelled by the build that runs.",
			ConstLabels: prometheus.Labels{"version": b.Version, "revision": b.Revision, "goversion": b.Go},
		}, func() float64 { return 1 }),
	)
	return reg
}

// Register registers c on reg and returns it, or the collector of the same
// description that is there already: in the all-in-one process services share a
// registry. A nil reg registers nowhere. It panics on a collector that contradicts
// another, which is a mistake in the code.
func Register[C prometheus.Collector](reg prometheus.Registerer, c C) C {
	if reg == nil {
		return c
	}
	err := reg.Register(c)
	if err == nil {
		return c
	}
	if twice, ok := errors.AsType[prometheus.AlreadyRegisteredError](err); ok {
		if there, ok := twice.ExistingCollector.(C); ok {
			return there
		}
	}
	panic(err)
}

// MetricsHandler answers with the figures of g in Prometheus's formats. One
// figure that cannot be gathered does not hide the others.
func MetricsHandler(g prometheus.Gatherer) http.Handler {
	return promhttp.HandlerFor(g, promhttp.HandlerOpts{
		ErrorHandling:       promhttp.ContinueOnError,
		MaxRequestsInFlight: maxScrapes,
		Timeout:             scrapeTimeout,
		EnableOpenMetrics:   true,
	})
}
