package proc

import (
	"fmt"
	"math"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// The units that Prometheus has and Go has not. A day is 24 hours, a week 7
// days, a year 365 days, whatever the calendar says.
const (
	day  = 24 * time.Hour
	week = 7 * day
	year = 365 * day
)

// longUnits matches the leading parts of a duration in Prometheus's long units,
// each of which may stand once, the longest first.
var longUnits = regexp.MustCompile(`^(?:([0-9]{1,6})y)?(?:([0-9]{1,6})w)?(?:([0-9]{1,6})d)?(.*)$`)

// ParseDuration reads a duration as Go writes it ("1m30s", "250ms", "1.5h") or
// as Prometheus does ("7d", "1w2d", "1y"). It returns an error for anything
// else and for what is longer than 292 years.
func ParseDuration(s string) (time.Duration, error) {
	m := longUnits.FindStringSubmatch(s)
	var total time.Duration
	long := false
	for i, unit := range []time.Duration{year, week, day} {
		if m == nil || m[i+1] == "" {
			continue
		}
		n, err := strconv.Atoi(m[i+1])
		if err != nil || time.Duration(n) > (math.MaxInt64-total)/unit {
			return 0, fmt.Errorf("%q is too long a duration", s)
		}
		total += time.Duration(n) * unit
		long = true
	}
	if m == nil || long && m[4] == "" {
		return total, durationSyntax(s, m == nil)
	}
	rest, err := time.ParseDuration(m[4])
	if err != nil || long && strings.ContainsAny(m[4], "+-") {
		return 0, durationSyntax(s, true)
	}
	if rest > math.MaxInt64-total {
		return 0, fmt.Errorf("%q is too long a duration", s)
	}
	return total + rest, nil
}

func durationSyntax(s string, bad bool) error {
	if !bad {
		return nil
	}
	return fmt.Errorf("%q is not a duration such as 15s, 1m30s or 7d", s)
}
