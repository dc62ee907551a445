package expr

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"cel.dev/cel-go/cel"
	"cel.dev/cel-go/common"
	"cel.dev/cel-go/common/ast"
	"cel.dev/cel-go/common/operators"
	"cel.dev/cel-go/common/types"
	"cel.dev/cel-go/parser"

	"github.com/tocsin-dev/tocsin/services/alerter/internal/nearest"
	"github.com/tocsin-dev/tocsin/services/alerter/rulefile"
)

const (
	// minAbsence is the shortest silence that may mean absence: to the fold, an
	// outage of the bus of up to 90 s is time as any other, and a poll interval
	// more may have passed before it.
	minAbsence = 2 * time.Minute
	// MaxWindow bounds windows: 24 h of a value that changes every 85 s fill a
	// series' 1,024 points.
	MaxWindow = 24 * time.Hour
	// maxBuckets bounds count_true, whose cost grows with them.
	maxBuckets = 120
)

// macros returns the functions that capture a field or a name. They note the
// slots of this one expression.
func (b *builder) macros() []cel.Macro {
	all := []cel.Macro{
		cel.GlobalVarArgMacro("absent", b.absent),
		cel.GlobalVarArgMacro("present", b.present),
		cel.GlobalVarArgMacro("label", b.label),
		cel.GlobalVarArgMacro("threshold", b.threshold),
		cel.GlobalVarArgMacro("count_true", b.countTrue),
		cel.GlobalVarArgMacro("quantile", b.quantile),
		cel.GlobalVarArgMacro("predict", b.predict),
		cel.GlobalVarArgMacro("age", b.age),
		cel.GlobalVarArgMacro("burn_rate", b.burnRate),
		cel.GlobalVarArgMacro("baseline", b.usual("baseline", FnBaseline)),
		cel.GlobalVarArgMacro("baseline_spread", b.usual("baseline_spread", FnBaselineSpread)),
	}
	for _, f := range windowFns {
		all = append(all, cel.GlobalVarArgMacro(f.name, b.windowed(f)))
	}
	return all
}

// capture notes a slot and returns the variable that stands for it.
func (b *builder) capture(eh parser.ExprHelper, at ast.Expr, s Slot, t *cel.Type) ast.Expr {
	id := b.c.slot(s)
	b.parts = append(b.parts, placed{b.offset(eh.OffsetLocation(at.ID())), id})
	return b.variable(eh, id, t)
}

func (b *builder) variable(eh parser.ExprHelper, id int, t *cel.Type) ast.Expr {
	name := fmt.Sprintf("@%d", id)
	if _, known := b.e.slots[name]; !known {
		b.e.slots[name] = id
		b.variables = append(b.variables, cel.Variable(name, t))
	}
	return eh.NewIdent(name)
}

// windowed returns the macro of a function over a field and a window. min and
// max of two numbers are left to the functions of that name.
func (b *builder) windowed(f windowFn) cel.MacroFactory {
	return func(eh parser.ExprHelper, _ ast.Expr, args []ast.Expr) (ast.Expr, *common.Error) {
		scalar := f.fn == FnMin || f.fn == FnMax
		if len(args) != 2 {
			return nil, b.wrong(eh, args, "%s takes a field and a window, for example %s(%s, '5m')", f.name, f.name, b.example())
		}
		if _, text := textOf(args[1]); !text && scalar {
			return nil, nil
		}
		window, err := b.duration(eh, args[1], time.Second)
		if err != nil {
			return nil, err
		}
		field, err := b.numberField(eh, args[0], f.name, f.of)
		if err != nil {
			return nil, err
		}
		text, _ := textOf(args[1])
		s := Slot{Fn: f.fn, Field: field.ID, Window: window, Text: fmt.Sprintf("%s(%s, '%s')", f.name, field.Name, text)}
		return b.capture(eh, args[0], s, cel.DoubleType), nil
	}
}

func (b *builder) absent(eh parser.ExprHelper, _ ast.Expr, args []ast.Expr) (ast.Expr, *common.Error) {
	if len(args) != 1 {
		return nil, b.wrong(eh, args, "absent takes a duration, for example absent('5m')")
	}
	if b.c.on == rulefile.OnJob {
		return nil, eh.NewError(args[0].ID(), "absent is for rules on endpoints, pods and accounts: no sample is about a category of failures")
	}
	window, err := b.duration(eh, args[0], minAbsence)
	if err != nil {
		return nil, err
	}
	text, _ := textOf(args[0])
	return b.capture(eh, args[0], Slot{Fn: FnAbsent, Window: window, Text: fmt.Sprintf("absent('%s')", text)}, cel.BoolType), nil
}

func (b *builder) present(eh parser.ExprHelper, _ ast.Expr, args []ast.Expr) (ast.Expr, *common.Error) {
	if len(args) != 1 {
		return nil, b.wrong(eh, args, "present takes a field, for example present(%s)", b.example())
	}
	field, err := b.field(eh, args[0], "present")
	if err != nil {
		return nil, err
	}
	return b.capture(eh, args[0], Slot{Fn: FnPresent, Field: field.ID, Text: fmt.Sprintf("present(%s)", field.Name)}, cel.BoolType), nil
}

func (b *builder) label(eh parser.ExprHelper, _ ast.Expr, args []ast.Expr) (ast.Expr, *common.Error) {
	if len(args) != 1 {
		return nil, b.wrong(eh, args, "label takes a name, for example label('env')")
	}
	name, ok := textOf(args[0])
	if !ok || name == "" {
		return nil, eh.NewError(args[0].ID(), "label takes a name in quotes, for example label('env')")
	}
	return b.capture(eh, args[0], Slot{Fn: FnLabel, Name: name, Text: fmt.Sprintf("label('%s')", name)}, cel.StringType), nil
}

func (b *builder) threshold(eh parser.ExprHelper, _ ast.Expr, args []ast.Expr) (ast.Expr, *common.Error) {
	if len(args) != 2 {
		return nil, b.wrong(eh, args, "threshold takes a name and a default, for example threshold('queue', 100)")
	}
	name, ok := textOf(args[0])
	if !ok || name == "" {
		return nil, eh.NewError(args[0].ID(), "threshold takes a name in quotes, for example threshold('queue', 100)")
	}
	if value, ok := numberOf(args[1]); ok {
		s := Slot{Fn: FnThreshold, Name: name, Default: value, Text: fmt.Sprintf("threshold('%s', %s)", name, Num(value))}
		return b.capture(eh, args[0], s, cel.DoubleType), nil
	}
	// A default that is computed: the override if there is one, else the default.
	set := b.variable(eh, b.c.slot(Slot{Fn: FnOverridden, Name: name, Text: name}), cel.BoolType)
	value := b.variable(eh, b.c.slot(Slot{Fn: FnThreshold, Name: name, Text: name}), cel.DoubleType)
	return eh.NewCall("_?_:_", set, value, args[1]), nil
}

func (b *builder) countTrue(eh parser.ExprHelper, _ ast.Expr, args []ast.Expr) (ast.Expr, *common.Error) {
	if len(args) != 3 {
		return nil, b.wrong(eh, args, "count_true takes a condition, a window and the size of its buckets, for example count_true(%s > 0, '10m', '1m')", b.example())
	}
	window, err := b.duration(eh, args[1], time.Second)
	if err != nil {
		return nil, err
	}
	bucket, err := b.duration(eh, args[2], time.Second)
	if err != nil {
		return nil, err
	}
	if window%bucket != 0 || window/bucket > maxBuckets {
		return nil, eh.NewError(args[2].ID(), fmt.Sprintf("the window must be a whole number of buckets, at most %d", maxBuckets))
	}
	cond, text, err := b.condition(eh, args[0])
	if err != nil {
		return nil, err
	}
	w, _ := textOf(args[1])
	s, _ := textOf(args[2])
	slot := Slot{Fn: FnCountTrue, Window: window, Bucket: bucket, Cond: cond, Text: fmt.Sprintf("count_true(%s, '%s', '%s')", text, w, s)}
	return b.capture(eh, args[0], slot, cel.DoubleType), nil
}

// condition compiles the condition of count_true, which may name fields only:
// it is recorded when facts arrive, not asked for later.
func (b *builder) condition(eh parser.ExprHelper, e ast.Expr) (*Expr, string, *common.Error) {
	var inner *common.Error
	ast.PostOrderVisit(e, ast.NewExprVisitor(func(x ast.Expr) {
		if x.Kind() == ast.IdentKind && strings.HasPrefix(x.AsIdent(), "@") && inner == nil {
			inner = eh.NewError(e.ID(), "the condition of count_true names fields, not functions over time, labels or thresholds")
		}
	}))
	if inner != nil {
		return nil, "", inner
	}
	text, err := parser.Unparse(e, ast.NewSourceInfo(nil))
	if err != nil {
		return nil, "", eh.NewError(e.ID(), fmt.Sprintf("the condition of count_true: %v", err))
	}
	cond, mistakes := b.c.Compile(text)
	if len(mistakes) > 0 {
		return nil, "", eh.NewError(e.ID(), mistakes[0].Text)
	}
	for _, d := range cond.Doubts() {
		b.e.doubts = append(b.e.doubts, Mistake{Offset: b.offset(eh.OffsetLocation(e.ID())), Text: d.Text})
	}
	return cond, text, nil
}

// wrong is a mistake in the number of arguments, placed at the first if any.
func (b *builder) wrong(eh parser.ExprHelper, args []ast.Expr, format string, a ...any) *common.Error {
	id := int64(1)
	if len(args) > 0 {
		id = args[0].ID()
	}
	return eh.NewError(id, fmt.Sprintf(format, a...))
}

// example names a field of the kind of target at hand, for messages.
func (b *builder) example() string { return Fields(b.c.on)[0].Name }

// duration reads a window within its bounds, in milliseconds.
func (b *builder) duration(eh parser.ExprHelper, e ast.Expr, least time.Duration) (int64, *common.Error) {
	return b.durationUpTo(eh, e, least, MaxWindow, "at most %s are kept")
}

// durationUpTo reads a duration within bounds, in milliseconds. most says why there
// is an upper one.
func (b *builder) durationUpTo(eh parser.ExprHelper, e ast.Expr, least, limit time.Duration, most string) (int64, *common.Error) {
	text, ok := textOf(e)
	if !ok {
		return 0, eh.NewError(e.ID(), "expected a duration in quotes, for example '5m'")
	}
	d, err := rulefile.ParseDuration(text)
	switch {
	case err != nil:
		return 0, eh.NewError(e.ID(), err.Error())
	case d < least:
		return 0, eh.NewError(e.ID(), fmt.Sprintf("'%s' is too short; expected at least %s", text, short(least)))
	case d > limit:
		return 0, eh.NewError(e.ID(), fmt.Sprintf("'%s' is too long; "+most, text, short(limit)))
	}
	return d.Milliseconds(), nil
}

// short writes a duration without the zero parts at its end: 2m, 16h40m, 24h.
func short(d time.Duration) string {
	text := d.String()
	if strings.HasSuffix(text, "m0s") {
		text = strings.TrimSuffix(text, "0s")
	}
	if strings.HasSuffix(text, "h0m") {
		text = strings.TrimSuffix(text, "0m")
	}
	return text
}

// field reads the name of a field.
func (b *builder) field(eh parser.ExprHelper, e ast.Expr, fn string) (Field, *common.Error) {
	name, ok := chain(e)
	if !ok || strings.HasPrefix(name, "@") {
		return Field{}, eh.NewError(e.ID(), fmt.Sprintf("%s takes the name of a field, for example %s", fn, b.example()))
	}
	id, known := byName[name]
	if !known || !slices.Contains(table[id].On, b.c.on) {
		return Field{}, eh.NewError(e.ID(), b.noField(name))
	}
	return table[id], nil
}

// noField says that a name is no field of the kind of target at hand.
func (b *builder) noField(name string) string {
	text := fmt.Sprintf("`%s` is no field of %s", name, article(b.c.on))
	if id, elsewhere := byName[name]; elsewhere {
		return text + fmt.Sprintf("; it is one of %s", article(table[id].On[0]))
	}
	return text + nearest.Hint(name, fieldNames(b.c.on))
}

func article(on rulefile.On) string {
	if on == rulefile.OnEndpoint || on == rulefile.OnAccount {
		return "an " + string(on)
	}
	return "a " + string(on)
}

// checkFields notes names that are no fields, which CEL would say less well.
func (b *builder) checkFields(a *ast.AST) {
	bound := map[string]bool{}
	inner := map[int64]bool{}
	ast.PreOrderVisit(a.Expr(), ast.NewExprVisitor(func(e ast.Expr) {
		if e.Kind() == ast.ComprehensionKind {
			c := e.AsComprehension()
			bound[c.IterVar()], bound[c.IterVar2()], bound[c.AccuVar()] = true, true, true
		}
	}))
	ast.PreOrderVisit(a.Expr(), ast.NewExprVisitor(func(e ast.Expr) {
		name, ok := chain(e)
		if !ok || inner[e.ID()] {
			return
		}
		for x := e; x.Kind() == ast.SelectKind; {
			x = x.AsSelect().Operand()
			inner[x.ID()] = true
		}
		root, _, _ := strings.Cut(name, ".")
		if strings.HasPrefix(name, "@") || bound[root] {
			return
		}
		at := b.wordStart(b.offset(a.SourceInfo().GetStartLocation(e.ID())))
		switch id, known := byName[name]; {
		case e.Kind() == ast.SelectKind && e.AsSelect().IsTestOnly():
			b.mistakes = append(b.mistakes, Mistake{at, fmt.Sprintf("`has` does not apply to fields; write present(%s)", name)})
		case !known || !slices.Contains(table[id].On, b.c.on):
			b.mistakes = append(b.mistakes, Mistake{at, b.noField(name)})
		default:
			slot := b.c.slot(Slot{Fn: FnField, Field: id, Text: name})
			b.e.slots[name] = slot
			b.parts = append(b.parts, placed{at, slot})
		}
	}))
}

// checkTexts notes comparisons of a field with a text that it never has, which
// would silently never hold.
func (b *builder) checkTexts(a *ast.AST) {
	ast.PreOrderVisit(a.Expr(), ast.NewExprVisitor(func(e ast.Expr) {
		if e.Kind() != ast.CallKind || len(e.AsCall().Args()) != 2 {
			return
		}
		left, right := e.AsCall().Args()[0], e.AsCall().Args()[1]
		switch e.AsCall().FunctionName() {
		case operators.Equals, operators.NotEquals:
			b.checkText(a, left, right)
			b.checkText(a, right, left)
		case operators.In:
			if right.Kind() == ast.ListKind {
				for _, element := range right.AsList().Elements() {
					b.checkText(a, left, element)
				}
			}
		}
	}))
}

func (b *builder) checkText(a *ast.AST, field, literal ast.Expr) {
	name, isName := chain(field)
	text, isText := textOf(literal)
	id, known := byName[name]
	if !isName || !isText || !known || !slices.Contains(table[id].On, b.c.on) || table[id].Values == nil || slices.Contains(table[id].Values, text) {
		return
	}
	what := fmt.Sprintf("`%s` is never '%s'; expected one of %s", name, text, strings.Join(table[id].Values, ", "))
	b.mistakes = append(b.mistakes, Mistake{b.offset(a.SourceInfo().GetStartLocation(literal.ID())), what})
}

// chain reads a name with dots.
func chain(e ast.Expr) (string, bool) {
	switch e.Kind() {
	case ast.IdentKind:
		return e.AsIdent(), true
	case ast.SelectKind:
		s := e.AsSelect()
		root, ok := chain(s.Operand())
		return root + "." + s.FieldName(), ok
	default:
		return "", false
	}
}

func textOf(e ast.Expr) (string, bool) {
	if e.Kind() != ast.LiteralKind {
		return "", false
	}
	s, ok := e.AsLiteral().(types.String)
	return string(s), ok
}

func numberOf(e ast.Expr) (float64, bool) {
	if e.Kind() != ast.LiteralKind {
		return 0, false
	}
	switch n := e.AsLiteral().(type) {
	case types.Int:
		return float64(n), true
	case types.Double:
		return float64(n), true
	default:
		return 0, false
	}
}
