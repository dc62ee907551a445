package rulefile

import (
	"fmt"
	"regexp"
	"strconv"
	"time"

	"github.com/prometheus/common/model"
	"go.yaml.in/yaml/v3"

	"github.com/tocsin-dev/tocsin/services/alerter/internal/rule"
)

const (
	// leastBucket is the shortest bucket of `times`: with each one that begins the
	// rule is judged anew where its condition held lately, and polls are hardly
	// more frequent.
	leastBucket = 10 * time.Second
	// longestTimes bounds all buckets of `times` together, as windows are.
	longestTimes = 24 * time.Hour
)

// Times says in how many of the last buckets of time a condition must have held
// at some time. The zero value says nothing.
type Times struct {
	// Least is in how many.
	Least int
	// Of is how many are looked at, the one that is not over included.
	Of int
	// Bucket is how long each of them is.
	Bucket time.Duration
}

// Set says that a rule asks for buckets.
func (t Times) Set() bool { return t.Of > 0 }

// String writes it as a rule does; empty for the zero value.
func (t Times) String() string {
	if !t.Set() {
		return ""
	}
	return fmt.Sprintf("%d of %d x %s", t.Least, t.Of, model.Duration(t.Bucket))
}

var timesText = regexp.MustCompile(`^\s*([0-9]{1,6})\s+of\s+([0-9]{1,6})\s+x\s+(\S+)\s*$`)

// ParseTimes reads what String writes. Its error says what was expected.
func ParseTimes(text string) (Times, error) {
	m := timesText.FindStringSubmatch(text)
	if m == nil {
		return Times{}, fmt.Errorf("%q is not understood; write for example 8 of 10 x 1m, where the condition must have held in 8 of the last 10 minutes", text)
	}
	var t Times
	t.Least, _ = strconv.Atoi(m[1]) // the pattern has few digits only
	t.Of, _ = strconv.Atoi(m[2])
	var err error
	if t.Bucket, err = ParseDuration(m[3]); err != nil {
		return Times{}, err
	}
	switch {
	case t.Least < 1 || t.Of < t.Least:
		err = fmt.Errorf("%d of %d cannot be; expected at least 1, and no more than there are", t.Least, t.Of)
	case t.Of > rule.MaxBuckets:
		err = fmt.Errorf("%d buckets are too many; at most %d are kept", t.Of, rule.MaxBuckets)
	case t.Bucket < leastBucket:
		err = fmt.Errorf("buckets of %s are too short; expected at least %s", model.Duration(t.Bucket), model.Duration(leastBucket))
	case t.Bucket > longestTimes/time.Duration(t.Of):
		err = fmt.Errorf("%d buckets of %s are too long; at most %s are kept", t.Of, model.Duration(t.Bucket), model.Duration(longestTimes))
	}
	if err != nil {
		return Times{}, err
	}
	return t, nil
}

// times reads the optional key `times`.
func (p *parser) times(keys map[string]*yaml.Node) Times {
	n := keys["times"]
	if n == nil {
		return Times{}
	}
	before := len(p.mistakes)
	text := p.scalar(n, "times")
	if len(p.mistakes) > before {
		return Times{}
	}
	t, err := ParseTimes(text)
	if err != nil {
		p.wrong(n, "`times`: %v", err)
	}
	return t
}
