package match

import (
	"strings"
	"testing"
)

var labels = map[string]string{"severity": "critical", "endpoint_id": "abc-1", "text": "a\nb"}

func TestMatch(t *testing.T) {
	for name, c := range map[string]struct {
		matchers []string
		want     bool
	}{
		"no matcher matches all":                  {nil, true},
		"equal values match":                      {[]string{`severity="critical"`}, true},
		"quotes may be left out":                  {[]string{`severity=critical`}, true},
		"spaces around the operator do not count": {[]string{` severity = "critical" `}, true},
		"the name may be quoted":                  {[]string{`"severity"="critical"`}, true},
		"other values do not match":               {[]string{`severity="warning"`}, false},
		"unequal is the opposite":                 {[]string{`severity!="warning"`}, true},
		"a pattern matches":                       {[]string{`endpoint_id=~"abc-.*"`}, true},
		"a pattern is anchored":                   {[]string{`endpoint_id=~"abc"`}, false},
		"alternatives are anchored as a whole":    {[]string{`endpoint_id=~"abc|xyz"`}, false},
		"a dot matches a new line":                {[]string{`text=~"a.b"`}, true},
		"a negative pattern is the opposite":      {[]string{`endpoint_id!~"abc-.*"`}, false},
		"an absent label is empty":                {[]string{`team=""`}, true},
		"an absent label is not something":        {[]string{`team!=""`}, false},
		"escapes in quotes are read":              {[]string{`text="a\nb"`}, true},
		"an empty value may be bare":              {[]string{`team=`}, true},
		"all must hold":                           {[]string{`severity="critical"`, `endpoint_id="x"`}, false},
		"a value may hold operators":              {[]string{`severity!="a=b"`}, true},
	} {
		t.Run(name, func(t *testing.T) {
			ms, err := Parse(c.matchers)
			if err != nil {
				t.Fatal(err)
			}
			if got := ms.Match(labels); got != c.want {
				t.Errorf("Match = %v, want %v", got, c.want)
			}
		})
	}
}

func TestParseRefuses(t *testing.T) {
	for name, c := range map[string]struct{ matcher, want string }{
		"a matcher without operator": {`severity`, "no operator"},
		"a matcher without label":    {`="x"`, "no label"},
		"half an operator":           {`a!b`, "! must be followed"},
		"a quote that does not end":  {`a="b`, "not a quoted string"},
		"text after the quote":       {`a="b"c`, "not a quoted string"},
		"a wrong pattern":            {`a=~"("`, "missing closing )"},
		"what is not UTF-8":          {"a=\xff", "not UTF-8"},
		"what is too long":           {"a=" + strings.Repeat("x", maxPattern), "longer than"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := Parse([]string{c.matcher})
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("Parse: %v, want an error with %q", err, c.want)
			}
		})
	}
	_, err := Parse([]string{"a", "b=c", "d"})
	if err == nil || !strings.Contains(err.Error(), `"a"`) || !strings.Contains(err.Error(), `"d"`) {
		t.Errorf("Parse: %v, want both mistakes", err)
	}
}
