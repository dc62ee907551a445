// Package rules carries the default rule pack inside the binaries.
//
// The files beside this one are the pack; each says what it is about. They are
// plain rule files: copy them, change them, and name your copies in the
// configuration (alerter.rules) to use them instead.
package rules

import (
	"embed"
	"io/fs"
)

//go:embed *.yaml
var files embed.FS

// Default returns the pack: the content of each file by its name.
func Default() map[string][]byte {
	pack := map[string][]byte{}
	names, err := fs.Glob(files, "*.yaml")
	if err != nil {
		panic("the pattern of the embedded rules is wrong: " + err.Error())
	}
	for _, name := range names {
		text, err := files.ReadFile(name)
		if err != nil {
			panic("an embedded rule file cannot be read: " + err.Error())
		}
		pack[name] = text
	}
	return pack
}
