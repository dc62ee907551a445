package engine

import (
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	eventv1 "github.com/tocsin-dev/tocsin/proto/gen/tocsin/event/v1"
)

// FuzzStep feeds the fold with any events, valid or not, and checks what must
// hold for all: nothing panics, no message is refused, and the state survives
// being written and read.
func FuzzStep(f *testing.F) {
	program := compile(f, everything)
	w := newWorld(1, program)
	for range 20 {
		m := w.next()
		data, err := proto.Marshal(m.Event)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data, data, int64(1000), int64(-5))
	}
	f.Fuzz(func(t *testing.T, first, second []byte, after, then int64) {
		p := NewPartition(0, "log", 1)
		step := func(seq uint64, at int64, e *eventv1.Event) {
			t.Helper()
			if _, err := p.Step(Message{Seq: seq, Time: epoch.Add(time.Duration(at) * time.Millisecond), Event: e}, func(string) *Program { return program }); err != nil {
				t.Fatal(err)
			}
		}
		step(1, 0, activated(program.Hash()))
		for i, data := range [][]byte{first, second, first} {
			var e eventv1.Event
			if proto.Unmarshal(data, &e) != nil {
				step(uint64(i)+2, after, nil)
				continue
			}
			step(uint64(i)+2, []int64{after % 1e12, then % 1e12, 0}[i], &e)
		}
		p.Deadline()
		a, err := p.Snapshot()
		if err != nil {
			t.Fatal(err)
		}
		again, err := Restore(a, 1)
		if err != nil {
			t.Fatal(err)
		}
		if b, _ := again.Snapshot(); string(a) != string(b) {
			t.Error("the state changes when it is written and read")
		}
	})
}
