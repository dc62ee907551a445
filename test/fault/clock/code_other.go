//go:build !linux || !amd64

package clock

// code is not known for other machines.
var code []byte
