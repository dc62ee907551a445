package wire_test

import (
	"context"
	"crypto/sha256"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/tocsin-dev/tocsin/internal/bus"
	"github.com/tocsin-dev/tocsin/internal/servertest"
	"github.com/tocsin-dev/tocsin/test/fault/wire"
)

// root begins the subjects of alerts, the stream of these tests.
const root = "tocsin."

func message(subject, id, body string) wire.Message {
	return wire.Message{Subject: subject, ID: id, Sum: sha256.Sum256([]byte(body))}
}

func acked(m wire.Message, stream string, seq uint64) wire.Acknowledged {
	return wire.Acknowledged{Message: m, Place: wire.Place{Stream: stream, Seq: seq}}
}

// hpub is a publication with headers, as clients write it.
func hpub(subject, reply, header, body string) string {
	header = "NATS/1.0\r\n" + header + "\r\n\r\n"
	return fmt.Sprintf("HPUB %s %s %d %d\r\n%s%s\r\n", subject, reply, len(header), len(header)+len(body), header, body)
}

// TestWhatIsAcknowledgedIsNoted says the same on two connections, on one of them
// byte by byte.
func TestWhatIsAcknowledgedIsNoted(t *testing.T) {
	asked := "CONNECT {\"verbose\":false}\r\nPING\r\nSUB _INBOX.x.* 1\r\n" +
		hpub("tocsin.event.a", "_INBOX.x.1", "Nats-Msg-Id: one", "bo\r\ndy") +
		"PUB tocsin.alert.3 _INBOX.x.2 3\r\ntwo\r\n" +
		"pub tocsin.alert.3 _INBOX.x.3 5\r\nthree\r\n" +
		"PUB $JS.API.STREAM.INFO.EVENTS _INBOX.x.4 0\r\n\r\n" +
		"PUB tocsin.alert.4 4\r\nfour\r\n" +
		hpub("tocsin.event.b", "_INBOX.x.5", "Nats-Batch-Id: B\r\nNats-Batch-Sequence: 1", "five") +
		hpub("tocsin.event.c", "", "Nats-Batch-Id: B\r\nNats-Batch-Sequence: 2", "six") +
		hpub("tocsin.event.d", "_INBOX.x.6", "Nats-Batch-Id: B\r\nNats-Batch-Sequence: 3\r\nNats-Batch-Commit: 1", "seven")
	answer := func(n int, body string) string {
		return fmt.Sprintf("MSG _INBOX.x.%d 1 %d\r\n%s\r\n", n, len(body), body)
	}
	answered := "INFO {}\r\nPONG\r\n" +
		answer(2, `{"error":{"code":400,"err_code":10071},"stream":"ALERTS","seq":0}`) +
		answer(1, `{"stream":"EVENTS","seq":7}`) +
		answer(4, `{"type":"io.nats.jetstream.api.v1.stream_info_response","config":{}}`) +
		answer(3, `{"stream":"ALERTS","seq":9,"duplicate":true}`) + "PING\r\n" +
		answer(5, "") +
		answer(6, `{"stream":"EVENTS","seq":12,"batch":"B","count":3}`)
	three := acked(message("tocsin.alert.3", "", "three"), "ALERTS", 9)
	three.Duplicate = true
	want := []wire.Acknowledged{
		acked(message("tocsin.event.a", "one", "bo\r\ndy"), "EVENTS", 7), three,
		acked(message("tocsin.event.b", "", "five"), "EVENTS", 10),
		acked(message("tocsin.event.c", "", "six"), "EVENTS", 11),
		acked(message("tocsin.event.d", "", "seven"), "EVENTS", 12),
	}
	a := wire.New(root)
	first, second := a.Listen(), a.Listen()
	first(false, []byte(asked))
	first(true, []byte(answered))
	for i := range asked {
		second(false, []byte(asked[i:i+1]))
	}
	for i := range answered {
		second(true, []byte(answered[i:i+1]))
	}
	if diff := cmp.Diff(append(want[:5:5], want...), a.Acknowledged()); diff != "" {
		t.Errorf("acknowledged (-want +got):\n%s", diff)
	}
	if n := a.Published()[message("tocsin.alert.4", "", "four")]; n != 2 {
		t.Errorf("what nobody waits for was published %d times, want 2", n)
	}
	if n := len(a.Published()); n != 7 {
		t.Errorf("%d messages were published, want 7", n)
	}
}

func TestWhatAServerLostIsForgotten(t *testing.T) {
	a := wire.New(root)
	hear := a.Listen()
	publish := func(hear servertest.Tap, stream string, seq int) {
		hear(false, fmt.Appendf(nil, "PUB tocsin.%s _INBOX.%d 0\r\n\r\n", stream, seq))
		body := fmt.Sprintf(`{"stream":%q,"seq":%d}`, stream, seq)
		hear(true, fmt.Appendf(nil, "MSG _INBOX.%d 1 %d\r\n%s\r\n", seq, len(body), body))
	}
	publish(hear, "EVENTS", 1)
	mark := a.Mark()
	publish(hear, "EVENTS", 2)
	publish(hear, "ALERTS", 1)
	a.Lose([]string{"EVENTS"}, mark)
	publish(hear, "EVENTS", 3) // it was on its way
	publish(hear, "ALERTS", 2)
	publish(a.Listen(), "EVENTS", 2)
	var got []string
	for _, m := range a.Acknowledged() {
		got = append(got, fmt.Sprint(m.Stream, " ", m.Seq))
	}
	if diff := cmp.Diff([]string{"EVENTS 1", "ALERTS 1", "ALERTS 2", "EVENTS 2"}, got); diff != "" {
		t.Errorf("acknowledged (-want +got):\n%s", diff)
	}
}

func TestCompareFindsEachKindOfWrong(t *testing.T) {
	one, two := message("tocsin.a", "1", "one"), message("tocsin.a", "2", "two")
	plain := message("tocsin.a", "", "plain")
	put := func(m wire.Message, seq uint64) wire.Stored {
		return wire.Stored{Message: m, Place: wire.Place{Stream: "S", Seq: seq}}
	}
	again := acked(one, "S", 1)
	again.Duplicate = true
	for name, c := range map[string]struct {
		acked     []wire.Acknowledged
		stored    []wire.Stored
		published map[wire.Message]int
		want      string // begins what is wrong; nothing is if it is empty
	}{
		"nothing":       {[]wire.Acknowledged{acked(one, "S", 1), again, acked(plain, "S", 2)}, []wire.Stored{put(one, 1), put(plain, 2), put(plain, 3)}, map[wire.Message]int{one: 2, plain: 2}, ""},
		"gone":          {[]wire.Acknowledged{acked(one, "S", 1)}, nil, nil, "acknowledged and gone: message 1 of S"},
		"another":       {[]wire.Acknowledged{acked(one, "S", 1)}, []wire.Stored{put(two, 1)}, map[wire.Message]int{two: 1}, "acknowledged, and tocsin.a 2"},
		"false claim":   {[]wire.Acknowledged{again}, []wire.Stored{put(two, 1)}, map[wire.Message]int{two: 1}, "acknowledged as there before"},
		"one place":     {[]wire.Acknowledged{acked(plain, "S", 1), acked(plain, "S", 1)}, []wire.Stored{put(plain, 1)}, map[wire.Message]int{plain: 2}, "acknowledged at the same place"},
		"twice":         {[]wire.Acknowledged{acked(one, "S", 1)}, []wire.Stored{put(one, 1), put(one, 2)}, map[wire.Message]int{one: 2}, "acknowledged, and there 2 times"},
		"nobody's":      {nil, []wire.Stored{put(one, 1)}, nil, "published 0 times and stored 1 times"},
		"more than was": {nil, []wire.Stored{put(plain, 1), put(plain, 2)}, map[wire.Message]int{plain: 1}, "published 1 times and stored 2 times"},
	} {
		t.Run(name, func(t *testing.T) {
			wrong := wire.Compare(c.acked, c.stored, c.published)
			switch {
			case c.want == "" && len(wrong) > 0:
				t.Errorf("wrong: %q", wrong)
			case c.want != "" && (len(wrong) != 1 || !strings.HasPrefix(wrong[0], c.want)):
				t.Errorf("wrong: %q, want one that begins with %q", wrong, c.want)
			}
		})
	}
}

// TestARealServersLossIsSeen has a server say that it stores messages, and takes
// one away.
func TestARealServersLossIsSeen(t *testing.T) {
	nats := servertest.NATS(t)
	proxy := servertest.NewProxy(t, nats.Addr())
	a := wire.New(root)
	proxy.SetTap(a.Listen)
	conn := nats.Connect(t, bus.Options{URL: "nats://" + proxy.Addr(), Name: "publisher"})
	if _, err := conn.EnsureStream(t.Context(), bus.Alerts()); err != nil {
		t.Fatal(err)
	}
	for _, id := range []string{"a", "b", "c", "a"} {
		if _, err := conn.Publish(t.Context(), bus.Message{Subject: "tocsin.alert.1", ID: id, Data: []byte(id)}); err != nil {
			t.Fatal(err)
		}
	}
	// The proxy tells of an answer after it has passed it on.
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for a.Mark() < 4 {
		select {
		case <-time.After(time.Millisecond):
		case <-ctx.Done():
			t.Fatalf("acknowledged: %v, want 4", a.Acknowledged())
		}
	}
	if wrong := compare(t, conn, a); len(wrong) > 0 {
		t.Errorf("wrong though nothing is: %q", wrong)
	}
	nats.Call(t, "STREAM.MSG.DELETE.ALERTS", `{"seq":2}`)
	if wrong := compare(t, conn, a); len(wrong) != 1 || !strings.Contains(wrong[0], "gone: message 2 of ALERTS: tocsin.alert.1 b") {
		t.Errorf("wrong after message 2 was lost: %q", wrong)
	}
}

// compare compares the account with what ALERTS holds.
func compare(t *testing.T, conn *bus.Conn, a *wire.Account) []string {
	t.Helper()
	var stored []wire.Stored
	for seq := uint64(1); seq <= 3; seq++ {
		d, ok, err := conn.At(t.Context(), bus.AlertsStream, seq)
		if err != nil {
			t.Fatal(err)
		}
		if ok {
			stored = append(stored, wire.Stored{
				Message: message(d.Subject, d.ID, string(d.Data)), Place: wire.Place{Stream: bus.AlertsStream, Seq: seq},
			})
		}
	}
	return wire.Compare(a.Acknowledged(), stored, a.Published())
}
