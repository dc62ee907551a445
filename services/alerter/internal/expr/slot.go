package expr

import (
	"strconv"

	"cel.dev/cel-go/common/types"
	"cel.dev/cel-go/common/types/ref"

	"github.com/tocsin-dev/tocsin/services/alerter/rulefile"
)

// Fn says how the value of a slot is found.
type Fn int

// The ways to find a value.
const (
	// FnField is the latest value of a field.
	FnField Fn = iota + 1
	// FnIncrease is by how much a counter rose in a window.
	FnIncrease
	// FnRate is the increase per second.
	FnRate
	// FnMin is the least value in a window.
	FnMin
	// FnMax is the greatest value in a window.
	FnMax
	// FnAvg is the time-weighted mean of a window.
	FnAvg
	// FnLast is the newest value in a window.
	FnLast
	// FnDelta is the value now minus the value a window ago.
	FnDelta
	// FnCountTrue counts the buckets of a window in which a condition held.
	FnCountTrue
	// FnAbsent says that no sample came for a time.
	FnAbsent
	// FnPresent says that a field has a value now.
	FnPresent
	// FnLabel is a label of the target, or empty.
	FnLabel
	// FnThreshold is an override of the target, or a fixed default.
	FnThreshold
	// FnOverridden says that the target has an override.
	FnOverridden
	// FnDeriv is by how much a value rises in a second, by the line through a window.
	FnDeriv
	// FnPredict is what a value will be, by the line through a window.
	FnPredict
	// FnSum is the area under the course of a window.
	FnSum
	// FnCount is for how many seconds of a window there was a value.
	FnCount
	// FnFirst is the oldest value in a window.
	FnFirst
	// FnStddev is the standard deviation of a window.
	FnStddev
	// FnZScore is how many of those the value now is above the mean.
	FnZScore
	// FnQuantile is the value that a part of a window did not exceed.
	FnQuantile
	// FnChanges is how often a value changed in a window.
	FnChanges
	// FnAge is for how many seconds a field has had no value.
	FnAge
	// FnBurnRate is how many times faster than allowed a budget is used up.
	FnBurnRate
	// FnBaseline is what a value usually is at this hour of the day.
	FnBaseline
	// FnBaselineSpread is how far it usually is from that.
	FnBaselineSpread
)

// Loose says that the values of a function may have slack. Those of others have none.
func (f Fn) Loose() bool {
	return f == FnIncrease || f == FnRate || f == FnChanges || f == FnBurnRate
}

// Slot is a value that expressions take from outside: a field, a window over a
// field, a label. Rules that ask for the same share a slot, so that it is found
// once for each fact.
type Slot struct {
	// Fn says how the value is found.
	Fn Fn
	// Field is the field that is asked for.
	Field FieldID
	// Window is the length of the window or of the absence, in milliseconds.
	Window int64
	// Bucket is the size of FnCountTrue's buckets, in milliseconds.
	Bucket int64
	// Part is the part of the window that FnQuantile asks for, from 0 to 1.
	Part float64
	// Ahead is how far FnPredict looks, in milliseconds.
	Ahead int64
	// Name is the label or override that is asked for.
	Name string
	// Default is FnThreshold's value without an override.
	Default float64
	// Cond is the condition that FnCountTrue records.
	Cond *Expr
	// Burn is what FnBurnRate is made of; its objective may be Default.
	Burn *Burn
	// Text is the slot as a rule writes it.
	Text string
}

// Value is a value of a slot or the lack of one.
type Value struct {
	// Kind is 0 when there is no value. Counters are gauges here.
	Kind Kind
	// Number is the value of a gauge.
	Number float64
	// Slack is how much more Number may be; 0 where it is exact.
	Slack float64
	// Text is the value of a text.
	Text string
	// Truth is the value of a truth.
	Truth bool
}

// Num returns a number as a value.
func Num(f float64) Value { return Value{Kind: Gauge, Number: f} }

// Str returns a text as a value.
func Str(s string) Value { return Value{Kind: Text, Text: s} }

// Bool returns a truth as a value.
func Bool(b bool) Value { return Value{Kind: Truth, Truth: b} }

// NumIf returns a number as a value if ok, and else the lack of one.
func NumIf(f float64, ok bool) Value {
	if !ok {
		return Value{}
	}
	return Num(f)
}

// Known says that there is a value.
func (v Value) Known() bool { return v.Kind != 0 }

// String writes the value as people read it.
func (v Value) String() string {
	switch v.Kind {
	case Gauge, Counter:
		return strconv.FormatFloat(v.Number, 'f', -1, 64)
	case Text:
		return v.Text
	case Truth:
		return strconv.FormatBool(v.Truth)
	default:
		return rulefile.NoValue
	}
}

// Any returns the value for a template: a number, a text, a truth or NoValue.
func (v Value) Any() any {
	switch v.Kind {
	case Gauge, Counter:
		return v.Number
	case Text:
		return v.Text
	case Truth:
		return v.Truth
	default:
		return rulefile.NoValue
	}
}

func (v Value) ref() ref.Val {
	switch v.Kind {
	case Gauge, Counter:
		return types.Double(v.Number)
	case Text:
		return types.String(v.Text)
	default:
		return types.Bool(v.Truth)
	}
}
