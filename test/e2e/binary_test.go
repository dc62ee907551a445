// Package e2e runs the binaries as a user would: real processes, killed and
// started again, against a simulated RunPod and real webhook receivers.
package e2e

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// patience bounds every wait. It is no expectation of speed: it only ends a
// test that hangs, also on a machine that compiles something beside it.
const patience = 2 * time.Minute

// tocsin is the path of the command, built once for all tests.
var tocsin string

func TestMain(m *testing.M) {
	os.Exit(func() int {
		dir, err := os.MkdirTemp("", "tocsin-e2e")
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		defer os.RemoveAll(dir)
		tocsin = filepath.Join(dir, "tocsin")
		build := exec.Command("go", "build", "-o", tocsin, "github.com/tocsin-dev/tocsin/cmd/tocsin")
		if out, err := build.CombinedOutput(); err != nil {
			fmt.Fprintf(os.Stderr, "build tocsin: %v\n%s", err, out)
			return 1
		}
		return m.Run()
	}())
}

// process is a running command whose output is read line by line.
type process struct {
	t    *testing.T
	cmd  *exec.Cmd
	done chan struct{} // closed when it has ended

	mu    sync.Mutex
	lines []string      // guarded by mu
	grown chan struct{} // guarded by mu; closed and replaced at each line
}

// start runs tocsin with an environment of its own: env and nothing of the
// tests' but PATH and HOME.
func start(t *testing.T, env []string, args ...string) *process {
	t.Helper()
	p := &process{t: t, cmd: exec.Command(tocsin, args...), done: make(chan struct{}), grown: make(chan struct{})}
	p.cmd.Env = append([]string{"PATH=" + os.Getenv("PATH"), "HOME=" + t.TempDir()}, env...)
	read, write := io.Pipe()
	p.cmd.Stdout, p.cmd.Stderr = write, write
	if err := p.cmd.Start(); err != nil {
		t.Fatalf("start tocsin %s: %v", strings.Join(args, " "), err)
	}
	go p.read(read)
	go func() {
		p.cmd.Wait() // the state is read from cmd.ProcessState
		write.Close()
		close(p.done)
	}()
	t.Cleanup(func() {
		p.cmd.Process.Kill()
		<-p.done
		if t.Failed() {
			t.Logf("tocsin %s printed:\n%s", strings.Join(args, " "), p.output())
		}
	})
	return p
}

func (p *process) read(r io.Reader) {
	for lines := bufio.NewScanner(r); lines.Scan(); {
		p.mu.Lock()
		p.lines = append(p.lines, lines.Text())
		close(p.grown)
		p.grown = make(chan struct{})
		p.mu.Unlock()
	}
}

func (p *process) output() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return strings.Join(p.lines, "\n")
}

// waitFor waits until a line of the output, from the line numbered from on,
// holds all of words, and returns that line.
func (p *process) waitFor(from int, words ...string) string {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(p.t.Context(), patience)
	defer cancel()
	for {
		p.mu.Lock()
		lines, grown := p.lines, p.grown
		p.mu.Unlock()
		for ; from < len(lines); from++ {
			if holdsAll(lines[from], words) {
				return lines[from]
			}
		}
		select {
		case <-grown:
		case <-p.done:
			p.t.Fatalf("it ended (%v) before it printed a line with %q", p.cmd.ProcessState, words)
		case <-ctx.Done():
			p.t.Fatalf("no line with %q within %v", words, patience)
		}
	}
}

func (p *process) count() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.lines)
}

func holdsAll(line string, words []string) bool {
	for _, word := range words {
		if !strings.Contains(line, word) {
			return false
		}
	}
	return true
}

// stop interrupts the process as Ctrl-C does and returns its exit code.
func (p *process) stop() int {
	p.t.Helper()
	if err := p.cmd.Process.Signal(syscall.SIGINT); err != nil {
		p.t.Fatalf("interrupt: %v", err)
	}
	return p.wait()
}

// kill ends the process as a power cut would and waits for its end.
func (p *process) kill() {
	p.t.Helper()
	if err := p.cmd.Process.Signal(syscall.SIGKILL); err != nil {
		p.t.Fatalf("kill: %v", err)
	}
	p.wait()
}

// wait waits for the end of the process and returns its exit code.
func (p *process) wait() int {
	p.t.Helper()
	select {
	case <-p.done:
	case <-time.After(patience):
		p.cmd.Process.Signal(syscall.SIGQUIT)
		p.t.Fatalf("it did not end within %v", patience)
	}
	return p.cmd.ProcessState.ExitCode()
}

// once runs tocsin to its end and returns its exit code, what it printed for
// people and what it printed as errors.
func once(t *testing.T, env []string, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, tocsin, args...)
	cmd.Env = append([]string{"PATH=" + os.Getenv("PATH"), "HOME=" + t.TempDir()}, env...)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil && cmd.ProcessState == nil {
		t.Fatalf("run tocsin %s: %v", strings.Join(args, " "), err)
	}
	return cmd.ProcessState.ExitCode(), out.String(), errs.String()
}
