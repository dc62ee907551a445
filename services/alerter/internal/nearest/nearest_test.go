package nearest

import "testing"

func TestWordSuggestsOnlyWhatIsNear(t *testing.T) {
	fields := []string{"jobs.in_queue", "jobs.in_progress", "workers.max"}
	for _, c := range []struct {
		name, word, want string
	}{
		{"a missing ending", "jobs.in_que", "jobs.in_queue"},
		{"a letter too many", "workers.maxx", "workers.max"},
		{"two letters swapped", "jobs.in_progerss", "jobs.in_progress"},
		{"a word from elsewhere", "temperature", ""},
		{"nothing", "", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, ok := Word(c.word, fields)
			if got != c.want || ok != (c.want != "") {
				t.Errorf("Word(%q) = %q, %v; want %q", c.word, got, ok, c.want)
			}
		})
	}
}

func TestDistanceCountsEdits(t *testing.T) {
	for _, c := range []struct {
		a, b string
		want int
	}{{"", "", 0}, {"", "abc", 3}, {"kitten", "sitting", 3}, {"same", "same", 0}, {"ab", "ba", 2}} {
		if got := distance(c.a, c.b); got != c.want {
			t.Errorf("distance(%q, %q) = %d, want %d", c.a, c.b, got, c.want)
		}
	}
}
