package expr

import (
	"fmt"
	"math"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/tocsin-dev/tocsin/rules"
	"github.com/tocsin-dev/tocsin/services/alerter/rulefile"
)

// choices makes a choice of each byte, and the first of all when they are used up.
type choices []byte

func (c *choices) of(n int) int {
	if len(*c) == 0 {
		return 0
	}
	b := (*c)[0]
	*c = (*c)[1:]
	return int(b) % n
}

func pickOne(c *choices, from ...string) string { return from[c.of(len(from))] }

// truthText writes a random condition of all that is evaluated natively.
func truthText(c *choices, depth int) string {
	if depth == 0 {
		return pickOne(c, "poll.failing", "true", "false", "present(jobs.in_queue)", "absent('2m')")
	}
	switch c.of(9) {
	case 0:
		return fmt.Sprintf("(%s && %s)", truthText(c, depth-1), truthText(c, depth-1))
	case 1:
		return fmt.Sprintf("(%s || %s)", truthText(c, depth-1), truthText(c, depth-1))
	case 2:
		return "!(" + truthText(c, depth-1) + ")"
	case 3:
		return fmt.Sprintf("(%s ? %s : %s)", truthText(c, depth-1), truthText(c, depth-1), truthText(c, depth-1))
	case 4:
		return fmt.Sprintf("(%s %s %s)", wordsText(c, depth-1), pickOne(c, "==", "!="), wordsText(c, depth-1))
	case 5:
		return fmt.Sprintf("(%s %s %s)", truthText(c, depth-1), pickOne(c, "==", "!="), truthText(c, depth-1))
	case 6:
		return fmt.Sprintf("(%s in ['prod', 'queue'])", wordsText(c, depth-1))
	default:
		return fmt.Sprintf("(%s %s %s)", amountText(c, depth-1), pickOne(c, "<", "<=", ">", ">=", "==", "!="), amountText(c, depth-1))
	}
}

func amountText(c *choices, depth int) string {
	if depth == 0 {
		return pickOne(c, "jobs.in_queue", "workers.running", "0", "1", "0.1", "-3", "1e300", "increase(jobs.failed, '5m')",
			"rate(jobs.completed, '5m')", "increase(jobs.completed, '1h')", "increase(jobs.retried, '2m')", "changes(jobs.in_queue, '1h')",
			"rate(jobs.failed, '3m')", "increase(jobs.failed, '7m')", "increase(jobs.failed, '9m')", "avg(jobs.in_queue, '5m')", "threshold('queue', 5)")
	}
	switch c.of(9) {
	case 0:
		return "-(" + amountText(c, depth-1) + ")"
	case 1, 2:
		return fmt.Sprintf("%s(%s, %s)", pickOne(c, "min", "max"), amountText(c, depth-1), amountText(c, depth-1))
	case 3:
		return fmt.Sprintf("(%s ? %s : %s)", truthText(c, depth-1), amountText(c, depth-1), amountText(c, depth-1))
	case 4:
		return fmt.Sprintf("threshold('high', %s)", amountText(c, depth-1))
	default:
		return fmt.Sprintf("(%s %s %s)", amountText(c, depth-1), pickOne(c, "+", "-", "*", "/"), amountText(c, depth-1))
	}
}

func wordsText(c *choices, depth int) string {
	if depth == 0 {
		return pickOne(c, "endpoint.type", "label('env')", "'prod'", "''")
	}
	return fmt.Sprintf("(%s ? %s : %s)", truthText(c, depth-1), wordsText(c, depth-1), wordsText(c, depth-1))
}

// drawn gives each slot the value that was chosen for it.
type drawn []Value

func (d drawn) Slot(id int) Value { return d[id] }

// shown is a source that shows where its values stand.
type shown struct{ drawn }

func (s shown) Find(id int) *Value { return &s.drawn[id] }

// kindOf is the kind that a slot's values are declared with.
func (s Slot) kindOf() Kind {
	switch s.Fn {
	case FnLabel:
		return Text
	case FnPresent, FnAbsent, FnOverridden:
		return Truth
	case FnField:
		if k := table[s.Field].Kind; k != Counter {
			return k
		}
	}
	return Gauge
}

// draw chooses a value for each slot: of its kind, missing, with slack, or now and
// then of another kind.
func draw(c *choices, slots []Slot) drawn {
	values := make(drawn, len(slots))
	for i, s := range slots {
		kind := s.kindOf()
		switch c.of(12) {
		case 0, 1:
			continue
		case 2:
			kind = Kind(1 + c.of(4))
		}
		switch kind {
		case Text:
			values[i] = Str(pickOne(c, "prod", "queue", "", "load_balancer"))
		case Truth:
			values[i] = Bool(c.of(2) == 0)
		default:
			numbers := []float64{0, 1, 2, -3, 0.1, 1e-300, 1e308, math.NaN(), math.Inf(1), math.Inf(-1), math.Copysign(0, -1), 7}
			values[i] = Value{Kind: kind, Number: numbers[c.of(len(numbers))]}
			if s.Fn.Loose() && c.of(3) == 0 {
				values[i].Slack = float64(1 + c.of(3))
			}
		}
	}
	return values
}

// agree evaluates a random condition natively and by CEL, and compares. It says
// whether the condition was one that compiles.
func agree(t *testing.T, data []byte) bool {
	t.Helper()
	c := choices(data)
	text := truthText(&c, 1+c.of(5))
	comp, err := NewCompiler(rulefile.OnEndpoint)
	if err != nil {
		t.Fatal(err)
	}
	e, mistakes := comp.Compile(text)
	if len(mistakes) > 0 {
		return false // too long or too dear
	}
	if e.native == nil {
		t.Fatalf("%s is left to CEL", text)
	}
	var w Workspace
	cel := *e
	cel.native = nil
	for range 8 {
		values := draw(&c, comp.Slots())
		got, gotErr := e.Eval(values)
		want, wantErr := cel.Eval(values)
		if got != want || fmt.Sprint(gotErr) != fmt.Sprint(wantErr) {
			t.Fatalf("%s with %v gives %v (%v); CEL gives %v (%v)", text, values, got, gotErr, want, wantErr)
		}
		if again, _ := e.EvalIn(&w, shown{values}); again != got {
			t.Fatalf("%s with %v gives %v, and %v where the values are shown", text, values, got, again)
		}
	}
	return true
}

func TestNativeConditionsAreDecidedAsByCEL(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	compiled := 0
	for range 300 {
		data := make([]byte, 400)
		for i := range data {
			data[i] = byte(r.Uint32())
		}
		if agree(t, data) {
			compiled++
		}
	}
	if compiled < 150 {
		t.Errorf("only %d of 300 random conditions compile: too few to compare", compiled)
	}
}

func FuzzNativeConditionsAreDecidedAsByCEL(f *testing.F) {
	f.Add([]byte{3, 0, 8, 1, 0, 2, 5, 7})
	f.Add([]byte(strings.Repeat("native or not", 20)))
	f.Fuzz(func(t *testing.T, data []byte) {
		agree(t, data)
	})
}

func TestWhatIsLeftToCEL(t *testing.T) {
	for _, c := range []struct {
		text   string
		native bool
	}{
		{"jobs.in_queue > 5 && (workers.running == 0 || poll.failing)", true},
		{"jobs.in_queue > threshold('queue', 20 * workers.max)", true},
		{"endpoint.type in ['queue', 'load_balancer']", true},
		{"endpoint.type.startsWith('q')", false},
		{"endpoint.type < 'r'", false},
		{"endpoint.type + 'x' == 'queuex'", false},
		{"size(endpoint.type) > 3", false},
		{"[jobs.in_queue, workers.running].exists(x, x > 5)", false},
		{"poll.failing < true", false},
		{"jobs.in_queue in [1.0, 2.0]", false},
	} {
		e, mistakes := compiler(t, rulefile.OnEndpoint).Compile(c.text)
		if len(mistakes) > 0 {
			t.Fatal(c.text, mistakes)
		}
		if native := e.native != nil; native != c.native {
			t.Errorf("%s: evaluated natively: %v, want %v", c.text, native, c.native)
		}
	}
}

func TestTheDefaultPackNeedsNoCELToDecide(t *testing.T) {
	set, err := rulefile.Parse(rules.Default(), nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range set.Rules() {
		for _, text := range []string{r.Expr, r.Until} {
			if text == "" {
				continue
			}
			e, mistakes := compiler(t, r.On).Compile(text)
			if len(mistakes) > 0 {
				t.Fatal(r.Alert, mistakes)
			}
			if e.native == nil {
				t.Errorf("%s: %s is left to CEL, which is ten times slower", r.Alert, text)
			}
		}
	}
}
