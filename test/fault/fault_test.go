// Package fault runs the whole of Tocsin as processes of their own, breaks them
// and what is between them by a plan drawn from a seed, and keeps its own
// accounts of both ends: of what the event log must lead to, and of what each
// receiver was told.
package fault

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/tocsin-dev/tocsin/test/fault/plan"
	"github.com/tocsin-dev/tocsin/test/fault/stack"
)

var (
	seed  = flag.Uint64("seed", 0, "the seed of the first run; 0 takes some fixed ones and that of the day")
	runs  = flag.Int("runs", 1, "how many runs to make, with one seed after the other")
	only  = flag.String("scene", "", "play only this scene, again and again; empty plays all that a seed draws")
	syncs = flag.String("sync", "drawn", "how NATS syncs its writes: drawn, always or default")
	built = flag.String("programs", "", "a folder with nats-server, collector, alerter and notifier to run; empty builds them")
	keep  = flag.String("dir", "", "where runs that fail leave what their processes printed; empty makes a directory")
)

// fixed are the seeds of every day.
var fixed = []uint64{1, 2, 3}

var programs stack.Programs

func TestMain(m *testing.M) { os.Exit(main(m)) }

func main(m *testing.M) int {
	flag.Parse()
	if *built != "" {
		programs = stack.In(*built)
		return m.Run()
	}
	dir, err := os.MkdirTemp("", "tocsin-fault")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer func() { _ = os.RemoveAll(dir) }() // the system clears what is left
	if programs, err = stack.Compile(dir); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return m.Run()
}

// seeds lists what to run.
func seeds() []uint64 {
	first := *seed
	if first == 0 {
		now := time.Now().UTC()
		first = uint64(now.Year()*10_000 + int(now.Month())*100 + now.Day())
		if *runs == 1 {
			return append(slices.Clip(fixed), first)
		}
	}
	all := make([]uint64, *runs)
	for i := range all {
		all[i] = first + uint64(i)
	}
	return all
}

// TestNothingIsLostOrInvented makes the runs of all seeds.
func TestNothingIsLostOrInvented(t *testing.T) {
	if testing.Short() {
		t.Skip("each run takes half a minute")
	}
	all := seeds()
	var mu sync.Mutex
	done, failed := 0, []uint64{}
	for _, seed := range all {
		t.Run(fmt.Sprint("seed=", seed), func(t *testing.T) {
			t.Parallel()
			began := time.Now()
			defer func() {
				mu.Lock()
				defer mu.Unlock()
				if done++; t.Failed() {
					failed = append(failed, seed)
				}
				t.Logf("seed %d took %v; %d of %d runs are done, failed are %v",
					seed, time.Since(began).Round(time.Second), done, len(all), failed)
			}()
			one(t, planOf(t, seed))
		})
	}
}

// planOf returns the plan of a seed, by the flags.
func planOf(t *testing.T, seed uint64) plan.Plan {
	t.Helper()
	p := plan.Draw(seed)
	if *only != "" {
		if !slices.Contains(plan.Scenes, plan.Scene(*only)) {
			t.Fatalf("there is no scene %q; there are %q", *only, plan.Scenes)
		}
		p = plan.Play(seed, plan.Scene(*only))
	}
	switch *syncs {
	case "drawn":
	case "always", "default":
		p.SyncAlways = *syncs == "always"
	default:
		t.Fatalf("NATS cannot sync %q; it is drawn, always or default", *syncs)
	}
	return p
}

// one makes one run.
func one(t *testing.T, p plan.Plan) {
	dir := directory(t, p.Seed)
	r := begin(t, p, dir)
	r.play()
	played := time.Now()
	missing, wrong := r.conclude()
	t.Logf("%v\nsettled after %v: %s", p, time.Since(played).Round(time.Millisecond), r.summary())
	wrong = append(wrong, r.audit()...)
	if len(missing) > 0 {
		r.stack.Dump()
	} else {
		wrong = append(wrong, r.stack.Stop()...)
	}
	if len(missing) > 0 || len(wrong) > 0 {
		r.leave(missing, wrong)
		t.Errorf("%v\nwrong:%s\nmissing after %v:%s\nwhat the processes printed is in %s; make fault SEED=%d plays this again",
			p, list(wrong), patience, list(missing), dir, p.Seed)
	}
}

// directory makes one for a run, which is left if the run fails.
func directory(t *testing.T, seed uint64) string {
	t.Helper()
	base := *keep
	if base == "" {
		base = filepath.Join(os.TempDir(), "tocsin-fault-runs")
	}
	if err := os.MkdirAll(base, 0o750); err != nil {
		t.Fatal(err)
	}
	dir, err := os.MkdirTemp(base, fmt.Sprintf("seed-%d-", seed)) //nolint:usetesting // it stays when the test fails
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if !t.Failed() {
			_ = os.RemoveAll(dir)
		}
	})
	return dir
}
