// Package nearest finds the word that somebody probably meant, for messages
// such as "did you mean ...?". It never guesses wildly: a word that differs in
// more than a third of its letters is no suggestion.
package nearest

// Word returns the candidate with the fewest edits from word, the first of
// equals, and false if none is near.
func Word(word string, candidates []string) (string, bool) {
	best, found := "", false
	least := max(2, len(word)/3) + 1
	for _, c := range candidates {
		if d := distance(word, c); d < least {
			best, least, found = c, d, true
		}
	}
	return best, found
}

// Hint returns "; did you mean `x`?" with the candidate that a word was probably
// meant to be, or nothing.
func Hint(word string, candidates []string) string {
	if near, ok := Word(word, candidates); ok {
		return "; did you mean `" + near + "`?"
	}
	return ""
}

// distance counts the insertions, deletions and substitutions of bytes that
// turn a into b.
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := diagonal
			if a[i] != b[j] {
				cost++
			}
			diagonal = row[j+1]
			row[j+1] = min(cost, row[j]+1, diagonal+1)
		}
	}
	return row[len(b)]
}
