package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func line(id, status string, sequence int, start string) string {
	return fmt.Sprintf(`{"webhook_id":%q,"repeat":false,"body":{"data":{"alerts":[{"id":"a1","status":%q,"sequence":%d,`+
		`"startsAt":"2026-11-23T08:00:%sZ","labels":{"alertname":"Disabled"}}]}}}`+"\n", id, status, sequence, start)
}

func TestTheLedgerFindsWhatMustNotBe(t *testing.T) {
	fires, resolves := line("m1", "firing", 1, "00"), line("m2", "resolved", 2, "00")
	for name, test := range map[string]struct{ log, want string }{
		"an alert that fires and resolves":  {fires + resolves, ""},
		"a repeat":                          {fires + fires + resolves, ""},
		"half a line, of one that was shot": {fires + `{"webhook_id":"m`, ""},
		"a repeat with another body":        {fires + line("m1", "firing", 2, "00"), "another body"},
		"a delivery without a name":         {line("", "firing", 1, "00"), "no webhook-id"},
		"an alert that goes back":           {resolves + line("m3", "resolved", 1, "00"), "went back"},
		"one that fires after its end":      {resolves + line("m3", "firing", 3, "00"), "firing after resolved"},
		"one that begins twice":             {fires + line("m2", "resolved", 2, "09"), "began at"},
	} {
		var l ledger
		if err := l.read(test.log); err != nil {
			t.Fatal(err)
		}
		err := l.check()
		if test.want == "" && err != nil || test.want != "" && (err == nil || !strings.Contains(err.Error(), test.want)) {
			t.Errorf("%s: %v, want %q", name, err, test.want)
		}
	}
}

func TestTheLedgerGoesOnWithAnotherReceiver(t *testing.T) {
	var l ledger
	if err := l.read(line("m1", "firing", 1, "00")); err != nil {
		t.Fatal(err)
	}
	a, ok := l.firing("Disabled", nil)
	if !ok || a.ID != "a1" || l.told("Disabled") != 1 || l.told("Other") != 0 {
		t.Errorf("what fires is %+v, %t", a, ok)
	}
	if _, ok := l.firing("Disabled", l.last()); ok {
		t.Error("an alert that is known is told as new")
	}
	l.turn()
	if err := l.read(line("m1", "firing", 1, "00") + line("m2", "resolved", 2, "00")); err != nil {
		t.Fatal(err)
	}
	if l.last()["a1"].Status != "resolved" || l.deliveries() != 3 || l.repeats() != 1 || l.alerts() != 1 {
		t.Errorf("%d deliveries, %d repeats, %d alerts, last %+v", l.deliveries(), l.repeats(), l.alerts(), l.last())
	}
}

func TestTheLastStageStandsAlone(t *testing.T) {
	stage, err := finalStage(filepath.Join("..", "..", "deploy", "Dockerfile"))
	if err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(stage, "FROM scratch\n") || !strings.Contains(stage, "\nCOPY /out/service /service\n") || strings.Contains(stage, "--from") {
		t.Errorf("it is\n%s", stage)
	}
	other := filepath.Join(t.TempDir(), "Dockerfile")
	if err := os.WriteFile(other, []byte("FROM debian\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := finalStage(other); err == nil {
		t.Error("a file without such a stage is taken")
	}
}

func TestLibrariesAreThePathsThatLddShows(t *testing.T) {
	got := libraries("\tlinux-vdso.so.1 (0x00007ffd)\n\tlibm.so.6 => /lib/x86_64-linux-gnu/libm.so.6 (0x00007f)\n\t/lib64/ld-linux-x86-64.so.2 (0x00007f)\n")
	if strings.Join(got, " ") != "/lib/x86_64-linux-gnu/libm.so.6 /lib64/ld-linux-x86-64.so.2" {
		t.Errorf("they are %q", got)
	}
}
