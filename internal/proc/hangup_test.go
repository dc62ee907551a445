package proc

import (
	"os"
	"syscall"
	"testing"
	"time"
)

func TestAHangupIsTold(t *testing.T) {
	hangups := Hangups(t.Context())
	for range 2 {
		if err := syscall.Kill(os.Getpid(), syscall.SIGHUP); err != nil {
			t.Fatal(err)
		}
		select {
		case <-hangups:
		case <-time.After(time.Minute):
			t.Fatal("a hangup was not told")
		}
	}
}
