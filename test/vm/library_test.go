package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestLibraryTable(t *testing.T) {
	line := func(text string) string { return "    harness_test.go:1: " + text + "\n" }
	result := func(lines string) []*PackageResult {
		return []*PackageResult{newPackageResult("./programs", parseLog("\x16=== RUN   TestA\n"+lines+"\x16--- PASS: TestA (0.01s)\n"), true, 0, 0)}
	}
	boots := []*Boot{
		{Kernel: Cached{Kernel: "5.10", Release: "5.10.0"}, Packages: result(
			line(`loaded: {"program":"exit","function":"b","hook":"tp_btf/x","state":"failed","error":"no such hook"}`) +
				line(`loaded: {"program":"exit","function":"a","hook":"kprobe/x","state":"attached","runs":2,"ns":10}`))},
		{Kernel: Cached{Kernel: "6.1", Release: "6.1.0"}, Packages: result(
			line(`loaded: {"program":"exit","function":"a","hook":"kprobe/x","state":"unused"}`) +
				line(`loaded: {"program":"exit","function":"b","hook":"tp_btf/x","state":"disabled"}`) +
				line(`loaded: {"program":"exit","function":"b","hook":"tp_btf/x","state":"attached","verified":7,"runs":1,"ns":100}`) +
				line(`loaded: {"program":"exit","function":"b","hook":"tp_btf/x","state":"attached","verified":9,"runs":1,"ns":200}`) +
				line(`loaded: {"program":"","function":"b"}`) + line(`loaded: {broken`))},
	}
	file := filepath.Join(t.TempDir(), "kernels.md")
	if err := writeLibrary(file, boots); err != nil {
		t.Fatal(err)
	}
	page, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"| program | function | hook | 5.10.0 | 6.1.0 |\n",
		"| `a` | `kprobe/x` | 5 ns | not needed |\n",
		"| `b` | `tp_btf/x` | no | 9 insns, 150 ns |\n",
		"* exit `b` on 5.10: no such hook\n",
	} {
		if !strings.Contains(string(page), want) {
			t.Errorf("%q is not in\n%s", want, page)
		}
	}
	if err := writeLibrary(file, boots[:0]); err == nil {
		t.Error("a table of nothing is written")
	}
}
