package query

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/tocsin-dev/tocsin/internal/event"
	"github.com/tocsin-dev/tocsin/internal/fault"
	eventv1 "github.com/tocsin-dev/tocsin/proto/gen/tocsin/event/v1"
	queryv1 "github.com/tocsin-dev/tocsin/proto/gen/tocsin/query/v1"
	statev1 "github.com/tocsin-dev/tocsin/proto/gen/tocsin/state/v1"
)

const (
	endpointKind = eventv1.TargetKind_TARGET_KIND_ENDPOINT
	podKind      = eventv1.TargetKind_TARGET_KIND_POD
)

// shelf is a store of targets, which are all that is asked of it.
type shelf struct {
	Store
	targets map[string]*eventv1.Target // by token
	read    int
	most    int           // targets read at once
	gate    chan struct{} // if not nil, reads wait for it
}

func newShelf(targets ...*eventv1.Target) *shelf {
	s := &shelf{targets: map[string]*eventv1.Target{}}
	for _, t := range targets {
		s.targets[event.Token(t)] = t
	}
	return s
}

func (s *shelf) Tokens(context.Context) ([]string, error) {
	var all []string
	for token := range s.targets {
		all = append(all, token)
	}
	slices.Sort(all)
	return all, nil
}

func (s *shelf) Targets(ctx context.Context, tokens []string) (map[string][]byte, error) {
	if s.gate != nil {
		select {
		case <-s.gate:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	s.read, s.most = s.read+len(tokens), max(s.most, len(tokens))
	stored := map[string][]byte{}
	for _, token := range tokens {
		data, err := proto.Marshal(&statev1.TargetState{Target: s.targets[token]})
		if err != nil {
			return nil, err
		}
		stored[token] = data
	}
	return stored, nil
}

func many(kind eventv1.TargetKind, n int) (all []*eventv1.Target) {
	for i := range n {
		id := fmt.Sprintf("%s%d", strings.ToLower(kind.String()[len("TARGET_KIND_"):]), i)
		all = append(all, &eventv1.Target{Account: "a", Kind: kind, Id: id, Name: "name of " + id})
	}
	return all
}

func TestANameIsLookedForAmongSoManyTargets(t *testing.T) {
	shelf := newShelf(append(many(endpointKind, maxUnnamed-10), many(podKind, 11)...)...)
	s := NewServer(Options{Store: shelf})
	find := func(in *queryv1.DiagnoseRequest) (string, error) {
		shelf.read = 0
		return s.find(t.Context(), in)
	}
	_, err := find(&queryv1.DiagnoseRequest{Target: "name of pod7"})
	if !errors.Is(err, fault.Invalid) || !strings.Contains(err.Error(), "20001 are too many") || !strings.Contains(err.Error(), "give the id") || shelf.read > 0 {
		t.Errorf("a name among one too many: %v after %d reads", err, shelf.read)
	}
	if token, err := find(&queryv1.DiagnoseRequest{Target: "pod7"}); err != nil || token != "a-pod-pod7" || shelf.read > 0 {
		t.Errorf("an id is found as %q, %v, after %d reads", token, err, shelf.read)
	}
	if token, err := find(&queryv1.DiagnoseRequest{Target: "name of pod7", Kind: podKind}); err != nil || token != "a-pod-pod7" || shelf.read != 11 {
		t.Errorf("a name of a kind is found as %q, %v, after %d reads", token, err, shelf.read)
	}
	last := fmt.Sprint("endpoint", maxUnnamed-11)
	if token, err := find(&queryv1.DiagnoseRequest{Target: "name of " + last, Kind: endpointKind}); err != nil || token != "a-endpoint-"+last || shelf.most != nameChunk {
		t.Errorf("a name among many is found as %q, %v, up to %d at once", token, err, shelf.most)
	}
}

func TestOneNameIsLookedForAtATime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		shelf := newShelf(many(podKind, 3)...)
		shelf.gate = make(chan struct{})
		s := NewServer(Options{Store: shelf})
		type answer struct {
			token string
			err   error
		}
		find := func(ctx context.Context, word string) <-chan answer {
			got := make(chan answer, 1)
			go func() {
				token, err := s.find(ctx, &queryv1.DiagnoseRequest{Target: word})
				got <- answer{token, err}
			}()
			synctest.Wait()
			return got
		}
		first := find(t.Context(), "name of pod1")
		gone, leave := context.WithCancel(t.Context())
		left := find(gone, "name of pod2")
		leave()
		if a := <-left; !errors.Is(a.err, context.Canceled) {
			t.Errorf("one that does not wait: %v", a.err)
		}
		if a := <-find(t.Context(), "pod2"); a.err != nil || a.token != "a-pod-pod2" {
			t.Errorf("an id waits for a name: %v", a)
		}
		began := time.Now()
		if a := <-find(t.Context(), "name of pod2"); !errors.Is(a.err, fault.Exhausted) || !strings.Contains(a.err.Error(), "try again, or give the id") {
			t.Errorf("a second name: %v", a)
		}
		if waited := time.Since(began); waited != nameWait {
			t.Errorf("it waited for %v, want %v", waited, nameWait)
		}
		third := find(t.Context(), "name of pod0")
		close(shelf.gate)
		if a := <-first; a.err != nil || a.token != "a-pod-pod1" {
			t.Errorf("the first name: %v", a)
		}
		if a := <-third; a.err != nil || a.token != "a-pod-pod0" {
			t.Errorf("one that waited: %v", a)
		}
	})
}
