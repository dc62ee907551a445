package proc

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"runtime/debug"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/tocsin-dev/tocsin/internal/fault"
)

// The bounds of an HTTP server. A caller on the same network needs milliseconds;
// the bounds are for those who hold a connection to hold it.
const (
	readHeaderTimeout = 5 * time.Second
	readTimeout       = 30 * time.Second // a whole body of MaxBody at 36 KB/s
	writeTimeout      = 60 * time.Second // the slowest answer that is not a stream
	idleTimeout       = 2 * time.Minute
	maxHeaderBytes    = 32 << 10
	// stopGrace is how long requests in flight may take to end when the process
	// stops. Ctrl-C must end it within 3 s, so 2 s leave one for what comes after.
	stopGrace = 2 * time.Second
)

// MaxBody is the largest request body that a server of ServeHTTP reads, in
// bytes, where the handler sets no smaller bound: 4,000 job registrations of
// 256 bytes.
const MaxBody = 1 << 20

// ServeHTTP serves h on ln until ctx ends, then lets requests in flight end for
// up to two seconds, and closes ln. A handler that panics answers 500 and is
// logged; the server goes on. It returns an error when the listener fails, and
// nil when it was stopped.
func ServeHTTP(ctx context.Context, ln net.Listener, h http.Handler, log *slog.Logger) error {
	srv := &http.Server{
		Handler:           http.MaxBytesHandler(recovered(h, log), MaxBody),
		ReadHeaderTimeout: readHeaderTimeout,
		ReadTimeout:       readTimeout,
		WriteTimeout:      writeTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    maxHeaderBytes,
		ErrorLog:          slog.NewLogLogger(log.Handler(), slog.LevelDebug),
	}
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error {
		if err := srv.Serve(ln); !errors.Is(err, http.ErrServerClosed) {
			return fmt.Errorf("serve HTTP on %s: %w", ln.Addr(), err)
		}
		return nil
	})
	g.Go(func() error {
		<-ctx.Done()
		grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopGrace)
		defer cancel()
		if err := srv.Shutdown(grace); err != nil {
			// Those who did not end in time are cut off; that is what the bound is for.
			_ = srv.Close()
		}
		return nil
	})
	return g.Wait()
}

// recovered turns a panic of h into a 500 and an error in the log.
func recovered(h http.Handler, log *slog.Logger) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		seen := &answered{ResponseWriter: w}
		defer func() {
			p := recover()
			if p == nil {
				return
			}
			if err, ok := p.(error); ok && errors.Is(err, http.ErrAbortHandler) {
				panic(p) // the handler's way to cut the connection
			}
			log.ErrorContext(r.Context(), "http handler panicked",
				slog.String("method", r.Method), slog.String("pattern", r.Pattern),
				slog.Any("panic", p), slog.String("stack", string(debug.Stack())))
			if seen.begun {
				panic(http.ErrAbortHandler) // half an answer must not look like a whole one
			}
			fault.WriteProblem(w, fault.Internal)
		}()
		h.ServeHTTP(seen, r)
	})
}

// answered remembers whether an answer has begun.
type answered struct {
	http.ResponseWriter
	begun bool
}

func (a *answered) WriteHeader(status int) {
	a.begun = true
	a.ResponseWriter.WriteHeader(status)
}

func (a *answered) Write(b []byte) (int, error) {
	a.begun = true
	return a.ResponseWriter.Write(b)
}

// Unwrap lets http.ResponseController reach flushing and deadlines.
func (a *answered) Unwrap() http.ResponseWriter { return a.ResponseWriter }
