package expr

import "slices"

// Function is one entry of the table of what expressions can call.
type Function struct {
	// Name as expressions write it.
	Name string
	// Usage shows its arguments.
	Usage string
	// Unit of its value; empty for texts and truth values, and "as the field" where
	// it is that of its argument.
	Unit string
	// Meaning in a sentence or two.
	Meaning string
}

// asField is the unit of functions that give a value of their field.
const asField = "as the field"

// functions is the one place where functions are described: messages and
// references are made of it. The order is that of the reference.
var functions = []Function{
	{"increase", "increase(COUNTER, 'WINDOW')", asField, "By how much a counter rose in the window. A fall is a new beginning, as in Prometheus. Counts from first sight, not extrapolated."},
	{"rate", "rate(COUNTER, 'WINDOW')", "as the field, per second", "increase by the seconds of the window."},
	{"delta", "delta(FIELD, 'WINDOW')", asField, "The value now minus the value a window ago; negative when it fell."},
	{"min", "min(GAUGE, 'WINDOW')", asField, "The least value in the window. No value until nine tenths of the window are known. With two numbers, the smaller."},
	{"max", "max(GAUGE, 'WINDOW')", asField, "The greatest value in the window. No value until nine tenths of the window are known. With two numbers, the greater."},
	{"avg", "avg(GAUGE, 'WINDOW')", asField, "The mean over the time of the window, whatever the polling rate. No value until nine tenths of the window are known."},
	{"sum", "sum(GAUGE, 'WINDOW')", "as the field, times seconds", "The area under the course: the mean times the seconds of the window, whatever the polling rate, where Prometheus adds samples. No value until nine tenths of the window are known."},
	{"stddev", "stddev(GAUGE, 'WINDOW')", asField, "The standard deviation over the time of the window, whatever the polling rate. No value until nine tenths of the window are known."},
	{"zscore", "zscore(GAUGE, 'WINDOW')", "standard deviations", "By how many standard deviations of the window the value is above its mean. No value at the first move of what never moved, nor until nine tenths of the window are known."},
	{"quantile", "quantile(PART, GAUGE, 'WINDOW')", asField, "The least value that was not exceeded for that part of the window's time, from 0 to 1, whatever the polling rate; not interpolated. No value until nine tenths of the window are known."},
	{"deriv", "deriv(GAUGE, 'WINDOW')", "as the field, per second", "By how much the value rises in a second, by the line through the window that is nearest by least squares over time. No value until nine tenths of the window are known."},
	{"predict", "predict(GAUGE, 'WINDOW', 'AHEAD')", asField, "What the value will be after AHEAD (at most 7d) if the line of deriv goes on, as predict_linear of Prometheus. No value until nine tenths of the window are known."},
	{"first", "first(GAUGE, 'WINDOW')", asField, "The oldest value in the window: the one at its start. No value until nine tenths of the window are known."},
	{"last", "last(GAUGE, 'WINDOW')", asField, "The newest value that is not older than the window, also while polls fail."},
	{"count", "count(FIELD, 'WINDOW')", "seconds", "For how many seconds of the window the field had a value, whatever the polling rate, where Prometheus counts samples. Fewer while polls fail. No value until nine tenths of the window have passed since first sight; a time in which nobody could publish does not pass."},
	{"changes", "changes(FIELD, 'WINDOW')", "changes", "How often polls saw another value in the window. No value until nine tenths of the window are known."},
	{"age", "age(FIELD)", "seconds", "For how long a field that had a value has had none; 0 while it has one. It is asked when facts about the target arrive, failed polls among them: for silence there is absent. A time in which nobody could publish counts 90 seconds at most."},
	{"burn_rate", "burn_rate(BAD, ALL, OBJECTIVE, 'WINDOW')", "times the budget", "How many times faster than an objective allows BAD happened among ALL in the window: increase(BAD) / increase(ALL) / (1 - OBJECTIVE), 0 where nothing happened. BAD and ALL are counters or sums of them; OBJECTIVE is the part that must be good, as 0.99 or threshold('slo', 0.99). Counts from first sight, as increase does."},
	{"baseline", "baseline(FIELD, 'DAYS')", asField, "What is usual at this hour: the median, over as many earlier days (2d to 7d), of the mean of a gauge in the same hour of the day, or of the growth of a counter in it. Hours of which less than nine tenths are known do not count. No value until three of the days are known (all, of 2d). Of the target's own past; hours are UTC's, by the bus's clock."},
	{"baseline_spread", "baseline_spread(FIELD, 'DAYS')", asField, "How far the days of baseline lie from it: 1.4826 times the median distance, which is the standard deviation where they are spread evenly around it, and which one odd day does not move. 0 where most days are the same, so add a margin of your own."},
	{"count_true", "count_true(CONDITION, 'WINDOW', 'BUCKET')", "buckets", "In how many buckets of the window the condition held at some time, so that the polling rate changes nothing. The condition names fields only."},
	{"absent", "absent('DURATION')", "", "True when no sample of the target came for that long, at least 2m; polls that fail bring none. A time in which nobody could have listened does not count."},
	{"present", "present(FIELD)", "", "True when the field has a value now. RunPod leaves fields out."},
	{"label", "label('NAME')", "", "A label that a pattern in targets gives to the target; empty when none does."},
	{"threshold", "threshold('NAME', DEFAULT)", "as its default", "The override of that name that a pattern in targets gives to the target, or the default."},
	{"contains", "TEXT.contains('PART')", "", "True when the text holds the part."},
	{"startsWith", "TEXT.startsWith('BEGINNING')", "", "True when the text begins so."},
	{"endsWith", "TEXT.endsWith('END')", "", "True when the text ends so."},
	{"matches", "TEXT.matches('RE2')", "", "True when a part of the text matches the regular expression."},
	{"size", "size(TEXT)", "characters", "How long the text is."},
}

// Functions lists what expressions can call, in the table's order.
func Functions() []Function { return slices.Clone(functions) }

// functionNames lists what expressions can call by name.
var functionNames = func() []string {
	names := make([]string, len(functions))
	for i, f := range functions {
		names[i] = f.Name
	}
	return names
}()
