package report_test

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/tocsin-dev/tocsin/test/bench/internal/report"
)

func TestPercentilesAreOfTheNearestRank(t *testing.T) {
	var times []time.Duration
	for i := 200; i >= 1; i-- {
		times = append(times, time.Duration(i)*time.Millisecond)
	}
	for _, test := range []struct {
		times []time.Duration
		want  report.Percentiles
	}{
		{times, report.Percentiles{P50: 100 * time.Millisecond, P99: 198 * time.Millisecond, Max: 200 * time.Millisecond}},
		{[]time.Duration{7}, report.Percentiles{P50: 7, P99: 7, Max: 7}},
		{[]time.Duration{9, 1, 5}, report.Percentiles{P50: 5, P99: 9, Max: 9}},
	} {
		got, err := report.PercentilesOf(test.times)
		if err != nil || got != test.want {
			t.Errorf("percentiles of %d times are %v, %v; want %v", len(test.times), got, err, test.want)
		}
	}
	if _, err := report.PercentilesOf(nil); !errors.Is(err, report.ErrNothing) {
		t.Errorf("percentiles of nothing: %v, want ErrNothing", err)
	}
}

func TestAGoalIsMetInTheDirectionOfItsUnit(t *testing.T) {
	for _, test := range []struct {
		unit        string
		value, goal float64
		want        bool
	}{
		{report.Milliseconds, 4.9, 5, true},
		{report.Milliseconds, 5.1, 5, false},
		{report.PerSecond, 25_001, 25_000, true},
		{report.PerSecond, 24_999, 25_000, false},
		{report.Ratio, 0.49, 0.5, false},
		{report.Count, 0, 0, true},
		{report.Count, 1, 0, false},
	} {
		if got := (report.Figure{Unit: test.unit, Value: test.value, Goal: &test.goal}).Met(); got != test.want {
			t.Errorf("%v %s with the goal %v: met is %v, want %v", test.value, test.unit, test.goal, got, test.want)
		}
	}
}

func sample() *report.Report {
	return &report.Report{
		Format: report.Format, At: time.Date(2026, 11, 25, 12, 0, 0, 0, time.UTC), Took: 10,
		Machine:  report.Machine{CPUs: 2, OS: "linux", Arch: "amd64", Go: "go1.26.8", NATS: "2.15.2", Redis: "7.0.15", Revision: "abc"},
		Settings: map[string]string{"targets": "10000"},
		Loads:    []report.Load{{Benchmark: "latency", Average: new(1.25), Others: new(0.314)}},
		Figures: []report.Figure{
			{Benchmark: "latency", Setting: "200 alerts/s", Name: "p99", Value: 30, Unit: report.Milliseconds, Goal: new(25.0), Raw: new(2.5), RawName: "bare path"},
			{Benchmark: "latency", Setting: "200 alerts/s", Name: "lost", Value: 3, Unit: report.Count, Goal: new(0.0)},
			{Benchmark: "throughput", Setting: "sync default", Name: "events", Value: 31_234.5, Unit: report.PerSecond, Goal: new(25_000.0), Note: "a note"},
		},
	}
}

func TestTheTableShowsGoalAndRawLimitBesideTheFigure(t *testing.T) {
	var b strings.Builder
	if err := sample().Table(&b); err != nil {
		t.Fatal(err)
	}
	want := `what                      measured  goal         raw limit, same run
latency, 200 alerts/s                                   
  p99                     30.0 ms   <= 25.0 ms    missed  2.50 ms bare path
  lost                    3         0             WRONG   
throughput, sync default                                  
  events                  31,234/s  >= 25,000/s   met     
    (a note)                                              
latency: others used 31 % of the processors meanwhile; load of the machine before it 1.25
`
	if diff := cmp.Diff(squeeze(want), squeeze(b.String())); diff != "" {
		t.Errorf("table (-want +got):\n%s", diff)
	}
}

// squeeze makes runs of blanks one, so that a test is about words.
func squeeze(s string) string {
	lines := strings.Split(s, "\n")
	for i, l := range lines {
		lines[i] = strings.Join(strings.Fields(l), " ")
	}
	return strings.Join(lines, "\n")
}

func TestWhatIsWrittenIsRead(t *testing.T) {
	var b bytes.Buffer
	if err := sample().Write(&b); err != nil {
		t.Fatal(err)
	}
	name := filepath.Join(t.TempDir(), "bench.json")
	if err := os.WriteFile(name, b.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	got, err := report.Read(name)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(sample(), got); diff != "" {
		t.Errorf("read back (-want +got):\n%s", diff)
	}
	if n := got.Lost(); n != 1 {
		t.Errorf("%d figures say that something is lost, want 1", n)
	}
}

func TestAnotherFormatIsRefused(t *testing.T) {
	name := filepath.Join(t.TempDir(), "bench.json")
	if err := os.WriteFile(name, []byte(`{"format": 99}`), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := report.Read(name); err == nil || !strings.Contains(err.Error(), "99") {
		t.Errorf("read a report of format 99: %v", err)
	}
}

func TestCompareSaysWhatChangedAndWhatIsNotComparable(t *testing.T) {
	before, after := sample(), sample()
	before.Machine.CPUs = 8
	before.Settings["targets"] = "100"
	before.Figures = append(before.Figures, report.Figure{Benchmark: "replay", Setting: "cold", Name: "events", Value: 40_000, Unit: report.PerSecond})
	after.Figures[0].Value = 15
	after.Figures[1].Value = 4
	after.Figures[2].Value = 28_111.05
	after.Figures = append(after.Figures, report.Figure{Benchmark: "memory", Setting: "10,000 targets", Name: "alerter", Value: 5.5, Unit: report.KiB})
	var b strings.Builder
	if err := after.Compare(&b, before); err != nil {
		t.Fatal(err)
	}
	want := `note: the number of processors was 8 and is 2
note: -targets was 100 and is 10000
what 2026-11-25 12:00 2026-11-25 12:00 change
latency, 200 alerts/s
p99 30.0 ms 15.0 ms -50.0 % better
lost 3 4 +33.3 % worse
throughput, sync default
events 31,234/s 28,111/s -10.0 % worse
memory, 10,000 targets
alerter - 5.50 KiB
replay, cold
events 40,000/s -
`
	if diff := cmp.Diff(want, squeeze(b.String())); diff != "" {
		t.Errorf("comparison (-want +got):\n%s", diff)
	}
}
