package rulefile

import (
	"bytes"
	"strings"

	"go.yaml.in/yaml/v3"
)

// scalarText knows where the text of a YAML scalar stands in its file, so that
// a mistake inside an expression has a line and a column of the file.
type scalarText struct {
	file  string
	src   []byte
	text  string
	line  int
	col   int
	block bool
}

func newScalarText(file string, src []byte, n *yaml.Node) scalarText {
	return scalarText{
		file: file, src: src, text: strings.TrimSpace(n.Value), line: n.Line, col: n.Column,
		block: n.Style&(yaml.LiteralStyle|yaml.FoldedStyle) != 0,
	}
}

// position returns the place of the byte at offset of the scalar's text. YAML
// folds and indents, but keeps the order of what is not white space: the place
// of a byte is found by walking text and source along each other. Where they
// part (an escape), it is the last place they agreed on.
func (s scalarText) position(offset int) Position {
	at := Position{File: s.file, Line: s.line, Column: s.col}
	i := lineStart(s.src, s.line)
	if i < 0 {
		return at
	}
	i += s.col - 1
	if s.block {
		// The text begins below the line of the indicator.
		i = lineStart(s.src, s.line+1)
	}
	if i < 0 || i > len(s.src) {
		return at
	}
	if !s.block && i < len(s.src) && (s.src[i] == '\'' || s.src[i] == '"') {
		i++
	}
	for o := 0; o <= min(offset, len(s.text)-1); o++ {
		if isSpace(s.text[o]) {
			continue
		}
		j := i
		for j < len(s.src) && (isSpace(s.src[j]) || s.src[j] == '\\' && s.text[o] != '\\') {
			j++
		}
		if j == len(s.src) || s.src[j] != s.text[o] {
			return at
		}
		at.Line, at.Column = lineColumn(s.src, j)
		i = j + 1
		if s.text[o] == '\'' && i < len(s.src) && s.src[i] == '\'' && !s.block && (o+1 == len(s.text) || s.text[o+1] != '\'') {
			i++ // a doubled quote stands for one
		}
	}
	return at
}

// lineStart returns the offset at which the line begins, or -1 without it.
func lineStart(src []byte, line int) int {
	at := 0
	for range line - 1 {
		n := bytes.IndexByte(src[at:], '\n')
		if n < 0 {
			return -1
		}
		at += n + 1
	}
	return at
}

func lineColumn(src []byte, at int) (line, column int) {
	before := src[:at]
	return bytes.Count(before, []byte{'\n'}) + 1, at - bytes.LastIndexByte(before, '\n')
}

func isSpace(b byte) bool { return b == ' ' || b == '\n' || b == '\t' || b == '\r' }
