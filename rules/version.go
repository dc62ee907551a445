package rules

import (
	"fmt"
	"slices"
	"strings"
)

// Version is the version of the pack. It rises when rules come, go or mean
// something else.
const Version = "1.1"

// version is one of the pack.
type version struct {
	number string
	// rules are those that it brought.
	rules []string
}

// versions lists all versions, oldest first, with the rules that each brought. The
// first brought all that are not named here.
var versions = []version{
	{"1.0", nil},
	{"1.1", []string{"SLOBurnFast", "SLOBurnSlow", "SLOBurnSteady", "HighLatency", "LatencyUnusual", "RetriesRising"}},
}

// After lists the rules that came after a version, sorted. Empty stands for the
// present one. Its error says that there is no such version.
func After(number string) ([]string, error) {
	if number == "" {
		return nil, nil
	}
	i := slices.IndexFunc(versions, func(v version) bool { return v.number == number })
	if i < 0 {
		var all []string
		for _, v := range versions {
			all = append(all, v.number)
		}
		return nil, fmt.Errorf("%q is no version of the default pack; expected one of %s", number, strings.Join(all, ", "))
	}
	var later []string
	for _, v := range versions[i+1:] {
		later = append(later, v.rules...)
	}
	slices.Sort(later)
	return later, nil
}
