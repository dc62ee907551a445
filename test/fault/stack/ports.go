package stack

import (
	"fmt"
	"net"
	"os"
	"sync/atomic"
	"testing"
)

// The ports of processes that are killed and come back must be theirs in
// between. So they are below those that systems give to connections (from 32768
// on Linux), and each process of the tests begins at another place.
const (
	firstPort = 20_000
	lastPort  = 32_000
)

var nextPort atomic.Int64

// ports gives addresses to what listens.
type ports struct{ by map[string]string }

func newPorts() *ports { return &ports{by: map[string]string{}} }

// of returns the address of something, the same each time.
func (p *ports) of(t testing.TB, name string) string {
	t.Helper()
	if p.by[name] != "" {
		return p.by[name]
	}
	for range lastPort - firstPort {
		n := firstPort + (int64(os.Getpid())*97+nextPort.Add(1))%(lastPort-firstPort)
		address := fmt.Sprintf("127.0.0.1:%d", n)
		ln, err := net.Listen("tcp", address)
		if err != nil {
			continue
		}
		_ = ln.Close() // it was opened to see that nobody else has it
		p.by[name] = address
		return address
	}
	t.Fatalf("no port from %d to %d is free", firstPort, lastPort)
	return ""
}
