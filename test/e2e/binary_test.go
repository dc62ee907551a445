// Package e2e runs the binaries as a user would: real processes, killed and
// started again, against a simulated RunPod and real webhook receivers.
package e2e

import (
	"os"
	"testing"

	"github.com/tocsin-dev/tocsin/test/internal/process"
)

func TestMain(m *testing.M) { os.Exit(process.Main(m)) }
