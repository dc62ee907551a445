// Package arch keeps the rules of import: who may know of whom. The compiler
// keeps some of them already; the rest stand in the tables below, each with
// its reason.
package arch

import (
	"encoding/json"
	"errors"
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

const module = "github.com/tocsin-dev/tocsin/"

// bans say what a part of the tree may not import. A trailing slash is not
// needed: a ban on "a/b" holds for "a/b" and everything below it.
var bans = []struct{ who, what, why string }{
	{module + "proto", module + "internal", "the schema knows nothing of the code"},
	{module + "proto", module + "services", "the schema knows nothing of the code"},
	{module + "internal", module + "services", "shared code does not know who shares it"},
	{module + "internal", module + "cmd", "shared code does not know who shares it"},
	{module + "services", module + "cmd", "a service does not know what embeds it"},
	{module + "services", module + "test", "tests look at services, not the other way"},
	{module + "services/collector", module + "services/alerter", "services meet on subjects and RPCs"},
	{module + "services/collector", module + "services/notifier", "services meet on subjects and RPCs"},
	{module + "services/alerter", module + "services/collector", "services meet on subjects and RPCs"},
	{module + "services/alerter", module + "services/notifier", "services meet on subjects and RPCs"},
	{module + "services/notifier", module + "services/collector", "services meet on subjects and RPCs"},
	{module + "services/notifier", module + "services/alerter", "services meet on subjects and RPCs"},
	{module + "services", module + "internal/servertest", "what is shipped carries no test kit"},
	{module + "services", "github.com/nats-io/nats-server", "only the all-in-one carries a server"},
	{module + "services", "github.com/alicebob/miniredis", "only the all-in-one carries a server"},
}

// owners say which parts of the tree alone may import a foreign technology.
var owners = []struct {
	what string
	who  []string
	why  string
}{
	{"github.com/nats-io/nats.go", []string{module + "internal/bus", module + "test/bench/internal/durable"}, "one place knows the traps of JetStream; the other measures against it"},
	{"github.com/nats-io/nats-server", []string{module + "internal/servertest", module + "cmd/tocsin/internal/embedded"}, "servers run in tests and in the all-in-one"},
	{"github.com/redis/go-redis", []string{module + "services/alerter/internal/state"}, "only the alerter's state lives in Redis"},
	{"cel.dev/cel-go", []string{module + "services/alerter/internal/expr"}, "the expression language can be replaced in one place"},
	{"github.com/prometheus/alertmanager", []string{module + "services/notifier"}, "Alertmanager's formats end at the notifier"},
	{module + "services/collector/runpod/sim", []string{module + "services/collector/runpod/sim", module + "cmd/tocsin", module + "test"}, "nothing that is shipped as a service carries the simulator"},
	{module + "services/alerter/ruletest", []string{module + "services/alerter/ruletest", module + "cmd/tocsin", module + "test"}, "the kit for testing rules is for tests"},
}

// pure packages decide; they read no clock, no network, no store and no log.
var pure = []string{
	"services/alerter/rulefile",
	"services/alerter/rulecheck",
	"services/alerter/rulesuite",
	"services/alerter/internal/player",
	"services/alerter/internal/firing",
	"services/alerter/internal/diagnosis",
	"services/alerter/internal/expr",
	"services/alerter/internal/window",
	"services/alerter/internal/rule",
	"services/alerter/internal/engine",
	"services/collector/internal/inventory",
	"services/notifier/internal/route",
	"services/notifier/internal/delivery",
	"services/notifier/internal/sign",
}

// impure are the packages that a pure one may not import.
var impure = []string{"net", "os", "log", "math/rand", "crypto/rand", module + "internal/bus", module + "internal/proc", module + "internal/rpc"}

// impureExceptions are parts of impure packages that hold no state of the machine.
var impureExceptions = []string{"net/url", "net/netip"}

type pkg struct {
	ImportPath, Dir string
	GoFiles         []string
	Imports         []string
}

func packages(t *testing.T) []pkg {
	t.Helper()
	list := exec.Command("go", "list", "-json=ImportPath,Dir,GoFiles,Imports", "work")
	list.Stderr = os.Stderr
	out, err := list.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := list.Start(); err != nil {
		t.Fatal(err)
	}
	var all []pkg
	for dec := json.NewDecoder(out); ; {
		var p pkg
		if err := dec.Decode(&p); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		all = append(all, p)
	}
	if err := list.Wait(); err != nil {
		t.Fatalf("go list: %v", err)
	}
	return all
}

func within(path, prefix string) bool {
	return path == prefix || strings.HasPrefix(path, prefix+"/")
}

func anyWithin(path string, prefixes []string) bool {
	for _, prefix := range prefixes {
		if within(path, prefix) {
			return true
		}
	}
	return false
}

func TestImports(t *testing.T) {
	matched := map[string]bool{}
	for _, p := range packages(t) {
		for _, ban := range bans {
			if !within(p.ImportPath, ban.who) {
				continue
			}
			matched[ban.who] = true
			for _, imp := range p.Imports {
				// The simulator is the one part of a service's tree that is a test kit itself.
				if within(imp, ban.what) && !within(p.ImportPath, module+"services/collector/runpod/sim") {
					t.Errorf("%s imports %s: %s", p.ImportPath, imp, ban.why)
				}
			}
		}
		for _, o := range owners {
			for _, imp := range p.Imports {
				if within(imp, o.what) && !anyWithin(p.ImportPath, o.who) {
					t.Errorf("%s imports %s, which only %s may: %s", p.ImportPath, imp, strings.Join(o.who, ", "), o.why)
				}
			}
			for _, who := range o.who {
				matched[who] = matched[who] || within(p.ImportPath, who)
			}
		}
	}
	for _, ban := range bans {
		if !matched[ban.who] {
			t.Errorf("no package is at or below %s: was it renamed?", ban.who)
		}
	}
}

func TestPurePackagesTouchNothing(t *testing.T) {
	found := map[string]bool{}
	for _, p := range packages(t) {
		name := strings.TrimPrefix(p.ImportPath, module)
		if !anyWithin(name, pure) {
			continue
		}
		found[name] = true
		for _, imp := range p.Imports {
			if anyWithin(imp, impure) && !anyWithin(imp, impureExceptions) {
				t.Errorf("%s decides and may not import %s", name, imp)
			}
		}
		for _, file := range p.GoFiles {
			for _, call := range clockReads(t, filepath.Join(p.Dir, file)) {
				t.Errorf("%s decides and may not read the clock: %s", name, call)
			}
		}
	}
	for _, name := range pure {
		if !found[name] {
			t.Errorf("no package %s: was it renamed?", name)
		}
	}
}

// clockReads finds the places where a file asks for the time or waits.
func clockReads(t *testing.T, file string) []string {
	t.Helper()
	fset := token.NewFileSet()
	tree, err := parser.ParseFile(fset, file, nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	banned := map[string]bool{"Now": true, "Since": true, "Until": true, "Sleep": true, "After": true, "AfterFunc": true, "NewTimer": true, "NewTicker": true, "Tick": true}
	var found []string
	ast.Inspect(tree, func(n ast.Node) bool {
		sel, ok := n.(*ast.SelectorExpr)
		if !ok {
			return true
		}
		if x, ok := sel.X.(*ast.Ident); ok && x.Name == "time" && x.Obj == nil && banned[sel.Sel.Name] {
			found = append(found, fset.Position(sel.Pos()).String()+" time."+sel.Sel.Name)
		}
		return true
	})
	return found
}

// maxLines is where a file becomes two: style.md asks for about 400; a tenth
// of grace keeps the check from being about the last line.
const maxLines = 440

func TestFilesStaySmall(t *testing.T) {
	for _, p := range packages(t) {
		if strings.Contains(p.ImportPath, "/gen/") {
			continue
		}
		for _, file := range p.GoFiles {
			text, err := os.ReadFile(filepath.Join(p.Dir, file))
			if err != nil {
				t.Fatal(err)
			}
			if lines := strings.Count(string(text), "\n"); lines > maxLines {
				t.Errorf("%s/%s has %d lines; above %d a file is two", p.ImportPath, file, lines, maxLines)
			}
		}
	}
}

func TestOneGoVersion(t *testing.T) {
	root := filepath.Join("..", "..")
	mods, err := filepath.Glob(filepath.Join(root, "*", "go.mod"))
	if err != nil {
		t.Fatal(err)
	}
	deeper, err := filepath.Glob(filepath.Join(root, "*", "*", "go.mod"))
	if err != nil {
		t.Fatal(err)
	}
	files := append(append(mods, deeper...), filepath.Join(root, "go.work"))
	if len(files) < 8 {
		t.Fatalf("only %d module files found: %s", len(files), strconv.Quote(strings.Join(files, " ")))
	}
	versions := map[string][]string{}
	for _, file := range files {
		if filepath.Base(filepath.Dir(file)) == "tools" {
			continue // outside the workspace: its tools say what they need
		}
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(string(text)) {
			if version, ok := strings.CutPrefix(strings.TrimSpace(line), "go "); ok {
				versions[version] = append(versions[version], file)
			}
		}
	}
	if len(versions) != 1 {
		t.Errorf("the modules name different Go versions: %v", versions)
	}
}
