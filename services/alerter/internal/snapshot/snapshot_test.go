package snapshot_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/klauspost/compress/zstd"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/testing/protocmp"

	"github.com/tocsin-dev/tocsin/internal/bus"
	"github.com/tocsin-dev/tocsin/internal/servertest"
	alertv1 "github.com/tocsin-dev/tocsin/proto/gen/tocsin/alert/v1"
	statev1 "github.com/tocsin-dev/tocsin/proto/gen/tocsin/state/v1"
	"github.com/tocsin-dev/tocsin/services/alerter/internal/snapshot"
)

func open(t *testing.T) (*snapshot.Store, *bus.Objects) {
	t.Helper()
	objects, err := servertest.NATS(t).Conn(t).Objects(t.Context(), "tocsin-snapshots")
	if err != nil {
		t.Fatal(err)
	}
	s, err := snapshot.NewStore(objects)
	if err != nil {
		t.Fatal(err)
	}
	return s, objects
}

func at(seq uint64) *statev1.StoredSnapshot {
	return &statev1.StoredSnapshot{
		Position:     &statev1.Position{LogId: "log", AppliedSequence: seq, RuleSetHash: "rules"},
		Acknowledged: &alertv1.Cause{LogId: "log", Sequence: seq - 1},
		Outbox:       []*alertv1.Transition{{Id: "t"}},
		Fold:         []byte(strings.Repeat("fold", 1000)),
	}
}

func TestTheNewestTwoAreKept(t *testing.T) {
	s, objects := open(t)
	for _, seq := range []uint64{9, 10, 100} {
		if err := s.Save(t.Context(), 3, at(seq)); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Save(t.Context(), 4, at(7)); err != nil {
		t.Fatal(err)
	}
	for partition, seq := range map[int]uint64{3: 100, 4: 7} {
		if err := s.Prune(t.Context(), partition, snapshot.Ref{LogID: "log", Seq: seq}); err != nil {
			t.Fatal(err)
		}
	}
	refs, err := s.List(t.Context(), 3)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]snapshot.Ref{{LogID: "log", Seq: 100}, {LogID: "log", Seq: 10}}, refs); diff != "" {
		t.Errorf("snapshots of partition 3 (-want +got):\n%s", diff)
	}
	got, err := s.Load(t.Context(), 3, snapshot.Ref{LogID: "log", Seq: 100})
	if err != nil {
		t.Fatal(err)
	}
	want := at(100)
	want.Format = snapshot.Format
	if diff := cmp.Diff(want, got, protocmp.Transform()); diff != "" {
		t.Errorf("snapshot at 100 (-want +got):\n%s", diff)
	}
	packed, _, err := objects.Get(t.Context(), "p03/log/00000000000000000100")
	if err != nil {
		t.Fatal(err)
	}
	if len(packed) == 0 || len(packed) > 1000 {
		t.Errorf("%d bytes are stored for a state of 4,000 that repeats itself", len(packed))
	}
	older, err := s.Older(t.Context(), "log")
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(map[int]uint64{3: 10}, older); diff != "" {
		t.Errorf("older snapshots (-want +got):\n%s", diff)
	}
}

// TestAnotherLogsSnapshotsDoNotPushOutTheNewest saves the first snapshots of a
// log beside those of the log before, which reach higher sequences.
func TestAnotherLogsSnapshotsDoNotPushOutTheNewest(t *testing.T) {
	for name, c := range map[string]struct {
		log  string
		want []snapshot.Ref
	}{
		"of a younger log": {"log-2", []snapshot.Ref{{LogID: "log-2", Seq: 5}, {LogID: "log-1", Seq: 900}}},
		"of a log that sorts before, as after a clock that went back": {
			"log-0", []snapshot.Ref{{LogID: "log-1", Seq: 900}, {LogID: "log-0", Seq: 5}},
		},
	} {
		t.Run(name, func(t *testing.T) {
			s, _ := open(t)
			for _, seq := range []uint64{800, 900} {
				old := at(seq)
				old.Position.LogId = "log-1"
				if err := s.Save(t.Context(), 3, old); err != nil {
					t.Fatal(err)
				}
			}
			saved := at(5)
			saved.Position.LogId = c.log
			if err := s.Save(t.Context(), 3, saved); err != nil {
				t.Fatal(err)
			}
			if err := s.Prune(t.Context(), 3, snapshot.RefOf(saved)); err != nil {
				t.Fatal(err)
			}
			refs, err := s.List(t.Context(), 3)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(c.want, refs); diff != "" {
				t.Errorf("snapshots (-want +got):\n%s", diff)
			}
			older, err := s.Older(t.Context(), c.log)
			if err != nil {
				t.Fatal(err)
			}
			if len(older) > 0 {
				t.Errorf("history is given up below %v, with one snapshot of the log", older)
			}
		})
	}
}

func TestWhatCannotBeReadIsToldApart(t *testing.T) {
	s, objects := open(t)
	encoder, err := zstd.NewWriter(nil)
	if err != nil {
		t.Fatal(err)
	}
	pack := func(snap *statev1.StoredSnapshot) []byte {
		raw, err := proto.Marshal(snap)
		if err != nil {
			t.Fatal(err)
		}
		return encoder.EncodeAll(raw, nil)
	}
	other, elsewhere := at(2), at(1)
	other.Format, elsewhere.Format = snapshot.Format, snapshot.Format
	elsewhere.Position.LogId = "another log"
	for name, c := range map[string]struct {
		data []byte
		want error
	}{
		"a name that does not exist":      {nil, snapshot.ErrUnreadable},
		"what is not compressed":          {[]byte("rubbish"), snapshot.ErrUnreadable},
		"what is no snapshot":             {encoder.EncodeAll([]byte("\xffrubbish"), nil), snapshot.ErrUnreadable},
		"a snapshot of another sequence":  {pack(other), snapshot.ErrUnreadable},
		"a snapshot of another log":       {pack(elsewhere), snapshot.ErrUnreadable},
		"a snapshot without a version":    {pack(at(1)), snapshot.ErrUnreadable},
		"a snapshot of a newer release":   {pack(&statev1.StoredSnapshot{Format: snapshot.Format + 1}), snapshot.ErrNewer},
		"a snapshot that was cut in half": {pack(at(1))[:20], snapshot.ErrUnreadable},
	} {
		t.Run(name, func(t *testing.T) {
			const object = "p01/log/00000000000000000001"
			if err := objects.Delete(t.Context(), object); err != nil {
				t.Fatal(err)
			}
			if c.data != nil {
				if err := objects.Put(t.Context(), object, c.data); err != nil {
					t.Fatal(err)
				}
			}
			if _, err := s.Load(t.Context(), 1, snapshot.Ref{LogID: "log", Seq: 1}); !errors.Is(err, c.want) {
				t.Errorf("Load: %v, want %v", err, c.want)
			}
		})
	}
}

// deaf is a store that holds something and never sends it.
type deaf struct{ snapshot.Objects }

func (deaf) Get(ctx context.Context, _ string) ([]byte, bool, error) {
	<-ctx.Done()
	return nil, false, context.Cause(ctx)
}

func TestAStoreThatDoesNotAnswerIsNotWaitedForForEver(t *testing.T) {
	for name, c := range map[string]struct {
		stopAfter time.Duration
		took      time.Duration
	}{
		"when the caller stops":      {time.Second, time.Second},
		"when the caller is patient": {time.Hour, 30 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s, err := snapshot.NewStore(deaf{})
				if err != nil {
					t.Fatal(err)
				}
				ctx, cancel := context.WithTimeout(t.Context(), c.stopAfter)
				defer cancel()
				began := time.Now()
				_, err = s.Load(ctx, 1, snapshot.Ref{LogID: "log", Seq: 1})
				if err == nil || errors.Is(err, snapshot.ErrUnreadable) {
					t.Errorf("Load: %v; want an error that does not call the snapshot damaged", err)
				}
				if took := time.Since(began); took != c.took {
					t.Errorf("it took %v, want %v", took, c.took)
				}
			})
		})
	}
}

func TestForeignObjectsAreLeftAlone(t *testing.T) {
	s, objects := open(t)
	for _, name := range []string{"p03/latest", "p03/7", "notes", "p03/log/00000000000000000001/x"} {
		if err := objects.Put(t.Context(), name, []byte("x")); err != nil {
			t.Fatal(err)
		}
	}
	for _, seq := range []uint64{20, 30, 40} {
		if err := s.Save(t.Context(), 3, at(seq)); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Prune(t.Context(), 3, snapshot.Ref{LogID: "log", Seq: 40}); err != nil {
		t.Fatal(err)
	}
	names, err := objects.List(t.Context(), "")
	if err != nil {
		t.Fatal(err)
	}
	if len(names) != 6 {
		t.Errorf("objects after pruning: %v; want two snapshots and four others", names)
	}
}
