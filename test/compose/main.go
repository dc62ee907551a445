// Command compose starts deploy/compose.yaml on a Docker Engine, kills each of its
// containers while an alert fires, and looks whether the receiver is told all the
// same. It needs no image registry: the programs are built here, and NATS and
// Redis too where the engine lacks their images. "make compose-test" runs it.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"
)

// patience bounds every wait. It is no expectation of speed: it only ends a run
// that hangs.
const patience = 4 * time.Minute

// lookEvery is the pause between two looks at containers and logs.
const lookEvery = 300 * time.Millisecond

// downTimeout bounds the removal of everything, also after Ctrl-C.
const downTimeout = 2 * time.Minute

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "compose-test:", err)
		os.Exit(1)
	}
}

// run finds an engine, and gives the test a folder of its own.
func run(ctx context.Context) error {
	root, err := repository()
	if err != nil {
		return err
	}
	e, err := findEngine(ctx)
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "tocsin-compose")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(dir) }() // the system clears what is left
	t := &trial{out: os.Stdout, engine: e, root: root, dir: dir, name: fmt.Sprintf("tocsin-compose-test-%d", os.Getpid()), began: time.Now()}
	t.say("Docker Engine %s (%s), %s", e.version, e.arch, e.composeVersion)
	return t.run(ctx)
}

// repository returns the folder that this runs in, which must be the root of the
// repository.
func repository() (string, error) {
	root, err := os.Getwd()
	if err != nil {
		return "", err
	}
	if _, err := os.Stat(filepath.Join(root, "deploy", "compose.yaml")); err != nil {
		return "", fmt.Errorf("run this from the root of the repository, with make compose-test: %w", err)
	}
	return root, nil
}

// trial is one run of the test.
type trial struct {
	out    io.Writer // of progress
	engine *engine
	root   string // of the repository
	dir    string // for what this run makes
	name   string // of the project, and the tag of its images
	began  time.Time

	ports   ports
	made    []string // images to remove
	ledger  ledger
	fired   alert  // fires when each container was killed
	natsTag string // of the image that holds a shell and kill
}

// say prints a line of progress.
func (t *trial) say(format string, args ...any) {
	fmt.Fprintf(t.out, "%6.1fs  %s\n", time.Since(t.began).Seconds(), fmt.Sprintf(format, args...))
}

// run is the test, from top to bottom. Whatever happens, nothing stays.
func (t *trial) run(ctx context.Context) (err error) {
	defer func() { err = errors.Join(err, t.remove(err != nil)) }()
	for _, step := range []struct {
		what string
		do   func(context.Context) error
	}{
		{"make the secrets and the environment", t.configure},
		{"see that compose refuses to start without secrets", t.refused},
		{"build the programs and their images", t.build},
		{"start the stack", t.up},
		{"look at the containers", t.inspect},
		{"ask the APIs, with and without tokens", t.ask},
		{"kill each container while an alert fires", t.killEach},
		{"take the stack down and up again, on its volume", t.again},
		{"compare what was told", t.judge},
	} {
		t.say("== %s", step.what)
		if err := step.do(ctx); err != nil {
			if ctx.Err() != nil {
				return errors.New("interrupted")
			}
			return fmt.Errorf("%s: %w", step.what, err)
		}
	}
	t.say("passed: %d alerts were told in %d deliveries, %d of them repeats", t.ledger.alerts(), t.ledger.deliveries(), t.ledger.repeats())
	return nil
}

// remove takes down what was started and removes the images that were made. It
// shows the logs before that if the test failed.
func (t *trial) remove(failed bool) error {
	ctx, cancel := context.WithTimeout(context.Background(), downTimeout)
	defer cancel()
	if failed {
		t.showLogs(ctx)
	}
	t.say("== remove everything")
	_, err := t.compose(ctx, "down", "--volumes", "--remove-orphans", "--timeout", "10")
	for _, image := range t.made {
		if _, rmErr := t.engine.docker(ctx, "image", "rm", "--force", image); rmErr != nil {
			err = errors.Join(err, rmErr)
		}
	}
	if err != nil {
		return fmt.Errorf("remove everything: %w", err)
	}
	return nil
}

// until looks again and again until holds says that something is so.
func until(ctx context.Context, what string, holds func(context.Context) (bool, error)) error {
	ctx, cancel := context.WithTimeoutCause(ctx, patience, fmt.Errorf("not within %v: %s", patience, what))
	defer cancel()
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	for {
		ok, err := holds(ctx)
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if err != nil || ok {
			return err
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}
