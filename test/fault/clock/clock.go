// Package clock moves the wall clock of a running process, and of nothing else:
// what a machine whose clock is set does to all of its processes at once.
//
// A Go program reads the clock through the vDSO, a piece of code that the kernel
// maps into each process, so that a preloaded library or a tracer of system
// calls does not see it. Here the process's own copy of that code is replaced by
// one that asks the kernel and adds an offset to the wall clock. The monotonic
// clock stays as it is, as it does when a clock is set.
package clock

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"
)

// Clock is the wall clock of a process. Its process must be stopped (SIGSTOP)
// while it is changed: no thread may be in the code that is replaced.
type Clock struct {
	memory *os.File
	// functions are where the vDSO's functions are; each gets code and an offset.
	functions []uint64
	pid       int
}

// Of returns the clock of the process. It returns an error where this cannot be
// done: on other systems than Linux on amd64, or without the right to write to
// the process's memory, which its parent usually has.
func Of(pid int) (*Clock, error) {
	if len(code) == 0 {
		return nil, errors.New("the wall clock of a process can only be moved on Linux on amd64")
	}
	from, to, err := mapping(pid, "[vdso]")
	if err != nil {
		return nil, err
	}
	memory, err := os.OpenFile(fmt.Sprintf("/proc/%d/mem", pid), os.O_RDWR, 0)
	if err != nil {
		return nil, fmt.Errorf("open the memory of process %d: %w", pid, err)
	}
	c := &Clock{memory: memory, pid: pid}
	if err := c.find(from, to); err != nil {
		_ = memory.Close()
		return nil, fmt.Errorf("read the vDSO of process %d: %w", pid, err)
	}
	return c, nil
}

// Close forgets the process; its clock stays moved.
func (c *Clock) Close() error { return c.memory.Close() }

// mapping finds a named part of a process's memory.
func mapping(pid int, name string) (from, to uint64, err error) {
	maps, err := os.ReadFile(fmt.Sprintf("/proc/%d/maps", pid))
	if err != nil {
		return 0, 0, fmt.Errorf("read the memory map of process %d: %w", pid, err)
	}
	for line := range strings.Lines(string(maps)) {
		if !strings.HasSuffix(strings.TrimSpace(line), name) {
			continue
		}
		if _, err := fmt.Sscanf(line, "%x-%x", &from, &to); err != nil {
			return 0, 0, fmt.Errorf("read the memory map of process %d: %q: %w", pid, line, err)
		}
		return from, to, nil
	}
	return 0, 0, fmt.Errorf("process %d has no %s", pid, name)
}

// find looks up the functions that read the wall clock.
func (c *Clock) find(from, to uint64) error {
	image := make([]byte, to-from)
	if _, err := c.memory.ReadAt(image, int64(from)); err != nil {
		return err
	}
	file, err := elf.NewFile(bytes.NewReader(image))
	if err != nil {
		return err
	}
	symbols, err := file.DynamicSymbols()
	if err != nil {
		return err
	}
	for _, s := range symbols {
		if s.Name == "__vdso_clock_gettime" {
			if s.Size < uint64(len(code)) {
				return fmt.Errorf("%s has %d bytes, %d are needed", s.Name, s.Size, len(code))
			}
			c.functions = append(c.functions, from+s.Value)
		}
	}
	if len(c.functions) == 0 {
		return errors.New("it does not tell the time")
	}
	return nil
}

// Move makes the process's wall clock differ from the machine's by offset, in
// whole seconds. The process must be stopped.
func (c *Clock) Move(offset time.Duration) error {
	for _, at := range c.functions {
		inside, err := c.inside(at, at+uint64(len(code)))
		if err != nil {
			return fmt.Errorf("move the clock of process %d: %w", c.pid, err)
		}
		if inside {
			return ErrBusy
		}
		patch := bytes.Clone(code)
		binary.LittleEndian.PutUint64(patch[len(code)-8:], uint64(int64(offset/time.Second)))
		if _, err := c.memory.WriteAt(patch, int64(at)); err != nil {
			return fmt.Errorf("move the clock of process %d: %w", c.pid, err)
		}
	}
	return nil
}

// ErrBusy says that a thread of the process reads the clock at this moment. Let
// the process go on, stop it and try again.
var ErrBusy = errors.New("a thread is reading the clock")

// inside reports whether a thread stands between two addresses.
func (c *Clock) inside(from, to uint64) (bool, error) {
	threads, err := os.ReadDir(fmt.Sprintf("/proc/%d/task", c.pid))
	if err != nil {
		return false, err
	}
	for _, t := range threads {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%s/syscall", c.pid, t.Name()))
		if errors.Is(err, os.ErrNotExist) {
			continue // it ended
		}
		if err != nil {
			return false, err
		}
		fields := strings.Fields(string(text))
		if len(fields) < 2 {
			return true, nil // it says "running"
		}
		at, err := strconv.ParseUint(strings.TrimPrefix(fields[len(fields)-1], "0x"), 16, 64)
		if err != nil {
			return false, fmt.Errorf("thread %s says %q: %w", t.Name(), text, err)
		}
		if at >= from && at < to {
			return true, nil
		}
	}
	return false, nil
}
