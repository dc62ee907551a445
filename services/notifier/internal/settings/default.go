package settings

import "bytes"

// DefaultText returns the text that is read where there is no file of the user's.
func DefaultText() []byte { return bytes.Clone(defaults) }
