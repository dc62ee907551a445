package rig

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"os"
	"runtime"
	"runtime/pprof"
	"sync"

	"golang.org/x/sync/errgroup"

	"github.com/tocsin-dev/tocsin/internal/proc"
	"github.com/tocsin-dev/tocsin/internal/secret"
	"github.com/tocsin-dev/tocsin/rules"
	"github.com/tocsin-dev/tocsin/services/alerter"
	"github.com/tocsin-dev/tocsin/services/collector"
	"github.com/tocsin-dev/tocsin/services/notifier"
)

// Main runs the service that a Spec in a file names until it is asked to stop or
// its standard input ends, and returns the exit code. It logs as the shipped
// programs do.
func Main(file string) int {
	return proc.Main(ServeArgument, func(ctx context.Context, _ []string) error {
		text, err := os.ReadFile(file)
		if err != nil {
			return fmt.Errorf("read what to run: %w", err)
		}
		var s Spec
		if err := json.Unmarshal(text, &s); err != nil {
			return fmt.Errorf("read what to run: %w", err)
		}
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		go func() {
			// Whoever started this holds the other end and writes nothing.
			_, _ = io.Copy(io.Discard, os.Stdin)
			cancel()
		}()
		return serve(ctx, s, os.Stdout)
	})
}

func serve(ctx context.Context, s Spec, stdout io.Writer) error {
	log, err := proc.Logger(os.Stderr, proc.DefaultLogConfig())
	if err != nil {
		return err
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return fmt.Errorf("listen for profiles: %w", err)
	}
	tell := func(grpc, http string) {
		// Whoever does not read this waits in vain, and says so.
		_ = json.NewEncoder(stdout).Encode(Ready{GRPC: grpc, HTTP: http, Profiler: ln.Addr().String()})
	}
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return proc.ServeHTTP(ctx, ln, new(profiler).handler(), log) })
	g.Go(func() error { return s.run(ctx, log, tell) })
	if err := g.Wait(); err != nil && !errors.Is(err, context.Canceled) {
		return err
	}
	return nil
}

// run runs the service, and tells its addresses when it works.
func (s *Spec) run(ctx context.Context, log *slog.Logger, tell func(grpc, http string)) error {
	const anyPort = "127.0.0.1:0"
	switch s.Service {
	case "collector":
		o := collector.DefaultOptions()
		o.NATS.URL, o.Log = s.NATS, log
		o.RunPod.APIKey = secret.String(s.Key)
		o.RunPod.RESTURL, o.RunPod.ServerlessURL = s.RunPod+"/v2", s.RunPod+"/runtime/v2"
		o.Collector.IngestAddress, o.Collector.GRPCAddress, o.Collector.HTTPAddress = anyPort, anyPort, anyPort
		o.Collector.HealthInterval = s.HealthInterval
		o.Ready = func(a collector.Addresses) { tell(a.GRPC.String(), a.HTTP.String()) }
		return collector.Run(ctx, o)
	case "alerter":
		o := alerter.DefaultOptions()
		o.NATS.URL, o.Log = s.NATS, log
		o.Redis.Address, o.Notifier.Address = s.Redis, s.Notifier
		o.GRPCAddress, o.HTTPAddress = anyPort, anyPort
		o.RuleFiles = rules.Default()
		maps.Copy(o.RuleFiles, s.Rules)
		if s.SnapshotInterval > 0 {
			o.SnapshotInterval = s.SnapshotInterval
		}
		o.Ready = func(a alerter.Addresses) { tell(a.GRPC, a.HTTP) }
		return alerter.Run(ctx, o)
	case "notifier":
		o := notifier.DefaultOptions()
		o.NATS.URL, o.Log, o.Config = s.NATS, log, s.Routes
		o.GRPCAddress, o.HTTPAddress = anyPort, anyPort
		o.Ready = func(a notifier.Addresses) { tell(a.GRPC, a.HTTP) }
		return notifier.Run(ctx, o)
	default:
		return fmt.Errorf("there is no service %q", s.Service)
	}
}

// profiler gives the profiles of this process.
type profiler struct {
	mu  sync.Mutex
	cpu *bytes.Buffer // guarded by mu; nil while none is taken
}

func (p *profiler) handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("POST /cpu/start", p.start)
	mux.HandleFunc("POST /cpu/stop", p.stop)
	mux.HandleFunc("GET /heap", func(w http.ResponseWriter, _ *http.Request) {
		runtime.GC()
		// An error here is a caller who went away.
		_ = pprof.Lookup("heap").WriteTo(w, 0)
	})
	mux.HandleFunc("POST /memory", func(w http.ResponseWriter, _ *http.Request) {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		// Twice, so that what finalizers and pools let go in the first is gone too.
		runtime.GC()
		runtime.GC()
		runtime.ReadMemStats(&after)
		_ = json.NewEncoder(w).Encode(Memory{Live: after.HeapAlloc, InUse: before.HeapInuse})
	})
	return mux
}

func (p *profiler) start(w http.ResponseWriter, _ *http.Request) {
	p.mu.Lock()
	defer p.mu.Unlock()
	buffer := new(bytes.Buffer)
	if err := pprof.StartCPUProfile(buffer); err != nil {
		http.Error(w, err.Error(), http.StatusConflict)
		return
	}
	p.cpu = buffer
}

func (p *profiler) stop(w http.ResponseWriter, _ *http.Request) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.cpu == nil {
		http.Error(w, "no profile is taken", http.StatusConflict)
		return
	}
	pprof.StopCPUProfile()
	// An error here is a caller who went away.
	_, _ = w.Write(p.cpu.Bytes())
	p.cpu = nil
}
