package runpod

import (
	"strconv"
	"strings"
)

// maxFieldBytes bounds a header that is parsed; RunPod's have about 80 bytes.
const maxFieldBytes = 4 << 10

// member is one member of a structured-field list (RFC 9651) that names a quota
// window. Parameters that are not whole numbers of zero or more are left out.
type member struct {
	name   string
	params map[string]int64
}

// parseList parses the lines of one list header. As the RFC asks, a list with a
// mistake anywhere is no list at all.
func parseList(lines []string) []member {
	rest := strings.Trim(strings.Join(lines, ", "), " \t")
	if rest == "" || len(rest) > maxFieldBytes {
		return nil
	}
	var list []member
	for {
		m, after, ok := parseMember(rest)
		if !ok {
			return nil
		}
		list = append(list, m)
		after = strings.TrimLeft(after, " \t")
		if after == "" {
			return list
		}
		next, found := strings.CutPrefix(after, ",")
		if !found {
			return nil
		}
		rest = strings.TrimLeft(next, " \t")
	}
}

// parseMember parses a string or token with its parameters and returns what
// follows.
func parseMember(text string) (member, string, bool) {
	name, text, ok := parseItem(text)
	if !ok || name == "" {
		return member{}, "", false
	}
	m := member{name: name, params: map[string]int64{}}
	for strings.HasPrefix(text, ";") {
		text = strings.TrimLeft(text[1:], " ")
		end := strings.IndexFunc(text, func(r rune) bool { return !isKeyRune(r) })
		if end < 0 {
			end = len(text)
		}
		key := text[:end]
		if key == "" {
			return member{}, "", false
		}
		text = text[end:]
		if !strings.HasPrefix(text, "=") {
			continue // a flag
		}
		var value string
		if value, text, ok = parseItem(text[1:]); !ok {
			return member{}, "", false
		}
		if n, err := strconv.ParseUint(value, 10, 63); err == nil {
			m.params[key] = int64(n)
		}
	}
	return m, text, true
}

// parseItem parses a quoted string or a bare token or number. Both are printable
// ASCII, whatever bytes a header may hold.
func parseItem(text string) (item, rest string, ok bool) {
	if !strings.HasPrefix(text, `"`) {
		end := strings.IndexAny(text, ";, \t\"=")
		if end < 0 {
			end = len(text)
		}
		bare := text[:end]
		return bare, text[end:], end > 0 && !strings.ContainsFunc(bare, func(r rune) bool { return r <= ' ' || r > '~' })
	}
	var b strings.Builder
	for i := 1; i < len(text); i++ {
		switch c := text[i]; {
		case c == '"':
			return b.String(), text[i+1:], true
		case c == '\\':
			i++
			if i == len(text) || (text[i] != '"' && text[i] != '\\') {
				return "", "", false
			}
			b.WriteByte(text[i])
		case c < ' ' || c > '~':
			return "", "", false
		default:
			b.WriteByte(c)
		}
	}
	return "", "", false
}

func isKeyRune(r rune) bool {
	return r >= 'a' && r <= 'z' || r >= '0' && r <= '9' || strings.ContainsRune("_-.*", r)
}
