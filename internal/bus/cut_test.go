package bus_test

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/tocsin-dev/tocsin/internal/bus"
	"github.com/tocsin-dev/tocsin/internal/servertest"
)

// cutPatience bounds a read that should notice a cut, which takes about a second.
const cutPatience = patience / 2

// backup is a server that can be put back to what it was.
type backup struct {
	*servertest.NATSServer
	conn *bus.Conn
	kept *servertest.Backup
}

// newBackup returns a server that holds messages 1 to 5 twice: in its stream,
// and in a copy of its directory.
func newBackup(t *testing.T) *backup {
	t.Helper()
	b := &backup{NATSServer: servertest.NATS(t)}
	b.conn = b.Conn(t)
	if _, err := b.conn.EnsureStream(patient(t), stream()); err != nil {
		t.Fatal(err)
	}
	publish(t, b.conn, "test.before", 5)
	b.kept = b.Backup(t)
	return b
}

// restore puts the server back to messages 1 to 5.
func (b *backup) restore(t *testing.T) {
	t.Helper()
	b.Stop()
	b.kept.Restore(t)
	b.Start(t)
}

func TestReadNoticesThatItsStreamWasCut(t *testing.T) {
	tests := map[string]struct {
		filter string
		// meanwhile is what happens after message 10 was read.
		meanwhile func(*testing.T, *backup)
		want      []uint64 // delivered after that, unless it is nil
	}{
		"a stream that lost its end and has not grown again": {
			meanwhile: func(t *testing.T, b *backup) { b.restore(t) },
		},
		"a stream that has other messages at the same sequences": {
			meanwhile: func(t *testing.T, b *backup) {
				b.restore(t)
				publish(t, b.conn, "test.again", 8)
			},
		},
		"a stream that has other messages at the same sequences, read with a filter": {
			filter: "test.after",
			meanwhile: func(t *testing.T, b *backup) {
				b.restore(t)
				publish(t, b.conn, "test.again", 8)
			},
		},
		"a stream that was cut, grew and lost its oldest messages up to before the last one read": {
			meanwhile: func(t *testing.T, b *backup) {
				b.restore(t)
				publish(t, b.conn, "test.again", 8)
				if err := b.conn.PurgeBefore(patient(t), "TEST", 9); err != nil {
					t.Fatal(err)
				}
			},
		},
		"a stream from which the last message read was removed alone": {
			meanwhile: func(t *testing.T, b *backup) {
				raw, err := rawJetStream(t, b.NATSServer).Stream(patient(t), "TEST")
				if err == nil {
					err = raw.DeleteMsg(patient(t), 10)
				}
				if err != nil {
					t.Fatal(err)
				}
				b.Restart(t)
				publish(t, b.conn, "test.again", 2)
			},
		},
		"a stream that kept everything is read on": {
			meanwhile: func(t *testing.T, b *backup) {
				b.Restart(t)
				publish(t, b.conn, "test.again", 2)
			},
			want: []uint64{11, 12},
		},
		"a stream that lost its oldest messages, the last one read among them, is read on": {
			meanwhile: func(t *testing.T, b *backup) {
				publish(t, b.conn, "test.again", 3)
				if err := b.conn.PurgeBefore(patient(t), "TEST", 12); err != nil {
					t.Fatal(err)
				}
				b.Restart(t)
			},
			want: []uint64{12, 13},
		},
		"a stream that was emptied of what was read is read on": {
			meanwhile: func(t *testing.T, b *backup) {
				if err := b.conn.PurgeBefore(patient(t), "TEST", 11); err != nil {
					t.Fatal(err)
				}
				b.Restart(t)
				publish(t, b.conn, "test.again", 1)
			},
			want: []uint64{11},
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newBackup(t)
			publish(t, b.conn, "test.after", 5) // 6 to 10
			enough := errors.New("enough")
			var later []uint64
			o := bus.ReadOptions{Stream: "TEST", Filter: test.filter}
			ctx, cancel := context.WithTimeout(t.Context(), cutPatience)
			defer cancel()
			err := b.conn.Read(ctx, o, func(d bus.Delivery) error {
				switch {
				case len(later) > 0 || d.Seq > 10:
					later = append(later, d.Seq)
				case d.Seq == 10:
					test.meanwhile(t, b)
				}
				if len(later) > 0 && len(later) == len(test.want) {
					return enough
				}
				return nil
			})
			want := bus.ErrStreamReplaced
			if test.want != nil {
				want = enough
			}
			if !errors.Is(err, want) {
				t.Errorf("the read ended with %v, want %v", err, want)
			}
			if diff := cmp.Diff(fmt.Sprint(test.want), fmt.Sprint(later)); diff != "" {
				t.Errorf("delivered afterwards (-want +got):\n%s", diff)
			}
		})
	}
}

func TestReadNoticesThatItsStreamWasCutBefore(t *testing.T) {
	t.Parallel()
	b := newBackup(t)
	publish(t, b.conn, "test.after", 5) // 6 to 10
	mark := func(seq uint64) bus.Mark {
		t.Helper()
		d, kept, err := b.conn.At(patient(t), "TEST", seq)
		if err != nil || !kept {
			t.Fatalf("message %d: %v, %v", seq, kept, err)
		}
		return bus.Mark{Seq: seq, Time: d.Time}
	}
	kept, lost, first := mark(4), mark(9), mark(1)
	b.restore(t)
	publish(t, b.conn, "test.again", 8) // 6 to 13
	if err := b.conn.PurgeBefore(patient(t), "TEST", 3); err != nil {
		t.Fatal(err)
	}
	enough := errors.New("enough")
	for name, test := range map[string]struct {
		known []bus.Mark
		from  uint64
		want  error
	}{
		"nothing known":                            {nil, 10, enough},
		"a message that is there":                  {[]bus.Mark{kept}, 10, enough},
		"a message that left with the oldest ones": {[]bus.Mark{first}, 10, enough},
		"no message":                               {[]bus.Mark{{}}, 10, enough},
		"another message in its place":             {[]bus.Mark{lost}, 10, bus.ErrStreamReplaced},
		"one of two":                               {[]bus.Mark{kept, lost}, 10, bus.ErrStreamReplaced},
		"a message further on than the read":       {[]bus.Mark{lost}, 3, bus.ErrStreamReplaced},
		"a message after the end":                  {[]bus.Mark{{Seq: 14, Time: lost.Time}}, 10, bus.ErrStreamReplaced},
	} {
		t.Run(name, func(t *testing.T) {
			var got []uint64
			o := bus.ReadOptions{Stream: "TEST", From: test.from, Known: test.known}
			err := b.conn.Read(patient(t), o, func(d bus.Delivery) error {
				got = append(got, d.Seq)
				return enough
			})
			if !errors.Is(err, test.want) {
				t.Errorf("the read ended with %v, want %v", err, test.want)
			}
			if errors.Is(test.want, bus.ErrStreamReplaced) && len(got) > 0 {
				t.Errorf("messages %v of another log were delivered", got)
			}
		})
	}
}

// A read that went back must remember how far it had come before.
func TestReadRemembersWhatIsKnownUntilItIsPastThat(t *testing.T) {
	t.Parallel()
	b := newBackup(t)
	publish(t, b.conn, "test.after", 5) // 6 to 10
	tenth, _, err := b.conn.At(patient(t), "TEST", 10)
	if err != nil {
		t.Fatal(err)
	}
	o := bus.ReadOptions{Stream: "TEST", From: 1, Known: []bus.Mark{{Seq: 10, Time: tenth.Time}}}
	ctx, cancel := context.WithTimeout(t.Context(), cutPatience)
	defer cancel()
	err = b.conn.Read(ctx, o, func(d bus.Delivery) error {
		if d.Seq == 3 { // which stays as it is
			b.restore(t)
			publish(t, b.conn, "test.again", 8)
		}
		return nil
	})
	if !errors.Is(err, bus.ErrStreamReplaced) {
		t.Errorf("the read ended with %v, want %v", err, bus.ErrStreamReplaced)
	}
}
