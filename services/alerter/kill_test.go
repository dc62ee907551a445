package alerter_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/tocsin-dev/tocsin/services/alerter"
)

// childVariable makes the test binary an alerter: it holds a child as JSON.
const childVariable = "TOCSIN_TEST_ALERTER"

// child is what an alerter in a process of its own is told.
type child struct{ NATS, Redis, Notifier, Rules string }

func TestMain(m *testing.M) {
	text := os.Getenv(childVariable)
	if text == "" {
		os.Exit(m.Run())
	}
	var c child
	if err := json.Unmarshal([]byte(text), &c); err != nil {
		panic(err)
	}
	o := alerter.DefaultOptions()
	o.NATS.URL, o.Redis.Address, o.Notifier.Address = c.NATS, c.Redis, c.Notifier
	o.RuleFiles = map[string][]byte{"test.yaml": []byte(c.Rules)}
	o.GRPCAddress, o.HTTPAddress = "127.0.0.1:0", "127.0.0.1:0"
	o.SnapshotInterval = time.Second
	o.Ready = func(alerter.Addresses) { fmt.Fprintln(os.Stdout, "ready") }
	if err := alerter.Run(context.Background(), o); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// spawn starts an alerter in a process of its own and waits until it works. It
// returns what kills it at once.
func (w *world) spawn() (kill func()) {
	w.t.Helper()
	text, err := json.Marshal(child{w.nats.URL(), w.redis.Addr(), w.notifier.address, w.rules})
	if err != nil {
		w.t.Fatal(err)
	}
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), childVariable+"="+string(text))
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		w.t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		w.t.Fatal(err)
	}
	kill = sync.OnceFunc(func() {
		_ = cmd.Process.Kill() // fails only when it is dead already
		_ = cmd.Wait()
	})
	w.t.Cleanup(kill)
	line := make([]byte, len("ready\n"))
	if _, err := io.ReadFull(out, line); err != nil || string(line) != "ready\n" {
		kill()
		w.t.Fatalf("the alerter's process is not ready: %q, %v\n%s", line, err, stderr.String())
	}
	return kill
}

// TestKilledAtAnyMoment kills the alerter again and again in the middle of its
// work, loses Redis now and then, and makes the notifier fail as it likes. In
// the end each change of each endpoint was told once, in order.
func TestKilledAtAnyMoment(t *testing.T) {
	w := newWorld(t)
	w.start().await(64).inForce().stop()
	r := rand.New(rand.NewPCG(1, 2))
	w.notifier.fault(
		func(call int) error {
			if call%5 == 0 {
				return status.Error(codes.Unavailable, "away")
			}
			return nil
		},
		func(call int) error {
			if call%3 == 0 {
				return status.Error(codes.DeadlineExceeded, "the answer was lost")
			}
			return nil
		})
	const endpoints, rounds = 12, 6
	want := make([]strings.Builder, endpoints)
	busy := make([]bool, endpoints)
	for round := range rounds {
		kill := w.spawn()
		for range 60 {
			e := r.IntN(endpoints)
			if busy[e] = !busy[e]; busy[e] {
				w.queue(fmt.Sprint("e", e), 20)
				want[e].WriteByte('f')
			} else {
				w.queue(fmt.Sprint("e", e), 0)
				want[e].WriteByte('r')
			}
			if r.IntN(20) == 0 {
				w.redis.FlushAll(t)
			}
		}
		// Somewhere in the middle of a load, a replay or the work after it.
		timer := time.NewTimer(time.Duration(r.IntN(1500)) * time.Millisecond)
		<-timer.C
		kill()
		if round%2 == 1 {
			w.redis.FlushAll(t)
		}
	}
	w.start()
	for e := range endpoints {
		wantOrder(t, w.notifier.await(fmt.Sprint("e", e), want[e].String()))
	}
}
