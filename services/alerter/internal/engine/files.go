package engine

import (
	"errors"

	"github.com/tocsin-dev/tocsin/services/alerter/rulefile"
)

// CompileFiles parses and compiles rules, content by file name. Those that could
// be read are compiled even when others could not, so that their mistakes are told
// too: the error joins all as *rulefile.MistakeError, in the order of their places.
func CompileFiles(files map[string][]byte, targets []rulefile.TargetPattern) (*Program, error) {
	set, parseErr := rulefile.Parse(files, targets)
	program, compileErr := Compile(set)
	var mistakes []*rulefile.MistakeError
	for _, err := range []error{parseErr, compileErr} {
		joined, ok := err.(interface{ Unwrap() []error })
		if !ok && err != nil {
			return nil, err
		} else if !ok {
			continue
		}
		for _, one := range joined.Unwrap() {
			if m, ok := errors.AsType[*rulefile.MistakeError](one); ok {
				mistakes = append(mistakes, m)
			}
		}
	}
	return program, rulefile.JoinMistakes(mistakes)
}
