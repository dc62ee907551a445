// Package expr compiles and evaluates the expressions of rules. It promises
// that an expression that compiled reads only fields of its kind of target,
// costs a bounded amount, and gives the same answer for the same values; and
// that a missing value is neither true nor false nor a failure, but no value,
// unless the rest of the expression decides it.
package expr

import (
	"fmt"
	"regexp"
	"slices"
	"strings"

	"cel.dev/cel-go/cel"
	"cel.dev/cel-go/common"
	"cel.dev/cel-go/common/ast"
	"cel.dev/cel-go/common/cost"
	"cel.dev/cel-go/common/types"
	"cel.dev/cel-go/common/types/ref"

	"github.com/tocsin-dev/tocsin/services/alerter/internal/nearest"
	"github.com/tocsin-dev/tocsin/services/alerter/rulefile"
)

const (
	// MaxCost bounds an expression by CEL's static estimate. A comparison costs
	// about 3, the longest rule of the default pack under 100; 1,000 are some 50
	// microseconds.
	MaxCost = 1000
	// maxText bounds the length of an expression, in bytes.
	maxText = 4096
	// maxTextValue is how long the texts of targets are taken to be by the
	// estimate: statuses and label values.
	maxTextValue = 64
)

// Mistake is one thing that is wrong with an expression.
type Mistake struct {
	// Offset is where it stands, in bytes from the beginning of the text.
	Offset int
	// Text says what is wrong and what was expected.
	Text string
}

// Compiler compiles the expressions of rules on one kind of thing and gathers
// the slots that they share.
type Compiler struct {
	on    rulefile.On
	env   *cel.Env
	slots []Slot
	index map[string]int
}

// NewCompiler returns a compiler for rules on endpoints, pods, jobs or accounts.
func NewCompiler(on rulefile.On) (*Compiler, error) {
	opts := []cel.EnvOption{
		cel.CrossTypeNumericComparisons(true),
		cel.ParserExpressionSizeLimit(maxText),
		cel.Function("min", cel.Overload("min_double_double", []*cel.Type{cel.DoubleType, cel.DoubleType}, cel.DoubleType,
			cel.BinaryBinding(func(a, b ref.Val) ref.Val { return pick(a, b, types.IntNegOne) }))),
		cel.Function("max", cel.Overload("max_double_double", []*cel.Type{cel.DoubleType, cel.DoubleType}, cel.DoubleType,
			cel.BinaryBinding(func(a, b ref.Val) ref.Val { return pick(a, b, types.IntOne) }))),
	}
	for _, f := range Fields(on) {
		opts = append(opts, cel.Variable(f.Name, celType(f.Kind)))
	}
	env, err := cel.NewEnv(opts...)
	if err != nil {
		return nil, fmt.Errorf("make the environment of rules on %s: %w", on, err)
	}
	return &Compiler{on: on, env: env, index: map[string]int{}}, nil
}

// pick returns a if it compares to b as wanted, and else b.
func pick(a, b ref.Val, want types.Int) ref.Val {
	if a.(types.Double).Compare(b) == want {
		return a
	}
	return b
}

func celType(k Kind) *cel.Type {
	switch k {
	case Text:
		return cel.StringType
	case Truth:
		return cel.BoolType
	default:
		return cel.DoubleType
	}
}

// Slots returns the slots that the expressions compiled so far ask for. A slot
// keeps its position.
func (c *Compiler) Slots() []Slot { return c.slots }

// slot returns the position of the slot with the text of s, adding s if new.
func (c *Compiler) slot(s Slot) int {
	key := fmt.Sprint(int(s.Fn), " ", s.Text)
	id, ok := c.index[key]
	if !ok {
		id = len(c.slots)
		c.slots = append(c.slots, s)
		c.index[key] = id
	}
	return id
}

// Compile reads a condition. Either the expression is returned or the mistakes.
func (c *Compiler) Compile(text string) (*Expr, []Mistake) {
	if len(text) > maxText {
		return nil, []Mistake{{Text: fmt.Sprintf("the expression has %d bytes; at most %d are read", len(text), maxText)}}
	}
	b := &builder{c: c, text: text, e: &Expr{text: text, slots: map[string]int{}}}
	env, err := c.env.Extend(cel.Macros(b.macros()...))
	if err != nil {
		return nil, []Mistake{{Text: err.Error()}}
	}
	parsed, issues := env.Parse(text)
	if issues.Err() != nil {
		return nil, b.issues(issues)
	}
	b.checkFields(parsed.NativeRep())
	b.checkTexts(parsed.NativeRep())
	if len(b.mistakes) > 0 {
		return nil, b.mistakes
	}
	b.doubt(parsed.NativeRep())
	numbersToDoubles(parsed.NativeRep())
	b.measure(parsed.NativeRep().Expr(), false)
	if env, err = c.env.Extend(b.variables...); err != nil {
		return nil, []Mistake{{Text: err.Error()}}
	}
	checked, issues := env.Check(parsed)
	if issues.Err() != nil {
		return nil, b.issues(issues)
	}
	return b.finish(env, checked)
}

// finish makes the program of a checked expression.
func (b *builder) finish(env *cel.Env, checked *cel.Ast) (*Expr, []Mistake) {
	if t := checked.OutputType(); !t.IsExactType(cel.BoolType) {
		return nil, []Mistake{{Text: fmt.Sprintf("the expression gives a %s; expected a condition, for example `... > 0`", typeName(t))}}
	}
	estimate, err := env.EstimateCost(checked, sizes{})
	if err != nil {
		return nil, []Mistake{{Text: fmt.Sprintf("estimate the cost: %v", err)}}
	}
	if estimate.Max > MaxCost {
		return nil, []Mistake{{Text: fmt.Sprintf("the expression may cost %d; at most %d is allowed", estimate.Max, MaxCost)}}
	}
	b.e.cost = estimate.Max
	if b.e.prg, err = env.Program(checked, cel.EvalOptions(cel.OptOptimize), b.direct()); err != nil {
		return nil, []Mistake{{Text: err.Error()}}
	}
	b.e.native = b.native(checked)
	slices.SortStableFunc(b.parts, func(x, y placed) int { return x.offset - y.offset })
	for _, p := range b.parts {
		if !slices.Contains(b.e.parts, p.slot) {
			b.e.parts = append(b.e.parts, p.slot)
		}
	}
	return b.e, nil
}

func typeName(t *cel.Type) string {
	switch t.TypeName() {
	case "double", "int", "uint":
		return "number"
	case "string":
		return "text"
	default:
		return t.TypeName()
	}
}

// sizes bounds texts for the cost estimate.
type sizes struct{}

// EstimateSize bounds the texts that come from outside.
func (sizes) EstimateSize(cost.AstNode) *cost.SizeEstimate {
	return &cost.SizeEstimate{Min: 0, Max: maxTextValue}
}

// EstimateCallCost leaves calls to CEL's own estimate.
func (sizes) EstimateCallCost(string, string, *cost.AstNode, []cost.AstNode) *cost.CallEstimate {
	return nil
}

// builder compiles one expression.
type builder struct {
	c         *Compiler
	text      string
	e         *Expr
	variables []cel.EnvOption
	parts     []placed
	mistakes  []Mistake
}

// placed is a part of the expression and where it stands.
type placed struct {
	offset, slot int
}

// undeclared finds the name in CEL's complaint about it.
var undeclared = regexp.MustCompile(`^undeclared reference to '([^']*)'`)

// mismatch finds the operator and the types in CEL's complaint about them.
var mismatch = regexp.MustCompile(`^found no matching overload for '([^']*)' applied to '([^']*)'`)

// plainOperator writes CEL's name of an operator as expressions write it.
func plainOperator(name string) string {
	if name == "@in" {
		return "in"
	}
	return strings.Trim(strings.TrimSuffix(strings.TrimPrefix(name, "_"), "_"), "@")
}

// plainTypes writes CEL's list of types in words.
func plainTypes(list string) string {
	list = strings.NewReplacer("(", "", ")", "", "double", "a number", "int", "a number", "string", "a text", "bool", "a truth value").Replace(list)
	return strings.ReplaceAll(list, ", ", " and ")
}

// wordStart moves from the dot or bracket at which CEL places a name with dots
// or a call to the beginning of that name.
func (b *builder) wordStart(at int) int {
	if at >= len(b.text) || b.text[at] != '.' && b.text[at] != '(' {
		return at
	}
	for at > 0 && (b.text[at-1] == '.' || b.text[at-1] == '_' || isLetterOrDigit(b.text[at-1])) {
		at--
	}
	return at
}

func isLetterOrDigit(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9'
}

// issues turns CEL's complaints into mistakes.
func (b *builder) issues(issues *cel.Issues) []Mistake {
	var all []Mistake
	for _, e := range issues.Errors() {
		text := e.Message
		if m := undeclared.FindStringSubmatch(text); m != nil {
			text = fmt.Sprintf("`%s` is no function%s", m[1], nearest.Hint(m[1], functionNames))
		}
		if m := mismatch.FindStringSubmatch(text); m != nil {
			text = fmt.Sprintf("`%s` does not apply to %s", plainOperator(m[1]), plainTypes(m[2]))
		}
		m := Mistake{Offset: b.wordStart(b.offset(e.Location)), Text: text}
		if !slices.Contains(all, m) {
			all = append(all, m)
		}
	}
	return all
}

// offset turns CEL's line and column (in characters) into bytes of the text.
func (b *builder) offset(at common.Location) int {
	if at == nil || at.Line() < 1 {
		return 0
	}
	begin := 0
	for range at.Line() - 1 {
		n := strings.IndexByte(b.text[begin:], '\n')
		if n < 0 {
			break
		}
		begin += n + 1
	}
	column := 0
	for i := range b.text[begin:] {
		if column == at.Column() {
			return begin + i
		}
		column++
	}
	return max(len(b.text)-1, 0)
}

// numbersToDoubles makes every whole number of the expression a double, as all
// fields are.
func numbersToDoubles(a *ast.AST) {
	fac := ast.NewExprFactory()
	ast.PostOrderVisit(a.Expr(), ast.NewExprVisitor(func(e ast.Expr) {
		if e.Kind() != ast.LiteralKind {
			return
		}
		switch n := e.AsLiteral().(type) {
		case types.Int:
			e.SetKindCase(fac.NewLiteral(e.ID(), types.Double(n)))
		case types.Uint:
			e.SetKindCase(fac.NewLiteral(e.ID(), types.Double(n)))
		}
	}))
}
