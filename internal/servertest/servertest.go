// Package servertest gives tests the real servers that Tocsin runs against: a
// NATS server with JetStream in the test's own process, and redis-server as a
// child process.
//
// Each server belongs to one test: it keeps its files in the test's directory
// and ends with the test. Nothing is ever skipped: a server that cannot be
// started fails the test and says what to install.
package servertest

import "time"

// startLimit bounds the start of a server. It takes milliseconds; a loaded
// machine with a race detector may need some seconds.
const startLimit = 30 * time.Second
