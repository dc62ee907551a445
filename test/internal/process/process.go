// Package process runs the tocsin binary in tests as a user would run it: built
// once, started with an environment of its own, watched by what it prints, and
// stopped or killed like any process. No process outlives its test, and every
// wait ends after [Patience].
package process

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

// Patience bounds every wait. It is no expectation of speed: it only ends a
// test that hangs, also on a machine that compiles something beside it.
const Patience = 5 * time.Minute

// binary is the path of the command, set by [Main].
var binary string

// Main builds tocsin, runs the tests of m and returns their exit code. A
// package whose tests start processes calls it in its TestMain.
func Main(m *testing.M) int {
	dir, err := os.MkdirTemp("", "tocsin-test")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer func() { _ = os.RemoveAll(dir) }() // the system clears what is left
	binary = filepath.Join(dir, "tocsin")
	if err := Compile(binary, module+"cmd/tocsin"); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return m.Run()
}

// module begins the import path of everything in this repository.
const module = "github.com/tocsin-dev/tocsin/"

// Build builds the program in a folder of this repository, such as
// "services/alerter/cmd/alerter", and returns its path.
func Build(t testing.TB, folder string) string {
	t.Helper()
	program := filepath.Join(t.TempDir(), filepath.Base(folder))
	if err := Compile(program, module+folder); err != nil {
		t.Fatal(err)
	}
	return program
}

// BuildPackage builds a program of a module that this one requires, such as
// "github.com/nats-io/nats-server/v2", as name, and returns its path.
func BuildPackage(t testing.TB, name, path string) string {
	t.Helper()
	program := filepath.Join(t.TempDir(), name)
	if err := Compile(program, path); err != nil {
		t.Fatal(err)
	}
	return program
}

// Compile builds the command with an import path, for tests whose processes are
// shared by several tests.
func Compile(program, path string) error {
	out, err := exec.Command("go", "build", "-o", program, path).CombinedOutput()
	if err != nil {
		return fmt.Errorf("build %s: %w\n%s", path, err, out)
	}
	return nil
}

// Process is a running command whose output is read line by line.
type Process struct {
	t    *testing.T
	cmd  *exec.Cmd
	log  io.Writer     // also gets each line, if there is one
	done chan struct{} // closed when it has ended

	mu    sync.Mutex
	lines []string      // guarded by mu
	grown chan struct{} // guarded by mu; closed and replaced at each line
}

// Start runs tocsin with args and an environment of its own: env and nothing of
// the tests' but PATH. It is killed at the end of the test, and what it printed
// is shown when the test failed.
func Start(t *testing.T, env []string, args ...string) *Process {
	t.Helper()
	return StartProgram(t, binary, env, args...)
}

// StartProgram is [Start] for another program than tocsin.
func StartProgram(t *testing.T, program string, env []string, args ...string) *Process {
	t.Helper()
	return StartLogged(t, nil, program, env, args...)
}

// StartLogged is [StartProgram] with a place of its own for what the process
// prints, where it is read in place of the test's log.
func StartLogged(t *testing.T, log io.Writer, program string, env []string, args ...string) *Process {
	t.Helper()
	p := &Process{t: t, cmd: command(t.Context(), t, program, env, args), log: log, done: make(chan struct{}), grown: make(chan struct{})}
	read, write := io.Pipe()
	p.cmd.Stdout, p.cmd.Stderr = write, write
	if err := p.cmd.Start(); err != nil {
		t.Fatalf("start %s %s: %v", filepath.Base(program), strings.Join(args, " "), err)
	}
	go p.read(read)
	go func() {
		_ = p.cmd.Wait() // the state is read from cmd.ProcessState
		_ = write.Close()
		close(p.done)
	}()
	t.Cleanup(func() {
		_ = p.cmd.Process.Kill()
		<-p.done
		if t.Failed() && log == nil {
			t.Logf("%s %s printed:\n%s", filepath.Base(program), strings.Join(args, " "), p.Output())
		}
	})
	return p
}

// Once runs tocsin to its end and returns its exit code, what it printed for
// people and what it printed as errors.
func Once(t *testing.T, env []string, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), Patience)
	defer cancel()
	cmd := command(ctx, t, binary, env, args)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil && cmd.ProcessState == nil {
		t.Fatalf("run tocsin %s: %v", strings.Join(args, " "), err)
	}
	return cmd.ProcessState.ExitCode(), out.String(), errs.String()
}

func command(ctx context.Context, t *testing.T, program string, env, args []string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Env = append([]string{"PATH=" + os.Getenv("PATH"), "HOME=" + t.TempDir()}, env...)
	return cmd
}

func (p *Process) read(r io.Reader) {
	lines := bufio.NewReader(r)
	for {
		line, err := lines.ReadString('\n')
		if line != "" {
			if p.log != nil {
				_, _ = io.WriteString(p.log, line) // what is lost there is in lines
			}
			p.mu.Lock()
			p.lines = append(p.lines, strings.TrimSuffix(line, "\n"))
			close(p.grown)
			p.grown = make(chan struct{})
			p.mu.Unlock()
		}
		if err != nil {
			return
		}
	}
}

// Output returns what the process has printed so far, for people and as errors.
func (p *Process) Output() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return strings.Join(p.lines, "\n")
}

// Lines returns how many lines the process has printed so far.
func (p *Process) Lines() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.lines)
}

// PID returns the id of the process.
func (p *Process) PID() int { return p.cmd.Process.Pid }

// WaitFor waits until a line of the output, from the line numbered from on,
// holds all of words, and returns that line.
func (p *Process) WaitFor(from int, words ...string) string {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(p.t.Context(), Patience)
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
			p.t.Fatalf("no line with %q within %v", words, Patience)
		}
	}
}

func holdsAll(line string, words []string) bool {
	for _, word := range words {
		if !strings.Contains(line, word) {
			return false
		}
	}
	return true
}

// Stop interrupts the process as Ctrl-C does and returns its exit code.
func (p *Process) Stop() int {
	p.t.Helper()
	p.Signal(syscall.SIGINT)
	return p.Wait()
}

// Signal sends the process a signal.
func (p *Process) Signal(sig os.Signal) {
	p.t.Helper()
	if err := p.cmd.Process.Signal(sig); err != nil {
		p.t.Fatalf("send %v: %v", sig, err)
	}
}

// Ended tells whether the process has ended.
func (p *Process) Ended() bool {
	select {
	case <-p.done:
		return true
	default:
		return false
	}
}

// Kill ends the process as a power cut would and waits for its end.
func (p *Process) Kill() {
	p.t.Helper()
	p.Signal(syscall.SIGKILL)
	p.Wait()
}

// Wait waits for the end of the process and returns its exit code.
func (p *Process) Wait() int {
	p.t.Helper()
	select {
	case <-p.done:
	case <-time.After(Patience):
		_ = p.cmd.Process.Signal(syscall.SIGQUIT)
		p.t.Fatalf("it did not end within %v", Patience)
	}
	return p.cmd.ProcessState.ExitCode()
}
