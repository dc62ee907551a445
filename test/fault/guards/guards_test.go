// Package guards holds patches that each take away one of the guards by which
// nothing is lost or invented. The program run, beside them, applies each to a
// copy of the tree and sees the fault test fail.
package guards

import (
	"os/exec"
	"path/filepath"
	"testing"
)

// root is the tree, from here.
const root = "../../.."

// TestEachPatchIsOfThisTree keeps the patches in step with what they change.
func TestEachPatchIsOfThisTree(t *testing.T) {
	patches, err := filepath.Glob("*.patch")
	if err != nil || len(patches) != 6 {
		t.Fatalf("the patches are %q, %v; want six", patches, err)
	}
	for _, patch := range patches {
		check := exec.Command("git", "apply", "--check", filepath.Join("test", "fault", "guards", patch))
		check.Dir = filepath.FromSlash(root)
		if out, err := check.CombinedOutput(); err != nil {
			t.Errorf("%s cannot be applied (%v): make it anew, for what took its place.\n%s", patch, err, out)
		}
	}
}
