package main

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"text/tabwriter"
	"time"
	"unicode"

	"github.com/tocsin-dev/tocsin/cmd/tocsin/internal/cli"
	alertv1 "github.com/tocsin-dev/tocsin/proto/gen/tocsin/alert/v1"
	queryv1 "github.com/tocsin-dev/tocsin/proto/gen/tocsin/query/v1"
)

// queryTimeout bounds one page of alerts; an alerter answers in milliseconds.
const queryTimeout = 10 * time.Second

// alertsCommand lists alerts by the alerter's query API.
type alertsCommand struct {
	alerterFlags
	Matchers []string `arg:"" optional:"" help:"Matchers as Alertmanager writes them, e.g. severity=\"critical\"; all must hold."`
}

// Run prints one line for each alert, those that fire first.
func (c *alertsCommand) Run(ctx context.Context, t cli.Terminal) error {
	conn, err := c.dial()
	if err != nil {
		return err
	}
	defer conn.Close()
	client := queryv1.NewQueryServiceClient(conn)

	var alerts []*alertv1.Alert
	for page := ""; ; {
		call, cancel := context.WithTimeout(ctx, queryTimeout)
		answer, err := client.ListAlerts(call, &queryv1.ListAlertsRequest{Matchers: c.Matchers, PageSize: 1000, PageToken: page})
		cancel()
		if err != nil {
			return c.refused(err)
		}
		alerts = append(alerts, answer.GetAlerts()...)
		if page = answer.GetNextPageToken(); page == "" {
			break
		}
	}
	if len(alerts) == 0 {
		fmt.Fprintln(t.Out, "no alerts")
		return nil
	}
	slices.SortFunc(alerts, func(a, b *alertv1.Alert) int {
		if a.GetState() != b.GetState() {
			return int(b.GetState()) - int(a.GetState())
		}
		if order := a.GetActiveAt().AsTime().Compare(b.GetActiveAt().AsTime()); order != 0 {
			return order
		}
		return strings.Compare(a.GetId(), b.GetId())
	})
	w := tabwriter.NewWriter(t.Out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "STATE\tSINCE\tSEVERITY\tALERT\tTARGET\tWORST\tID\tSUMMARY")
	for _, a := range alerts {
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\n", stateOf(a), a.GetActiveAt().AsTime().Local().Format(time.DateTime),
			printable(a.GetLabels()["severity"]), printable(a.GetRule()), printable(a.GetTarget().GetId()),
			worstOf(a), idOf(a), printable(a.GetAnnotations()["summary"]))
	}
	return w.Flush()
}

// idShown is how much of an id is shown: of 10,000 alerts two begin so in one of
// 80 lists, and "explain" says so then.
const idShown = 8

// idOf writes the beginning of an alert's id, which is enough for "explain".
func idOf(a *alertv1.Alert) string {
	id := printable(a.GetId())
	return id[:min(len(id), idShown)]
}

// worstOf writes the worst value that an alert saw, of what its rule compares
// first: that is what the rule is about.
func worstOf(a *alertv1.Alert) string {
	for _, x := range a.GetEvidence().GetWorst() {
		return fmt.Sprintf("%s %.4g", printable(x.GetName()), x.GetNumber())
	}
	return "-"
}

// stateOf says how an alert stands. Of one that is only observed nobody was told.
func stateOf(a *alertv1.Alert) string {
	state := strings.ToLower(strings.TrimPrefix(a.GetState().String(), "ALERT_STATE_"))
	if a.GetFlapping() {
		state = "flapping"
	}
	switch {
	case !a.GetObserved():
		return state
	case a.GetState() == alertv1.AlertState_ALERT_STATE_FIRING:
		return "would have sent"
	default:
		return state + " (observed)"
	}
}

// printable keeps a text that came from outside from moving the cursor.
func printable(text string) string {
	return strings.Map(func(c rune) rune {
		if !unicode.IsPrint(c) {
			return ' '
		}
		return c
	}, text)
}
