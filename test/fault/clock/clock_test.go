package clock_test

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/tocsin-dev/tocsin/test/fault/clock"
)

// childVariable makes the test binary a process that tells the time when asked.
const childVariable = "TOCSIN_TEST_CLOCK"

func TestMain(m *testing.M) {
	if os.Getenv(childVariable) == "" {
		os.Exit(m.Run())
	}
	began := time.Now()
	for lines := bufio.NewScanner(os.Stdin); lines.Scan(); {
		now := time.Now()
		fmt.Fprintln(os.Stdout, now.UnixNano(), int64(now.Sub(began)))
	}
}

func TestAProcessesClockLeapsAndStepsBack(t *testing.T) {
	if runtime.GOOS != "linux" || runtime.GOARCH != "amd64" {
		if _, err := clock.Of(os.Getpid()); err == nil {
			t.Error("Of promises what it cannot do")
		}
		return
	}
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), childVariable+"=1")
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = in.Close()
		_ = cmd.Wait()
	})
	lines := bufio.NewScanner(out)
	ask := func() (wall time.Time, monotonic time.Duration) {
		t.Helper()
		if _, err := fmt.Fprintln(in); err != nil || !lines.Scan() {
			t.Fatalf("the process tells no time: %v, %v", err, lines.Err())
		}
		first, second, _ := strings.Cut(lines.Text(), " ")
		w, err := strconv.ParseInt(first, 10, 64)
		m, err2 := strconv.ParseInt(second, 10, 64)
		if err := errors.Join(err, err2); err != nil {
			t.Fatal(err)
		}
		return time.Unix(0, w), time.Duration(m)
	}
	ask()
	c, err := clock.Of(cmd.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	_, last := ask()
	for _, offset := range []time.Duration{time.Hour, -time.Hour, 5 * time.Second, 0} {
		for {
			if err := cmd.Process.Signal(syscall.SIGSTOP); err != nil {
				t.Fatal(err)
			}
			err := c.Move(offset)
			if again := cmd.Process.Signal(syscall.SIGCONT); again != nil {
				t.Fatal(again)
			}
			if err == nil {
				break
			}
			if !errors.Is(err, clock.ErrBusy) {
				t.Fatal(err)
			}
		}
		before := time.Now()
		wall, monotonic := ask()
		if wall.Before(before.Add(offset)) || wall.After(time.Now().Add(offset)) {
			t.Errorf("with an offset of %v the process says %v, the machine %v", offset, wall, before)
		}
		if monotonic < last {
			t.Errorf("the monotonic clock went back from %v to %v", last, monotonic)
		}
		last = monotonic
	}
}
