package main

import (
	"context"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	"github.com/tocsin-dev/tocsin/cmd/tocsin/internal/cli"
	"github.com/tocsin-dev/tocsin/cmd/tocsin/internal/spark"
	alertv1 "github.com/tocsin-dev/tocsin/proto/gen/tocsin/alert/v1"
	eventv1 "github.com/tocsin-dev/tocsin/proto/gen/tocsin/event/v1"
	queryv1 "github.com/tocsin-dev/tocsin/proto/gen/tocsin/query/v1"
	"github.com/tocsin-dev/tocsin/services/alerter/rulecheck"
	"github.com/tocsin-dev/tocsin/services/alerter/rulefile"
)

const (
	// sparkWidth is how wide courses are drawn: 15 minutes at three a minute.
	sparkWidth = 45
	// textWidth is how wide sentences are, as in a terminal of 100 columns.
	textWidth = 96
)

// explainCommand tells all there is to say of an alert.
type explainCommand struct {
	alerterFlags
	Alert string `arg:"" help:"The alert's id, the beginning of one, or its fingerprint; tocsin alerts lists them."`
	JSON  bool   `help:"Print the answer of the query API as JSON."`
}

// Help shows how the command is used.
func (explainCommand) Help() string {
	return `Examples:

  tocsin explain 3f9a1c20            # the beginning of an id is enough
  tocsin explain 9a24f5b5b0a27fb7    # the fingerprint of a notification
  tocsin explain --json 3f9a1c20 | jq .diagnosis`
}

// Run prints the alert's story, then the figures behind it.
func (c *explainCommand) Run(ctx context.Context, t cli.Terminal) error {
	var x *queryv1.ExplainAlertResponse
	err := c.ask(ctx, func(ctx context.Context, conn *grpc.ClientConn) (err error) {
		x, err = queryv1.NewQueryServiceClient(conn).ExplainAlert(ctx, &queryv1.ExplainAlertRequest{Id: c.Alert})
		return err
	})
	if err != nil {
		return err
	}
	if c.JSON {
		return printJSON(t.Out, x)
	}
	var b strings.Builder
	for _, line := range x.GetStory() {
		b.WriteString(wrap(printable(line), "", ""))
	}
	a := x.GetAlert()
	writeCondition(&b, x)
	now := x.GetNow()
	if now == nil { // it resolved: what is left is the evidence of its end
		now = a.GetEvidence()
	}
	writeSeries(&b, now.GetSeries())
	writeErrors(&b, now.GetErrorGroups())
	d := x.GetDiagnosis()
	if d == nil {
		d = a.GetEvidence().GetDiagnosis()
	}
	writeDiagnosis(&b, d)
	if runbook := a.GetAnnotations()["runbook"]; runbook != "" {
		b.WriteString("\nRUNBOOK\n" + wrap(printable(runbook), "  ", "  "))
	}
	fmt.Fprintf(&b, "\nid %s, fingerprint %s\n", a.GetId(), a.GetFingerprint())
	_, err = io.WriteString(t.Out, b.String())
	return err
}

// diagnoseCommand says what is probably wrong with a target.
type diagnoseCommand struct {
	alerterFlags
	Target  string `arg:"" help:"Id or name of an endpoint, a pod or an account."`
	Account string `help:"The account's name, where several have such a target." placeholder:"NAME"`
	Kind    string `help:"endpoint, pod or account, where several have the name." enum:"endpoint,pod,account," default:"" placeholder:"KIND"`
	JSON    bool   `help:"Print the answer of the query API as JSON."`
}

// Help shows how the command is used.
func (diagnoseCommand) Help() string {
	return `Examples:

  tocsin diagnose img-prod           # by name
  tocsin diagnose vy4tb1kqz0         # by RunPod's id; pods too
  tocsin diagnose --json img-prod | jq .diagnosis.cause`
}

// Run prints the diagnosis, then the figures behind it.
func (c *diagnoseCommand) Run(ctx context.Context, t cli.Terminal) error {
	kinds := map[string]eventv1.TargetKind{
		"endpoint": eventv1.TargetKind_TARGET_KIND_ENDPOINT, "pod": eventv1.TargetKind_TARGET_KIND_POD, "account": eventv1.TargetKind_TARGET_KIND_ACCOUNT,
	}
	var x *queryv1.DiagnoseResponse
	err := c.ask(ctx, func(ctx context.Context, conn *grpc.ClientConn) (err error) {
		x, err = queryv1.NewQueryServiceClient(conn).Diagnose(ctx, &queryv1.DiagnoseRequest{Account: c.Account, Kind: kinds[c.Kind], Target: c.Target})
		return err
	})
	if err != nil {
		return err
	}
	if c.JSON {
		return printJSON(t.Out, x)
	}
	var b strings.Builder
	target := x.GetTarget().GetTarget()
	fmt.Fprintf(&b, "%s %s", short(target.GetKind().String(), "TARGET_KIND_"), printable(target.GetId()))
	if name := target.GetName(); name != "" && name != target.GetId() {
		fmt.Fprintf(&b, " (%s)", printable(name))
	}
	b.WriteString("\n" + wrap(printable(x.GetDiagnosis().GetSentence()), "", ""))
	writeDiagnosis(&b, x.GetDiagnosis())
	writeSeries(&b, x.GetSeries())
	writeErrors(&b, x.GetErrorGroups())
	writeAlerts(&b, x.GetAlerts())
	_, err = io.WriteString(t.Out, b.String())
	return err
}

// printJSON prints an answer of the query API.
func printJSON(out io.Writer, m proto.Message) error {
	text, err := protojson.MarshalOptions{Multiline: true, Indent: "  "}.Marshal(m)
	if err != nil {
		return fmt.Errorf("write the answer as JSON: %w", err)
	}
	_, err = fmt.Fprintf(out, "%s\n", text)
	return err
}

// writeCondition writes what the rule asks, and the values of its parts.
func writeCondition(b *strings.Builder, x *queryv1.ExplainAlertResponse) {
	expression := x.GetRule().GetExpr()
	if expression == "" {
		expression = x.GetAlert().GetEvidence().GetExpression()
	}
	b.WriteString("\nCONDITION\n")
	for _, clause := range clauses(expression) {
		b.WriteString("  " + printable(clause) + "\n")
	}
	w := tabwriter.NewWriter(b, 0, 0, 2, ' ', 0)
	writeValues(w, x)
	_ = w.Flush() // a strings.Builder takes everything
}

// writeValues writes the values of the parts of a condition: those it fired or began
// by, and those of now or of its end. One that ended because its target or its rule
// went was not judged again, and has none of its end.
func writeValues(w io.Writer, x *queryv1.ExplainAlertResponse) {
	e := x.GetAlert().GetEvidence()
	first, now := e.GetValues(), x.GetNow().GetValues()
	then, newest := "WHEN IT FIRED", "NOW"
	if x.GetAlert().GetFiredAt() == nil {
		then = "WHEN IT BEGAN"
	}
	if len(e.GetValuesAtFiring()) > 0 {
		first = e.GetValuesAtFiring()
		if x.GetNow() == nil {
			now, newest = e.GetValues(), "AT THE END"
		}
	}
	meaning := meanings()
	switch {
	case len(now) == 0 && len(first) > 0 && x.GetNow() == nil:
		fmt.Fprintf(w, "\nPART\t%s\tMEANING\n", then)
		for _, v := range first {
			fmt.Fprintf(w, "%s\t%s\t%s\n", printable(v.GetName()), value(v), meaning.of(v.GetName()))
		}
		return
	case len(now) == 0:
		return
	}
	fmt.Fprintf(w, "\nPART\t%s\t%s\tMEANING\n", newest, then)
	for _, v := range now {
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\n", printable(v.GetName()), value(v), value(find(first, v.GetName())), meaning.of(v.GetName()))
	}
	for _, v := range x.GetUntilValues() {
		if find(now, v.GetName()) == nil {
			fmt.Fprintf(w, "%s\t%s\t-\t%s\n", printable(v.GetName()), value(v), meaning.of(v.GetName()))
		}
	}
}

func find(values []*alertv1.Value, name string) *alertv1.Value {
	for _, v := range values {
		if v.GetName() == name {
			return v
		}
	}
	return nil
}

func value(v *alertv1.Value) string {
	switch {
	case v == nil:
		return "-"
	case v.Number != nil:
		return fmt.Sprintf("%.4g", v.GetNumber())
	default:
		return printable(v.GetValue())
	}
}

// meaningOf are the meanings of fields by name.
type meaningOf map[string]string

func meanings() meaningOf {
	m := meaningOf{}
	for _, on := range rulefile.Ons() {
		for _, f := range rulecheck.Fields(on) {
			m[f.Name] = f.Meaning
		}
	}
	return m
}

// of returns the meaning of the first field that a part of an expression names.
func (m meaningOf) of(part string) string {
	words := strings.FieldsFunc(part, func(c rune) bool {
		return c != '.' && c != '_' && (c < 'a' || c > 'z') && (c < '0' || c > '9')
	})
	for _, word := range words {
		if meaning, known := m[word]; known {
			return meaning
		}
	}
	return ""
}

// clauses splits a condition where it says "and" or "or" outside of brackets and
// texts, each with what binds it to the one before.
func clauses(expression string) []string {
	text := strings.Join(strings.Fields(expression), " ")
	var all []string
	depth, quote, begin := 0, byte(0), 0
	for i := 0; i < len(text); i++ {
		c := text[i]
		switch {
		case quote != 0:
			switch c {
			case '\\':
				i++
			case quote:
				quote = 0
			}
		case c == '\'' || c == '"':
			quote = c
		case c == '(' || c == '[':
			depth++
		case c == ')' || c == ']':
			depth--
		case depth == 0 && i > begin && (strings.HasPrefix(text[i:], "&& ") || strings.HasPrefix(text[i:], "|| ")):
			all = append(all, strings.TrimSpace(text[begin:i]))
			begin = i
			i++
		}
	}
	return append(all, strings.TrimSpace(text[begin:]))
}

// writeSeries draws courses.
func writeSeries(b *strings.Builder, series []*alertv1.Series) {
	w := tabwriter.NewWriter(b, 0, 0, 2, ' ', 0)
	for i, s := range series {
		if i == 0 {
			fmt.Fprint(w, "\nCOURSE\t\tLEAST\tMOST\tLAST\n")
		}
		points := make([]spark.Point, len(s.GetPoints()))
		for j, p := range s.GetPoints() {
			points[j] = spark.Point{Ago: p.GetSecondsAgo(), Value: p.GetValue(), Known: p.Value != nil}
		}
		line := spark.Draw(points, sparkWidth)
		least, most, last := "-", "-", "-"
		if line.Known {
			least, most = fmt.Sprintf("%.4g", line.Min), fmt.Sprintf("%.4g", line.Max)
		}
		if line.LastKnown {
			last = fmt.Sprintf("%.4g", line.Last)
		}
		ago := ""
		if len(points) > 0 {
			ago = " (" + age(points[0].Ago) + ")"
		}
		fmt.Fprintf(w, "%s%s\t%s\t%s\t%s\t%s\n", printable(s.GetField()), ago, line.Text, least, most, last)
	}
	_ = w.Flush() // a strings.Builder takes everything
}

// age writes seconds as people say them.
func age(seconds float64) string {
	d := time.Duration(seconds * float64(time.Second)).Round(time.Second)
	text := d.String()
	if strings.HasSuffix(text, "m0s") {
		text = strings.TrimSuffix(text, "0s")
	}
	return text
}

// writeErrors writes failed jobs by category.
func writeErrors(b *strings.Builder, groups []*alertv1.ErrorGroup) {
	for i, g := range groups {
		if i == 0 {
			b.WriteString("\nFAILED JOBS\n")
		}
		fmt.Fprintf(b, "  %s: %d", printable(g.GetCategory()), g.GetCount())
		if len(g.GetJobIds()) > 0 {
			fmt.Fprintf(b, ", for example %s", printable(strings.Join(g.GetJobIds(), ", ")))
		}
		b.WriteString("\n")
		if g.GetMessage() != "" {
			b.WriteString(wrap(printable(g.GetMessage()), "    ", "    "))
		}
	}
}

// writeDiagnosis writes what led to a diagnosis, and what to do.
func writeDiagnosis(b *strings.Builder, d *alertv1.Diagnosis) {
	if d == nil {
		return
	}
	fmt.Fprintf(b, "\nDIAGNOSIS  %s (%s)\n", short(d.GetCause().String(), "DIAGNOSIS_CAUSE_"), short(d.GetCertainty().String(), "CERTAINTY_"))
	w := tabwriter.NewWriter(b, 0, 0, 2, ' ', 0)
	for _, f := range d.GetFacts() {
		old := ""
		if f.AgeSeconds != nil {
			old = age(f.GetAgeSeconds()) + " ago"
		}
		fmt.Fprintf(w, "  %s\t%s\t%s\n", printable(f.GetName()), printable(f.GetValue()), old)
	}
	_ = w.Flush() // a strings.Builder takes everything
	if len(d.GetAlternatives()) > 0 {
		var others []string
		for _, c := range d.GetAlternatives() {
			others = append(others, short(c.String(), "DIAGNOSIS_CAUSE_"))
		}
		fmt.Fprintf(b, "  or else: %s\n", strings.Join(others, ", "))
	}
	if len(d.GetAdvice()) > 0 {
		b.WriteString("\nWHAT TO DO\n")
		for _, advice := range d.GetAdvice() {
			b.WriteString(wrap(printable(advice), "  - ", "    "))
		}
	}
}

// writeAlerts lists the alerts on a target.
func writeAlerts(b *strings.Builder, alerts []*alertv1.Alert) {
	if len(alerts) == 0 {
		b.WriteString("\nno alerts on it\n")
		return
	}
	w := tabwriter.NewWriter(b, 0, 0, 2, ' ', 0)
	fmt.Fprint(w, "\nALERT\tSTATE\tSINCE\tWORST\tID\n")
	for _, a := range alerts {
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\n", printable(a.GetRule()), stateOf(a), a.GetActiveAt().AsTime().Local().Format(time.DateTime), worstOf(a), idOf(a))
	}
	_ = w.Flush() // a strings.Builder takes everything
}

// short writes the name of an enum's value in words.
func short(name, prefix string) string {
	return strings.ReplaceAll(strings.ToLower(strings.TrimPrefix(name, prefix)), "_", " ")
}

// wrap breaks a text into lines of at most textWidth, with a begin for the first and
// one for the others.
func wrap(text, first, other string) string {
	var b strings.Builder
	line, begin := "", first
	for word := range strings.FieldsSeq(text) {
		if line != "" && len(begin)+len(line)+1+len(word) > textWidth {
			b.WriteString(begin + line + "\n")
			line, begin = "", other
		}
		line = strings.TrimPrefix(line+" "+word, " ")
	}
	b.WriteString(begin + line + "\n")
	return b.String()
}
