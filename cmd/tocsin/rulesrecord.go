package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/tocsin-dev/tocsin/cmd/tocsin/internal/cli"
	rulev1 "github.com/tocsin-dev/tocsin/proto/gen/tocsin/rule/v1"
	"github.com/tocsin-dev/tocsin/services/notifier/forecast"
)

// record is what a backtest told.
type record struct {
	since         time.Duration // asked for
	compared      bool
	firings, old  []*rulev1.BacktestFiring
	summary       *rulev1.BacktestSummary
	told, toldOld []forecast.Receiver
	// cut and cutOld say that there are more messages than a forecast counts.
	cut, cutOld bool
}

// take takes in a part.
func (r *record) take(part *rulev1.BacktestResponse) {
	switch f := part.GetFiring(); {
	case f.GetOld():
		r.old = append(r.old, f)
	case f != nil:
		r.firings = append(r.firings, f)
	case part.GetSummary() != nil:
		r.summary = part.GetSummary()
	}
}

// forecast finds what the receivers would have got, by the old rules too if they
// are compared. hold is the setting notifier.inhibition_hold.
func (r *record) forecast(routes forecast.Routes, hold time.Duration) error {
	from, to := r.summary.GetFrom().AsTime(), r.summary.GetTo().AsTime()
	count := func(firings []*rulev1.BacktestFiring) ([]forecast.Receiver, bool, error) {
		told, err := routes.Messages(alertsOf(firings), from, to, hold)
		if errors.Is(err, forecast.ErrTooMany) {
			return told, true, nil
		}
		return told, false, err
	}
	var err, errOld error
	r.told, r.cut, err = count(r.firings)
	if r.compared {
		r.toldOld, r.cutOld, errOld = count(r.old)
	}
	return errors.Join(err, errOld)
}

// print prints all of it for people.
func (r *record) print(t cli.Terminal) error {
	s := r.summary
	fmt.Fprintf(t.Out, "Firings from %s to %s; %s and %s were played from %s on.\n",
		instant(s.GetFrom()), instant(s.GetTo()), countAll(s.GetEvents(), "event"), countAll(s.GetTargets(), "target"), instant(s.GetOldest()))
	if kept := s.GetTo().AsTime().Sub(s.GetOldest().AsTime()); kept < r.since {
		fmt.Fprintf(t.Out, "The oldest event is %s older than the newest: of the time before nothing is known, and what fired then seems to begin there.\n", rounded(kept))
	}
	for _, p := range s.GetProblems() {
		fmt.Fprintf(t.Out, "%s %s %s: %s\n", paint(t, yellow, "skipped"), countAll(p.GetCount(), "time"), strings.ReplaceAll(p.GetKind(), "_", " "), printable(p.GetDetail()))
	}
	if s.GetGone() > 0 {
		fmt.Fprintf(t.Out, "%s: what they told is missing.\n", countAll(s.GetGone(), "message")+" removed from the middle of the log")
	}
	parts := []func(*tabwriter.Writer){r.printFirings, r.printRules, r.printReceivers}
	if r.compared {
		parts = slices.Insert(parts, 2, r.printComparisons)
	}
	for _, part := range parts {
		fmt.Fprintln(t.Out)
		w := tabwriter.NewWriter(t.Out, 0, 0, 2, ' ', 0)
		part(w)
		if err := w.Flush(); err != nil {
			return err
		}
	}
	return nil
}

// printFirings prints one line for each firing, by start, and those by the old
// rules only.
func (r *record) printFirings(w *tabwriter.Writer) {
	rows := slices.Clone(r.firings)
	for _, f := range r.old {
		if f.GetOutcome() == rulev1.BacktestOutcome_BACKTEST_OUTCOME_ONLY {
			rows = append(rows, f)
		}
	}
	slices.SortStableFunc(rows, func(a, b *rulev1.BacktestFiring) int {
		return a.GetAlert().GetFiredAt().AsTime().Compare(b.GetAlert().GetFiredAt().AsTime())
	})
	if len(rows) == 0 {
		fmt.Fprintln(w, "Nothing would have fired.")
		return
	}
	fmt.Fprintln(w, "START\tEND\tLASTED\tWORST\tALERT\tTARGET\tNOTE")
	for _, f := range rows {
		a := f.GetAlert()
		end := "still firing"
		if a.GetResolvedAt() != nil {
			end = instant(a.GetResolvedAt())
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\t%s\n", instant(a.GetFiredAt()), end, rounded(r.lasted(f)), worst(f),
			printable(a.GetRule()), printable(a.GetTarget().GetId()), printable(strings.Join(notes(f), ", ")))
	}
	if n := r.summary.GetFiringsLeftOut(); n > 0 {
		fmt.Fprintf(w, "%s not listed: only the earliest are. The table of rules counts all; messages and differences count what is listed.\n", countAll(n, "more firing"))
	}
}

// lasted is for how long a firing lasted, or has lasted.
func (r *record) lasted(f *rulev1.BacktestFiring) time.Duration {
	end := f.GetAlert().GetResolvedAt()
	if end == nil {
		end = r.summary.GetTo()
	}
	return end.AsTime().Sub(f.GetAlert().GetFiredAt().AsTime())
}

// worst writes the worst value.
func worst(f *rulev1.BacktestFiring) string {
	if f.GetWorst() == nil {
		return "-"
	}
	return strconv.FormatFloat(f.GetWorst().GetNumber(), 'g', 6, 64)
}

// outcomes are what a firing differs by, in words.
var outcomes = map[rulev1.BacktestOutcome]string{
	rulev1.BacktestOutcome_BACKTEST_OUTCOME_ONLY:    "only new",
	rulev1.BacktestOutcome_BACKTEST_OUTCOME_LONGER:  "longer",
	rulev1.BacktestOutcome_BACKTEST_OUTCOME_SHORTER: "shorter",
	rulev1.BacktestOutcome_BACKTEST_OUTCOME_MOVED:   "moved",
}

// notes are what else is to say of a firing.
func notes(f *rulev1.BacktestFiring) []string {
	var all []string
	switch {
	case f.GetOld():
		all = append(all, "only old")
	case outcomes[f.GetOutcome()] != "":
		all = append(all, outcomes[f.GetOutcome()])
	}
	if f.GetBeganBefore() {
		all = append(all, "began before")
	}
	if f.GetAlert().GetFlapping() {
		all = append(all, "flapping")
	}
	if f.GetAlert().GetObserved() {
		all = append(all, "only observed")
	}
	if category := f.GetAlert().GetLabels()["category"]; category != "" {
		all = append(all, category)
	}
	if why := f.GetAlert().GetResolveReason(); why != "" {
		all = append(all, why)
	}
	return all
}

// printRules prints one line for each rule that fired, and the names of the others.
func (r *record) printRules(w *tabwriter.Writer) {
	var never []string
	fmt.Fprintln(w, "RULE\tFIRINGS\tTOTAL\tSHORTEST\tFLAPS")
	for _, row := range r.summary.GetRules() {
		name := printable(row.GetGroup() + "/" + row.GetRule())
		switch {
		case row.GetOld() && row.GetFirings() == 0:
		case row.GetOld():
			name += " (old)"
			fallthrough
		case row.GetFirings() > 0:
			shortest := "-"
			if row.GetShortest() != nil {
				shortest = rounded(row.GetShortest().AsDuration())
			}
			fmt.Fprintf(w, "%s\t%d\t%s\t%s\t%d\n", name, row.GetFirings(), rounded(row.GetFiring().AsDuration()), shortest, row.GetFlaps())
		default:
			never = append(never, name)
		}
	}
	if len(never) > 0 {
		fmt.Fprintf(w, "never fired: %s\n", strings.Join(never, ", "))
	}
}

// printComparisons prints one line for each rule whose firings differ.
func (r *record) printComparisons(w *tabwriter.Writer) {
	if len(r.summary.GetComparisons()) == 0 {
		fmt.Fprintln(w, "The old rules fire at the same times.")
		return
	}
	fmt.Fprintln(w, "DIFFERENCE\tONLY NEW\tONLY OLD\tLONGER\tSHORTER\tMOVED\tSAME")
	for _, c := range r.summary.GetComparisons() {
		fmt.Fprintf(w, "%s\t%d\t%d\t%d\t%d\t%d\t%d\n", printable(c.GetRule()), c.GetOnlyNew(), c.GetOnlyOld(), c.GetLonger(), c.GetShorter(), c.GetMoved(), c.GetSame())
	}
}

// printReceivers prints one line for each way to reach a receiver.
func (r *record) printReceivers(w *tabwriter.Writer) {
	head := "RECEIVER\tFORMAT\tMESSAGES\tREPEATS"
	if r.compared {
		head += "\tOLD MESSAGES\tOLD REPEATS"
	}
	fmt.Fprintln(w, head)
	for i, one := range r.told {
		fmt.Fprintf(w, "%s\t%s\t%d\t%d", printable(one.Name), one.Format, one.Messages, one.Repeats)
		if r.compared {
			fmt.Fprintf(w, "\t%d\t%d", r.toldOld[i].Messages, r.toldOld[i].Repeats)
		}
		fmt.Fprintln(w)
	}
	for _, one := range []struct {
		cut  bool
		name string
	}{{r.cut, "messages"}, {r.cutOld, "old messages"}} {
		if one.cut {
			fmt.Fprintf(w, "of the %s: %v\n", one.name, forecast.ErrTooMany)
		}
	}
}

// instant writes an instant as the list of alerts does.
func instant(at interface{ AsTime() time.Time }) string {
	return at.AsTime().Local().Format(time.DateTime)
}

// rounded writes a duration to the second, days included: "2d3h", "13m20s".
func rounded(d time.Duration) string {
	if d < time.Second {
		return d.Round(time.Millisecond).String()
	}
	d = d.Round(time.Second)
	var b strings.Builder
	for _, unit := range []struct {
		size time.Duration
		name string
	}{{24 * time.Hour, "d"}, {time.Hour, "h"}, {time.Minute, "m"}, {time.Second, "s"}} {
		if n := d / unit.size; n > 0 {
			fmt.Fprintf(&b, "%d%s", n, unit.name)
			d -= n * unit.size
		}
	}
	return b.String()
}

// countAll is count for large numbers.
func countAll(n uint64, thing string) string {
	if n < 1000 {
		return count(int(n), thing)
	}
	return thousands(n) + " " + thing + "s"
}

// The elements of what --json prints. Times are RFC 3339, durations seconds.
type (
	recordJSON struct {
		From        time.Time        `json:"from"`
		To          time.Time        `json:"to"`
		Oldest      time.Time        `json:"oldest"`
		Events      uint64           `json:"events"`
		Targets     uint64           `json:"targets"`
		Gone        uint64           `json:"gone"`
		LeftOut     uint64           `json:"firings_left_out"`
		Problems    []problemJSON    `json:"problems"`
		Firings     []firingJSON     `json:"firings"`
		Rules       []ruleJSON       `json:"rules"`
		Comparisons []comparisonJSON `json:"comparisons,omitempty"`
		Receivers   []receiverJSON   `json:"receivers"`
		// Cut and CutOld say that the messages are counted up to a bound only.
		Cut    bool `json:"messages_cut"`
		CutOld bool `json:"old_messages_cut"`
	}
	problemJSON struct {
		Kind   string `json:"kind"`
		Rule   string `json:"rule,omitempty"`
		Detail string `json:"detail"`
		Count  uint64 `json:"count"`
	}
	firingJSON struct {
		Group       string            `json:"group"`
		Rule        string            `json:"rule"`
		Labels      map[string]string `json:"labels"`
		Target      string            `json:"target"`
		Summary     string            `json:"summary,omitempty"`
		Start       time.Time         `json:"start"`
		End         *time.Time        `json:"end"`
		Seconds     float64           `json:"seconds"`
		Worst       *float64          `json:"worst"`
		WorstOf     string            `json:"worst_of,omitempty"`
		BeganBefore bool              `json:"began_before"`
		Flapping    bool              `json:"flapping"`
		Observed    bool              `json:"observed"`
		Reason      string            `json:"resolve_reason,omitempty"`
		Old         bool              `json:"old"`
		Outcome     string            `json:"outcome,omitempty"`
	}
	ruleJSON struct {
		Group    string   `json:"group"`
		Rule     string   `json:"rule"`
		Old      bool     `json:"old"`
		Firings  uint64   `json:"firings"`
		Still    uint64   `json:"still_firing"`
		Seconds  float64  `json:"seconds"`
		Shortest *float64 `json:"shortest_seconds"`
		Flaps    uint64   `json:"flaps"`
	}
	comparisonJSON struct {
		Rule    string `json:"rule"`
		OnlyNew uint64 `json:"only_new"`
		OnlyOld uint64 `json:"only_old"`
		Longer  uint64 `json:"longer"`
		Shorter uint64 `json:"shorter"`
		Moved   uint64 `json:"moved"`
		Same    uint64 `json:"same"`
	}
	receiverJSON struct {
		Name        string `json:"name"`
		Integration string `json:"integration"`
		Format      string `json:"format"`
		Old         bool   `json:"old"`
		Messages    int    `json:"messages"`
		Repeats     int    `json:"repeats"`
	}
)

// json prints all of it for scripts.
func (r *record) json(out io.Writer) error {
	s := r.summary
	j := recordJSON{
		From: s.GetFrom().AsTime(), To: s.GetTo().AsTime(), Oldest: s.GetOldest().AsTime(),
		Events: s.GetEvents(), Targets: s.GetTargets(), Gone: s.GetGone(), LeftOut: s.GetFiringsLeftOut(),
		Problems: []problemJSON{}, Firings: []firingJSON{}, Rules: []ruleJSON{}, Receivers: []receiverJSON{},
		Cut: r.cut, CutOld: r.cutOld,
	}
	for _, p := range s.GetProblems() {
		j.Problems = append(j.Problems, problemJSON{p.GetKind(), p.GetRule(), p.GetDetail(), p.GetCount()})
	}
	for _, f := range slices.Concat(r.firings, r.old) {
		j.Firings = append(j.Firings, r.firingJSON(f))
	}
	for _, row := range s.GetRules() {
		one := ruleJSON{Group: row.GetGroup(), Rule: row.GetRule(), Old: row.GetOld(), Firings: row.GetFirings(), Still: row.GetStillFiring(), Seconds: row.GetFiring().AsDuration().Seconds(), Flaps: row.GetFlaps()}
		if row.GetShortest() != nil {
			one.Shortest = new(row.GetShortest().AsDuration().Seconds())
		}
		j.Rules = append(j.Rules, one)
	}
	for _, c := range s.GetComparisons() {
		j.Comparisons = append(j.Comparisons, comparisonJSON{c.GetRule(), c.GetOnlyNew(), c.GetOnlyOld(), c.GetLonger(), c.GetShorter(), c.GetMoved(), c.GetSame()})
	}
	for i, list := range [][]forecast.Receiver{r.told, r.toldOld} {
		for _, one := range list {
			j.Receivers = append(j.Receivers, receiverJSON{one.Name, one.Integration, one.Format, i > 0, one.Messages, one.Repeats})
		}
	}
	enc := json.NewEncoder(out)
	enc.SetIndent("", "  ")
	return enc.Encode(j)
}

func (r *record) firingJSON(f *rulev1.BacktestFiring) firingJSON {
	a := f.GetAlert()
	j := firingJSON{
		Group: a.GetGroup(), Rule: a.GetRule(), Labels: a.GetLabels(), Target: a.GetTarget().GetId(), Summary: a.GetAnnotations()["summary"],
		Start: a.GetFiredAt().AsTime(), Seconds: r.lasted(f).Seconds(), BeganBefore: f.GetBeganBefore(), Flapping: a.GetFlapping(),
		Observed: a.GetObserved(), Reason: a.GetResolveReason(), Old: f.GetOld(),
	}
	if a.GetResolvedAt() != nil {
		j.End = new(a.GetResolvedAt().AsTime())
	}
	if w := f.GetWorst(); w != nil {
		j.Worst, j.WorstOf = new(w.GetNumber()), w.GetName()
	}
	if f.GetOutcome() != rulev1.BacktestOutcome_BACKTEST_OUTCOME_UNSPECIFIED {
		j.Outcome = strings.ToLower(strings.TrimPrefix(f.GetOutcome().String(), "BACKTEST_OUTCOME_"))
	}
	return j
}
