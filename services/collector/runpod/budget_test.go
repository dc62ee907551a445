package runpod

import (
	"net/http"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
)

var noon = time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)

func headers(pairs ...string) http.Header {
	h := http.Header{}
	for i := 0; i < len(pairs); i += 2 {
		h.Add(pairs[i], pairs[i+1])
	}
	return h
}

const policy = `"minute";q=60;w=60, "hour";q=3000;w=3600, "day";q=50000;w=86400`

func TestBudgetReadsTheHeadersThatRunPodSends(t *testing.T) {
	t.Parallel()
	var b Budget
	b.Observe(noon, 200, headers("RateLimit-Policy", policy, "RateLimit", `"minute";r=50;t=12, "hour";r=2800;t=1812`, "RateLimit", `"day";r=49500;t=45012`))
	want := []Window{
		{Name: "minute", Quota: 60, Length: time.Minute, Remaining: 50, ResetAt: noon.Add(12 * time.Second)},
		{Name: "hour", Quota: 3000, Length: time.Hour, Remaining: 2800, ResetAt: noon.Add(1812 * time.Second)},
		{Name: "day", Quota: 50000, Length: 24 * time.Hour, Remaining: 49500, ResetAt: noon.Add(45012 * time.Second)},
	}
	if diff := cmp.Diff(want, b.Windows()); diff != "" {
		t.Errorf("windows (-want +got):\n%s", diff)
	}
}

func TestDelay(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		status int
		header http.Header
		spend  int
		share  float64
		after  time.Duration // from the answer to the next call
		want   time.Duration
	}{
		"nothing known":                                 {status: 200, header: headers(), share: 0.5},
		"plenty left":                                   {status: 200, header: headers("RateLimit-Policy", policy, "RateLimit", `"minute";r=59;t=60`), share: 0.5},
		"our own half used":                             {status: 200, header: headers("RateLimit-Policy", policy, "RateLimit", `"minute";r=59;t=60`), spend: 30, share: 0.5, want: time.Minute},
		"our own half nearly used":                      {status: 200, header: headers("RateLimit-Policy", policy, "RateLimit", `"minute";r=59;t=60`), spend: 29, share: 0.5},
		"others used much, we little":                   {status: 200, header: headers("RateLimit-Policy", policy, "RateLimit", `"minute";r=10;t=30`), spend: 3, share: 0.5},
		"others used all but a twentieth":               {status: 200, header: headers("RateLimit-Policy", policy, "RateLimit", `"minute";r=3;t=30`), share: 0.5, want: 30 * time.Second},
		"the same after the reset":                      {status: 200, header: headers("RateLimit-Policy", policy, "RateLimit", `"minute";r=0;t=30`), share: 0.5, after: 30 * time.Second},
		"half way to the reset":                         {status: 200, header: headers("RateLimit-Policy", policy, "RateLimit", `"minute";r=0;t=30`), share: 0.5, after: 20 * time.Second, want: 10 * time.Second},
		"the longest window counts":                     {status: 200, header: headers("RateLimit", `"minute";r=0;t=30, "hour";r=0;t=1800`), share: 0.5, want: 30 * time.Minute},
		"a larger share leaves less":                    {status: 200, header: headers("RateLimit-Policy", policy, "RateLimit", `"minute";r=59;t=60`), spend: 6, share: 0.9, want: time.Minute},
		"at least one call in a window":                 {status: 200, header: headers("RateLimit-Policy", `"minute";q=1;w=60`, "RateLimit", `"minute";r=1;t=60`), share: 0.9},
		"no reset known":                                {status: 200, header: headers("RateLimit", `"hour";r=0`), share: 0.5},
		"a header that is no list":                      {status: 200, header: headers("RateLimit", `"minute;r=0;t=30`), share: 0.5},
		"a negative number is none":                     {status: 200, header: headers("RateLimit", `"minute";r=-1;t=30`), share: 0.5},
		"no reset is further off than its window lasts": {status: 200, header: headers("RateLimit-Policy", policy, "RateLimit", `"minute";r=0;t=86400`), share: 0.5, want: time.Minute + resetSlack},
		"a window of no length says nothing":            {status: 200, header: headers("RateLimit-Policy", `"minute";q=60;w=0`, "RateLimit", `"minute";r=0;t=30`), share: 0.5, want: 30 * time.Second},
		"a reset beyond all reason":                     {status: 200, header: headers("RateLimit", `"minute";r=0;t=9000000000`), share: 0.5, want: 24 * time.Hour},
		"Retry-After in seconds":                        {status: 429, header: headers("Retry-After", "12"), share: 0.5, want: 12 * time.Second},
		"Retry-After as a date":                         {status: 503, header: headers("Retry-After", "Mon, 23 Nov 2026 12:00:20 GMT"), share: 0.5, want: 20 * time.Second},
		"Retry-After of an hour is capped":              {status: 429, header: headers("Retry-After", "3600"), share: 0.5, want: 15 * time.Minute},
		"Retry-After in the past":                       {status: 429, header: headers("Retry-After", "Mon, 23 Nov 2026 11:00:20 GMT"), share: 0.5},
		"Retry-After on a good answer":                  {status: 200, header: headers("Retry-After", "12"), share: 0.5},
		"a date counts from the server's": {
			status: 429, header: headers("Date", "Mon, 23 Nov 2026 17:30:00 GMT", "Retry-After", "Mon, 23 Nov 2026 17:30:20 GMT"), share: 0.5, want: 20 * time.Second,
		},
		"a negative Retry-After":              {status: 429, header: headers("Retry-After", "-7"), share: 0.5},
		"Retry-After beyond 64 bits":          {status: 429, header: headers("Retry-After", "99999999999999999999"), share: 0.5},
		"Retry-After that is neither":         {status: 429, header: headers("Retry-After", "soon"), share: 0.5},
		"Retry-After longer than the windows": {status: 429, header: headers("Retry-After", "40", "RateLimit", `"minute";r=0;t=30`), share: 0.5, want: 40 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var b Budget
			b.Observe(noon, test.status, test.header)
			for range test.spend {
				b.Spend(noon)
			}
			if got := b.Delay(noon.Add(test.after), test.share); got != test.want {
				t.Errorf("delay %v, want %v (%+v)", got, test.want, b.Windows())
			}
		})
	}
}

func TestANewWindowCountsAnew(t *testing.T) {
	t.Parallel()
	var b Budget
	answer := func(at time.Time, left string) {
		b.Observe(at, 200, headers("RateLimit-Policy", `"minute";q=10;w=60`, "RateLimit", `"minute";`+left))
	}
	answer(noon, "r=9;t=60")
	for range 5 {
		b.Spend(noon)
	}
	answer(noon.Add(time.Second), "r=4;t=60") // rounding: the same window
	if got := b.Delay(noon.Add(time.Second), 0.5); got != time.Minute {
		t.Errorf("delay %v after five of ten calls, want a minute", got)
	}
	answer(noon.Add(61*time.Second), "r=9;t=60")
	if got := b.Windows()[0].Used; got != 1 {
		t.Errorf("%d calls used in the new window, want 1", got)
	}
	b.Spend(noon.Add(3 * time.Minute)) // a window that ended unseen
	if got := b.Windows()[0]; got.Used != 1 || got.Remaining != -1 {
		t.Errorf("after the end: %+v, want one call and nothing known", got)
	}
}

func TestWindowsAreBounded(t *testing.T) {
	t.Parallel()
	var b Budget
	b.Observe(noon, 200, headers("RateLimit", `a;r=1;t=9, b;r=1;t=9, c;r=1;t=9, d;r=1;t=9, e;r=1;t=9, f;r=1;t=9, g;r=1;t=9, h;r=1;t=9, i;r=1;t=9, j;r=1;t=9`))
	if got := len(b.Windows()); got != maxWindows {
		t.Errorf("%d windows, want %d", got, maxWindows)
	}
	b.Observe(noon, 200, headers("RateLimit", strings.Repeat("x", maxWindowName+1)+`;r=1;t=60`))
	if got := len(b.Windows()); got != maxWindows {
		t.Errorf("%d windows after a name that can be none, want %d", got, maxWindows)
	}
	b = Budget{}
	b.Observe(noon, 200, headers("RateLimit", `a;r=1;t=9, b;r=1;t=9, c;r=1;t=9, d;r=1;t=9, e;r=1;t=9, f;r=1;t=9, g;r=1;t=9, h;r=1;t=99`))
	b.Observe(noon.Add(10*time.Second), 200, headers("RateLimit", `"minute";r=0;t=30`))
	if got := b.Windows(); len(got) != 2 || got[0].Name != "h" || b.Delay(noon.Add(10*time.Second), 0.5) != 30*time.Second {
		t.Errorf("windows that are over leave no room: %+v", got)
	}
}

func TestParseList(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		in   []string
		want []member
	}{
		"nothing":                  {nil, nil},
		"a string and a token":     {[]string{`"mi\"n";r=0; t=12 , hour;flag;r=7`}, []member{{`mi"n`, map[string]int64{"r": 0, "t": 12}}, {"hour", map[string]int64{"r": 7}}}},
		"no blank after the comma": {[]string{`"a";r=1,"b"`}, []member{{"a", map[string]int64{"r": 1}}, {"b", map[string]int64{}}}},
		"text for a number":        {[]string{`a;r=x;t="y";q=3`}, []member{{"a", map[string]int64{"q": 3}}}},
		"an open string":           {[]string{`"a`}, nil},
		"a comma at the end":       {[]string{`a;r=1,`}, nil},
		"two names":                {[]string{`a b`}, nil},
		"a parameter without name": {[]string{`a;=1`}, nil},
		"bytes that are no text":   {[]string{"\xff;r=1"}, nil},
		"a name beyond ASCII":      {[]string{"minüte;r=1"}, nil},
		"one mistake spoils all":   {[]string{`a;r=1`, `"`}, nil},
	} {
		if diff := cmp.Diff(test.want, parseList(test.in), cmp.AllowUnexported(member{})); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
}

func FuzzBudget(f *testing.F) {
	f.Add(`"minute";r=0;t=12, "hour";r=2800;t=1812`, policy, "12", 429)
	f.Add("\xff;r=1;t=9", "\"\xfe\";q=1", "", 200)
	f.Add(`a;r=99999999999999999999;t=-1`, `a;q=18446744073709551615;w=9223372036854775807`, "Mon, 23 Nov 2026 12:00:20 GMT", 503)
	f.Fuzz(func(t *testing.T, limit, policy, retry string, status int) {
		var b Budget
		for i := range 3 {
			now := noon.Add(time.Duration(i) * time.Second)
			b.Observe(now, status, headers("RateLimit", limit, "RateLimit-Policy", policy, "Retry-After", retry))
			b.Spend(now)
			if d := b.Delay(now, 0.5); d < 0 || d > maxReset {
				t.Errorf("delay %v", d)
			}
			for _, w := range b.Windows() { // names become labels of metrics, which must be UTF-8
				if len(w.Name) > maxWindowName || !utf8.ValidString(w.Name) {
					t.Errorf("window %q", w.Name)
				}
			}
		}
	})
}
