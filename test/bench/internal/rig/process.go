package rig

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	"github.com/prometheus/procfs"
)

// tailSize bounds what of a process's log is shown when it ended by itself.
const tailSize = 2000

// process is a program that was started.
type process struct {
	name  string
	cmd   *exec.Cmd
	stdin io.Closer // closing it ends a service, also when the benchmark is killed
	log   string    // the file that it writes to
	done  chan struct{}
}

// start starts a program that writes what it says to dir/name.log. stdout gets
// its standard output; nil sends that to the log too.
func start(dir, name string, stdout io.Writer, program string, args ...string) (*process, error) {
	if err := os.MkdirAll(dir, 0o750); err != nil {
		return nil, fmt.Errorf("make the directory of %s: %w", name, err)
	}
	p := &process{name: name, log: filepath.Join(dir, name+".log"), done: make(chan struct{})}
	log, err := os.OpenFile(p.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open the log of %s: %w", name, err)
	}
	defer log.Close()
	p.cmd = exec.Command(program, args...)
	p.cmd.Dir = dir
	p.cmd.Stdout, p.cmd.Stderr = log, log
	if stdout != nil {
		p.cmd.Stdout = stdout
	}
	if p.stdin, err = p.cmd.StdinPipe(); err != nil {
		return nil, fmt.Errorf("connect to %s: %w", name, err)
	}
	if err := p.cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	go func() {
		_ = p.cmd.Wait() // how it ended is read from cmd.ProcessState
		close(p.done)
	}()
	return p, nil
}

// tail returns the end of the log.
func (p *process) tail() string {
	text, err := os.ReadFile(p.log)
	if err != nil {
		return err.Error()
	}
	return string(bytes.TrimSpace(text[max(0, len(text)-tailSize):]))
}

func (p *process) ended() bool {
	select {
	case <-p.done:
		return true
	default:
		return false
	}
}

// kill ends the process as a power cut would.
func (p *process) kill() {
	if err := p.cmd.Process.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return // it cannot be ended, and its files will show that
	}
	<-p.done
}

// stop ends the process as Ctrl-C does.
func (p *process) stop() error {
	if p.ended() {
		return nil
	}
	if err := p.cmd.Process.Signal(syscall.SIGINT); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("stop %s: %w", p.name, err)
	}
	select {
	case <-p.done:
	case <-time.After(patience):
		p.kill()
		return fmt.Errorf("%s did not stop within %v: %s", p.name, patience, p.tail())
	}
	if code := p.cmd.ProcessState.ExitCode(); code != 0 {
		return fmt.Errorf("%s ended with code %d: %s", p.name, code, p.tail())
	}
	return nil
}

// Usage is what a process used since it began. The zero value stands for a
// system that does not tell.
type Usage struct {
	// CPU is processor time.
	CPU time.Duration
	// RSS is the memory that it holds now, in bytes, and Peak the most that it held.
	RSS, Peak uint64
}

// Of returns the usage of the process with an id.
func Of(pid int) Usage {
	var u Usage
	p, err := procfs.NewProc(pid)
	if err != nil {
		return u
	}
	if s, err := p.Stat(); err == nil {
		u.CPU = time.Duration(s.CPUTime() * float64(time.Second))
	}
	if s, err := p.NewStatus(); err == nil {
		u.RSS, u.Peak = s.VmRSS, s.VmHWM
	}
	return u
}

func (p *process) usage() Usage { return Of(p.cmd.Process.Pid) }
